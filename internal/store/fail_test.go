package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/godwit-mta/godwit/internal/store"
)

// sick returns a file system whose operations of the given kinds fail while on is set.
func sick(on *atomic.Bool, kinds ...errorfs.OpKind) vfs.FS {
	return errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		for _, k := range kinds {
			if op.Kind == k && on.Load() {
				return errorfs.ErrInjected
			}
		}
		return nil
	}))
}

// TestFails: after a failed sync the batch is not acknowledged, the process is told to end, and everybody learns why.
func TestFails(t *testing.T) {
	t.Parallel()
	var on atomic.Bool
	var fatal atomic.Pointer[error]
	s, err := store.Open(store.Options{
		FS: sick(&on, errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo), Dir: "store",
		Fatal: func(err error) { fatal.Store(&err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	var b store.Batch
	b.Put("a", []byte("1"))
	if _, err := s.Apply(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	watched := make(chan error, 1)
	ready := make(chan struct{})
	go func() {
		for c, err := range s.Watch(context.Background(), "") {
			if c.Current {
				close(ready)
			}
			if err != nil {
				watched <- err
			}
		}
	}()
	<-ready
	on.Store(true)
	_, err = s.Apply(t.Context(), &b)
	<-s.Failed()
	_, again := s.Apply(t.Context(), &b)
	_, got := s.Get(t.Context(), "a")
	var scanned error
	for _, err := range s.Scan(t.Context(), "") {
		scanned = err
	}
	for n, err := range []error{err, again, got, scanned, s.Err(), <-watched} {
		if !errors.Is(err, store.ErrFailed) || !errors.Is(err, errorfs.ErrInjected) {
			t.Errorf("error %d: %v", n, err)
		}
	}
	if fatal.Load() == nil {
		t.Error("Fatal was not called")
	}
	if s.Revision() != 1 {
		t.Errorf("revision %d", s.Revision())
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestTablesFail: while tables cannot be made, writes go on in memory and log; when that lasts, the store fails
// instead of waiting for ever.
func TestTablesFail(t *testing.T) {
	t.Parallel()
	var on atomic.Bool
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if on.Load() && op.Kind == errorfs.OpCreate && strings.HasSuffix(op.Path, ".sst") {
			return errorfs.ErrInjected
		}
		return nil
	}))
	s, err := store.Open(store.Options{
		FS: fs, Dir: "store", MemTableBytes: 64 << 10, Patience: 100 * time.Millisecond, Fatal: func(error) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	fill := func(n int) error {
		for i := range n {
			var b store.Batch
			b.Put(fmt.Sprint(i), make([]byte, 10_000))
			if _, err := s.Apply(t.Context(), &b); err != nil {
				return err
			}
		}
		return nil
	}
	on.Store(true)
	if err := fill(7); err != nil {
		t.Errorf("writing while tables fail: %v", err)
	}
	on.Store(false)
	if err := fill(100); err != nil {
		t.Errorf("writing when tables can be made again: %v", err)
	}
	on.Store(true)
	if err := fill(1000); !errors.Is(err, store.ErrFailed) {
		t.Errorf("writing while tables fail for long: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestExits runs itself as a process whose disk fails, with the default Fatal: it must end before it can acknowledge.
func TestExits(t *testing.T) {
	t.Parallel()
	if os.Getenv("STORE_EXITS") != "" {
		var on atomic.Bool
		s, err := store.Open(store.Options{FS: sick(&on, errorfs.OpFileSyncData), Dir: "store"})
		if err != nil {
			t.Fatal(err)
		}
		on.Store(true)
		var b store.Batch
		b.Put("a", nil)
		_, err = s.Apply(t.Context(), &b)
		fmt.Printf("told %v\n", err)
		select {} // the process ends by Fatal alone
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestExits$")
	cmd.Env = append(os.Environ(), "STORE_EXITS=1")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || strings.Contains(string(out), "told <nil>") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	s, err := store.Open(store.Options{FS: vfs.NewMem(), Dir: "store", Registerer: registry})
	if err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil || len(families) != 5 {
		t.Errorf("%d families, error %v", len(families), err)
	}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "godwit_store_") || f.GetHelp() == "" {
			t.Errorf("metric %s: %s", f.GetName(), f.GetHelp())
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := store.Open(store.Options{FS: vfs.NewMem(), Dir: "store", Registerer: registry}); err == nil {
		t.Error("registered twice")
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]store.Options{
		"no directory": {},
		"memtable":     {Dir: "x", MemTableBytes: 1},
		"cache":        {Dir: "x", CacheBytes: -1},
		"patience":     {Dir: "x", Patience: -1},
	} {
		o.FS = vfs.NewMem()
		if _, err := store.Open(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestOnDisk is a life on real files.
func TestOnDisk(t *testing.T) {
	t.Parallel()
	o := store.Options{Dir: t.TempDir() + "/a/store"}
	for life := range uint64(3) {
		s, err := store.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		if s.Revision() != life {
			t.Errorf("revision %d in life %d", s.Revision(), life)
		}
		if _, err := store.Open(o); !errors.Is(err, store.ErrLocked) {
			t.Errorf("opened twice: %v", err)
		}
		var b store.Batch
		b.Put("k", fmt.Append(nil, life))
		if _, err := s.Apply(t.Context(), &b); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func BenchmarkApply(b *testing.B) {
	s, err := store.Open(store.Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	value := make([]byte, 200)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		var batch store.Batch
		batch.Put(fmt.Sprint("key/", n%10_000), value)
		if _, err := s.Apply(context.Background(), &batch); err != nil {
			b.Fatal(err)
		}
		n++
	}
}

func BenchmarkGet(b *testing.B) {
	s, err := store.Open(store.Options{FS: vfs.NewMem(), Dir: "store"})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var batch store.Batch
	for i := range 1000 {
		batch.Put(fmt.Sprint("key/", i), make([]byte, 200))
	}
	if _, err := s.Apply(context.Background(), &batch); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Get(context.Background(), "key/500"); err != nil {
			b.Fatal(err)
		}
	}
}
