package auth

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/internal/submission/limits"
	"github.com/godwit-mta/godwit/smtp"
)

// Identity is who has come in. Its fields do not change; its methods ask what holds now. It is safe for concurrent use.
type Identity struct {
	Credential string // id
	Login      string
	Tenant     string // id
	Mechanism  string // as on the wire; "KEY" for an API key over HTTP
	Role       Role   // empty: may only send
	AllTenants bool   // the role holds for every tenant
	Scopes     []Scope

	directory *Directory
	entry     *credentialEntry
	tenant    *tenantEntry
	secret    string // id of the secret that was shown; empty with certificates and tokens
}

// current returns the credential as it is now, or why it is no longer good.
func (i *Identity) current() (*credentialRecord, error) {
	c := i.entry.current.Load()
	if c == nil || c.Tenant != i.Tenant {
		return nil, ErrRevoked
	}
	if err := c.usable(i.tenant, time.Now()); err != nil {
		return nil, err
	}
	if i.secret != "" && !c.holds(i.secret, time.Now()) {
		return nil, ErrRevoked
	}
	return c, nil
}

// usable says why a credential is not good at all.
func (c *credentialRecord) usable(t *tenantEntry, now time.Time) error {
	switch tenant := t.current.Load(); {
	case c.Disabled:
		return ErrDisabled
	case !c.Expires.IsZero() && !now.Before(c.Expires):
		return ErrExpired
	case tenant == nil || tenant.Disabled:
		return ErrTenantDisabled
	}
	return nil
}

// holds reports whether a secret is still good.
func (c *credentialRecord) holds(secret string, now time.Time) bool {
	for i := range c.Secrets {
		if s := &c.Secrets[i]; s.ID == secret {
			return s.good(now)
		}
	}
	return false
}

func (s *secret) good(now time.Time) bool { return s.Expires.IsZero() || now.Before(s.Expires) }

// Valid returns nil as long as the credential and its tenant are neither revoked, disabled nor expired, and the secret
// that was shown was not replaced. It looks at memory only and is meant to be asked at each transaction. Errors:
// ErrRevoked, ErrDisabled, ErrExpired, ErrTenantDisabled.
func (i *Identity) Valid() error {
	_, err := i.current()
	return err
}

// May reports whether the credential opens the door s now.
func (i *Identity) May(s Scope) bool {
	c, err := i.current()
	return err == nil && c.Has(s)
}

// MaySend returns nil if the identity may send as path: its domain, or one that it is below, is the tenant's, and the
// credential is not restricted to others. Domains are compared in A-labels. The null path is allowed if the credential
// says so. It looks at memory only. The error is a *SenderError, or one of Valid's.
func (i *Identity) MaySend(_ context.Context, path smtp.Path) error {
	c, err := i.current()
	if err != nil {
		return err
	}
	if path.IsNull() {
		if !c.NullSender {
			return &SenderError{Reason: SenderNull}
		}
		return nil
	}
	domain, err := smtp.DomainToASCII(path.Domain)
	if err != nil || path.Domain == "" || strings.HasPrefix(domain, "[") || path.Local == "" {
		return &SenderError{Reason: SenderMalformed}
	}
	if !i.directory.state.owns(i.Tenant, domain) {
		return &SenderError{Reason: SenderForeign, Domain: domain}
	}
	if len(c.Senders) > 0 && !slices.ContainsFunc(c.Senders, func(s string) bool { return senderFits(s, path.Local, domain) }) {
		return &SenderError{Reason: SenderRestricted, Domain: domain}
	}
	return nil
}

// Owns reports whether the tenant may send from a domain in A-labels: it, or one that it is below, was proven by the
// tenant or assigned to it. It looks at memory only.
func (d *Directory) Owns(tenant, domain string) bool { return d.state.owns(tenant, domain) }

// senderFits reports whether an entry of Senders, in its normal form, covers an address. The local part is compared
// without regard to the case of ASCII letters, since no system that matters tells them apart.
func senderFits(entry, local, domain string) bool {
	at := strings.LastIndexByte(entry, '@')
	if at >= 0 {
		return entry[at+1:] == domain && equalASCIIFold(entry[:at], local)
	}
	rest, ok := strings.CutSuffix(domain, entry)
	return ok && (rest == "" || rest[len(rest)-1] == '.')
}

func equalASCIIFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lowerASCII(a[i]) != lowerASCII(b[i]) {
			return false
		}
	}
	return true
}

func lowerASCII(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// Limits returns what bounds the identity now: the tenant, then the credential, each with what was set for it alone.
func (i *Identity) Limits() []limits.LimitSet {
	sets := []limits.LimitSet{{Kind: limits.Tenant, Name: i.Tenant}, {Kind: limits.Credential, Name: i.Login}}
	if t := i.tenant.current.Load(); t != nil && len(t.Limits) > 0 {
		sets[0].Quota, sets[0].Source = quota(t.Limits), "tenant "+i.Tenant
	}
	if c := i.entry.current.Load(); c != nil && len(c.Limits) > 0 {
		sets[1].Quota, sets[1].Source = quota(c.Limits), "credential "+i.Login
	}
	return sets
}

func quota(list []Limit) limits.Quota {
	var q limits.Quota
	for _, l := range list {
		q.Set(l.Subject, l.Per, l.Max)
	}
	return q
}
