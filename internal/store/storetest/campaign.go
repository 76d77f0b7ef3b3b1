package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/google/go-cmp/cmp"

	"github.com/godwit-mta/godwit/internal/store"
)

// mode is what happens at the chosen file operation.
type mode int

const (
	cutNone  mode = iota // power cut, nothing unsynced is kept
	cutHalf              // power cut, half of the unsynced blocks and names is kept
	cutAll               // power cut, all is kept, as after the end of the process
	failOnce             // this operation fails
	failOn               // this operation and all later ones fail
	modes
)

// The seeds of one workload: each of its first cuts operations with each mode.
const cuts = 80

// Campaign runs a number of seeded random workloads. In each something happens at the k-th operation that changes the
// file system; then the store is opened again and must hold each batch that was acknowledged, and nothing that was
// never applied. A failure names its seed; SEED=n in the environment runs that one alone.
func Campaign(t *testing.T, open Open, runs int) {
	first, last := uint64(0), uint64(runs)
	if s := os.Getenv("SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("SEED: %v", err)
		}
		first, last = n, n+1
	}
	workers := uint64(runtime.GOMAXPROCS(0))
	for w := range workers {
		t.Run(fmt.Sprintf("part%d", w), func(t *testing.T) {
			t.Parallel()
			for seed := first + w; seed < last; seed += workers {
				if err := Seed(open, seed); err != nil {
					t.Fatalf("SEED=%d: %v", seed, err)
				}
			}
		})
	}
}

// Seed is one run of the campaign. Its error says what the engine broke.
func Seed(open Open, seed uint64) error {
	r := &run{
		open: open, disk: vfs.NewCrashableMem(), random: rand.New(rand.NewPCG(seed/(cuts*uint64(modes)), 1)),
		acked: make(map[string]string),
	}
	cut := int(1 + seed/uint64(modes)%cuts)
	if err := r.live(cut, mode(seed%uint64(modes))); err != nil {
		return fmt.Errorf("first life: %w", err)
	}
	r.random = rand.New(rand.NewPCG(seed, 2))
	if err := r.live(1+r.random.IntN(cuts), mode(r.random.IntN(int(modes)))); err != nil {
		return fmt.Errorf("second life: %w", err)
	}
	if err := r.live(0, cutNone); err != nil {
		return fmt.Errorf("third life: %w", err)
	}
	return nil
}

// run is one seed: a disk and what was applied to it.
type run struct {
	open   Open
	random *rand.Rand
	disk   *vfs.MemFS

	mu       sync.Mutex
	acked    map[string]string // the state after the last acknowledged batch
	revision uint64
	pending  map[string]string // that after the one under way; nil: none
}

// life is one life of the engine. Goroutines of a failed engine may go on in the next one's time, but in their own
// life.
type life struct {
	*run
	mode     mode
	ops, cut int
	happened bool
	opening  bool // what was there before
	frozen   bool // what is told from now on comes too late for the disk that is kept
	kept     *vfs.MemFS
}

func (r *run) live(cut int, m mode) error {
	l := &life{run: r, mode: m, cut: cut, opening: r.revision > 0}
	err := l.through()
	l.mu.Lock()
	defer l.mu.Unlock()
	var lost *lostError
	if err != nil && (!l.happened || errors.As(err, &lost)) {
		return err
	}
	if l.kept == nil {
		l.kept = r.disk.CrashClone(vfs.CrashCloneCfg{})
	}
	r.disk = l.kept
	return nil
}

func (l *life) through() error {
	o := store.Options{
		FS: errorfs.Wrap(l.disk, errorfs.InjectorFunc(l.operation)), Dir: dir, MemTableBytes: 64 << 10,
		CacheBytes: 64 << 10,
		Fatal:      func(error) {}, Patience: 20 * time.Millisecond,
	}
	s, err := l.open(o)
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.opening = false
	l.mu.Unlock()
	return l.use(s)
}

