package dns_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-mta/godwit/internal/dns"
	"github.com/godwit-mta/godwit/internal/dns/dnstest"
)

// The names of these tests carry the ids of the catalogue of faults in DNS and routing.

func TestD1NullMX(t *testing.T) {
	t.Parallel()
	s, r := inMemory(t, `
		null.example.  MX 0 .
		null.example.  A  192.0.2.1
		other.example. MX 10 .
		mixed.example. MX 0 .
		mixed.example. MX 10 mx.example.
		alias.example. CNAME null.example.
	`, dns.Options{})
	for _, domain := range []string{"null.example", "other.example", "alias.example"} {
		_, err := r.LookupMX(t.Context(), domain)
		if kindOf(t, err) != dns.NullMX {
			t.Errorf("%s: %v", domain, err)
		}
	}
	if n := s.Queries("null.example", "A"); n != 0 {
		t.Error("the address was asked for all the same")
	}
	mx, err := r.LookupMX(t.Context(), "mixed.example") // RFC 7505, 3: then it is none
	if err != nil || len(mx.Hosts) != 1 || mx.Hosts[0].Name != "mx.example" {
		t.Errorf("mixed: %+v, %v", mx, err)
	}
}

func TestD2HostsThatAreNone(t *testing.T) {
	t.Parallel()
	_, r := inMemory(t, `
		literal.example.   MX 10 127.0.0.1.
		public.example.    MX 10 192.0.2.1.
		localhost.example. MX 10 localhost.
		below.example.     MX 10 mail.localhost.
		escaped.example.   MX 10 attacker\.example.test.
		space.example.     MX 10 a\032b.example.
		one.example.       MX 10 127.0.0.1.
		one.example.       MX 20 mx.example.
	`, dns.Options{})
	for _, name := range []string{"literal", "public", "localhost", "below", "escaped", "space"} {
		_, err := r.LookupMX(t.Context(), name+".example")
		if kindOf(t, err) != dns.NoUsableHost {
			t.Errorf("%s: %v", name, err)
		}
	}
	mx, err := r.LookupMX(t.Context(), "one.example")
	if err != nil || len(mx.Hosts) != 1 || mx.Hosts[0].Name != "mx.example" || mx.Site != "mx.example" {
		t.Errorf("one usable: %+v, %v", mx, err)
	}
	_, err = r.LookupAddrs(t.Context(), "192.0.2.1")
	if kindOf(t, err) != dns.Malformed {
		t.Errorf("addresses of an address: %v", err)
	}
}

// D-3: with TTL 0 each lookup asks anew, so whoever connects must judge the address it connects to.
func TestD3Rebinding(t *testing.T) {
	t.Parallel()
	s, r := inMemory(t, `mx.example. 0 A 192.0.2.1`, dns.Options{})
	for _, want := range []string{"192.0.2.1", "127.0.0.1"} {
		if err := s.Set(`mx.example. 0 A ` + want); err != nil {
			t.Fatal(err)
		}
		a, err := r.LookupAddrs(t.Context(), "mx.example")
		if err != nil || a.IPs[0] != netip.MustParseAddr(want) {
			t.Errorf("got %v, %v", a, err)
		}
	}
}

