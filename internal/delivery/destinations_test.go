package delivery

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/delivery/egress"
	"github.com/godwit-mta/godwit/internal/dns/dnstest"
	"github.com/godwit-mta/godwit/internal/queue"
	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// TestDNS delivers to domains whose DNS says that there is no way, or nothing at all.
func TestDNS(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, zone string
		fail       string // name that answers SERVFAIL
		want       string
		says       []string
		allowed    []netip.Prefix // in place of loopback
	}{
		{name: "D-1/null-mx", zone: "example.test. MX 0 .", want: "bounced dns_null_mx dns", says: []string{"example.test",
			"null MX"}},
		{name: "D-2/loopback", zone: "example.test. MX 10 mx.example.test.\nmx.example.test. A 127.0.0.1\n",
			allowed: []netip.Prefix{},
			want:    "bounced no_usable_address dns", says: []string{"mx.example.test", "127.0.0.1", "loopback"}},
		{name: "D-2/private", zone: "example.test. MX 10 mx.example.test.\nmx.example.test. A 10.1.2.3\n",
			want: "bounced no_usable_address dns",
			says: []string{"10.1.2.3", "private"}},
		{name: "D-2/metadata", zone: "example.test. A 169.254.169.254\n", want: "bounced no_usable_address dns",
			says: []string{"link-local"}},
		{name: "D-2/mapped", zone: "example.test. AAAA ::ffff:127.0.0.1\n", want: "bounced no_usable_address dns"},
		{name: "D-2/all-kinds", zone: "example.test. MX 10 a.test.\n" +
			"example.test. MX 20 b.test.\na.test. A 192.168.1.1\nb.test. AAAA fd00::1\n",
			want: "bounced no_usable_address dns", says: []string{"192.168.1.1", "fd00::1"}},
		{name: "D-2/localhost", zone: "example.test. MX 10 localhost.\n", want: "bounced no_usable_address dns",
			says: []string{"localhost"}},
		{name: "D-2/literal-name", zone: "example.test. MX 10 127.0.0.1.\n", want: "bounced no_usable_address dns",
			says: []string{"127.0.0.1"}},
		{name: "D-4/name", zone: "example.test. MX 10 mta.test.\n" +
			"example.test. MX 20 mx2.test.\nmta.test. A 127.0.0.2\nmx2.test. A 127.0.0.2\n",
			want: "bounced loop dns", says: []string{"this server itself"}},
		{name: "D-4/equal", zone: "example.test. MX 10 mta.test.\n" +
			"example.test. MX 10 mx2.test.\nmta.test. A 127.0.0.2\nmx2.test. A 127.0.0.2\n",
			want: "bounced loop dns"},
		{name: "D-4/implicit", zone: "example.test. CNAME mta.test.\nmta.test. A 127.0.0.2\n", want: "bounced loop dns"},
		{name: "D-5/cname-loop", zone: "example.test. CNAME b.test.\nb.test. CNAME example.test.\n",
			want: "deferred dns_malformed dns"},
		{name: "D-7/nxdomain", zone: "other.test. A 127.0.0.2\n", want: "bounced dns_nxdomain dns",
			says: []string{"example.test does not exist"}},
		{name: "D-7/no-address", zone: "example.test. TXT nothing\n", want: "bounced dns_no_address dns",
			says: []string{"neither"}},
		{name: "D-7/mx-without-address", zone: "example.test. MX 10 mx.example.test.\nmx.example.test. TXT nothing\n",
			want: "bounced dns_no_address dns", says: []string{"mx.example.test has no address"}},
		{name: "D-7/mx-gone", zone: "example.test. MX 10 gone.test.\nexample.test. MX 20 gone2.test.\n",
			want: "bounced dns_nxdomain dns"},
		{name: "D-7/servfail", zone: "example.test. MX 10 mx.example.test.\n", fail: "example.test",
			want: "deferred dns_temporary dns",
			says: []string{"SERVFAIL", "MX example.test"}},
		{name: "D-7/host-servfail", zone: "example.test. MX 10 mx.example.test.\n", fail: "mx.example.test",
			want: "deferred dns_temporary dns",
			says: []string{"SERVFAIL", "mx.example.test"}},
		{name: "D-7/one-gone-one-servfail", zone: "example.test. MX 10 gone.test.\nexample.test. MX 20 mx.example.test.\n",
			fail: "mx.example.test",
			want: "deferred dns_temporary dns"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			change := func(o *Options) {
				if c.allowed != nil {
					o.AllowedNetworks = c.allowed
				}
			}
			w, sinks := newWorld(t, c.zone, change, mx{"127.0.0.2", new(smtptest.Script)})
			if c.fail != "" {
				w.dns.Fail(c.fail, dnstest.Behaviour{Rcode: "SERVFAIL"})
			}
			v := w.deliver("u@example.test", "v@example.test")
			expect(t, v, c.want, c.want)
			contains(t, v.Attempt.Results[0].Explanation, c.says...)
			if v.Destination != strings.HasPrefix(c.want, "deferred") {
				t.Errorf("destination is %v", v.Destination)
			}
			if n := sinks[0].Counters().Connections; n != 0 {
				t.Errorf("%d connections were made", n)
			}
		})
	}
}

