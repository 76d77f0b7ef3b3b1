package dns

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	wire "github.com/miekg/dns"
)

func TestNormalize(t *testing.T) {
	t.Parallel()
	label63 := strings.Repeat("a", 63)
	name253 := strings.Join([]string{label63, label63, label63, label63[:61]}, ".")
	for in, want := range map[string]string{
		"example.com": "example.com", "EXAMPLE.Com.": "example.com", "bücher.example": "xn--bcher-kva.example",
		"BÜCHER.example.": "xn--bcher-kva.example", "_dmarc.example.com": "_dmarc.example.com", "a-b.example": "a-b.example",
		"com": "com", "1.2.3": "1.2.3", "0x7f.1": "0x7f.1", label63 + ".example": label63 + ".example", name253: name253,

		"": "", ".": "", "..": "", ".example": "", "a..b": "", "a b.example": "", "a\\.b.example": "", "a@b": "", "[192.0.2.1]": "",
		"192.0.2.1": "", "192.0.2.1.": "", "::1": "", label63 + "a.example": "", name253 + "a": "", "a\x00b": "", "a\nb": "", "\xff.example": "",
		"a\u3002b..example": "", "*.example": "", strings.Repeat("ü.", 200): "",
	} {
		got, err := normalize(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("normalize(%q) = %q, %v; want %q", in, got, err, want)
		}
		if err != nil && (err.Temporary() || len(err.Name) > maxName+3) {
			t.Errorf("%q: the error is %+v", in, err)
		}
	}
}

func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const limit = 10 * cacheShards
		c := newCache(limit)
		for i := range 4 * limit {
			c.put(key{fmt.Sprintf("n%d.example", i), wire.TypeMX}, &answer{expires: time.Now().Add(time.Hour)}, time.Now())
		}
		if n := c.len(); n != limit {
			t.Errorf("%d entries, the limit is %d", n, limit)
		}
	})
}

func TestCacheKeepsWhatIsUsed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCache(2 * evictSample * cacheShards)
		used := make([]key, 20)
		for i := range used {
			used[i] = key{fmt.Sprintf("used%d.example", i), wire.TypeMX}
			c.put(used[i], &answer{expires: time.Now().Add(1000 * time.Hour)}, time.Now())
		}
		lost := 0
		for i := range 2_000 {
			time.Sleep(time.Second)
			now := time.Now()
			c.put(key{fmt.Sprintf("once%d.example", i), wire.TypeMX}, &answer{expires: now.Add(1000 * time.Hour)}, now)
			for _, k := range used {
				if c.get(k, now) == nil {
					lost++
					c.put(k, &answer{expires: now.Add(1000 * time.Hour)}, now)
				}
			}
		}
		if lost > 2 {
			t.Errorf("answers in use were dropped %d times", lost)
		}
	})
}

func TestCacheDropsTheExpiredFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCache(cacheShards) // one entry per shard
		old, young := key{"a.example", 1}, key{"a.example", 1 + cacheShards}
		if c.shard(old) != c.shard(young) {
			t.Fatal("the keys do not share a shard")
		}
		c.put(old, &answer{expires: time.Now().Add(time.Second)}, time.Now())
		time.Sleep(time.Second)
		if c.get(old, time.Now()) != nil {
			t.Error("an answer outlived its time")
		}
		c.put(young, &answer{expires: time.Now().Add(time.Second)}, time.Now())
		if c.get(young, time.Now()) == nil || c.len() != 1 {
			t.Error("the expired answer kept its place")
		}
	})
}

func TestSystemServers(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "resolv.conf")
	addrs := func(texts ...string) []netip.AddrPort {
		var out []netip.AddrPort
		for _, s := range texts {
			out = append(out, netip.MustParseAddrPort(s))
		}
		return out
	}
	own := addrs("127.0.0.1:53", "[::1]:53")
	if got, err := readSystem(file); err != nil || !slices.Equal(got, own) {
		t.Errorf("no file: %v, %v", got, err)
	}
	for text, want := range map[string][]netip.AddrPort{
		"": own,
		"# nothing\nsearch example.com\noptions edns0\n":                          own,
		"nameserver not-an-address\n":                                             own,
		"nameserver 192.0.2.1\nnameserver 2001:db8::1\nnameserver fe80::1%eth0\n": addrs("192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%eth0]:53"),
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readSystem(file); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	if _, err := readSystem(t.TempDir()); err == nil {
		t.Error("a directory was read")
	}
}