func TestD5Aliases(t *testing.T) {
	t.Parallel()
	var zones strings.Builder
	for i := range 20 {
		fmt.Fprintf(&zones, "chain%d.example. CNAME chain%d.example.\n", i, i+1)
	}
	zones.WriteString(`
		chain20.example.  MX 10 mx.example.
		direct.example.   MX 10 mx.example.
		domain.example.   CNAME direct.example.
		host.example.     CNAME mx.example.
		mx.example.       A 192.0.2.1
		implicit.example. CNAME mx.example.
		self.example.     CNAME self.example.
		ping.example.     CNAME pong.example.
		pong.example.     CNAME ping.example.
		tree.example.     DNAME other.example.
	`)
	for _, c := range []struct {
		name    string
		domain  string
		want    dns.Kind
		queries int // when each alias is asked for by itself
	}{
		{"alias of a domain", "domain.example", 0, 2},
		{"alias of a host", "implicit.example", 0, 1},
		{"eight", "chain12.example", 0, 9},
		{"nine", "chain11.example", dns.Loop, 9},
		{"twenty", "chain0.example", dns.Loop, 9},
		{"itself", "self.example", dns.Loop, 1},
		{"each other", "ping.example", dns.Loop, 9},
	} {
		for _, whole := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, all in one answer %v", c.name, whole), func(t *testing.T) {
				t.Parallel()
				s, r := inMemory(t, zones.String(), dns.Options{})
				if !whole {
					s.Fail("*", dnstest.Behaviour{CutAliases: true})
				}
				_, err := r.LookupMX(t.Context(), c.domain)
				if kindOf(t, err) != c.want {
					t.Errorf("got %v", err)
				}
				if n := s.Queries("", "MX"); !whole && n != c.queries || whole && n > 2 {
					t.Errorf("%d queries", n)
				}
			})
		}
	}
	_, r := inMemory(t, zones.String(), dns.Options{})
	if mx, err := r.LookupMX(t.Context(), "implicit.example"); err != nil || mx.Site != "mx.example" || !mx.Implicit {
		t.Errorf("an implicit MX behind an alias: %+v, %v", mx, err)
	}
	if a, err := r.LookupAddrs(t.Context(), "host.example"); err != nil || a.Name != "mx.example" || len(a.IPs) != 1 {
		t.Errorf("MX host that is an alias: %+v, %v", a, err)
	}
	if _, err := r.LookupAddrs(t.Context(), "self.example"); kindOf(t, err) != dns.Loop {
		t.Errorf("MX host that is an alias of itself: %v", err)
	}
	// A DNAME comes with the CNAME it means; alone it says nothing.
	if _, err := r.LookupMX(t.Context(), "tree.example"); kindOf(t, err) != dns.NoAddress {
		t.Errorf("DNAME: %v", err)
	}
}

func TestD6Floods(t *testing.T) {
	t.Parallel()
	var zones strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&zones, "many.example. MX 10 mx%d.many.example.\n", i)
		fmt.Fprintf(&zones, "mx0.many.example. A 192.0.%d.%d\n", i/250, i%250)
	}
	s := dnstest.Start(t, zones.String())
	start := time.Now()
	r := newResolver(t, s, dns.Options{MaxHosts: 5})
	mx, err := r.LookupMX(t.Context(), "many.example")
	if err != nil || len(mx.Hosts) != 5 {
		t.Fatalf("%d hosts, %v", len(mx.Hosts), err)
	}
	if len(mx.Site) > 255 || !strings.HasPrefix(mx.Site, "mx0.many.example,mx1.many.example,") {
		t.Errorf("site is %q", mx.Site)
	}
	a, err := r.LookupAddrs(t.Context(), "mx0.many.example")
	if err != nil || len(a.IPs) != 16 {
		t.Errorf("%d addresses, %v", len(a.IPs), err)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("took %v", took)
	}
}

func TestD6Transports(t *testing.T) {
	t.Parallel()
	const zones = `example.com. MX 10 mx.example.`
	for _, c := range []struct {
		name string
		b    dnstest.Behaviour
		want dns.Kind
	}{
		{"truncated", dnstest.Behaviour{Truncate: true}, 0},
		{"truncated, no TCP", dnstest.Behaviour{Truncate: true, NoTCP: true}, dns.Temporary},
		{"no EDNS", dnstest.Behaviour{NoEDNS: true}, 0},
		{"no EDNS and truncated", dnstest.Behaviour{NoEDNS: true, Truncate: true}, 0},
		{"first packet lost", dnstest.Behaviour{Drop: true, Times: 1}, 0},
		{"always FORMERR", dnstest.Behaviour{Rcode: "FORMERR"}, dns.Temporary},
		{"slow", dnstest.Behaviour{Delay: 2 * time.Second}, 0},
		{"too slow", dnstest.Behaviour{Delay: 10 * time.Second}, dns.Temporary},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, r := inMemory(t, zones, dns.Options{})
				s.Fail("*", c.b)
				_, err := r.LookupMX(t.Context(), "example.com")
				if kindOf(t, err) != c.want {
					t.Errorf("got %v", err)
				}
			})
		})
	}
	t.Run("a server without EDNS is remembered", func(t *testing.T) {
		t.Parallel()
		s, r := inMemory(t, zones, dns.Options{})
		s.Fail("*", dnstest.Behaviour{NoEDNS: true})
		r.LookupMX(t.Context(), "example.com")
		r.LookupTXT(t.Context(), "example.com")
		if a, b := s.Queries("example.com", "MX"), s.Queries("example.com", "TXT"); a != 2 || b != 1 {
			t.Errorf("%d queries, then %d", a, b)
		}
	})
}

