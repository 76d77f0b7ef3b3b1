package spf

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	other "blitiri.com.ar/go/spf"
)

// zone is a DNS; a name with the value "!" cannot be asked for.
type zone struct {
	txt, mx map[string][]string
	ip      map[string][]string
	ptr     map[string][]string
	asked   int
	wait    bool // never answers
}

var errBroken = errors.New("broken")

func answer(list []string) ([]string, error) {
	if len(list) == 1 && list[0] == "!" {
		return nil, errBroken
	}
	return list, nil
}

func (z *zone) TXT(ctx context.Context, name string) ([]string, error) {
	z.asked++
	if z.wait {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return answer(z.txt[name])
}

func (z *zone) NetIP(_ context.Context, network, name string) ([]netip.Addr, error) {
	z.asked++
	list, err := answer(z.ip[name])
	var out []netip.Addr
	for _, s := range list {
		if a := netip.MustParseAddr(s); a.Is4() == (network == "ip4") {
			out = append(out, a)
		}
	}
	return out, err
}

func (z *zone) MX(_ context.Context, name string) ([]string, error) {
	z.asked++
	return answer(z.mx[name])
}

func (z *zone) PTR(_ context.Context, addr netip.Addr) ([]string, error) {
	z.asked++
	return answer(z.ptr[addr.String()])
}

func check(t testing.TB, z *zone, client, helo, sender string) Result {
	t.Helper()
	c, err := New(Options{Resolver: z, Receiver: "mx.example.net"})
	if err != nil {
		t.Fatal(err)
	}
	return c.Check(t.Context(), netip.MustParseAddr(client), helo, sender)
}

func TestResult(t *testing.T) {
	t.Parallel()
	z := &zone{
		txt: map[string][]string{
			"example.com":      {"other", "v=spf1 ip4:192.0.2.0/24 include:inc.example.com -all exp=why.%{d}"},
			"inc.example.com":  {"v=spf1 a:host.example.com ~all"},
			"why.example.com":  {"%{i} may not send for %{o} to %{r}, says %{S}"},
			"soft.example.com": {"v=spf1 mx ~all"}, "open.example.com": {"v=spf1"},
			"two.example.com": {"v=spf1 -all", "v=spf1 +all"}, "down.example.com": {"!"}, "bad.example.com": {"v=spf1 all\x1b[31m:x -all"},
		},
		mx: map[string][]string{"soft.example.com": {"host.example.com."}},
		ip: map[string][]string{"host.example.com": {"198.51.100.7", "2001:db8::7"}},
	}
	for name, c := range map[string]struct {
		client, sender string
		want           Result
	}{
		"address":        {"192.0.2.9", "a@example.com", Result{Status: Pass, Domain: "example.com", Mechanism: "ip4:192.0.2.0/24"}},
		"mapped address": {"::ffff:192.0.2.9", "a@example.com", Result{Status: Pass, Domain: "example.com", Mechanism: "ip4:192.0.2.0/24"}},
		"include":        {"198.51.100.7", "a@example.com", Result{Status: Pass, Domain: "example.com", Mechanism: "include:inc.example.com"}},
		"include, IPv6":  {"2001:db8::7", "a@example.com", Result{Status: Pass, Domain: "example.com", Mechanism: "include:inc.example.com"}},
		"fail":           {"203.0.113.1", "a\xff <x>@example.com", Result{Status: Fail, Domain: "example.com", Mechanism: "-all", Explanation: "203.0.113.1 may not send for example.com to mx.example.net, says a%FF%20%3Cx%3E%40example.com"}},
		"empty sender":   {"192.0.2.9", "", Result{Status: Pass, Domain: "soft.example.com", HELO: true, Mechanism: "mx"}},
		"soft":           {"203.0.113.1", "a@soft.example.com", Result{Status: SoftFail, Domain: "soft.example.com", Mechanism: "~all"}},
		"says nothing":   {"203.0.113.1", "a@open.example.com", Result{Status: Neutral, Domain: "open.example.com", Mechanism: "default"}},
		"no policy":      {"203.0.113.1", "a@none.example.com", Result{Status: None, Domain: "none.example.com"}},
		"no domain":      {"203.0.113.1", "a@localhost", Result{Status: None, Domain: "localhost"}},
		"odd domain":     {"203.0.113.1", "a@x\r\ny.example", Result{Status: None, Domain: "x??y.example"}},
		"two policies":   {"203.0.113.1", "a@two.example.com", Result{Status: PermError, Domain: "two.example.com", Err: errRecord}},
		"DNS is away":    {"203.0.113.1", "a@down.example.com", Result{Status: TempError, Domain: "down.example.com", Err: errBroken}},
		"unreadable":     {"203.0.113.1", "a@bad.example.com", Result{Status: PermError, Domain: "bad.example.com", Err: errRecord}},
	} {
		client := c.client
		if name == "empty sender" {
			client = "198.51.100.7"
		}
		got := check(t, z, client, "soft.example.com", c.sender)
		if !errors.Is(got.Err, c.want.Err) || c.want.Err == nil && got.Err != nil {
			t.Errorf("%s: error %v", name, got.Err)
		}
		if got.Err != nil && strings.ContainsFunc(got.Err.Error(), func(c rune) bool { return c < ' ' }) {
			t.Errorf("%s: error %q", name, got.Err)
		}
		got.Err, c.want.Err = nil, nil
		if got != c.want {
			t.Errorf("%s: %+v\nwant %+v", name, got, c.want)
		}
	}
}

// TestBounded: policies that ask for much are cut off.
func TestBounded(t *testing.T) {
	t.Parallel()
	z := &zone{txt: make(map[string][]string), ip: map[string][]string{"h.example.com": {"192.0.2.1"}}}
	z.txt["loop.example.com"] = []string{"v=spf1 include:loop.example.com -all"}
	z.txt["tree.example.com"] = []string{"v=spf1" + strings.Repeat(" include:tree2.example.com", 50) + " -all"}
	z.txt["tree2.example.com"] = []string{"v=spf1" + strings.Repeat(" a:h.example.com", 50) + " -all"}
	z.txt["void.example.com"] = []string{"v=spf1" + strings.Repeat(" exists:no.example.com", 5) + " -all"}
	z.txt["long.example.com"] = []string{"v=spf1 " + strings.Repeat("ip4:192.0.2.1 ", MaxRecord)}
	z.txt["many.example.com"] = []string{"v=spf1 " + strings.Repeat("a ", maxTerms+1)}
	z.txt["exp.example.com"] = []string{"v=spf1 -all exp=big.example.com"}
	z.txt["big.example.com"] = []string{strings.Repeat("%{s}", 1000)}
	for name, want := range map[string]Status{"loop": PermError, "tree": PermError, "void": PermError, "long": PermError, "many": PermError, "exp": Fail} {
		z.asked = 0
		got := check(t, z, "203.0.113.1", "x.example", strings.Repeat("a", 500)+"@"+name+".example.com")
		if got.Status != want || z.asked > 2*MaxLookups || len(got.Explanation) > MaxExplanation {
			t.Errorf("%s: %+v after %d questions", name, got, z.asked)
		}
	}
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		got := check(t, &zone{wait: true}, "203.0.113.1", "x.example", "a@example.com")
		if got.Status != TempError || time.Since(began) != 20*time.Second {
			t.Errorf("%+v after %v", got, time.Since(began))
		}
	})
}

