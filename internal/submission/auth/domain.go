package auth

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/internal/dns"
	"github.com/godwit-mta/godwit/internal/store"
	"github.com/godwit-mta/godwit/smtp"
)

// DomainState is how far the claim of a domain has come. The set is closed.
type DomainState string

// The states.
const (
	Assigned DomainState = "assigned" // the operator says so
	Pending  DomainState = "pending"  // a challenge waits to be found in DNS
	Proven   DomainState = "proven"   // it was found there
	Expired  DomainState = "expired"  // it was not found in time; to be claimed again
)

// Domain is the claim of a tenant to a domain. Several tenants may claim one: proof decides, and more than one may prove.
type Domain struct {
	Name   string      `json:"name"` // in A-labels
	Tenant string      `json:"tenant"`
	State  DomainState `json:"state"`
	Exact  bool        `json:"exact,omitempty"` // what is below the domain is not included
	Token  string      `json:"token,omitempty"` // of the challenge

	Created time.Time `json:"created"`
	Proven  time.Time `json:"proven,omitzero"`   // first
	Checked time.Time `json:"checked,omitzero"`  // last
	Problem string    `json:"problem,omitempty"` // what the last check found wrong, in words
	// Missing is since when DNS has said, without a break, that a proof which was there is gone. The domain stays
	// proven: many remove the record once it has done its work.
	Missing time.Time `json:"missing,omitzero"`
}

// Usable reports whether the tenant may send from the domain.
func (d *Domain) Usable() bool { return d.State == Assigned || d.State == Proven }

// Challenge is what proves a domain: either of two records in its DNS. Only one can stand at a name, since an alias
// suffers no other record beside it (RFC 1034, 3.6.2).
type Challenge struct {
	Name  string // of the record: "_godwit-challenge.example.com"
	Text  string // of a TXT record
	Alias string // or the target of a CNAME record
	Until time.Time
}

const (
	challengeLabel  = "_godwit-challenge."
	challengePrefix = "godwit-verify="
	tokenSize       = 20     // octets
	maxClaims       = 10_000 // of one tenant
)

// Challenge returns what proves a claim; false if nothing is to be proven.
func (d *Directory) Challenge(c *Domain) (Challenge, bool) {
	if c.Token == "" {
		return Challenge{}, false
	}
	return Challenge{
		Name: challengeLabel + c.Name, Text: challengePrefix + c.Token, Alias: c.Token + ".godwit-verify." + d.o.Hostname,
		Until: c.Created.Add(d.o.ChallengeTime),
	}, true
}

// Domains returns the claims of a tenant, or all if it is empty, by name. Those of the configuration are not among
// them; see AssignedByConfiguration.
func (d *Directory) Domains(tenant string) []Domain {
	s := d.state
	s.mu.RLock()
	var list []Domain
	for _, claims := range s.domains {
		for _, c := range claims {
			if tenant == "" || c.Tenant == tenant {
				list = append(list, d.aged(*c))
			}
		}
	}
	s.mu.RUnlock()
	slices.SortFunc(list, func(a, b Domain) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Tenant, b.Tenant))
	})
	return list
}

// AssignedByConfiguration returns the domains that the configuration gives to a tenant, or to each if it is empty:
// pairs of domain, which may begin with "*.", and tenant.
func (d *Directory) AssignedByConfiguration(tenant string) [][2]string {
	s := d.state
	s.mu.RLock()
	defer s.mu.RUnlock()
	var list [][2]string
	for name, tenants := range s.assigned {
		for _, t := range tenants {
			if tenant == "" || t == tenant {
				list = append(list, [2]string{name, t})
			}
		}
	}
	slices.SortFunc(list, func(a, b [2]string) int {
		return cmp.Or(strings.Compare(a[0], b[0]), strings.Compare(a[1], b[1]))
	})
	return list
}

// aged returns a claim as it is now: one that was not proven in time has expired.
func (d *Directory) aged(c Domain) Domain {
	if c.State == Pending && time.Since(c.Created) >= d.o.ChallengeTime {
		c.State = Expired
	}
	return c
}