// lostError is a promise that did not hold, whatever the cut did.
type lostError struct{ error }

// operation is called before each file operation, by any goroutine of the engine.
func (l *life) operation(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	failing := l.mode == failOnce || l.mode == failOn
	if failing && l.opening {
		// The end of the process in any case, and not always an orderly one: an engine may leave goroutines behind an
		// Open that failed. The first Open of all has none.
		return nil
	}
	l.ops++
	if l.happened {
		if l.mode == failOn {
			return errorfs.ErrInjected
		}
		return nil
	}
	if l.ops != l.cut {
		return nil
	}
	l.happened = true
	if failing {
		return errorfs.ErrInjected
	}
	// The process goes on, on a disk that nobody will look at again.
	l.frozen = true
	l.kept = l.disk.CrashClone(vfs.CrashCloneCfg{
		UnsyncedDataPercent: 50 * int(l.mode), RNG: rand.New(rand.NewPCG(uint64(l.cut), uint64(l.mode))),
	})
	return nil
}

func (l *life) use(s store.Store) error {
	err := l.check(s)
	if err == nil {
		err = l.work(s)
	}
	if closed := s.Close(); err == nil {
		err = closed
	}
	return err
}

// check wants the state after the last acknowledged batch, or after the one that was under way.
func (l *life) check(s store.Store) error {
	got, err := state(context.Background(), s, "")
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.frozen {
		return nil // the cut fell into Open; what this life sees is not kept
	}
	switch {
	case s.Revision() == l.revision && cmp.Equal(got, l.acked):
	case l.pending != nil && s.Revision() == l.revision+1 && cmp.Equal(got, l.pending):
		l.acked, l.revision = l.pending, l.revision+1
	default:
		return &lostError{fmt.Errorf("at revision %d, acknowledged %d: (-acknowledged +found)\n%s", s.Revision(),
			l.revision, cmp.Diff(l.acked, got))}
	}
	l.pending = nil
	return nil
}

// work applies random batches until something happens.
func (l *life) work(s store.Store) error {
	for range 30 {
		l.mu.Lock()
		if l.frozen {
			l.mu.Unlock()
			return nil
		}
		b, next := l.batch()
		l.pending = next
		l.mu.Unlock()
		revision, err := s.Apply(context.Background(), b)
		l.mu.Lock()
		if l.frozen {
			l.mu.Unlock()
			return nil
		}
		if err != nil {
			happened := l.happened
			l.mu.Unlock()
			if !happened {
				return fmt.Errorf("apply: %w", err)
			}
			if !errors.Is(err, store.ErrFailed) {
				return &lostError{fmt.Errorf("apply on a failing disk: %w", err)}
			}
			if _, again := s.Apply(context.Background(), b); !errors.Is(again, store.ErrFailed) || s.Err() == nil {
				return &lostError{fmt.Errorf("apply after the failure: %w", again)}
			}
			return nil
		}
		l.acked, l.revision, l.pending = next, l.revision+1, nil
		expected := l.revision
		l.mu.Unlock()
		if revision != expected {
			return &lostError{fmt.Errorf("revision %d, want %d", revision, expected)}
		}
	}
	return nil
}

// batch makes up a batch and the state after it.
func (r *run) batch() (*store.Batch, map[string]string) {
	next := clone(r.acked)
	var b store.Batch
	for range 1 + r.random.IntN(4) {
		key := fmt.Sprintf("key/%02d", r.random.IntN(30))
		if have := next[key]; have == "" && r.acked[key] == "" {
			b.Expect(key, 0)
		}
		if r.random.IntN(4) == 0 {
			b.Delete(key)
			delete(next, key)
			continue
		}
		value := strings.Repeat(string(rune('a'+r.random.IntN(26))), r.random.IntN([]int{10, 500,
			8000}[r.random.IntN(3)]))
		b.Put(key, []byte(value))
		next[key] = fmt.Sprintf("%s@%d", value, r.revision+1)
	}
	return &b, next
}
