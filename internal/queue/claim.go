package queue

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/spool"
)

const (
	// leastClaim is how many entries a claim asks for though the windows are full, so that the look into the index pays.
	// Who claimed them makes the attempts one after the other (staysLocked), so that each slot takes the windows beyond
	// their bounds by so many at most.
	leastClaim = 16
	// longestTurn is how long a worker may stay with a queue for that.
	longestTurn = time.Second
)

// tightLocked reports whether the windows are as full as they should be for q.
func (s *Scheduler) tightLocked(q *queue) bool {
	return s.mu.room+s.mu.claiming >= s.o.WindowTotal || q.tenant.room+q.tenant.claiming >= s.o.WindowTotal/2
}

// staysLocked reports whether a worker keeps its slot though others stand in line: while the windows are full, what was
// claimed is done before more is claimed for others, or each queue there is would come to hold some of it.
func (s *Scheduler) staysLocked(w *worker, now time.Time) bool {
	q := w.queue
	return q.groups > 0 && w.attempts < leastClaim && now.Sub(w.began) < longestTurn && s.tightLocked(q) && q.ready(now)
}

// claimLocked claims due entries of q into its window. The lock is given up meanwhile; q.claiming keeps others away.
func (s *Scheduler) claimLocked(q *queue, now time.Time) {
	limit := min(s.o.Claim, s.o.WindowTotal-s.mu.room-s.mu.claiming, s.o.WindowTotal/2-q.tenant.room-q.tenant.claiming)
	least := leastClaim // a worker in want of work always gets some
	if s.mu.room+s.mu.claiming > s.o.WindowTotal+leastClaim*s.mu.settings.Attempts {
		least = 1 // attempts take too long for one to have its turn with all of it
	}
	limit = max(limit, min(s.o.Claim, least))
	if q.health.failures > 0 {
		limit = 1 // a probe
	}
	s.mu.claiming += limit
	q.tenant.claiming += limit
	q.claiming, q.streak = true, 0
	q.due = time.Time{} // Due calls from now on are news
	settings, clock := s.mu.settings, s.clockLocked(now)
	random := rand.New(rand.NewPCG(s.mu.rand.Uint64(), s.mu.rand.Uint64()))
	s.mu.Unlock()

	entries, err := s.o.Spool.Claim(s.attempts, q.key, now, limit, func(e *spool.Entry) time.Time {
		return nextDue(now, clock.expires(e.Message), e.Attempts+1, 0, &settings, random)
	})
	stat, _ := s.o.Spool.Queue(q.key)
	s.metrics.claims.Inc()
	s.metrics.claimed.Add(float64(len(entries)))

	s.mu.Lock()
	after := time.Now()
	q.claiming = false
	s.mu.claiming -= limit
	q.tenant.claiming -= limit
	next := stat.NextDue
	switch {
	case err != nil:
		q.health.pause(now, after, spool.Result{
			Reason: event.LocalError, Explanation: "due entries cannot be claimed: " + err.Error(),
		}, settings.Pause)
		next = now
		if errors.Is(err, spool.ErrFailed) {
			s.failLocked(err)
		} else if s.attempts.Err() == nil {
			s.log.Error("due entries cannot be claimed", "queue", q.key, "error", err)
		}
	case len(entries) == 0 && !next.IsZero() && !next.After(now):
		next = after.Add(time.Second) // the spool knows better what is due than when
	}
	if next.After(after.Add(settings.longestPause())) {
		notify(s.turned)
	}
	s.dueLocked(q, next)
	if len(entries) > 0 && (s.mu.stopping || q.health.stopped(after)) {
		s.mu.Unlock()
		s.o.Spool.Return(entries)
		s.mu.Lock()
		entries = nil
	}
	var held []*spool.Entry
	var reason string
	if len(s.mu.rules) > 0 {
		entries, held, reason = s.unruledLocked(entries)
	}
	for _, g := range groups(entries) {
		s.pushLocked(q, g)
	}
	s.arrangeLocked(q, after)
	if len(held) > 0 {
		s.mu.Unlock()
		s.o.Spool.ReturnHeld(held, reason)
		s.mu.Lock()
	}
}

// unruledLocked parts claimed entries into those that go on and those that a rule holds. Rules count at acceptance, so
// that what an operator releases goes its way; but a crash may have come before that was recorded.
func (s *Scheduler) unruledLocked(entries []*spool.Entry) (free, held []*spool.Entry, reason string) {
	for _, e := range entries {
		if e.Attempts == 0 && e.Interrupted > 0 {
			if r := s.ruledLocked(e.Message, e.Queue()); r != nil && !e.Message.Received.Before(r.Since) {
				held, reason = append(held, e), r.Reason
				continue
			}
		}
		free = append(free, e)
	}
	return free, held, reason
}

// groups parts claimed entries by message, keeping their order.
func groups(entries []*spool.Entry) []group {
	var out []group
	place := make(map[*spool.Message]int, len(entries))
	for len(entries) > 0 {
		m, n := entries[0].Message, 1
		for n < len(entries) && entries[n].Message == m {
			n++
		}
		if at, ok := place[m]; ok {
			out[at].entries = append(out[at].entries, entries[:n]...)
		} else {
			place[m] = len(out)
			out = append(out, group{message: m, entries: entries[:n:n], spread: spread(m)})
		}
		entries = entries[n:]
	}
	return out
}

// spread reports whether m has recipients in several queues.
func spread(m *spool.Message) bool {
	for _, key := range m.Queues[1:] {
		if key != m.Queues[0] {
			return true
		}
	}
	return false
}
