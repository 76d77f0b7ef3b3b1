package spool

import (
	"time"
)

// place is the one function that changes an entry's state.
func (s *Spool) place(e *entry, state State, due time.Time, notices *[]dueNotice) {
	m := e.msg
	s.touch(m)
	e.changed = true
	q := e.queue
	var before int64
	waits := true
	if s.mu.live {
		before, waits = q.nextDue()
		s.count(e, -1)
		if e.heap >= 0 {
			q.remove(e)
		}
	}
	if e.State == Claimed {
		m.claimed--
	}
	e.State, e.Due = state, round(due)
	e.due = micros(e.Due)
	if state != Held && state != Claimed {
		e.HoldReason = ""
	}
	if state != Claimed {
		e.Wish, e.wish = NoWish, nil
	}
	if state == Claimed {
		m.claimed++
	} else if m.claimed == 0 {
		s.dropBody(m)
	}
	if !s.mu.live {
		return
	}
	s.count(e, 1)
	switch state {
	case Waiting:
		q.push(e)
		if notices != nil && (!waits || e.due < before) {
			*notices = append(*notices, dueNotice{key: q.key, at: e.due})
		}
	case Final:
		q.ages.drop(m.ID)
		e.queue = nil
		if q.total() == 0 {
			s.dropQueue(q)
		}
	}
}

// finish makes an entry final; e.Last says how.
func (s *Spool) finish(e *entry, at time.Time) {
	m := e.msg
	s.place(e, Final, time.Time{}, nil)
	if !e.wantsReport() {
		s.forget(e)
		return
	}
	e.report = true
	m.reports++
	if m.reports == 1 {
		m.failedAt = micros(at)
		if s.mu.live {
			s.mu.unreported.add(m.ID, m.failedAt)
		}
	}
}

// forget drops a final entry of which nothing is to be told.
func (s *Spool) forget(e *entry) {
	if e.gone {
		return
	}
	m := e.msg
	s.touch(m)
	e.gone, e.changed = true, true
	m.left--
	if e.report {
		e.report = false
		if m.reports--; m.reports == 0 && s.mu.live {
			s.mu.unreported.drop(m.ID)
		}
	}
}

// lookup returns the entry of a change, nil if it is not in the overlay.
func (s *Spool) lookup(c *Change) *entry {
	if c.entry != nil {
		return c.entry
	}
	m := s.mu.msgs[c.Message.ID]
	if m == nil {
		return nil
	}
	return m.find(c.Index)
}

// apply does what a record says. It is the same when a record is made and when it is replayed. In a replay the
// messages it is about have been loaded before; entries that are not there are final and gone. Acceptance and moves
// have functions of their own.
func (s *Spool) apply(r *Record, notices *[]dueNotice) {
	for i := range r.Changes {
		c := &r.Changes[i]
		e := s.lookup(c)
		if e == nil || e.gone || e.State == Final && r.Kind != KindReported {
			continue
		}
		e.taken = false
		switch r.Kind {
		case KindAttempted:
			e.Attempts, e.Last = c.Attempts, c.Result
			if !r.Try.Started.IsZero() {
				e.LastAttempt = round(r.Time)
				e.Interrupted = 0
			}
			if c.State == Final {
				s.finish(e, r.Time)
			} else {
				s.place(e, Waiting, c.Due, notices)
			}
		case KindClaimed:
			s.place(e, Claimed, c.Due, nil)
		case KindSettled:
			e.Last = c.Result
			s.finish(e, r.Time)
		case KindHeld:
			s.place(e, Held, e.Due, nil)
			e.HoldReason = c.HoldReason
		case KindReleased, KindRescheduled, KindReturned:
			s.place(e, Waiting, c.Due, notices)
		case KindWished:
			s.touch(e.msg)
			e.changed = true
			e.setWish(c)
			e.HoldReason = c.HoldReason
		case KindReported:
			if r.Delay {
				s.touch(e.msg)
				e.changed, e.DelayReported = true, true
			} else {
				s.forget(e)
			}
		case KindInterrupted:
			e.Interrupted = c.Interrupted
			s.place(e, Waiting, c.Due, notices)
		}
	}
}