func TestD7WhatIsFinal(t *testing.T) {
	t.Parallel()
	servfail, silent := dnstest.Behaviour{Rcode: "SERVFAIL"}, dnstest.Behaviour{Drop: true}
	only := func(b dnstest.Behaviour, types ...string) dnstest.Behaviour {
		b.Types = types
		return b
	}
	for _, c := range []struct {
		name     string
		zones    string
		b        dnstest.Behaviour
		want     dns.Kind
		implicit bool
	}{
		{"no MX, an A", `example.com. A 192.0.2.1`, dnstest.Behaviour{}, 0, true},
		{"no MX, an AAAA", `example.com. AAAA 2001:db8::1`, dnstest.Behaviour{}, 0, true},
		{"no MX, no address", `example.com. TXT "x"`, dnstest.Behaviour{}, dns.NoAddress, false},
		{"nothing but names below", `www.example.com. A 192.0.2.1`, dnstest.Behaviour{}, dns.NoAddress, false},
		{"no such name", `example.net. A 192.0.2.1`, dnstest.Behaviour{}, dns.NXDomain, false},
		{"no such name, without SOA", `example.net. A 192.0.2.1`, dnstest.Behaviour{WithoutSOA: true}, dns.NXDomain, false},
		{"no MX and no SOA", `example.com. A 192.0.2.1`, only(dnstest.Behaviour{WithoutSOA: true}, "MX"), 0, true},
		{"MX fails", `example.com. A 192.0.2.1`, only(servfail, "MX"), dns.Temporary, false},
		{"MX is silent", `example.com. A 192.0.2.1`, only(silent, "MX"), dns.Temporary, false},
		{"REFUSED", `example.com. MX 10 a.example.`, dnstest.Behaviour{Rcode: "REFUSED"}, dns.Temporary, false},
		{"an unknown code", `example.com. MX 10 a.example.`, dnstest.Behaviour{Rcode: "NOTZONE"}, dns.Temporary, false},
		{"referral", `example.com. MX 10 a.example.`, dnstest.Behaviour{Referral: true}, dns.Temporary, false},
		{"no MX, addresses fail", `example.com. A 192.0.2.1`, only(servfail, "A", "AAAA"), dns.Temporary, false},
		{"no MX, A fails, no AAAA", `example.com. A 192.0.2.1`, only(servfail, "A"), dns.Temporary, false},
		{"no MX, A fails, an AAAA", `example.com. AAAA 2001:db8::1`, only(servfail, "A"), 0, true},
		{"wildcard MX", `*.com. MX 10 mx.example.`, dnstest.Behaviour{}, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, r := inMemory(t, c.zones, dns.Options{})
				s.Fail("example.com", c.b)
				mx, err := r.LookupMX(t.Context(), "example.com")
				if kindOf(t, err) != c.want || mx.Implicit != c.implicit {
					t.Errorf("got %+v, %v", mx, err)
				}
			})
		})
	}
}

