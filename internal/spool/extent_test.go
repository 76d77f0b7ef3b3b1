package spool

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/journal"
)

func small(waste int64) func(*rig) {
	return func(r *rig) {
		r.segment = 16 << 10
		r.opts.Waste = waste
	}
}

// fill accepts and delivers n messages.
func (r *rig) fill(n int) {
	r.Helper()
	for range n {
		m := r.accept(r.message("a.example"))
		r.settle(r.taken(m), delivered())
	}
}

func (r *rig) reclaim() {
	r.Helper()
	r.checkpoint()
	if err := r.spool.reclaim(context.Background()); err != nil {
		r.Error(err)
	}
}

func TestDeadExtentsAreRemoved(t *testing.T) {
	t.Parallel()
	r := newRig(t, vfs.NewMem(), small(-1))
	view := r.spool.RegisterView("events")
	r.fill(100)
	before := len(r.journal.Extents())
	if before < 3 {
		t.Fatalf("%d extents", before)
	}
	r.reclaim()
	if n := len(r.journal.Extents()); n != before {
		t.Errorf("%d of %d extents are left before the view has read them", n, before)
	}
	view.Advance(r.journal.Extents()[0].End)
	r.reclaim()
	if n := len(r.journal.Extents()); n != before-1 {
		t.Errorf("%d of %d extents are left, the view is past the first", n, before)
	}
	view.Advance(r.journal.End())
	r.reclaim()
	if n := len(r.journal.Extents()); n > 2 { // the current one, and one that the watermark may be in
		t.Errorf("%d extents are left", n)
	}
	view.Close()
	r.reopen()
	r.fill(100)
	r.reclaim()
	if n := len(r.journal.Extents()); n > 2 {
		t.Errorf("%d extents are left after a restart", n)
	}
	if st := r.sums(); st.Delivered != 200 || st.LiveBytes != 0 {
		t.Errorf("%+v", st)
	}
}

// An entry that waits keeps its extent, but with much waste its message moves on; nothing is forgotten, even if the
// index is lost.
func TestOldMailMovesOn(t *testing.T) {
	t.Parallel()
	for _, lose := range []bool{false, true} {
		r := newRig(t, vfs.NewMem(), small(4<<10))
		due := time.Now().Add(time.Hour)
		old := r.accept(r.message("old.example", "b.example", "c.example"))
		r.settle(r.taken(old)[:1], deferred(due))
		r.fill(10)
		r.settle(r.taken(old)[1:2], delivered())
		r.fill(100)
		if _, err := r.spool.Hold(context.Background(), Filter{Domain: "c.example"}, "why"); err != nil {
			t.Fatal(err)
		}
		r.spool.Return(r.taken(old)[2:])
		r.fill(100)
		for range 6 {
			r.reclaim()
		}
		if first := r.journal.Extents()[0]; first.ID == 1 {
			t.Errorf("the first extent is still there: %+v", r.journal.Extents())
		}
		if n := len(r.journal.Extents()); n > 5 {
			t.Errorf("%d extents", n)
		}
		r.close()
		if lose {
			if err := r.fs.RemoveAll("/spool"); err != nil {
				t.Fatal(err)
			}
		}
		r.open()
		st := r.sums()
		if st.Waiting != 1 || st.Held != 1 || !lose && st.Delivered != 211 {
			t.Errorf("index lost %v: %+v", lose, st)
		}
		e := r.one(Filter{Domain: "old.example"})
		if micros(e.Due) != micros(due) || e.Attempts != 1 {
			t.Errorf("index lost %v: %+v", lose, e)
		}
		if e := r.one(Filter{Domain: "c.example"}); e.HoldReason != "why" {
			t.Errorf("index lost %v: %+v", lose, e)
		}
		body, err := r.spool.Body(context.Background(), e.Message)
		if err != nil {
			t.Fatal(err)
		}
		body.Release()
	}
}

