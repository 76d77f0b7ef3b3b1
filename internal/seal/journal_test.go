package seal_test

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

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/internal/journal/journaltest"
	"github.com/godwit-mta/godwit/internal/seal"
	"github.com/godwit-mta/godwit/smtp"
)

// TestJournal: a sealed journal passes what every journal must, and its campaign of power cuts, kills and failing disks.
func TestJournal(t *testing.T) {
	t.Parallel()
	k := open(t, t.TempDir(), masters(t, seal.NewMaster()))
	sealed := func(o journal.Options) (journal.Journal, error) {
		o.Sealer = k
		return journal.Open(o)
	}
	journaltest.Run(t, sealed)
	journaltest.Campaign(t, sealed, 300)
}

// start opens and runs a journal on the real file system; stop ends it.
func start(t testing.TB, o journal.Options) (l *journal.Log, stop func()) {
	t.Helper()
	l, err := journal.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	return l, func() {
		cancel()
		if err := errors.Join(<-done, l.Close()); err != nil {
			t.Error(err)
		}
	}
}

func appendText(t testing.TB, l *journal.Log, text string) journal.Position {
	t.Helper()
	body := smtp.BodyOf([]byte("Subject: " + text + "\r\n\r\n" + text + "\r\n"))
	defer body.Release()
	b := &journal.Batch{Records: []journal.Record{{Kind: 1, Meta: []byte("envelope of " + text), Body: body}}}
	if err := l.Append(context.Background(), b); err != nil {
		t.Error(err)
		return 0
	}
	return b.Records[0].Position
}

func readText(t testing.TB, l *journal.Log, p journal.Position) string {
	t.Helper()
	r, err := l.Read(context.Background(), p)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Release()
	body, err := io.ReadAll(r.Body.Reader())
	if err != nil {
		t.Fatal(err)
	}
	return string(r.Meta) + "\n" + string(body)
}

func holds(t *testing.T, dir, text string) (names []string) {
	t.Helper()
	for name, content := range snapshot(t, dir) {
		if strings.Contains(content, text) {
			names = append(names, filepath.Base(name))
		}
	}
	return names
}

