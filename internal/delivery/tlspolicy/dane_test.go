package tlspolicy

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"testing"

	"github.com/godwit-mta/godwit/internal/dns"
	"github.com/godwit-mta/godwit/internal/dns/dnstest"
)

var secureMX = &dns.MX{Authentic: true, Name: "a.test"}

func secureAddrs(name string) *dns.Addrs { return &dns.Addrs{Authentic: true, Name: name} }

func daneBed(t *testing.T) *bed {
	t.Helper()
	return newBed(t, func(o *Options) { o.Fetch = nil })
}

func (b *bed) tlsa(base string, authentic bool, records ...dns.TLSARecord) {
	b.zone.set(func() { b.zone.tlsa["_25._tcp."+base] = dns.TLSA{Records: records, Authentic: authentic} })
}

func (b *bed) host(t *testing.T, mx *dns.MX, host string, addrs *dns.Addrs) Plan {
	t.Helper()
	return b.Domain(t.Context(), "a.test").Host(t.Context(), mx, host, addrs)
}

// TestT_DANE_1: records count only if MX, addresses and records are all signed.
func TestT_DANE_1(t *testing.T) {
	t.Parallel()
	ee := certificate(t, nil, nil)
	for _, mx := range []bool{false, true} {
		for _, addrs := range []bool{false, true} {
			for _, records := range []bool{false, true} {
				b := daneBed(t)
				b.tlsa("mx.a.test", records, tlsa(3, 1, 1, ee))
				plan := b.host(t, &dns.MX{Authentic: mx, Name: "a.test"}, "mx.a.test", &dns.Addrs{Authentic: addrs, Name: "mx.a.test"})
				want := mx && addrs && records
				if (plan.Policy == KindTLSA) != want || plan.Demands() != want || plan.Skip != nil {
					t.Errorf("MX %v, addresses %v, records %v: %+v", mx, addrs, records, plan)
				}
				if asked := b.zone.count("TLSA _25._tcp.mx.a.test"); asked > 0 != (mx && addrs) {
					t.Errorf("MX %v, addresses %v: asked %d times", mx, addrs, asked)
				}
			}
		}
	}
}

// TestT_DANE_2: records that cannot be had make the host unusable; that there are none does not.
func TestT_DANE_2(t *testing.T) {
	t.Parallel()
	for _, kind := range dns.Kinds() {
		b := daneBed(t)
		b.zone.fail["TLSA _25._tcp.mx.a.test"] = kind
		plan := b.host(t, secureMX, "mx.a.test", secureAddrs("mx.a.test"))
		bogus := kind == dns.Temporary || kind == dns.Loop
		if bogus != (typeOf(plan.Skip) == DNSSECInvalid) || bogus != plan.Required || bogus != (plan.Policy == KindTLSA) {
			t.Errorf("%v: %+v", kind, plan)
		}
	}
	// The first name's trouble is not passed over by asking for the second.
	b := daneBed(t)
	b.zone.fail["TLSA _25._tcp.end.test"] = dns.Temporary
	b.tlsa("mx.a.test", true, tlsa(3, 1, 1, certificate(t, nil, nil)))
	if plan := b.host(t, secureMX, "mx.a.test", secureAddrs("end.test")); plan.Skip == nil {
		t.Errorf("%+v", plan)
	}
}

// TestT_DANE_3: an MX record that is not signed makes all the rest worthless.
func TestT_DANE_3(t *testing.T) {
	t.Parallel()
	b := daneBed(t)
	b.tlsa("mx.a.test", true, tlsa(3, 1, 1, certificate(t, nil, nil)))
	plan := b.host(t, &dns.MX{}, "mx.a.test", secureAddrs("mx.a.test"))
	if plan.Policy != KindNone || plan.Demands() || plan.Key != "" {
		t.Errorf("%+v", plan)
	}
}

