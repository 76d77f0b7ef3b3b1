package reports

import (
	"context"
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/godwit-mta/godwit/internal/store"
)

// memory is a store. That on a disk has tickers, which days of fake time make dear.
type memory struct {
	store.Store // what is not used
	mu          sync.Mutex
	pairs       map[string]store.KV
	revision    uint64
	failure     error // of the next writes
}

func (m *memory) Get(_ context.Context, key string) (store.KV, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	kv, ok := m.pairs[key]
	if !ok {
		return kv, store.ErrNotFound
	}
	return kv, nil
}

func (m *memory) Scan(_ context.Context, prefix string) iter.Seq2[store.KV, error] {
	return func(yield func(store.KV, error) bool) {
		m.mu.Lock()
		var list []store.KV
		for key, kv := range m.pairs {
			if strings.HasPrefix(key, prefix) {
				list = append(list, kv)
			}
		}
		m.mu.Unlock()
		slices.SortFunc(list, func(a, b store.KV) int { return strings.Compare(a.Key, b.Key) })
		for _, kv := range list {
			if !yield(kv, nil) {
				return
			}
		}
	}
}

func (m *memory) Apply(ctx context.Context, b *store.Batch) (uint64, error) {
	if err := b.Check(); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failure != nil {
		return 0, m.failure
	}
	for key, want := range b.Expectations() {
		if have := m.pairs[key].Revision; have != want {
			return 0, &store.ConflictError{Key: key, Want: want, Have: have}
		}
	}
	m.revision++
	for op := range b.Operations() {
		if op.Delete {
			delete(m.pairs, op.Key)
			continue
		}
		m.pairs[op.Key] = store.KV{Key: op.Key, Value: slices.Clone(op.Value), Revision: m.revision}
	}
	return m.revision, ctx.Err()
}

func (m *memory) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failure = err
}
