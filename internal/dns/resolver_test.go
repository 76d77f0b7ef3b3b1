package dns_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"

	"github.com/godwit-mta/godwit/internal/dns"
	"github.com/godwit-mta/godwit/internal/dns/dnstest"
)

// newResolver asks s over real sockets.
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

// inMemory makes a server and a resolver that asks it without sockets, for fake time.
func inMemory(t testing.TB, zones string, o dns.Options) (*dnstest.Server, *dns.Resolver) {
	t.Helper()
	s := dnstest.InMemory(t, zones)
	o.Dial = s.Dial
	return s, newResolver(t, s, o)
}

// kindOf returns the kind of a lookup's error, 0 if there is none.
func kindOf(t testing.TB, err error) dns.Kind {
	t.Helper()
	if err == nil {
		return 0
	}
	var e *dns.Error
	if !errors.As(err, &e) {
		t.Fatalf("%v is no *dns.Error", err)
	}
	return e.Kind
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
		xn--bcher-kva.example. MX 0 mx1.example.com.
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
	if mx, err = r.LookupMX(t.Context(), "Bücher.example"); err != nil || mx.Site != "mx1.example.com" {
		t.Errorf("U-label: %+v, %v", mx, err)
	}
	txt, err := r.LookupTXT(t.Context(), "text.example")
	if err != nil || !slices.Equal(txt.Records, []string{"v=spf1 \"quoted\" back\\slash \xc8"}) {
		t.Errorf("TXT: %q, %v", txt.Records, err)
	}
	if site, ok := r.Site("example.com"); !ok || site != "mx1.example.com,mx2.example.net" {
		t.Errorf("cached site: %q, %v", site, ok)
	}
	if site, ok := r.Site("implicit.example"); !ok || site != "implicit.example" {
		t.Errorf("cached implicit site: %q, %v", site, ok)
	}
	if _, ok := r.Site("unknown.example"); ok {
		t.Error("Site knows a domain never asked for")
	}
}

func TestResultsAreTheCallersOwn(t *testing.T) {
	t.Parallel()
	_, r := inMemory(t, `
		example.com. MX 10 a.example.
		example.com. MX 20 b.example.
		a.example. A 192.0.2.1
	`, dns.Options{})
	mx, _ := r.LookupMX(t.Context(), "example.com")
	addrs, _ := r.LookupAddrs(t.Context(), "a.example")
	clear(mx.Hosts)
	clear(addrs.IPs)
	mx, err := r.LookupMX(t.Context(), "example.com")
	if err != nil || mx.Hosts[0].Name != "a.example" || mx.Hosts[1].Name != "b.example" {
		t.Errorf("hosts: %+v, %v", mx, err)
	}
	addrs, err = r.LookupAddrs(t.Context(), "a.example")
	if err != nil || addrs.IPs[0] != netip.MustParseAddr("192.0.2.1") {
		t.Errorf("addresses: %+v, %v", addrs, err)
	}
}

func TestOrderAmongEquals(t *testing.T) {
	t.Parallel()
	_, r := inMemory(t, `
		example.com. MX 10 a.example.
		example.com. MX 10 b.example.
		example.com. MX 10 c.example.
		example.com. MX 5  first.example.
		example.com. MX 20 last.example.
		host.example. A 192.0.2.1
		host.example. A 192.0.2.2
		host.example. A 192.0.2.3
		host.example. AAAA 2001:db8::1
		host.example. AAAA 2001:db8::2
	`, dns.Options{Rand: rand.NewPCG(1, 2)})
	const rounds = 3000
	second := make(map[string]int)
	firstSix := make(map[netip.Addr]int)
	for range rounds {
		mx, err := r.LookupMX(t.Context(), "example.com")
		if err != nil {
			t.Fatal(err)
		}
		if mx.Hosts[0].Name != "first.example" || mx.Hosts[4].Name != "last.example" {
			t.Fatalf("preference is not kept: %+v", mx.Hosts)
		}
		second[mx.Hosts[1].Name]++
		a, err := r.LookupAddrs(t.Context(), "host.example")
		if err != nil {
			t.Fatal(err)
		}
		var families []byte
		for _, ip := range a.IPs {
			families = append(families, "64"[map[bool]int{true: 1}[ip.Is4()]])
		}
		if string(families) != "64644" {
			t.Fatalf("families are not in turn: %v", a.IPs)
		}
		firstSix[a.IPs[0]]++
	}
	for name, n := range second {
		if n < rounds/3-150 || n > rounds/3+150 {
			t.Errorf("%s came second %d times of %d", name, n, rounds)
		}
	}
	if len(second) != 3 || len(firstSix) != 2 {
		t.Errorf("not all had their turn: %v, %v", second, firstSix)
	}
}

