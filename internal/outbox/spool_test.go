package outbox

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/smtp"
)

// engine is a real journal with a real spool, in memory.
type engine struct {
	journal *journal.Log
	spool   *spool.Spool
	view    *spool.View
	sink    *fresh
	stop    func()
}

// fresh settles what it is handed, as a queue whose destinations all accept would.
type fresh struct {
	spool   *spool.Spool
	settled sync.WaitGroup // until durable
}

func (f *fresh) Fresh(m *spool.Message, entries []*spool.Entry) {
	now := time.Now()
	a := &spool.Attempt{Message: m, Entries: entries, Started: now.Add(-time.Millisecond), Ended: now}
	for range entries {
		a.Results = append(a.Results, delivered)
	}
	f.settled.Add(1)
	f.spool.Settle(a, func(error) { f.settled.Done() })
}

func (*fresh) Due(spool.QueueKey, time.Time) {}

func startEngine(t testing.TB) *engine {
	t.Helper()
	fs := vfs.NewMem()
	j, err := journal.Open(journal.Options{Dir: "journal", FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	spooling, end := context.WithCancel(context.Background())
	var journaling, spools sync.WaitGroup
	journaling.Go(func() {
		if err := j.Run(ctx); err != nil {
			t.Errorf("journal: %v", err)
		}
	})
	s, err := spool.Open(ctx, spool.Options{Dir: "spool", FS: fs, Journal: j})
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{journal: j, spool: s, view: s.RegisterView("events"), sink: &fresh{spool: s}}
	s.SetSink(e.sink)
	spools.Go(func() {
		if err := s.Run(spooling); err != nil {
			t.Errorf("spool: %v", err)
		}
	})
	e.stop = func() {
		end()
		spools.Wait()
		if err := s.Close(); err != nil {
			t.Errorf("closing the spool: %v", err)
		}
		cancel()
		journaling.Wait()
		if err := j.Close(); err != nil {
			t.Errorf("closing the journal: %v", err)
		}
	}
	return e
}

// send accepts messages by their numbers, from several goroutines, and returns when all are settled.
func (e *engine) send(t testing.TB, from, to int) {
	t.Helper()
	body := smtp.BodyOf([]byte("Subject: x\r\n\r\ny\r\n"))
	defer body.Release()
	var senders sync.WaitGroup
	for worker := range 8 {
		senders.Go(func() {
			for i := from + worker; i < to; i += 8 {
				m := testMessage(i, 1+i%3)
				m.Size = body.Size()
				if err := e.spool.Accept(t.Context(), m, body); err != nil {
					t.Errorf("accept: %v", err)
					return
				}
			}
		})
	}
	senders.Wait()
	e.sink.settled.Wait()
}

// TestOverRealSpool follows a busy spool, is cut off in the middle, and wants every entry to have exactly one final event.
func TestOverRealSpool(t *testing.T) {
	t.Parallel()
	e := startEngine(t)
	defer e.stop()
	const messages = 600
	dir := t.TempDir()
	start := func(dir string) (stop func()) {
		l, err := New(Options{Dir: dir, Journal: e.journal, View: e.view, Pause: time.Millisecond, Sync: 5 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		return func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("event log: %v", err)
			}
		}
	}
	stop := start(dir)
	e.send(t, 0, messages/2)
	// What a kill leaves: the file as it is at some moment, the last line torn.
	torn, err := os.ReadFile(filepath.Join(dir, currentName))
	if err != nil {
		t.Fatal(err)
	}
	crashed := t.TempDir()
	if err := os.WriteFile(filepath.Join(crashed, currentName), torn[:len(torn)*3/4], 0o600); err != nil {
		t.Fatal(err)
	}
	e.send(t, messages/2, messages)
	stop()
	start(crashed)()
	checkLives(t, filepath.Join(dir, currentName), messages)
	if whole, after := ids(t, filepath.Join(dir, currentName)), ids(t, filepath.Join(crashed, currentName)); !slices.Equal(whole, after) {
		t.Errorf("%d events without a crash, %d with one", len(whole), len(after))
	}
}

// checkLives wants one accepted event of each message and one final event of each entry.
func checkLives(t *testing.T, path string, messages int) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	accepted, entries, final := 0, 0, make(map[string]int)
	for line := range bytes.Lines(data) {
		e, err := event.ParseLine(line)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case e.Type == event.Accepted:
			accepted++
			entries += e.Recipients
		case e.Type.Final():
			final[e.Entry]++
		}
	}
	if accepted != messages || len(final) != entries {
		t.Errorf("%d messages with %d entries accepted, %d entries final; want %d messages", accepted, entries, len(final), messages)
	}
	for entry, n := range final {
		if n != 1 {
			t.Errorf("%s has %d final events", entry, n)
		}
	}
}

// BenchmarkFollow is the whole way of one delivered message from the journal to the file: three events.
func BenchmarkFollow(b *testing.B) {
	e := startEngine(b)
	defer e.stop()
	e.send(b, 0, b.N)
	dir := b.TempDir()
	l, err := New(Options{Dir: dir, Journal: e.journal, Limits: Limits{Compress: None}})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	cancel() // only what is there
	b.ReportAllocs()
	b.ResetTimer()
	if err := l.Run(ctx); err != nil {
		b.Fatal(err)
	}
}
