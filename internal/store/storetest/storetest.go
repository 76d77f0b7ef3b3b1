// Package storetest holds what every engine behind [store.Store] must pass: how it behaves ([Run]), and what a power
// cut or a failing disk may leave ([Campaign]), each case repeatable by its seed.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"github.com/godwit-mta/godwit/internal/store"
)

// Open opens an engine. One that keeps its data elsewhere than in files takes o.FS and o.Dir as its identity. o.Fatal
// returns: the engine must then fail what is under way.
type Open func(o store.Options) (store.Store, error)

const dir = "store"

// Run checks that an engine behaves as [store.Store] says.
func Run(t *testing.T, open Open) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Open)
	}{
		{"ApplyGet", testApplyGet},
		{"Expect", testExpect},
		{"Contend", testContend},
		{"Scan", testScan},
		{"ScanMoment", testScanMoment},
		{"Limits", testLimits},
		{"Reopen", testReopen},
		{"Watch", testWatch},
		{"WatchAll", testWatchAll},
		{"WatchEnds", testWatchEnds},
		{"Closed", testClosed},
		{"Cancelled", testCancelled},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.test(t, open)
		})
	}
}

func options() store.Options { return store.Options{FS: vfs.NewMem(), Dir: dir} }

func mustOpen(t *testing.T, open Open, o store.Options) store.Store {
	t.Helper()
	s, err := open(o)
	if err != nil {
		t.Fatalf("opening: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	return s
}

func put(t *testing.T, s store.Store, pairs ...string) uint64 {
	t.Helper()
	var b store.Batch
	for i := 0; i < len(pairs); i += 2 {
		b.Put(pairs[i], []byte(pairs[i+1]))
	}
	return apply(t, s, &b)
}

func apply(t *testing.T, s store.Store, b *store.Batch) uint64 {
	t.Helper()
	revision, err := s.Apply(t.Context(), b)
	if err != nil {
		t.Fatalf("apply: %v", err)
	}
	return revision
}

// state is what a store holds, as text: value and revision by key.
func state(ctx context.Context, s store.Store, prefix string) (map[string]string, error) {
	m := make(map[string]string)
	for kv, err := range s.Scan(ctx, prefix) {
		if err != nil {
			return nil, err
		}
		m[kv.Key] = fmt.Sprintf("%s@%d", kv.Value, kv.Revision)
	}
	return m, nil
}

func wantState(t *testing.T, s store.Store, prefix string, want map[string]string) {
	t.Helper()
	got, err := state(t.Context(), s, prefix)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("state of %q (-want +got):\n%s", prefix, d)
	}
}

func testApplyGet(t *testing.T, open Open) {
	s := mustOpen(t, open, options())
	if _, err := s.Get(t.Context(), "a"); !errors.Is(err, store.ErrNotFound) || s.Revision() != 0 {
		t.Errorf("empty store: %v, revision %d", err, s.Revision())
	}
	if r := put(t, s, "a", "1", "b", "2"); r != 1 || s.Revision() != 1 {
		t.Errorf("revision %d, %d", r, s.Revision())
	}
	var b store.Batch
	b.Put("a", []byte("3"))
	b.Put("a", []byte("4"))
	b.Delete("b")
	b.Put("c", nil)
	b.Delete("c")
	b.Put("c", []byte("5"))
	b.Delete("none")
	if r := apply(t, s, &b); r != 2 {
		t.Errorf("revision %d", r)
	}
	wantState(t, s, "", map[string]string{"a": "4@2", "c": "5@2"})
	kv, err := s.Get(t.Context(), "a")
	if err != nil || string(kv.Value) != "4" || kv.Revision != 2 || kv.Key != "a" {
		t.Errorf("got %+v, %v", kv, err)
	}
	if _, err := s.Get(t.Context(), "b"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("deleted key: %v", err)
	}
	b.Reset()
	if r := apply(t, s, &b); r != 3 {
		t.Errorf("empty batch: revision %d", r)
	}
	kv.Value[0] = 'x' // the caller's own
	wantState(t, s, "", map[string]string{"a": "4@2", "c": "5@2"})
}

func testExpect(t *testing.T, open Open) {
	s := mustOpen(t, open, options())
	put(t, s, "a", "1")
	put(t, s, "b", "1")
	for _, c := range []struct {
		expect map[string]uint64
		want   *store.ConflictError
	}{
		{map[string]uint64{"a": 1, "b": 2, "c": 0}, nil},
		{map[string]uint64{"a": 1}, &store.ConflictError{Key: "a", Want: 1, Have: 3}},
		{map[string]uint64{"a": 0}, &store.ConflictError{Key: "a", Want: 0, Have: 3}},
		{map[string]uint64{"d": 9}, &store.ConflictError{Key: "d", Want: 9, Have: 0}},
		{map[string]uint64{"a": 3}, nil},
	} {
		var b store.Batch
		for key, revision := range c.expect {
			b.Expect(key, revision)
		}
		b.Put("a", []byte("new"))
		before := s.Revision()
		_, err := s.Apply(t.Context(), &b)
		var got *store.ConflictError
		errors.As(err, &got)
		if d := cmp.Diff(c.want, got); d != "" || errors.Is(err, store.ErrConflict) != (c.want != nil) {
			t.Errorf("expecting %v: %v %s", c.expect, err, d)
		}
		if err != nil && s.Revision() != before {
			t.Errorf("a refused batch made revision %d", s.Revision())
		}
	}
	wantState(t, s, "", map[string]string{"a": "new@4", "b": "1@2"})
}

// Many writers count one key up by compare and set: none is lost.
func testContend(t *testing.T, open Open) {
	s := mustOpen(t, open, options())
	const writers, each = 8, 25
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for n := 0; n < each; {
				kv, err := s.Get(t.Context(), "n")
				if err != nil && !errors.Is(err, store.ErrNotFound) {
					t.Error(err)
					return
				}
				old, _ := strconv.Atoi(string(kv.Value))
				var b store.Batch
				b.Expect("n", kv.Revision)
				b.Put("n", strconv.AppendInt(nil, int64(old+1), 10))
				switch _, err := s.Apply(t.Context(), &b); {
				case err == nil:
					n++
				case !errors.Is(err, store.ErrConflict):
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	wantState(t, s, "", map[string]string{"n": fmt.Sprintf("%d@%d", writers*each, writers*each)})
}

func testScan(t *testing.T, open Open) {
	s := mustOpen(t, open, options())
	keys := []string{"a", "a/", "a/1", "a/2", "a/\x00", "a/\xff", "a/\xff\xff", "a0", "b", "\x00", "\xff",
		"\xff\xff\xff"}
	var b store.Batch
	for _, k := range keys {
		b.Put(k, []byte("v"))
	}
	for i := range 1000 {
		b.Put(fmt.Sprintf("many/%03d", i), []byte(strings.Repeat("x", 1000)))
	}
	apply(t, s, &b)
	all := append(slices.Clone(keys), slices.Collect(func(yield func(string) bool) {
		for i := range 1000 {
			if !yield(fmt.Sprintf("many/%03d", i)) {
				return
			}
		}
	})...)
	slices.Sort(all)
	for _, prefix := range []string{"", "a", "a/", "a/\xff", "\xff", "\xff\xff", "many/", "many/99", "none"} {
		var want, got []string
		for _, k := range all {
			if strings.HasPrefix(k, prefix) {
				want = append(want, k)
			}
		}
		for kv, err := range s.Scan(t.Context(), prefix) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, kv.Key)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", prefix, got, want)
		}
	}
	for range s.Scan(t.Context(), "many/") {
		break // and Close does not mind
	}
}

// A scan shows one moment, while its caller changes what it shows.
func testScanMoment(t *testing.T, open Open) {
	s := mustOpen(t, open, options())
	var b store.Batch
	for i := range 600 {
		b.Put(fmt.Sprintf("k/%03d", i), []byte("old"))
	}
	apply(t, s, &b)
	n := 0
	for kv, err := range s.Scan(t.Context(), "k/") {
		if err != nil {
			t.Fatal(err)
		}
		if string(kv.Value) != "old" {
			t.Fatalf("%s is %s", kv.Key, kv.Value)
		}
		if n == 0 {
			b.Reset()
			for i := range 600 {
				if i%2 == 0 {
					b.Delete(fmt.Sprintf("k/%03d", i))
				} else {
					b.Put(fmt.Sprintf("k/%03d", i), []byte("new"))
				}
			}
			apply(t, s, &b)
		}
		n++
	}
	if n != 600 {
		t.Errorf("%d pairs", n)
	}
}

func testLimits(t *testing.T, open Open) {
	s := mustOpen(t, open, options())
	var ok store.Batch
	ok.Put(strings.Repeat("k", store.MaxKey), make([]byte, store.MaxValue))
	apply(t, s, &ok)
	for name, fill := range map[string]func(*store.Batch){
		"no key":      func(b *store.Batch) { b.Put("", nil) },
		"long key":    func(b *store.Batch) { b.Put(strings.Repeat("k", store.MaxKey+1), nil) },
		"delete":      func(b *store.Batch) { b.Delete(strings.Repeat("k", store.MaxKey+1)) },
		"large value": func(b *store.Batch) { b.Put("k", make([]byte, store.MaxValue+1)) },
		"large batch": func(b *store.Batch) {
			for i := range 9 {
				b.Put(fmt.Sprint(i), make([]byte, store.MaxValue))
			}
		},
		"many": func(b *store.Batch) {
			for i := range store.MaxOps + 1 {
				b.Put(fmt.Sprint(i), nil)
			}
		},
	} {
		var b store.Batch
		fill(&b)
		if _, err := s.Apply(t.Context(), &b); !errors.Is(err, store.ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s.Revision() != 1 {
		t.Errorf("revision %d", s.Revision())
	}
}

func testReopen(t *testing.T, open Open) {
	o := options()
	want := make(map[string]string)
	for life := range 3 {
		s, err := open(o)
		if err != nil {
			t.Fatal(err)
		}
		wantState(t, s, "", want)
		if s.Revision() != uint64(5*life) {
			t.Errorf("revision %d in life %d", s.Revision(), life)
		}
		if _, err := open(o); !errors.Is(err, store.ErrLocked) {
			t.Errorf("opened twice: %v", err)
		}
		for i := range 5 {
			key := fmt.Sprint(life, i)
			want[key] = fmt.Sprintf("v@%d", put(t, s, key, "v"))
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// watch collects changes as text in a goroutine.
func watch(ctx context.Context, s store.Store, prefix string) (changes <-chan string, wait func()) {
	c := make(chan string, 1000)
	var wg sync.WaitGroup
	wg.Go(func() {
		for change, err := range s.Watch(ctx, prefix) {
			switch {
			case err != nil:
				c <- "error " + err.Error()
			case change.Current:
				c <- fmt.Sprintf("current@%d", change.Revision)
			case change.Deleted:
				c <- fmt.Sprintf("%s deleted@%d", change.Key, change.Revision)
			default:
				c <- fmt.Sprintf("%s=%s@%d", change.Key, change.Value, change.Revision)
			}
		}
		close(c)
	})
	return c, wg.Wait
}

func expect(t *testing.T, c <-chan string, want ...string) {
	t.Helper()
	for _, w := range want {
		select {
		case got := <-c:
			if got != w {
				t.Fatalf("change %q, want %q", got, w)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("no change, want %q", w)
		}
	}
}

func testWatch(t *testing.T, open Open) {
	s := mustOpen(t, open, options())
	put(t, s, "w/a", "1", "other", "1")
	put(t, s, "w/b", "1")
	ctx, cancel := context.WithCancel(t.Context())
	c, wait := watch(ctx, s, "w/")
	expect(t, c, "w/a=1@1", "w/b=1@2", "current@2")
	put(t, s, "other", "2")
	put(t, s, "w/a", "2")
	expect(t, c, "w/a=2@4")
	var b store.Batch
	b.Delete("w/b")
	b.Put("w/c", []byte("3"))
	apply(t, s, &b)
	expect(t, c, "w/b deleted@5", "w/c=3@5")
	b.Expect("w/c", 1)
	if _, err := s.Apply(t.Context(), &b); err == nil {
		t.Error("no conflict")
	}
	put(t, s, "w/d", "4")
	expect(t, c, "w/d=4@6")
	cancel()
	wait()
	if rest, more := <-c; more {
		t.Errorf("after the end: %q", rest)
	}
}

// However slow a watcher is, what it has seen at the end is what there is, and revisions never fall.
func testWatchAll(t *testing.T, open Open) {
	s := mustOpen(t, open, options())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for _, pause := range []time.Duration{0, time.Millisecond} {
		wg.Go(func() {
			seen := make(map[string]string)
			var last uint64
			current := false
			for change, err := range s.Watch(ctx, "w/") {
				if err != nil {
					t.Error(err)
					return
				}
				if current && change.Revision < last {
					t.Errorf("revision %d after %d", change.Revision, last)
				}
				last = change.Revision
				switch {
				case change.Current:
					current = true
				case change.Deleted:
					delete(seen, change.Key)
				default:
					seen[change.Key] = fmt.Sprintf("%s@%d", change.Value, change.Revision)
				}
				if change.Key == "w/end" {
					wantState(t, s, "w/", seen)
					return
				}
				time.Sleep(pause)
			}
		})
	}
	for i := range 300 {
		var b store.Batch
		for k := range 3 {
			key := fmt.Sprintf("w/%d", (i*7+k*3)%20)
			if (i+k)%4 == 0 {
				b.Delete(key)
			} else {
				b.Put(key, fmt.Append(nil, i))
			}
		}
		apply(t, s, &b)
	}
	put(t, s, "w/end", "")
	wg.Wait()
}

func testWatchEnds(t *testing.T, open Open) {
	s := mustOpen(t, open, options())
	c, wait := watch(t.Context(), s, "")
	expect(t, c, "current@0")
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	expect(t, c, "error "+store.ErrClosed.Error())
	wait()
}

func testClosed(t *testing.T, open Open) {
	s := mustOpen(t, open, options())
	put(t, s, "a", "1")
	scanned := 0
	for kv, err := range s.Scan(t.Context(), "") {
		if err == nil && kv.Key != "a" || err != nil && !errors.Is(err, store.ErrClosed) {
			t.Error(kv, err)
		}
		// Closing in the middle of a scan is allowed.
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		scanned++
	}
	if scanned == 0 {
		t.Error("nothing scanned")
	}
	_, getErr := s.Get(t.Context(), "a")
	_, applyErr := s.Apply(t.Context(), &store.Batch{})
	errs := []error{getErr, applyErr}
	for _, err := range s.Scan(t.Context(), "") {
		errs = append(errs, err)
	}
	for _, err := range s.Watch(t.Context(), "") {
		errs = append(errs, err)
	}
	if len(errs) != 4 {
		t.Errorf("%d errors", len(errs))
	}
	for i, err := range errs {
		if !errors.Is(err, store.ErrClosed) {
			t.Errorf("error %d: %v", i, err)
		}
	}
}

func testCancelled(t *testing.T, open Open) {
	s := mustOpen(t, open, options())
	put(t, s, "a", "1")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var b store.Batch
	b.Put("b", nil)
	_, getErr := s.Get(ctx, "a")
	_, applyErr := s.Apply(ctx, &b)
	_, scanErr := state(ctx, s, "")
	for i, err := range []error{getErr, applyErr, scanErr} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error %d: %v", i, err)
		}
	}
	for change, err := range s.Watch(ctx, "") {
		t.Errorf("change %+v, %v", change, err)
	}
	wantState(t, s, "", map[string]string{"a": "1@1"})
}

// clone copies a model.
func clone(m map[string]string) map[string]string { return maps.Clone(m) }
