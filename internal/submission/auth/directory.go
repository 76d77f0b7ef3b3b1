package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godwit-mta/godwit/internal/store"
	"github.com/godwit-mta/godwit/smtp"
)

// DefaultTenant exists without being made.
const DefaultTenant = "default"

// Directory knows tenants, domains and credentials. It is safe for concurrent use; Run only once.
type Directory struct {
	o       Options
	metrics *metrics
	state   *state
	guard   *guard
	gate    *gate
	known   *known
	salt    []byte        // of names that do not exist
	decoy   *argon2Params // what passwords of names that do not exist are checked against
	issuers atomic.Pointer[issuers]

	writing chan struct{} // one slot: who changes something
	flushes sync.Mutex    // who writes last uses
}

// New reads what the store holds and checks the options. It starts nothing: until [Directory.Run] is called, changes
// that others make in the store are not seen.
func New(o Options) (*Directory, error) {
	o, err := o.filled()
	if err != nil {
		return nil, err
	}
	d := &Directory{
		o: o, state: newState(), guard: newGuard(o.Budgets), gate: newGate(o.Hashers, o.HashQueue, o.HashWait),
		writing: make(chan struct{}, 1),
	}
	if d.metrics, err = newMetrics(o.Registerer, d); err != nil {
		return nil, fmt.Errorf("auth metrics: %w", err)
	}
	if d.known, err = newKnown(o.Rand, o.CacheEntries, o.CacheTime); err != nil {
		return nil, fmt.Errorf("auth: random numbers: %w", err)
	}
	if err := d.SetConfigured(o.Configured); err != nil {
		return nil, err
	}
	if err := d.SetIssuers(o.Issuers); err != nil {
		return nil, err
	}
	return d, d.load(context.Background())
}

func (d *Directory) load(ctx context.Context) error {
	kv, err := d.o.Store.Get(ctx, saltKey)
	if errors.Is(err, store.ErrNotFound) {
		kv.Value, err = d.makeSalt(ctx)
	}
	if err != nil {
		return fmt.Errorf("auth: read salt: %w", err)
	}
	d.salt = kv.Value
	if d.decoy, err = newArgon2(d.o.Rand, "no password", d.o.Cost); err != nil {
		return fmt.Errorf("auth: random numbers: %w", err)
	}
	d.decoy.hash = make([]byte, hashSize) // nothing hashes to that
	for _, prefix := range []string{tenantPrefix, domainPrefix, credentialPrefix} {
		for kv, err := range d.o.Store.Scan(ctx, prefix) {
			if err != nil {
				return fmt.Errorf("auth: read %s: %w", prefix, err)
			}
			d.learn(kv.Key, kv.Value, kv.Revision, false)
		}
	}
	for kv, err := range d.o.Store.Scan(ctx, usePrefix) {
		if err != nil {
			return fmt.Errorf("auth: read %s: %w", usePrefix, err)
		}
		d.learnUse(kv.Key[len(usePrefix):], kv.Value)
	}
	return nil
}

func (d *Directory) makeSalt(ctx context.Context) ([]byte, error) {
	salt, err := random(d.o.Rand, 32)
	if err != nil {
		return nil, err
	}
	var b store.Batch
	b.Expect(saltKey, 0)
	b.Put(saltKey, salt)
	_, err = d.o.Store.Apply(ctx, &b)
	if errors.Is(err, store.ErrConflict) { // another node was first
		kv, err := d.o.Store.Get(ctx, saltKey)
		return kv.Value, err
	}
	return salt, err
}

// learn takes a pair over. What cannot be read counts as absent, so that a damaged record lets nobody in.
func (d *Directory) learn(key string, value []byte, revision uint64, fromWatch bool) {
	d.readable(key, d.state.learn(key, value, revision, fromWatch))
}

func (d *Directory) readable(key string, err error) {
	if err != nil {
		d.metrics.unreadable.Inc()
		d.o.Logger.Error("record not readable, it counts as absent", "key", key, "error", err)
	}
}

func (d *Directory) learnUse(id string, value []byte) {
	e := d.state.credential(id)
	var r useRecord
	if e == nil || json.Unmarshal(value, &r) != nil {
		return // of a credential that is gone, or worth nothing
	}
	e.use.mu.Lock()
	defer e.use.mu.Unlock()
	e.use.last, e.use.addrs = r.Last, r.Addrs[:min(len(r.Addrs), maxAddrs)]
	now := time.Now()
	in := make([]netip.Prefix, 0, len(e.use.addrs))
	e.use.addrs = slices.DeleteFunc(e.use.addrs, func(a usedAddr) bool { return now.Sub(a.Last) >= d.o.Budgets.AtHome })
	for _, a := range e.use.addrs {
		in = append(in, a.Addr)
	}
	d.guard.moved(in, nil)
}