// Domain returns one claim. Errors: *InputError, ErrNotFound.
func (d *Directory) Domain(name, tenant string) (Domain, error) {
	name, err := domainName(name)
	if err != nil {
		return Domain{}, err
	}
	d.state.mu.RLock()
	defer d.state.mu.RUnlock()
	for _, c := range d.state.domains[name] {
		if c.Tenant == tenant {
			return d.aged(*c), nil
		}
	}
	return Domain{}, ErrNotFound
}

// domainName brings a domain as people write it into its one form: U-labels, A-labels and capitals are one domain.
func domainName(s string) (string, error) {
	name, err := smtp.DomainToASCII(strings.TrimSpace(s))
	if err != nil || strings.HasPrefix(name, "[") || !strings.Contains(name, ".") || strings.HasPrefix(name, "_") {
		return "", invalid("name", "%q is no domain such as example.com", s)
	}
	return name, nil
}

// AddDomain claims a domain for a tenant. With assigned it is the tenant's at once, by the operator's word; without, its
// Challenge is to be put into DNS and VerifyDomain to be called. Claiming a domain again changes how it is claimed, and
// makes a new token if the old one has expired. Errors: *InputError, ErrExists.
func (d *Directory) AddDomain(ctx context.Context, name, tenant string, exact, assigned bool) (Domain, error) {
	name, err := domainName(name)
	if err != nil {
		return Domain{}, err
	}
	if _, err := d.Tenant(tenant); err != nil {
		return Domain{}, invalid("tenant", "there is no tenant %q: make it with \"godwit tenant create %s\"", tenant, tenant)
	}
	end, err := d.begin(ctx)
	if err != nil {
		return Domain{}, err
	}
	defer end()
	if len(d.Domains(tenant)) >= maxClaims {
		return Domain{}, invalid("name", "tenant %s has %d domains, which is the most there can be", tenant, maxClaims)
	}
	claim := Domain{Name: name, Tenant: tenant, Exact: exact}
	old, err := d.Domain(name, tenant)
	var b store.Batch
	switch {
	case assigned:
		if err == nil && old.State == Assigned && old.Exact == exact {
			return old, ErrExists
		}
		claim, err = d.putAssigned(ctx, &b, claim)
	case err == nil && old.Exact == exact && old.State != Expired:
		return old, ErrExists
	case err == nil && old.State == Proven:
		claim = old
		claim.Exact = exact
		err = d.put(ctx, &b, claim)
	default:
		claim.State, claim.Created = Pending, now()
		if claim.Token, err = randomLetters(d.o.Rand, tokenSize); err != nil {
			return Domain{}, err
		}
		err = d.put(ctx, &b, claim)
	}
	if err != nil {
		return Domain{}, err
	}
	return claim, d.apply(ctx, &b)
}

// putAssigned adds the claim of a domain that the operator assigns to a batch.
func (d *Directory) putAssigned(ctx context.Context, b *store.Batch, c Domain) (Domain, error) {
	c.State, c.Created, c.Token = Assigned, now(), ""
	return c, d.put(ctx, b, c)
}

