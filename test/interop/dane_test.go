//go:build interop

package interop

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godwit-mta/godwit/internal/delivery/tlspolicy"
	"github.com/godwit-mta/godwit/internal/dns"
	"github.com/godwit-mta/godwit/internal/dns/dnstest"
)

// startValidator serves zones from files through a real validating resolver, which believes the anchors.
func startValidator(t *testing.T, dir string, zones map[string]string, anchors ...string) netip.AddrPort {
	t.Helper()
	need(t, "unbound")
	port := freePort(t)
	var b strings.Builder
	fmt.Fprintf(&b, `server:
  interface: 127.0.0.1@%d
  access-control: 127.0.0.0/8 allow
  directory: "%s"
  pidfile: "%s"
  chroot: ""
  username: ""
  use-syslog: no
  do-daemonize: no
  num-threads: 1
  module-config: "validator iterator"
  do-not-query-localhost: yes
  val-log-level: 2
  local-zone: "test." transparent
  domain-insecure: "plain.test"
`, port, dir, filepath.Join(dir, "unbound.pid"))
	for _, a := range anchors {
		fmt.Fprintf(&b, "  trust-anchor: \"%s\"\n", strings.ReplaceAll(a, "\t", " "))
	}
	for name, text := range zones {
		fmt.Fprintf(&b, "auth-zone:\n  name: \"%s\"\n  zonefile: \"%s\"\n  for-downstream: no\n  for-upstream: yes\n  fallback-enabled: no\n",
			name, write(t, filepath.Join(dir, name+".zone"), text))
	}
	b.WriteString("remote-control:\n  control-enable: no\n")
	p := launch(t, dir, "unbound", "unbound", "-d", "-c", write(t, filepath.Join(dir, "unbound.conf"), b.String()))
	at := netip.MustParseAddrPort(fmt.Sprintf("127.0.0.1:%d", port))
	p.await(t, "socket", func() bool {
		c, err := net.DialTimeout("tcp", at.String(), time.Second)
		if err != nil {
			return false
		}
		return c.Close() == nil
	})
	return at
}