// TestHosts delivers where some of several hosts do not serve.
func TestHosts(t *testing.T) {
	t.Parallel()
	fine, down := new(smtptest.Script), (*smtptest.Script)(nil)
	for _, c := range []struct {
		name, zone string
		hosts      []mx
		want       string
		host       string // that took it
		says       []string
	}{
		{"preference", twoZones, []mx{{"127.0.0.2", fine}, {"127.0.0.3", fine}}, delivers, "mx1.example.test", nil},
		{"first-down", twoZones, []mx{{"127.0.0.2", down}, {"127.0.0.3", fine}}, delivers, "mx2.example.test", nil},
		{"all-down", twoZones, []mx{{"127.0.0.2", down}, {"127.0.0.3", down}, {"127.0.0.4", fine}},
			"deferred connection_refused connect",
			"mx1.example.test", []string{"connection refused by mx1.example.test [127.0.0.2]",
				"; connection refused by mx2.example.test [127.0.0.3]"}},
		{"second-speaks", twoZones, []mx{{"127.0.0.2", down},
			{"127.0.0.3", &smtptest.Script{Rules: []smtptest.Rule{{At: smtptest.AtBanner, Reply: "421 too busy"}}}}},
			"deferred session_refused greeting", "mx2.example.test", []string{"mx2.example.test [127.0.0.3]", "421 too busy",
				"refused by mx1"}},
		{"second-address", "example.test. MX 10 mx.test.\nmx.test. A 127.0.0.2\nmx.test. A 127.0.0.3\n",
			[]mx{{"127.0.0.2", down}, {"127.0.0.3", fine}}, delivers, "mx.test", nil},
		{"D-7/implicit", "example.test. A 127.0.0.2\n", []mx{{"127.0.0.2", fine}}, delivers, "example.test", nil},
		{"D-7/one-gone", "example.test. MX 10 gone.test.\nexample.test. MX 20 mx.test.\nmx.test. A 127.0.0.2\n",
			[]mx{{"127.0.0.2", fine}}, delivers,
			"mx.test", nil},
		{"D-2/one-unusable",
			"example.test. MX 10 bad.test.\n" +
				"example.test. MX 20 mx.test.\nbad.test. A 10.0.0.1\nmx.test. A 127.0.0.2\n",
			[]mx{{"127.0.0.2", fine}}, delivers, "mx.test", nil},
		{"D-2/unusable-and-down",
			"example.test. MX 10 bad.test.\n" +
				"example.test. MX 20 mx.test.\nbad.test. A 10.0.0.1\nmx.test. A 127.0.0.2\n",
			[]mx{{"127.0.0.2", down}, {"127.0.0.3", fine}}, "deferred connection_refused connect", "mx.test",
			[]string{"10.0.0.1", "private"}},
		{"D-4/better-than-us",
			"example.test. MX 10 mx.test.\n" +
				"example.test. MX 20 mta.test.\nmx.test. A 127.0.0.2\nmta.test. A 127.0.0.3\n",
			[]mx{{"127.0.0.2", fine}, {"127.0.0.3", fine}}, delivers, "mx.test", nil},
		{"D-4/better-than-us-down",
			"example.test. MX 10 mx.test.\n" +
				"example.test. MX 20 mta.test.\nmx.test. A 127.0.0.2\nmta.test. A 127.0.0.3\n",
			[]mx{{"127.0.0.2", down}, {"127.0.0.3", fine}}, "deferred connection_refused connect", "mx.test", nil},
		{"D-5/alias", "example.test. MX 10 alias.test.\nalias.test. CNAME mx.test.\nmx.test. A 127.0.0.2\n",
			[]mx{{"127.0.0.2", fine}}, delivers,
			"alias.test", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w, sinks := newWorld(t, c.zone, nil, c.hosts...)
			v := w.deliver("u@example.test")
			expect(t, v, c.want)
			r := &v.Attempt.Results[0]
			if r.Host != c.host {
				t.Errorf("host %q, want %q", r.Host, c.host)
			}
			contains(t, r.Explanation, c.says...)
			taken := 0
			for _, s := range sinks {
				if s != nil {
					taken += int(s.Counters().Transactions)
				}
			}
			if want := map[bool]int{true: 1}[r.Outcome == spool.Delivered]; taken != want {
				t.Errorf("%d transactions, want %d", taken, want)
			}
		})
	}
}