func TestD7Addresses(t *testing.T) {
	t.Parallel()
	only := func(rcode string, types ...string) dnstest.Behaviour {
		return dnstest.Behaviour{Rcode: rcode, Types: types}
	}
	for _, c := range []struct {
		name  string
		zones string
		b     dnstest.Behaviour
		want  dns.Kind
		n     int
	}{
		{"both", "mx.example. A 192.0.2.1\nmx.example. AAAA 2001:db8::1", dnstest.Behaviour{}, 0, 2},
		{"none", `mx.example. TXT "x"`, dnstest.Behaviour{}, dns.NoAddress, 0},
		{"no such host", `example. TXT "x"`, dnstest.Behaviour{}, dns.NXDomain, 0},
		{"A fails", `mx.example. TXT "x"`, only("SERVFAIL", "A"), dns.Temporary, 0},
		{"AAAA fails, an A", `mx.example. A 192.0.2.1`, only("SERVFAIL", "AAAA"), 0, 1},
		{"AAAA does not exist, an A", `mx.example. A 192.0.2.1`, only("NXDOMAIN", "AAAA"), 0, 1},
		{"AAAA does not exist, A fails", `mx.example. A 192.0.2.1`, dnstest.Behaviour{}, dns.Temporary, 0},
		{"AAAA does not exist, no A", `mx.example. TXT "x"`, only("NXDOMAIN", "AAAA"), dns.NoAddress, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, r := inMemory(t, c.zones, dns.Options{})
			s.Fail("mx.example", c.b)
			if c.name == "AAAA does not exist, A fails" {
				s.Fail("mx.example", only("SERVFAIL", "A"))
				if _, err := r.LookupAddrs(t.Context(), "mx.example"); kindOf(t, err) != dns.Temporary {
					t.Fatal(err)
				}
				s.Fail("mx.example", only("NXDOMAIN", "AAAA"))
			}
			a, err := r.LookupAddrs(t.Context(), "mx.example")
			if kindOf(t, err) != c.want || len(a.IPs) != c.n {
				t.Errorf("got %+v, %v", a, err)
			}
		})
	}
}

// rawAnswer builds the part of a message after its id: one question and records as given.
func rawAnswer(name, typ string, records ...[]byte) []byte {
	types := map[string]uint16{"A": 1, "MX": 15, "TXT": 16, "AAAA": 28}
	p := []byte{0x81, 0x80, 0, 1, 0, byte(len(records)), 0, 0, 0, 0}
	p = append(p, wireName(name)...)
	p = binary.BigEndian.AppendUint16(p, types[typ])
	p = append(p, 0, 1)
	for _, r := range records {
		p = append(p, r...)
	}
	return p
}

func wireName(name string) []byte {
	var p []byte
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		p = append(append(p, byte(len(label))), label...)
	}
	return append(p, 0)
}

// record builds a resource record whose owner is a pointer to the question.
func record(typ uint16, rdata []byte) []byte {
	p := []byte{0xc0, 12}
	p = binary.BigEndian.AppendUint16(p, typ)
	p = append(p, 0, 1, 0, 0, 1, 0)
	return append(binary.BigEndian.AppendUint16(p, uint16(len(rdata))), rdata...)
}