func (d *Directory) put(ctx context.Context, b *store.Batch, c Domain) error {
	key := domainKey(c.Name, c.Tenant)
	_, revision, err := read[Domain](ctx, d.o.Store, key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	value, err := c.encode()
	if err != nil {
		return err
	}
	b.Expect(key, revision)
	b.Put(key, value)
	return nil
}

// RemoveDomain takes a domain from a tenant; it holds for open sessions too. Errors: *InputError, ErrNotFound.
func (d *Directory) RemoveDomain(ctx context.Context, name, tenant string) (Domain, error) {
	end, err := d.begin(ctx)
	if err != nil {
		return Domain{}, err
	}
	defer end()
	c, err := d.Domain(name, tenant)
	if err != nil {
		return c, err
	}
	var b store.Batch
	b.Delete(domainKey(c.Name, tenant))
	return c, d.apply(ctx, &b)
}

// VerifyDomain asks DNS for the proof of a claim and returns the claim as it is then; its Problem says what is missing.
// A passing failure of DNS changes nothing but that. Errors: *InputError (nothing is to be proven), ErrNotFound.
func (d *Directory) VerifyDomain(ctx context.Context, name, tenant string) (Domain, error) {
	c, err := d.Domain(name, tenant)
	if err != nil {
		return c, err
	}
	switch {
	case c.State == Assigned:
		return c, invalid("name", "domain %s was assigned by the operator and needs no proof", c.Name)
	case d.o.Resolver == nil:
		return c, invalid("name", "this server has no resolver to verify domains with")
	case c.State == Expired:
		return c, invalid("name", "the claim of %s was not proven in time: claim it again with \"godwit domain add %s\", "+
			"which gives a new record", c.Name, c.Name)
	}
	problem, certain := d.prove(ctx, &c)
	if ctx.Err() != nil {
		return c, context.Cause(ctx)
	}
	return d.judge(ctx, c, problem, certain)
}

// judge writes down what a check of a claim found.
func (d *Directory) judge(ctx context.Context, checked Domain, problem string, certain bool) (Domain, error) {
	end, err := d.begin(ctx)
	if err != nil {
		return checked, err
	}
	defer end()
	c, err := d.Domain(checked.Name, checked.Tenant)
	if err != nil {
		return c, err
	}
	if c.Token != checked.Token {
		return c, ErrChanged
	}
	c.Checked, c.Problem = now(), problem
	switch {
	case problem == "":
		if c.State != Proven {
			c.State, c.Proven = Proven, c.Checked
		}
		c.Missing = time.Time{}
	case certain && c.State == Proven && c.Missing.IsZero():
		c.Missing = c.Checked
	}
	var b store.Batch
	if err := d.put(ctx, &b, c); err != nil {
		return c, err
	}
	return c, d.apply(ctx, &b)
}

// prove looks for the records of a challenge. The problem is empty if one was found; certain says that it is the domain's
// own word and no passing trouble.
func (d *Directory) prove(ctx context.Context, c *Domain) (problem string, certain bool) {
	want, _ := d.Challenge(c)
	alias, aliasErr := d.o.Resolver.LookupAlias(ctx, want.Name)
	if aliasErr == nil && alias == want.Alias {
		return "", true
	}
	txt, err := d.o.Resolver.LookupTXT(ctx, want.Name)
	if err == nil {
		for _, r := range txt.Records {
			if strings.TrimSpace(r) == want.Text {
				return "", true
			}
		}
		return "the TXT record of " + want.Name + " has other text than " + want.Text, true
	}
	var e *dns.Error
	switch {
	case !errors.As(err, &e):
		return "DNS could not be asked: " + err.Error(), false
	case e.Temporary():
		return "DNS gave no answer: " + e.Explain(), false
	case alias != "":
		return want.Name + " is an alias of " + alias + ", not of " + want.Alias, true
	case e.Kind == dns.NXDomain || e.Kind == dns.NoRecord:
		return "there is no TXT record at " + want.Name, true
	}
	return e.Explain(), false
}

// recheckDomains looks at proofs again, one after the other, spread over the interval.
func (d *Directory) recheckDomains(ctx context.Context) {
	if d.o.Resolver == nil {
		return
	}
	tick := time.NewTicker(max(d.o.RecheckInterval/24, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, c := range d.Domains("") {
			if c.State != Proven || time.Since(c.Checked) < d.o.RecheckInterval {
				continue
			}
			missing := !c.Missing.IsZero()
			c, err := d.VerifyDomain(ctx, c.Name, c.Tenant)
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				d.o.Logger.Warn("proof of a domain not checked", "domain", c.Name, "tenant", c.Tenant, "error", err)
			case !c.Missing.IsZero() && !missing:
				d.o.Logger.Warn("the proof of a domain is gone from DNS; the domain stays the tenant's", "domain", c.Name,
					"tenant", c.Tenant, "problem", c.Problem)
			}
		}
	}
}