// SetConfigured replaces what the configuration says of tenants. On an error everything stays as it was.
func (d *Directory) SetConfigured(list []ConfiguredTenant) error {
	configured, assigned := make(map[string]ConfiguredTenant, len(list)), make(map[string][]string)
	for _, t := range list {
		if !isID(t.ID) {
			return invalid("tenants", "tenant %q: an id has lower-case letters, digits, hyphens, dots and underscores only", t.ID)
		}
		configured[t.ID] = t
		for _, name := range t.Domains {
			below, star := strings.CutPrefix(name, "*.")
			ascii, err := smtp.DomainToASCII(below)
			if err != nil || strings.HasPrefix(ascii, "[") {
				return invalid("tenants", "tenant %s: %q is no domain name", t.ID, name)
			}
			if star {
				ascii = "*." + ascii
			}
			assigned[ascii] = append(assigned[ascii], t.ID)
		}
	}
	s := d.state
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.configured
	s.configured, s.assigned = configured, assigned
	for id := range configured {
		s.tenantLocked(id)
	}
	for id, e := range s.tenants {
		_, is := configured[id]
		_, was := old[id]
		if !is && !was {
			continue
		}
		if e.record != nil || s.revisions[tenantPrefix+id] == 0 { // else its record cannot be read
			s.joinTenantLocked(e)
		}
	}
	return nil
}

// Run follows the store, writes last uses, tells of bans and looks at proofs of domains again, until ctx ends. It returns
// an error if the store fails.
func (d *Directory) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, prefix := range []string{tenantPrefix, domainPrefix, credentialPrefix} {
		wg.Go(func() {
			if err := d.follow(ctx, prefix); err != nil {
				cancel(err)
			}
		})
	}
	wg.Go(func() { d.tellBans(ctx) })
	wg.Go(func() { d.keepUses(ctx) })
	wg.Go(func() { d.recheckDomains(ctx) })
	wg.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// follow takes changes of the store over.
func (d *Directory) follow(ctx context.Context, prefix string) error {
	seen := make(map[string]bool)
	for c, err := range d.o.Store.Watch(ctx, prefix) {
		switch {
		case err != nil:
			return fmt.Errorf("auth: follow %s: %w", prefix, err)
		case c.Current: // what was read before and is not there was deleted in between
			for _, key := range d.state.known(prefix) {
				if !seen[key] {
					d.readable(key, d.state.forget(key, c.Revision))
				}
			}
			seen = nil
		case c.Deleted:
			d.learn(c.Key, nil, c.Revision, true)
		default:
			if seen != nil {
				seen[c.Key] = true
			}
			d.learn(c.Key, c.Value, c.Revision, true)
		}
	}
	return nil
}

func (d *Directory) tellBans(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case b := <-d.guard.told:
			d.metrics.bans.WithLabelValues(string(b.Kind)).Inc()
			if b.Tenant == "" {
				b.Login = "" // nobody's name: people type passwords there
			}
			d.o.Logger.Warn("banned after too many failed logins", "kind", string(b.Kind), "address", prefixText(b.Address),
				"login", b.Login, "tenant", b.Tenant, "until", b.Until)
			d.o.Banned(ctx, b)
		}
	}
}

// begin waits until nobody else changes anything.
func (d *Directory) begin(ctx context.Context) (end func(), err error) {
	select {
	case d.writing <- struct{}{}:
		return func() { <-d.writing }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// apply writes a batch and takes it over, so that it holds when apply returns.
func (d *Directory) apply(ctx context.Context, b *store.Batch) error {
	revision, err := d.o.Store.Apply(ctx, b)
	if errors.Is(err, store.ErrConflict) {
		return ErrChanged
	}
	if err != nil {
		return err
	}
	for op := range b.Operations() {
		if strings.HasPrefix(op.Key, tenantPrefix) || strings.HasPrefix(op.Key, domainPrefix) || strings.HasPrefix(op.Key, credentialPrefix) {
			d.learn(op.Key, op.Value, revision, false)
		}
	}
	return nil
}

// read gets and decodes a record.
func read[T any](ctx context.Context, s store.Store, key string) (*T, uint64, error) {
	kv, err := s.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return nil, 0, ErrNotFound
	}
	if err != nil {
		return nil, 0, err
	}
	v := new(T)
	if err := json.Unmarshal(kv.Value, v); err != nil {
		return nil, 0, fmt.Errorf("decode %s: %w", key, err)
	}
	return v, kv.Revision, nil
}

func prefixText(p netip.Prefix) string {
	switch {
	case !p.IsValid():
		return ""
	case p.IsSingleIP():
		return p.Addr().String()
	}
	return p.String()
}
