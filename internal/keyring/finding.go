package keyring

import (
	"fmt"
	"slices"
	"time"
)

// Finding is something about a key that a person must look at.
type Finding struct {
	Domain, Selector string
	Problem          string
	Advice           string
	Since            time.Time // zero: not known
	Grave            bool      // mail leaves unsigned, or is refused
}

// Findings returns what is wrong now.
func (k *Keyring) Findings() []Finding {
	list := k.all()
	slices.SortFunc(list, order)
	snap, set, now := k.now.Load(), k.settings(), time.Now()
	signing := make(map[[2]string]bool) // domain and tenant: something signs
	strong := make(map[[2]string]bool)  // with RSA
	for _, r := range list {
		if snap.chosen[r.name()] {
			signing[[2]string{r.Domain, r.Tenant}] = true
			strong[[2]string{r.Domain, r.Tenant}] = strong[[2]string{r.Domain, r.Tenant}] || r.Algorithm == RSA
		}
	}
	var out []Finding
	for _, r := range list {
		add := func(since time.Time, grave bool, advice, problem string, args ...any) {
			out = append(out, Finding{
				Domain: r.Domain, Selector: r.Selector, Problem: fmt.Sprintf(problem, args...), Advice: advice, Since: since, Grave: grave,
			})
		}
		house := [2]string{r.Domain, r.Tenant}
		records := fmt.Sprintf("see \"godwit dkim records %s\", then \"godwit dkim check %s\"", r.Domain, r.Domain)
		k.mu.RLock()
		broken := k.mu.signers[r.identity()].err
		k.mu.RUnlock()
		switch {
		case r.State == Revoked && r.Problem != "" && !k.covers(r):
			add(r.Revoked, false, "replace or remove it: "+records, "%s", r.Problem)
		case r.State == Revoked:
		case broken != nil:
			add(time.Time{}, !signing[house], "restore it from a backup and reload, or replace the key: \"godwit dkim rotate "+r.Domain+"\"",
				"the key cannot sign: %v", broken)
		case r.State == Signing && !r.shown():
			what := "; other keys of the domain sign instead"
			switch {
			case snap.chosen[r.name()]:
				what = "; it signs all the same, as dkim.require_record is false"
			case !signing[house] && set.Required:
				what = "; mail of the domain is not taken"
			case !signing[house]:
				what = "; mail of the domain leaves unsigned"
			case !strong[house] && r.Algorithm == RSA:
				what = "; only Ed25519 signs, which many receivers do not verify"
			}
			add(r.Bad, !signing[house], "put its record into DNS: "+records, "the key does not sign, since DNS does not show its record: %s%s",
				orUnseen(r.Problem), what)
		case r.State != Signing && !r.Bad.IsZero() && r.State == Retiring:
			add(r.Bad, false, "put it back: "+records, "mail that the key signed is still under way, and DNS does not show its record: %s", r.Problem)
		case !r.Unknown.IsZero() && now.Sub(r.Unknown) >= k.o.Times.Check && !r.Good.IsZero():
			add(r.Unknown, false, "check that the resolvers answer", "the record of the key could not be looked at: %s", r.Problem)
		case r.pending() && r.State != Verified && now.Sub(r.Created) >= 60*k.o.Times.Eager && !k.covers(r):
			what := "the key waits for its record"
			if r.Rotation {
				what = "the key is to replace an older one, and waits for its record"
			}
			add(r.Created, false, "put its record into DNS: "+records, "%s: %s", what, orUnseen(r.Problem))
		case r.pending() && r.State != Verified && now.Sub(r.Created) >= 60*k.o.Times.Eager:
			add(r.Created, false, "see whether all name servers of the zone have it: "+records, "the record was published and is not seen: %s",
				orUnseen(r.Problem))
		}
		if r.WriteError != "" {
			add(r.WriteFailed, false, "check dkim.publish, or put the record into DNS yourself: "+records, "the record could not be published: %s",
				r.WriteError)
		}
		if r.Testing && r.State == Signing {
			add(time.Time{}, false, "remove t=y from the record", "the record says that the domain only tests DKIM, so a failure counts for nothing")
		}
	}
	return out
}
