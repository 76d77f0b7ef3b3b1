package auth

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/internal/store"
	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/sasl"
)

const (
	maxLogin       = 128 // octets
	maxSenders     = 1000
	maxNetworks    = 1000
	maxCredentials = 1_000_000
)

// NewCredential asks for a credential. Tenant and Login are required.
type NewCredential struct {
	Credential        // ID, Created and Rotated are ignored; Kind: Password; Scopes: ScopeSMTP and, with keys, ScopeAPI
	Password   string // of kind Password; empty: one is made, which is better
	// Assign makes domains of Senders the tenant's where they are not, by the operator's word.
	Assign bool
}

// Created is a credential just made or rotated. Secret is shown here and never again; it is zero with certificates and
// tokens, and where the caller gave the password.
type Created struct {
	Credential Credential
	Secret     Secret
	Assigned   []string  // domains that are the tenant's from now on
	OldUntil   time.Time // of a rotation: until when the old secret is good; zero: it is not
}

// CredentialState is whether a credential lets anybody in. The set is closed.
type CredentialState string

// The states of credentials.
const (
	Active          CredentialState = "active"
	StateDisabled   CredentialState = "disabled"
	StateExpired    CredentialState = "expired"
	StateTenantGone CredentialState = "tenant_disabled"
)

// State returns whether a credential lets anybody in now.
func (d *Directory) State(c *Credential) CredentialState {
	tenant, err := d.Tenant(c.Tenant)
	switch {
	case c.Disabled:
		return StateDisabled
	case !c.Expires.IsZero() && !time.Now().Before(c.Expires):
		return StateExpired
	case err != nil || tenant.Disabled:
		return StateTenantGone
	}
	return Active
}

// CredentialQuery selects credentials. Fields are joined by and.
type CredentialQuery struct {
	Tenant string
	Kind   Kind
}

// Used is when and whence a credential came in last.
type Used struct {
	Last time.Time // zero: never
	Addr netip.Prefix
}

// Credentials returns those that fit, by tenant and login.
func (d *Directory) Credentials(q CredentialQuery) []Credential {
	s := d.state
	s.mu.RLock()
	var list []Credential
	for _, e := range s.credentials {
		if c := e.current.Load(); c != nil && (q.Tenant == "" || c.Tenant == q.Tenant) && (q.Kind == "" || c.Kind == q.Kind) {
			list = append(list, c.Credential)
		}
	}
	s.mu.RUnlock()
	slices.SortFunc(list, func(a, b Credential) int {
		return cmp.Or(strings.Compare(a.Tenant, b.Tenant), strings.Compare(a.Login, b.Login))
	})
	return list
}

// Credential finds a credential by its id or login. Errors: ErrNotFound.
func (d *Directory) Credential(name string) (Credential, error) {
	e := d.entry(name)
	if e == nil {
		return Credential{}, ErrNotFound
	}
	c := e.current.Load()
	if c == nil {
		return Credential{}, ErrNotFound
	}
	return c.Credential, nil
}

func (d *Directory) entry(name string) *credentialEntry {
	if e := d.state.login(loginForm(name)); e != nil {
		return e
	}
	return d.state.credential(name)
}

// Use returns when and whence a credential came in last.
func (d *Directory) Use(id string) Used {
	e := d.state.credential(id)
	if e == nil {
		return Used{}
	}
	e.use.mu.Lock()
	defer e.use.mu.Unlock()
	u := Used{Last: e.use.last}
	if len(e.use.addrs) > 0 {
		u.Addr = e.use.addrs[0].Addr
	}
	return u
}

// bindings returns the keys that make sure that login, certificate name and subject are nobody else's.
func (c *Credential) bindings() []string {
	keys := []string{loginPrefix + c.Login}
	if c.Name != "" {
		keys = append(keys, loginPrefix+":certificate/"+c.Name)
	}
	if c.Subject != "" {
		keys = append(keys, loginPrefix+":oauth/"+c.Issuer+"/"+c.Subject)
	}
	return keys
}

