package spool

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

func TestWishes(t *testing.T) {
	t.Parallel()
	cancel := Result{Outcome: Cancelled, Reason: event.Operator}
	later := func() Result { return deferred(time.Now().Add(time.Hour)) }
	tests := []struct {
		name   string
		wishes func(ctx context.Context, s *Spool, f Filter) []error
		end    func(r *rig, es []*Entry)
		want   State // 0: gone
	}{
		{"held after a deferral", hold, func(r *rig, es []*Entry) { r.settle(es, later()) }, Held},
		{"held after a return", hold, func(r *rig, es []*Entry) { r.spool.Return(es) }, Held},
		{"held after a crash", hold, func(r *rig, es []*Entry) { r.reopen() }, Held},
		{"no hold after delivery", hold, func(r *rig, es []*Entry) { r.settle(es, delivered()) }, 0},
		{"hold taken back", func(ctx context.Context, s *Spool, f Filter) []error {
			_, err := s.Release(ctx, f)
			return append(hold(ctx, s, f), err, second(s.Release(ctx, f)))
		}, func(r *rig, es []*Entry) { r.settle(es, later()) }, Waiting},
		{"cancelled after a deferral", func(ctx context.Context, s *Spool, f Filter) []error {
			return []error{second(s.Finish(ctx, f, cancel))}
		}, func(r *rig, es []*Entry) { r.settle(es, later()) }, 0},
		{"cancelled after a crash", func(ctx context.Context, s *Spool, f Filter) []error {
			return []error{second(s.Finish(ctx, f, cancel))}
		}, func(r *rig, es []*Entry) { r.reopen() }, 0},
		{"cancelled after a hold", func(ctx context.Context, s *Spool, f Filter) []error {
			return append(hold(ctx, s, f), second(s.Finish(ctx, f, cancel)))
		}, func(r *rig, es []*Entry) { r.spool.Return(es) }, 0},
		{"returned held", func(context.Context, *Spool, Filter) []error { return nil },
			func(r *rig, es []*Entry) { r.spool.ReturnHeld(es, "rule") }, Held},
		{"not rescheduled", func(ctx context.Context, s *Spool, f Filter) []error {
			n, err := s.Reschedule(ctx, f, time.Now())
			if n != 0 {
				err = errors.New("a claimed entry was rescheduled")
			}
			return []error{err}
		}, func(r *rig, es []*Entry) { r.settle(es, later()) }, Waiting},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, vfs.NewMem(), nil)
			m := r.accept(r.message("a.example"))
			f := Filter{Messages: []message.ID{m.ID}}
			if err := errors.Join(tt.wishes(context.Background(), r.spool, f)...); err != nil {
				t.Fatal(err)
			}
			if e := r.one(Filter{}); e.State != Claimed {
				t.Errorf("in flight, but %s", e.State)
			}
			tt.end(r, r.taken(m))
			check := func() {
				t.Helper()
				if st := r.sums(); tt.want == 0 && st.Queued() != 0 || tt.want != 0 && st.Queued() != 1 {
					t.Errorf("%+v", st)
				}
				if tt.want != 0 {
					if e := r.one(Filter{}); e.State != tt.want || e.Wish != NoWish {
						t.Errorf("%+v, want %s", e, tt.want)
					}
				}
			}
			check()
			r.reopen()
			check()
		})
	}
}

func hold(ctx context.Context, s *Spool, f Filter) []error {
	return []error{second(s.Hold(ctx, f, "operator"))}
}

// second is the error of a count that must be one.
func second(n int, err error) error {
	if n != 1 && err == nil {
		return errors.New("not one entry was changed")
	}
	return err
}

