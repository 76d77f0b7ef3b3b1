package dns

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	wire "github.com/miekg/dns"
)

// TestOneFamilyBroken: who breaks the answer for one family does not make a signed host look unsigned.
func TestOneFamilyBroken(t *testing.T) {
	t.Parallel()
	one := []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	holds := time.Now().Add(time.Hour)
	signed, unsigned := &answer{addrs: one, authentic: true, expires: holds}, &answer{addrs: one, expires: holds}
	none := &answer{err: &Error{Kind: NoRecord}, authentic: true, expires: holds}
	unsignedNone := &answer{err: &Error{Kind: NoRecord}, expires: holds}
	broken := &answer{err: &Error{Kind: Temporary}, expires: holds}
	for _, tc := range []struct {
		name   string
		v4, v6 *answer
		want   bool
	}{
		{"both signed", signed, signed, true}, {"one not", signed, unsigned, false}, {"one is not there", signed, none, true},
		{"nobody vouches that one is not there", signed, unsignedNone, false},
		{"one broken", signed, broken, true}, {"one broken, unsigned", unsigned, broken, false},
	} {
		for _, swap := range []bool{false, true} {
			r, err := New(Options{Servers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}})
			if err != nil {
				t.Fatal(err)
			}
			v4, v6 := tc.v4, tc.v6
			if swap {
				v4, v6 = v6, v4
			}
			r.cache.put(key{"mx.example", wire.TypeA}, v4, time.Now())
			r.cache.put(key{"mx.example", wire.TypeAAAA}, v6, time.Now())
			a, err := r.LookupAddrs(t.Context(), "mx.example")
			if err != nil || a.Authentic != tc.want {
				t.Errorf("%s: %+v, %v", tc.name, a, err)
			}
		}
	}
}

// FuzzShieldTLSA: whatever comes, nothing but the types of short TLSA records changes.
func FuzzShieldTLSA(f *testing.F) {
	m := new(wire.Msg)
	m.SetQuestion("_25._tcp.mx.example.", wire.TypeTLSA)
	m.Response = true
	h := wire.RR_Header{Name: "_25._tcp.mx.example.", Rrtype: wire.TypeTLSA, Class: wire.ClassINET, Ttl: 60}
	m.Answer = []wire.RR{&wire.TLSA{Hdr: h, Usage: 3, Selector: 1, MatchingType: 1, Certificate: "0102"}, &wire.RFC3597{Hdr: h, Rdata: "03"},
		&wire.RFC3597{Hdr: h}, &wire.RFC3597{Hdr: h, Rdata: "030101"}}
	for _, compress := range []bool{false, true} {
		m.Compress = compress
		p, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p)
		f.Add(p[:len(p)-3])
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		q := bytes.Clone(p)
		shieldTLSA(q)
		before := new(wire.Msg)
		if before.Unpack(p) != nil {
			return
		}
		after := new(wire.Msg)
		if err := after.Unpack(q); err != nil || len(after.Answer) != len(before.Answer) || len(after.Ns) != len(before.Ns) {
			t.Fatalf("a message that could be read cannot any more: %v", err)
		}
		for i, rr := range before.Answer {
			b, a := rr.Header(), after.Answer[i].Header()
			short := b.Rrtype == wire.TypeTLSA && b.Rdlength < 3
			if short != (a.Rrtype == shortTLSA) && b.Rrtype != shortTLSA || !short && a.Rrtype != b.Rrtype {
				t.Fatalf("%v became %v", b, a)
			}
		}
	})
}