func TestOneFlightPerQuestion(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, r := inMemory(t, `example.com. MX 10 a.example.`, dns.Options{})
		s.Fail("example.com", dnstest.Behaviour{Delay: time.Second})
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if _, err := r.LookupMX(t.Context(), "example.com"); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if n := s.Queries("example.com", "MX"); n != 1 {
			t.Errorf("%d queries", n)
		}
	})
}

func TestFlightOutlivesItsLeader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, r := inMemory(t, `example.com. MX 10 a.example.`, dns.Options{})
		s.Fail("example.com", dnstest.Behaviour{Delay: time.Second})
		why := errors.New("the message was cancelled")
		leading, cancel := context.WithCancelCause(t.Context())
		var all sync.WaitGroup
		all.Go(func() {
			_, err := r.LookupMX(leading, "example.com")
			if kindOf(t, err) != dns.Temporary || !errors.Is(err, why) {
				t.Errorf("leader: %v", err)
			}
		})
		synctest.Wait()
		for range 10 {
			all.Go(func() {
				if _, err := r.LookupMX(t.Context(), "example.com"); err != nil {
					t.Errorf("who waited: %v", err)
				}
			})
		}
		synctest.Wait()
		cancel(why)
		all.Wait()
		if n := s.Queries("example.com", "MX"); n != 2 {
			t.Errorf("%d queries", n)
		}
	})
}

func TestWaiterLeavesWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, r := inMemory(t, `example.com. MX 10 a.example.`, dns.Options{})
		s.Fail("example.com", dnstest.Behaviour{Delay: 2 * time.Second})
		var all sync.WaitGroup
		all.Go(func() {
			if _, err := r.LookupMX(t.Context(), "example.com"); err != nil {
				t.Errorf("leader: %v", err)
			}
		})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.LookupMX(ctx, "example.com"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiter: %v", err)
		}
		all.Wait()
	})
}

func TestConcurrencyIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := dnstest.InMemory(t, `*.example. TXT "x"`)
		s.Fail("*", dnstest.Behaviour{Delay: time.Second})
		var now, most atomic.Int32
		r := newResolver(t, s, dns.Options{Concurrency: 5, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			most.Store(max(most.Load(), now.Add(1)))
			c, err := s.Dial(ctx, network, address)
			return &countedConn{c, &now}, err
		}})
		start := time.Now()
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() {
				if _, err := r.LookupTXT(t.Context(), string(rune('a'+i%26))+string(rune('a'+i/26))+".example"); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if most.Load() > 5 || time.Since(start) != 10*time.Second {
			t.Errorf("%d at once, %v in all", most.Load(), time.Since(start))
		}
	})
}

type countedConn struct {
	net.Conn
	open *atomic.Int32
}

func (c *countedConn) Close() error {
	c.open.Add(-1)
	return c.Conn.Close()
}