// TestD4OwnAddress: an MX host whose address and port we listen on is ourselves, whatever its name.
func TestD4OwnAddress(t *testing.T) {
	t.Parallel()
	for name, listening := range map[string]string{"address": "127.0.0.2", "any-v4": "0.0.0.0", "any": "::"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var w *world
			change := func(o *Options) {
				o.Listening = func() []netip.AddrPort {
					return []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(listening), w.port)}
				}
			}
			w, sinks := newWorld(t, oneZone, func(o *Options) { change(o) }, oneMX(smtptest.Script{})...)
			change(&w.d.o)
			expect(t, w.deliver("u@example.test"), "bounced loop dns")
			if c := sinks[0].Counters(); c.Connections != 0 {
				t.Errorf("got %+v", c)
			}
		})
	}
	t.Run("other-port", func(t *testing.T) {
		t.Parallel()
		w, _ := newWorld(t, oneZone, func(o *Options) {
			o.Listening = func() []netip.AddrPort { return []netip.AddrPort{netip.MustParseAddrPort("127.0.0.2:1")} }
		}, oneMX(smtptest.Script{})...)
		expect(t, w.deliver("u@example.test"), delivers)
	})
}

// TestD6ManyAddresses: at most MaxAddresses are tried, and at least two even when time is up.
func TestD6ManyAddresses(t *testing.T) {
	t.Parallel()
	var zone strings.Builder
	for i := range 10 {
		fmt.Fprintf(&zone, "example.test. MX %d mx%d.test.\n", i, i)
		for j := range 10 {
			fmt.Fprintf(&zone, "mx%d.test. A 127.0.%d.%d\n", i, i+2, j+1)
		}
	}
	for _, c := range []struct {
		name   string
		change func(*Options)
		hosts  int
		tried  int
	}{
		{"default", func(*Options) {}, 2, 8},
		{"three", func(o *Options) { o.MaxAddresses = 3 }, 2, 3},
		{"time-up", func(o *Options) { o.TryFor = 1 }, 1, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tried := make(chan netip.AddrPort, 100)
			w, _ := newWorld(t, zone.String(), func(o *Options) { c.change(o); o.Dial = recordDials(tried) }, mx{"127.0.0.2",
				nil})
			v := w.deliver("u@example.test")
			expect(t, v, "deferred connection_refused connect")
			hosts := make(map[byte]bool)
			n := len(tried)
			for range n {
				a := <-tried
				hosts[a.Addr().As4()[2]] = true
			}
			if n != c.tried || len(hosts) != c.hosts {
				t.Errorf("%d addresses of %d hosts were tried", n, len(hosts))
			}
		})
	}
}

// recordDials dials and notes where to.
func recordDials(tried chan<- netip.AddrPort) egress.DialFunc {
	return func(ctx context.Context, local netip.Addr, to netip.AddrPort, control egress.ControlFunc) (c conn, err error) {
		tried <- to
		return egress.DialTCP(ctx, local, to, control)
	}
}

