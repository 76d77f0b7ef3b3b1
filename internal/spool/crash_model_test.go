package spool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/godwit-mta/godwit/internal/journal"
)

// belief is what the model thinks of an entry at some time.
type belief struct {
	state       State // 0: not accepted
	outcome     Outcome
	reported    bool
	due         int64 // waiting
	attempts    int
	interrupted int
	hold        string
	wish        Wish
	delay       bool
}

// step is a belief from an operation on.
type step struct {
	op int
	belief
}

// believe notes what the model thinks of an entry after operation op.
func (t *trial) believe(op int, id EntryID, b belief) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.history[id] = append(t.history[id], step{op, b})
}

func (t *trial) now(id EntryID) belief {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.history[id]
	if len(h) == 0 {
		return belief{}
	}
	return h[len(h)-1].belief
}

func (t *trial) start() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.begun++
	return t.begun
}

// ack notes that an operation, and so all before it, is durable.
func (t *trial) ack(op int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.acked = max(t.acked, op)
}

// fits reports whether what a start, begun at opened, found of an entry is what b looks like after a crash.
func (b belief) fits(e *Entry, opened time.Time) bool {
	wantsReport := b.outcome == Bounced || b.outcome == Expired
	switch {
	case b.state == 0 || b.state == Final && (!wantsReport || b.reported):
		return e == nil
	case b.state == Claimed && b.wish == WishFinish:
		return e == nil // cancelled
	case e == nil:
		return false
	case b.state == Final:
		return e.State == Final && e.Last.Outcome == b.outcome
	case b.delay != e.DelayReported || b.attempts != e.Attempts:
		return false
	case b.state == Claimed && b.wish == WishHold || b.state == Held:
		return e.State == Held && e.HoldReason == b.hold
	case b.state == Claimed:
		return e.State == Waiting && e.Interrupted == b.interrupted+1 && e.Due.After(opened)
	}
	return e.State == Waiting && (micros(e.Due) == b.due || b.due < 0) && e.Interrupted == b.interrupted
}

// verify compares what a start found with the model, then makes what was found the model.
func (t *trial) verify() error {
	found := make(map[EntryID]*Entry)
	for e, err := range t.spool.Entries(context.Background(), Filter{States: States()}, 0, EntryID{}) {
		if err != nil {
			return err
		}
		found[e.ID()] = e
	}
	history := make(map[EntryID][]step)
	for id, h := range t.history {
		var may []belief
		for _, s := range h {
			if s.op <= t.from {
				may = may[:0]
			}
			if s.op <= t.until {
				may = append(may, s.belief)
			}
		}
		if h[0].op > t.from {
			may = append(may, belief{})
		}
		e := found[id]
		i := slices.IndexFunc(may, func(b belief) bool { return b.fits(e, t.opened) })
		if i < 0 {
			t.tell(id)
			return fmt.Errorf("entry %s was found as %+v, want one of %+v", id, e, may)
		}
		delete(found, id)
		if e == nil {
			history[id] = []step{{0, belief{state: Final, reported: true}}}
			continue
		}
		history[id] = []step{{0, belief{
			state: e.State, outcome: e.Last.Outcome, due: micros(e.Due), attempts: e.Attempts, interrupted: e.Interrupted,
			hold: e.HoldReason, wish: e.Wish, delay: e.DelayReported, reported: may[i].reported,
		}}}
	}
	for id, e := range found {
		return fmt.Errorf("entry %s came from nowhere: %+v", id, e)
	}
	t.mu.Lock()
	t.history, t.begun, t.acked, t.from, t.until, t.verified = history, 0, 0, 0, 0, t.clone == nil
	t.mu.Unlock()
	return errors.Join(t.verifyExtents(), t.verifySums(), t.verifyBodies(), t.verifyRecords())
}

// check has a closed or crashed spool looked through.
func (t *trial) check(fs vfs.FS) error {
	if _, err := fs.Stat("/journal"); err != nil {
		return nil // it crashed before there was one
	}
	o := CheckOptions{JournalDir: "/journal", Dir: "/spool", FS: fs}
	if t.keys != nil {
		o.FS, o.Sealer = t.keys.FS(fs), t.keys
	}
	r, err := Check(context.Background(), o)
	if err != nil {
		return err
	}
	// Pebble may lose the way to its manifest when directory entries survive a crash in another order than they were
	// made. Then the index is rebuilt.
	if !r.OK() && !(r.Index == "unreadable" && len(r.Problems) == 1) {
		return fmt.Errorf("the check found %v", r.Problems)
	}
	return nil
}

// verifyExtents compares the counts of extents with where messages are.
func (t *trial) verifyExtents() error {
	live := make(map[journal.ExtentID]int)
	for _, m := range t.msgs {
		if v, err := t.spool.view(m.ID); err == nil {
			live[t.log.ExtentOf(v.pos)]++
		}
	}
	t.spool.mu.Lock()
	defer t.spool.mu.Unlock()
	for id, x := range t.spool.mu.extents {
		if x.live != live[id] {
			return fmt.Errorf("extent %d counts %d messages, has %d", id, x.live, live[id])
		}
	}
	return nil
}

