// Package store keeps what the operator manages: credentials, domains, keys, suppressions, warm-up state, the audit
// chain. It is ordered keys with atomic, synchronous batches and watches; mail itself is in the journal.
//
//	s, err := store.Open(store.Options{Dir: "/var/lib/godwit/store"})
//	var b store.Batch
//	b.Expect("domain/example.com", 0)             // only if it does not exist yet
//	b.Put("domain/example.com", value)
//	rev, err := s.Apply(ctx, &b)                  // err == nil: on stable storage; ErrConflict: somebody was first
//	for change, err := range s.Watch(ctx, "domain/") { ... }
//
// Each applied batch has a revision, one higher than the one before; a key carries the revision that wrote it. With
// Expect a batch is applied only if the keys it was computed from are unchanged.
//
// [Store] is the contract, so that a replicated store can take its place; [DB] is the engine on one machine, over
// Pebble. Package storetest holds what every engine must pass, power cuts and failing disks included.
package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
)

// Store is an ordered set of keys. All methods may be called from many goroutines.
//
// What a crash leaves behind, at any moment: every batch whose Apply returned nil, whole; the one under way, if any,
// whole or not at all.
type Store interface {
	// Get returns the pair of key, or ErrNotFound.
	Get(ctx context.Context, key string) (KV, error)

	// Scan yields the pairs whose keys begin with prefix, in the order of their octets, as they were at one moment.
	// Changes meanwhile are not seen. After an error it ends.
	Scan(ctx context.Context, prefix string) iter.Seq2[KV, error]

	// Apply writes all of b or nothing and returns when that is durable. Of several operations on one key the last
	// counts. The slices of b are only read, and not kept. Errors: ErrConflict (as *ConflictError), ErrTooLarge,
	// ErrFailed, ErrClosed, that of ctx (nothing was written). After ErrFailed a restart may find the whole batch or
	// nothing of it.
	Apply(ctx context.Context, b *Batch) (revision uint64, err error)

	// Watch yields a Change for each pair under prefix there is, then one with Current set, then one for each later
	// change when it is durable, in the order of revisions. A watcher that is slower than the changes of a key sees
	// only the latest. It ends with ctx, without an error, or with ErrFailed or ErrClosed.
	Watch(ctx context.Context, prefix string) iter.Seq2[Change, error]

	// Revision returns that of the last durable batch; 0 is before the first.
	Revision() uint64

	// Failed is closed when a write has failed. Nothing is taken or told any more; Err says why.
	Failed() <-chan struct{}
	Err() error

	Close() error
}

// KV is a pair. Value is the caller's own.
type KV struct {
	Key      string
	Value    []byte
	Revision uint64 // of the batch that wrote it
}

// Change is what a watch tells.
type Change struct {
	KV
	Deleted bool // the key is gone; Value is nil
	Current bool // no key: all that existed when the watch began has been told; Revision says as of when
}

// Limits of keys, values and batches. They are those a replicated engine can keep.
const (
	MaxKey   = 1 << 10 // octets
	MaxValue = 1 << 20 // octets
	MaxBatch = 8 << 20 // octets of keys and values
	MaxOps   = 10_000
)

// What callers branch on.
var (
	ErrNotFound = errors.New("no such key")
	ErrConflict = errors.New("key was changed by somebody else")
	ErrTooLarge = errors.New("key, value or batch is too large")
	ErrFailed   = errors.New("store has failed")
	ErrClosed   = errors.New("store is closed")
	ErrLocked   = errors.New("store is in use")
)

// ConflictError says which expectation did not hold. It is an ErrConflict.
type ConflictError struct {
	Key        string
	Want, Have uint64 // revisions; 0: no such key
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("key %q has revision %d, not %d: %v", e.Key, e.Have, e.Want, ErrConflict)
}

// Unwrap returns ErrConflict.
func (e *ConflictError) Unwrap() error { return ErrConflict }

// Batch is a set of operations that take effect together. Its zero value is empty; [Batch.Reset] makes it so again.
type Batch struct {
	ops     []op
	expects []expect
	size    int
}

type op struct {
	key    string
	value  []byte
	delete bool
}

type expect struct {
	key      string
	revision uint64
}

// Put sets key to value, which must not change until Apply has returned.
func (b *Batch) Put(key string, value []byte) {
	b.ops = append(b.ops, op{key: key, value: value})
	b.size += len(key) + len(value)
}

// Delete removes key, if it exists.
func (b *Batch) Delete(key string) {
	b.ops = append(b.ops, op{key: key, delete: true})
	b.size += len(key)
}

// Expect makes the batch conditional on key having revision, 0 for not existing, before the batch.
func (b *Batch) Expect(key string, revision uint64) {
	b.expects = append(b.expects, expect{key: key, revision: revision})
}

// Reset empties b and keeps its memory.
func (b *Batch) Reset() {
	clear(b.ops)
	clear(b.expects)
	b.ops, b.expects, b.size = b.ops[:0], b.expects[:0], 0
}

// Operation is one step of a batch, as an engine sees it.
type Operation struct {
	Key    string
	Value  []byte
	Delete bool
}

// Operations yields the operations in the order they were added.
func (b *Batch) Operations() iter.Seq[Operation] {
	return func(yield func(Operation) bool) {
		for _, o := range b.ops {
			if !yield(Operation{Key: o.key, Value: o.value, Delete: o.delete}) {
				return
			}
		}
	}
}

// Expectations yields the keys and revisions that the batch depends on.
func (b *Batch) Expectations() iter.Seq2[string, uint64] {
	return func(yield func(string, uint64) bool) {
		for _, e := range b.expects {
			if !yield(e.key, e.revision) {
				return
			}
		}
	}
}

// Check says what of b exceeds the limits.
func (b *Batch) Check() error {
	if n := len(b.ops) + len(b.expects); n > MaxOps {
		return fmt.Errorf("%w: %d operations, at most %d", ErrTooLarge, n, MaxOps)
	}
	if b.size > MaxBatch {
		return fmt.Errorf("%w: batch of %d octets, at most %d", ErrTooLarge, b.size, MaxBatch)
	}
	for _, o := range b.ops {
		if len(o.key) > MaxKey || len(o.key) == 0 {
			return fmt.Errorf("%w: key of %d octets, from 1 to %d", ErrTooLarge, len(o.key), MaxKey)
		}
		if len(o.value) > MaxValue {
			return fmt.Errorf("%w: value of %d octets, at most %d", ErrTooLarge, len(o.value), MaxValue)
		}
	}
	return nil
}
