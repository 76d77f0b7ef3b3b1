package queue

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/internal/spool"
)

// Order says how a list of queues is sorted. Ties go by domain, then tenant.
type Order uint8

const (
	ByEntries Order = iota // most entries first
	ByAge                  // oldest entry first
	ByDue                  // next attempt first; queues that wait for none come last
	ByName                 // domain, then tenant
)

// Query selects queues. Fields that are set must all match.
type Query struct {
	Tenant    string
	Domain    string      // exact; "*.example.com" for all below
	State     spool.State // queues with such entries: Waiting, Claimed or Held; zero: any
	Suspended bool        // only queues whose destination is suspended or paused
	Order     Order
	Limit     int // 0: all
}

// Info is one queue as people see it.
type Info struct {
	spool.QueueStat
	Active int // attempts under way
	Window int // claimed entries in memory that wait for an attempt
	Why    Why
}

// List is the answer to a Query.
type List struct {
	Queues  []Info
	Total   int // queues that match, listed or not
	Entries int // entries in all queues that match
}

// List returns the queues that match q. It looks at every queue there is, but at no entry: with 20,000 queues it takes
// some ten milliseconds, and the scheduler waits for none of it.
func (s *Scheduler) List(q Query) List {
	var out List
	now := time.Now()
	stopped := s.stoppedQueues(q, now)
	stats := s.o.Spool.Queues()
	var picked []*spool.QueueStat
	order := q.Order.compare()
	for i := range stats {
		stat := &stats[i]
		if stat.Total() == 0 || !q.matches(stat) || q.Suspended && !stopped[stat.Key] {
			continue
		}
		out.Total++
		out.Entries += stat.Total()
		if q.Limit <= 0 || len(picked) < q.Limit || order(stat, picked[q.Limit-1]) < 0 {
			picked = append(picked, stat)
		}
		if q.Limit > 0 && len(picked) >= 2*q.Limit { // from now on what is behind the limit is passed over
			slices.SortFunc(picked, order)
			picked = picked[:q.Limit]
		}
	}
	slices.SortFunc(picked, order)
	if q.Limit > 0 {
		picked = picked[:min(len(picked), q.Limit)]
	}
	out.Queues = make([]Info, len(picked))
	for part := range slices.Chunk(picked, 256) { // the lock is shared with deliveries
		s.mu.Lock()
		for i := range part {
			out.Queues[len(out.Queues)-len(picked)+i] = s.infoLocked(part[i], now)
		}
		s.mu.Unlock()
		picked = picked[len(part):]
	}
	return out
}

// Queue returns one queue. ok is false if it has no entries.
func (s *Scheduler) Queue(key spool.QueueKey) (info Info, ok bool) {
	stat, ok := s.o.Spool.Queue(key)
	if !ok {
		return Info{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.infoLocked(&stat, time.Now()), true
}

func (s *Scheduler) infoLocked(stat *spool.QueueStat, now time.Time) Info {
	q := s.mu.queues[stat.Key]
	info := Info{QueueStat: *stat, Why: s.whyLocked(q, stat, now)}
	if q != nil {
		info.Active, info.Window = q.active, q.entries
	}
	return info
}

// stoppedQueues returns the queues that are suspended or paused, if q asks for them.
func (s *Scheduler) stoppedQueues(q Query, now time.Time) map[spool.QueueKey]bool {
	if !q.Suspended {
		return nil
	}
	stopped := make(map[spool.QueueKey]bool)
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, q := range s.mu.queues {
		if q.health.stopped(now) || q.health.suspended(&s.mu.settings) {
			stopped[key] = true
		}
	}
	return stopped
}

func (q *Query) matches(stat *spool.QueueStat) bool {
	if q.Tenant != "" && stat.Key.Tenant != q.Tenant {
		return false
	}
	if suffix, below := strings.CutPrefix(q.Domain, "*"); below {
		if !strings.HasSuffix(stat.Key.Domain, suffix) {
			return false
		}
	} else if q.Domain != "" && stat.Key.Domain != q.Domain {
		return false
	}
	switch q.State {
	case spool.Waiting:
		return stat.Waiting > 0
	case spool.Claimed:
		return stat.Claimed > 0
	case spool.Held:
		return stat.Held > 0
	}
	return true
}

// compare returns how two queues stand in the order.
func (o Order) compare() func(a, b *spool.QueueStat) int {
	first := func(a, b *spool.QueueStat) int { return cmp.Compare(b.Total(), a.Total()) }
	switch o {
	case ByAge:
		first = func(a, b *spool.QueueStat) int { return a.Oldest.Compare(b.Oldest) }
	case ByDue:
		first = func(a, b *spool.QueueStat) int {
			switch az, bz := a.NextDue.IsZero(), b.NextDue.IsZero(); {
			case az && bz:
				return 0
			case az:
				return 1
			case bz:
				return -1
			}
			return a.NextDue.Compare(b.NextDue)
		}
	case ByName:
		first = func(a, b *spool.QueueStat) int { return 0 }
	}
	return func(a, b *spool.QueueStat) int {
		if c := first(a, b); c != 0 {
			return c
		}
		return cmp.Or(strings.Compare(a.Key.Domain, b.Key.Domain), strings.Compare(a.Key.Tenant, b.Key.Tenant))
	}
}