func TestSystemServersAreFollowed(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "resolv.conf")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("nameserver 192.0.2.1\n")
	l, err := newServerList(nil, file, TrustLoopback)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	expect := func(after time.Duration, want string) {
		t.Helper()
		got := l.order(now.Add(after))
		if len(got) != 1 || got[0].name != want {
			t.Errorf("after %v the first of %d is %s, not %s", after, len(got), got[0].name, want)
		}
	}
	write("nameserver 192.0.2.22\n")
	expect(time.Second, "192.0.2.1") // not looked at yet
	expect(10*time.Second, "192.0.2.22")
	write("")
	expect(20*time.Second, "192.0.2.22") // about to be rewritten
	os.Remove(file)
	expect(30*time.Second, "192.0.2.22")
	write("nameserver 192.0.2.3\n")
	expect(40*time.Second, "192.0.2.3")
}

func TestServerNames(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		"192.0.2.1:53": "192.0.2.1", "192.0.2.1:5353": "192.0.2.1:5353", "[2001:db8::1]:53": "2001:db8::1", "[::ffff:127.0.0.1]:53": "127.0.0.1",
	} {
		s := newServer(netip.MustParseAddrPort(addr), TrustLoopback)
		if s.name != want || s.trusted != strings.HasPrefix(want, "127.") {
			t.Errorf("%s is called %q, trusted %v", addr, s.name, s.trusted)
		}
	}
}

func TestSiteNameIsBounded(t *testing.T) {
	t.Parallel()
	var hosts []Host
	seen := make(map[string]bool)
	for i := range 300 {
		hosts = append(hosts, Host{Name: fmt.Sprintf("mx%03d.%s.example", i, strings.Repeat("a", i%60+1))})
		site := siteName(hosts)
		if len(site) > maxSite || seen[site] {
			t.Fatalf("%d hosts: %q", i, site)
		}
		seen[site] = true
	}
	one := []Host{{Name: strings.Repeat("a.", 126) + "a"}}
	if siteName(one) != one[0].Name {
		t.Error("the longest single name is not its own site")
	}
}

func TestPlainText(t *testing.T) {
	t.Parallel()
	for want, in := range map[string][]string{
		"":           {""},
		"ab":         {"a", "b"},
		`a"b\c`:      {`a\"b\\c`},
		"\x00\xff\n": {`\000\255\010`},
		"a5":         {`a\5`},
		"end\\":      {`end\`},
	} {
		if got := plainText(in); got != want {
			t.Errorf("plainText(%q) = %q, want %q", in, got, want)
		}
	}
}

// FuzzReply gives the reader of packets what a hostile server could send.
func FuzzReply(f *testing.F) {
	for _, text := range []string{
		"example.com. 60 MX 10 mx.example.com.", "example.com. 60 A 192.0.2.1", "example.com. 60 CNAME example.com.",
		"example.com. 60 TXT \"a\\\"b\"", "example.com. 60 AAAA ::ffff:1.2.3.4", "example.com. 60 MX 0 .",
	} {
		rr, err := wire.NewRR(text)
		if err != nil {
			f.Fatal(err)
		}
		m := new(wire.Msg)
		m.SetQuestion("example.com.", wire.TypeMX)
		m.Id, m.Response = 7, true
		m.Answer = []wire.RR{rr}
		p, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p)
	}
	f.Add([]byte{0, 7, 0x82, 0x80, 0, 1, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, p []byte) {
		for _, typ := range []uint16{wire.TypeMX, wire.TypeA, wire.TypeAAAA, wire.TypeTXT} {
			query := new(wire.Msg)
			query.SetQuestion("example.com.", typ)
			query.Id = 7
			m, err := parsePacket(p, query)
			if err != nil || m == nil {
				continue
			}
			rep, fail := readReply(m, key{"example.com", typ})
			if (rep == nil) == (fail == nil) {
				t.Fatal("neither an answer nor a failure, or both")
			}
			if rep == nil {
				continue
			}
			if rep.err == nil && !rep.onward && rep.links <= maxAliases && len(rep.hosts)+len(rep.addrs)+len(rep.texts) == 0 {
				t.Error("found, and nothing is there")
			}
			if len(rep.hosts) > maxHosts || len(rep.addrs) > maxAddrs || len(rep.texts) > maxTexts || len(rep.site) > maxSite {
				t.Error("a bound was passed")
			}
			for _, h := range rep.hosts {
				if notHostName(h.Name) != "" || isLocalhost(h.Name) {
					t.Errorf("host %q", h.Name)
				}
			}
			if notHostName(rep.name) != "" {
				t.Errorf("name %q", rep.name)
			}
		}
	})
}
