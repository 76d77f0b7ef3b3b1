package queue

import (
	"context"
	"errors"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/message/dsn"
)

// agingBatch is how many entries are dealt with at a time.
const agingBatch = 4096

// age looks, until ctx ends, for entries that are too old or late enough for a notice. It does not matter what holds
// an entry up: a suspended destination, a full window, a long line; only what an operator holds does not age, and what
// is in flight is judged when its attempt ends.
func (s *Scheduler) age(ctx context.Context) {
	timer := time.NewTicker(s.o.Poll)
	defer timer.Stop()
	for {
		s.ageWindows()
		for ctx.Err() == nil && s.ageBatch(ctx) {
		}
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
	}
}

// ageBatch deals with some entries and reports whether there may be more.
func (s *Scheduler) ageBatch(ctx context.Context) bool {
	now := time.Now()
	expired := make(map[string][]spool.EntryID) // by explanation, which is mostly the same for all of a queue
	late := make(map[message.ID][]*spool.Entry)
	entries := s.aging(now, func(c *wallClock, e *spool.Entry) bool {
		if c.tooOld(e.Message) {
			text := s.agedText(e)
			expired[text] = append(expired[text], e.ID())
			return true
		}
		if !e.DelayReported && c.late(e.Message) {
			late[e.Message.ID] = append(late[e.Message.ID], e)
			return true
		}
		return false
	})
	for text, ids := range expired {
		n, err := s.o.Spool.Finish(ctx, spool.Filter{Entries: ids}, spool.Result{
			Outcome: spool.Expired, Reason: event.Aged, Explanation: text,
		})
		s.metrics.expired.Add(float64(n))
		if err != nil {
			s.complain(ctx, "entries that are too old cannot be made final", err)
			return false
		}
	}
	if len(expired) > 0 {
		s.remind()
	}
	for _, of := range late {
		if err := s.noticeDelay(ctx, of); err != nil {
			s.complain(ctx, "a sender cannot be told of a delay", err, "message", of[0].Message.ID)
			return false
		}
	}
	return entries > 0
}

// aging asks the spool for entries whose age needs attention, and returns for how many of them do says that it does.
// Since the spool goes by the clock alone, there may be many others for which it does not, by what is known of the
// clock; then it looks further.
func (s *Scheduler) aging(now time.Time, do func(*wallClock, *spool.Entry) bool) (n int) {
	clock := s.clock(now)
	for _, limit := range []int{agingBatch, 16 * agingBatch} {
		entries := s.o.Spool.Aging(now, limit)
		for _, e := range entries {
			if n < agingBatch && do(&clock, e) {
				n++
			}
		}
		if n > 0 || len(entries) < limit {
			break
		}
	}
	return n
}

// ageWindows makes claimed entries final that grew too old while they waited for a slot.
func (s *Scheduler) ageWindows() {
	now := time.Now()
	var old []group
	s.mu.Lock()
	clock := s.clockLocked(now)
	for _, q := range s.mu.queues {
		before := q.groups
		for n := q.window.head; q.groups > 0 && n != q.window.tail; n++ {
			if g := q.window.At(n); g.entries != nil && clock.tooOld(g.message) {
				g, _ := s.takeLocked(place{q, n})
				old = append(old, g)
			}
		}
		if q.groups != before {
			s.arrangeLocked(q, now)
		}
	}
	s.mu.Unlock()
	for _, g := range old {
		s.settling <- struct{}{}
		s.o.Spool.Settle(s.agedAttempt(g.message, g.entries), s.settled)
	}
	if len(old) > 0 {
		s.remind()
	}
}

// noticeDelay tells the sender of entries, all of one message, that they are late, if it wants to know.
func (s *Scheduler) noticeDelay(ctx context.Context, entries []*spool.Entry) error {
	s.mu.Lock()
	policy := s.mu.settings.DelayNotices
	s.mu.Unlock()
	about := entries[0].Message
	var tell []*spool.Entry
	var rest []int
	for _, e := range entries {
		if policy.tells(e) {
			tell = append(tell, e)
			continue
		}
		rest = append(rest, e.Index)
	}
	if len(rest) > 0 {
		if err := fresh(s.o.Spool.AcceptDelayNotice(ctx, nil, nil, about, rest)); err != nil {
			return err
		}
	}
	if len(tell) == 0 {
		return nil
	}
	return s.send(ctx, about, tell, dsn.Delayed)
}

// tells reports whether the sender of e is to be told of its delay.
func (p DelayPolicy) tells(e *spool.Entry) bool {
	n := e.Recipient().Notify
	return p != DelayNever && !e.Message.From.IsNull() && (n.Delay() || n == 0 && p == DelayAlways)
}

// complain logs an error, unless it comes from being stopped.
func (s *Scheduler) complain(ctx context.Context, what string, err error, args ...any) {
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, journal.ErrFull): // the journal has said so once
		s.log.Debug(what, append(args, "error", err)...)
	default:
		s.log.Error(what, append(args, "error", err)...)
	}
}

// overAge reports whether m is too old, whatever the clock did. Mostly that is seen without a lock.
func (s *Scheduler) overAge(m *spool.Message, now time.Time) bool {
	if !tooOld(m, now) && !m.Received.After(now.Add(clockSlack)) {
		return false
	}
	clock := s.clock(now)
	return clock.tooOld(m)
}

// tooOld reports whether m is too old by what the clock says.
func tooOld(m *spool.Message, now time.Time) bool {
	return !m.Expires.IsZero() && !now.Before(m.Expires)
}

// agedAttempt is an attempt that was not made since the entries are too old.
func (s *Scheduler) agedAttempt(m *spool.Message, entries []*spool.Entry) *spool.Attempt {
	a := &spool.Attempt{Message: m, Entries: entries, Results: make([]spool.Result, len(entries))}
	for i, e := range entries {
		a.Results[i] = s.aged(e, &e.Last)
	}
	return a
}

// aged is the result of an entry that is given up for its age. last is what its last attempt met.
func (s *Scheduler) aged(e *spool.Entry, last *spool.Result) spool.Result {
	s.metrics.expired.Inc()
	r := *last
	r.Outcome, r.Reason, r.NextDue = spool.Expired, event.Aged, time.Time{}
	r.Explanation = givenUp(e.Message, last)
	return r
}

// agedText says why a waiting entry is given up. One that was never tried names what its queue met.
func (s *Scheduler) agedText(e *spool.Entry) string {
	last := &e.Last
	s.mu.Lock()
	if q := s.mu.queues[e.Queue()]; q != nil && q.health.last != nil {
		if e.Attempts == 0 || e.LastAttempt.Before(q.health.at) {
			last = q.health.last
		}
	}
	s.mu.Unlock()
	return givenUp(e.Message, last)
}

// givenUp says after how long m is given up and what stood in the way, unless a reply says that itself.
func givenUp(m *spool.Message, last *spool.Result) string {
	text := "given up after " + lifetime(m.Expires.Sub(m.Received))
	if last.Reply.IsZero() && last.Explanation != "" {
		text += "; the last attempt: " + last.Explanation
	}
	return text
}
