//go:build interop

package interop

import (
	"fmt"
	"log/slog"
	mrand "math/rand/v2"
	"strings"
	"testing"

	moxdkim "github.com/mjl-/mox/dkim"
	moxdmarc "github.com/mjl-/mox/dmarc"
	moxdns "github.com/mjl-/mox/dns"
	moxspf "github.com/mjl-/mox/spf"

	"github.com/godwit-mta/godwit/mailauth/dmarc"
)

// dmarcZone makes policies for names of com (a public suffix with mox) at several depths.
func dmarcZone(r *mrand.Rand, names []string) *authZone {
	z := &authZone{Records: make(map[string][]string)}
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	for _, n := range names {
		if r.IntN(2) == 0 {
			z.Records["A "+n] = []string{"192.0.2.1"}
		}
		if strings.Count(n, ".") == 1 && r.IntN(6) > 0 || r.IntN(4) == 0 {
			key := "TXT _dmarc." + n
			txt := pick("v=DMARC1", "v=DMARC1", "v=DMARC1", "v=DMARC1", "v=DMARC1", "v=DMARC1 ", "v=DMARC2", "v=dmarc1") + ";" + pick("", " ") + "p=" +
				pick("none", "quarantine", "reject", "reject", "Reject")
			for range r.IntN(4) {
				txt += ";" + pick("", " ") + pick("sp=none", "sp=quarantine", "sp=reject", "adkim=s", "aspf=s", "adkim=r", "rua=mailto:a@example.net", "pct=100",
					"fo=1:d", "rf=afrf", "ri=3600", "unknown=x")
			}
			z.Records[key] = []string{txt + pick("", ";", "; ")}
			switch r.IntN(15) {
			case 0:
				z.Records[key] = append(z.Records[key], "v=DMARC1; p=none")
			case 1:
				z.Records[key] = append(z.Records[key], "something else")
			case 2:
				z.Fail = append(z.Fail, key)
			}
		}
	}
	return z
}

// TestDMARCOthers compares verdicts with mox's, which finds organizational domains by the list of public suffixes. Where nothing
// between an author and its registered domain has a record of its own, RFC 7489 and RFC 9989 must come to the same.
func TestDMARCOthers(t *testing.T) {
	r := mrand.New(mrand.NewPCG(13, 14))
	names := []string{"one.com", "a.one.com", "b.one.com", "c.a.one.com", "two.com", "x.two.com"}
	sum := make(map[string]int)
	for range 600 {
		z := dmarcZone(r, names)
		e := dmarc.Evaluator{Resolver: z}
		m := z.mox()
		for range 5 {
			author, from, signer := names[r.IntN(len(names))], names[r.IntN(len(names))], names[r.IntN(len(names))]
			ev := dmarc.Evidence{Author: author}
			status, parsed := moxspf.StatusFail, moxDomain(t, from)
			if r.IntN(3) == 0 {
				ev.SPF, status = from, moxspf.StatusPass
			}
			var signatures []moxdkim.Result
			if r.IntN(3) == 0 {
				ev.DKIM = []string{signer}
				signatures = []moxdkim.Result{{Status: moxdkim.StatusPass, Sig: &moxdkim.Sig{Domain: moxDomain(t, signer)}, Record: &moxdkim.Record{}}}
			}
			ours := e.Evaluate(t.Context(), ev)
			_, theirs := moxdmarc.Verify(t.Context(), slog.New(slog.DiscardHandler), m, moxDomain(t, author), signatures, status, &parsed, false)
			sum[string(ours.Result)]++
			same := string(ours.Result) == string(theirs.Status) && (ours.Disposition == dmarc.PolicyNone) == !theirs.Reject &&
				(ours.Result != dmarc.Pass || ours.DKIM == theirs.AlignedDKIMPass && ours.SPF == theirs.AlignedSPFPass)
			if same {
				sum["agree"]++
				continue
			}
			if why := dmarcDiffers(z, &ours, &theirs, author); why != "" {
				sum[why]++
				continue
			}
			t.Errorf("%s (%v) disposition %s spf=%v dkim=%v here; %s (%v) reject=%v spf=%v dkim=%v mox: author %s SPF %q DKIM %q\n%s", ours.Result, ours.Err,
				ours.Disposition, ours.SPF, ours.DKIM, theirs.Status, theirs.Err, theirs.Reject, theirs.AlignedSPFPass, theirs.AlignedDKIMPass,
				author, ev.SPF, ev.DKIM, z)
		}
	}
	t.Log(sum)
}

// dmarcDiffers names why RFC 9989 comes to another result than RFC 7489; empty: there is no reason.
func dmarcDiffers(z *authZone, ours *dmarc.Verdict, theirs *moxdmarc.Result, author string) string {
	labels := strings.Split(author, ".")
	registered := strings.Join(labels[len(labels)-2:], ".")
	switch {
	case theirs.Status == moxdmarc.StatusPermerror:
		return "a record that cannot be read is none" // RFC 9989, 4.10, step 1, and 4.8
	case ours.Result == dmarc.TempError && len(z.Fail) > 0:
		return "one name of the walk cannot be asked" // RFC 9989, 4.10: all on the way up are asked
	case !z.hasPolicy(registered):
		return "the organizational domain is where a policy is" // RFC 9989, 4.10.2, and not what a list says
	case !z.hasPolicy(author) && ours.Domain != registered && ours.Domain != author && ours.Domain != "":
		return "a policy between" // RFC 9989, 4.10.1
	}
	return ""
}

// hasPolicy reports a name with exactly one record that can be read.
func (z *authZone) hasPolicy(name string) bool {
	n, read := 0, 0
	for _, txt := range z.Records["TXT _dmarc."+name] {
		if strings.HasPrefix(txt, "v=DMARC1") {
			n++
		}
		if _, err := dmarc.ParseRecord(txt); err == nil {
			read++
		}
	}
	return n == 1 && read == 1
}

func moxDomain(t *testing.T, s string) moxdns.Domain {
	t.Helper()
	d, err := moxdns.ParseDomain(s)
	if err != nil {
		t.Fatal(fmt.Errorf("%s: %w", s, err))
	}
	return d
}
