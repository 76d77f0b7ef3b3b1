package spool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

// some returns the entries in a state, by the model.
func (t *trial) some(states ...State) []EntryID {
	t.mu.Lock()
	defer t.mu.Unlock()
	var ids []EntryID
	for id, h := range t.history {
		if slices.Contains(states, h[len(h)-1].state) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, EntryID.Compare)
	return ids
}

var trialDomains = []string{"a.example", "b.example", "c.example"}

// operate makes one random change.
func (t *trial) operate() error {
	// Nobody else settles or returns what is claimed, so that the spool would wait for room for ever.
	for t.spool.Stats().OverlayEntries >= 2*t.overlay-8 {
		if err := errors.Join(t.giveBack(), t.spool.Checkpoint()); err != nil {
			return err
		}
	}
	switch n := t.rng.IntN(100); {
	case n < 25:
		return t.accept()
	case n < 50:
		return t.settle()
	case n < 60:
		return t.claimSome()
	case n < 65:
		return t.giveBack()
	case n < 85:
		return t.byOperator()
	case n < 90:
		return t.report()
	case n < 96:
		t.logf("checkpoint")
		return t.spool.Checkpoint()
	case n < 97:
		return t.aging()
	default:
		t.logf("reclaim")
		return t.spool.reclaim(context.Background())
	}
}

// aging checks that everything that waits, and nothing else, comes when its time is over.
func (t *trial) aging() error {
	if err := t.spool.Checkpoint(); err != nil {
		return err
	}
	late := time.Now().Add(2 * time.Hour)
	got := t.spool.Aging(late, 1<<20)
	if want := t.some(Waiting); len(got) != len(want) && t.spool.Err() == nil {
		return fmt.Errorf("%d entries are too old, want %d", len(got), len(want))
	}
	for _, e := range got {
		if b := t.now(e.ID()); b.state != Waiting {
			return fmt.Errorf("entry %s is too old, but it is %s", e.ID(), b.state)
		}
	}
	return nil
}

func (t *trial) newMessage() *Message {
	now := time.Now()
	m := &Message{
		ID: t.ids.New(now), Tenant: "t", Received: now, Expires: now.Add(time.Hour), DelayNotice: now.Add(time.Minute),
		From: smtp.Sender{Path: smtp.Path{Local: "from", Domain: "sender.example"}},
	}
	for i := range 1 + t.rng.IntN(3) {
		d := trialDomains[t.rng.IntN(len(trialDomains))]
		m.Recipients = append(m.Recipients, smtp.Recipient{Path: smtp.Path{Local: fmt.Sprint(i), Domain: d}})
		m.Queues = append(m.Queues, QueueKey{"t", d})
	}
	m.Size = int64(len(bodyFor(m)))
	t.msgs = append(t.msgs, m)
	return m
}

func (t *trial) accept() error {
	m, op := t.newMessage(), t.start()
	body := smtp.BodyOf(bodyFor(m))
	defer body.Release()
	err := t.spool.Accept(context.Background(), m, body)
	t.logf("%d: accept %s with %d: %v", op, m.ID, len(m.Recipients), err)
	for i := range m.Recipients {
		t.believe(op, EntryID{m.ID, i}, belief{state: Claimed})
	}
	if err == nil {
		t.ack(op)
	}
	return err
}

// inHand returns claimed entries of one message.
func (t *trial) inHand() []*Entry {
	t.sink.mu.Lock()
	defer t.sink.mu.Unlock()
	if len(t.sink.fresh) == 0 {
		return nil
	}
	id := t.sink.fresh[t.rng.IntN(len(t.sink.fresh))].Message.ID
	var es, rest []*Entry
	for _, e := range t.sink.fresh {
		if e.Message.ID == id && t.rng.IntN(4) > 0 {
			es = append(es, e)
		} else {
			rest = append(rest, e)
		}
	}
	t.sink.fresh = rest
	return es
}

