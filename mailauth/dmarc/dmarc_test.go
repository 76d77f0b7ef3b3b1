package dmarc

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// zone is a DNS of TXT records at _dmarc names, and of names that exist.
type zone struct {
	txt    map[string][]string
	exist  []string
	broken string // a name that cannot be asked
	asked  []string
}

var errBroken = errors.New("SERVFAIL")

func (z *zone) TXT(_ context.Context, name string) ([]string, error) {
	z.asked = append(z.asked, name)
	if name == z.broken {
		return nil, errBroken
	}
	return z.txt[strings.TrimPrefix(name, "_dmarc.")], nil
}

func (z *zone) Exists(_ context.Context, name string) (bool, error) {
	for _, n := range z.exist {
		if n == name {
			return true, nil
		}
	}
	return false, nil
}

func records(pairs ...string) map[string][]string {
	m := make(map[string][]string)
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = append(m[pairs[i]], pairs[i+1])
	}
	return m
}

func TestParseRecord(t *testing.T) {
	t.Parallel()
	for txt, want := range map[string]*Record{
		"v=DMARC1; p=reject": {Policy: PolicyReject, Subdomains: PolicyReject, NonExistent: PolicyReject, PSD: PSDUnknown, Options: "0"},
		"v=DMARC1 ;\tP = Quarantine ; sp=none;np=reject; adkim=S; aspf=s; psd=n; t=y; pct=3; fo=1:d; x=y;": {Policy: PolicyQuarantine,
			Subdomains: PolicyNone, NonExistent: PolicyReject, StrictDKIM: true, StrictSPF: true, PSD: PSDNo, Testing: true, Options: "1:d"},
		"v=DMARC1; rua=mailto:a@b.example!10m, https://c.example/x ,mailto:no@room.example!x,nothing,mailto:<x>": {Policy: PolicyNone,
			Subdomains: PolicyNone, NonExistent: PolicyNone, PSD: PSDUnknown, Options: "0",
			Aggregate: []URI{{"mailto:a@b.example", 10 << 20}, {"https://c.example/x", 0}}},
		"v=DMARC1; p=odd; rua=mailto:a@b.example": {Policy: PolicyNone, Subdomains: PolicyNone, NonExistent: PolicyNone, PSD: PSDUnknown,
			Options: "0", Aggregate: []URI{{"mailto:a@b.example", 0}}},
		"v=DMARC1":                   {Policy: PolicyNone, Subdomains: PolicyNone, NonExistent: PolicyNone, PSD: PSDUnknown, Options: "0", Silent: true},
		"v=DMARC1; p=odd":            {Policy: PolicyNone, Subdomains: PolicyNone, NonExistent: PolicyNone, PSD: PSDUnknown, Options: "0", Silent: true},
		"v=DMARC1; p=reject; sp=odd": {Policy: PolicyNone, Subdomains: PolicyNone, NonExistent: PolicyNone, PSD: PSDUnknown, Options: "0", Silent: true},
		"v=DMARC1; p=reject; np=; psd=y; rua=mailto:a@b.example": {Policy: PolicyNone, Subdomains: PolicyNone, NonExistent: PolicyNone, PSD: PSDYes,
			Options: "0", Aggregate: []URI{{"mailto:a@b.example", 0}}},
		"v=dmarc1; p=none":           nil,
		"v=DMARC10; p=none":          nil,
		"p=none; v=DMARC1":           nil,
		"v=DMARC1; p=none; p=reject": nil,
		"v=spf1 -all":                nil,
		"":                           nil,
		"v=DMARC1;" + strings.Repeat("x;", MaxRecord): nil,
	} {
		got, err := ParseRecord(txt)
		if want == nil {
			if !errors.Is(err, errNoRecord) {
				t.Errorf("%.40q: %+v, %v", txt, got, err)
			}
			continue
		}
		if err != nil || !cmp.Equal(got, want) {
			t.Errorf("%q: %v %s", txt, err, cmp.Diff(want, got))
		}
	}
}

