package queue

import (
	"math/rand/v2"
	"time"

	"github.com/godwit-mta/godwit/internal/spool"
)

// health is what a queue has learned about its destination.
//
// A destination that cannot be reached is not tried with each of a hundred thousand entries: after SuspendAfter
// failures in a row the queue stops as a whole until a time of its own schedule, then one entry is tried. Its entries
// stay due; they are not rescheduled one by one, so nothing is written for them, and the first answer lets them go on.
type health struct {
	failures int // attempts in a row that did not reach the destination
	probes   int // of these, tries since the suspension began
	paused   int // attempts in a row that this server could not make

	until time.Time     // nothing is begun before; zero: not stopped
	since time.Time     // when the first of the failures happened
	last  *spool.Result // the last failure; nil: none
	at    time.Time     // when it happened
}

func (h *health) stopped(now time.Time) bool { return !h.until.IsZero() && now.Before(h.until) }

// suspended reports whether the destination is given up for now, be it that a probe is due or under way.
func (h *health) suspended(s *Settings) bool { return h.failures >= s.SuspendAfter }

// reached notes an attempt that got an answer from the destination.
func (h *health) reached() { *h = health{} }

// failed notes an attempt, begun at started, that did not get to the destination for the reason in r.
func (h *health) failed(started, now time.Time, r spool.Result, s *Settings, random *rand.Rand) {
	if h.failures == 0 {
		h.since = started
	}
	if h.suspended(s) && started.Before(h.at) {
		return // begun before the last verdict: it tells nothing new, and must not lengthen the pause
	}
	h.last, h.at = &r, now
	if h.failures++; !h.suspended(s) {
		return
	}
	h.until = now.Add(jitter(step(s.Probes, h.probes), s.Jitter, random))
	h.probes++
}

// pause notes that this server could not make an attempt, begun at started, for the reason in r. The queue rests for
// first, twice as long the next time in a row, and so on up to 64 times.
func (h *health) pause(started, now time.Time, r spool.Result, first time.Duration) {
	if h.paused > 0 && started.Before(h.at) {
		return // begun before the last such verdict, as with failed
	}
	h.last, h.at = &r, now
	wait := first << min(h.paused, 6)
	if h.paused == 0 {
		h.since = now
	}
	h.paused++
	if until := now.Add(wait); until.After(h.until) {
		h.until = until
	}
}

// outage notices when the trouble is not with the destinations but with the way to all of them: this server's network
// or DNS. Queues that were suspended during it need not wait for their probes when it is over.
type outage struct {
	reached time.Time // when an attempt last got to a destination
	missed  int       // attempts since that did not
}

const (
	outageAfter  = time.Minute // without reaching any destination
	outageMissed = 20          // attempts
)

// over notes an attempt that got to its destination, and reports whether it ends an outage, which began at since.
func (o *outage) over(now time.Time) (since time.Time, over bool) {
	since, over = o.reached, o.missed >= outageMissed && now.Sub(o.reached) >= outageAfter
	o.reached, o.missed = now, 0
	return since, over
}

// recoverLocked lets the queues that were suspended since try again within a minute, spread at random.
func (s *Scheduler) recoverLocked(since, now time.Time) {
	n := 0
	for _, q := range s.mu.queues {
		h := &q.health
		if h.failures == 0 || h.since.Before(since) || !h.stopped(now) {
			continue
		}
		if soon := now.Add(time.Duration(s.mu.rand.Int64N(int64(outageAfter)))); soon.Before(h.until) {
			h.until, h.probes = soon, 0
			s.arrangeLocked(q, now)
			n++
		}
	}
	if n > 0 {
		s.log.Info("the way to the destinations is open again, suspended queues are tried within a minute",
			"queues", n, "since", since)
	}
}