// TestT_DANE_4: what each usage looks at.
func TestT_DANE_4(t *testing.T) {
	t.Parallel()
	ca := certificate(t, nil, issuer)
	middle := certificate(t, ca, issuer)
	other := certificate(t, nil, issuer)
	oldCA := certificate(t, nil, func(c *x509.Certificate) { issuer(c); expired()(c) })
	good := certificate(t, middle, forNames("mx.a.test"))
	wrong := certificate(t, middle, forNames("other.test"))
	stale := certificate(t, middle, expired("mx.a.test"))
	for _, tc := range []struct {
		name   string
		record dns.TLSARecord
		chain  []*authority
		want   FailureType
	}{
		{"3 1 1", tlsa(3, 1, 1, good), []*authority{good}, ""},
		{"3 0 1", tlsa(3, 0, 1, good), []*authority{good}, ""},
		{"3 1 2", tlsa(3, 1, 2, good), []*authority{good}, ""},
		{"3 0 2", tlsa(3, 0, 2, good), []*authority{good}, ""},
		{"3 1 0", tlsa(3, 1, 0, good), []*authority{good}, ""},
		{"3 0 0", tlsa(3, 0, 0, good), []*authority{good}, ""},
		{"3 1 1 wrong name", tlsa(3, 1, 1, wrong), []*authority{wrong}, ""},
		{"3 1 1 expired", tlsa(3, 1, 1, stale), []*authority{stale}, ""},
		{"3 0 1 no name, self-signed", tlsa(3, 0, 1, ca), []*authority{ca}, ""},
		{"3 1 1 of the issuer", tlsa(3, 1, 1, middle), []*authority{good, middle, ca}, CertificateNotTrusted},
		{"3 1 1 of another", tlsa(3, 1, 1, wrong), []*authority{good, middle, ca}, CertificateNotTrusted},

		{"2 0 1 root sent", tlsa(2, 0, 1, ca), []*authority{good, middle, ca}, ""},
		{"2 1 1 root sent", tlsa(2, 1, 1, ca), []*authority{good, middle, ca}, ""},
		{"2 1 2 middle sent", tlsa(2, 1, 2, middle), []*authority{good, middle}, ""},
		{"2 0 1 root not sent", tlsa(2, 0, 1, ca), []*authority{good, middle}, CertificateNotTrusted},
		{"2 0 0 root not sent", tlsa(2, 0, 0, ca), []*authority{good, middle}, ""},
		{"2 1 0 root not sent", tlsa(2, 1, 0, ca), []*authority{good, middle}, ""},
		{"2 1 0 middle not sent", tlsa(2, 1, 0, middle), []*authority{good}, ""},
		{"2 0 0 middle not sent", tlsa(2, 0, 0, middle), []*authority{good}, ""},
		{"2 1 0 of another", tlsa(2, 1, 0, other), []*authority{good, middle, ca}, CertificateNotTrusted},
		{"2 0 0 of another", tlsa(2, 0, 0, other), []*authority{good, middle, ca}, CertificateNotTrusted},
		{"2 0 1 of another that is sent too", tlsa(2, 0, 1, other), []*authority{good, middle, ca, other}, CertificateNotTrusted},
		{"2 0 1 wrong name", tlsa(2, 0, 1, ca), []*authority{wrong, middle, ca}, CertificateHostMismatch},
		{"2 0 1 expired", tlsa(2, 0, 1, ca), []*authority{stale, middle, ca}, CertificateExpired},
		{"2 0 1 expired root", tlsa(2, 0, 1, oldCA), []*authority{certificate(t, oldCA, forNames("mx.a.test")), oldCA}, CertificateExpired},
		{"2 0 1 middle missing", tlsa(2, 0, 1, ca), []*authority{good, ca}, CertificateNotTrusted},
		{"2 0 1 not an issuer", tlsa(2, 0, 1, wrong), []*authority{certificate(t, wrong, forNames("mx.a.test")), wrong}, CertificateNotTrusted},
		{"2 0 1 for the domain's name", tlsa(2, 0, 1, ca), []*authority{certificate(t, ca, forNames("a.test")), ca}, ""},
		{"2 0 1 wildcard", tlsa(2, 0, 1, ca), []*authority{certificate(t, ca, forNames("*.a.test")), ca}, ""},
		{"2 0 1 common name alone", tlsa(2, 0, 1, ca), []*authority{certificate(t, ca, func(c *x509.Certificate) { c.Subject.CommonName = "mx.a.test" }), ca}, ""},
		{"2 0 1 common name beside others", tlsa(2, 0, 1, ca), []*authority{certificate(t, ca, func(c *x509.Certificate) {
			c.Subject.CommonName, c.DNSNames = "mx.a.test", []string{"other.test"}
		}), ca}, CertificateHostMismatch},
		{"2 0 1 no certificate", tlsa(2, 0, 1, ca), nil, CertificateNotTrusted},
	} {
		b := daneBed(t)
		b.tlsa("mx.a.test", true, tc.record)
		plan := b.host(t, secureMX, "mx.a.test", secureAddrs("mx.a.test"))
		if plan.Verify == nil || plan.Skip != nil || !plan.Required {
			t.Errorf("%s: %+v", tc.name, plan)
			continue
		}
		if fail := plan.Verify(state(tc.chain...)); typeOf(fail) != tc.want {
			t.Errorf("%s: %v, want %q", tc.name, fail, tc.want)
		}
	}
}

