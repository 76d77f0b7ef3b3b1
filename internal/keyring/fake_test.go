package keyring

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

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

func openStore(t testing.TB) store.Store {
	t.Helper()
	s, err := store.Open(store.Options{Dir: "store", FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}
