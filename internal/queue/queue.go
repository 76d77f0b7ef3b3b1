package queue

import (
	"iter"
	"time"

	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/message"
)

// queue is what the scheduler knows of the entries of one (tenant, destination domain). It exists while there is
// anything to know and a minute longer; what waits in the spool costs nothing here beyond the time when the first of
// it is due. Everything is guarded by the scheduler's lock.
type queue struct {
	key    spool.QueueKey
	tenant *tenant

	// Claimed entries ready for an attempt, and how much of it is live: groups that were joined to another job or
	// taken out by an operator leave an empty place.
	window  deque[group]
	groups  int
	entries int
	room    int // what they take of the windows: see room

	due      time.Time // earliest due entry in the spool; zero: none
	claiming bool      // a worker is claiming
	streak   int       // groups taken since the last claim: due entries get their turn beside fresh ones

	active int  // workers that hold a slot for it
	waking bool // one of them was woken and has not come yet
	lined  bool // stands in line for a slot

	allowed int // attempts at once, grown by success
	class   class
	health  health

	wakeAt time.Time // its time in the alarms
	alarm  int       // its place there, from 1; 0: none

	idleSince time.Time // zero: it has something to do
	listed    bool      // is in the scheduler's list of idle queues
	gone      bool      // is no longer in the scheduler's table
}

// group is the entries of one message in one queue that are attempted together.
type group struct {
	message *spool.Message
	entries []*spool.Entry // nil: taken out
	spread  bool           // the message has groups in other queues: siblings knows it
	fresh   bool           // not yet attempted; its bytes are probably in memory
}

// room returns how much of a window n entries of one message in one queue take.
func room(n int) int { return (n + spool.Share - 1) / spool.Share }

// place is where a group stands.
type place struct {
	queue  *queue
	number uint64
}

// limit returns how many attempts q may run at once: one at a time until a destination that failed has answered.
func (q *queue) limit(s *Settings) int {
	if q.health.failures > 0 || q.health.paused > 0 {
		return 1
	}
	return min(q.allowed, s.Connections)
}

// ready reports whether q has work that may begin at now, slots aside.
func (q *queue) ready(now time.Time) bool {
	return !q.gone && !q.health.stopped(now) && (q.groups > 0 || q.claimable(now))
}

func (q *queue) claimable(now time.Time) bool {
	return !q.claiming && !q.due.IsZero() && !q.due.After(now)
}

// alarmAt returns when q wants to be woken: when the first entry is due, but not before a suspension ends.
func (q *queue) alarmAt() time.Time {
	at := q.due
	if q.groups > 0 {
		at = q.health.until // what is in the window waits for nothing else
	}
	if at.IsZero() || q.health.until.After(at) {
		return q.health.until
	}
	return at
}

// live yields the groups in q's window, oldest first.
func (q *queue) live() iter.Seq[*group] {
	return func(yield func(*group) bool) {
		for n := q.window.head; n != q.window.tail; n++ {
			if g := q.window.At(n); g.entries != nil && !yield(g) {
				return
			}
		}
	}
}

// pushLocked puts a group into q's window.
func (s *Scheduler) pushLocked(q *queue, g group) {
	number := q.window.Push(g)
	q.groups++
	s.countLocked(q, g, 1)
	if g.spread {
		s.mu.siblings[g.message.ID] = append(s.mu.siblings[g.message.ID], place{q, number})
	}
}

// popLocked takes the oldest live group out of q's window.
func (s *Scheduler) popLocked(q *queue) (group, bool) {
	for {
		g, ok := q.window.Pop()
		if !ok {
			return group{}, false
		}
		if g.entries == nil {
			continue
		}
		q.groups--
		s.countLocked(q, g, -1)
		if g.spread {
			s.forgetLocked(g.message.ID, q, q.window.head-1)
		}
		return g, true
	}
}

// takeLocked takes the group at p out of the middle of its window.
func (s *Scheduler) takeLocked(p place) (group, bool) {
	at := p.queue.window.At(p.number)
	if at == nil || at.entries == nil {
		return group{}, false
	}
	g := *at
	at.entries = nil
	p.queue.groups--
	s.countLocked(p.queue, g, -1)
	if g.spread {
		s.forgetLocked(g.message.ID, p.queue, p.number)
	}
	return g, true
}

// countLocked books the entries of g into (1) or out of (-1) the windows.
func (s *Scheduler) countLocked(q *queue, g group, sign int) {
	n := sign * len(g.entries)
	q.entries += n
	s.mu.entries += n
	n = sign * room(len(g.entries))
	q.room += n
	q.tenant.room += n
	s.mu.room += n
	if g.fresh {
		s.mu.bytes += int64(sign) * g.message.Size
	}
}

func (s *Scheduler) forgetLocked(id message.ID, q *queue, number uint64) {
	places := s.mu.siblings[id]
	for i, p := range places {
		if p.queue == q && p.number == number {
			places[i] = places[len(places)-1]
			places[len(places)-1] = place{}
			places = places[:len(places)-1]
			break
		}
	}
	if len(places) == 0 {
		delete(s.mu.siblings, id)
		return
	}
	s.mu.siblings[id] = places
}

// joinLocked takes the groups of the same message in other queues that go to the same site, so that one transaction
// carries them all.
func (s *Scheduler) joinLocked(q *queue, g group, entries []*spool.Entry, now time.Time) []*spool.Entry {
	places := s.mu.siblings[g.message.ID]
	if len(places) == 0 {
		return entries
	}
	site, ok := s.o.Deliverer.Site(q.key.Domain)
	if !ok {
		return entries
	}
	for i := len(places) - 1; i >= 0; i-- { // takeLocked changes the list behind i only
		other := places[i].queue
		if other == q || other.health.stopped(now) {
			continue
		}
		if at, ok := s.o.Deliverer.Site(other.key.Domain); !ok || at != site {
			continue
		}
		if sibling, ok := s.takeLocked(places[i]); ok {
			entries = append(entries[:len(entries):len(entries)], sibling.entries...) // the group's slice is lent
			s.arrangeLocked(other, now)
		}
	}
	return entries
}