func TestD8Malformed(t *testing.T) {
	t.Parallel()
	long := append([]byte{0, 10, 64}, make([]byte, 64)...)
	for _, c := range []struct {
		name string
		raw  []byte
	}{
		{"MX of 0 octets", rawAnswer("example.com", "MX", record(15, nil))},
		{"MX of 1 octet", rawAnswer("example.com", "MX", record(15, []byte{0}))},
		{"MX of 2 octets", rawAnswer("example.com", "MX", record(15, []byte{0, 10}))},
		{"compression loop", rawAnswer("example.com", "MX", record(15, []byte{0, 10, 0xc0, 43}))},
		{"pointer beyond the end", rawAnswer("example.com", "MX", record(15, []byte{0, 10, 0xff, 0xff}))},
		{"label of 64", rawAnswer("example.com", "MX", record(15, long))},
		{"rdata too long", rawAnswer("example.com", "MX", append(record(15, []byte{0, 10, 0}), 1, 2, 3)[:len(record(15, []byte{0, 10, 0}))-1])},
		{"more records than there are", append(rawAnswer("example.com", "MX")[:4], append([]byte{0, 9}, rawAnswer("example.com", "MX")[6:]...)...)},
		{"header only", []byte{0x81, 0x80, 0, 0, 0, 0, 0, 0, 0, 0}},
		{"two questions", []byte{0x81, 0x80, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 15, 0, 1, 0, 0, 15, 0, 1}},
		{"A record of 0 octets", rawAnswer("example.com", "A", record(1, nil))},
		{"A record of 5 octets", rawAnswer("example.com", "A", record(1, []byte{1, 2, 3, 4, 5}))},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, r := inMemory(t, ``, dns.Options{})
				s.Fail("example.com", dnstest.Behaviour{Raw: c.raw})
				_, err := r.LookupMX(t.Context(), "example.com")
				if kindOf(t, err) != dns.Temporary {
					t.Errorf("MX: %v", err)
				}
				_, err = r.LookupAddrs(t.Context(), "example.com")
				if kindOf(t, err) != dns.Temporary {
					t.Errorf("addresses: %v", err)
				}
			})
		})
	}
}

func TestD8LongText(t *testing.T) {
	t.Parallel()
	part := strings.Repeat("x", 255)
	s := dnstest.Start(t, `example.com. TXT `+strings.Repeat(`"`+part+`" `, 250))
	r := newResolver(t, s, dns.Options{})
	txt, err := r.LookupTXT(t.Context(), "example.com")
	if err != nil || len(txt.Records) != 1 || len(txt.Records[0]) != 250*255 {
		t.Errorf("%d records, %v", len(txt.Records), err)
	}
}

// Packets with other ids are dropped and the true answer is waited for.
func TestD8ForgedPacketsFirst(t *testing.T) {
	t.Parallel()
	s := dnstest.Start(t, `example.com. MX 10 a.example.`)
	s.Fail("example.com", dnstest.Behaviour{BeforeWrongID: 50})
	mx, err := newResolver(t, s, dns.Options{}).LookupMX(t.Context(), "example.com")
	if err != nil || len(mx.Hosts) != 1 || s.Queries("example.com", "MX") != 1 {
		t.Errorf("got %+v, %v after %d queries", mx, err, s.Queries("example.com", "MX"))
	}
}

// Records that do not answer the question are neither used nor kept.
func TestD8PlantedRecords(t *testing.T) {
	t.Parallel()
	s, r := inMemory(t, `
		example.com. MX 10 mx.example.com.
		victim.example. MX 10 true.example.
	`, dns.Options{})
	s.Fail("example.com", dnstest.Behaviour{Extra: `
		victim.example.  86400 MX 0 forged.example.
		mx.example.com.  86400 A 192.0.2.66
		www.example.com. 86400 MX 0 forged.example.
	`})
	mx, err := r.LookupMX(t.Context(), "example.com")
	if err != nil || len(mx.Hosts) != 1 || mx.Hosts[0].Name != "mx.example.com" {
		t.Errorf("got %+v, %v", mx, err)
	}
	mx, err = r.LookupMX(t.Context(), "victim.example")
	if err != nil || mx.Hosts[0].Name != "true.example" {
		t.Errorf("victim: %+v, %v", mx, err)
	}
	_, err = r.LookupAddrs(t.Context(), "mx.example.com")
	if kindOf(t, err) != dns.NXDomain {
		t.Errorf("address: %v", err)
	}
}

// An answer from another port than the one asked does not arrive.
func TestD8AnotherPort(t *testing.T) {
	t.Parallel()
	loopback := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}
	asked, err := net.ListenUDP("udp4", loopback)
	if err != nil {
		t.Fatal(err)
	}
	defer asked.Close()
	other, err := net.ListenUDP("udp4", loopback)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	done := make(chan struct{})
	defer func() { <-done }()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		defer close(done)
		buf := make([]byte, 512)
		n, peer, err := asked.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		answer := buf[:n]
		answer[2], answer[3] = 0x81, 0x83 // NXDOMAIN
		other.WriteToUDPAddrPort(answer, peer)
	}()
	r := newResolver(t, nil, dns.Options{
		Servers: []netip.AddrPort{asked.LocalAddr().(*net.UDPAddr).AddrPort()}, Timeout: 50 * time.Millisecond, Tries: 1,
	})
	_, err = r.LookupMX(ctx, "example.com")
	if kindOf(t, err) != dns.Temporary {
		t.Errorf("got %v", err)
	}
}