// CreateCredential makes a credential. Errors: *InputError, ErrExists (the login, certificate name or subject is taken).
func (d *Directory) CreateCredential(ctx context.Context, n NewCredential) (Created, error) {
	c := n.Credential
	c.Kind = cmp.Or(c.Kind, Password)
	c.Created, c.Rotated = now(), time.Time{}
	if len(c.Scopes) == 0 {
		c.Scopes = []Scope{ScopeSMTP}
		if c.Kind == Key {
			c.Scopes = append(c.Scopes, ScopeAPI)
		}
	}
	if c.Kind == OAuth {
		c.Subject = cmp.Or(c.Subject, c.Login)
	}
	if err := d.checkCredential(&c); err != nil {
		return Created{}, err
	}
	if n.Password != "" && c.Kind != Password {
		return Created{}, invalid("password", "a credential of kind %s has no password", c.Kind)
	}
	end, err := d.begin(ctx)
	if err != nil {
		return Created{}, err
	}
	defer end()
	if _, err := d.Tenant(c.Tenant); err != nil {
		return Created{}, invalid("tenant", "there is no tenant %q: make it with \"godwit tenant create %s\"", c.Tenant, c.Tenant)
	}
	if d.state.credentialCount() >= maxCredentials {
		return Created{}, invalid("login", "there are %d credentials already, which is the most there can be", maxCredentials)
	}
	if c.ID, err = randomLetters(d.o.Rand, idSize); err != nil {
		return Created{}, err
	}
	r := &credentialRecord{Credential: c}
	secret, err := d.addSecret(ctx, r, n.Password)
	if err != nil {
		return Created{}, err
	}
	var b store.Batch
	assigned, err := d.assign(ctx, &b, &c, n.Assign)
	if err != nil {
		return Created{}, err
	}
	for _, key := range c.bindings() {
		b.Expect(key, 0)
		b.Put(key, []byte(c.ID))
	}
	value, err := r.encode()
	if err != nil {
		return Created{}, err
	}
	b.Put(credentialPrefix+c.ID, value)
	if err := d.applyNew(ctx, &b); err != nil {
		return Created{}, err
	}
	return Created{Credential: c, Secret: secret, Assigned: assigned}, nil
}

// applyNew is apply, where a conflict means that what is to be new exists.
func (d *Directory) applyNew(ctx context.Context, b *store.Batch) error {
	err := d.apply(ctx, b)
	if errors.Is(err, ErrChanged) {
		return ErrExists
	}
	return err
}

// assign sees to it that the credential's senders are of domains of its tenant.
func (d *Directory) assign(ctx context.Context, b *store.Batch, c *Credential, allowed bool) (assigned []string, err error) {
	for _, s := range c.Senders {
		domain := s[strings.LastIndexByte(s, '@')+1:]
		if d.state.owns(c.Tenant, domain) || slices.Contains(assigned, domain) {
			continue
		}
		if !allowed {
			return nil, invalid("senders", "domain %s is not tenant %s's: prove it with \"godwit domain add %s --tenant %s\", or assign it",
				domain, c.Tenant, domain, c.Tenant)
		}
		if _, err := d.putAssigned(ctx, b, Domain{Name: domain, Tenant: c.Tenant}); err != nil {
			return nil, err
		}
		assigned = append(assigned, domain)
	}
	return assigned, nil
}

// addSecret gives a record a new secret, the newest first. With kinds that have none it does nothing.
func (d *Directory) addSecret(ctx context.Context, r *credentialRecord, password string) (shown Secret, err error) {
	s := secret{}
	if s.ID, err = randomLetters(d.o.Rand, 5); err != nil {
		return shown, err
	}
	switch r.Kind {
	case Key:
		if shown, err = generateKey(d.o.Rand, r.ID); err != nil {
			return shown, err
		}
		s.Digest = keyDigest(shown.text)
	case Password:
		if password == "" {
			if shown, err = generatePassword(d.o.Rand); err != nil {
				return shown, err
			}
			password = shown.text
		} else if password, err = checkPassword(password, r.Login); err != nil {
			return shown, err
		}
		if err := d.hashNew(ctx, &s, password); err != nil {
			return shown, err
		}
	default:
		return shown, nil
	}
	r.Secrets = slices.Insert(r.Secrets, 0, s)
	return shown, nil
}

// hashNew computes what a password is checked by. It takes its turn like a login.
func (d *Directory) hashNew(ctx context.Context, s *secret, password string) error {
	if !d.gate.enter(ctx, true) {
		return invalid("password", "too many logins are being checked now, try again in a minute")
	}
	defer d.gate.leave()
	p, err := newArgon2(d.o.Rand, password, d.o.Cost)
	if err != nil {
		return err
	}
	salt, err := random(d.o.Rand, saltSize)
	if err != nil {
		return err
	}
	v, err := sasl.NewVerifier(password, salt, d.o.ScramIterations)
	if err != nil {
		return err
	}
	s.Hash, s.params = p.String(), p
	s.Scram = &scramRecord{Salt: v.Salt, Iterations: v.Iterations, StoredKey: v.StoredKey, ServerKey: v.ServerKey}
	return nil
}