// TestOrganization has the examples of RFC 9989, appendix B.4, and what else a walk can meet.
func TestOrganization(t *testing.T) {
	t.Parallel()
	deep := "a.b.c.d.e.f.g.h.i.j.mail.example.com"
	for _, c := range []struct {
		domain string
		txt    map[string][]string
		want   string
		asked  int
	}{
		{"a.mail.example.com", records("example.com", "v=DMARC1; p=none"), "example.com", 4},
		{"a.mail.example.com", records("mail.example.com", "v=DMARC1; p=none; psd=n", "example.com", "v=DMARC1; p=none"), "mail.example.com", 2},
		{"giant.bank.example", records("bank.example", "v=DMARC1; p=reject; psd=y"), "giant.bank.example", 2},
		{"mail.giant.bank.example", records("bank.example", "v=DMARC1; psd=y"), "giant.bank.example", 3},
		{"mail.mega.bank.example", records("bank.example", "v=DMARC1; psd=y", "mega.bank.example", "v=DMARC1; p=none"), "mega.bank.example", 3},
		{"example.com", nil, "example.com", 2},
		{"mail.example.com", records("example.com", "v=DMARC1; p=none", "example.com", "v=DMARC1; p=none; p=none"), "mail.example.com", 3},
		{"bank.example", records("bank.example", "v=DMARC1; psd=y"), "bank.example", 2},
		{deep, records("example.com", "v=DMARC1; p=none"), "example.com", 8},
		{deep, records("x.j.mail.example.com", "v=DMARC1; p=none"), deep, 8},
		{"example.com", records("example.com", "v=DMARC1; p=none", "example.com", "v=DMARC1; p=reject", "com", "v=DMARC1; psd=y"), "example.com", 2},
	} {
		z := &zone{txt: c.txt}
		e := Evaluator{Resolver: z}
		got, err := e.Organization(t.Context(), strings.ToUpper(c.domain)+".")
		if err != nil || got != c.want || len(z.asked) != c.asked {
			t.Errorf("%s: %s, %v after %v; want %s after %d", c.domain, got, err, z.asked, c.want, c.asked)
		}
	}
}

func TestEvaluate(t *testing.T) {
	t.Parallel()
	org := records("example.com", "v=DMARC1; p=reject; sp=quarantine; np=none", "strict.example", "v=DMARC1; p=reject; adkim=s; aspf=s",
		"test.example", "v=DMARC1; p=reject; t=y", "bank.example", "v=DMARC1; p=none; sp=reject; np=quarantine; psd=y")
	for name, c := range map[string]struct {
		ev   Evidence
		want Verdict
	}{
		"no policy": {Evidence{Author: "nobody.example", SPF: "nobody.example"}, Verdict{Result: None, Policy: PolicyNone, Disposition: PolicyNone}},
		"SPF aligned": {Evidence{Author: "example.com", SPF: "bounce.example.com"},
			Verdict{Result: Pass, Domain: "example.com", Policy: PolicyReject, Disposition: PolicyNone, SPF: true}},
		"DKIM aligned": {Evidence{Author: "Example.COM", SPF: "relay.example.net", DKIM: []string{"other.example", "mail.EXAMPLE.com"}},
			Verdict{Result: Pass, Domain: "example.com", Policy: PolicyReject, Disposition: PolicyNone, DKIM: true}},
		"nothing aligned": {Evidence{Author: "example.com", SPF: "notexample.com", DKIM: []string{"com"}},
			Verdict{Result: Fail, Domain: "example.com", Policy: PolicyReject, Disposition: PolicyReject}},
		"a subdomain": {Evidence{Author: "news.example.com"},
			Verdict{Result: Fail, Domain: "example.com", Policy: PolicyQuarantine, Disposition: PolicyQuarantine}},
		"a subdomain that does not exist": {Evidence{Author: "made-up.example.com"},
			Verdict{Result: Fail, Domain: "example.com", Policy: PolicyNone, Disposition: PolicyNone}},
		"siblings": {Evidence{Author: "news.example.com", DKIM: []string{"shop.example.com"}},
			Verdict{Result: Pass, Domain: "example.com", Policy: PolicyQuarantine, Disposition: PolicyNone, DKIM: true}},
		"strict": {Evidence{Author: "strict.example", SPF: "a.strict.example", DKIM: []string{"a.strict.example"}},
			Verdict{Result: Fail, Domain: "strict.example", Policy: PolicyReject, Disposition: PolicyReject}},
		"strict and the same": {Evidence{Author: "strict.example", DKIM: []string{"strict.example"}},
			Verdict{Result: Pass, Domain: "strict.example", Policy: PolicyReject, Disposition: PolicyNone, DKIM: true}},
		"testing": {Evidence{Author: "test.example"},
			Verdict{Result: Fail, Domain: "test.example", Policy: PolicyReject, Disposition: PolicyQuarantine}},
		"below a public suffix": {Evidence{Author: "news.example.bank.example", DKIM: []string{"other.bank.example"}},
			Verdict{Result: Fail, Domain: "bank.example", Policy: PolicyReject, Disposition: PolicyReject}},
		"below a public suffix, made up": {Evidence{Author: "fake.bank.example"},
			Verdict{Result: Fail, Domain: "bank.example", Policy: PolicyQuarantine, Disposition: PolicyQuarantine}},
		"not all known": {Evidence{Author: "example.com", Unknown: true},
			Verdict{Result: TempError, Domain: "example.com", Policy: PolicyReject, Disposition: PolicyNone}},
	} {
		e := Evaluator{Resolver: &zone{txt: org, exist: []string{"news.example.com", "news.example.bank.example"}}}
		got := e.Evaluate(t.Context(), c.ev)
		got.Record, got.Organization, got.Err = nil, "", nil
		if !cmp.Equal(got, c.want) {
			t.Errorf("%s: %s", name, cmp.Diff(c.want, got))
		}
	}
}

