package queue

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/godwit-mta/godwit/internal/spool"
)

// The wall clock can be set: by an hour or by ten years, forward and back, while the server runs and while it does not.
// Timers do not notice, since Go's follow the monotonic clock, but times that were recorded have no monotonic part: when
// entries are due, when messages came, and when they are too old. What happens then:
//
//   - Forward: what waits is due and is tried, each entry once earlier than planned, under all the usual limits. It is
//     not older for that: messages that came before are given the time that the clock leapt over.
//   - Back: nothing waits longer than it was meant to wait in the first place. An entry whose last attempt seems to lie
//     in the future, or whose due time is further away than any pause, is given a new due time.
//   - Between two lives nobody can tell a clock that was set from a machine that was off. What an earlier life left is
//     tried for a while (afterlife), however old it seems, before it is given up.

const (
	// clockSlack is the least difference between the clocks that counts as a step; less is drift, or a busy machine.
	clockSlack = 10 * time.Second
	// afterlife is how long a message of an earlier life is tried at least.
	afterlife = 15 * time.Minute
	// maxSteps bounds the steps that are remembered.
	maxSteps = 32
)

// wallClock knows what the wall clock did since the scheduler was made. It is a value: a copy stays as it is.
type wallClock struct {
	seen  time.Time     // the last look
	age   time.Duration // of this life then
	calm  time.Duration // since the clock was last set back, or the beginning
	steps []clockStep
}

// clockStep is one time that the clock was set. It counts for messages that came before.
type clockStep struct {
	before time.Time // what came at this time or earlier came before the step
	by     time.Duration
}

// look compares the clocks and returns by how much the wall clock was set since the last look, 0 if it was not. passed
// is the time since then by the monotonic clock.
func (c *wallClock) look(now time.Time, passed time.Duration) time.Duration {
	wall := now.Round(0)
	by := wall.Sub(c.seen.Round(0)) - passed
	before := c.seen.Round(0).Add(passed)
	c.seen = now
	c.age += passed
	c.calm += passed
	if by.Abs() < clockSlack {
		return 0
	}
	if by < 0 {
		// What seems to have come later may have come afterwards, even before this look, which is as late as passed.
		before, c.calm = wall.Add(-passed), 0
	}
	if len(c.steps) == maxSteps {
		c.steps = slices.Delete(slices.Clone(c.steps), 0, 1)
	}
	c.steps = append(slices.Clip(c.steps), clockStep{before, by})
	return by
}

// expires returns when m is too old by this clock, which has just been looked at: zero if never. The times of a message that
// came in this life have monotonic parts, which know nothing of steps: they are left out here and below.
func (c *wallClock) expires(m *spool.Message) time.Time {
	if m.Expires.IsZero() {
		return m.Expires
	}
	received, expires, now := m.Received.Round(0), m.Expires.Round(0), c.seen.Round(0)
	if received.After(now.Add(clockSlack)) { // it comes from a time that is no more
		return now.Add(expires.Sub(received) - c.calm)
	}
	at, began := expires.Add(c.leapt(m)), now.Add(-c.age)
	if least := began.Add(afterlife); received.Before(began) && at.Before(least) {
		return least
	}
	return at
}

// leapt returns how much of m's age is none.
func (c *wallClock) leapt(m *spool.Message) (by time.Duration) {
	received := m.Received.Round(0)
	for _, s := range c.steps {
		if !received.After(s.before) {
			by += s.by
		}
	}
	return by
}

// tooOld reports whether m is to be given up now, which is when the clock was looked at: by the time of an earlier look, before
// the clock was set, everything might be.
func (c *wallClock) tooOld(m *spool.Message) bool {
	at := c.expires(m)
	return !at.IsZero() && !c.seen.Round(0).Before(at)
}

// late reports whether the time for a notice of m's delay has come.
func (c *wallClock) late(m *spool.Message) bool {
	if m.DelayNotice.IsZero() {
		return false
	}
	now := c.seen.Round(0)
	return !m.Received.Round(0).After(now.Add(clockSlack)) && !now.Before(m.DelayNotice.Round(0).Add(c.leapt(m)))
}

// clock looks at the clock and returns what is known of it. It may know a later look than now, made by somebody else.
func (s *Scheduler) clock(now time.Time) wallClock {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clockLocked(now)
}

