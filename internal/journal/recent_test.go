package journal

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/godwit-mta/godwit/smtp"
)

// told is an Entry whose Meta is the test's own.
func told(e Entry) Entry {
	e.Meta = bytes.Clone(e.Meta)
	return e
}

func drain(t *testing.T, r Reader, limit int) (all []Entry) {
	t.Helper()
	for len(all) < limit {
		e, err := r.Next(context.Background(), false)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, told(e))
	}
	return all
}

// TestRecentTellsWhatTheFileTells follows a journal with a reader that is at times close behind and at times far, and
// compares all it was told with what is in the files.
func TestRecentTellsWhatTheFileTells(t *testing.T) {
	t.Parallel()
	l, err := Open(Options{Dir: t.TempDir(), SegmentSize: 1 << 20, MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	body := smtp.BodyOf(make([]byte, 5_000))
	defer body.Release()

	random := rand.New(rand.NewPCG(1, 2))
	text := make([]byte, 80<<10)
	for i := range text {
		text[i] = byte(random.Uint32())
	}
	follower, err := l.NewReader(0)
	if err != nil {
		t.Fatal(err)
	}
	defer follower.Close()
	var followed []Entry
	close := 0
	for round := range 600 {
		b := Batch{Records: make([]Record, 1+random.IntN(4))}
		for i := range b.Records {
			r := &b.Records[i]
			r.Kind = Kind(random.IntN(9))
			size := random.IntN(2000)
			if random.IntN(200) == 0 {
				size = len(text) // more than memory takes
			}
			r.Meta = text[:size]
			if random.IntN(2) == 0 {
				r.Body = body
			}
		}
		if err := l.Append(ctx, &b); err != nil {
			t.Fatal(err)
		}
		last := b.Records[len(b.Records)-1]
		if at := (place{}); len(last.Meta) < len(text) && l.recent.search(last.Position, &at) {
			close++
		}
		switch {
		case round > 300 && round < 500: // falls behind
		case round%7 == 0:
			followed = append(followed, drain(t, follower, random.IntN(60))...)
		default:
			followed = append(followed, drain(t, follower, 1000)...)
		}
	}
	followed = append(followed, drain(t, follower, 1<<20)...)
	if close < 500 {
		t.Errorf("the newest record was in memory in %d of 600 rounds", close)
	}

	l.recent.mu.Lock()
	l.recent.forget()
	l.recent.mu.Unlock()
	fresh, err := l.NewReader(0)
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	stored := drain(t, fresh, 1<<20)
	if len(stored) != len(followed) {
		t.Fatalf("followed %d records, the files have %d", len(followed), len(stored))
	}
	for i := range stored {
		a, b := followed[i], stored[i]
		if !bytes.Equal(a.Meta, b.Meta) {
			t.Fatalf("record %d at %#x: metas differ", i, uint64(b.Position))
		}
		a.Meta, b.Meta = nil, nil
		if a.Position != b.Position || a.Next != b.Next || a.Kind != b.Kind || a.BodySize != b.BodySize ||
			a.HasBody != b.HasBody {
			t.Fatalf("record %d: followed %+v, the files have %+v", i, a, b)
		}
	}
}

// BenchmarkFollow is what it costs a view close behind the journal to be told a record.
func BenchmarkFollow(b *testing.B) {
	var r recent
	r.wanted.Store(true)
	records := make([]Record, 1000)
	var at Position
	for i := range records {
		records[i] = Record{Position: at, wire: wire{meta: make([]byte, 300), bodySize: 10_000}}
		at += Position(recordHeaderSize + 300 + 10_000)
	}
	r.put(records[:1000])
	b.ReportAllocs()
	var f follower
	at = 0
	for b.Loop() {
		e, ok := f.next(&r, at)
		if !ok {
			b.Fatal("not in memory")
		}
		if at = e.Next; at > records[len(records)-1].Position {
			at = 0
		}
	}
}
