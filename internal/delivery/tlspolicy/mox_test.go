package tlspolicy

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/mjl-/adns"
	"github.com/mjl-/mox/dane"
	moxdns "github.com/mjl-/mox/dns"
	"github.com/mjl-/mox/mtasts"

	"github.com/godwit-mta/godwit/internal/dns"
)

// The tests below compare with the packages of mox, on inputs that are generated. Where the two differ the test names why.

// line of a policy as generated, good and bad.
var policyLines = []string{
	"version: STSv1", "version:STSv1", "version: STSv1 ", "version: STSv2", "Version: STSv1", "version", "version:",
	"mode: enforce", "mode: testing", "mode: none", "mode:\tenforce", "mode: Enforce", "mode: enforced", "mode:",
	"max_age: 604800", "max_age: 0", "max_age: 86400\t", "max_age: -1", "max_age: 1.5", "max_age: x", "max_age: 123456789", "max_age:",
	"mx: mx.example.com", "mx: *.example.com", "mx: MX.Example.COM", "mx: *.*.example", "mx: *", "mx: .example", "mx: a..b", "mx: a.b.", "mx: -a.b",
	"mx: xn--bcher-kva.example", "mx: 192.0.2.1", "mx: a_b.example", "mx: a b", "mx:",
	"extra: value", "x-y.z_1: a b c", "_x: y", "extra:", "e: ü", "e: \x01", " mode: none", "mode : none", "a" + strings.Repeat("b", 31) + ": x", "a" + strings.Repeat("b", 32) + ": x",
}

func TestPolicyAsMox(t *testing.T) {
	t.Parallel()
	const seed = 1
	r := rand.New(rand.NewPCG(seed, 5))
	agreed, taken := 0, 0
	for i := range 30_000 {
		var lines []string
		if r.IntN(4) > 0 { // mostly right, with something beside
			lines = []string{"version: STSv1", "mode: enforce", "max_age: 604800", "mx: a.example"}
			r.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
			if r.IntN(4) == 0 {
				lines = slices.Delete(lines, 0, 1)
			}
		}
		for range r.IntN(3) {
			lines = slices.Insert(lines, r.IntN(len(lines)+1), policyLines[r.IntN(len(policyLines))])
		}
		end := []string{"\n", "\r\n"}[r.IntN(2)]
		text := strings.Join(lines, end)
		if r.IntN(2) == 0 && text != "" {
			text += end
		}
		ours, err := parsePolicy(text)
		theirs, moxErr := mtasts.ParsePolicy(text)
		if (err == nil) != (moxErr == nil) {
			if known := knownDifference(lines); known == "" {
				t.Fatalf("case %d: ours %v, mox %v: %q", i, err, moxErr, text)
			}
			continue
		}
		agreed++
		if err != nil {
			continue
		}
		taken++
		var mx []string
		for _, m := range theirs.MX {
			p := m.Domain.ASCII
			if m.Wildcard {
				p = "*." + p
			}
			mx = append(mx, p)
		}
		age := min(theirs.MaxAgeSeconds, int(maxMaxAge.Seconds()))
		if string(ours.mode) != string(theirs.Mode) || int(ours.maxAge.Seconds()) != age || !slices.Equal(ours.patterns, mx) {
			t.Fatalf("case %d: ours %+v, mox %+v: %q", i, ours, theirs, text)
		}
		for _, host := range []string{"mx.example.com", "example.com", "a.b.example.com", "a.example", "b.a.example"} {
			if ours.matches(host) != theirs.Matches(moxdns.Domain{ASCII: host}) {
				t.Fatalf("case %d: %s: ours %v: %q", i, host, ours.matches(host), text)
			}
		}
	}
	if agreed < 25_000 || taken < 3_000 {
		t.Errorf("only %d agreed, %d of them policies", agreed, taken)
	}
}

// knownDifference says why mox may judge otherwise.
func knownDifference(lines []string) string {
	for _, l := range lines {
		switch {
		case strings.HasSuffix(l, "\x01"), l == "mx: 192.0.2.1", l == "mx: a_b.example", l == "mx: -a.b":
			return "it looks at labels in another way"
		case strings.HasPrefix(l, "mode: enforced"):
			return "it reads a prefix"
		}
	}
	return ""
}

func TestRecordAsMox(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(2, 5))
	parts := []string{"v=STSv1", ";", "; ", " ;", "id=", "id=20260101", "id=a-b", "x=y", "x=", "=", "v=STSv2", " ", "id=" + strings.Repeat("9", 33), "é"}
	for i := range 30_000 {
		txt := []string{"v=STSv1", "v=STSv1; id=1", ""}[r.IntN(3)]
		for range r.IntN(5) {
			txt += parts[r.IntN(len(parts))]
		}
		id, _ := recordID([]string{txt})
		rec, is, err := mtasts.ParseRecord(txt)
		moxID := ""
		if is && err == nil {
			moxID = rec.ID
		}
		if id != moxID && strings.Count(txt, "id=") < 2 && !strings.HasSuffix(txt, " ") {
			// Mox does not look at a second id at all; and a blank at the end does us no harm.
			t.Fatalf("case %d: ours %q, mox %q (%v): %q", i, id, moxID, err, txt)
		}
	}
}

