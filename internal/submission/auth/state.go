package auth

import (
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// state is all tenants, domains and credentials in memory.
type state struct {
	mu sync.RWMutex

	tenants     map[string]*tenantEntry
	credentials map[string]*credentialEntry
	logins      map[string]*credentialEntry
	names       map[string]*credentialEntry // of certificates
	subjects    map[string]*credentialEntry // of tokens: issuer, NUL, subject
	domains     map[string][]*Domain        // claims by domain
	configured  map[string]ConfiguredTenant
	assigned    map[string][]string // domain to tenants, by the configuration

	// revisions says which revision of a key is known, so that what comes twice, from whoever made the change and from
	// the watch, counts once. A deleted key stays until the watch has told of it.
	revisions map[string]uint64
}

// tenantEntry outlives changes of its tenant: who holds one sees the current state.
type tenantEntry struct {
	id      string
	current atomic.Pointer[Tenant] // nil: there is none
	record  *Tenant                // as the store has it; nil: it does not
}

// credentialEntry outlives changes of its credential.
type credentialEntry struct {
	id      string
	current atomic.Pointer[credentialRecord] // nil: revoked
	use     use
}

// use is when and whence a credential came in.
type use struct {
	mu    sync.Mutex
	last  time.Time
	addrs []usedAddr // the latest first
	dirty bool
}

const maxAddrs = 16 // homes kept for one credential

func newState() *state {
	return &state{
		tenants: make(map[string]*tenantEntry), credentials: make(map[string]*credentialEntry),
		logins: make(map[string]*credentialEntry), names: make(map[string]*credentialEntry),
		subjects: make(map[string]*credentialEntry), domains: make(map[string][]*Domain),
		configured: make(map[string]ConfiguredTenant), assigned: make(map[string][]string),
		revisions: make(map[string]uint64),
	}
}

// errOtherKey says that a key is none of ours.
var errOtherKey = errors.New("not a key of this package")

// learn takes one pair of the store over, or its deletion if value is nil. What is older than what is known is left
// alone. On an error the record counts as absent.
func (s *state) learn(key string, value []byte, revision uint64, fromWatch bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.revisions[key]
	if revision > known {
		s.revisions[key] = revision
	}
	if value == nil && fromWatch && revision >= known {
		delete(s.revisions, key) // nothing older is told from now on
	}
	if revision <= known {
		return nil
	}
	return s.takeLocked(key, value)
}

// forget takes note that a key which was read before is not there any more, if nothing newer is known of it.
func (s *state) forget(key string, revision uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, ok := s.revisions[key]; !ok || known > revision {
		return nil
	}
	delete(s.revisions, key)
	return s.takeLocked(key, nil)
}

func (s *state) takeLocked(key string, value []byte) error {
	switch {
	case strings.HasPrefix(key, tenantPrefix):
		return s.learnTenantLocked(key[len(tenantPrefix):], value)
	case strings.HasPrefix(key, credentialPrefix):
		return s.learnCredentialLocked(key[len(credentialPrefix):], value)
	case strings.HasPrefix(key, domainPrefix):
		return s.learnDomainLocked(key[len(domainPrefix):], value)
	}
	return errOtherKey
}

// known returns the keys under a prefix that something is known of.
func (s *state) known(prefix string) []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var keys []string
	for k := range s.revisions {
		if strings.HasPrefix(k, prefix) {
			keys = append(keys, k)
		}
	}
	return keys
}

func (s *state) tenantLocked(id string) *tenantEntry {
	e := s.tenants[id]
	if e == nil {
		e = &tenantEntry{id: id}
		s.joinTenantLocked(e)
		s.tenants[id] = e
	}
	return e
}

// joinTenantLocked makes a tenant what record and configuration say. The configuration decides; a record adds that the tenant
// was disabled at run time.
func (s *state) joinTenantLocked(e *tenantEntry) {
	if e.record == nil {
		e.current.Store(s.implicitTenantLocked(e.id))
		return
	}
	t := *e.record
	if c, ok := s.configured[e.id]; ok {
		t.Name, t.Limits, t.TLS, t.Disabled = c.Name, nil, c.TLS, t.Disabled || c.Disabled
	}
	e.current.Store(&t)
}

// implicitTenantLocked returns a tenant that exists without a record: the default one, and those of the configuration.
func (s *state) implicitTenantLocked(id string) *Tenant {
	if c, ok := s.configured[id]; ok {
		return &Tenant{ID: id, Name: c.Name, TLS: c.TLS, Disabled: c.Disabled}
	}
	if id == DefaultTenant {
		return &Tenant{ID: id}
	}
	return nil
}

func (s *state) learnTenantLocked(id string, value []byte) error {
	e := s.tenantLocked(id)
	e.record = nil
	if value != nil {
		e.record = new(Tenant)
		if err := json.Unmarshal(value, e.record); err != nil {
			e.record = nil
			e.current.Store(nil)
			return err
		}
	}
	s.joinTenantLocked(e)
	return nil
}

