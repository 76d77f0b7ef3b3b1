package journaltest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/godwit-mta/godwit/internal/journal"
)

// Run checks that an engine behaves as [journal.Journal] says.
func Run(t *testing.T, open Open) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Open)
	}{
		{"AppendRead", testAppendRead},
		{"Reuse", testReuse},
		{"Concurrent", testConcurrent},
		{"Order", testOrder},
		{"Reopen", testReopen},
		{"Holder", testHolder},
		{"Follow", testFollow},
		{"FollowEnds", testFollowEnds},
		{"Remove", testRemove},
		{"RemoveUnderReader", testRemoveUnderReader},
		{"Lazy", testLazy},
		{"Written", testWritten},
		{"Room", testRoom},
		{"Drain", testDrain},
		{"NeverRun", testNeverRun},
		{"TooLarge", testTooLarge},
		{"NoRecord", testNoRecord},
		{"Fails", testFails},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.test(t, open)
		})
	}
}

func text(n int) item { return item{kind: journal.Kind(n), meta: fmt.Appendf(nil, "record %d", n)} }

func mail(n, size int) item {
	i := text(n)
	i.body, i.hasBody = []byte(strings.Repeat("0123456789abcdef\r\n", size/18+1)[:size]), true
	return i
}

func testAppendRead(t *testing.T, open Open) {
	j := begin(t, open, journal.Options{SegmentSize: 256 << 10})
	dotted, eight := mail(1, 100), mail(2, 100)
	dotted.body[0], eight.body[7] = '.', 0xe9
	items := []item{
		{kind: 0}, {kind: 255, meta: []byte{0}}, {kind: 7, hasBody: true}, dotted, eight,
		mail(3, 1), mail(4, 10_000), mail(5, 16<<10), mail(6, 16<<10+1), mail(7, 100_000), mail(8, 1<<20),
		{kind: 9, meta: []byte(strings.Repeat("m", 40_000))}, {kind: 9, meta: []byte(strings.Repeat("m", 3<<20)),
			hasBody: true},
	}
	var positions []journal.Position
	for _, i := range items {
		positions = append(positions, add(t, j, i)...)
	}
	positions = append(positions, add(t, j, items...)...) // as one batch
	items = append(items, items...)
	if !slices.IsSorted(positions) || positions[0] == 0 {
		t.Errorf("positions %v do not grow", positions)
	}
	got := mustEntries(t, j, 0)
	if len(got) != len(items) {
		t.Fatalf("%d entries, want %d", len(got), len(items))
	}
	for n, i := range items {
		if err := same(t.Context(), j, positions[n], i); err != nil {
			t.Error(err)
		}
		e := got[n]
		if e.Position != positions[n] || e.Kind != i.kind || string(e.Meta) != string(i.meta) ||
			e.BodySize != int64(len(i.body)) || e.HasBody != i.hasBody {
			t.Errorf("entry %d differs", n)
		}
		if rest := mustEntries(t, j, e.Next); len(rest) != len(items)-n-1 {
			t.Errorf("behind entry %d there are %d, want %d", n, len(rest), len(items)-n-1)
		}
		if !slices.ContainsFunc(j.Extents(), func(x journal.Extent) bool {
			return x.ID == j.ExtentOf(e.Position) && x.First <= e.Position && e.Next <= x.End
		}) {
			t.Errorf("entry %d is in no extent", n)
		}
	}
	if last := got[len(got)-1].Next; last != j.End() {
		t.Errorf("End is %#x, the last entry ends at %#x", j.End(), last)
	}
	if err := j.Append(t.Context(), &journal.Batch{}); err != nil {
		t.Errorf("empty batch: %v", err)
	}
}

