package outbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/internal/spool"
)

// running is a log that runs in a bubble of fake time.
type running struct {
	*Log
	t    *testing.T
	dir  string
	j    *fakeJournal
	view *fakeView
	stop context.CancelFunc
	done chan error
}

func open(t *testing.T, dir string, j *fakeJournal, limits Limits) *Log {
	t.Helper()
	l, err := New(Options{Dir: dir, Journal: j, View: &fakeView{}, Limits: limits, Registerer: prometheus.NewPedanticRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	l.decode = j.decode
	return l
}

func run(t *testing.T, dir string, j *fakeJournal, limits Limits) *running {
	t.Helper()
	l := open(t, dir, j, limits)
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{Log: l, t: t, dir: dir, j: j, view: l.options.View.(*fakeView), stop: cancel, done: make(chan error, 1)}
	go func() { r.done <- l.Run(ctx) }()
	synctest.Wait()
	return r
}

func (r *running) end() error {
	r.stop()
	return <-r.done
}

// lines returns the ids in a file.
func ids(t *testing.T, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(data)) {
		e, err := event.ParseLine([]byte(line))
		if err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		got = append(got, e.ID)
	}
	return got
}

// wantIDs returns the ids of all events of a journal.
func wantIDs(j *fakeJournal) []string {
	var (
		tell teller
		got  []string
	)
	for i := range j.records {
		out := tell.append(nil, journal.Position(i+1)*stride, &j.records[i], 0)
		for n := range strings.Count(string(out), "\n") {
			got = append(got, string(appendID(nil, journal.Position(i+1)*stride, n)))
		}
	}
	return got
}

func workload(n int) []spool.Record {
	var rs []spool.Record
	for i := range n {
		m := testMessage(i, 1+i%3)
		rs = append(rs, accepted(m), attempted(m, time.Second, deferred), attempted(m, time.Minute, delivered))
	}
	return rs
}

func TestWritesAndAdvances(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := newFakeJournal()
		r := run(t, filepath.Join(t.TempDir(), "events"), j, Limits{})
		j.add(workload(10)...)
		time.Sleep(200 * time.Millisecond)
		if got := ids(t, filepath.Join(r.dir, currentName)); !slices.Equal(got, wantIDs(j)) {
			t.Errorf("a moment later: %v", got)
		}
		time.Sleep(2 * time.Second)
		if at := r.view.position(); at != j.End() {
			t.Errorf("view is at %d, the journal ends at %d", at, j.End())
		}
		j.add(workload(3)...)
		if err := r.end(); err != nil {
			t.Fatal(err)
		}
		if got := ids(t, filepath.Join(r.dir, currentName)); !slices.Equal(got, wantIDs(j)) {
			t.Errorf("at the end: %v", got)
		}
		if at := r.view.position(); at != j.End() {
			t.Errorf("at the end the view is at %d, the journal ends at %d", at, j.End())
		}
	})
}

// TestResumeAfterCut cuts the file at many octets, as a crash would, and wants the next log to make it whole.
func TestResumeAfterCut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		j := newFakeJournal()
		j.add(workload(3)...)
		r := run(t, dir, j, Limits{})
		if err := r.end(); err != nil {
			t.Fatal(err)
		}
		current := filepath.Join(dir, currentName)
		whole, err := os.ReadFile(current)
		if err != nil {
			t.Fatal(err)
		}
		for _, keepCursor := range []bool{false, true} {
			for cut := 0; cut < len(whole); cut += 503 {
				rest := slices.Clone(whole[:len(whole)-cut])
				if cut%2 == 0 { // a page that was never written
					rest = append(rest, make([]byte, 100)...)
				}
				if err := os.WriteFile(current, rest, 0o644); err != nil {
					t.Fatal(err)
				}
				if !keepCursor {
					_ = os.Remove(filepath.Join(dir, cursorName))
				} else if err := saveCursor(dir, cursor{Position: stride, Offset: 0}); err != nil {
					t.Fatal(err)
				}
				if err := run(t, dir, j, Limits{}).end(); err != nil {
					t.Fatal(err)
				}
				if got, _ := os.ReadFile(current); string(got) != string(whole) {
					t.Fatalf("cut by %d: file differs:\n%s", cut, got)
				}
			}
		}
	})
}

