package dmarc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Resolver looks names up. An answer that there is nothing is no error: it is an empty list. An error
// says that it could not be found out now.
type Resolver interface {
	TXT(ctx context.Context, name string) ([]string, error)
	// Exists tells whether there is a name, with records of whatever kind or with names below it: the answer is not NXDOMAIN
	// (RFC 9989, 4.10.1; RFC 8020).
	Exists(ctx context.Context, name string) (bool, error)
}

// Result says what DMARC makes of a message (RFC 8601, 2.7, as RFC 9989, 9, extends it).
type Result string

// The results.
const (
	None      Result = "none" // the author's domain has no policy
	Pass      Result = "pass"
	Fail      Result = "fail"
	TempError Result = "temperror" // something could not be looked up now
)

// Evidence is what other checks found. All domains are in A-labels; case does not matter.
type Evidence struct {
	Author string   // the domain of the one From address
	SPF    string   // the domain that passed SPF; empty if none did
	DKIM   []string // the domains (d=) of signatures that hold
	// Unknown says that SPF or a signature could not be checked now: without a pass the result is TempError then.
	Unknown bool
}

// Verdict is what DMARC makes of a message.
type Verdict struct {
	Result Result
	Domain string  // where the policy was found; empty if there is none
	Record *Record // the policy; nil if there is none
	// Disposition is what the policy asks for if Result is Fail, testing taken into account; otherwise PolicyNone.
	Disposition Policy
	// Policy is the one that applies to the author's domain: p=, sp= or np=.
	Policy Policy
	SPF    bool // the SPF domain is aligned with the author's
	DKIM   bool // a signature's domain is
	// Organization is the author's organizational domain (RFC 9989, 4.10.2).
	Organization string
	Err          error // of TempError
}

// Evaluator judges messages. It may be used concurrently if its Resolver may.
type Evaluator struct{ Resolver Resolver }

// maxWalk is how many domains a walk asks (RFC 9989, 4.10).
const maxWalk = 8

// maxIdentifiers bounds how many signatures' domains are compared, each with a walk of its own.
const maxIdentifiers = 10

// Evaluate judges a message by the policy of its author's domain.
func (e *Evaluator) Evaluate(ctx context.Context, ev Evidence) Verdict {
	author := normal(ev.Author)
	w := walker{resolver: e.Resolver, seen: make(map[string]answer)}
	v, err := w.policy(ctx, author)
	if err != nil {
		return Verdict{Result: TempError, Disposition: PolicyNone, Policy: PolicyNone, Err: err}
	}
	if v.Record == nil {
		v.Result = None
		return v
	}
	var unknown error
	aligned := func(domain string, strict bool) bool {
		ok, err := w.aligned(ctx, author, v.Organization, normal(domain), strict)
		if err != nil {
			unknown = err
		}
		return ok
	}
	v.SPF = ev.SPF != "" && aligned(ev.SPF, v.Record.StrictSPF)
	for i, d := range ev.DKIM {
		if v.DKIM || i == maxIdentifiers {
			break
		}
		v.DKIM = aligned(d, v.Record.StrictDKIM)
	}
	switch {
	case v.SPF || v.DKIM:
		v.Result = Pass
	case unknown != nil:
		v.Result, v.Err = TempError, unknown
	case ev.Unknown:
		v.Result, v.Err = TempError, errors.New("dmarc: SPF or a signature could not be checked")
	default:
		v.Result, v.Disposition = Fail, v.Policy
		if v.Record.Testing {
			v.Disposition = v.Policy.relaxed()
		}
	}
	return v
}

// Organization returns a domain's organizational domain.
func (e *Evaluator) Organization(ctx context.Context, domain string) (string, error) {
	w := walker{resolver: e.Resolver, seen: make(map[string]answer)}
	return w.organization(ctx, normal(domain))
}

func normal(domain string) string { return strings.ToLower(strings.TrimSuffix(domain, ".")) }

// answer is what a domain's _dmarc name has.
type answer struct {
	record *Record
	err    error
}

// walker asks each name once.
type walker struct {
	resolver Resolver
	seen     map[string]answer
}

