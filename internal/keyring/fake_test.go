package keyring

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godwit-mta/godwit/internal/store"
)

// zone is a DNS that a test writes into. What is written shows at each of its servers after that one's lag.
type zone struct {
	mu     sync.Mutex
	lags   []time.Duration // of its servers
	writes map[string][]write
	down   map[int]bool // servers that do not answer
	broken error        // of the publisher
	asked  int
}

type write struct {
	at   time.Time
	text string // empty: removed
}

func newZone(lags ...time.Duration) *zone {
	return &zone{lags: lags, writes: make(map[string][]write), down: make(map[int]bool)}
}

func (z *zone) Covers(string) bool { return true }

func (z *zone) SetTXT(_ context.Context, name, text string) error {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.broken == nil {
		z.writes[name] = append(z.writes[name], write{time.Now(), text})
	}
	return z.broken
}

func (z *zone) RemoveTXT(ctx context.Context, name string) error { return z.SetTXT(ctx, name, "") }

// server is one of the zone's.
type server struct {
	*zone
	at int
}

func (s server) TXT(_ context.Context, name string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if s.down[s.at] {
		return nil, errors.New("no answer")
	}
	var text string
	for _, w := range s.writes[name] {
		if time.Since(w.at) >= s.lags[s.at] {
			text = w.text
		}
	}
	if text == "" {
		return nil, nil
	}
	return []string{text}, nil
}

func (z *zone) set(down bool, at int) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.down[at] = down
}

func (z *zone) servers() []Viewpoint {
	var list []Viewpoint
	for i := range z.lags {
		list = append(list, Viewpoint{Name: string(rune('a' + i)), Resolver: server{z, i}})
	}
	return list
}

// memory is a store. That on a disk has tickers, which months of fake time make dear.
type memory struct {
	mu       sync.Mutex
	pairs    map[string]store.KV
	revision uint64
	changed  chan struct{}
	failure  error
}

func openStore(testing.TB) *memory {
	return &memory{pairs: make(map[string]store.KV), changed: make(chan struct{})}
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
		for _, kv := range list {
			if !yield(kv, nil) {
				return
			}
		}
	}
}

func (m *memory) Apply(_ context.Context, b *store.Batch) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failure != nil {
		return 0, m.failure
	}
	for key, want := range b.Expectations() {
		if m.pairs[key].Revision != want {
			return 0, &store.ConflictError{Key: key, Want: want, Have: m.pairs[key].Revision}
		}
	}
	m.revision++
	for op := range b.Operations() {
		if op.Delete {
			delete(m.pairs, op.Key)
		} else {
			m.pairs[op.Key] = store.KV{Key: op.Key, Value: slices.Clone(op.Value), Revision: m.revision}
		}
	}
	close(m.changed)
	m.changed = make(chan struct{})
	return m.revision, nil
}

func (m *memory) Watch(ctx context.Context, prefix string) iter.Seq2[store.Change, error] {
	return func(yield func(store.Change, error) bool) {
		told := make(map[string]uint64)
		for first := true; ; first = false {
			m.mu.Lock()
			now, changed := m.revision, m.changed
			var list []store.Change
			for key, kv := range m.pairs {
				if strings.HasPrefix(key, prefix) && told[key] != kv.Revision {
					told[key] = kv.Revision
					list = append(list, store.Change{KV: kv})
				}
			}
			for key := range told {
				if _, is := m.pairs[key]; !is {
					delete(told, key)
					list = append(list, store.Change{KV: store.KV{Key: key, Revision: now}, Deleted: true})
				}
			}
			m.mu.Unlock()
			if first {
				list = append(list, store.Change{Current: true, KV: store.KV{Revision: now}})
			}
			for _, c := range list {
				if !yield(c, nil) {
					return
				}
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}
}

func (m *memory) Revision() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.revision
}

func (m *memory) Failed() <-chan struct{} { return nil }
func (m *memory) Err() error              { return nil }
func (m *memory) Close() error            { return nil }

var _ store.Store = (*memory)(nil)