// TestT_DANE_4_PKIX: usages 0 and 1 are of no use for SMTP; beside others they are passed over.
func TestT_DANE_4_PKIX(t *testing.T) {
	t.Parallel()
	good := certificate(t, nil, nil)
	b := daneBed(t)
	b.tlsa("mx.a.test", true, tlsa(0, 0, 1, good), tlsa(1, 1, 1, good), tlsa(3, 1, 1, certificate(t, nil, nil)))
	plan := b.host(t, secureMX, "mx.a.test", secureAddrs("mx.a.test"))
	if plan.Verify == nil || plan.Verify(state(good)) == nil {
		t.Errorf("%+v", plan)
	}
}

// TestT_DANE_5: with no record of use TLS is required and nobody is authenticated.
func TestT_DANE_5(t *testing.T) {
	t.Parallel()
	good := certificate(t, nil, nil)
	for name, records := range map[string][]dns.TLSARecord{
		"usage 0":             {tlsa(0, 0, 1, good)},
		"usage 1":             {tlsa(1, 1, 1, good)},
		"usage 255":           {tlsa(255, 1, 1, good)},
		"selector 2":          {tlsa(3, 2, 1, good)},
		"matching 3":          {tlsa(3, 1, 3, good)},
		"short digest":        {{Usage: 3, Selector: 1, Matching: 1, Data: make([]byte, 31)}},
		"long digest":         {{Usage: 3, Selector: 1, Matching: 2, Data: make([]byte, 65)}},
		"no digest":           {{Usage: 3, Selector: 1, Matching: 1}},
		"nothing in full":     {{Usage: 3, Selector: 0, Matching: 0}},
		"no certificate":      {{Usage: 2, Selector: 0, Matching: 0, Data: []byte("nonsense")}},
		"no key":              {{Usage: 2, Selector: 1, Matching: 0, Data: good.cert.Raw}},
		"malformed":           {{Malformed: true}},
		"several of them all": {{Malformed: true}, tlsa(0, 0, 1, good), {Usage: 3, Selector: 1, Matching: 1}},
	} {
		b := daneBed(t)
		b.tlsa("mx.a.test", true, records...)
		plan := b.host(t, secureMX, "mx.a.test", secureAddrs("mx.a.test"))
		if !plan.Required || plan.Verify != nil || plan.Skip != nil || plan.Policy != KindTLSA || typeOf(plan.Note) != TLSAInvalid || plan.Key == "" {
			t.Errorf("%s: %+v", name, plan)
		}
		if len(plan.Strings) != len(records) {
			t.Errorf("%s: %q", name, plan.Strings)
		}
	}
}