// record returns the one record at a domain, nil if it has none or several.
func (w *walker) record(ctx context.Context, domain string) (*Record, error) {
	if a, ok := w.seen[domain]; ok {
		return a.record, a.err
	}
	var a answer
	list, err := w.resolver.TXT(ctx, "_dmarc."+domain)
	if err != nil {
		a.err = fmt.Errorf("dmarc: asking for the policy of %s: %w", domain, err)
	}
	n := 0
	for _, txt := range list {
		if isRecord(txt) {
			a.record, _ = ParseRecord(txt) // what cannot be read is no record, and still one too many beside another
			n++
		}
	}
	if n > 1 {
		a.record = nil
	}
	w.seen[domain] = a
	return a.record, a.err
}

// found is a record that a walk met.
type found struct {
	domain string
	record *Record
}

// walk asks a domain and those above it (RFC 9989, 4.10). It ends early where a record says whether it is a public suffix.
func (w *walker) walk(ctx context.Context, domain string) ([]found, error) {
	var list []found
	for n := 0; n < maxWalk && domain != ""; n++ {
		r, err := w.record(ctx, domain)
		if err != nil {
			return nil, err
		}
		if r != nil {
			list = append(list, found{domain, r})
			if r.PSD == PSDNo || r.PSD == PSDYes && n > 0 {
				break
			}
		}
		domain = above(domain)
	}
	return list, nil
}

// above returns the next domain of a walk: one label less, and seven at most.
func above(domain string) string {
	labels := strings.Split(domain, ".")
	return strings.Join(labels[max(1, len(labels)-7):], ".")
}

// organizationOf chooses the organizational domain from a walk that began at a domain (RFC 9989, 4.10.2).
func organizationOf(start string, list []found) string {
	org := start
	for i, f := range list {
		switch {
		case f.record.PSD == PSDNo:
			return f.domain
		case f.record.PSD == PSDYes && f.domain != start:
			return below(f.domain, start)
		case i == len(list)-1:
			org = f.domain // the shortest that has a record
		}
	}
	return org
}

// below returns the domain one label below suffix on the way to start.
func below(suffix, start string) string {
	head := strings.TrimSuffix(start, "."+suffix)
	return head[strings.LastIndexByte(head, '.')+1:] + "." + suffix
}

func (w *walker) organization(ctx context.Context, domain string) (string, error) {
	list, err := w.walk(ctx, domain)
	if err != nil {
		return "", err
	}
	return organizationOf(domain, list), nil
}

// policy finds the record that applies to an author's domain, and which of its policies (RFC 9989, 4.10.1).
func (w *walker) policy(ctx context.Context, author string) (Verdict, error) {
	v := Verdict{Disposition: PolicyNone, Policy: PolicyNone, Organization: author}
	list, err := w.walk(ctx, author)
	if err != nil {
		return v, err
	}
	v.Organization = organizationOf(author, list)
	i := slices.IndexFunc(list, func(f found) bool { return f.domain == author })
	if i < 0 {
		i = slices.IndexFunc(list, func(f found) bool { return f.domain == v.Organization })
	}
	if i < 0 { // a public suffix may speak for those below it that say nothing
		i = slices.IndexFunc(list, func(f found) bool { return f.record.PSD == PSDYes })
	}
	if i < 0 || list[i].record.Silent {
		return v, nil
	}
	v.Domain, v.Record, v.Policy = list[i].domain, list[i].record, list[i].record.Policy
	if v.Domain == author {
		return v, nil
	}
	v.Policy = v.Record.Subdomains
	if v.Record.NonExistent == v.Record.Subdomains {
		return v, nil
	}
	exists, err := w.resolver.Exists(ctx, author)
	if err != nil {
		return v, fmt.Errorf("dmarc: asking whether %s exists: %w", author, err)
	}
	if !exists {
		v.Policy = v.Record.NonExistent
	}
	return v, nil
}

// aligned reports whether an identifier's domain is aligned with the author's (RFC 9989, 4.4).
func (w *walker) aligned(ctx context.Context, author, organization, domain string, strict bool) (bool, error) {
	if domain == author {
		return true, nil
	}
	if strict || domain == "" {
		return false, nil
	}
	// What is neither at nor below the organizational domain cannot have the same one.
	if domain != organization && !strings.HasSuffix(domain, "."+organization) {
		return false, nil
	}
	other, err := w.organization(ctx, domain)
	return err == nil && other == organization, err
}
