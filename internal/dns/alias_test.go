package dns_test

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/godwit-mta/godwit/internal/dns"
	"github.com/godwit-mta/godwit/internal/dns/dnstest"
)

func TestLookupAlias(t *testing.T) {
	t.Parallel()
	s := dnstest.Start(t, `
		plain.example.   TXT   "x"
		other.example.   A     192.0.2.1
		alias.example.   CNAME plain.example.
		twice.example.   CNAME alias.example.
		nowhere.example. CNAME gone.example.
		circle.example.  CNAME circle.example.
	`)
	s.Fail("fails.example", dnstest.Behaviour{Rcode: "SERVFAIL"})
	r, err := dns.New(dns.Options{Servers: []netip.AddrPort{s.Addr()}, Tries: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, want string
		kind       dns.Kind
	}{
		{"alias.example", "plain.example", 0},
		{"ALIAS.example.", "plain.example", 0},
		{"twice.example", "plain.example", 0},
		{"nowhere.example", "gone.example", 0},
		{"plain.example", "", 0},
		{"other.example", "", 0},
		{"gone.example", "", dns.NXDomain},
		{"fails.example", "", dns.Temporary},
		{"circle.example", "", dns.Loop},
		{"no name", "", dns.Malformed},
	} {
		got, err := r.LookupAlias(t.Context(), c.name)
		var e *dns.Error
		if got != c.want || (c.kind != 0) != (err != nil) || err != nil && (!errors.As(err, &e) || e.Kind != c.kind) {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
	}
}