// TestT_DANE_6: where records are looked for if the host's name is an alias (RFC 7672, 2.2.2), and what SNI says.
func TestT_DANE_6(t *testing.T) {
	t.Parallel()
	ee := certificate(t, nil, nil)
	type at struct {
		name      string
		authentic bool
	}
	for _, tc := range []struct {
		name     string
		mx       *dns.MX
		host     string
		addrs    *dns.Addrs
		alias    *at // the CNAME record of the first name
		records  []at
		base     string // empty: no DANE
		notAsked string
	}{
		{"no alias", secureMX, "mx.a.test", secureAddrs("mx.a.test"), nil, []at{{"mx.a.test", true}}, "mx.a.test", ""},
		{"secure alias, records at its end", secureMX, "mx.a.test", secureAddrs("end.test"), nil,
			[]at{{"end.test", true}, {"mx.a.test", true}}, "end.test", "mx.a.test"},
		{"secure alias, records at its beginning", secureMX, "mx.a.test", secureAddrs("end.test"), nil, []at{{"mx.a.test", true}}, "mx.a.test", ""},
		{"secure alias, records at its end not signed", secureMX, "mx.a.test", secureAddrs("end.test"), nil,
			[]at{{"end.test", false}, {"mx.a.test", true}}, "mx.a.test", ""},
		{"secure alias, no records", secureMX, "mx.a.test", secureAddrs("end.test"), nil, nil, "", ""},
		{"alias out of signed zones", secureMX, "mx.a.test", &dns.Addrs{Name: "end.test"}, &at{"mx.a.test", true},
			[]at{{"end.test", true}, {"mx.a.test", true}}, "mx.a.test", "end.test"},
		{"alias not signed itself", secureMX, "mx.a.test", &dns.Addrs{Name: "end.test"}, &at{"mx.a.test", false},
			[]at{{"end.test", true}, {"mx.a.test", true}}, "", "mx.a.test"},
		{"not signed, no alias", secureMX, "mx.a.test", &dns.Addrs{Name: "mx.a.test"}, nil, []at{{"mx.a.test", true}}, "", "mx.a.test"},
		{"no MX", &dns.MX{Implicit: true, Authentic: true, Name: "a.test"}, "a.test", secureAddrs("a.test"), nil, []at{{"a.test", true}}, "a.test", ""},
		{"no MX, alias", &dns.MX{Implicit: true, Authentic: true, Name: "end.test"}, "end.test", secureAddrs("end.test"), nil,
			[]at{{"end.test", true}}, "end.test", ""},
		{"no MX, alias, records at the domain", &dns.MX{Implicit: true, Authentic: true, Name: "end.test"}, "end.test", secureAddrs("end.test"), nil,
			[]at{{"a.test", true}}, "a.test", ""},
		{"no MX, alias out of signed zones", &dns.MX{Implicit: true, Name: "end.test"}, "end.test", &dns.Addrs{Name: "end.test"}, &at{"a.test", true},
			[]at{{"a.test", true}, {"end.test", true}}, "a.test", "end.test"},
		{"no MX, not signed", &dns.MX{Implicit: true, Name: "a.test"}, "a.test", &dns.Addrs{Name: "a.test"}, nil, []at{{"a.test", true}}, "", "a.test"},
	} {
		b := daneBed(t)
		for _, r := range tc.records {
			b.tlsa(r.name, r.authentic, tlsa(3, 1, 1, ee))
		}
		if tc.alias != nil {
			b.zone.cname[tc.alias.name] = dns.CNAME{Target: tc.addrs.Name, Authentic: tc.alias.authentic}
		}
		plan := b.host(t, tc.mx, tc.host, tc.addrs)
		if (plan.Policy == KindTLSA) != (tc.base != "") || tc.base != "" && (plan.ServerName != tc.base || plan.Domain != tc.base) {
			t.Errorf("%s: %+v", tc.name, plan)
		}
		if tc.notAsked != "" && b.zone.count("TLSA _25._tcp."+tc.notAsked) > 0 {
			t.Errorf("%s: asked for %s", tc.name, tc.notAsked)
		}
	}
	// If nobody can tell whether the alias is signed, the host waits.
	b := daneBed(t)
	b.zone.fail["CNAME mx.a.test"] = dns.Temporary
	if plan := b.host(t, secureMX, "mx.a.test", &dns.Addrs{Name: "end.test"}); typeOf(plan.Skip) != DNSSECInvalid {
		t.Errorf("alias cannot be looked up: %+v", plan)
	}
	// All names that a certificate of an issuer may be for.
	ca := certificate(t, nil, issuer)
	b = daneBed(t)
	b.tlsa("end.test", true, tlsa(2, 0, 1, ca))
	plan := b.host(t, &dns.MX{Authentic: true, Name: "expanded.test"}, "mx.a.test", secureAddrs("end.test"))
	for name, want := range map[string]FailureType{"end.test": "", "a.test": "", "expanded.test": "", "other.test": CertificateHostMismatch} {
		if fail := plan.Verify(state(certificate(t, ca, forNames(name)), ca)); typeOf(fail) != want {
			t.Errorf("certificate for %s: %v", name, fail)
		}
	}
}

