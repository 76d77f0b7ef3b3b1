package journal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/internal/journal/journaltest"
	"github.com/godwit-mta/godwit/smtp"
)

// TestConformanceOnDisk is the suite over real files, with vectored writes, allocation and locks of the system. What
// injects faults stays in memory.
func TestConformanceOnDisk(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	var dirs sync.Map // vfs.FS to directory
	var mu sync.Mutex
	n := 0
	journaltest.Run(t, func(o journal.Options) (journal.Journal, error) {
		if o.FS.Unwrap() == nil {
			mu.Lock()
			dir, known := dirs.LoadOrStore(o.FS, filepath.Join(base, fmt.Sprint(n), "deep", "journal"))
			if !known {
				n++
			}
			mu.Unlock()
			o.FS, o.Dir = vfs.Default, dir.(string)
		}
		return journal.Open(o)
	})
}

// TestVector writes more slices in one round than the system takes in one call.
func TestVector(t *testing.T) {
	t.Parallel()
	j := openRunning(t, journal.Options{Dir: t.TempDir()})
	const n = 3000
	var b journal.Batch
	for i := range n {
		body := smtp.BodyOf(fmt.Appendf(nil, "body %d\r\n", i))
		body.Prepend(fmt.Appendf(nil, "Received: %d\r\n", i))
		b.Records = append(b.Records, journal.Record{Kind: journal.Kind(i), Meta: fmt.Appendf(nil, "meta %d", i),
			Body: body})
	}
	if err := j.Append(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	for i, r := range b.Records {
		got, err := j.Read(t.Context(), r.Position)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(got.Body.Reader())
		if want := fmt.Sprintf("Received: %d\r\nbody %d\r\n", i, i); err != nil || string(data) != want {
			t.Fatalf("body %d is %q, error %v", i, data, err)
		}
		got.Body.Release()
		r.Body.Release()
	}
}

// TestReadOnly looks at a journal while it is written, rolled and removed from, as an operator's check does: nothing
// is damaged, nothing changes, and what was durable when it looked is there.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]journal.Options{
		"memory": {FS: vfs.NewMem(), Dir: testDir, SegmentSize: 16 << 10},
		"disk":   {Dir: t.TempDir(), SegmentSize: 16 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := openRunning(t, o)
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			defer wg.Wait()
			defer cancel()
			for range 4 {
				wg.Go(func() {
					body := smtp.BodyOf(bytes.Repeat([]byte("line\r\n"), 100))
					defer body.Release()
					for n := 0; ctx.Err() == nil; n++ {
						b := &journal.Batch{Records: []journal.Record{{Kind: 1, Meta: []byte("meta"), Body: body}}}
						if err := j.Append(t.Context(), b); err != nil {
							t.Error(err)
							return
						}
						if x := j.Extents(); len(x) > 5 {
							if err := j.Remove(t.Context(), x[0].ID); err != nil {
								t.Error(err)
							}
						}
					}
				})
			}
			for range 100 {
				look(t, j, o)
			}
		})
	}
}

func look(t *testing.T, j journal.Journal, o journal.Options) {
	t.Helper()
	o.ReadOnly = true
	end := j.End()
	ro, err := journal.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if d := ro.Damage(); len(d) > 0 {
			t.Errorf("damage: %+v", d)
		}
		if err := ro.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := ro.Append(t.Context(), &journal.Batch{}); !errors.Is(err, journal.ErrReadOnly) {
		t.Errorf("append: %v", err)
	}
	if ro.End() < end && end.Offset() > 8192 {
		t.Errorf("end is %#x, was %#x before opening", ro.End(), end)
	}
	r, err := ro.NewReader(0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for {
		e, err := r.Next(t.Context(), false)
		if err == io.EOF {
			return
		}
		if errors.Is(err, journal.ErrRemoved) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if string(e.Meta) != "meta" || e.BodySize != 600 {
			t.Fatalf("entry %+v", e)
		}
	}
}

func TestReadOnlyMissing(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "none")
	if _, err := journal.Open(journal.Options{Dir: dir, ReadOnly: true}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Error("looking made the directory")
	}
}