// TestDANEWithUnbound: what a real validating resolver says of signed, unsigned and forged zones is taken as RFC 7672, 2.1
// wants it.
func TestDANEWithUnbound(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "host"}, NotAfter: time.Now().Add(-time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	record := fmt.Sprintf("TLSA 3 1 1 %x", sum)
	zone := func(origin string) string {
		return strings.NewReplacer("ZONE", origin, "RECORD", record, "\t", "").Replace(`
			$TTL 60
			ZONE.             SOA ns.ZONE. hostmaster.ZONE. 1 3600 600 86400 60
			ZONE.             NS ns.ZONE.
			ns.ZONE.          A 127.0.0.1
			ZONE.             MX 10 mx.ZONE.
			mx.ZONE.          A 127.9.0.1
			_25._tcp.mx.ZONE. RECORD
			nomx.ZONE.        A 127.9.0.1
			_25._tcp.nomx.ZONE. RECORD
			without.ZONE.     MX 10 bare.ZONE.
			bare.ZONE.        A 127.9.0.1
			alias.ZONE.       MX 10 cn.ZONE.
			cn.ZONE.          CNAME mx.ZONE.
			leads.ZONE.       MX 10 out.ZONE.
			out.ZONE.         CNAME mx.plain.test.
			_25._tcp.out.ZONE. RECORD
			elsewhere.ZONE.   MX 10 mx.plain.test.
			short.ZONE.       MX 10 mx3.ZONE.
			mx3.ZONE.         A 127.9.0.1
			_25._tcp.mx3.ZONE. TYPE52 \# 3 030101
			forged.ZONE.      MX 10 mx4.ZONE.
			mx4.ZONE.         A 127.9.0.1
			_25._tcp.mx4.ZONE. TLSA 3 1 1 1111111111111111111111111111111111111111111111111111111111111111
			hidden.ZONE.      MX 10 mx5.ZONE.
			mx5.ZONE.         A 127.9.0.1
			forgedmx.ZONE.    MX 10 mx.ZONE.
		`)
	}
	sign := func(origin string, until time.Time) *dnstest.Signed {
		s, err := dnstest.Sign(origin, zone(origin), until)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	good, old, other := sign("signed.test", time.Now().Add(time.Hour)), sign("old.test", time.Now().Add(-72*time.Hour)), sign("rekeyed.test", time.Now().Add(time.Hour))
	// Forged: a record that its signature does not fit, a denial that is missing, an MX that leads elsewhere.
	text := strings.ReplaceAll(good.Text, strings.Repeat("1", 64), strings.Repeat("2", 64))
	var kept []string
	for l := range strings.Lines(text) {
		if strings.HasPrefix(l, "mx5.signed.test.") && strings.Contains(l, "NSEC") || strings.HasPrefix(l, "forgedmx.") && strings.Contains(l, "RRSIG\tMX") {
			continue
		}
		kept = append(kept, l)
	}
	at := startValidator(t, t.TempDir(), map[string]string{
		"signed.test": strings.Join(kept, ""), "old.test": old.Text, "rekeyed.test": other.Text, "plain.test": zone("plain.test"),
	}, good.Anchor, old.Anchor, sign("rekeyed.test", time.Now().Add(time.Hour)).Anchor)

	for _, trust := range []dns.Trust{dns.TrustLoopback, dns.TrustNone} {
		resolver, err := dns.New(dns.Options{Servers: []netip.AddrPort{at}, Trust: trust})
		if err != nil {
			t.Fatal(err)
		}
		p, err := tlspolicy.New(tlspolicy.Options{Resolver: resolver})
		if err != nil {
			t.Fatal(err)
		}
		for _, tc := range []struct{ domain, want string }{
			{"signed.test", "dane mx.signed.test"},
			{"nomx.signed.test", "dane nomx.signed.test"},
			{"alias.signed.test", "dane mx.signed.test"},
			{"leads.signed.test", "dane out.signed.test"},
			{"without.signed.test", "nothing"},
			{"elsewhere.signed.test", "nothing"},
			{"short.signed.test", "tls"},
			{"forged.signed.test", "skip dnssec-invalid"},
			{"hidden.signed.test", "skip dnssec-invalid"},
			{"forgedmx.signed.test", "no MX: temporary"},
			{"plain.test", "nothing"},
			{"alias.plain.test", "nothing"},
			{"short.plain.test", "nothing"},
			{"old.test", "no MX: temporary"},
			{"rekeyed.test", "no MX: temporary"},
		} {
			want := tc.want
			if trust == dns.TrustNone && !strings.HasPrefix(want, "no MX") {
				want = "nothing"
			}
			if got := judge(t, p, resolver, tc.domain, cert); got != want {
				t.Errorf("%s, trust %d: %s, want %s", tc.domain, trust, got, want)
			}
		}
	}
}

// judge says in a few words what holds towards the first host of a domain.
func judge(t *testing.T, p *tlspolicy.Policies, r *dns.Resolver, domain string, cert *x509.Certificate) string {
	t.Helper()
	mx, err := r.LookupMX(t.Context(), domain)
	if err != nil {
		return "no MX: " + err.(*dns.Error).Kind.String()
	}
	host := mx.Hosts[0].Name
	addrs, err := r.LookupAddrs(t.Context(), host)
	if err != nil {
		return "no address: " + err.Error()
	}
	plan := p.Domain(t.Context(), domain).Host(t.Context(), &mx, host, &addrs)
	switch {
	case plan.Skip != nil:
		return "skip " + string(plan.Skip.Type)
	case plan.Verify != nil:
		if fail := plan.Verify(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}); fail != nil {
			return fail.Error()
		}
		return "dane " + plan.Domain
	case plan.Required:
		return "tls"
	}
	return "nothing"
}