// D-9: the resolvers are down for ten minutes.
func TestServersDownAndBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, r := inMemory(t, `example.com. MX 10 a.example.`, dns.Options{})
		s.Fail("*", dnstest.Behaviour{Drop: true})
		outage := time.Now()
		for time.Since(outage) < 10*time.Minute {
			start := time.Now()
			_, err := r.LookupMX(t.Context(), "example.com")
			if kindOf(t, err) != dns.Temporary {
				t.Fatalf("got %v", err)
			}
			if took := time.Since(start); took > 6*time.Second {
				t.Fatalf("a lookup took %v", took)
			}
			time.Sleep(time.Second)
		}
		s.Fail("*", dnstest.Behaviour{})
		back := time.Now()
		for {
			if _, err := r.LookupMX(t.Context(), "example.com"); err == nil {
				break
			}
			time.Sleep(time.Second)
		}
		if took := time.Since(back); took > 10*time.Second {
			t.Errorf("back after %v", took)
		}
	})
}

func TestNextServerIsAsked(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string]dnstest.Behaviour{
		"SERVFAIL": {Rcode: "SERVFAIL"}, "REFUSED": {Rcode: "REFUSED"}, "NOTIMP": {Rcode: "NOTIMP"}, "silence": {Drop: true},
		"garbage": {Raw: []byte("\x81\x80 what is this")}, "referral": {Referral: true}, "wrong id": {WrongID: true}, "wrong name": {WrongName: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				broken := dnstest.InMemory(t, `example.com. MX 10 a.example.`)
				broken.Fail("*", bad)
				good := dnstest.InMemory(t, `example.com. MX 10 a.example.`)
				first, second := netip.MustParseAddrPort("192.0.2.1:53"), netip.MustParseAddrPort("192.0.2.2:53")
				r := newResolver(t, nil, dns.Options{
					Servers: []netip.AddrPort{first, second},
					Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
						if address == first.String() {
							return broken.Dial(ctx, network, address)
						}
						return good.Dial(ctx, network, address)
					},
				})
				if _, err := r.LookupMX(t.Context(), "example.com"); err != nil {
					t.Error(err)
				}
				r.LookupTXT(t.Context(), "example.com")
				asked := broken.Queries("example.com", "TXT") > 0
				silent := bad.Drop || bad.WrongID || bad.WrongName
				if silent == asked {
					t.Errorf("right after, the broken server was asked first: %v", asked)
				}
				time.Sleep(31 * time.Second)
				r.LookupTXT(t.Context(), "again.example.com")
				if broken.Queries("again.example.com", "TXT") == 0 {
					t.Error("half a minute later the broken server is still not asked")
				}
			})
		})
	}
}

func TestUnreachableServer(t *testing.T) {
	t.Parallel()
	l, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	closed := l.LocalAddr().(*net.UDPAddr).AddrPort()
	l.Close()
	s := dnstest.Start(t, `example.com. MX 10 a.example.`)
	r := newResolver(t, nil, dns.Options{Servers: []netip.AddrPort{closed, s.Addr()}})
	if _, err := r.LookupMX(t.Context(), "example.com"); err != nil {
		t.Error(err)
	}
	r = newResolver(t, nil, dns.Options{Servers: []netip.AddrPort{closed}})
	_, err = r.LookupMX(t.Context(), "example.com")
	var e *dns.Error
	if !errors.As(err, &e) || e.Server != closed.String() || e.Detail != "could not be reached (connection refused)" {
		t.Errorf("got %v", err)
	}
}

func TestLetterCaseLost(t *testing.T) {
	t.Parallel()
	for name, b := range map[string]dnstest.Behaviour{
		"with TCP": {LowerCase: true}, "without TCP": {LowerCase: true, NoTCP: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := dnstest.Start(t, `
				example.com. MX 10 a.example.
				example.com. TXT "x"
			`)
			s.Fail("*", b)
			r := newResolver(t, s, dns.Options{})
			if _, err := r.LookupMX(t.Context(), "example.com"); err != nil {
				t.Fatal(err)
			}
			if _, err := r.LookupTXT(t.Context(), "example.com"); err != nil {
				t.Fatal(err)
			}
			if n := s.Queries("example.com", "TXT"); n != 1 {
				t.Errorf("the server's habit was not remembered: %d queries", n)
			}
		})
	}
}

