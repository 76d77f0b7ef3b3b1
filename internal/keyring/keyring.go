package keyring

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/godwit-mta/godwit/internal/store"
)

// Keys in the store. A change of what is behind them is a change of the format on disk.
const (
	prefix     = "dkim/"      // + domain + "/" + selector
	seenPrefix = "dkim-seen/" // the same, for what DNS said of the configuration's keys
)

// Errors that callers branch on. The first two are those of Keys.
var (
	// ErrHeld: the domain has keys, and none may sign now.
	ErrHeld = errors.New("keyring: DNS does not show the record of any key of the domain")
	// ErrNone: neither the domain nor one above it has a key that may sign for the tenant.
	ErrNone = errors.New("keyring: there is no key for the domain")

	ErrNotFound = errors.New("keyring: no such key")
	ErrExists   = errors.New("keyring: there is such a key already")
	ErrChanged  = errors.New("keyring: the key was changed by somebody else at this moment")
)

// InputError says what of a request cannot be.
type InputError struct {
	Field string
	Text  string
}

func (e *InputError) Error() string { return "keyring: " + e.Text }

// PublishError says why a record could not be written. Its text is for the operator.
type PublishError struct {
	Name string // of the record
	Text string // what the name server or its interface said
}

func (e *PublishError) Error() string { return e.Name + ": " + e.Text }

func invalid(field, format string, args ...any) error {
	return &InputError{Field: field, Text: fmt.Sprintf(format, args...)}
}

// Keyring keeps keys. It is safe for concurrent use.
type Keyring struct {
	o       Options
	metrics *metrics
	now     atomic.Pointer[snapshot] // what Keys goes by

	seed maphash.Seed

	writing chan struct{} // one slot: who changes something
	kick    chan struct{} // there is something to be done at once

	mu struct {
		sync.RWMutex
		settings Settings
		records  map[string]*record // by name; those of the configuration too
		seen     map[string]*record // by name: what the store has of keys of the configuration, these or earlier ones
		signers  map[string]signer  // by identity
		gone     map[string]uint64  // keys of the store that were removed here, and when, until the watch tells
	}
}

// New reads what the store holds, and the files of the configuration's keys. It starts nothing and asks nobody: until
// [Keyring.Run] is called nothing is checked.
func New(o Options) (*Keyring, error) {
	o, err := o.filled()
	if err != nil {
		return nil, err
	}
	k := &Keyring{o: o, seed: maphash.MakeSeed(), writing: make(chan struct{}, 1), kick: make(chan struct{}, 1)}
	k.mu.records, k.mu.seen = make(map[string]*record), make(map[string]*record)
	k.mu.signers, k.mu.gone = make(map[string]signer), make(map[string]uint64)
	if k.metrics, err = newMetrics(k, o.Registerer); err != nil {
		return nil, fmt.Errorf("keyring: metrics: %w", err)
	}
	for _, p := range []string{prefix, seenPrefix} {
		for kv, err := range o.Store.Scan(context.Background(), p) {
			if err != nil {
				return nil, fmt.Errorf("keyring: read keys: %w", err)
			}
			k.learn(kv.Key, kv.Value, kv.Revision)
		}
	}
	return k, k.SetSettings(o.Settings)
}

// SetSettings takes over another configuration. If a key of it cannot be read everything stays as it was.
func (k *Keyring) SetSettings(s Settings) error {
	s, err := s.filled()
	if err != nil {
		return err
	}
	static, err := k.openStatic(s.Static)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for name, r := range static {
		if old := k.mu.records[name]; old != nil && !old.Static {
			return fmt.Errorf("dkim key %s of %s is among the keys that the server keeps too: remove it there, or from the configuration",
				r.Selector, r.Domain)
		}
		static[name] = k.recallLocked(r)
	}
	for name, r := range k.mu.records {
		if r.Static && static[name] == nil {
			k.o.Logger.Info("key left the configuration; its record is needed until what it signed has been delivered",
				"domain", r.Domain, "selector", r.Selector)
			delete(k.mu.records, name)
		}
	}
	maps.Copy(k.mu.records, static)
	clear(k.mu.signers) // they may expire otherwise now
	k.mu.settings = s
	k.rebuildLocked()
	k.wake()
	return nil
}