func TestFilters(t *testing.T) {
	t.Parallel()
	r := newRig(t, vfs.NewMem(), nil)
	var ms []*Message
	for i, domains := range [][]string{
		{"a.example", "b.example"}, {"a.example"}, {"b.example", "c.example", "b.example"},
	} {
		m := r.message(domains...)
		if i == 1 {
			m.Tenant, m.Stream, m.Queues[0].Tenant = "u", "x", "u"
			m.From.Path = smtp.Path{Local: "From", Domain: "SENDER.example"}
		}
		ms = append(ms, r.accept(m))
		r.settle(r.taken(m)[:1], deferred(time.Now().Add(time.Duration(3-i)*time.Hour)))
	}
	id := func(m, i int) EntryID { return EntryID{ms[m].ID, i} }
	from := smtp.Path{Local: "from", Domain: "Sender.Example"}
	tests := []struct {
		name string
		f    Filter
		want []EntryID
	}{
		{"everything, by id", Filter{}, []EntryID{id(0, 0), id(0, 1), id(1, 0), id(2, 0), id(2, 1), id(2, 2)}},
		{"one entry", Filter{Entries: []EntryID{id(2, 1)}}, []EntryID{id(2, 1)}},
		{"entries, twice and unknown", Filter{Entries: []EntryID{id(2, 1), id(0, 0), id(2, 1), id(0, 9)}},
			[]EntryID{id(0, 0), id(2, 1)}},
		{"a message", Filter{Messages: []message.ID{ms[2].ID}}, []EntryID{id(2, 0), id(2, 1), id(2, 2)}},
		{"a queue, waiting first", Filter{Queue: QueueKey{"t", "b.example"}}, []EntryID{id(2, 0), id(0, 1), id(2, 2)}},
		{"a domain of all tenants", Filter{Domain: "a.example"}, []EntryID{id(0, 0), id(1, 0)}},
		{"a tenant", Filter{Tenant: "u"}, []EntryID{id(1, 0)}},
		{"a stream", Filter{Stream: "x"}, []EntryID{id(1, 0)}},
		{"a state", Filter{States: []State{Waiting}}, []EntryID{id(0, 0), id(1, 0), id(2, 0)}},
		{"a sender", Filter{Sender: &from}, []EntryID{id(0, 0), id(0, 1), id(2, 0), id(2, 1), id(2, 2)}},
		{"two at once", Filter{Sender: &from, Domain: "b.example", States: []State{Claimed}}, []EntryID{id(0, 1), id(2, 2)}},
		{"nothing", Filter{Domain: "d.example"}, nil},
	}
	for _, checkpoint := range []bool{false, true} {
		if checkpoint {
			r.checkpoint()
		}
		for _, tt := range tests {
			var got []EntryID
			for e, err := range r.spool.Entries(context.Background(), tt.f, 0, EntryID{}) {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, e.ID())
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("%s, checkpoint %v: %v, want %v", tt.name, checkpoint, got, tt.want)
			}
			var paged []EntryID
			for after := (EntryID{}); ; {
				n := 0
				for e, err := range r.spool.Entries(context.Background(), tt.f, 2, after) {
					if err != nil {
						t.Fatal(err)
					}
					paged, after = append(paged, e.ID()), e.ID()
					n++
				}
				if n == 0 {
					break
				}
			}
			if !slices.Equal(paged, tt.want) {
				t.Errorf("%s in pages, checkpoint %v: %v, want %v", tt.name, checkpoint, paged, tt.want)
			}
		}
	}
	if _, _, err := r.spool.Message(context.Background(), message.ID{9}); !errors.Is(err, ErrNotFound) {
		t.Errorf("an unknown message: %v", err)
	}
}

// Bulk changes of more entries than fit one record, or memory, reach all of them.
func TestBulk(t *testing.T) {
	t.Parallel()
	r := newRig(t, vfs.NewMem(), func(r *rig) { r.opts.OverlayEntries = 200 })
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- r.spool.Run(ctx) }()
	const n = 2000
	due := time.Now().Add(time.Hour)
	for range n / 4 {
		m := r.accept(r.message("a.example", "b.example", "a.example", "a.example"))
		r.settle(r.taken(m), deferred(due))
	}
	for _, step := range []struct {
		what string
		do   func() (int, error)
		want Stats
	}{
		{"hold", func() (int, error) { return r.spool.Hold(ctx, Filter{}, "stop") }, Stats{Held: n}},
		{"release", func() (int, error) { return r.spool.Release(ctx, Filter{}) }, Stats{Waiting: n}},
		{"reschedule", func() (int, error) {
			return r.spool.Reschedule(ctx, Filter{Tenant: "t"}, time.Now())
		}, Stats{Waiting: n}},
		{"cancel", func() (int, error) {
			return r.spool.Finish(ctx, Filter{}, Result{Outcome: Cancelled, Reason: event.Operator})
		}, Stats{}},
	} {
		if got, err := step.do(); got != n || err != nil {
			t.Errorf("%s: %d, %v", step.what, got, err)
		}
		if st := r.sums(); st.Held != step.want.Held || st.Waiting != step.want.Waiting {
			t.Errorf("after %s: %+v", step.what, st)
		}
	}
	stop()
	if err := <-ran; err != nil {
		t.Error(err)
	}
}

// What a bulk change has read of a message does not count any more when the message was changed and left memory since.
func TestBulkReadsAgainWhatLeftMemory(t *testing.T) {
	t.Parallel()
	r := newRig(t, vfs.NewMem(), nil)
	m := r.accept(r.message("a.example", "b.example"))
	r.settle(r.taken(m), deferred(time.Now().Add(time.Hour)))
	r.checkpoint()
	look := func() (c chunk) {
		v := viewer{spool: r.spool}
		defer v.close()
		for e, err := range v.selected(context.Background(), newMatcher(Filter{}), EntryID{}) {
			if err != nil {
				t.Fatal(err)
			}
			c.add(e, &v)
		}
		return c
	}
	c := look()
	if len(c.ids) != 2 || len(c.read) != 1 || c.stale {
		t.Fatalf("%d entries of %d messages of the index, stale %v", len(c.ids), len(c.read), c.stale)
	}
	r.settle(r.claim("a.example", time.Now().Add(2*time.Hour), 10), delivered())
	r.checkpoint()
	if err := r.spool.loadChunk(&c); err != nil {
		t.Fatal(err)
	}
	now := r.spool.mu.msgs[m.ID]
	left, e := now.left, now.find(0)
	r.spool.unload()
	if left != 1 || e != nil {
		t.Errorf("%d entries left, the first is %+v", left, e)
	}
	r.checkpoint() // it leaves again
	c = look()
	if err := r.spool.loadChunk(&c); err != nil {
		t.Fatal(err)
	}
	same := r.spool.mu.msgs[m.ID] == c.read[0]
	r.spool.unload()
	if !same {
		t.Error("what was true was read twice")
	}
}
