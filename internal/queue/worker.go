package queue

import (
	"context"
	"runtime/debug"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/smtp"
)

// worker is a goroutine that makes attempts, one at a time. While it has a queue it holds one slot of that queue, of
// its tenant and of the whole. Its fields but wake are guarded by the scheduler's lock; job is its own while an
// attempt is under way.
type worker struct {
	wake  chan *queue // one place; nil sends it home
	queue *queue
	class class // whose share its slot counts in

	began    time.Time // when it came to have its slot
	attempts int       // those that it began since

	job     Job
	entries []*spool.Entry // in the attempt under way; nil: none
	started time.Time
}

// workerLocked returns a worker without work, the one that rested last, or a new one.
func (s *Scheduler) workerLocked() *worker {
	if n := len(s.mu.parked); n > 0 {
		w := s.mu.parked[n-1]
		s.mu.parked = s.mu.parked[:n-1]
		s.mu.spare = min(s.mu.spare, n-1)
		return w
	}
	w := &worker{wake: make(chan *queue, 1)}
	w.job.Body = func(ctx context.Context) (*smtp.Body, error) { return s.o.Spool.Body(ctx, w.job.Message) }
	w.job.BodyNow = func(ctx context.Context) (*smtp.Body, error) { return s.o.Spool.BodyNow(ctx, w.job.Message) }
	s.mu.workers[w] = struct{}{}
	s.working.Go(func() { s.work(w) })
	return w
}

