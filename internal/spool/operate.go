package spool

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/godwit-mta/godwit/message"
)

// Hold stops the entries that a filter selects until they are released: waiting ones at once, claimed ones when their
// attempt ends without a final outcome. It returns how many, and is durable on return. After a crash in between, some
// are held.
func (s *Spool) Hold(ctx context.Context, f Filter, reason string) (int, error) {
	reason = reason[:min(len(reason), maxIndexText)]
	return s.operate(ctx, f, func(o *op, es []*entry, now time.Time) {
		for e := range o.each(es, KindHeld, now, func(e *entry) bool { return e.State == Waiting }) {
			o.change(e).HoldReason = reason
		}
		for e := range o.each(es, KindWished, now, func(e *entry) bool { return e.State == Claimed && e.Wish == NoWish }) {
			c := o.change(e)
			c.Wish, c.HoldReason = WishHold, reason
		}
	})
}

// Release lets held entries go on: due when they were due before, or now if that has passed. A hold that waits for
// the end of an attempt is taken back. It returns how many, and is durable on return.
func (s *Spool) Release(ctx context.Context, f Filter) (int, error) {
	return s.operate(ctx, f, func(o *op, es []*entry, now time.Time) {
		for e := range o.each(es, KindReleased, now, func(e *entry) bool { return e.State == Held }) {
			o.change(e).Due = later(e.Due, now)
		}
		for e := range o.each(es, KindWished, now, func(e *entry) bool { return e.State == Claimed && e.Wish == WishHold }) {
			o.change(e)
		}
	})
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// Reschedule moves the due time of waiting entries; due in the past means now. It returns how many, and is durable on
// return.
func (s *Spool) Reschedule(ctx context.Context, f Filter, due time.Time) (int, error) {
	return s.operate(ctx, f, func(o *op, es []*entry, now time.Time) {
		for e := range o.each(es, KindRescheduled, now, func(e *entry) bool { return e.State == Waiting }) {
			o.change(e).Due = later(due, now)
		}
	})
}

// Finish makes entries final with r, whose Outcome must be a final one: expired, cancelled, bounced by an operator.
// Waiting and held entries become so at once; claimed ones when their attempt ends without a final outcome. Expired
// is for waiting entries alone: what is held does not expire, what is in flight is for its claimant to judge. Where r
// has no reply, that of the last attempt is kept, for the report. It returns how many, and is durable on return.
func (s *Spool) Finish(ctx context.Context, f Filter, r Result) (int, error) {
	if !r.Outcome.Final() {
		return 0, fmt.Errorf("spool: %s is not a final outcome", r.Outcome)
	}
	r.NextDue = time.Time{}
	return s.operate(ctx, f, func(o *op, es []*entry, now time.Time) {
		for e := range o.each(es, KindSettled, now, func(e *entry) bool {
			return e.State == Waiting || e.State == Held && r.Outcome != Expired
		}) {
			c := o.change(e)
			c.Result, c.Attempts = r.after(&e.Last), e.Attempts
		}
		for e := range o.each(es, KindWished, now, func(e *entry) bool {
			return e.State == Claimed && e.Wish != WishFinish && r.Outcome != Expired
		}) {
			c := o.change(e)
			c.Wish, c.WishResult = WishFinish, r.after(&e.Last)
		}
	})
}

// after fills what r does not say about the remote from the last attempt.
func (r Result) after(last *Result) Result {
	if !r.Reply.IsZero() || r.Host != "" {
		return r
	}
	r.Reply, r.Phase, r.Host, r.Addr, r.Site, r.Source, r.TLS = last.Reply, last.Phase, last.Host, last.Addr, last.Site,
		last.Source, last.TLS
	if r.Class == 0 {
		r.Class = last.Class
	}
	return r
}

// each begins a record of a kind when the first of es passes, and gives those that do.
func (o *op) each(es []*entry, k kind, now time.Time, pass func(*entry) bool) func(yield func(*entry) bool) {
	return func(yield func(*entry) bool) {
		begun := false
		for _, e := range es {
			if e.taken || !pass(e) {
				continue
			}
			if !begun {
				begun = true
				o.record(k, now)
			}
			e.taken = true
			if !yield(e) {
				return
			}
		}
	}
}

// maxUnderWay bounds the chunks of one bulk change that wait to become durable.
const maxUnderWay = 4

// operate makes a change of all entries that a filter selects, some hundred at a time, and returns when all of it is
// durable.
func (s *Spool) operate(ctx context.Context, f Filter, fill func(o *op, es []*entry, now time.Time)) (done int, err error) {
	match := newMatcher(f)
	var underWay []*op
	land := func(most int) (first error) {
		for len(underWay) > most {
			n := len(underWay[0].changes)
			if err := s.wait(underWay[0]); err == nil {
				done += n
			} else if first == nil {
				first = err
			}
			underWay = underWay[1:]
		}
		return first
	}
	defer func() { err = errors.Join(err, land(0)) }()
	var c chunk
	flush := func() error {
		o, err := s.operateOn(ctx, match, &c, fill)
		c.reset()
		if o != nil {
			underWay = append(underWay, o)
		}
		return errors.Join(err, land(maxUnderWay-1))
	}
	v := viewer{spool: s}
	defer v.close()
	for e, err := range v.selected(ctx, match, EntryID{}) {
		if err != nil {
			return done, err
		}
		if c.add(e, &v); len(c.ids) >= maxChunk {
			if err := flush(); err != nil {
				return done, err
			}
		}
	}
	err = flush()
	return done, err
}

// chunk is entries of a bulk change, with what was read to find them.
type chunk struct {
	ids       []EntryID
	read      []*msg // those of their messages that only the index had
	evictions uint64 // when they were looked at: until the next one what was read is true
	stale     bool   // there was one in between
}

func (c *chunk) reset() {
	clear(c.read)
	*c = chunk{ids: c.ids[:0], read: c.read[:0]}
}

func (c *chunk) add(e *entry, v *viewer) {
	if len(c.ids) == 0 {
		c.evictions = v.seen
	}
	c.stale = c.stale || c.evictions != v.seen
	c.ids = append(c.ids, e.ID())
	if n := len(c.read); v.read != nil && (n == 0 || c.read[n-1] != v.read) {
		c.read = append(c.read, v.read)
	}
}

// loadChunk is load for the messages of a chunk, which reads none again that is still true.
func (s *Spool) loadChunk(c *chunk) error {
	if err := s.hold(); err != nil {
		return err
	}
	if c.stale || c.evictions != s.evictions {
		s.gate.RUnlock()
		messages := make([]message.ID, len(c.ids))
		for i, id := range c.ids {
			messages[i] = id.Message
		}
		return s.load(messages)
	}
	s.lockWith(c.read)
	if err := s.mu.err; err != nil {
		s.unload()
		return err
	}
	return nil
}

// operateOn changes the entries of a chunk. It returns the change, to be waited for; nil if there is none.
func (s *Spool) operateOn(ctx context.Context, match *matcher, c *chunk,
	fill func(o *op, es []*entry, now time.Time)) (*op, error) {
	if len(c.ids) == 0 {
		return nil, nil
	}
	if err := s.roomFor(ctx); err != nil {
		return nil, err
	}
	if err := s.loadChunk(c); err != nil {
		return nil, err
	}
	es := make([]*entry, 0, len(c.ids))
	for _, id := range c.ids {
		if m := s.mu.msgs[id.Message]; m != nil {
			if e := m.find(id.Index); e != nil && !e.gone && match.matches(&e.Entry) { // things may have changed since
				es = append(es, e)
			}
		}
	}
	o := s.begin()
	o.waited = true
	fill(o, es, time.Now())
	if len(o.changes) == 0 {
		s.unload()
		s.end(o)
		return nil, nil
	}
	notices := s.submit(o)
	s.gate.RUnlock()
	s.tell(notices)
	return o, nil
}

// bulkRoom returns how many entries may be in the overlay, beside claimed ones, before a bulk change waits for a
// checkpoint. These come one upon the other then, so it need not be many: a million changed entries are slowed down
// little, and take the memory of some thousand.
func (o *Options) bulkRoom() int {
	return min(overlayHard*o.OverlayEntries, max(o.OverlayEntries/4, maxUnderWay*maxChunk))
}

// roomFor waits while the overlay is too large, as bulk changes would make it.
func (s *Spool) roomFor(ctx context.Context) error {
	for {
		s.mu.Lock()
		if s.mu.err != nil || s.mu.resident-s.mu.claimed < s.opts.bulkRoom() {
			err := s.mu.err
			s.mu.Unlock()
			return err
		}
		room := s.roomSoon()
		s.checkpointSoon()
		s.mu.Unlock()
		if err := s.awaitRoom(ctx, room); err != nil {
			return err
		}
	}
}