// TestJournalIsSealed: nothing of a message is found in the directory of a journal, and all of it is read back, also after a
// rotation under load and with clear records from before.
func TestJournalIsSealed(t *testing.T) {
	t.Parallel()
	dir, m := t.TempDir(), masters(t, seal.NewMaster())
	jdir := filepath.Join(dir, "journal")
	want := make(map[journal.Position]string)
	l, stop := start(t, journal.Options{Dir: jdir})
	want[appendText(t, l, "clear as day")] = "clear as day"
	stop()

	k := open(t, dir, m)
	l, stop = start(t, journal.Options{Dir: jdir, Sealer: k})
	var mu sync.Mutex
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 100 {
				text := fmt.Sprintf("c4n4ry %d %d", w, i)
				p := appendText(t, l, text)
				mu.Lock()
				want[p] = text
				mu.Unlock()
			}
		})
	}
	for range 5 {
		if err := k.Rotate(m); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	check := func(l *journal.Log) {
		t.Helper()
		for p, text := range want {
			if got := readText(t, l, p); strings.Count(got, text) != 3 {
				t.Errorf("%#x: %q", uint64(p), got)
			}
		}
		r, err := l.NewReader(0)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for n := 0; ; n++ {
			e, err := r.Next(t.Context(), false)
			if err == io.EOF {
				if n != len(want) {
					t.Errorf("%d entries of %d", n, len(want))
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			size := int64(len("Subject: \r\n\r\n\r\n") + 2*len(want[e.Position]))
			if string(e.Meta) != "envelope of "+want[e.Position] || e.BodySize != size {
				t.Errorf("%#x: %q with %d octets, want %d", uint64(e.Position), e.Meta, e.BodySize, size)
			}
		}
	}
	check(l)
	stop()
	if names := holds(t, jdir, "c4n4ry"); len(names) > 0 {
		t.Errorf("found in %v", names)
	}
	l, stop = start(t, journal.Options{Dir: jdir, Sealer: open(t, dir, m)})
	check(l)
	stop()

	// Without the key it is told, not taken for damage, and not removed.
	bare, err := journal.Open(journal.Options{Dir: jdir, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer bare.Close()
	for p, text := range want {
		if text == "clear as day" {
			readText(t, bare, p)
		} else if _, err := bare.Read(t.Context(), p); !errors.Is(err, journal.ErrSealed) {
			t.Fatalf("without a key: %v", err)
		}
	}
	if d := bare.Damage(); len(d) > 0 {
		t.Errorf("%+v", d)
	}
}

// TestFlippedBit: one bit of a body costs that message and no other.
func TestFlippedBit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	jdir := filepath.Join(dir, "journal")
	k := open(t, dir, masters(t, seal.NewMaster()))
	l, stop := start(t, journal.Options{Dir: jdir, Sealer: k})
	var at []journal.Position
	for i := range 3 {
		at = append(at, appendText(t, l, fmt.Sprint("message ", i)))
	}
	stop()
	names, err := filepath.Glob(filepath.Join(jdir, "*-*.seg"))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	p, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	end := int64(at[2]) & (1<<32 - 1)
	p[end-3] ^= 4 // in the body of the second
	if err := os.WriteFile(names[0], p, 0o600); err != nil {
		t.Fatal(err)
	}
	l, stop = start(t, journal.Options{Dir: jdir, Sealer: k})
	defer stop()
	readText(t, l, at[0])
	readText(t, l, at[2])
	if _, err := l.Read(t.Context(), at[1]); !errors.Is(err, journal.ErrDamaged) || len(l.Damage()) != 1 {
		t.Errorf("%v, %+v", err, l.Damage())
	}
}

// swapped is a Sealer that gives the sealed body of one record to the next, as somebody would who can write the disk and its sums.
type swapped struct {
	*seal.Keyring
	last []byte
}

func (s *swapped) Seal(dst []byte, kind uint8, meta []byte, body *smtp.Body) ([]byte, *smtp.Body) {
	dst, out := s.Keyring.Seal(dst, kind, meta, body)
	var b bytes.Buffer
	_, _ = b.ReadFrom(out.Reader())
	if s.last != nil {
		out.Release()
		out = smtp.BodyOf(s.last)
	}
	s.last = b.Bytes()
	return dst, out
}

func TestSwappedBodies(t *testing.T) {
	t.Parallel()
	k := &swapped{Keyring: open(t, t.TempDir(), masters(t, seal.NewMaster()))}
	l, stop := start(t, journal.Options{Dir: "j", FS: vfs.NewMem(), Sealer: k})
	defer stop()
	first, second := appendText(t, l, "one"), appendText(t, l, "two")
	readText(t, l, first)
	if _, err := l.Read(t.Context(), second); !errors.Is(err, journal.ErrDamaged) {
		t.Errorf("the body of another record: %v", err)
	}
}

// TestSparesAreSealed: blocks of clear segments are not written to again, where their rest would stay.
func TestSparesAreSealed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	jdir := filepath.Join(dir, "journal")
	fill := func(l *journal.Log, text string) {
		t.Helper()
		for range 40 {
			appendText(t, l, strings.Repeat(text+" ", 100))
		}
		if err := l.Roll(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	removeAll := func(l *journal.Log, keep int) {
		t.Helper()
		list := l.Extents()
		for _, e := range list[:len(list)-keep] {
			if err := l.Remove(t.Context(), e.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	l, stop := start(t, journal.Options{Dir: jdir, SegmentSize: 16 << 10})
	fill(l, "c4n4ry")
	removeAll(l, 4)
	stop()
	if names := holds(t, jdir, "c4n4ry"); !strings.Contains(strings.Join(names, " "), ".spare") {
		t.Fatalf("no clear spare to begin with: %v", names)
	}
	l, stop = start(t, journal.Options{Dir: jdir, SegmentSize: 16 << 10, Sealer: open(t, dir, masters(t, seal.NewMaster()))})
	fill(l, "sealed")
	removeAll(l, 1)
	fill(l, "sealed")
	stop()
	if names := holds(t, jdir, "c4n4ry"); len(names) > 0 {
		t.Errorf("found in %v", names)
	}
}

func benchmarkAppend(b *testing.B, o journal.Options) {
	o.Dir = filepath.Join(b.TempDir(), "journal")
	l, stop := start(b, o)
	defer stop()
	body := smtp.BodyOf(random(10_000))
	batch := &journal.Batch{Records: []journal.Record{{Kind: 1, Meta: random(400), Body: body}}}
	b.ReportAllocs()
	b.SetBytes(10_400)
	for b.Loop() {
		if err := l.AppendWritten(context.Background(), batch); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendClear(b *testing.B) { benchmarkAppend(b, journal.Options{}) }
func BenchmarkAppendSealed(b *testing.B) {
	benchmarkAppend(b, journal.Options{Sealer: open(b, b.TempDir(), masters(b, seal.NewMaster()))})
}