// TestRotation wants every event exactly once over all files, in order, and the oldest files to go.
func TestRotation(t *testing.T) {
	t.Parallel()
	for _, how := range []Compression{Gzip, Zstd, None} {
		t.Run(string(how), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				j := newFakeJournal()
				r := run(t, dir, j, Limits{MaxSize: 20_000, Compress: how, KeepFor: 10 * 365 * 24 * time.Hour})
				for range 20 {
					j.add(workload(10)...)
					time.Sleep(time.Second)
				}
				files, err := closedFiles(dir)
				if err != nil || len(files) < 5 {
					t.Fatalf("%d files, %v", len(files), err)
				}
				var got []string
				for _, f := range files {
					if f.compressed != how {
						t.Errorf("%s is not compressed by %s", f.name, how)
					}
					got = append(got, ids(t, unpack(t, dir, f))...)
				}
				got = append(got, ids(t, filepath.Join(dir, currentName))...)
				if !slices.Equal(got, wantIDs(j)) {
					t.Errorf("%d events in files, want %d", len(got), len(wantIDs(j)))
				}
				if err := r.SetLimits(Limits{Keep: 2, Compress: how, KeepFor: 10 * 365 * 24 * time.Hour}); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if left, _ := closedFiles(dir); len(left) != 2 || left[1] != files[len(files)-1] {
					t.Errorf("left are %v", left)
				}
				if err := r.SetLimits(Limits{KeepFor: time.Minute, Compress: how}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Hour)
				if left, _ := closedFiles(dir); len(left) != 0 {
					t.Errorf("hours later left are %v", left)
				}
				if err := r.end(); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// unpack writes a closed file as plain text beside the log.
func unpack(t *testing.T, dir string, f archived) string {
	t.Helper()
	in, how, err := openArchived(dir, f)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	r, done, err := reader(in, how)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	out, err := os.Create(filepath.Join(t.TempDir(), "plain"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := out.ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	return out.Name()
}

func TestRotationByAge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		j := newFakeJournal()
		r := run(t, dir, j, Limits{MaxAge: time.Hour, KeepFor: 10 * 365 * 24 * time.Hour})
		m := testMessage(0, 1)
		rec := accepted(m)
		rec.Time = time.Now()
		j.add(rec)
		time.Sleep(59 * time.Minute)
		if files, _ := closedFiles(dir); len(files) != 0 {
			t.Errorf("closed early: %v", files)
		}
		time.Sleep(2 * time.Minute)
		if files, _ := closedFiles(dir); len(files) != 1 {
			t.Errorf("after an hour: %v", files)
		}
		time.Sleep(3 * time.Hour)
		if files, _ := closedFiles(dir); len(files) != 1 {
			t.Errorf("an empty file was closed: %v", files)
		}
		if err := r.end(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestResumeAfterRotation stops with an empty current file: only the cursor knows the position.
func TestResumeAfterRotation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		j := newFakeJournal()
		j.add(workload(20)...)
		if err := run(t, dir, j, Limits{MaxSize: 1, Compress: None, KeepFor: 10 * 365 * 24 * time.Hour}).end(); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(filepath.Join(dir, currentName)); err != nil || info.Size() != 0 {
			t.Fatalf("current file: %v, %v", info, err)
		}
		// A crash between saving the cursor and the rename leaves the events in the current file.
		files, _ := closedFiles(dir)
		for _, crash := range []bool{false, true} {
			if crash {
				if err := os.Rename(filepath.Join(dir, files[len(files)-1].name), filepath.Join(dir, currentName)); err != nil {
					t.Fatal(err)
				}
			}
			l := open(t, dir, j, Limits{})
			if l.next.from != j.End() && l.next.skip == 0 {
				t.Errorf("crash %v: goes on at %+v, the journal ends at %d", crash, l.next, j.End())
			}
			l.close()
		}
		if err := run(t, dir, j, Limits{}).end(); err != nil {
			t.Fatal(err)
		}
		if got, want := ids(t, filepath.Join(dir, currentName)), wantIDs(j); len(got) > len(want) || got[len(got)-1] != want[len(want)-1] {
			t.Errorf("current file has %d events", len(got))
		}
	})
}

func TestRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		j := newFakeJournal()
		r := run(t, dir, j, Limits{})
		time.Sleep(time.Second)
		before := time.Now()
		r.Refused(&event.Event{Time: before, Type: event.Refused, Reason: event.RelayDenied, Session: "s9"})
		synctest.Wait()
		got := ids(t, filepath.Join(dir, currentName))
		if len(got) != 1 || !strings.HasPrefix(got[0], "refused-") {
			t.Fatalf("%v", got)
		}
		// A flood is cut, and does not disturb the position.
		j.add(workload(2)...)
		for i := range 20_000 {
			r.Refused(&event.Event{Time: before, Type: event.Refused, Session: fmt.Sprint(i)})
		}
		if err := r.end(); err != nil {
			t.Fatal(err)
		}
		got = ids(t, filepath.Join(dir, currentName))
		if n := len(got); n < 1000 || n > 20_000 {
			t.Errorf("%d events", n)
		}
		if l := open(t, dir, j, Limits{}); l.next.from != j.End() {
			t.Errorf("goes on at %+v, the journal ends at %d", l.next, j.End())
		} else {
			l.close()
		}
	})
}