func (t *trial) verifySums() error {
	st := t.spool.Stats()
	if st.Accepted != st.Settled()+uint64(st.Queued()) {
		return fmt.Errorf("the sums are wrong: %+v", st)
	}
	count := make(map[State]int)
	queues := make(map[QueueKey]int)
	for id, h := range t.history {
		b := h[0]
		count[b.state]++
		if b.state != Final {
			queues[QueueKey{"t", t.domainOf(id)}]++
		}
	}
	if st.Waiting != count[Waiting] || st.Claimed != 0 || st.Held != count[Held] || st.Queues != len(queues) {
		return fmt.Errorf("stats %+v, entries %v, queues %v", st, count, queues)
	}
	for _, q := range t.spool.Queues() {
		if q.Total() != queues[q.Key] {
			return fmt.Errorf("queue %+v has %d entries", q, queues[q.Key])
		}
	}
	return nil
}

func (t *trial) domainOf(id EntryID) string {
	for _, m := range t.msgs {
		if m.ID == id.Message {
			return m.Queues[id.Index].Domain
		}
	}
	return ""
}

func (t *trial) verifyBodies() error {
	for _, m := range t.msgs {
		live := false
		for i := range m.Recipients {
			b := t.now(EntryID{m.ID, i})
			live = live || b.state != 0 && !(b.state == Final && b.reported)
		}
		if !live {
			continue
		}
		body, err := t.spool.Body(context.Background(), m)
		if err != nil {
			return fmt.Errorf("the body of %s: %w", m.ID, err)
		}
		got, err := io.ReadAll(body.Reader())
		body.Release()
		if err != nil || string(got) != string(bodyFor(m)) {
			return fmt.Errorf("the body of %s is %q", m.ID, got)
		}
	}
	return nil
}

// verifyRecords checks that no entry has two final records.
func (t *trial) verifyRecords() error {
	r, err := t.log.NewReader(0)
	if err != nil {
		return err
	}
	defer r.Close()
	final := make(map[EntryID]bool)
	var rec Record
	for {
		e, err := r.Next(context.Background(), false)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := rec.Decode(e.Kind, e.Meta); err != nil {
			return err
		}
		for i := range rec.Changes {
			c := &rec.Changes[i]
			if (rec.Kind == KindAttempted || rec.Kind == KindSettled) && c.Result.Outcome.Final() {
				if final[c.ID()] {
					return fmt.Errorf("entry %s has two final records", c.ID())
				}
				final[c.ID()] = true
			}
		}
	}
}

// tell logs what the journal has about the message of an entry.
func (t *trial) tell(id EntryID) {
	r, err := t.log.NewReader(0)
	if err != nil {
		return
	}
	defer r.Close()
	var rec Record
	for {
		e, err := r.Next(context.Background(), false)
		if err != nil || rec.Decode(e.Kind, e.Meta) != nil {
			t.logf("journal: %v, extents %+v", err, t.log.Extents())
			return
		}
		if rec.Message != nil && rec.Message.ID == id.Message {
			t.logf("journal: %#x %s", uint64(e.Position), KindName(e.Kind))
		}
		for i := range rec.Changes {
			if c := &rec.Changes[i]; c.Message.ID == id.Message {
				t.logf("journal: %#x %s %d: %s %s %d, due %v", uint64(e.Position), KindName(e.Kind), c.Index, c.State,
					c.Result.Outcome, c.Wish, c.Due)
			}
		}
	}
}

// verifyMemory checks what must hold between any two operations.
func (t *trial) verifyMemory() error {
	s := t.spool
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, m := range s.mu.msgs {
		claimed, left, reports := 0, 0, 0
		for i := range m.entries {
			e := &m.entries[i]
			if e.gone {
				continue
			}
			left++
			switch e.State {
			case Claimed:
				claimed++
			case Final:
				reports++
			}
			if (e.State == Waiting) != (e.heap >= 0) || e.heap >= 0 && e.queue.heap[e.heap] != e || e.msg != m || e.taken {
				return fmt.Errorf("entry %s is out of order: %+v", e.ID(), e)
			}
		}
		if claimed != m.claimed || left != m.left || reports != m.reports {
			return fmt.Errorf("message %s counts %d claimed, %d left, %d to report; it has %d, %d, %d", id, m.claimed, m.left,
				m.reports, claimed, left, reports)
		}
	}
	for _, q := range s.mu.queues {
		for _, e := range q.heap {
			if s.mu.msgs[e.msg.ID] != e.msg {
				return fmt.Errorf("queue %s has %s, which is not in memory", q.key, e.ID())
			}
		}
	}
	lists := 0
	for _, l := range []*msgList{&s.mu.dirty, &s.mu.clean} {
		for m := l.first; m != nil; m = m.next {
			if lists++; s.mu.msgs[m.ID] != m {
				return fmt.Errorf("message %s is there twice", m.ID)
			}
		}
	}
	if lists != len(s.mu.msgs) {
		return fmt.Errorf("%d messages in lists, %d in memory", lists, len(s.mu.msgs))
	}
	return nil
}
