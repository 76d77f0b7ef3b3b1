package queue

import (
	"math/rand/v2"
	"time"
)

// DefaultRetry returns the pauses between attempts: the first value follows the first attempt, and so on; the last one
// repeats until the message is too old.
func DefaultRetry() []time.Duration {
	return []time.Duration{ // elapsed since the first attempt
		2 * time.Minute,  // 2 min
		5 * time.Minute,  // 7 min
		10 * time.Minute, // 17 min
		20 * time.Minute, // 37 min
		40 * time.Minute, // 1 h 17 min
		1 * time.Hour,    // 2 h 17 min
		2 * time.Hour,    // 4 h 17 min
		4 * time.Hour,    // 8 h 17 min, and every 4 h from here
	}
}

// DefaultProbes returns the pauses between tries of one entry at a destination that is suspended. The last one repeats.
func DefaultProbes() []time.Duration {
	return []time.Duration{ // elapsed since the suspension
		1 * time.Minute,  // 1 min
		2 * time.Minute,  // 3 min
		5 * time.Minute,  // 8 min
		10 * time.Minute, // 18 min
		15 * time.Minute, // 33 min
		30 * time.Minute, // 1 h 3 min, and every 30 min from here
	}
}

// step returns the n-th pause (0 is the first) of a schedule whose last value repeats.
func step(schedule []time.Duration, n int) time.Duration {
	return schedule[min(max(n, 0), len(schedule)-1)]
}

// jitter stretches or shortens d at random by up to percent, so that mail deferred together does not return together.
func jitter(d time.Duration, percent int, r *rand.Rand) time.Duration {
	span := int64(d) / 100 * int64(percent)
	if span <= 0 {
		return d
	}
	return d + time.Duration(r.Int64N(2*span+1)-span)
}

const (
	// maxHint bounds what a remote can make us wait: a reply may ask for hours, but not park mail for days.
	maxHint = 4 * time.Hour
	// lastTry is how long before an entry's end one more attempt is made when the schedule would step over the end.
	lastTry = 5 * time.Minute
)

// nextDue returns when an entry that was tried attempts times (this one included) and deferred at now is due again.
// hint is what the remote asked for, 0 for nothing.
//
// The later of schedule and hint counts, but a hint longer than 4 h counts as 4 h: a site that says "come back in 15
// minutes" is obeyed, and one that says "in one second" does not lift the schedule. The first retry is the exception:
// a hint may bring it forward, down to half of the schedule's value, since greylisting wants one quick second visit.
//
// If the schedule steps over the end of the entry's life, one last attempt is made shortly before the end, unless that
// would be sooner than half the pause; then the entry waits for its end.
func nextDue(now, expires time.Time, attempts int, hint time.Duration, s *Settings, r *rand.Rand) time.Time {
	pause := step(s.Retry, attempts-1)
	switch hint = min(hint, maxHint); {
	case hint > pause:
		pause = hint
	case hint > 0 && attempts <= 1:
		pause = max(hint, pause/2)
	}
	wait := jitter(pause, s.Jitter, r)
	if wait < hint {
		wait = hint + (hint - wait) // never sooner than the remote asked
	}
	next := now.Add(wait)
	if expires.IsZero() || next.Before(expires) {
		return next
	}
	if last := expires.Add(-jitter(lastTry, 50, r)); last.Sub(now) >= pause/2 {
		return last
	}
	return expires
}