// CredentialChange is what an update changes; nil fields stay as they are.
type CredentialChange struct {
	Note       *string
	Scopes     *[]Scope
	Role       *Role
	AllTenants *bool
	Senders    *[]string
	NullSender *bool
	Networks   *[]netip.Prefix
	Limits     *[]Limit
	Expires    *time.Time // zero: never
	Disabled   *bool
	Assign     bool // as in NewCredential
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

// UpdateCredential changes a credential, found by id or login, and returns it as it was and is. Sessions that are open
// follow at once. Errors: *InputError, ErrNotFound, ErrChanged.
func (d *Directory) UpdateCredential(ctx context.Context, name string, ch CredentialChange) (before, after Credential, err error) {
	err = d.change(ctx, name, func(b *store.Batch, r *credentialRecord) error {
		before = r.Credential
		c := &r.Credential
		set(&c.Note, ch.Note)
		set(&c.Scopes, ch.Scopes)
		set(&c.Role, ch.Role)
		set(&c.AllTenants, ch.AllTenants)
		set(&c.Senders, ch.Senders)
		set(&c.NullSender, ch.NullSender)
		set(&c.Networks, ch.Networks)
		set(&c.Limits, ch.Limits)
		set(&c.Expires, ch.Expires)
		set(&c.Disabled, ch.Disabled)
		if err := d.checkCredential(c); err != nil {
			return err
		}
		if ch.Senders != nil {
			if _, err := d.assign(ctx, b, c, ch.Assign); err != nil {
				return err
			}
		}
		after = *c
		return nil
	})
	return before, after, err
}

// change reads a credential, lets it be changed and writes it.
func (d *Directory) change(ctx context.Context, name string, edit func(*store.Batch, *credentialRecord) error) error {
	end, err := d.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	e := d.entry(name)
	if e == nil {
		return ErrNotFound
	}
	key := credentialPrefix + e.id
	r, revision, err := read[credentialRecord](ctx, d.o.Store, key)
	if err != nil {
		return err
	}
	var b store.Batch
	b.Expect(key, revision)
	if err := edit(&b, r); err != nil {
		return err
	}
	value, err := r.encode()
	if err != nil {
		return err
	}
	b.Put(key, value)
	return d.apply(ctx, &b)
}

// RotateCredential replaces the secret of a password or key. The old one is good for keep longer; 0 ends it, and the
// sessions that it opened, at once. SCRAM knows only the newest secret. password is empty for a generated one. Errors:
// *InputError, ErrNotFound, ErrChanged.
func (d *Directory) RotateCredential(ctx context.Context, name, password string, keep time.Duration) (Created, error) {
	var out Created
	if keep < 0 || keep > 90*24*time.Hour {
		return out, invalid("keep_old_for", "the old secret can be kept for 0 to 90 days")
	}
	err := d.change(ctx, name, func(_ *store.Batch, r *credentialRecord) (err error) {
		if r.Kind != Password && r.Kind != Key {
			return invalid("kind", "a credential of kind %s has no secret here: rotate it where it comes from", r.Kind)
		}
		if password != "" && r.Kind != Password {
			return invalid("password", "a credential of kind %s has no password", r.Kind)
		}
		r.Secrets = r.Secrets[:min(len(r.Secrets), 1)]
		if keep == 0 {
			r.Secrets = nil
		}
		r.Rotated = now()
		for i := range r.Secrets {
			out.OldUntil = r.Rotated.Add(keep)
			r.Secrets[i].Expires = out.OldUntil
		}
		out.Secret, err = d.addSecret(ctx, r, password)
		out.Credential = r.Credential
		return err
	})
	return out, err
}

// RevokeCredential removes a credential for ever, with the sessions that it opened: they are refused at their next MAIL.
// Errors: ErrNotFound, ErrChanged.
func (d *Directory) RevokeCredential(ctx context.Context, name string) (Credential, error) {
	end, err := d.begin(ctx)
	if err != nil {
		return Credential{}, err
	}
	defer end()
	e := d.entry(name)
	if e == nil {
		return Credential{}, ErrNotFound
	}
	key := credentialPrefix + e.id
	r, revision, err := read[credentialRecord](ctx, d.o.Store, key)
	if err != nil {
		return Credential{}, err
	}
	var b store.Batch
	b.Expect(key, revision)
	b.Delete(key)
	b.Delete(usePrefix + e.id)
	for _, key := range r.bindings() {
		b.Delete(key)
	}
	if err := d.apply(ctx, &b); err != nil {
		return Credential{}, err
	}
	e.use.mu.Lock()
	defer e.use.mu.Unlock()
	var out []netip.Prefix
	for _, a := range e.use.addrs {
		out = append(out, a.Addr)
	}
	e.use.addrs, e.use.dirty = nil, false
	d.guard.moved(nil, out)
	return r.Credential, nil
}

// checkCredential holds a credential to its rules and brings it into its normal form.
func (d *Directory) checkCredential(c *Credential) error {
	c.Login = loginForm(strings.TrimSpace(c.Login))
	if err := checkLogin(c.Login); err != nil {
		return err
	}
	if !slices.Contains(Kinds(), c.Kind) {
		return invalid("kind", "kind %q is not one of password, key, certificate, oauth", c.Kind)
	}
	for i, s := range c.Scopes {
		if !slices.Contains(Scopes(), s) {
			return invalid("scopes", "scope %q is not one of smtp, api, read, admin", s)
		}
		if slices.Contains(c.Scopes[:i], s) {
			return invalid("scopes", "scope %s is there twice", s)
		}
	}
	if len(c.Scopes) == 0 {
		return invalid("scopes", "a credential without a scope is good for nothing: give it one of smtp, api, read, admin, or disable it")
	}
	if c.Role != "" && !slices.Contains(Roles(), c.Role) {
		return invalid("role", "role %q is not one of viewer, operator, admin", c.Role)
	}
	if c.AllTenants && c.Role == "" {
		return invalid("all_tenants", "a role for all tenants needs a role: viewer, operator or admin")
	}
	if len(c.Networks) > maxNetworks {
		return invalid("networks", "more than %d networks", maxNetworks)
	}
	for i, n := range c.Networks {
		if !n.IsValid() || n.Addr().Is4In6() {
			return invalid("networks", "%s is no network such as 192.0.2.0/24 or 2001:db8::/32", n)
		}
		c.Networks[i] = n.Masked()
	}
	if err := errors.Join(checkText("note", c.Note), checkLimits(c.Limits), checkProof(c, d.issuers.Load())); err != nil {
		return err
	}
	if !c.Expires.IsZero() {
		c.Expires = c.Expires.UTC().Truncate(time.Second)
	}
	return checkSenders(c)
}

// checkProof checks what a certificate or token is known by.
func checkProof(c *Credential, known *issuers) error {
	if c.Kind == Certificate {
		name, ok := certificateName(c.Name)
		if !ok {
			return invalid("certificate_name", "certificate name %q: write a DNS name, e-mail address, IP address or URI as it stands among "+
				"the certificate's subject alternative names", c.Name)
		}
		c.Name = name
	} else if c.Name != "" {
		return invalid("certificate_name", "only a credential of kind certificate has a certificate name")
	}
	switch {
	case c.Kind != OAuth && (c.Issuer != "" || c.Subject != ""):
		return invalid("issuer", "only a credential of kind oauth has an issuer and a subject")
	case c.Kind == OAuth && !known.named(c.Issuer):
		return invalid("issuer", "no issuer %q: it is the name of one in auth.oauth of the configuration", c.Issuer)
	case c.Kind == OAuth && (len(c.Subject) > 255 || checkText("subject", c.Subject) != nil):
		return invalid("subject", "a subject has at most 255 octets and no control characters")
	}
	return nil
}

// checkSenders brings senders into normal form: domains in A-labels, local parts as they are.
func checkSenders(c *Credential) error {
	if len(c.Senders) > maxSenders {
		return invalid("senders", "more than %d senders", maxSenders)
	}
	for i, s := range c.Senders {
		at := strings.LastIndexByte(s, '@')
		local, domain := "", s
		switch {
		case at == 0: // "@example.com" is a domain too
			domain = s[1:]
		case at > 0:
			p, err := smtp.ParseMailbox(s)
			if err != nil {
				return invalid("senders", "sender %q is neither a domain such as example.com nor an address such as news@example.com", s)
			}
			local, domain = p.Local, p.Domain
		}
		ascii, err := smtp.DomainToASCII(domain)
		if err != nil || strings.HasPrefix(ascii, "[") {
			return invalid("senders", "sender %q is neither a domain such as example.com nor an address such as news@example.com", s)
		}
		c.Senders[i] = ascii
		if local != "" {
			c.Senders[i] = local + "@" + ascii
		}
	}
	return nil
}

// checkLogin holds a user name to letters, digits and what e-mail addresses have besides.
func checkLogin(s string) error {
	ok := s != "" && len(s) <= maxLogin && s != anyLogin
	for _, r := range s {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9', strings.ContainsRune("._-@+", r), r >= 0x80 && r != 0xfffd:
		default:
			ok = false
		}
	}
	if !ok {
		return invalid("login", "name %q: use 1 to %d lower-case letters, digits, and . _ - @ +, but not %q", s, maxLogin, anyLogin)
	}
	return nil
}