// TestUnknown: what cannot be asked never fails a message.
func TestUnknown(t *testing.T) {
	t.Parallel()
	txt := records("example.com", "v=DMARC1; p=reject")
	for broken, ev := range map[string]Evidence{
		"_dmarc.example.com":      {Author: "example.com"},
		"_dmarc.com":              {Author: "news.example.com"},
		"_dmarc.sub.example.com":  {Author: "example.com", DKIM: []string{"sub.example.com"}},
		"_dmarc.news.example.com": {Author: "news.example.com", SPF: "example.com"},
	} {
		e := Evaluator{Resolver: &zone{txt: txt, broken: broken}}
		if v := e.Evaluate(t.Context(), ev); v.Result != TempError || !errors.Is(v.Err, errBroken) || v.Disposition != PolicyNone {
			t.Errorf("%s: %+v", broken, v)
		}
	}
	e := Evaluator{Resolver: &zone{txt: txt, broken: "_dmarc.sub.example.com"}}
	if v := e.Evaluate(t.Context(), Evidence{Author: "example.com", SPF: "sub.example.com", DKIM: []string{"example.com"}}); v.Result != Pass {
		t.Errorf("one identifier is enough: %+v", v)
	}
}

// TestBounded: a message with many signatures costs few questions.
func TestBounded(t *testing.T) {
	t.Parallel()
	z := &zone{txt: records("example.com", "v=DMARC1; p=reject")}
	e := Evaluator{Resolver: z}
	ev := Evidence{Author: "example.com"}
	for range 1000 {
		ev.DKIM = append(ev.DKIM, strings.Repeat("a.", 100)+"example.com")
	}
	if v := e.Evaluate(t.Context(), ev); v.Result != Pass && v.Result != Fail || len(z.asked) > 100 {
		t.Errorf("%s after %d questions", v.Result, len(z.asked))
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add("v=DMARC1; p=reject; sp=none; rua=mailto:a@b.example!10m,https://x; psd=y; t=y")
	f.Add("v=DMARC1;;=;p==none;rua=!,:")
	f.Fuzz(func(t *testing.T, txt string) {
		r, err := ParseRecord(txt)
		if err != nil {
			return
		}
		for _, p := range []Policy{r.Policy, r.Subdomains, r.NonExistent} {
			if policyOf(string(p)) == "" {
				t.Errorf("policy %q", p)
			}
		}
		for _, u := range append(r.Aggregate, r.Failure...) {
			if strings.ContainsAny(u.Text, "\r\n<> \"") || u.Max < 0 {
				t.Errorf("address %+v", u)
			}
		}
	})
}
