package queue

import (
	"slices"
	"time"

	"github.com/godwit-mta/godwit/internal/spool"
)

var _ spool.Sink = (*Scheduler)(nil)

// Fresh takes a message that was just accepted. What finds room in the windows is attempted as soon as a slot is free,
// from memory; the rest is given back and comes again through the spool when its turn has come.
func (s *Scheduler) Fresh(m *spool.Message, entries []*spool.Entry) {
	if len(entries) == 0 {
		return
	}
	now := time.Now()
	var held []*spool.Entry
	var reason string
	s.mu.Lock()
	if len(s.mu.rules) > 0 {
		entries, held, reason = s.ruleLocked(m, entries)
	}
	back := s.freshLocked(m, entries, now)
	s.mu.Unlock()
	if len(held) > 0 {
		s.metrics.held.Add(float64(len(held)))
		s.o.Spool.ReturnHeld(held, reason)
	}
	s.metrics.fresh.Add(float64(len(entries) - len(back)))
	if len(back) > 0 {
		s.metrics.spilled.Add(float64(len(back)))
		s.o.Spool.Return(back)
	}
}

func (s *Scheduler) freshLocked(m *spool.Message, entries []*spool.Entry, now time.Time) (back []*spool.Entry) {
	if s.mu.stopping || len(entries) == 0 {
		return entries
	}
	if key := entries[0].Queue(); sameQueue(entries) {
		q := s.queueLocked(key)
		if !s.admitsLocked(q, m, len(entries), now) {
			return entries
		}
		s.pushLocked(q, group{message: m, entries: entries, fresh: true})
		s.arrangeLocked(q, now)
		return nil
	}
	for _, g := range split(entries) {
		q := s.queueLocked(g[0].Queue())
		if !s.admitsLocked(q, m, len(g), now) {
			back = append(back, g...)
			continue
		}
		s.pushLocked(q, group{message: m, entries: g, fresh: true, spread: true})
	}
	for _, e := range entries { // only now, so that siblings can be joined to the first that is attempted
		if q := s.mu.queues[e.Queue()]; q != nil {
			s.arrangeLocked(q, now)
		}
	}
	return back
}

// ruleLocked parts entries into those that go on and those that a rule holds.
func (s *Scheduler) ruleLocked(m *spool.Message, entries []*spool.Entry) (free, held []*spool.Entry, reason string) {
	for _, e := range entries {
		if r := s.ruledLocked(m, e.Queue()); r != nil {
			held, reason = append(held, e), r.Reason
			continue
		}
		free = append(free, e)
	}
	return free, held, reason
}

// admitsLocked reports whether n fresh entries of m may wait in memory. While due entries wait in the spool for their
// turn, a quarter of the window is kept free for them.
func (s *Scheduler) admitsLocked(q *queue, m *spool.Message, n int, now time.Time) bool {
	window, n := s.o.Window, room(n)
	if q.claimable(now) {
		window -= window / 4
	}
	return s.mu.failed == nil && !q.health.stopped(now) &&
		(q.room == 0 || q.room+n <= window) &&
		s.mu.room+s.mu.claiming+n <= s.o.WindowTotal &&
		q.tenant.room+q.tenant.claiming+n <= max(1, s.o.WindowTotal/2) &&
		s.mu.bytes+m.Size <= s.o.WindowBytes
}

// Due notes that the first entry of a queue is due at.
func (s *Scheduler) Due(key spool.QueueKey, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if at.After(now.Add(s.mu.settings.longestPause())) {
		notify(s.turned) // it was recorded by another clock
	}
	q := s.queueLocked(key)
	s.dueLocked(q, at)
	s.arrangeLocked(q, now)
}

func sameQueue(entries []*spool.Entry) bool {
	key := entries[0].Queue()
	for _, e := range entries[1:] {
		if e.Queue() != key {
			return false
		}
	}
	return true
}

// split parts entries into runs of one queue each, without copying where they stand together already.
func split(entries []*spool.Entry) [][]*spool.Entry {
	entries = slices.Clone(entries)
	slices.SortStableFunc(entries, func(a, b *spool.Entry) int { return a.Queue().Compare(b.Queue()) })
	var parts [][]*spool.Entry
	for len(entries) > 0 {
		n := 1
		for n < len(entries) && entries[n].Queue() == entries[0].Queue() {
			n++
		}
		parts = append(parts, entries[:n:n])
		entries = entries[n:]
	}
	return parts
}
