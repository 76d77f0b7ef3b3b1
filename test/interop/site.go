//go:build interop

package interop

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// site is the world on loopback that the dialogs happen in. All mail hosts share one port on addresses of their own.
type site struct {
	short  bool
	dir    string
	net    int // third octet of the addresses
	port   int
	binary string
	godwit *godwit
	grey   *greylist
	inlet  struct{ host, port string }

	box     *mailbox // Postfix: everybody's
	home    *mailbox // Postfix: app.example, where senders are and reports come back to
	exim    *mailbox
	dovecot *mailbox
}

// The last octets of the addresses.
const (
	atGodwit  = 1
	atPostfix = 25
	atExim    = 26
	atDovecot = 27
	atOld     = 28 // Postfix, without any extension
	atSmall   = 29 // Postfix, for messages up to smallLimit, and it says so
	atMute    = 30 // the same, and it does not say so
	atGrey    = 31 // Postfix, with greylisting
	atPolicy  = 32 // the greylist that it asks
	atTired   = 33 // Postfix, which ends sessions that are idle for a second
	atUnbound = 53
	atNobody  = 99 // no server
)

// smallLimit is the message size limit of small.example and mute.example.
const smallLimit = 100_000

func (s *site) host(last int) string { return fmt.Sprintf("127.42.%d.%d", s.net, last) }

func (s *site) at(last int) string { return fmt.Sprintf("%s:%d", s.host(last), s.port) }

// startSite starts everything; what is started is stopped when t ends.
func startSite(t *testing.T) *site {
	t.Helper()
	if os.Getuid() != 0 {
		lack(t, "root, as whom Postfix starts,")
	}
	need(t, "unbound", "postfix", "python3")
	// Not t.TempDir: servers that drop their privileges must be able to enter it, and paths of sockets are short.
	dir, err := os.MkdirTemp("", "godwit-interop-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := &site{dir: dir, binary: buildGodwit(t, dir), short: os.Getenv("INTEROP_SHORT") == "1"}
	s.findPort(t)
	s.startPeers(t)
	s.startGodwit(t)
	return s
}

// findPort looks for a port that is free on all addresses.
func (s *site) findPort(t *testing.T) {
	t.Helper()
	s.net = os.Getpid()%250 + 1
	for range 20 {
		if s.tryPort() {
			return
		}
	}
	t.Fatalf("no port is free on the addresses 127.42.%d.x", s.net)
}

func (s *site) tryPort() bool {
	s.port = 0
	for _, last := range []int{
		atGodwit, atPostfix, atExim, atDovecot, atOld, atSmall, atMute, atGrey, atPolicy, atTired, atUnbound, atNobody,
	} {
		l, err := net.Listen("tcp4", s.at(last))
		if err != nil {
			return false
		}
		defer l.Close()
		s.port = l.Addr().(*net.TCPAddr).Port
	}
	c, err := net.ListenPacket("udp4", s.at(atUnbound))
	if err != nil {
		return false
	}
	return c.Close() == nil
}

func (s *site) startPeers(t *testing.T) {
	t.Helper()
	startUnbound(t, s.peerDir(t, "dns"), s.at(atUnbound), s.records())
	s.grey = startGreylist(t, s.at(atPolicy))
	dir := s.peerDir(t, "postfix")
	limit := fmt.Sprintf("message_size_limit=%d", smallLimit)
	startPostfix(t, dir, s.postfixDomains(), []postfixDoor{
		{address: s.at(atPostfix)},
		{s.at(atOld), []string{"smtpd_discard_ehlo_keywords=pipelining,size,8bitmime,smtputf8,dsn,chunking,enhancedstatuscodes"}},
		{s.at(atSmall), []string{limit}},
		{s.at(atMute), []string{limit, "smtpd_discard_ehlo_keywords=size,chunking"}},
		{s.at(atGrey), []string{"smtpd_recipient_restrictions=check_policy_service,inet:" + s.at(atPolicy)}},
		{s.at(atTired), []string{"smtpd_timeout=1s"}},
	})
	s.box = newMailbox(filepath.Join(dir, "mail", "box"))
	s.home = newMailbox(filepath.Join(dir, "mail", "app"))
	if s.short {
		return
	}
	dir = s.peerDir(t, "exim")
	startExim(t, dir, s.at(atExim))
	s.exim = newMailbox(filepath.Join(dir, "mail"))
	dir = s.peerDir(t, "dovecot")
	startDovecot(t, dir, s.at(atDovecot))
	s.dovecot = newMailbox(filepath.Join(dir, "mail"))
}

// mailHosts are the domains with one MX of their own, and where that is.
func mailHosts() map[string]int {
	return map[string]int{
		"box.example": atPostfix, "app.example": atPostfix, "exim.example": atExim, "old.example": atOld,
		"small.example": atSmall, "mute.example": atMute, "grey.example": atGrey, "tired.example": atTired,
	}
}

func (s *site) postfixDomains() []string {
	domains := []string{"second.example", "alias.example", "real.example", "plain.example", "xn--mnchen-3ya.example", "münchen.example"}
	for d, at := range mailHosts() {
		if at != atExim {
			domains = append(domains, d)
		}
	}
	return domains
}

func (s *site) records() []string {
	records := []string{
		// The first choice is down.
		"second.example. 60 IN MX 10 nobody.example.",
		"second.example. 60 IN MX 20 mx.box.example.",
		"nobody.example. 60 IN A " + s.host(atNobody),
		// An alias, a domain without MX, one that takes no mail (RFC 7505), and one with letters beyond ASCII.
		"alias.example. 60 IN CNAME real.example.",
		"real.example. 60 IN MX 10 mx.box.example.",
		"plain.example. 60 IN A " + s.host(atPostfix),
		"nomail.example. 60 IN MX 0 .",
		"xn--mnchen-3ya.example. 60 IN MX 10 mx.box.example.",
	}
	for domain, at := range mailHosts() {
		records = append(records, domain+". 60 IN MX 10 mx."+domain+".", "mx."+domain+". 60 IN A "+s.host(at))
	}
	return records
}

func (s *site) startGodwit(t *testing.T) {
	t.Helper()
	dir := s.peerDir(t, "godwit")
	s.inlet.host, s.inlet.port = s.host(atGodwit), fmt.Sprint(s.port)
	config := fmt.Sprintf(`hostname: godwit.example
data_dir: %s/data
log: {format: json}
listeners:
  - {name: relay, address: "%s", trusted_networks: [127.0.0.0/8]}
dns: {servers: ["%s"]}
delivery:
  port: %d
  allowed_networks: [127.0.0.0/8]
routes:
  - {domains: [dovecot.example], hosts: ["%s"], protocol: lmtp}
`, dir, s.at(atGodwit), s.at(atUnbound), s.port, s.at(atDovecot))
	s.godwit = startGodwit(t, dir, s.binary, config)
}

func (s *site) peerDir(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(s.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