func (s *state) learnCredentialLocked(id string, value []byte) error {
	e := s.credentials[id]
	if e != nil {
		s.unindexLocked(e)
	}
	if value == nil {
		if e != nil {
			e.current.Store(nil)
			delete(s.credentials, id)
		}
		return nil
	}
	r, err := decodeCredential(value)
	if err == nil && r.ID != id {
		err = errors.New("credential under the key of another one")
	}
	if err != nil {
		if e != nil {
			e.current.Store(nil)
		}
		return err
	}
	if e == nil {
		e = &credentialEntry{id: id}
		s.credentials[id] = e
	}
	s.tenantLocked(r.Tenant)
	e.current.Store(r)
	s.logins[r.Login] = e
	if r.Name != "" {
		s.names[r.Name] = e
	}
	if r.Subject != "" {
		s.subjects[r.Issuer+"\x00"+r.Subject] = e
	}
	return nil
}

func (s *state) unindexLocked(e *credentialEntry) {
	r := e.current.Load()
	if r == nil {
		return
	}
	for index, key := range map[*map[string]*credentialEntry]string{
		&s.logins: r.Login, &s.names: r.Name, &s.subjects: r.Issuer + "\x00" + r.Subject,
	} {
		if (*index)[key] == e {
			delete(*index, key)
		}
	}
}

func (s *state) learnDomainLocked(rest string, value []byte) error {
	name, tenant, ok := strings.Cut(rest, "/")
	if !ok {
		return errors.New("key of a domain without tenant")
	}
	// A new slice each time: readers hold the old one.
	claims := slices.DeleteFunc(slices.Clone(s.domains[name]), func(d *Domain) bool { return d.Tenant == tenant })
	var err error
	if value != nil {
		d := new(Domain)
		if err = json.Unmarshal(value, d); err == nil {
			if d.Name != name || d.Tenant != tenant {
				err = errors.New("domain under the key of another one")
			} else {
				claims = append(claims, d)
			}
		}
	}
	if len(claims) == 0 {
		delete(s.domains, name)
	} else {
		s.domains[name] = claims
	}
	return err
}

func (s *state) credential(id string) *credentialEntry {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.credentials[id]
}

func (s *state) login(name string) *credentialEntry {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.logins[name]
}

func (s *state) certificate(name string) *credentialEntry {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.names[name]
}

func (s *state) subject(issuer, subject string) *credentialEntry {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.subjects[issuer+"\x00"+subject]
}

// tenant returns the entry of a tenant; nil if there never was one.
func (s *state) tenant(id string) *tenantEntry {
	s.mu.RLock()
	e := s.tenants[id]
	s.mu.RUnlock()
	if e != nil {
		return e
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.implicitTenantLocked(id) == nil {
		return nil
	}
	return s.tenantLocked(id)
}

func (s *state) credentialCount() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.credentials)
}

// owns reports whether the tenant may send from a domain in A-labels: it, or a domain that it is below, is the tenant's.
// Nothing is allocated: it is asked for each message.
func (s *state) owns(tenant, domain string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for name, exact := domain, true; ; exact = false {
		for _, d := range s.domains[name] {
			if d.Tenant == tenant && d.Usable() && (exact || !d.Exact) {
				return true
			}
		}
		if exact && slices.Contains(s.assigned[name], tenant) || !exact && slices.Contains(s.assigned["*."+name], tenant) {
			return true
		}
		dot := strings.IndexByte(name, '.')
		if dot < 0 {
			return false
		}
		name = name[dot+1:]
	}
}

// home reports whether addr is one whence the credential came in lately.
func (u *use) home(addr netip.Prefix, within time.Duration) bool {
	now := time.Now()
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, a := range u.addrs {
		if a.Addr == addr {
			return now.Sub(a.Last) < within
		}
	}
	return false
}

// note remembers that the credential came in, and returns the addresses that have become its home and that no longer are.
func (u *use) note(addr netip.Prefix) (in, out []netip.Prefix) {
	now := time.Now()
	u.mu.Lock()
	defer u.mu.Unlock()
	u.last, u.dirty = now, true
	i := slices.IndexFunc(u.addrs, func(a usedAddr) bool { return a.Addr == addr })
	switch {
	case i >= 0:
		copy(u.addrs[1:i+1], u.addrs[:i])
	case len(u.addrs) < maxAddrs:
		u.addrs = slices.Insert(u.addrs, 0, usedAddr{})
		in = append(in, addr)
	default:
		in, out = append(in, addr), append(out, u.addrs[maxAddrs-1].Addr)
		copy(u.addrs[1:], u.addrs[:maxAddrs-1])
	}
	u.addrs[0] = usedAddr{Addr: addr, Last: now}
	return in, out
}