// A large old message keeps its extent; what others say of dead messages of that extent is carried on.
func TestStatesAreCarried(t *testing.T) {
	t.Parallel()
	r := newRig(t, vfs.NewMem(), small(8<<10))
	var old []*Message
	for range 20 { // fills much of the first extent
		old = append(old, r.accept(r.message("old.example")))
	}
	for _, m := range old[:15] {
		r.settle(r.taken(m), deferred(time.Now().Add(time.Hour)))
	}
	for len(r.journal.Extents()) < 2 {
		r.fill(1)
	}
	for _, m := range old[15:] { // final records elsewhere
		r.settle(r.taken(m), delivered())
	}
	if n, err := r.spool.Finish(context.Background(), Filter{Entries: []EntryID{{old[0].ID, 0}}},
		Result{Outcome: Cancelled, Reason: event.Operator}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	second := Filter{Entries: []EntryID{{old[1].ID, 0}}}
	if n, err := r.spool.Hold(context.Background(), second, "why"); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	for range 8 {
		r.fill(40)
		r.reclaim()
	}
	xs := r.journal.Extents()
	if xs[0].ID != 1 || len(xs) > 5 || xs[1].ID == 2 {
		t.Fatalf("extents %+v", xs)
	}
	r.close()
	if err := r.fs.RemoveAll("/spool"); err != nil {
		t.Fatal(err)
	}
	r.open()
	if st := r.sums(); st.Waiting != 13 || st.Held != 1 {
		t.Errorf("%+v", st)
	}
}

func TestExtentWithManyStrangers(t *testing.T) {
	t.Parallel()
	var x extent
	for i := range maxStrangers + 1 {
		x.note([12]byte{byte(i), byte(i >> 8)}, origin{birth: 1})
	}
	if !x.crowded || x.strangers != nil {
		t.Errorf("crowded %v, %d strangers", x.crowded, len(x.strangers))
	}
	older := []journal.Extent{{ID: 4}, {ID: 6}}
	for _, tt := range []struct {
		o    origin
		want bool
	}{
		{origin{birth: 4}, true}, {origin{birth: 5}, false}, {origin{birth: 5, moved: true}, true},
		{origin{birth: 6, moved: true}, true},
		{origin{birth: 7, moved: true}, false}, {origin{moved: true}, true},
	} {
		if got := tt.o.exists(older); got != tt.want {
			t.Errorf("%+v: %v", tt.o, got)
		}
	}
}

// An extent that the file system does not let go is there at the next start: what younger ones say of its messages must
// stay too, or an index made anew would bring back what was delivered.
func TestExtentThatStaysKeepsWhatEndedItsMail(t *testing.T) {
	t.Parallel()
	for _, waste := range []int64{-1, 1} {
		var stays atomic.Value // a file's name
		stays.Store("")
		mem := vfs.NewMem()
		fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if name := stays.Load().(string); name != "" && op.Kind == errorfs.OpRemove && strings.HasSuffix(op.Path, name) {
				return errorfs.ErrInjected
			}
			return nil
		}))
		r := newRig(t, fs, small(waste))
		first := r.accept(r.message("old.example"))
		for len(r.journal.Extents()) < 2 {
			r.fill(1)
		}
		r.settle(r.taken(first), delivered())
		r.fill(100)
		names, err := mem.List("/journal")
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(names)
		stays.Store(names[slices.IndexFunc(names, func(n string) bool { return strings.HasSuffix(n, ".seg") })])
		r.reclaim()
		before := r.journal.End()
		for range 5 {
			r.reclaim()
		}
		if waste > 0 && r.journal.End() != before {
			t.Errorf("what was carried once is carried again")
		}
		if r.journal.Extents()[0].ID != 1 {
			t.Fatal("the first extent is gone")
		}
		r.close()
		if err := r.fs.RemoveAll("/spool"); err != nil {
			t.Fatal(err)
		}
		stays.Store("")
		r.open()
		if st := r.sums(); st.Queued() != 0 {
			t.Errorf("waste %d: %d entries are back that were delivered", waste, st.Queued())
		}
		r.close()
	}
}

// What is remembered of a message that was not moved when a record of it was written says nothing of where it is by now:
// a copy in an extent between may bring it back, when the index is made anew, unless its end is kept as long.
func TestEndOfMovedMailIsKept(t *testing.T) {
	t.Parallel()
	r := newRig(t, vfs.NewMem(), small(-1))
	roll := func() journal.Extent {
		for n := len(r.journal.Extents()); len(r.journal.Extents()) == n; {
			r.fill(1)
		}
		xs := r.journal.Extents()
		return xs[len(xs)-2]
	}
	m := r.accept(r.message("old.example"))
	roll()
	now := time.Now()
	r.settle(r.taken(m), deferred(now))
	second := roll()
	if _, err := r.spool.move(context.Background(), m.ID, r.home(m)); err != nil {
		t.Fatal(err)
	}
	copied := roll()
	r.settle(r.claim("old.example", now.Add(time.Second), 1), delivered())
	r.checkpoint()
	if err := r.spool.rewrite(context.Background(), second); err != nil {
		t.Fatal(err)
	}
	r.spool.mu.Lock()
	defer r.spool.mu.Unlock()
	xs := r.journal.Extents()
	last := r.spool.mu.extents[xs[len(xs)-1].ID]
	if from, ok := last.strangers[m.ID]; !ok || !from.exists([]journal.Extent{copied}) {
		t.Errorf("the message's end may go before its copy in extent %d: %+v, %v", copied.ID, from, ok)
	}
}

// home returns where the body of a message is.
func (r *rig) home(m *Message) journal.Position {
	r.Helper()
	v, err := r.spool.view(m.ID)
	if err != nil {
		r.Fatal(err)
	}
	return v.pos
}
