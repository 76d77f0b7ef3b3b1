//go:build interop

package interop

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// startExim takes all mail into the maildir mail/, except for local parts that begin with "unknown", and says 421 after
// five messages of a session. It is what scripts/interop has unpacked, since its package and Postfix's exclude each other.
func startExim(t *testing.T, dir, address string) {
	t.Helper()
	program := filepath.Join(unpacked(t), "exim", "usr", "sbin", "exim4")
	if _, err := os.Stat(program); err != nil {
		lack(t, program)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"spool", "log", "mail"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
		mustRun(t, "chown", "Debian-exim", filepath.Join(dir, d))
	}
	// It runs itself for each message, as its own user: from a place that one can enter, and without becoming root again.
	mustRun(t, "cp", program, dir)
	program = filepath.Join(dir, filepath.Base(program))
	config := write(t, filepath.Join(dir, "exim.conf"), fmt.Sprintf(`exim_path = %[2]s
spool_directory = %[1]s/spool
log_file_path = %[1]s/log/%%slog
pid_file_path = %[1]s/exim.pid
primary_hostname = exim.example
daemon_smtp_ports = %[4]s
local_interfaces = %[3]s
disable_ipv6
host_lookup =
rfc1413_hosts =
tls_advertise_hosts =
smtputf8_advertise_hosts = *
message_size_limit = 60M
keep_environment =
never_users =
deliver_drop_privilege
smtp_accept_queue_per_connection = 0
smtp_accept_max_per_connection = 5
acl_smtp_rcpt = rcpt

begin acl
rcpt:
  deny local_parts = ^unknown
       message = no such person here
  accept

begin routers
all:
  driver = accept
  transport = maildir

begin transports
maildir:
  driver = appendfile
  maildir_format
  directory = %[1]s/mail
  return_path_add
  envelope_to_add
  delivery_date_add
  check_string =
`, dir, program, host, port))
	p := launch(t, dir, "exim", program, "-C", config, "-bdf")
	p.more = append(p.more, filepath.Join(dir, "log", "mainlog"), filepath.Join(dir, "log", "paniclog"))
	p.awaitGreeting(t, address)
}

// unpacked is the directory of what scripts/interop has fetched and not installed.
func unpacked(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("INTEROP_DIR"); dir != "" {
		return dir
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(cache, "godwit-interop")
}
