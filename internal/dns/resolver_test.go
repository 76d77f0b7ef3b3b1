package dns_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/godwit-mta/godwit/internal/dns"
	"github.com/godwit-mta/godwit/internal/dns/dnstest"
)

func newResolver(t testing.TB, s *dnstest.Server, o dns.Options) *dns.Resolver {
	t.Helper()
	if o.Servers == nil {
		o.Servers = []netip.AddrPort{s.Addr()}
	}
	r, err := dns.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestLookup(t *testing.T) {
	t.Parallel()
	s := dnstest.Start(t, `
		example.com.     MX    20 mx2.example.net.
		example.com.     MX    10 MX1.example.com.
		mx1.example.com. A     192.0.2.1
		mx1.example.com. A     192.0.2.2
		mx1.example.com. AAAA  2001:db8::1
		implicit.example. A    192.0.2.3
		text.example.    TXT   "v=spf1 \"quoted\" " "back\\slash \200"
	`)
	r := newResolver(t, s, dns.Options{})
	mx, err := r.LookupMX(t.Context(), "EXAMPLE.com.")
	if err != nil {
		t.Fatal(err)
	}
	want := []dns.Host{{Name: "mx1.example.com", Preference: 10}, {Name: "mx2.example.net", Preference: 20}}
	if !slices.Equal(mx.Hosts, want) || mx.Implicit || mx.Site != "mx1.example.com,mx2.example.net" {
		t.Errorf("got %+v", mx)
	}
	a, err := r.LookupAddrs(t.Context(), "mx1.example.com")
	if err != nil || len(a.IPs) != 3 || a.IPs[0] != netip.MustParseAddr("2001:db8::1") {
		t.Errorf("got %+v, %v", a, err)
	}
	mx, err = r.LookupMX(t.Context(), "implicit.example")
	if err != nil || !mx.Implicit || mx.Hosts[0].Name != "implicit.example" || mx.Site != "implicit.example" {
		t.Errorf("implicit: %+v, %v", mx, err)
	}
	txt, err := r.LookupTXT(t.Context(), "text.example")
	if err != nil || !slices.Equal(txt.Records, []string{"v=spf1 \"quoted\" back\\slash \xc8"}) {
		t.Errorf("TXT: %q, %v", txt.Records, err)
	}
}