func (t *trial) settle() error {
	es := t.inHand()
	if len(es) == 0 {
		return nil
	}
	op := t.start()
	a := &Attempt{Message: es[0].Message, Entries: es, Started: time.Now(), Ended: time.Now()}
	var next []belief
	for _, e := range es {
		b := t.now(e.ID())
		r := []Result{delivered(), bounced(), deferred(time.Now().Add(time.Hour)), {}}[t.rng.IntN(4)]
		a.Results = append(a.Results, r)
		wish := b.wish
		b.wish = NoWish
		switch {
		case r.Outcome.Final():
			b.state, b.outcome = Final, r.Outcome
		case wish == WishFinish:
			b.state, b.outcome = Final, Cancelled
		case r.Outcome == None:
			b.state, b.due = Waiting, 0
		default:
			b.state, b.due = Waiting, micros(r.NextDue)
		}
		if r.Outcome != None {
			b.attempts++
			b.interrupted = 0
		}
		if wish == WishHold && b.state == Waiting {
			b.state = Held
		}
		if b.state != Held {
			b.hold = ""
		}
		next = append(next, b)
	}
	done := make(chan error, 1)
	t.spool.Settle(a, func(err error) {
		if err == nil {
			t.ack(op)
		}
		done <- err
	})
	for i, e := range es {
		if next[i].state == Waiting && next[i].due == 0 { // the spool knows when
			next[i].due = t.dueOf(e.ID())
		}
		t.believe(op, e.ID(), next[i])
		t.logf("%d: settle %s: %s -> %s", op, e.ID(), a.Results[i].Outcome, next[i].state)
	}
	if t.rng.IntN(3) > 0 {
		return <-done
	}
	return nil
}

func (t *trial) dueOf(id EntryID) int64 {
	_, es, err := t.spool.Message(context.Background(), id.Message)
	if err != nil {
		return -1
	}
	for _, e := range es {
		if e.Index == id.Index {
			return micros(e.Due)
		}
	}
	return -1
}

func (t *trial) claimSome() error {
	op := t.start()
	key := QueueKey{"t", trialDomains[t.rng.IntN(len(trialDomains))]}
	es, err := t.spool.Claim(context.Background(), key, time.Now().Add(24*time.Hour), 1+t.rng.IntN(4), nil)
	if err != nil {
		for _, id := range t.some(Waiting) {
			if b := t.now(id); t.domainOf(id) == key.Domain {
				b.state = Claimed
				t.believe(op, id, b)
			}
		}
		return err
	}
	last := int64(0)
	for _, e := range es {
		b := t.now(e.ID())
		if b.state != Waiting {
			return fmt.Errorf("claimed %s, which is %s", e.ID(), b.state)
		}
		if len(e.Message.Recipients) == 1 { // others may come early with their siblings
			if b.due < last {
				return fmt.Errorf("claimed %s out of order", e.ID())
			}
			last = b.due
		}
		b.state = Claimed
		t.believe(op, e.ID(), b)
		t.logf("%d: claim %s", op, e.ID())
	}
	if len(es) == 0 {
		for _, id := range t.some(Waiting) {
			if t.domainOf(id) == key.Domain {
				return fmt.Errorf("did not get %s", id)
			}
		}
	}
	t.sink.mu.Lock()
	t.sink.fresh = append(t.sink.fresh, es...)
	t.sink.mu.Unlock()
	if t.keep == 100 && len(es) > 0 { // a kill loses nothing that was written
		t.ack(op)
	}
	return nil
}

func (t *trial) giveBack() error {
	es := t.inHand()
	if len(es) == 0 {
		return nil
	}
	op := t.start()
	t.spool.Return(es)
	for _, e := range es {
		b := t.now(e.ID())
		switch b.wish {
		case WishHold:
			b.state = Held
		case WishFinish:
			b.state, b.outcome = Final, Cancelled
		default:
			b.state, b.due = Waiting, t.dueOf(e.ID())
		}
		b.wish = NoWish
		t.believe(op, e.ID(), b)
		t.logf("%d: return %s: %s", op, e.ID(), b.state)
	}
	return nil
}

