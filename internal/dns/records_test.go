package dns_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/godwit-mta/godwit/internal/dns"
	"github.com/godwit-mta/godwit/internal/dns/dnstest"
)

// TestRecords finds records as they stand: nothing implicit, one family, names of addresses.
func TestRecords(t *testing.T) {
	t.Parallel()
	s := dnstest.Start(t, `
		both.test.          A    192.0.2.1
		both.test.          AAAA 2001:db8::1
		four.test.          A    192.0.2.4
		nomail.test.        MX   0 .
		mx.test.            MX   20 b.test.
		mx.test.            MX   10 a.test.
		ann+list=b.spf.test. A   127.0.0.2
		1.2.0.192.in-addr.arpa. PTR Both.test.
		1.2.0.192.in-addr.arpa. PTR other.test.
		4.2.0.192.in-addr.arpa. CNAME 4.0/25.2.0.192.in-addr.arpa.
		4.0/25.2.0.192.in-addr.arpa. PTR four.test.
		1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. PTR both.test.
	`)
	r := newResolver(t, s, dns.Options{})
	check := func(what string, got []string, err error, want []string, kind dns.Kind) {
		t.Helper()
		slices.Sort(got)
		if !slices.Equal(got, want) || kindOf(t, err) != kind {
			t.Errorf("%s: got %v, %v, want %v, %v", what, got, err, want, kind)
		}
	}
	for _, c := range []struct {
		name string
		six  bool
		want []string
		kind dns.Kind
	}{
		{"both.test", false, []string{"192.0.2.1"}, 0},
		{"both.test", true, []string{"2001:db8::1"}, 0},
		{"FOUR.test.", true, nil, dns.NoRecord},
		{"none.test", false, nil, dns.NXDomain},
		{"Ann+list=b.spf.test", false, []string{"127.0.0.2"}, 0},
		{"a(b.spf.test", false, nil, dns.Malformed},
		{"a..test", false, nil, dns.Malformed},
		{"192.0.2.1", false, nil, dns.Malformed},
	} {
		list, err := r.LookupFamily(t.Context(), c.name, c.six)
		var got []string
		for _, a := range list {
			got = append(got, a.String())
		}
		check(c.name, got, err, c.want, c.kind)
	}
	for name, want := range map[string][]string{"mx.test": {"a.test", "b.test"}, "four.test": nil, "nomail.test": nil, "none.test": nil} {
		kind := map[string]dns.Kind{"four.test": dns.NoRecord, "nomail.test": dns.NullMX, "none.test": dns.NXDomain}[name]
		got, err := r.LookupMXRecords(t.Context(), name)
		check(name, got, err, want, kind)
	}
	for addr, want := range map[string][]string{
		"192.0.2.1": {"both.test", "other.test"}, "::ffff:192.0.2.1": {"both.test", "other.test"}, "192.0.2.4": {"four.test"},
		"2001:db8::1": {"both.test"}, "192.0.2.9": nil,
	} {
		kind := dns.Kind(0)
		if want == nil {
			kind = dns.NXDomain
		}
		got, err := r.LookupPTR(t.Context(), netip.MustParseAddr(addr))
		check(addr, got, err, want, kind)
	}
}
