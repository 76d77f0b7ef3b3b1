//go:build interop

package interop

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// startDovecot takes all mail over LMTP into the maildir mail/, except for local parts with an underscore, which are
// unknown users.
func startDovecot(t *testing.T, dir, address string) {
	t.Helper()
	need(t, "dovecot")
	if _, err := os.Stat("/usr/lib/dovecot/lmtp"); err != nil {
		lack(t, "dovecot-lmtpd")
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"mail", "home"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
		mustRun(t, "chown", fmt.Sprint(nobody), filepath.Join(dir, d))
	}
	config := write(t, filepath.Join(dir, "dovecot.conf"), fmt.Sprintf(`protocols = lmtp
base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = /dev/stderr
hostname = dovecot.example
ssl = no
mail_location = maildir:%[1]s/mail
auth_username_chars = abcdefghijklmnopqrstuvwxyz0123456789.-@
passdb {
  driver = static
  args = nopassword=y
}
userdb {
  driver = static
  args = uid=%[2]d gid=%[2]d home=%[1]s/home allow_all_users=yes
}
service lmtp {
  inet_listener lmtp {
    address = %[3]s
    port = %[4]s
  }
}
`, dir, nobody, host, port))
	launch(t, dir, "dovecot", "dovecot", "-F", "-c", config).awaitGreeting(t, address)
}