// theirs gives our zone to the other implementation.
type theirs struct{ *zone }

var errNotFound = &net.DNSError{Err: "no such name", IsNotFound: true}

func (z theirs) LookupTXT(_ context.Context, name string) ([]string, error) {
	if len(z.txt[name]) == 0 {
		return nil, errNotFound
	}
	return z.txt[name], nil
}

func (z theirs) LookupMX(_ context.Context, name string) ([]*net.MX, error) {
	var out []*net.MX
	for _, h := range z.mx[name] {
		out = append(out, &net.MX{Host: h})
	}
	if out == nil {
		return nil, errNotFound
	}
	return out, nil
}

func (z theirs) LookupIPAddr(_ context.Context, name string) ([]net.IPAddr, error) {
	var out []net.IPAddr
	for _, s := range z.ip[strings.TrimSuffix(name, ".")] {
		out = append(out, net.IPAddr{IP: net.ParseIP(s)})
	}
	if out == nil {
		return nil, errNotFound
	}
	return out, nil
}

func (z theirs) LookupAddr(_ context.Context, addr string) ([]string, error) {
	if len(z.ptr[addr]) == 0 {
		return nil, errNotFound
	}
	return z.ptr[addr], nil
}

// TestSameAsAnother compares with another implementation on policies made at random. That one finds errors only where it comes
// past them, so it may answer where we say permerror.
func TestSameAsAnother(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	words := []string{"a", "mx", "a:h1.example.com", "a:h2.example.com/24", "mx:example.net", "ip4:192.0.2.0/25", "ip4:192.0.2.1", "ip6:2001:db8::/32",
		"include:one.example.com", "include:two.example.com", "exists:%{ir}.h1.example.com", "exists:h2.example.com", "ptr", "ptr:example.com",
		"redirect=one.example.com", "exp=h1.example.com", "x=y", "a:%{d}", "a:no.example.com", "a/33", "ip4:1.2.3", "all", "mx//64", "a:h1.example.com/0"}
	record := func() []string {
		var b strings.Builder
		b.WriteString("v=spf1")
		for range r.IntN(6) {
			word := words[r.IntN(len(words))]
			if !strings.Contains(word, "=") {
				word = []string{"", "+", "-", "~", "?"}[r.IntN(5)] + word
			}
			b.WriteString(" " + word)
		}
		return []string{b.String()}
	}
	clients := []string{"192.0.2.1", "192.0.2.200", "198.51.100.4", "2001:db8::1", "2001:db9::1"}
	seen := make(map[Status]int)
	for range 3000 {
		z := &zone{
			txt: map[string][]string{"example.com": record(), "one.example.com": record(), "two.example.com": record()},
			mx:  map[string][]string{"example.net": {"h1.example.com", "h2.example.com"}, "example.com": {"h2.example.com"}},
			ip: map[string][]string{"h1.example.com": {"192.0.2.1"}, "h2.example.com": {"198.51.100.9", "2001:db8::1"},
				"example.com": {"192.0.2.200"}},
			ptr: map[string][]string{"192.0.2.1": {"h1.example.com."}},
		}
		client := clients[r.IntN(len(clients))]
		got := check(t, z, client, "h.example.org", "ann@example.com")
		want, err := other.CheckHostWithSender(net.ParseIP(client), "h.example.org", "ann@example.com", other.WithResolver(theirs{z}))
		seen[got.Status]++
		if string(got.Status) != string(want) && got.Status != PermError {
			// Theirs asks for both kinds of addresses, so fewer of its answers are void.
			if errors.Is(err, other.ErrVoidLookupLimitReached) {
				continue
			}
			t.Errorf("%s: %s here (%v), %s there (%v)\n%q", client, got.Status, got.Err, want, err, z.txt)
		}
	}
	if seen[Pass] < 100 || seen[Fail] < 100 || seen[PermError] < 100 {
		t.Errorf("%v", seen)
	}
	t.Log(fmt.Sprint(seen))
}

// FuzzRecord: whatever the DNS holds, results are bounded and printable.
func FuzzRecord(f *testing.F) {
	f.Add("v=spf1 a mx:%{d}/24//64 ptr ip4:1.2.3.4/8 include:%{ir}.example.com exp=e.%{h} -all", "see %{s} %{C}%%%_%-", "a@example.com")
	f.Add("v=spf1 redirect=%{l1r+}.example.com", "", "a+b@example.com")
	f.Fuzz(func(t *testing.T, policy, exp, sender string) {
		z := &zone{txt: map[string][]string{"example.com": {policy}, "e.example.com": {exp}}}
		got := check(t, z, "192.0.2.1", "e.example.com", sender)
		odd := func(c rune) bool { return c < ' ' || c >= 0x7f }
		for _, s := range []string{got.Domain, got.Mechanism, got.Explanation} {
			if strings.ContainsFunc(s, odd) || len(s) > MaxExplanation {
				t.Fatalf("%q in %+v", s, got)
			}
		}
		if z.asked > 100 {
			t.Fatalf("%d questions", z.asked)
		}
		if got.Err != nil && strings.ContainsFunc(got.Err.Error(), odd) {
			t.Fatalf("error %q", got.Err)
		}
	})
}