// TestDANEAsMox compares the verification of chains that are generated against record sets that are.
func TestDANEAsMox(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 5))
	ca, other := certificate(t, nil, issuer), certificate(t, nil, issuer)
	middle := certificate(t, ca, issuer)
	all := []*authority{ca, other, middle}
	for _, parent := range []*authority{ca, middle, other, nil} {
		for _, change := range []func(*x509.Certificate){forNames("mx.a.test"), forNames("a.test", "other.test"), forNames("other.test"), forNames("*.a.test"), expired("mx.a.test")} {
			all = append(all, certificate(t, parent, change))
		}
	}
	leaves := all[3:]
	log := slog.New(slog.DiscardHandler)
	good, bad := 0, 0
	for i := range 4_000 {
		leaf := leaves[r.IntN(len(leaves))]
		chain := []*authority{leaf}
		for _, a := range []*authority{middle, ca, other} { // in this order: mox looks no further than the issuer it seeks
			if r.IntN(3) > 0 {
				chain = append(chain, a)
			}
		}
		var records []dns.TLSARecord
		var moxRecords []adns.TLSA
		for range 1 + r.IntN(3) {
			of := all[r.IntN(len(all))]
			if r.IntN(2) == 0 {
				of = chain[r.IntN(len(chain))]
			}
			rec := tlsa(uint8(2+r.IntN(2)), uint8(r.IntN(2)), uint8(r.IntN(3)), of)
			if rec.Usage == 2 && rec.Selector == 1 && rec.Matching == 0 {
				rec = tlsa(2, 1, 1, of) // mox does not take a bare key that is not sent, which RFC 7671, 5.2.2 has
			}
			records = append(records, rec)
			moxRecords = append(moxRecords, adns.TLSA{Usage: adns.TLSAUsage(rec.Usage), Selector: adns.TLSASelector(rec.Selector),
				MatchType: adns.TLSAMatchType(rec.Matching), CertAssoc: rec.Data})
		}
		b := daneBed(t)
		b.tlsa("mx.a.test", true, records...)
		plan := b.host(t, secureMX, "mx.a.test", secureAddrs("mx.a.test"))
		fail := plan.Verify(state(chain...))
		ok, _, _ := dane.Verify(log, moxRecords, *state(chain...), moxdns.Domain{ASCII: "mx.a.test"}, []moxdns.Domain{{ASCII: "a.test"}}, nil)
		if ok != (fail == nil) {
			t.Fatalf("case %d: ours %v, mox %v: %v", i, fail, ok, plan.Strings)
		}
		if ok {
			good++
		} else {
			bad++
		}
	}
	if good < 500 || bad < 500 {
		t.Errorf("%d hold, %d do not", good, bad)
	}
}

func FuzzPolicy(f *testing.F) {
	f.Add(policyText("enforce", 604800, "mx.a.test", "*.b.test"))
	f.Add(policyText("none", 0))
	for _, l := range policyLines {
		f.Add("version: STSv1\nmode: enforce\nmax_age: 60\nmx: a.b\n" + l + "\n")
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parsePolicy(text)
		if err != nil {
			return
		}
		if p.maxAge < 0 || p.maxAge > maxMaxAge || p.mode != modeNone && len(p.patterns) == 0 {
			t.Fatalf("%+v", p)
		}
		// What is kept reads the same.
		again, err := parsePolicy(strings.Join(p.lines, "\n"))
		if err != nil || again.mode != p.mode || again.maxAge != p.maxAge || !slices.Equal(again.patterns, p.patterns) || !slices.Equal(again.lines, p.lines) {
			t.Fatalf("%+v read again is %+v, %v", p, again, err)
		}
		p.matches("mx.a.test")
	})
}

func FuzzRecord(f *testing.F) {
	f.Add("v=STSv1; id=20160831085700Z;")
	f.Add("v=STSv1; id=a; x=y; id=b")
	f.Fuzz(func(t *testing.T, txt string) {
		id, why := recordID([]string{txt, "unrelated"})
		if id != "" && (why != "" || len(id) > 32 || !strings.Contains(txt, "id="+id)) {
			t.Fatalf("id %q, why %q", id, why)
		}
	})
}

// FuzzTLSA: whatever a zone says, and whatever a host shows, a record is taken only if it matches.
func FuzzTLSA(f *testing.F) {
	ca := certificate(f, nil, issuer)
	leaf := certificate(f, ca, forNames("mx.a.test"))
	for _, r := range []dns.TLSARecord{tlsa(3, 1, 1, leaf), tlsa(2, 0, 0, ca), tlsa(2, 1, 0, ca), tlsa(3, 0, 2, leaf)} {
		f.Add(r.Usage, r.Selector, r.Matching, r.Data)
	}
	p, err := New(Options{Resolver: newZone()})
	if err != nil {
		f.Fatal(err)
	}
	d := p.Domain(context.Background(), "a.test")
	f.Fuzz(func(t *testing.T, usage, selector, matching uint8, data []byte) {
		r := dns.TLSARecord{Usage: usage, Selector: selector, Matching: matching, Data: data}
		plan := d.danePlan("mx.a.test", []string{"mx.a.test"}, []dns.TLSARecord{r})
		if plan.Verify == nil {
			return
		}
		fail := plan.Verify(state(leaf))
		matches := false
		for _, a := range []*authority{ca, leaf} {
			for _, s := range []uint8{0, 1} {
				for _, m := range []uint8{0, 1, 2} {
					k := tlsa(usage, s, m, a)
					matches = matches || s == selector && m == matching && string(k.Data) == string(data)
				}
			}
		}
		if fail == nil && !matches {
			t.Fatal(fmt.Sprint(plan.Strings))
		}
	})
}