func (s *Scheduler) work(w *worker) {
	for q := range w.wake {
		if q == nil || s.serve(w) {
			break
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.workers, w)
}

// serve works for the worker's queue, then for whichever is in line, until there is nothing to do. It reports whether
// the worker is to go home; otherwise it is parked.
func (s *Scheduler) serve(w *worker) (home bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.queue.waking = false
	for w.queue != nil {
		q, now := w.queue, time.Now()
		switch s.nextLocked(q, now) {
		case attempt:
			s.loadLocked(w, q, now)
			s.arrangeLocked(q, now) // sends for one more if there is work for one more
			s.mu.Unlock()
			v, what := s.attempt(w)
			s.mu.Lock()
			s.afterLocked(w, q, v, what)
		case claim:
			s.claimLocked(q, now)
		case rest:
			s.releaseLocked(w)
			s.arrangeLocked(q, now)
		}
		switch {
		case s.mu.stopping || s.mu.failed != nil:
			if w.queue != nil {
				s.releaseLocked(w)
			}
		case w.queue != nil && s.staysLocked(w, time.Now()):
		case w.queue == nil || !s.mu.lines[proven].empty() || !s.mu.lines[unproven].empty():
			s.turnLocked(w)
		}
	}
	if s.mu.stopping {
		return true
	}
	s.mu.parked = append(s.mu.parked, w)
	return false
}

// turnLocked gives the worker's slot to the queue whose turn it is; that may be the one it has, but behind all others.
func (s *Scheduler) turnLocked(w *worker) {
	now := time.Now()
	if q := w.queue; q != nil {
		s.releaseLocked(w)
		if q.ready(now) && !q.lined {
			q.lined = true
			s.mu.lines[q.class].add(q)
		}
		defer s.arrangeLocked(q, now)
	}
	if q := s.pickLocked(now); q != nil {
		s.acquireLocked(w, q, now)
	}
}

type move uint8

const (
	rest    move = iota // nothing that may be done now
	attempt             // a group of the window
	claim               // due entries
)

// nextLocked says what a worker that holds a slot of q does next.
func (s *Scheduler) nextLocked(q *queue, now time.Time) move {
	switch {
	case s.mu.stopping || s.mu.failed != nil || !q.ready(now) || q.active > q.limit(&s.mu.settings):
		return rest
	case q.claimable(now) && (q.groups == 0 || q.streak >= s.o.Claim && q.room+s.o.Claim <= s.o.Window):
		return claim
	case q.groups > 0:
		return attempt
	}
	return rest
}

// loadLocked makes the next group of q the worker's job.
func (s *Scheduler) loadLocked(w *worker, q *queue, now time.Time) {
	g, _ := s.popLocked(q)
	entries := g.entries
	if g.spread {
		entries = s.joinLocked(q, g, entries, now)
	}
	q.streak++
	if g.fresh {
		s.metrics.freshWait.Observe(max(0, now.Sub(g.message.Received)).Seconds())
	}
	w.job.Message, w.job.Key, w.job.Entries = g.message, q.key, entries
	w.job.Enter("", "", now)
	w.entries, w.started = entries, now
	w.attempts++
}

// finding is what an attempt says about its destination.
type finding uint8

const (
	reached   finding = iota // it answered
	missed                   // it could not be reached
	untouched                // this server could not make the attempt
	nothing                  // nothing: none was needed, or it met trouble of this server
)

// attempt delivers the worker's job and hands the outcomes to the spool. Entries that were too old before it are
// expired instead.
func (s *Scheduler) attempt(w *worker) (Verdict, finding) {
	j := &w.job
	what := reached
	v := Verdict{}
	if s.overAge(j.Message, w.started) {
		v.Attempt, what = s.agedAttempt(j.Message, j.Entries), nothing
	} else {
		v = s.deliver(w)
	}
	a := v.Attempt
	untried, local, deferred := 0, 0, false
	report := len(j.Message.Recipients) > len(a.Entries) // a failure of others may have waited for these
	for i := range a.Results {
		if a.Results[i].Reason == event.LocalError {
			local++
		}
		switch a.Results[i].Outcome {
		case spool.None:
			untried++
		case spool.Deferred:
			deferred = true
		case spool.Delivered:
			report = report || a.Entries[i].Recipient().Notify.Success()
		default:
			report = true
		}
	}
	if deferred {
		s.schedule(&v)
	}
	if untried == len(a.Entries) && v.Unreadable != nil {
		s.o.Spool.Quarantine(a.Entries, v.Unreadable)
		s.remind()
		return v, nothing
	}
	if untried == len(a.Entries) {
		return v, untouched // not returned yet: they are due, and the queue must have come to rest first
	}
	s.settling <- struct{}{}
	s.o.Spool.Settle(a, s.settled)
	if report || deferred { // a deferred entry may have grown too old, or be bounced by an operator's wish
		s.remind()
	}
	switch {
	case v.Destination:
		what = missed
	case local == len(a.Entries):
		what = nothing
	}
	return v, what
}

// deliver calls the Deliverer. A panic costs the attempt, not the process, and not the message: nobody knows how far
// the attempt had come, so its entries are deferred by the schedule.
func (s *Scheduler) deliver(w *worker) (v Verdict) {
	j := &w.job
	defer func() {
		if r := recover(); r != nil {
			s.metrics.panics.Inc()
			s.log.Error("delivery panicked", "message", j.Message.ID, "site", j.Key.Domain, "panic", r,
				"stack", string(debug.Stack()))
			v = broken(w, "a defect of this server ended the attempt")
		} else if a := v.Attempt; a == nil || len(a.Entries) != len(j.Entries) || len(a.Results) != len(j.Entries) {
			s.log.Error("delivery gave no result for each entry", "message", j.Message.ID, "site", j.Key.Domain)
			v = broken(w, "a defect of this server lost the outcome of the attempt")
		}
	}()
	return s.o.Deliverer.Deliver(s.attempts, j)
}

// broken is the verdict of an attempt whose outcome is not known.
func broken(w *worker, why string) Verdict {
	j := &w.job
	a := &spool.Attempt{
		Message: j.Message, Entries: j.Entries, Results: make([]spool.Result, len(j.Entries)),
		Started: w.started, Ended: time.Now(),
	}
	for i := range a.Results {
		a.Results[i] = spool.Result{Outcome: spool.Deferred, Reason: event.LocalError, Explanation: why}
	}
	return Verdict{Attempt: a}
}

// schedule sets when deferred entries are due again. Those whose time is over are expired.
func (s *Scheduler) schedule(v *Verdict) {
	a, now := v.Attempt, time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	clock := s.clockLocked(now)
	expires, old := clock.expires(a.Message), clock.tooOld(a.Message)
	for i := range a.Results {
		r := &a.Results[i]
		if r.Outcome != spool.Deferred {
			continue
		}
		if old {
			*r = s.aged(a.Entries[i], r)
			continue
		}
		var hint time.Duration
		if i < len(v.RetryAfter) {
			hint = v.RetryAfter[i]
		}
		r.NextDue = nextDue(now, expires, a.Entries[i].Attempts+1, hint, &s.mu.settings, s.mu.rand)
	}
}

// afterLocked draws the conclusions of an attempt for the queue.
func (s *Scheduler) afterLocked(w *worker, q *queue, v Verdict, what finding) {
	now, started := time.Now(), w.started
	if what == untouched {
		s.untouchedLocked(q, v.Attempt, started, now)
	}
	w.entries = nil
	w.job.Message, w.job.Entries = nil, nil
	switch what {
	case reached:
		if since, over := s.mu.outage.over(now); over {
			s.recoverLocked(since, now)
		}
		if q.health.failures > 0 || q.health.paused > 0 {
			q.health.reached()
		}
		q.class = proven
		q.allowed = min(q.allowed+1, s.mu.settings.Connections)
	case missed:
		s.mu.outage.missed++
		if s.failedLocked(q, v.Attempt, started, now); !q.health.stopped(now) {
			return
		}
		if back := s.clearLocked(q, nil); len(back) > 0 { // they wait in the spool, due, until the destination is back
			s.mu.Unlock()
			s.o.Spool.Return(back)
			s.mu.Lock()
		}
	}
}

// untouchedLocked lets the queue rest after an attempt that this server could not make, and returns the attempt's
// entries: in this order, since they are due. The lock is released meanwhile.
func (s *Scheduler) untouchedLocked(q *queue, a *spool.Attempt, started, now time.Time) {
	if s.attempts.Err() == nil {
		q.health.pause(started, now, worst(a.Results), s.mu.settings.Pause)
	}
	s.mu.Unlock()
	s.o.Spool.Return(a.Entries)
	s.remind() // an operator may have wished to bounce them
	s.mu.Lock()
}

// failedLocked notes that an attempt did not get to the destination.
func (s *Scheduler) failedLocked(q *queue, a *spool.Attempt, started, now time.Time) {
	was := q.health.suspended(&s.mu.settings)
	q.health.failed(started, now, worst(a.Results), &s.mu.settings, s.mu.rand)
	q.class, q.allowed = unproven, 1
	if !was && q.health.suspended(&s.mu.settings) {
		s.metrics.suspensions.Inc()
	}
}

// worst returns the result that says why: the first that is not a delivery.
func worst(results []spool.Result) spool.Result {
	for _, r := range results {
		if r.Outcome != spool.Delivered {
			return r
		}
	}
	return results[0]
}