func (t *trial) byOperator() error {
	ids := t.some(Waiting, Claimed, Held)
	if len(ids) == 0 {
		return nil
	}
	id := ids[t.rng.IntN(len(ids))]
	f := []Filter{{Entries: []EntryID{id}}, {Messages: []message.ID{id.Message}}, {Domain: t.domainOf(id)}, {Tenant: "t",
		States: []State{t.now(id).state}}}[t.rng.IntN(4)]
	var chosen []EntryID
	for _, o := range ids {
		b := t.now(o)
		if (f.Domain == "" || f.Domain == t.domainOf(o)) && (len(f.Entries) == 0 || f.Entries[0] == o) &&
			(len(f.Messages) == 0 || f.Messages[0] == o.Message) && (len(f.States) == 0 || f.States[0] == b.state) {
			chosen = append(chosen, o)
		}
	}
	ctx, op := context.Background(), t.start()
	due := time.Now().Add(time.Duration(1+t.rng.IntN(7200)) * time.Second)
	reason := fmt.Sprintf("reason %d", op)
	var n int
	var err error
	verb := t.rng.IntN(5)
	switch verb {
	case 0:
		n, err = t.spool.Hold(ctx, f, reason)
	case 1:
		n, err = t.spool.Release(ctx, f)
	case 2:
		n, err = t.spool.Reschedule(ctx, f, due)
	case 3:
		n, err = t.spool.Finish(ctx, f, Result{Outcome: Cancelled, Reason: event.Operator})
	case 4:
		n, err = t.spool.Finish(ctx, f, Result{Outcome: Expired, Reason: event.Aged})
	}
	want := 0
	for _, o := range chosen {
		b := t.now(o)
		was := b
		switch {
		case verb == 0 && b.state == Waiting:
			b.state, b.hold = Held, reason
		case verb == 0 && b.state == Claimed && b.wish == NoWish:
			b.wish, b.hold = WishHold, reason
		case verb == 1 && b.state == Held:
			b.state, b.hold, b.due = Waiting, "", t.dueOf(o)
		case verb == 1 && b.state == Claimed && b.wish == WishHold:
			b.wish, b.hold = NoWish, ""
		case verb == 2 && b.state == Waiting:
			b.due = micros(due)
		case verb == 3 && b.state == Claimed && b.wish != WishFinish:
			b.wish, b.hold = WishFinish, ""
		case verb == 3 && (b.state == Waiting || b.state == Held):
			b.state, b.outcome = Final, Cancelled
		case verb == 4 && b.state == Waiting:
			b.state, b.outcome = Final, Expired
		default:
			continue
		}
		want++
		t.believe(op, o, b)
		t.logf("%d: verb %d: %s: %+v -> %+v", op, verb, o, was, b)
	}
	if err != nil {
		return err
	}
	if n != want {
		return fmt.Errorf("verb %d with %+v changed %d entries, want %d", verb, f, n, want)
	}
	if n > 0 {
		t.ack(op)
	}
	return nil
}

func (t *trial) report() error {
	if t.rng.IntN(3) == 0 {
		return t.delayNotice()
	}
	reports, err := t.spool.Unreported(time.Now().Add(time.Minute), 1+t.rng.IntN(2))
	for _, r := range reports {
		op := t.start()
		var indices []int
		for _, e := range r.Entries {
			indices = append(indices, e.Index)
		}
		err := t.acceptReport(op, r.Message, indices, t.spool.AcceptReport)
		for _, e := range r.Entries {
			b := t.now(e.ID())
			b.reported = true
			t.believe(op, e.ID(), b)
			t.logf("%d: report %s", op, e.ID())
		}
		if err != nil {
			return err
		}
		t.ack(op)
	}
	return err
}

func (t *trial) acceptReport(op int, about *Message, indices []int,
	accept func(context.Context, *Message, *smtp.Body, *Message, []int) error) error {
	if t.rng.IntN(3) == 0 {
		return accept(context.Background(), nil, nil, about, indices)
	}
	dsn := t.newMessage()
	dsn.From, dsn.Report = smtp.Sender{}, true
	body := smtp.BodyOf(bodyFor(dsn))
	defer body.Release()
	err := accept(context.Background(), dsn, body, about, indices)
	// A report has a null sender, so that nothing of it is ever reported.
	for i := range dsn.Recipients {
		t.believe(op, EntryID{dsn.ID, i}, belief{state: Claimed, reported: true})
	}
	return err
}

func (t *trial) delayNotice() error {
	for _, id := range t.some(Waiting, Held) {
		b := t.now(id)
		if b.delay {
			continue
		}
		op := t.start()
		i := slices.IndexFunc(t.msgs, func(m *Message) bool { return m.ID == id.Message })
		err := t.acceptReport(op, t.msgs[i], []int{id.Index}, t.spool.AcceptDelayNotice)
		b.delay = true
		t.believe(op, id, b)
		if err != nil {
			return err
		}
		t.ack(op)
		t.logf("%d: delay notice %s", op, id)
		return nil
	}
	return nil
}