func TestIPv6(t *testing.T) {
	t.Parallel()
	if !hasIPv6() {
		t.Skip("needs an IPv6 loopback address")
	}
	const both = "example.test. MX 10 mx.test.\nmx.test. AAAA ::1\nmx.test. A 127.0.0.2\n"
	fine := new(smtptest.Script)
	t.Run("only", func(t *testing.T) {
		t.Parallel()
		w, _ := newWorld(t, "example.test. AAAA ::1\n", nil, mx{"::1", fine})
		v := w.deliver("u@example.test")
		expect(t, v, delivers)
		if a := v.Attempt.Results[0].Addr.Addr(); a != netip.IPv6Loopback() {
			t.Errorf("went to %s", a)
		}
	})
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		w, _ := newWorld(t, both, nil, mx{"::1", nil}, mx{"127.0.0.2", fine})
		v := w.deliver("u@example.test")
		expect(t, v, delivers)
	})
	t.Run("refused-session", func(t *testing.T) { // connected, and no use
		t.Parallel()
		busy := rule(smtptest.AtBanner, func(r *smtptest.Rule) { r.Reply = "421 4.3.2 too busy" })
		w, sinks := newWorld(t, both, nil, mx{"::1", &busy}, mx{"127.0.0.2", fine})
		v := w.deliver("u@example.test")
		expect(t, v, delivers)
		if a := v.Attempt.Results[0].Addr.Addr(); a.Is6() || sinks[0].Counters().Connections != 1 {
			t.Errorf("went to %s, %d connections over IPv6", a, sinks[0].Counters().Connections)
		}
	})
	t.Run("N-3/black-hole", func(t *testing.T) {
		t.Parallel()
		change := func(o *Options) {
			o.FallbackDelay = 50 * time.Millisecond
			o.Dial = func(ctx context.Context, local netip.Addr, to netip.AddrPort, control egress.ControlFunc) (conn, error) {
				if to.Addr().Is6() {
					<-ctx.Done()
					return nil, context.Cause(ctx)
				}
				return egress.DialTCP(ctx, local, to, control)
			}
		}
		w, _ := newWorld(t, both, change, mx{"127.0.0.2", fine})
		v := w.deliver("u@example.test")
		expect(t, v, delivers)
		if took := v.Attempt.Timings.Connect; took > 3*time.Second {
			t.Errorf("connecting took %v", took)
		}
	})
	t.Run("source-of-one-family", func(t *testing.T) {
		t.Parallel()
		change := func(o *Options) { o.Source.IPv4 = netip.MustParseAddr("127.0.0.9") }
		w, sinks := newWorld(t, both, change, mx{"::1", fine}, mx{"127.0.0.2", fine})
		v := w.deliver("u@example.test")
		expect(t, v, delivers)
		if m := sinks[1].Messages(); len(m) > 0 && !strings.HasPrefix(m[0].Remote, "127.0.0.9:") {
			t.Errorf("came from %s", m[0].Remote)
		}
		if c := sinks[0].Counters(); c.Connections != 0 {
			t.Errorf("got %+v", c)
		}
	})
}