// TestSpare: removed segments are written again, and none of their old records is seen. What is too many is deleted.
func TestSpare(t *testing.T) {
	t.Parallel()
	o := journal.Options{FS: vfs.NewMem(), Dir: testDir, SegmentSize: 64 << 10, Spares: 2}
	j := openRunning(t, o)
	fill := func(extents int) {
		for n := 0; len(j.Extents()) < extents; n++ {
			b := &journal.Batch{Records: []journal.Record{{Kind: 1, Meta: bytes.Repeat([]byte{byte(n)}, 5000)}}}
			if err := j.Append(t.Context(), b); err != nil {
				t.Fatal(err)
			}
		}
	}
	count := func(suffix string) (n int) {
		for name := range snapshot(t, o.FS) {
			if strings.HasSuffix(name, suffix) {
				n++
			}
		}
		return n
	}
	fill(5)
	for _, x := range j.Extents() {
		if x.Sealed {
			if err := j.Remove(t.Context(), x.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	if spares, segments := count(".spare"), count(".seg"); spares != 2 || segments != 1 {
		t.Fatalf("%d spares, %d segments", spares, segments)
	}
	fill(3)
	if n := count(".spare"); n != 0 {
		t.Errorf("%d spares", n)
	}
	want := 0
	for range readAll(t, j) {
		want++
	}
	again, err := journal.Open(journal.Options{FS: snapshot(t, o.FS).fs(t), Dir: testDir})
	if err != nil {
		t.Fatal(err)
	}
	got := 0
	for range readAll(t, again) {
		got++
	}
	if got != want || len(again.Damage()) > 0 {
		t.Errorf("%d records, want %d, damage %+v", got, want, again.Damage())
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

func readAll(t *testing.T, j journal.Journal) (all []journal.Entry) {
	t.Helper()
	r, err := j.NewReader(0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for {
		e, err := r.Next(t.Context(), false)
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		e.Meta = bytes.Clone(e.Meta)
		all = append(all, e)
	}
}

// TestFull: when the disk is nearly full, bodies are refused and other records are not, until there is room again.
func TestFull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 1 << 30, TotalBytes: 1 << 30})
		j, err := journal.Open(journal.Options{FS: fs, Dir: testDir})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() { ended <- j.Run(ctx) }()
		mail := func() error {
			body := smtp.BodyOf([]byte("x\r\n"))
			defer body.Release()
			return j.Append(ctx, &journal.Batch{Records: []journal.Record{{Body: body}}})
		}
		note := func() error { return j.Append(ctx, &journal.Batch{Records: []journal.Record{{Meta: []byte("x")}}}) }
		if err := mail(); err != nil {
			t.Error(err)
		}
		fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 63 << 20, TotalBytes: 1 << 30})
		time.Sleep(2 * time.Second)
		if err := note(); err != nil {
			t.Error(err)
		}
		if err := mail(); !errors.Is(err, journal.ErrFull) {
			t.Errorf("mail on a full disk: %v", err)
		}
		if err := note(); err != nil {
			t.Error(err)
		}
		fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 81 << 20, TotalBytes: 1 << 30})
		time.Sleep(time.Second)
		if err := mail(); err != nil {
			t.Errorf("mail when there is room again: %v", err)
		}
		cancel()
		if err := errors.Join(<-ended, j.Close()); err != nil {
			t.Error(err)
		}
	})
}

// TestManySegments: opening looks at sealed segments by name and size only.
func TestManySegments(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	j := openRunning(t, journal.Options{FS: fs, Dir: testDir, SegmentSize: 16 << 10})
	for len(j.Extents()) < 200 {
		b := &journal.Batch{Records: []journal.Record{{Meta: make([]byte, 9000)}}}
		if err := j.Append(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	disk := snapshot(t, fs)
	counted := &countingFS{FS: disk.fs(t)}
	again, err := journal.Open(journal.Options{FS: counted, Dir: testDir})
	if err != nil {
		t.Fatal(err)
	}
	if counted.opens > 10 {
		t.Errorf("opening %d segments opened %d files", len(again.Extents()), counted.opens)
	}
	if n := len(readAll(t, again)); n != len(readAll(t, j)) {
		t.Errorf("%d records", n)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

type countingFS struct {
	vfs.FS
	opens int
}

func (c *countingFS) Open(name string, o ...vfs.OpenOption) (vfs.File, error) {
	c.opens++
	return c.FS.Open(name, o...)
}

// TestAppendAllocates holds what an append may allocate: nothing, if the batch is used again.
func TestAppendAllocates(t *testing.T) {
	j := openRunning(t, journal.Options{FS: vfs.NewMem(), Dir: testDir, SegmentSize: 1 << 30})
	body := smtp.BodyOf(make([]byte, 10_000))
	defer body.Release()
	b := &journal.Batch{Records: []journal.Record{{Kind: 1, Meta: make([]byte, 300), Body: body}}}
	got := testing.AllocsPerRun(500, func() {
		if err := j.Append(context.Background(), b); err != nil {
			t.Fatal(err)
		}
	})
	// Growing the file in memory is not the journal's.
	if got > 2 {
		t.Errorf("%.1f allocations for one append", got)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	o := journal.Options{FS: vfs.NewMem(), Dir: testDir, Registerer: registry}
	openRunning(t, o)
	families, err := registry.Gather()
	if err != nil || len(families) < 8 {
		t.Errorf("%d families, error %v", len(families), err)
	}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "godwit_journal_") || f.GetHelp() == "" {
			t.Errorf("metric %s: %s", f.GetName(), f.GetHelp())
		}
	}
	o.FS = vfs.NewMem()
	if _, err := journal.Open(o); err == nil {
		t.Error("registered twice")
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]journal.Options{
		"no directory":  {},
		"small segment": {Dir: "x", SegmentSize: 1},
		"large segment": {Dir: "x", SegmentSize: 2 << 30},
		"pending":       {Dir: "x", PendingBytes: -1},
		"delay":         {Dir: "x", LazyDelay: -1},
		"owner":         {Dir: "x", Owner: strings.Repeat("x", 256)},
	} {
		o.FS = vfs.NewMem()
		if _, err := journal.Open(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