// TestT_DANE_7: records of any length on the wire are read or found of no use, and harm nobody.
func TestT_DANE_7(t *testing.T) {
	t.Parallel()
	server := dnstest.Start(t, "x.test. A 192.0.2.1")
	resolver, err := dns.New(dns.Options{Servers: []netip.AddrPort{server.Addr()}, FailureTTL: 1})
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(Options{Resolver: resolver})
	if err != nil {
		t.Fatal(err)
	}
	good := certificate(t, nil, nil)
	whole := tlsa(3, 1, 1, good)
	data := append([]byte{3, 1, 1}, whole.Data...)
	for _, size := range []int{0, 1, 2, 3, 4, 34, 35, 36, 67, 1000, 60_000} {
		for _, beside := range []bool{false, true} {
			base := fmt.Sprintf("mx%d-%v.test", size, beside)
			rdata := make([]byte, size)
			copy(rdata, data)
			records := [][]byte{rdata}
			if beside {
				records = [][]byte{rdata, data, rdata}
			}
			packet := tlsaAnswer("_25._tcp."+base, records...)
			if len(packet) > 60_000 && beside {
				continue
			}
			server.Fail("_25._tcp."+base, dnstest.Behaviour{Raw: packet[2:]})
			plan := p.Domain(t.Context(), "a.test").Host(t.Context(), secureMX, base, secureAddrs(base))
			usable := beside || size == len(data)
			if plan.Policy != KindTLSA || plan.Skip != nil || !plan.Required || usable != (plan.Verify != nil) {
				t.Errorf("%d octets, another beside %v: %+v", size, beside, plan)
				continue
			}
			if usable && plan.Verify(state(good)) != nil {
				t.Errorf("%d octets, another beside %v: the good record does not count", size, beside)
			}
		}
	}
}

// tlsaAnswer is an authentic answer with TLSA records, as octets. The name is spelled as asked for only if the resolver
// does not play with case, so the answer holds the question in lower case, and the resolver asks again by TCP.
func tlsaAnswer(name string, records ...[]byte) []byte {
	p := []byte{0, 0, 0x81, 0xa0, 0, 1, 0, byte(len(records)), 0, 0, 0, 0}
	start := 0
	for i := 0; i <= len(name); i++ {
		if i == len(name) || name[i] == '.' {
			p = append(append(p, byte(i-start)), name[start:i]...)
			start = i + 1
		}
	}
	p = append(p, 0, 0, 52, 0, 1)
	for _, r := range records {
		p = append(p, 0xc0, 12, 0, 52, 0, 1, 0, 0, 0, 60, byte(len(r)>>8), byte(len(r)))
		p = append(p, r...)
	}
	return p
}

