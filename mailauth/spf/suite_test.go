package spf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// suite is one document of the public test suite.
type suite struct {
	Description string                `yaml:"description"`
	Tests       map[string]suiteTest  `yaml:"tests"`
	Zone        map[string][]suiteRow `yaml:"zonedata"`
}

type suiteTest struct {
	Helo        string `yaml:"helo"`
	Host        string `yaml:"host"`
	Sender      string `yaml:"mailfrom"`
	Result      any    `yaml:"result"`
	Explanation string `yaml:"explanation"`
}

// suiteRow is one record: its type and its value.
type suiteRow map[string]any

var errSuite = errors.New("no answer")

// suiteDNS answers as the suite's zones say.
type suiteDNS map[string][]suiteRow

func texts(v any) []string {
	list, ok := v.([]any)
	if !ok {
		return []string{fmt.Sprint(v)}
	}
	var out []string
	for _, s := range list {
		out = append(out, fmt.Sprint(s))
	}
	return out
}

func (z suiteDNS) lookup(name, kind string) ([]any, error) {
	for range 10 {
		rows := z[strings.ToLower(strings.TrimSuffix(name, "."))]
		var found []any
		alias, broken := "", false
		for _, r := range rows {
			if v, ok := r[kind]; ok {
				found = append(found, v)
			}
			if v, ok := r["CNAME"]; ok {
				alias = v.(string)
			}
			broken = broken || r["TIMEOUT"] != nil || r["SERVFAIL"] != nil || r["CNAMELOOP"] != nil
		}
		switch {
		case len(found) == 1 && found[0] == "NONE": // nor is there what stands under the old type
		case len(found) > 0:
			return found, nil
		case kind == "TXT": // policies stand there as records of the old type SPF
			for _, r := range rows {
				if v, ok := r["SPF"]; ok {
					found = append(found, v)
				}
			}
			if len(found) > 0 {
				return found, nil
			}
		}
		if broken {
			return nil, errSuite
		}
		if alias == "" {
			return nil, nil
		}
		name = alias
	}
	return nil, errSuite
}

func (z suiteDNS) TXT(_ context.Context, name string) ([]string, error) {
	list, err := z.lookup(name, "TXT")
	var out []string
	for _, v := range list {
		out = append(out, strings.Join(texts(v), ""))
	}
	return out, err
}

func (z suiteDNS) NetIP(_ context.Context, network, name string) ([]netip.Addr, error) {
	list, err := z.lookup(name, map[string]string{"ip4": "A", "ip6": "AAAA"}[network])
	var out []netip.Addr
	for _, v := range list {
		for _, s := range texts(v) {
			out = append(out, netip.MustParseAddr(s))
		}
	}
	return out, err
}

func (z suiteDNS) MX(_ context.Context, name string) ([]string, error) {
	list, err := z.lookup(name, "MX")
	var out []string
	for _, v := range list {
		out = append(out, texts(v)[1])
	}
	return out, err
}

func (z suiteDNS) PTR(_ context.Context, addr netip.Addr) ([]string, error) {
	labels := strings.Split(dotted(addr), ".")
	slices.Reverse(labels)
	zone := ".ip6.arpa"
	if addr.Is4() {
		zone = ".in-addr.arpa"
	}
	list, err := z.lookup(strings.Join(labels, ".")+zone, "PTR")
	var out []string
	for _, v := range list {
		out = append(out, texts(v)...)
	}
	return out, err
}

// TestSuite runs the public suite of RFC 7208 whole: what others skip there counts here.
func TestSuite(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/rfc7208-tests.yml")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for dec := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var s suite
		if err := dec.Decode(&s); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		zone := make(suiteDNS)
		for name, rows := range s.Zone {
			zone[strings.ToLower(name)] = rows
		}
		c, err := New(Options{Resolver: zone})
		if err != nil {
			t.Fatal(err)
		}
		for name, test := range s.Tests {
			n++
			got := c.Check(t.Context(), netip.MustParseAddr(test.Host), test.Helo, test.Sender)
			if !slices.Contains(texts(test.Result), string(got.Status)) {
				t.Errorf("%s: %s: %+v, want %v", s.Description, name, got, test.Result)
			}
			if want := test.Explanation; want != "" && strings.Replace(want, "DEFAULT", "", 1) != got.Explanation {
				t.Errorf("%s: %s: explanation %q, want %q", s.Description, name, got.Explanation, want)
			}
		}
	}
	if n != 203 {
		t.Errorf("%d cases, the suite has 203", n)
	}
}
