package tlspolicy

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/godwit-mta/godwit/internal/dns"
)

// Host finds what holds towards one host of the domain: mx is the answer that named it, addrs that of its addresses.
// DANE, if the host has it, goes before MTA-STS (RFC 8461, 2): a signed word of the host's zone is worth more than what
// was believed on first sight.
func (d *Domain) Host(ctx context.Context, mx *dns.MX, host string, addrs *dns.Addrs) Plan {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if !d.p.o.NoDANE {
		if plan, ok := d.dane(ctx, mx, host, addrs); ok {
			return plan
		}
	}
	return d.stsPlan(host)
}

// stsPlan is the plan by MTA-STS alone (RFC 8461, 4 and 5).
func (d *Domain) stsPlan(host string) Plan {
	if d.sts == nil {
		return Plan{Policy: KindNone, Domain: d.Name, ServerName: host}
	}
	plan := Plan{Policy: KindSTS, Domain: d.Name, Strings: d.sts.lines, Patterns: d.sts.patterns, ServerName: host,
		Verify: verifyPKIX(host, d.p.o.Roots)}
	var mismatch *Failure
	if !d.sts.matches(host) {
		mismatch = failure(ValidationFailure, fmt.Sprintf("the MX host %s is not in the MTA-STS policy of %s", host, d.Name))
	}
	if d.sts.mode == modeTesting {
		plan.Testing, plan.Note, plan.Key = true, mismatch, "testing "+host
		if verify := plan.Verify; mismatch != nil { // a host that the policy does not name proves nothing
			plan.Verify = func(state *tls.ConnectionState) *Failure { return cmp.Or(verify(state), mismatch) }
			plan.Key += " " + d.Name
		}
		return plan
	}
	plan.Required, plan.Skip, plan.Key = true, mismatch, "pkix "+host
	return plan
}

// dane is the plan by DANE; ok is false if the host has none: its zone is not signed, or it has no TLSA records.
func (d *Domain) dane(ctx context.Context, mx *dns.MX, host string, addrs *dns.Addrs) (Plan, bool) {
	unusable := func(base, what string, err error) (Plan, bool) {
		d.p.metrics.tlsa[tlsaFailed].Inc()
		d.p.o.Logger.Info("host is left out: its TLSA records cannot be had", slog.String("host", host), slog.Any("error", err))
		return Plan{Policy: KindTLSA, Domain: base, ServerName: base, Required: true, Key: "none",
			Skip: failure(DNSSECInvalid, what+": "+explain(err))}, true
	}
	// An MX record that anybody can have put there makes what the host's own zone says worthless (RFC 7672, 2.2.1). Without
	// MX records the domain is its own host (2.2.2), and original is its name before any alias.
	if mx == nil || addrs == nil || !mx.Implicit && !mx.Authentic {
		return Plan{}, false
	}
	original, end := host, addrs.Name
	if mx.Implicit {
		original = d.Name
	}
	if end == "" {
		end = host
	}
	bases := []string{end}
	switch secure := mx.Authentic && addrs.Authentic; {
	case secure && end != original:
		bases = []string{end, original}
	case !secure && end != original:
		// The alias may lead out of a signed zone; its own name counts then, if the alias itself is signed (2.2.2).
		alias, err := d.p.o.Resolver.LookupCNAME(ctx, original)
		switch {
		case isTemporary(err):
			return unusable(original, "the alias cannot be looked up", err)
		case err != nil || !alias.Authentic:
			return Plan{}, false
		}
		bases = []string{original}
	case !secure:
		return Plan{}, false // no question for TLSA, which servers of unsigned zones get wrong (2.2.2)
	}
	for _, base := range bases {
		found, err := d.p.o.Resolver.LookupTLSA(ctx, d.p.prefix+base)
		switch {
		case isTemporary(err):
			return unusable(base, "the TLSA records cannot be looked up", err)
		case err != nil || !found.Authentic || len(found.Records) == 0:
			continue
		}
		names := []string{base, d.Name} // RFC 7672, 3.2.2
		if mx.Name != "" && mx.Name != d.Name {
			names = append(names, mx.Name)
		}
		if mx.Implicit && base != original {
			names = append(names, original)
		}
		plan := d.danePlan(base, names, found.Records)
		outcome := tlsaUsable
		if plan.Verify == nil {
			outcome = tlsaUnusable
		}
		d.p.metrics.tlsa[outcome].Inc()
		return plan, true
	}
	d.p.metrics.tlsa[tlsaNone].Inc()
	return Plan{}, false
}

// plans keeps what was made of sets of TLSA records, as long as the resolver hands out the same set.
type plans struct {
	sync.Mutex
	byRecords map[planKey]Plan
}

type planKey struct {
	first *dns.TLSARecord // of the set, which does not change
	names string
}

const maxPlans = 4096

// danePlan is the plan that a set of TLSA records makes.
func (d *Domain) danePlan(base string, names []string, records []dns.TLSARecord) Plan {
	k := planKey{&records[0], strings.Join(names, " ")}
	c := &d.p.plans
	c.Lock()
	plan, ok := c.byRecords[k]
	c.Unlock()
	if ok {
		return plan
	}
	plan = d.newDANEPlan(base, slices.Compact(names), records)
	c.Lock()
	defer c.Unlock()
	if c.byRecords == nil || len(c.byRecords) >= maxPlans {
		c.byRecords = make(map[planKey]Plan)
	}
	c.byRecords[k] = plan
	return plan
}

// newDANEPlan: see RFC 7672, 2.2 and 3.1.
func (d *Domain) newDANEPlan(base string, names []string, records []dns.TLSARecord) Plan {
	plan := Plan{Policy: KindTLSA, Domain: base, ServerName: base, Required: true}
	var usable []tlsaRecord
	why := ""
	for i := range records {
		plan.Strings = append(plan.Strings, recordText(&records[i]))
		r, bad := readRecord(&records[i])
		if bad != "" {
			why = bad
			continue
		}
		usable = append(usable, r)
	}
	if len(usable) == 0 {
		// The zone says that the host speaks TLS, and nothing by which to know it (RFC 7672, 2.2).
		plan.Key = "tls"
		plan.Note = failure(TLSAInvalid, "no TLSA record of "+base+" can be used, the last since "+why)
		return plan
	}
	v := &daneVerifier{base: base, names: names, records: usable}
	plan.Verify, plan.Key = v.verify, v.key()
	return plan
}

// isTemporary reports whether an error leaves open what there is. What a validating resolver finds forged is so too
// (RFC 7672, 2.1.2).
func isTemporary(err error) bool {
	var d *dns.Error
	return err != nil && (!errors.As(err, &d) || d.Temporary())
}

func explain(err error) string {
	var d *dns.Error
	if errors.As(err, &d) {
		return d.Explain()
	}
	return err.Error()
}