func (s *Scheduler) clockLocked(now time.Time) wallClock {
	c := &s.mu.clock
	passed := now.Sub(c.seen)
	if passed < 0 { // somebody else looked later
		return *c
	}
	if by := c.look(now, passed); by != 0 {
		s.metrics.clockSteps.Inc()
		s.log.Warn("the clock was set", "by", by.Round(time.Second), "to", now.Round(0))
		s.rebaseLocked(now)
		if by < 0 {
			notify(s.turned)
		}
	}
	return *c
}

// rebaseLocked makes the times that queues wait for right by the clock as it is now. Those that were learned in this
// life have monotonic parts, and are as far away as they were; those that are recorded are what they say.
func (s *Scheduler) rebaseLocked(now time.Time) {
	again := func(t *time.Time) {
		if !t.IsZero() {
			*t = now.Add(t.Sub(now))
		}
	}
	for _, q := range s.mu.queues {
		again(&q.health.until)
		again(&q.health.since)
		again(&q.health.at)
		s.mu.alarms.remove(q) // they are in order by what the clock was
	}
	for _, q := range s.mu.queues {
		s.arrangeLocked(q, now)
	}
	notify(s.alarm)
}

// followClock brings forward, until ctx ends, what waits too long since the clock was set back.
func (s *Scheduler) followClock(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.turned:
		}
		if n, err := s.bringForward(ctx); err != nil {
			s.complain(ctx, "entries that wait too long since the clock was set back cannot be made due earlier", err)
		} else if n > 0 {
			s.log.Info("entries that waited too long since the clock was set back are due earlier", "entries", n)
		}
	}
}

// longestPause returns how far away nothing that waits can be due: twice what the schedule and a remote's hint allow.
func (s *Settings) longestPause() time.Duration {
	return 2 * max(slices.Max(s.Retry), maxHint)
}

// sooner returns how long e waits if it waits too long now.
func sooner(e *spool.Entry, now time.Time, s *Settings, r *rand.Rand) (wait time.Duration, ok bool) {
	longest := s.longestPause()
	last := e.Message.Received
	if e.LastAttempt.After(last) {
		last = e.LastAttempt
	}
	switch {
	case last.After(now.Add(clockSlack)): // its pause began in the future
		wait = min(max(e.Due.Sub(last), 0), longest)
	case e.Due.After(now.Add(longest)):
		wait = jitter(step(s.Retry, e.Attempts-1), s.Jitter, r)
	default:
		return 0, false
	}
	return wait, e.Due.After(now.Add(wait))
}

// bringForward gives new due times to entries that wait longer than they were meant to. Those that are due at about the
// same time get the same one, so that a million of them are not a million records.
func (s *Scheduler) bringForward(ctx context.Context) (int, error) {
	s.mu.Lock()
	settings := s.mu.settings
	random := rand.New(rand.NewPCG(s.mu.rand.Uint64(), s.mu.rand.Uint64()))
	s.mu.Unlock()
	const most = 16 * batch // entries that wait to be changed
	waits := make(map[time.Duration][]spool.EntryID)
	held, n := 0, 0
	flush := func(wait time.Duration) error {
		ids := waits[wait]
		delete(waits, wait)
		held -= len(ids)
		changed, err := s.o.Spool.Reschedule(ctx, spool.Filter{Entries: ids}, time.Now().Add(wait))
		n += changed
		return err
	}
	for e, err := range s.o.Spool.Entries(ctx, spool.Filter{States: []spool.State{spool.Waiting}}, 0, spool.EntryID{}) {
		if err != nil {
			return n, err
		}
		wait, ok := sooner(e, time.Now(), &settings, random)
		if !ok {
			continue
		}
		wait = roughly(wait)
		waits[wait] = append(waits[wait], e.ID())
		held++
		if len(waits[wait]) == batch {
			if err := flush(wait); err != nil {
				return n, err
			}
		}
		for w := range waits {
			if held < most {
				break
			}
			if err := flush(w); err != nil {
				return n, err
			}
		}
	}
	for w := range waits {
		if err := flush(w); err != nil {
			return n, err
		}
	}
	return n, nil
}

// roughly rounds d down to some 6 %.
func roughly(d time.Duration) time.Duration {
	unit := time.Duration(1)
	for unit < d/32 {
		unit *= 2
	}
	return d.Truncate(unit)
}