func TestLiterals(t *testing.T) {
	t.Parallel()
	w, sinks := newWorld(t, "", nil, oneMX(smtptest.Script{})...)
	v := w.deliver("u@[127.0.0.2]")
	expect(t, v, delivers)
	if site, ok := w.d.Site("[127.0.0.2]"); !ok || site != "[127.0.0.2]" || v.Attempt.Results[0].Site != site {
		t.Errorf("site %q", site)
	}
	for literal, want := range map[string]string{
		"[10.0.0.1]":            "bounced no_usable_address dns",
		"[IPv6:fd00::1]":        "bounced no_usable_address dns",
		"[IPv6:::ffff:1.2.3.4]": "bounced no_usable_address dns",
		"[x]":                   "bounced dns_malformed dns",
		"[1.2.3.4":              "bounced dns_malformed dns",
		"[::1]":                 "bounced dns_malformed dns",
		"[IPv6:1.2.3.4]":        "bounced dns_malformed dns",
		"[IPv6:fe80::1%eth0]":   "bounced dns_malformed dns",
	} {
		v := w.deliver("u@" + literal)
		if !fits(says(&v.Attempt.Results[0]), want) {
			t.Errorf("%s: got %s (%s), want %s", literal, says(&v.Attempt.Results[0]), v.Attempt.Results[0].Explanation, want)
		}
	}
	if c := sinks[0].Counters(); c.Connections != 1 {
		t.Errorf("got %+v", c)
	}
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	fine := new(smtptest.Script)
	route := func(hosts ...string) func(*Options) {
		return func(o *Options) {
			o.AllowedNetworks = nil // routes are exempt
			o.Port = 25
			o.Routes = []Route{{Domains: []string{"example.test", "*.lan.test"}, Hosts: hosts}}
		}
	}
	t.Run("address", func(t *testing.T) {
		t.Parallel()
		var w *world
		w, _ = newWorld(t, "example.test. MX 0 .\n", route("192.0.2.1"), mx{"127.0.0.2", fine})
		hosts := []string{fmt.Sprintf("127.0.0.3:%d", w.port), fmt.Sprintf("127.0.0.2:%d", w.port)}
		if err := w.d.SetRoutes([]Route{{Domains: []string{"example.test", "*.lan.test"}, Hosts: hosts}}, nil); err != nil {
			t.Fatal(err)
		}
		for _, to := range []string{"u@example.test", "u@a.lan.test", "u@a.b.lan.test"} {
			v := w.deliver(to)
			expect(t, v, delivers)
			if want := "smtp://" + strings.Join(hosts, ","); v.Attempt.Results[0].Site != want {
				t.Errorf("site %q, want %q", v.Attempt.Results[0].Site, want)
			}
		}
		expect(t, w.deliver("u@lan.test"), "bounced dns_nxdomain dns")
	})
	t.Run("name", func(t *testing.T) {
		t.Parallel()
		w, _ := newWorld(t, "relay.test. A 127.0.0.2\n", route("192.0.2.1"), mx{"127.0.0.2", fine})
		if err := w.d.SetRoutes([]Route{{Domains: []string{"*"}, Hosts: []string{fmt.Sprintf("relay.test:%d", w.port)}}},
			nil); err != nil {
			t.Fatal(err)
		}
		expect(t, w.deliver("u@example.test"), delivers)
		expect(t, w.deliver("u@[192.0.2.77]"), delivers)
	})
	t.Run("localhost", func(t *testing.T) {
		t.Parallel()
		w, _ := newWorld(t, "", route("192.0.2.1"), mx{"127.0.0.1", fine})
		if err := w.d.SetRoutes([]Route{{Domains: []string{"*"}, Hosts: []string{fmt.Sprintf("localhost:%d", w.port)}}},
			nil); err != nil {
			t.Fatal(err)
		}
		expect(t, w.deliver("u@example.test"), delivers)
	})
	t.Run("loop", func(t *testing.T) {
		t.Parallel()
		w, _ := newWorld(t, "", nil, mx{"127.0.0.2", fine})
		own := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), w.port)
		w.d.o.Listening = func() []netip.AddrPort { return []netip.AddrPort{own} }
		if err := w.d.SetRoutes([]Route{{Domains: []string{"*"}, Hosts: []string{own.String()}}}, nil); err != nil {
			t.Fatal(err)
		}
		expect(t, w.deliver("u@example.test"), "bounced loop dns")
	})
	t.Run("lmtp", func(t *testing.T) {
		t.Parallel()
		script := smtptest.Script{LMTP: true, Rules: []smtptest.Rule{
			{At: smtptest.AtFinal, Match: "full@*", Reply: "452 4.2.2 mailbox full"},
			{At: smtptest.AtFinal, Match: "gone@*", Reply: "550 5.1.1 no such user"},
			{At: smtptest.AtRcpt, Match: "nobody@*", Reply: "550 5.1.1 no such user"},
		}}
		w, sinks := newWorld(t, "", nil, mx{"127.0.0.2", &script})
		routes := []Route{{Domains: []string{"example.test"}, Hosts: []string{fmt.Sprintf("127.0.0.2:%d", w.port)},
			Protocol: LMTP}}
		if err := w.d.SetRoutes(routes, nil); err != nil {
			t.Fatal(err)
		}
		v := w.deliver("a@example.test", "nobody@example.test", "full@example.test", "gone@example.test", "b@example.test")
		expect(t, v, delivers, "bounced remote_refused rcpt", "deferred remote_deferred final",
			"bounced remote_refused final", delivers)
		if c := v.Attempt.Results[2].Class; c != event.ClassMailboxFull {
			t.Errorf("class %s", c)
		}
		v = w.deliver("a@example.test")
		expect(t, v, delivers)
		if !v.Attempt.Reused {
			t.Error("the session was not kept")
		}
		awaitReceived(t, sinks[0], 4+1) // of the first message the host took four recipients, and refused two later
	})
}

