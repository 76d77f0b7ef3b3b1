package tlspolicy

import (
	"context"
	"crypto/x509"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/godwit-mta/godwit/internal/store"
)

// Short words for tests.
type (
	x509Certificate = x509.Certificate
	x509ExtKeyUsage = x509.ExtKeyUsage
)

const x509ClientAuth = x509.ExtKeyUsageClientAuth

// keptStore is a store in memory, without revisions and watches, for fake time: the real one has goroutines of its own.
type keptStore struct {
	store.Store
	mu  sync.Mutex
	all map[string][]byte
	err error
}

func newKept() *keptStore { return &keptStore{all: map[string][]byte{}} }

func (s *keptStore) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}

func (s *keptStore) Scan(_ context.Context, prefix string) iter.Seq2[store.KV, error] {
	s.mu.Lock()
	all := maps.Clone(s.all)
	s.mu.Unlock()
	return func(yield func(store.KV, error) bool) {
		for _, k := range slices.Sorted(maps.Keys(all)) {
			if strings.HasPrefix(k, prefix) && !yield(store.KV{Key: k, Value: all[k]}, nil) {
				return
			}
		}
	}
}

func (s *keptStore) Apply(_ context.Context, b *store.Batch) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	for op := range b.Operations() {
		if op.Delete {
			delete(s.all, op.Key)
			continue
		}
		s.all[op.Key] = slices.Clone(op.Value)
	}
	return 1, nil
}
