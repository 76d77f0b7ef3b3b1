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
	dir    string
	net    int // third octet of the addresses
	port   int
	binary string
	godwit *godwit
	inlet  struct{ host, port string }

	box  *mailbox // Postfix: everybody's
	home *mailbox // Postfix: app.example, where senders are and reports come back to
}

// The last octets of the addresses.
const (
	atGodwit  = 1
	atPostfix = 25
	atUnbound = 53
	atNobody  = 99 // no server
)

func (s *site) host(last int) string { return fmt.Sprintf("127.42.%d.%d", s.net, last) }

func (s *site) at(last int) string { return fmt.Sprintf("%s:%d", s.host(last), s.port) }

// startSite starts everything; what is started is stopped when t ends.
func startSite(t *testing.T) *site {
	t.Helper()
	need(t, "unbound", "python3")
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
	s := &site{dir: dir, binary: buildGodwit(t, dir)}
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
	for _, last := range []int{atGodwit, atPostfix, atUnbound, atNobody} {
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
	records := []string{
		"box.example. 60 IN MX 10 mx.box.example.",
		"mx.box.example. 60 IN A " + s.host(atPostfix),
		"app.example. 60 IN MX 10 mx.app.example.",
		"mx.app.example. 60 IN A " + s.host(atPostfix),
	}
	startUnbound(t, s.peerDir(t, "dns"), s.at(atUnbound), records)
	dir := s.peerDir(t, "postfix")
	startPostfix(t, dir, []string{"box.example", "app.example"}, []postfixDoor{{address: s.at(atPostfix)}})
	s.box = newMailbox(filepath.Join(dir, "mail", "box"))
	s.home = newMailbox(filepath.Join(dir, "mail", "app"))
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
`, dir, s.at(atGodwit), s.at(atUnbound), s.port)
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