// wake lets Run look at once what is to be done.
func (k *Keyring) wake() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// recallLocked adds to a key of the configuration what DNS said of it.
func (k *Keyring) recallLocked(r *record) *record {
	seen := k.mu.seen[r.name()]
	if seen == nil {
		return r
	}
	n := *r
	if string(seen.Public) == string(r.Public) {
		n = *seen
		n.Tenant, n.static = r.Tenant, r.static
	}
	n.revision = seen.revision
	return &n
}

// learn takes over a pair of the store, or its deletion if value is nil, if it is newer than what is known. What cannot be read
// counts as absent: a key that nobody understands signs nothing. It returns whether that can change which keys sign.
func (k *Keyring) learn(key string, value []byte, revision uint64) bool {
	name, static := strings.CutPrefix(key, seenPrefix)
	if !static {
		name = strings.TrimPrefix(key, prefix)
	}
	var r *record
	if value != nil {
		r = new(record)
		if err := json.Unmarshal(value, r); err != nil || r.name() != name || r.Static != static {
			k.o.Logger.Error("the record of a DKIM key cannot be read, it counts as absent", "key", key)
			r = nil
		} else {
			r.revision = revision
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if revision <= k.mu.gone[key] { // what was there before it was removed
		if value == nil {
			delete(k.mu.gone, key)
		}
		return false
	}
	known := k.mu.records[name]
	switch {
	case static:
		return k.learnSeenLocked(name, r, revision)
	case known != nil && (known.Static || known.revision >= revision):
		return false
	case r == nil:
		delete(k.mu.records, name)
		return known != nil
	}
	k.mu.records[name] = r
	return known == nil || !r.signsAs(known)
}

// learnSeenLocked takes over what DNS said of a key of the configuration; nil: that is forgotten.
func (k *Keyring) learnSeenLocked(name string, r *record, revision uint64) bool {
	if old := k.mu.seen[name]; old != nil && old.revision >= revision {
		return false
	}
	delete(k.mu.seen, name)
	if r != nil {
		k.mu.seen[name] = r
	}
	known := k.mu.records[name]
	if known == nil || !known.Static {
		return false
	}
	fresh := &record{
		Domain: known.Domain, Selector: known.Selector, Tenant: known.Tenant, Algorithm: known.Algorithm, Bits: known.Bits,
		State: Signing, Static: true, Public: known.Public, static: known.static,
	}
	k.mu.records[name] = k.recallLocked(fresh)
	return !k.mu.records[name].signsAs(known)
}

// signsAs says that nothing differs between two records of one name that decides what signs.
func (r *record) signsAs(o *record) bool {
	return r.State == o.State && r.shown() == o.shown() && r.lane() == o.lane() && string(r.Public) == string(o.Public) &&
		r.Activated.Equal(o.Activated) && r.Created.Equal(o.Created)
}

// apply writes a batch and takes it over, so that it holds when apply returns.
func (k *Keyring) apply(ctx context.Context, b *store.Batch) error {
	revision, err := k.o.Store.Apply(ctx, b)
	if errors.Is(err, store.ErrConflict) {
		return ErrChanged
	}
	if err != nil {
		return err
	}
	matters := false
	for op := range b.Operations() {
		matters = k.learn(op.Key, op.Value, revision) || matters
		if op.Delete {
			k.mu.Lock()
			k.mu.gone[op.Key] = revision
			k.mu.Unlock()
		}
	}
	if matters {
		k.rebuild()
	}
	return nil
}

// put adds a record to a batch, in place of the one it was made from.
func put(b *store.Batch, r *record) error {
	value, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode key: %w", err)
	}
	b.Expect(r.key(), r.revision)
	b.Put(r.key(), value)
	return nil
}

// begin waits until nobody else changes anything.
func (k *Keyring) begin(ctx context.Context) (end func(), err error) {
	select {
	case k.writing <- struct{}{}:
		return func() { <-k.writing }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// get returns the record of a name, nil if there is none.
func (k *Keyring) get(name string) *record {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.mu.records[name]
}

func (k *Keyring) settings() Settings {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.mu.settings
}

// all returns all records, in no order.
func (k *Keyring) all() []*record {
	k.mu.RLock()
	defer k.mu.RUnlock()
	list := make([]*record, 0, len(k.mu.records))
	for _, r := range k.mu.records {
		list = append(list, r)
	}
	return list
}