func TestD10TimesToLive(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		zones string
		b     dnstest.Behaviour
		want  time.Duration
	}{
		{"as it says", `example.com. 300 TXT "x"`, dnstest.Behaviour{}, 300 * time.Second},
		{"zero", `example.com. 0 TXT "x"`, dnstest.Behaviour{}, 0},
		{"2^31-1", `example.com. 2147483647 TXT "x"`, dnstest.Behaviour{}, 24 * time.Hour},
		{"2^31", `example.com. 2147483648 TXT "x"`, dnstest.Behaviour{}, 0},
		{"the least of a set", "example.com. 300 TXT \"x\"\nexample.com. 30 TXT \"y\"", dnstest.Behaviour{}, 30 * time.Second},
		{"the alias's", "example.com. 20 CNAME to.example.\nto.example. 300 TXT \"x\"", dnstest.Behaviour{}, 20 * time.Second},
		{"the alias's, asked for by itself", "example.com. 300 CNAME to.example.\nto.example. 25 TXT \"x\"",
			dnstest.Behaviour{CutAliases: true}, 25 * time.Second},
		{"negative: last field of the SOA", "com. 900 SOA a. b. 1 2 3 4 120\nexample.com. A 192.0.2.1", dnstest.Behaviour{}, 120 * time.Second},
		{"negative: TTL of the SOA", "com. 90 SOA a. b. 1 2 3 4 120\nexample.com. A 192.0.2.1", dnstest.Behaviour{}, 90 * time.Second},
		{"negative: too long", "com. 90000 SOA a. b. 1 2 3 4 90000", dnstest.Behaviour{}, 15 * time.Minute},
		{"negative: zero", "com. 0 SOA a. b. 1 2 3 4 0", dnstest.Behaviour{}, 0},
		{"negative: no SOA", "", dnstest.Behaviour{WithoutSOA: true}, 5 * time.Second},
		{"failure", "", dnstest.Behaviour{Rcode: "SERVFAIL"}, 5 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, r := inMemory(t, c.zones, dns.Options{})
				s.Fail("example.com", c.b)
				asked := func() int {
					r.LookupTXT(t.Context(), "example.com")
					return s.Queries("example.com", "TXT")
				}
				first := asked()
				if c.want > 0 {
					time.Sleep(c.want - time.Millisecond)
					if n := asked(); n != first {
						t.Fatalf("asked again before %v were over", c.want)
					}
					time.Sleep(time.Millisecond)
				}
				if n := asked(); n == first {
					t.Errorf("not asked again after %v", c.want)
				}
			})
		})
	}
}

func TestSiteIsTheSet(t *testing.T) {
	t.Parallel()
	_, r := inMemory(t, `
		a.example. MX 10 mx1.example.
		a.example. MX 20 mx2.example.
		b.example. MX 5  MX2.example.
		b.example. MX 5  mx1.example.
		c.example. MX 10 mx1.example.
		d.example. MX 10 mx1.example.
		d.example. MX 20 mx1.example.
	`, dns.Options{})
	var sites []string
	for _, d := range []string{"a", "b", "c", "d"} {
		mx, err := r.LookupMX(t.Context(), d+".example")
		if err != nil {
			t.Fatal(err)
		}
		sites = append(sites, mx.Site)
	}
	if want := []string{"mx1.example,mx2.example", "mx1.example,mx2.example", "mx1.example", "mx1.example"}; !slices.Equal(sites, want) {
		t.Errorf("got %q", sites)
	}
}
