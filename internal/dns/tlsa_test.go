package dns_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/godwit-mta/godwit/internal/dns"
	"github.com/godwit-mta/godwit/internal/dns/dnstest"
)

func TestLookupTLSA(t *testing.T) {
	t.Parallel()
	s := dnstest.Start(t, `
		_25._tcp.mx.example.   TLSA 3 1 1 0102
		_25._tcp.mx.example.   TLSA 2 0 0 ff
		_25._tcp.cn.example.   CNAME _25._tcp.mx.example.
		_25._tcp.cut.example.  CNAME _25._tcp.mx.example.
		_25._tcp.bogus.example. TLSA 3 1 1 0102
		none.example.          A 192.0.2.1
	`)
	s.Fail("_25._tcp.mx.example", dnstest.Behaviour{Authentic: true})
	s.Fail("_25._tcp.cut.example", dnstest.Behaviour{CutAliases: true}) // this part of the way is not signed
	s.Fail("_25._tcp.cn.example", dnstest.Behaviour{Authentic: true})
	s.Fail("_25._tcp.bogus.example", dnstest.Behaviour{Rcode: "SERVFAIL"})
	r := newResolver(t, s, dns.Options{})
	records := []dns.TLSARecord{{Usage: 3, Selector: 1, Matching: 1, Data: []byte{1, 2}}, {Usage: 2, Data: []byte{0xff}}}
	for _, tc := range []struct {
		name string
		want dns.TLSA
		kind dns.Kind
	}{
		{"_25._tcp.mx.example", dns.TLSA{Records: records, Authentic: true}, 0},
		{"_25._tcp.MX.example.", dns.TLSA{Records: records, Authentic: true}, 0},
		{"_25._tcp.cn.example", dns.TLSA{Records: records, Authentic: true}, 0},
		{"_25._tcp.cut.example", dns.TLSA{Records: records}, 0},
		{"_25._tcp.bogus.example", dns.TLSA{}, dns.Temporary},
		{"none.example", dns.TLSA{}, dns.NoRecord},
		{"_25._tcp.none.example", dns.TLSA{}, dns.NXDomain},
		{"a b.example", dns.TLSA{}, dns.Malformed},
	} {
		got, err := r.LookupTLSA(t.Context(), tc.name)
		var e *dns.Error
		if errors.As(err, &e) != (tc.kind != 0) || e != nil && (e.Kind != tc.kind || e.Type != "TLSA") {
			t.Errorf("%s: %v", tc.name, err)
		}
		if d := cmp.Diff(tc.want, got); d != "" {
			t.Errorf("%s: %s", tc.name, d)
		}
	}
}

// TestLookupCNAME: the record itself is judged, not what it leads to.
func TestLookupCNAME(t *testing.T) {
	t.Parallel()
	s := dnstest.Start(t, `
		cn.example.   CNAME mx.plain.
		mx.plain.     A 192.0.2.1
		host.example. A 192.0.2.2
	`)
	s.Fail("cn.example", dnstest.Behaviour{Authentic: true, Types: []string{"CNAME"}})
	r := newResolver(t, s, dns.Options{})
	if got, err := r.LookupCNAME(t.Context(), "CN.example"); err != nil || got.Target != "mx.plain" || !got.Authentic {
		t.Errorf("%+v %v", got, err)
	}
	if a, err := r.LookupAddrs(t.Context(), "cn.example"); err != nil || a.Authentic || a.Name != "mx.plain" {
		t.Errorf("%+v %v", a, err)
	}
	var e *dns.Error
	if _, err := r.LookupCNAME(t.Context(), "host.example"); !errors.As(err, &e) || e.Kind != dns.NoRecord {
		t.Errorf("no alias: %v", err)
	}
	if _, err := r.LookupCNAME(t.Context(), "nowhere.example"); !errors.As(err, &e) || e.Kind != dns.NXDomain {
		t.Errorf("nothing: %v", err)
	}
}