// A forger who hits id and port but not the letter case gets nowhere.
func TestForgedCaseIsNotBelieved(t *testing.T) {
	t.Parallel()
	s := dnstest.InMemory(t, `example.com. TXT "true"`)
	forger := dnstest.InMemory(t, `example.com. TXT "forged"`)
	forger.Fail("*", dnstest.Behaviour{LowerCase: true})
	r := newResolver(t, s, dns.Options{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		if network == "udp" {
			return forger.Dial(ctx, network, address)
		}
		return s.Dial(ctx, network, address)
	}})
	txt, err := r.LookupTXT(t.Context(), "example.com")
	if err != nil || txt.Records[0] != "true" {
		t.Errorf("got %q, %v", txt.Records, err)
	}
}

func TestAuthentic(t *testing.T) {
	t.Parallel()
	const zones = `
		signed.example.   MX 10 a.example.
		unsigned.example. MX 10 a.example.
		alias.example.    CNAME signed.example.
		broken.example.   CNAME unsigned.example.
		a.example.        A 192.0.2.1
	`
	away := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")}
	for _, c := range []struct {
		name    string
		o       dns.Options
		domain  string
		want    bool
		options dnstest.Behaviour
	}{
		{"signed", dns.Options{}, "signed.example", true, dnstest.Behaviour{}},
		{"unsigned", dns.Options{}, "unsigned.example", false, dnstest.Behaviour{}},
		{"not believed from afar", dns.Options{Servers: away}, "signed.example", false, dnstest.Behaviour{}},
		{"believed from afar if told", dns.Options{Servers: away, Trust: dns.TrustAll}, "signed.example", true, dnstest.Behaviour{}},
		{"nobody is believed if told", dns.Options{Trust: dns.TrustNone}, "signed.example", false, dnstest.Behaviour{}},
		{"signed alias to signed", dns.Options{}, "alias.example", true, dnstest.Behaviour{Authentic: true, CutAliases: true}},
		{"signed alias to unsigned", dns.Options{}, "broken.example", false, dnstest.Behaviour{Authentic: true, CutAliases: true}},
		{"unsigned alias to signed", dns.Options{}, "alias.example", false, dnstest.Behaviour{CutAliases: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := dnstest.InMemory(t, zones)
			s.Fail("signed.example", dnstest.Behaviour{Authentic: true})
			if c.options.CutAliases {
				s.Fail(c.domain, c.options)
			}
			c.o.Dial = s.Dial
			mx, err := newResolver(t, s, c.o).LookupMX(t.Context(), c.domain)
			if err != nil || mx.Authentic != c.want {
				t.Errorf("got %+v, %v", mx, err)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]dns.Options{
		"server without port": {Servers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}},
		"no server":           {Servers: []netip.AddrPort{{}}},
		"negative time":       {Timeout: -1},
		"negative number":     {MaxHosts: -1},
		"too many tries":      {Tries: 11},
	} {
		if _, err := dns.New(o); err == nil || !strings.HasPrefix(err.Error(), "dns: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	_, r := inMemory(t, `example.com. MX 10 a.example.`, dns.Options{Registerer: reg})
	for range 3 {
		r.LookupMX(t.Context(), "example.com")
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	for _, want := range []struct {
		name, label string
		value       float64
	}{
		{"godwit_dns_lookups_total", "cache", 2}, {"godwit_dns_lookups_total", "network", 1}, {"godwit_dns_queries_total", "ok", 1},
		{"godwit_dns_queries_total", "timeout", 0}, {"godwit_dns_cache_entries", "", 1},
	} {
		if got, ok := metric(families, want.name, want.label); !ok || got != want.value {
			t.Errorf("%s{%s} = %v, %v", want.name, want.label, got, ok)
		}
	}
	if _, err := dns.New(dns.Options{Registerer: reg}); err == nil {
		t.Error("the same names were registered twice")
	}
}

func metric(families []*dto.MetricFamily, name, label string) (float64, bool) {
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (label == "" || m.GetLabel()[0].GetValue() == label) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue(), true
			}
		}
	}
	return 0, false
}

func TestErrorsExplainThemselves(t *testing.T) {
	t.Parallel()
	s, r := inMemory(t, `
		null.example.     MX 0 .
		local.example.    MX 10 localhost.
		bare.example.     TXT "only text"
		dead.example.     CNAME gone.example.
		loop.example.     CNAME loop.example.
	`, dns.Options{Servers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}})
	s.Fail("servfail.example", dnstest.Behaviour{Rcode: "SERVFAIL"})
	s.Fail("silent.example", dnstest.Behaviour{Drop: true})
	for domain, want := range map[string]string{
		"missing.example":  "the domain name missing.example does not exist",
		"null.example":     "null.example takes no mail: it publishes a null MX record",
		"local.example":    "no MX record of local.example names a usable host: localhost (the sender's own machine)",
		"bare.example":     "bare.example has neither an MX record nor an address",
		"dead.example":     "dead.example is an alias of gone.example, which does not exist",
		"loop.example":     "the aliases (CNAME) of loop.example lead nowhere: more than 8 in a row",
		"servfail.example": "DNS server 127.0.0.1 answered SERVFAIL for MX servfail.example",
		"silent.example":   "DNS server 127.0.0.1 did not answer within 10ms for MX silent.example",
		"a..example":       `"a..example" is not a domain name: it has an empty label`,
	} {
		o := r
		if domain == "silent.example" {
			o = newResolver(t, s, dns.Options{Servers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}, Dial: s.Dial, Timeout: 10 * time.Millisecond})
		}
		_, err := o.LookupMX(t.Context(), domain)
		var e *dns.Error
		if !errors.As(err, &e) || e.Explain() != want || err.Error() != "dns: "+want {
			t.Errorf("%s:\n got %v\nwant %s", domain, err, want)
		}
	}
	_, err := r.LookupTXT(t.Context(), "null.example")
	if err == nil || err.Error() != "dns: null.example has no TXT record" {
		t.Errorf("got %v", err)
	}
	_, err = r.LookupAddrs(t.Context(), "bare.example")
	if err == nil || err.Error() != "dns: the host bare.example has no address" {
		t.Errorf("got %v", err)
	}
	seen := make(map[string]bool)
	for _, k := range dns.Kinds() {
		if s := k.String(); s == "unknown" || seen[s] {
			t.Errorf("kind %d is called %q", k, s)
		}
		seen[k.String()] = true
	}
}

func BenchmarkLookupMXCached(b *testing.B) {
	_, r := inMemory(b, `
		example.com. MX 5  alt0.example.com.
		example.com. MX 10 alt1.example.com.
		example.com. MX 10 alt2.example.com.
		example.com. MX 20 alt3.example.com.
		example.com. MX 20 alt4.example.com.
	`, dns.Options{})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.LookupMX(b.Context(), "example.com"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLookupAddrsCached(b *testing.B) {
	_, r := inMemory(b, `
		mx.example.com. A 192.0.2.1
		mx.example.com. AAAA 2001:db8::1
	`, dns.Options{})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.LookupAddrs(b.Context(), "mx.example.com"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSite(b *testing.B) {
	_, r := inMemory(b, `example.com. MX 10 mx.example.com.`, dns.Options{})
	r.LookupMX(b.Context(), "example.com")
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := r.Site("example.com"); !ok {
			b.Fatal("forgotten")
		}
	}
}

func BenchmarkLookupTXTUncached(b *testing.B) {
	s := dnstest.Start(b, `example.com. 0 TXT "x"`)
	r := newResolver(b, s, dns.Options{})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.LookupTXT(b.Context(), "example.com"); err != nil {
			b.Fatal(err)
		}
	}
}
