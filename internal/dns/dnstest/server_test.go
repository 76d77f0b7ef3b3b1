package dnstest_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	wire "github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/godwit-mta/godwit/internal/dns/dnstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func ask(t *testing.T, s *dnstest.Server, network, name, typ string) *wire.Msg {
	t.Helper()
	m := new(wire.Msg)
	m.SetQuestion(wire.Fqdn(name), wire.StringToType[typ])
	reply, _, err := (&wire.Client{Net: network, Timeout: 2 * time.Second}).Exchange(m, s.Addr().String())
	if err != nil {
		t.Fatalf("%s %s over %s: %v", name, typ, network, err)
	}
	return reply
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	s := dnstest.Start(t, `
		$TTL 120
		example.com.      SOA  ns.example.com. admin.example.com. 1 2 3 4 77
		example.com.      MX   10 mx.example.com.
		deep.a.example.com. A  192.0.2.4
		*.wild.example.   A    192.0.2.9
		x.wild.example.   TXT  "no address here"
		alias.example.    CNAME Example.com.
	`)
	for _, c := range []struct{ name, typ, rcode, answer, soa string }{
		{"example.com", "MX", "NOERROR", "10 mx.example.com.", ""},
		{"EXAMPLE.com", "MX", "NOERROR", "10 mx.example.com.", ""},
		{"example.com", "A", "NOERROR", "", "77"},
		{"a.example.com", "A", "NOERROR", "", "77"},
		{"none.example.com", "A", "NXDOMAIN", "", "77"},
		{"any.wild.example", "A", "NOERROR", "192.0.2.9", ""},
		{"a.b.wild.example", "A", "NOERROR", "192.0.2.9", ""},
		{"x.wild.example", "A", "NOERROR", "", "60"},
		{"y.x.wild.example", "A", "NXDOMAIN", "", "60"},
		{"alias.example", "MX", "NOERROR", "Example.com. 10 mx.example.com.", ""},
		{"alias.example", "A", "NOERROR", "Example.com.", "77"},
	} {
		for _, network := range []string{"udp", "tcp"} {
			m := ask(t, s, network, c.name, c.typ)
			var answer []string
			for _, rr := range m.Answer {
				fields := strings.SplitN(rr.String(), "\t", 5)
				answer = append(answer, fields[4])
			}
			soa := ""
			if len(m.Ns) > 0 {
				soa = m.Ns[0].String()[strings.LastIndexByte(m.Ns[0].String(), ' ')+1:]
			}
			if got := strings.Join(answer, " "); wire.RcodeToString[m.Rcode] != c.rcode || got != c.answer || soa != c.soa {
				t.Errorf("%s %s: %s %q, negative TTL %q", c.name, c.typ, wire.RcodeToString[m.Rcode], got, soa)
			}
			if !m.RecursionAvailable || m.Question[0].Name != wire.Fqdn(c.name) {
				t.Errorf("%s: %v", c.name, m)
			}
		}
	}
	if n := s.Queries("example.com", "MX"); n != 4 {
		t.Errorf("%d queries counted", n)
	}
}

func TestFailIsForOneName(t *testing.T) {
	t.Parallel()
	s := dnstest.Start(t, `*.example. A 192.0.2.1`)
	rcode := func(name, typ string) string { return wire.RcodeToString[ask(t, s, "udp", name, typ).Rcode] }
	s.Fail("*.b.example", dnstest.Behaviour{Rcode: "REFUSED"})
	s.Fail("a.b.example", dnstest.Behaviour{Rcode: "SERVFAIL", Types: []string{"A"}, Times: 2})
	for i, want := range []string{"SERVFAIL", "SERVFAIL", "REFUSED"} {
		if got := rcode("A.b.example", "A"); got != want {
			t.Errorf("query %d: %s", i, got)
		}
	}
	for name, want := range map[string]string{"c.b.example": "REFUSED", "b.example": "NOERROR", "other.example": "NOERROR"} {
		if got := rcode(name, "A"); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
	s.Fail("*", dnstest.Behaviour{Rcode: "NOTIMP"})
	if got := rcode("other.example", "A"); got != "NOTIMP" {
		t.Errorf("all names: %s", got)
	}
	s.Fail("*", dnstest.Behaviour{})
	if got := rcode("other.example", "A"); got != "NOERROR" {
		t.Errorf("plain again: %s", got)
	}
}

func TestZonesAreChecked(t *testing.T) {
	t.Parallel()
	if _, err := dnstest.New(`example.com. MX mx.example.com.`); err == nil {
		t.Error("an MX without preference was taken")
	}
	s := dnstest.Start(t, `example.com. A 192.0.2.1`)
	if err := s.Set(`nonsense`); err == nil {
		t.Error("nonsense was taken")
	}
	if m := ask(t, s, "udp", "example.com", "A"); len(m.Answer) != 1 {
		t.Error("the old zones are gone")
	}
}

func TestRunEnds(t *testing.T) {
	t.Parallel()
	s, err := dnstest.New(`example.com. A 192.0.2.1`)
	if err != nil {
		t.Fatal(err)
	}
	s.Fail("*", dnstest.Behaviour{Delay: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	idle, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	m := new(wire.Msg)
	m.SetQuestion("example.com.", wire.TypeA)
	p, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.Dial("udp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	udp.Write(p)
	for s.Queries("", "") == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// A share of the queries, in turns.
func TestShare(t *testing.T) {
	t.Parallel()
	s := dnstest.Start(t, "a.example. A 192.0.2.1\n")
	s.Fail("*", dnstest.Behaviour{Rcode: "SERVFAIL", Share: 0.25})
	failed := 0
	for range 20 {
		if ask(t, s, "udp", "a.example.", "A").Rcode == wire.RcodeServerFailure {
			failed++
		}
	}
	if failed != 5 {
		t.Errorf("%d of 20 failed", failed)
	}
}

func TestSignRefuses(t *testing.T) {
	t.Parallel()
	for name, zone := range map[string]string{
		"elsewhere": "other.test. A 192.0.2.1", "delegated": "sub.signed.test. NS ns.sub.signed.test.", "no zone": "nonsense",
	} {
		if _, err := dnstest.Sign("signed.test", zone, time.Now().Add(time.Hour)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	s, err := dnstest.Sign("Signed.test", "signed.test. SOA ns.signed.test. h.signed.test. 1 1 1 1 60\nsigned.test. NS ns.signed.test.\nns.signed.test. A 192.0.2.1",
		time.Now().Add(time.Hour))
	if err != nil || strings.Count(s.Text, "RRSIG\t") < 6 || !strings.Contains(s.Anchor, "DS") {
		t.Errorf("%v %+v", err, s)
	}
}