func TestRouteTable(t *testing.T) {
	t.Parallel()
	table, err := newRoutes([]Route{
		{Domains: []string{"*"}, Hosts: []string{"all.test"}},
		{Domains: []string{"*.test", "[192.0.2.1]"}, Hosts: []string{"test.test:2525"}},
		{Domains: []string{"*.Lan.Test."}, Hosts: []string{"[2001:db8::1]:26", "10.0.0.5"}, Protocol: LMTP},
		{Domains: []string{"a.lan.test", "bücher.test"}, Hosts: []string{"2001:db8::2"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for domain, want := range map[string]string{
		"example.org": "smtp://all.test:25", "test": "smtp://all.test:25", "[192.0.2.2]": "smtp://all.test:25",
		"":             "smtp://all.test:25",
		"example.test": "smtp://test.test:2525", "lan.test": "smtp://test.test:2525", "[192.0.2.1]": "smtp://test.test:2525",
		"b.lan.test": "lmtp://[2001:db8::1]:26,10.0.0.5:24", "x.a.lan.test": "lmtp://[2001:db8::1]:26,10.0.0.5:24",
		"a.lan.test": "smtp://[2001:db8::2]:25", "xn--bcher-kva.test": "smtp://[2001:db8::2]:25",
	} {
		r := table.find(domain)
		if r == nil || r.site != want {
			t.Errorf("%q goes to %+v, want %s", domain, r, want)
		}
	}
	for _, bad := range []Route{
		{Domains: []string{"a.test"}},
		{Hosts: []string{"a.test"}},
		{Domains: []string{"a.*.test"}, Hosts: []string{"a.test"}},
		{Domains: []string{"**"}, Hosts: []string{"a.test"}},
		{Domains: []string{""}, Hosts: []string{"a.test"}},
		{Domains: []string{"a.test", "A.test"}, Hosts: []string{"a.test"}},
		{Domains: []string{"*", "*"}, Hosts: []string{"a.test"}},
		{Domains: []string{"a.test"}, Hosts: []string{"a.test:0"}},
		{Domains: []string{"a.test"}, Hosts: []string{"a.test:65536"}},
		{Domains: []string{"a.test"}, Hosts: []string{"a.test:smtp"}},
		{Domains: []string{"a.test"}, Hosts: []string{"a b"}},
		{Domains: []string{"a.test"}, Hosts: []string{""}},
		{Domains: []string{"a.test"}, Hosts: []string{"[x]:25"}},
	} {
		if _, err := newRoutes([]Route{bad}); !errors.Is(err, ErrRoute) {
			t.Errorf("%+v: got %v", bad, err)
		}
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, "", nil, mx{"127.0.0.2", nil})
	good := Options{Hostname: "mta.test", Resolver: w.d.o.Resolver}
	if _, err := New(good); err != nil {
		t.Error(err)
	}
	for i, change := range []func(*Options){
		func(o *Options) { o.Hostname = "" },
		func(o *Options) { o.Resolver = nil },
		func(o *Options) { o.MaxAddresses = 1 },
		func(o *Options) { o.MaxRecipients = -1 },
		func(o *Options) { o.Source.IPv4 = netip.IPv6Loopback() },
		func(o *Options) { o.Source.IPv6 = netip.MustParseAddr("127.0.0.1") },
		func(o *Options) { o.Routes = []Route{{}} },
	} {
		bad := good
		change(&bad)
		if _, err := New(bad); err == nil {
			t.Errorf("case %d: no error", i)
		}
	}
}

// TestAbort ends the context of an attempt: what is not decided is given back untried, what has left is waited for.
func TestAbort(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		at   smtptest.Point
		want string
	}{
		{smtptest.AtBanner, "none"}, {smtptest.AtEhlo, "none"}, {smtptest.AtMail, "none"}, {smtptest.AtRcpt, "none"},
		{smtptest.AtData, "none"}, {smtptest.AtFinal, delivers},
	} {
		t.Run(string(c.at), func(t *testing.T) {
			t.Parallel()
			script := smtptest.Script{Without: []string{"CHUNKING"},
				Rules: []smtptest.Rule{{At: c.at, Delay: smtptest.Duration(time.Second)}}}
			w, sinks := newWorld(t, oneZone, nil, oneMX(script)...)
			ctx, cancel := context.WithCancel(context.Background())
			cancelled := make(chan struct{})
			go func() {
				defer close(cancelled)
				begun := func() bool {
					n := sinks[0].Counters()
					return n.Connections > 0 && (c.at != smtptest.AtFinal || n.Recipients > 0)
				}
				for !begun() {
					time.Sleep(time.Millisecond)
				}
				time.Sleep(100 * time.Millisecond)
				cancel()
			}()
			defer func() { <-cancelled }()
			v := w.run(ctx, w.job("u@example.test"))
			expect(t, v, c.want)
			if v.Destination {
				t.Error("the destination is blamed")
			}
		})
	}
	t.Run("silent-final", func(t *testing.T) { // not for ever
		t.Parallel()
		script := rule(smtptest.AtFinal, func(r *smtptest.Rule) { r.Stall = true })
		soon := func(o *Options) { o.Farewell = 100 * time.Millisecond }
		w, _ := newWorld(t, oneZone, soon, oneMX(script)...)
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		v := w.run(ctx, w.job("u@example.test"))
		expect(t, v, "deferred connection_lost final")
		contains(t, v.Attempt.Results[0].Explanation, "arrive twice")
	})
	t.Run("dns", func(t *testing.T) {
		t.Parallel()
		w, _ := newWorld(t, oneZone, nil, mx{"127.0.0.2", nil})
		w.dns.Fail("*", dnstest.Behaviour{Drop: true})
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		expect(t, w.run(ctx, w.job("u@example.test")), "none")
	})
	t.Run("connect", func(t *testing.T) {
		t.Parallel()
		hang := func(o *Options) {
			o.Dial = func(ctx context.Context, _ netip.Addr, _ netip.AddrPort, _ egress.ControlFunc) (conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
		}
		w, _ := newWorld(t, oneZone, hang, mx{"127.0.0.2", nil})
		ctx, cancel := context.WithCancelCause(context.Background())
		time.AfterFunc(50*time.Millisecond, func() { cancel(errors.New("stopping")) })
		expect(t, w.run(ctx, w.job("u@example.test")), "none")
	})
}

// TestBodyUnreadable: a message that cannot be read back is nobody else's fault.
func TestBodyUnreadable(t *testing.T) {
	t.Parallel()
	w, sinks := newWorld(t, oneZone, nil, oneMX(smtptest.Script{})...)
	j := w.job("u@example.test")
	good := j.Body
	j.Body = func(context.Context) (*smtp.Body, error) { return nil, errors.New("no such record") }
	v := w.run(context.Background(), j)
	expect(t, v, "none")
	if v.Destination {
		t.Error("the destination is blamed")
	}
	j.Body = good
	expect(t, w.run(context.Background(), j), delivers)
	if c := sinks[0].Counters(); c.Connections != 1 {
		t.Errorf("the session was not kept: %+v", c)
	}
}

// TestBodyLost: a message whose bytes are lost is said to be so; nothing is tried.
func TestBodyLost(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, oneZone, nil, oneMX(smtptest.Script{})...)
	j := w.job("u@example.test")
	j.Body = func(context.Context) (*smtp.Body, error) { return nil, fmt.Errorf("%w: why", spool.ErrUnreadable) }
	v := w.run(context.Background(), j)
	expect(t, v, "none")
	if v.Destination || !errors.Is(v.Unreadable, spool.ErrUnreadable) {
		t.Errorf("%+v", v)
	}
}

// TestBodyLater: while there is no memory for a message its session is free for others, and the phase says what is
// waited for.
func TestBodyLater(t *testing.T) {
	t.Parallel()
	w, sinks := newWorld(t, oneZone, nil, oneMX(smtptest.Script{})...)
	j := w.job("u@example.test")
	body := j.Body
	j.BodyNow = func(context.Context) (*smtp.Body, error) { return nil, fmt.Errorf("reading: %w", smtp.ErrNoMemory) }
	j.Body = func(ctx context.Context) (*smtp.Body, error) {
		if p := j.Phase(); p.Name != queue.PhaseMemory {
			t.Errorf("phase %q", p.Name)
		}
		expect(t, w.run(ctx, w.job("other@example.test")), delivers)
		return body(ctx)
	}
	expect(t, w.run(context.Background(), j), delivers)
	if c := sinks[0].Counters(); c.Messages != 2 || c.Connections != 1 {
		t.Errorf("%d messages over %d connections", c.Messages, c.Connections)
	}
}

// TestNeeds: what the remote does not offer fails for good, with the reason.
func TestNeeds(t *testing.T) {
	t.Parallel()
	script := smtptest.Script{Without: []string{"SMTPUTF8", "8BITMIME"}, Size: 1000}
	w, sinks := newWorld(t, oneZone, nil, oneMX(script)...)
	j := w.job("jörg@example.test", "u@example.test")
	expect(t, w.run(context.Background(), j), "bounced utf8_unsupported mail", delivers)
	j = w.jobOf(smtp.BodyOf([]byte("Subject: x\r\n\r\n\xc3\xa4\r\n")), "u@example.test")
	expect(t, w.run(context.Background(), j), "bounced 8bit_unsupported mail")
	j = w.jobOf(smtp.BodyOf([]byte(strings.Repeat("x\r\n", 1000))), "u@example.test")
	expect(t, w.run(context.Background(), j), "bounced size_exceeded mail")
	j = w.job("u@example.test")
	j.Message.HeaderUTF8 = true
	v := w.run(context.Background(), j)
	expect(t, v, "bounced utf8_unsupported mail")
	contains(t, v.Attempt.Results[0].Explanation, "mx1.example.test", "SMTPUTF8")
	if c := sinks[0].Counters(); c.Messages != 1 {
		t.Errorf("got %+v", c)
	}
}

// TestRetryAfter: a time asked for in words is passed on.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	script := rule(smtptest.AtRcpt, func(r *smtptest.Rule) {
		r.Match, r.Reply = "b@*",
			"451 4.7.1 Greylisted, come back in 00:05:00"
	})
	w, _ := newWorld(t, oneZone, nil, oneMX(script)...)
	v := w.deliver("a@example.test", "b@example.test")
	expect(t, v, delivers, "deferred greylisted rcpt")
	if !slices.Equal(v.RetryAfter, []time.Duration{0, 5 * time.Minute}) {
		t.Errorf("retry after %v", v.RetryAfter)
	}
}

// TestJoined: recipients of several domains at one site share the transaction.
func TestJoined(t *testing.T) {
	t.Parallel()
	w, sinks := newWorld(t, oneZone+"other.test. MX 10 mx1.example.test.\n", nil, oneMX(smtptest.Script{})...)
	expect(t, w.deliver("a@example.test", "b@other.test"), delivers, delivers)
	expect(t, w.deliver("b@other.test"), delivers)
	one, ok1 := w.d.Site("example.test")
	two, ok2 := w.d.Site("other.test")
	if !ok2 || !ok1 || one != two {
		t.Errorf("sites %q and %q", one, two)
	}
	if c := sinks[0].Counters(); c.Messages != 2 || c.Connections != 1 || c.Deliveries != 3 {
		t.Errorf("got %+v", c)
	}
}
