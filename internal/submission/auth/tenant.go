package auth

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/internal/store"
	"github.com/godwit-mta/godwit/internal/submission/limits"
)

// TenantChange is what an update changes; nil fields stay as they are.
type TenantChange struct {
	Name     *string
	Disabled *bool
	Limits   *[]Limit
	TLS      *string
}

const (
	maxText    = 200 // octets of a name or note for people
	maxTenants = 100_000
)

func checkLimits(list []Limit) error {
	for i, l := range list {
		var q limits.Quota
		switch {
		case !q.Set(l.Subject, l.Per, l.Max):
			return invalid("limits", "no limit %q per %q: write messages, recipients, bytes or unique_recipients per minute, hour or day",
				l.Subject, l.Per)
		case l.Max < -1 || l.Max == 0:
			return invalid("limits", "limit of %d %s per %s: write 1 or more, or -1 for none", l.Max, l.Subject, l.Per)
		case slices.ContainsFunc(list[:i], func(o Limit) bool { return o.Subject == l.Subject && o.Per == l.Per }):
			return invalid("limits", "%s per %s are limited twice", l.Subject, l.Per)
		}
	}
	return nil
}

// TLSWords are what a tenant may demand of the sessions that carry its mail, the weakest first; delivery says what they mean.
func TLSWords() []string { return []string{"none", "opportunistic", "encrypted", "verified"} }

func checkTLS(word string) error {
	if word != "" && !slices.Contains(TLSWords(), word) {
		return invalid("tls", "tls %q: write %s, or default for what delivery.tls and routes say", word, strings.Join(TLSWords(), ", "))
	}
	return nil
}

func checkText(field, s string) error {
	if len(s) > maxText || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }) {
		return invalid(field, "%s has at most %d octets of UTF-8 and no control characters", field, maxText)
	}
	return nil
}

// Tenants returns all tenants by id, those of the configuration included.
func (d *Directory) Tenants() []Tenant {
	s := d.state
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tenantLocked(DefaultTenant)
	var list []Tenant
	for _, e := range s.tenants {
		if t := e.current.Load(); t != nil {
			list = append(list, *t)
		}
	}
	slices.SortFunc(list, func(a, b Tenant) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// Tenant returns one tenant. Errors: ErrNotFound.
func (d *Directory) Tenant(id string) (Tenant, error) {
	if e := d.state.tenant(id); e != nil {
		if t := e.current.Load(); t != nil {
			return *t, nil
		}
	}
	return Tenant{}, ErrNotFound
}

// Configured reports whether the configuration file names the tenant.
func (d *Directory) Configured(tenant string) bool {
	d.state.mu.RLock()
	defer d.state.mu.RUnlock()
	_, ok := d.state.configured[tenant]
	return ok
}

// CreateTenant makes a tenant. Errors: *InputError, ErrExists.
func (d *Directory) CreateTenant(ctx context.Context, t Tenant) (Tenant, error) {
	if !isID(t.ID) {
		return t, invalid("id", "tenant id %q: use 1 to 64 lower-case letters, digits, hyphens, dots or underscores, such as \"shop\"", t.ID)
	}
	if err := errors.Join(checkText("name", t.Name), checkLimits(t.Limits), checkTLS(t.TLS)); err != nil {
		return t, err
	}
	end, err := d.begin(ctx)
	if err != nil {
		return t, err
	}
	defer end()
	if _, err := d.Tenant(t.ID); err == nil {
		return t, ErrExists
	}
	if len(d.Tenants()) >= maxTenants {
		return t, invalid("id", "there are %d tenants already, which is the most there can be", maxTenants)
	}
	t.Created = now()
	value, err := t.encode()
	if err != nil {
		return t, err
	}
	var b store.Batch
	b.Expect(tenantPrefix+t.ID, 0)
	b.Put(tenantPrefix+t.ID, value)
	return t, d.apply(ctx, &b)
}

// UpdateTenant changes a tenant and returns it as it was and is. Errors: *InputError, ErrNotFound, ErrChanged.
func (d *Directory) UpdateTenant(ctx context.Context, id string, c TenantChange) (before, after Tenant, err error) {
	end, err := d.begin(ctx)
	if err != nil {
		return before, after, err
	}
	defer end()
	if before, err = d.Tenant(id); err != nil {
		return before, after, err
	}
	if d.Configured(id) && (c.Name != nil || c.Limits != nil || c.TLS != nil) {
		return before, before, invalid("name", "tenant %s stands in the configuration file, which gives its name, limits and tls: change them there", id)
	}
	// What the file says stays out of the record: it may be taken out of the file one day.
	record, revision, err := read[Tenant](ctx, d.o.Store, tenantPrefix+id)
	switch {
	case errors.Is(err, ErrNotFound):
		record = &Tenant{ID: id, Created: now()}
	case err != nil:
		return before, before, err
	}
	if c.Name != nil {
		record.Name = *c.Name
	}
	if c.Disabled != nil {
		record.Disabled = *c.Disabled
	}
	if c.Limits != nil {
		record.Limits = *c.Limits
	}
	if c.TLS != nil {
		record.TLS = *c.TLS
	}
	if err := errors.Join(checkText("name", record.Name), checkLimits(record.Limits), checkTLS(record.TLS)); err != nil {
		return before, before, err
	}
	value, err := record.encode()
	if err != nil {
		return before, before, err
	}
	var b store.Batch
	b.Expect(tenantPrefix+id, revision)
	b.Put(tenantPrefix+id, value)
	if err := d.apply(ctx, &b); err != nil {
		return before, before, err
	}
	after, err = d.Tenant(id)
	return before, after, err
}

// RemoveTenant removes a tenant that has neither credentials nor domains left. Errors: ErrNotFound, ErrInUse, *InputError.
func (d *Directory) RemoveTenant(ctx context.Context, id string) (Tenant, error) {
	end, err := d.begin(ctx)
	if err != nil {
		return Tenant{}, err
	}
	defer end()
	t, err := d.Tenant(id)
	switch {
	case err != nil:
		return t, err
	case d.Configured(id):
		return t, invalid("id", "tenant %s stands in the configuration file: remove it there", id)
	case id == DefaultTenant:
		return t, invalid("id", "tenant %s always exists", id)
	case len(d.Credentials(CredentialQuery{Tenant: id}))+len(d.Domains(id)) > 0:
		return t, ErrInUse
	}
	var b store.Batch
	b.Delete(tenantPrefix + id)
	return t, d.apply(ctx, &b)
}

// now is the time that records carry.
func now() time.Time { return time.Now().UTC().Truncate(time.Second) }