// TestT_DANE_8: during a rollover the old and the new certificate both hold.
func TestT_DANE_8(t *testing.T) {
	t.Parallel()
	before, after, ca := certificate(t, nil, nil), certificate(t, nil, nil), certificate(t, nil, issuer)
	b := daneBed(t)
	b.tlsa("mx.a.test", true, tlsa(3, 1, 1, before), tlsa(3, 1, 1, after), tlsa(2, 1, 1, ca))
	plan := b.host(t, secureMX, "mx.a.test", secureAddrs("mx.a.test"))
	for name, chain := range map[string][]*authority{"old": {before}, "new": {after}, "issuer": {certificate(t, ca, forNames("mx.a.test")), ca}} {
		if fail := plan.Verify(state(chain...)); fail != nil {
			t.Errorf("%s: %v", name, fail)
		}
	}
	if fail := plan.Verify(state(certificate(t, nil, forNames("mx.a.test")))); typeOf(fail) != CertificateNotTrusted {
		t.Errorf("another: %v", fail)
	}
	// The demand changes with the records, not with their order.
	key := plan.Key
	b.tlsa("mx.a.test", true, tlsa(2, 1, 1, ca), tlsa(3, 1, 1, after), tlsa(3, 1, 1, before))
	if again := b.host(t, secureMX, "mx.a.test", secureAddrs("mx.a.test")); again.Key != key {
		t.Errorf("key %q and %q", key, again.Key)
	}
	b.tlsa("mx.a.test", true, tlsa(3, 1, 1, after))
	if again := b.host(t, secureMX, "mx.a.test", secureAddrs("mx.a.test")); again.Key == key {
		t.Error("the key does not follow the records")
	}
}

// TestPrecedence: DANE goes before MTA-STS (RFC 8461, 2), in what it demands and in what it lets go.
func TestPrecedence(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	ca := certificate(t, nil, issuer)
	ee := certificate(t, nil, nil)
	b.o.Roots = pool(ca)
	b.zone.publish("a.test", "1")
	b.web.pages["a.test"] = policyText("enforce", week, "mx.a.test")
	b.tlsa("mx.a.test", true, tlsa(3, 1, 1, ee))
	plan := b.host(t, secureMX, "mx.a.test", secureAddrs("mx.a.test"))
	if plan.Policy != KindTLSA || plan.Verify(state(ee)) != nil || plan.Verify(state(certificate(t, ca, forNames("mx.a.test")))) == nil {
		t.Errorf("DANE: %+v", plan)
	}
	b.zone.set(func() { b.zone.fail["TLSA _25._tcp.mx.a.test"] = dns.Temporary })
	if plan = b.host(t, secureMX, "mx.a.test", secureAddrs("mx.a.test")); plan.Policy != KindTLSA || plan.Skip == nil {
		t.Errorf("bogus: %+v", plan)
	}
	b.zone.set(func() { delete(b.zone.fail, "TLSA _25._tcp.mx.a.test"); delete(b.zone.tlsa, "_25._tcp.mx.a.test") })
	if plan = b.host(t, secureMX, "mx.a.test", secureAddrs("mx.a.test")); plan.Policy != KindSTS || plan.Verify(state(certificate(t, ca, forNames("mx.a.test")))) != nil {
		t.Errorf("MTA-STS: %+v", plan)
	}
	b.o.NoDANE = true
	b.zone.set(func() { b.zone.fail["TLSA _25._tcp.mx.a.test"] = dns.Temporary })
	if plan = b.host(t, secureMX, "mx.a.test", secureAddrs("mx.a.test")); plan.Policy != KindSTS {
		t.Errorf("DANE off: %+v", plan)
	}
}

func BenchmarkDANE(b *testing.B) {
	z := newZone()
	p, err := New(Options{Resolver: z})
	if err != nil {
		b.Fatal(err)
	}
	ee := certificate(b, nil, nil)
	z.tlsa["_25._tcp.mx.a.test"] = dns.TLSA{Records: []dns.TLSARecord{tlsa(3, 1, 1, ee), tlsa(2, 0, 0, ee)}, Authentic: true}
	addrs := secureAddrs("mx.a.test")
	b.ReportAllocs()
	for b.Loop() {
		p.Domain(b.Context(), "a.test").Host(b.Context(), secureMX, "mx.a.test", addrs)
	}
}
