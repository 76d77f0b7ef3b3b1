//go:build interop

package interop

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// knot is Knot DNS, a primary and a secondary of one zone. The primary takes updates that a key signs (RFC 2136, RFC 8945). It
// tells the secondary nothing, which asks by itself every other second, so that it is late.
type knot struct {
	primary, secondary string // addresses
	keyName, secret    string
}

// faketime is the library that lets a program have another clock.
const faketime = "/usr/lib/*/faketime/libfaketimeMT.so.1"

// startKnot serves zone. Its servers take the distance of their clock from the right one from a file.
func startKnot(t *testing.T, dir, zone, clockFile string) *knot {
	t.Helper()
	need(t, "knotd")
	library, _ := filepath.Glob(faketime) // the pattern is good
	if len(library) == 0 {
		lack(t, "libfaketime, which moves the clock of knotd,")
	}
	k := &knot{
		primary: freeAddress(t), secondary: freeAddress(t), keyName: "godwit", secret: "c2VjcmV0IG9mIHRoZSB1cGRhdGVzIG9mIHRlc3Q=",
	}
	write(t, filepath.Join(dir, "primary", zone+".zone"), fmt.Sprintf(`$ORIGIN %s.
$TTL 300
@ SOA ns hostmaster 1 2 1 31536000 60
@ NS ns
ns A 127.0.0.1
`, zone))
	const config = `server:
    rundir: "%[1]s"
    listen: %[2]s
    automatic-acl: off
log:
  - target: stderr
    any: info
database:
    storage: "%[1]s"
key:
  - id: %[3]s
    algorithm: hmac-sha256
    secret: %[4]s
remote:
  - id: primary
    address: %[5]s
acl:
  - id: update
    key: %[3]s
    action: update
  - id: transfer
    address: 127.0.0.0/8
    action: transfer
zone:
  - domain: %[6]s
    storage: "%[1]s"
    file: "%[6]s.zone"
%[7]s`
	for _, s := range []struct{ name, listen, zone string }{
		{"primary", k.primary, "    acl: [update, transfer]\n"},
		{"secondary", k.secondary, "    master: primary\n    refresh-min-interval: 2s\n    refresh-max-interval: 2s\n"},
	} {
		home := filepath.Join(dir, s.name)
		text := fmt.Sprintf(config, home, knotAddress(s.listen), k.keyName, k.secret, knotAddress(k.primary), zone, s.zone)
		file := write(t, filepath.Join(home, "knot.conf"), text)
		p := launch(t, home, "knot-"+s.name, "env", "LD_PRELOAD="+library[0], "FAKETIME_TIMESTAMP_FILE="+clockFile, "FAKETIME_NO_CACHE=1",
			"FAKETIME_DONT_FAKE_MONOTONIC=1", "knotd", "-c", file)
		p.await(t, "socket at "+s.listen, func() bool {
			c, err := net.DialTimeout("tcp", s.listen, time.Second)
			return err == nil && c.Close() == nil
		})
	}
	return k
}

// knotAddress writes an address as its configuration has it.
func knotAddress(address string) string {
	host, port, _ := net.SplitHostPort(address) // it is one
	return host + "@" + port
}

// freeAddress finds a port that is free for UDP and TCP.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 50 {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.ListenPacket("udp4", l.Addr().String())
		l.Close()
		if err == nil {
			c.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no port is free for UDP and TCP")
	return ""
}

// setClock tells servers of libfaketime how far to be from the right time.
func setClock(t *testing.T, file string, ahead time.Duration) {
	t.Helper()
	temporary := file + ".new"
	if err := os.WriteFile(temporary, fmt.Appendf(nil, "+%d", int64(ahead/time.Second)), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(temporary, file); err != nil {
		t.Fatal(err)
	}
}
