//go:build interop

package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const nobody = 65534

// postfixDoor is one smtpd of the instance with options of its own.
type postfixDoor struct {
	address string
	options []string // name=value, without spaces
}

// startPostfix runs one instance that takes all mail for domains into maildirs: that of app into app/, all other into box/.
// Local parts that begin with "unknown" do not exist, and a subject with "forbidden" is refused after the data. A
// transaction takes 300 recipients.
func startPostfix(t *testing.T, dir string, domains []string, doors []postfixDoor) {
	t.Helper()
	etc := filepath.Join(dir, "etc")
	for _, d := range []string{"etc", "spool", "data"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mustRun(t, "chown", "postfix", filepath.Join(dir, "data"))
	users := write(t, filepath.Join(etc, "users"), "if !/^unknown/\n/@app\\.example$/ app/\n/./ box/\nendif\n")
	checks := write(t, filepath.Join(etc, "header_checks"), "/^Subject:.*forbidden/ REJECT 5.7.1 That subject is not welcome here\n")
	write(t, filepath.Join(etc, "main.cf"), fmt.Sprintf(`compatibility_level = 3.6
queue_directory = %[1]s/spool
data_directory = %[1]s/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = %[1]s/mail.log
maillog_file_prefixes = %[1]s
myhostname = postfix.example
mydestination =
alias_maps =
local_recipient_maps =
local_transport = error:no local mail
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
local_header_rewrite_clients =
smtp_dns_support_level = disabled
default_transport = error:mail leaves by nobody but godwit
smtpd_peername_lookup = no
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_limit = 300
smtpd_recipient_overshoot_limit = 2000
smtpd_error_sleep_time = 0
smtpd_hard_error_limit = 5000
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_tls_security_level = none
smtputf8_enable = yes
header_checks = regexp:%[3]s
message_size_limit = 60000000
virtual_mailbox_limit = 0
virtual_mailbox_domains = %[4]s
virtual_mailbox_base = %[1]s/mail
virtual_mailbox_maps = regexp:%[2]s
virtual_uid_maps = static:%[5]d
virtual_gid_maps = static:%[5]d
in_flow_delay = 0
`, dir, users, checks, strings.Join(domains, " "), nobody))
	if err := os.Mkdir(filepath.Join(dir, "mail"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "mail"), 0o777); err != nil {
		t.Fatal(err)
	}
	var master strings.Builder
	for _, d := range doors {
		fmt.Fprintf(&master, "%s inet n - n - - smtpd\n", d.address)
		for _, o := range d.options {
			fmt.Fprintf(&master, "  -o %s\n", o)
		}
	}
	master.WriteString(`pickup    unix n - n 60 1 pickup
cleanup   unix n - n - 0 cleanup
qmgr      unix n - n 300 1 qmgr
rewrite   unix - - n - - trivial-rewrite
bounce    unix - - n - 0 bounce
defer     unix - - n - 0 bounce
trace     unix - - n - 0 bounce
verify    unix - - n - 1 verify
flush     unix n - n 1000? 0 flush
proxymap  unix - - n - - proxymap
showq     unix n - n - - showq
error     unix - - n - - error
retry     unix - - n - - error
virtual   unix - n n - - virtual
anvil     unix - - n - 1 anvil
postlog   unix-dgram n - n - 1 postlogd
`)
	write(t, filepath.Join(etc, "master.cf"), master.String())
	mustRun(t, "postfix", "-c", etc, "check") // makes the queue's folders
	// Without a script around it and as leader of its group, which it ends with itself.
	p := launch(t, dir, "postfix", "/usr/lib/postfix/sbin/master", "-c", etc, "-d")
	p.more = append(p.more, filepath.Join(dir, "mail.log"))
	for _, d := range doors {
		p.awaitGreeting(t, d.address)
	}
}

func mustRun(t *testing.T, argv ...string) {
	t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(argv, " "), err, out)
	}
}