func TestReopen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		j := newFakeJournal()
		r := run(t, dir, j, Limits{})
		j.add(workload(2)...)
		time.Sleep(time.Second)
		moved := filepath.Join(dir, "moved")
		if err := os.Rename(filepath.Join(dir, currentName), moved); err != nil {
			t.Fatal(err)
		}
		r.Reopen()
		synctest.Wait()
		j.add(workload(2)...)
		if err := r.end(); err != nil {
			t.Fatal(err)
		}
		if got := append(ids(t, moved), ids(t, filepath.Join(dir, currentName))...); !slices.Equal(got, wantIDs(j)) {
			t.Errorf("%v", got)
		}
	})
}

// TestDiskFails makes writing impossible for a while and wants every event once afterwards.
func TestDiskFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		j := newFakeJournal()
		l := open(t, dir, j, Limits{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		j.add(workload(2)...)
		broken, err := os.Open(filepath.Join(dir, currentName)) // cannot be written
		if err != nil {
			t.Fatal(err)
		}
		good := l.file
		l.file = broken
		defer good.Close()
		go func() { done <- l.Run(ctx) }()
		time.Sleep(500 * time.Millisecond)
		if at := l.options.View.(*fakeView).position(); at != 0 {
			t.Errorf("view is at %d though nothing was written", at)
		}
		time.Sleep(5 * time.Second) // Truncate fails on the broken file too, so the log opens anew
		j.add(workload(2)...)
		time.Sleep(5 * time.Second)
		if got := ids(t, filepath.Join(dir, currentName)); !slices.Equal(got, wantIDs(j)) {
			t.Errorf("%d events, want %d", len(got), len(wantIDs(j)))
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

func TestJournalFails(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ err, want error }{{journal.ErrFailed, journal.ErrFailed}, {journal.ErrClosed, nil}} {
		synctest.Test(t, func(t *testing.T) {
			j := newFakeJournal()
			r := run(t, t.TempDir(), j, Limits{})
			j.fail(fmt.Errorf("reading: %w", tt.err))
			if err := <-r.done; !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			r.stop()
		})
	}
}

func TestUnreadableRecordIsSkipped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := newFakeJournal()
		r := run(t, t.TempDir(), j, Limits{})
		j.add(workload(1)...)
		j.add(spool.Record{})
		j.add(workload(1)...)
		time.Sleep(time.Second)
		if got := ids(t, filepath.Join(r.dir, currentName)); !slices.Equal(got, wantIDs(j)) {
			t.Errorf("%v", got)
		}
		if err := r.end(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestOtherJournal wants a log that is ahead of its journal to begin again.
func TestOtherJournal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := saveCursor(dir, cursor{Position: 1 << 40}); err != nil {
		t.Fatal(err)
	}
	l := open(t, dir, newFakeJournal(), Limits{})
	defer l.close()
	if l.next != (place{}) {
		t.Errorf("goes on at %+v", l.next)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]Options{
		"no directory":  {Journal: newFakeJournal()},
		"no journal":    {Dir: t.TempDir()},
		"compression":   {Dir: t.TempDir(), Journal: newFakeJournal(), Limits: Limits{Compress: "rar"}},
		"limit":         {Dir: t.TempDir(), Journal: newFakeJournal(), Limits: Limits{Keep: -1}},
		"sync":          {Dir: t.TempDir(), Journal: newFakeJournal(), Sync: -1},
		"no parent dir": {Dir: filepath.Join(t.TempDir(), "a", "b"), Journal: newFakeJournal()},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
