package queue

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/spool"
)

// leastClaim is how many entries a claim asks for however full the windows are. Each attempt in flight can take them beyond
// their bounds by so many.
const leastClaim = 16

// claimLocked claims due entries of q into its window. The lock is given up meanwhile; q.claiming keeps others away.
func (s *Scheduler) claimLocked(q *queue, now time.Time) {
	room := s.o.WindowTotal - s.mu.entries - s.mu.claiming
	limit := min(s.o.Claim, room, s.o.WindowTotal/2-q.tenant.entries-q.tenant.claiming)
	// A worker in want of work always gets some, and enough that the look into the index pays.
	limit = max(limit, min(s.o.Claim, leastClaim))
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
		q.health.pause(after, spool.Result{
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
	for i, e := range entries {
		if at, ok := place[e.Message]; ok {
			out[at].entries = append(out[at].entries, e)
			continue
		}
		place[e.Message] = len(out)
		out = append(out, group{message: e.Message, entries: entries[i : i+1 : i+1], spread: spread(e.Message)})
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
