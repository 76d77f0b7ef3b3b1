package spool

import (
	"time"

	"github.com/godwit-mta/godwit/internal/journal"
)

type kind = journal.Kind

// Settle writes what an attempt did to its entries. They change at once in memory; done, if not nil, is told when
// that is durable, or ErrFailed. done is called by the journal's committer: it must be quick and must not block.
// Until then the attempt counts as in flight: after a crash its entries rest and are tried again. The record rides
// with the next sync, at most 10 ms later.
//
// An entry with the outcome None goes back untried. A Deferred entry that was to be held or cancelled meanwhile is.
// Entries that are not claimed are passed over. If the spool has failed, nothing changes and done is told so: the
// entries stay in flight.
func (s *Spool) Settle(a *Attempt, done func(error)) {
	o := s.begin()
	o.batch.Lazy = true
	o.done = done
	now := time.Now()
	s.order.Lock()
	s.mu.Lock()
	err := s.mu.err
	if err == nil {
		s.outcomes(o, a, now)
	}
	if len(o.changes) == 0 {
		s.mu.Unlock()
		s.order.Unlock()
		o.done = nil
		s.end(o)
		if done != nil {
			done(err)
		}
		return
	}
	s.tell(s.submit(o))
}

// outcomes fills the records of an attempt: what was decided, then what goes back untried, then what was wished for.
func (s *Spool) outcomes(o *op, a *Attempt, now time.Time) {
	m := s.mu.msgs[a.Message.ID]
	decided, wished := 0, false
	var untried []*entry
	o.expect(len(a.Entries))
	for i, given := range a.Entries {
		e, r := s.claimedEntry(m, given), &a.Results[i]
		switch {
		case e == nil:
		case r.Outcome == None:
			untried = append(untried, e)
		default:
			if decided == 0 {
				s.attempted(o, a, now)
			}
			decided++
			wished = o.outcome(e, a, r, now) || wished
		}
	}
	if len(untried) > 0 {
		o.back(untried, now)
	}
	if wished {
		s.wishes(o, decided, now)
	}
}

// claimedEntry takes an entry that is claimed, for one change; nil if it is not, or was taken already. m may say
// which message it likely is. mu is held.
func (s *Spool) claimedEntry(m *msg, given *Entry) *entry {
	if m == nil || given.Message.ID != m.ID {
		if m = s.mu.msgs[given.Message.ID]; m == nil {
			return nil
		}
	}
	e := m.find(given.Index)
	if e == nil || e.State != Claimed || e.taken {
		return nil
	}
	e.taken = true
	return e
}

func (s *Spool) attempted(o *op, a *Attempt, now time.Time) {
	ended := a.Ended
	if ended.IsZero() {
		ended = now
	}
	o.record(KindAttempted, ended).Try = Try{
		Started: a.Started, Ended: ended, Timings: a.Timings, Bytes: a.Bytes, Reused: a.Reused, Connection: a.Connection,
	}
}

// outcome fills one change of an attempted record and says whether a wish comes true after it.
func (o *op) outcome(e *entry, a *Attempt, r *Result, now time.Time) (wished bool) {
	c := o.change(e)
	c.Result, c.Attempts = *r, e.Attempts
	if !a.Started.IsZero() {
		c.Attempts++
	}
	if r.Outcome.Final() {
		c.State = Final
		c.Result.NextDue = time.Time{}
		return false
	}
	c.State, c.Due = Waiting, r.NextDue
	if c.Due.IsZero() {
		c.Due = now
	}
	return e.Wish != NoWish
}

// wishes adds records for those of the first n changes whose entries were deferred and wait for a wish to come true.
func (s *Spool) wishes(o *op, n int, now time.Time) {
	for _, wish := range [...]Wish{WishHold, WishFinish} {
		begun := false
		for i := range n {
			e, deferred := o.changes[i].entry, o.changes[i].State == Waiting
			if e.Wish != wish || !deferred {
				continue
			}
			if !begun {
				begun = true
				o.record([...]kind{WishHold: KindHeld, WishFinish: KindSettled}[wish], now)
			}
			c := o.change(e)
			o.grant(c, now)
			if wish == WishFinish {
				c.Attempts = o.changes[i].Attempts
			}
		}
	}
}