// A batch may be used again when it is finished.
func testReuse(t *testing.T, open Open) {
	j := begin(t, open, journal.Options{})
	b := &journal.Batch{}
	var last journal.Position
	for n := range 100 {
		b.Records = append(b.Records[:0], text(n).record())
		if err := j.Append(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if p := b.Records[0].Position; p <= last {
			t.Fatalf("position %#x after %#x", p, last)
		}
		last = b.Records[0].Position
	}
	if n := len(mustEntries(t, j, 0)); n != 100 {
		t.Errorf("%d entries", n)
	}
}

func testConcurrent(t *testing.T, open Open) {
	const writers, each = 16, 100
	j := begin(t, open, journal.Options{SegmentSize: 64 << 10, PendingBytes: 8 << 10})
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for n := range each {
				b, release := batchOf(mail(w, 50+n), text(w))
				err := j.Append(t.Context(), b)
				release()
				if err != nil {
					t.Error(err)
					return
				}
				if err := same(t.Context(), j, b.Records[0].Position, mail(w, 50+n)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	next := make([]int64, writers)
	got := mustEntries(t, j, 0)
	for i := 0; i < len(got); i += 2 {
		w := got[i].Kind
		if got[i].BodySize != 50+next[w] || got[i+1].Kind != w || got[i+1].HasBody {
			t.Fatalf("entry %d of writer %d is out of order", i, w)
		}
		next[w]++
	}
	if len(got) != 2*writers*each {
		t.Errorf("%d entries, want %d", len(got), 2*writers*each)
	}
}

// Verdicts come in the order of submission, whatever is lazy.
func testOrder(t *testing.T, open Open) {
	j := begin(t, open, journal.Options{SegmentSize: 32 << 10})
	const n = 500
	verdicts := make(chan int, n)
	for i := range n {
		b, release := batchOf(mail(i, 100))
		b.Lazy = i%3 == 0
		b.Done = func(_ *journal.Batch, err error) {
			if err != nil {
				t.Error(err)
			}
			release()
			verdicts <- i
		}
		j.Submit(b)
	}
	for i := range n {
		if got := <-verdicts; got != i {
			t.Fatalf("verdict of batch %d came when that of %d was due", got, i)
		}
	}
	for i, e := range mustEntries(t, j, 0) {
		if e.Kind != journal.Kind(i) {
			t.Fatalf("entry %d is of kind %d", i, e.Kind)
		}
	}
}

func testReopen(t *testing.T, open Open) {
	o := journal.Options{FS: vfs.NewMem(), SegmentSize: 16 << 10, Owner: "node-1", Epoch: 3}
	var all []journal.Position
	for life := range 4 {
		j := start(mustOpen(t, open, o))
		if j.Owner() != "node-1" || j.Epoch() != 3 {
			t.Errorf("owner %q, epoch %d", j.Owner(), j.Epoch())
		}
		got := mustEntries(t, j, 0)
		if len(got) != len(all) {
			t.Fatalf("life %d: %d entries, want %d", life, len(got), len(all))
		}
		for n, e := range got {
			if e.Position != all[n] {
				t.Errorf("life %d: entry %d is at %#x, was at %#x", life, n, e.Position, all[n])
			}
			if err := same(t.Context(), j, e.Position, mail(n, 1000)); err != nil {
				t.Error(err)
			}
		}
		for range 20 * life {
			end := j.End()
			p := add(t, j, mail(len(all), 1000))
			if p[0] < end {
				t.Errorf("position %#x is below the end %#x before it", p[0], end)
			}
			all = append(all, p...)
		}
		if err := j.stop(); err != nil {
			t.Fatal(err)
		}
		if d := j.Damage(); len(d) > 0 {
			t.Errorf("damage %+v", d)
		}
	}
}

func testHolder(t *testing.T, open Open) {
	o := journal.Options{FS: vfs.NewMem(), Dir: dir, Owner: "me", Epoch: 5}
	j := start(mustOpen(t, open, o))
	if _, err := open(o); !errors.Is(err, journal.ErrLocked) {
		t.Errorf("second open: %v, want ErrLocked", err)
	}
	if err := j.stop(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		owner string
		epoch uint64
		want  error
		got   uint64
	}{
		{"me", 4, journal.ErrFenced, 0},
		{"you", 9, journal.ErrOwner, 0},
		{"me", 5, nil, 5},
		{"", 0, nil, 5},
		{"me", 6, nil, 6},
		{"me", 5, journal.ErrFenced, 0}, // although epoch 6 has written nothing
		{"", 0, nil, 6},
	} {
		o.Owner, o.Epoch = c.owner, c.epoch
		j, err := open(o)
		if !errors.Is(err, c.want) {
			t.Errorf("owner %q epoch %d: %v, want %v", c.owner, c.epoch, err, c.want)
		}
		if err != nil {
			continue
		}
		if j.Owner() != "me" || j.Epoch() != c.got {
			t.Errorf("owner %q epoch %d, want me and %d", j.Owner(), j.Epoch(), c.got)
		}
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A reader that waits sees each record once, when it is durable, over all extents.
func testFollow(t *testing.T, open Open) {
	j := begin(t, open, journal.Options{SegmentSize: 16 << 10})
	const n = 300
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			r, err := j.NewReader(0)
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Close()
			for i := range n {
				e, err := r.Next(t.Context(), true)
				if err != nil {
					t.Error(err)
					return
				}
				if e.Kind != journal.Kind(i) || e.Next > j.End() {
					t.Errorf("entry %d: kind %d, next %#x, end %#x", i, e.Kind, e.Next, j.End())
				}
			}
			if _, err := r.Next(t.Context(), false); err != io.EOF {
				t.Errorf("at the end: %v", err)
			}
		})
	}
	for i := range n {
		add(t, j, mail(i, 500))
	}
	wg.Wait()
}

func testFollowEnds(t *testing.T, open Open) {
	synctest.Test(t, func(t *testing.T) {
		j := start(mustOpen(t, open, journal.Options{}))
		r, err := j.NewReader(0)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.Next(ctx, true); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiting: %v", err)
		}
		add(t, j, text(1))
		if e, err := r.Next(t.Context(), true); err != nil || e.Kind != 1 {
			t.Errorf("after waiting: %v", err)
		}
		ended := make(chan error)
		go func() {
			_, err := r.Next(t.Context(), true)
			ended <- err
		}()
		synctest.Wait()
		if err := j.stop(); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, journal.ErrClosed) {
			t.Errorf("waiting at Close: %v", err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
}

func testRemove(t *testing.T, open Open) {
	o := journal.Options{FS: vfs.NewMem(), SegmentSize: 16 << 10}
	j := start(mustOpen(t, open, o))
	var all []journal.Position
	for i := range 60 {
		all = append(all, add(t, j, mail(i, 1000))...)
	}
	extents := j.Extents()
	last := extents[len(extents)-1]
	if last.Sealed || len(extents) < 5 {
		t.Fatalf("extents %+v", extents)
	}
	if err := j.Remove(t.Context(), last.ID); !errors.Is(err, journal.ErrInUse) {
		t.Errorf("removing the last: %v", err)
	}
	if err := j.Roll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := j.Roll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(j.Extents()); n != len(extents)+1 {
		t.Errorf("%d extents after rolling one with and one without records, want %d", n, len(extents)+1)
	}
	removed := map[journal.ExtentID]bool{extents[0].ID: true, extents[2].ID: true, last.ID: true}
	for id := range removed {
		for range 2 {
			if err := j.Remove(t.Context(), id); err != nil {
				t.Errorf("removing: %v", err)
			}
		}
	}
	check := func(j journal.Journal) {
		t.Helper()
		var want []journal.Position
		for n, p := range all {
			if removed[j.ExtentOf(p)] {
				if _, err := j.Read(t.Context(), p); !errors.Is(err, journal.ErrRemoved) {
					t.Errorf("reading what was removed: %v", err)
				}
			} else {
				want = append(want, p)
				if err := same(t.Context(), j, p, mail(n, 1000)); err != nil {
					t.Error(err)
				}
			}
		}
		for _, from := range []journal.Position{0, extents[0].First, all[3]} {
			var got []journal.Position
			for _, e := range mustEntries(t, j, from) {
				got = append(got, e.Position)
			}
			if !slices.Equal(got, want) {
				t.Errorf("from %#x: %d entries, want %d", from, len(got), len(want))
			}
		}
		if slices.ContainsFunc(j.Extents(), func(e journal.Extent) bool { return removed[e.ID] }) {
			t.Error("a removed extent is listed")
		}
	}
	check(j)
	// What is made of removed extents must not be taken for them.
	more := 0
	for more < 60 {
		all = append(all, add(t, j, mail(60+more, 1000))...)
		more++
	}
	check(j)
	if err := j.stop(); err != nil {
		t.Fatal(err)
	}
	again := mustOpen(t, open, o)
	check(again)
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

func testRemoveUnderReader(t *testing.T, open Open) {
	j := begin(t, open, journal.Options{SegmentSize: 16 << 10})
	for i := range 30 {
		add(t, j, mail(i, 1000))
	}
	r, err := j.NewReader(0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	e, err := r.Next(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Remove(t.Context(), j.ExtentOf(e.Position)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(t.Context(), false); !errors.Is(err, journal.ErrRemoved) {
		t.Errorf("next in a removed extent: %v", err)
	}
	if e, err := r.Next(t.Context(), false); err != nil || e.Position != j.Extents()[0].First {
		t.Errorf("behind the removed extent: %+v, %v", e, err)
	}
	if d := j.Damage(); len(d) > 0 {
		t.Errorf("damage %+v", d)
	}
}

// A lazy batch becomes durable with the next that is not, or by itself within LazyDelay.
func testLazy(t *testing.T, open Open) {
	synctest.Test(t, func(t *testing.T) {
		j := start(mustOpen(t, open, journal.Options{}))
		submit := func() <-chan time.Duration {
			done := make(chan time.Duration, 1)
			begin := time.Now()
			b, _ := batchOf(text(1))
			b.Lazy, b.Done = true, func(_ *journal.Batch, err error) {
				if err != nil {
					t.Error(err)
				}
				done <- time.Since(begin)
			}
			j.Submit(b)
			return done
		}
		if d := <-submit(); d == 0 || d > 10*time.Millisecond {
			t.Errorf("durable after %v", d)
		}
		done := submit()
		add(t, j, text(2))
		if d := <-done; d != 0 {
			t.Errorf("durable %v after one that was not lazy", d)
		}
		if err := j.stop(); err != nil {
			t.Error(err)
		}
	})
}

// AppendWritten does not wait for the sync, which follows within LazyDelay.
func testWritten(t *testing.T, open Open) {
	synctest.Test(t, func(t *testing.T) {
		j := start(mustOpen(t, open, journal.Options{}))
		before := j.End()
		b, _ := batchOf(text(1))
		if err := j.AppendWritten(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		p := b.Records[0].Position
		if p < before || p == 0 {
			t.Errorf("position %#x, the end was %#x", p, before)
		}
		time.Sleep(11 * time.Millisecond)
		synctest.Wait()
		if j.End() <= p {
			t.Error("not durable after 11 ms")
		}
		if err := j.stop(); err != nil {
			t.Error(err)
		}
	})
}

func testRoom(t *testing.T, open Open) {
	synctest.Test(t, func(t *testing.T) {
		j := mustOpen(t, open, journal.Options{PendingBytes: 10_000})
		var wg sync.WaitGroup
		wg.Go(func() {
			big, release := batchOf(mail(1, 20_000)) // larger than all the room: goes alone
			defer release()
			if err := j.Append(t.Context(), big); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		b, release := batchOf(mail(2, 100))
		if err := j.Append(ctx, b); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("append without room: %v", err)
		}
		release()
		submitted, release := batchOf(mail(3, 100))
		wg.Add(1)
		submitted.Done = func(_ *journal.Batch, err error) {
			if err != nil {
				t.Error(err)
			}
			wg.Done()
		}
		j.Submit(submitted)
		r := start(j)
		wg.Wait()
		release()
		if n := len(mustEntries(t, j, 0)); n != 2 {
			t.Errorf("%d entries, want 2", n)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}

// When Run is told to end, what was handed over becomes durable; what comes later is refused.
func testDrain(t *testing.T, open Open) {
	j := start(mustOpen(t, open, journal.Options{}))
	const n = 50
	verdicts := make(chan error, n+1)
	for i := range n {
		b, _ := batchOf(text(i))
		b.Lazy, b.Done = true, func(_ *journal.Batch, err error) { verdicts <- err }
		j.Submit(b)
	}
	j.cancel()
	if err := <-j.ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	j.ended <- nil
	for range n {
		if err := <-verdicts; err != nil {
			t.Errorf("drained batch: %v", err)
		}
	}
	b, _ := batchOf(text(1))
	if err := j.Append(t.Context(), b); !errors.Is(err, journal.ErrClosed) {
		t.Errorf("append after Run: %v", err)
	}
	b.Done = func(_ *journal.Batch, err error) { verdicts <- err }
	j.Submit(b)
	if err := <-verdicts; !errors.Is(err, journal.ErrClosed) {
		t.Errorf("submit after Run: %v", err)
	}
	if err := j.Roll(t.Context()); !errors.Is(err, journal.ErrClosed) {
		t.Errorf("roll after Run: %v", err)
	}
	if got := len(mustEntries(t, j, 0)); got != n {
		t.Errorf("%d entries, want %d", got, n)
	}
	if err := j.stop(); err != nil {
		t.Error(err)
	}
}

func testNeverRun(t *testing.T, open Open) {
	o := journal.Options{FS: vfs.NewMem()}
	j := mustOpen(t, open, o)
	var verdict error
	b, _ := batchOf(mail(1, 10))
	b.Done = func(_ *journal.Batch, err error) { verdict = err }
	j.Submit(b)
	for range 2 {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}
	if !errors.Is(verdict, journal.ErrClosed) {
		t.Errorf("verdict %v", verdict)
	}
	j = mustOpen(t, open, o)
	if n := len(mustEntries(t, j, 0)); n != 0 {
		t.Errorf("%d entries", n)
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}

func testTooLarge(t *testing.T, open Open) {
	j := begin(t, open, journal.Options{})
	meta := &journal.Batch{Records: []journal.Record{text(1).record(), {Meta: make([]byte, journal.MaxMeta+1)}}}
	many := &journal.Batch{Records: make([]journal.Record, journal.MaxRecords+1)}
	for _, b := range []*journal.Batch{meta, many} {
		if err := j.Append(t.Context(), b); !errors.Is(err, journal.ErrTooLarge) {
			t.Errorf("append: %v", err)
		}
		verdict := make(chan error)
		b.Done = func(_ *journal.Batch, err error) { verdict <- err }
		j.Submit(b)
		if err := <-verdict; !errors.Is(err, journal.ErrTooLarge) {
			t.Errorf("submit: %v", err)
		}
	}
	add(t, j, text(2))
	if n := len(mustEntries(t, j, 0)); n != 1 {
		t.Errorf("%d entries, want 1", n)
	}
}

func testNoRecord(t *testing.T, open Open) {
	j := begin(t, open, journal.Options{})
	for _, p := range []journal.Position{0, 1, j.End(), j.End() + 1, 1 << 63} {
		if _, err := j.Read(t.Context(), p); !errors.Is(err, journal.ErrNoRecord) {
			t.Errorf("reading %#x: %v", p, err)
		}
	}
	if _, err := j.NewReader(j.End() + 1); !errors.Is(err, journal.ErrNoRecord) {
		t.Errorf("reader behind the end: %v", err)
	}
	add(t, j, text(1))
	if _, err := j.Read(t.Context(), j.End()); !errors.Is(err, journal.ErrNoRecord) {
		t.Errorf("reading the end: %v", err)
	}
}

// After a failed sync nothing is acknowledged, everybody is told, and what was durable before can still be read.
func testFails(t *testing.T, open Open) {
	synctest.Test(t, func(t *testing.T) {
		var sick bool
		disk := vfs.NewMem()
		o := journal.Options{FS: errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if sick && (op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSync) {
				return errorfs.ErrInjected
			}
			return nil
		}))}
		j := start(mustOpen(t, open, o))
		p := add(t, j, mail(1, 100))
		if j.Err() != nil {
			t.Error(j.Err())
		}
		var verdicts []error
		for range 3 {
			b, _ := batchOf(mail(2, 100))
			b.Lazy, b.Done = true, func(_ *journal.Batch, err error) { verdicts = append(verdicts, err) }
			j.Submit(b)
		}
		r, err := j.NewReader(0)
		if err != nil {
			t.Fatal(err)
		}
		sick = true
		b, _ := batchOf(text(3))
		verdicts = append(verdicts, j.Append(t.Context(), b))
		<-j.Failed()
		sick = false
		verdicts = append(verdicts, j.Append(t.Context(), b), j.AppendWritten(t.Context(), b), j.Roll(t.Context()),
			j.Err())
		for n, err := range verdicts {
			if !errors.Is(err, journal.ErrFailed) || !errors.Is(err, errorfs.ErrInjected) {
				t.Errorf("verdict %d: %v", n, err)
			}
		}
		if len(verdicts) != 8 {
			t.Errorf("%d verdicts", len(verdicts))
		}
		if err := same(t.Context(), j, p[0], mail(1, 100)); err != nil {
			t.Error(err)
		}
		if _, err := r.Next(t.Context(), true); err != nil {
			t.Errorf("reading after the failure: %v", err)
		}
		if _, err := r.Next(t.Context(), true); !errors.Is(err, journal.ErrFailed) {
			t.Errorf("following after the failure: %v", err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if err := j.stop(); err != nil {
			t.Error(err)
		}
	})
}
