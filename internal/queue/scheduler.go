package queue

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/message"
)

// Scheduler decides when entries are delivered. It is the spool's sink and the Deliverer's only caller. All methods
// may be called from many goroutines.
type Scheduler struct {
	o       Options
	log     *slog.Logger
	metrics *metrics

	alarm    chan struct{}   // the first alarm moved; Run's loop looks again
	reports  chan struct{}   // an entry became final that may have to be reported
	turned   chan struct{}   // the clock was set back
	settling chan struct{}   // one token for each attempt whose outcome is not yet durable
	attempts context.Context // of all attempts: done when the drain time is over
	working  sync.WaitGroup  // workers
	settled  func(error)     // bound once, since Settle takes it for each attempt

	// The lock is held for moments: nothing under it waits, calls the spool, or does I/O.
	mu struct {
		sync.Mutex
		settings Settings
		rand     *rand.Rand
		clock    wallClock

		started, stopping bool
		failed            error // the spool failed: nothing is begun any more

		outage  outage
		rules   map[string]*Rule // by key in the store
		queues  map[spool.QueueKey]*queue
		tenants map[string]*tenant
		idle    deque[*queue]
		alarms  alarms

		lines  [classes]turns
		last   class // class that was served last
		active int   // slots in use, in all and by class
		shares [classes]int

		workers map[*worker]struct{}
		parked  []*worker // those without work, latest last
		spare   int       // fewest of them since the last sweep

		entries  int   // in windows
		room     int   // what they take of them
		claiming int   // what claims under way may come to take
		bytes    int64 // of fresh messages in windows
		siblings map[message.ID][]place
	}
}

const (
	// maxSettling bounds the attempts whose outcomes wait to become durable. Workers wait when it is reached, so a
	// slow disk slows delivery down instead of filling memory.
	maxSettling = 4096
	// sweepEvery is how often what is no longer needed is looked for, and the longest the alarms trust a timer: a
	// clock that is set is noticed after this time.
	sweepEvery = 15 * time.Second
	// idleAfter and maxIdle bound how long and how many queues without entries are remembered.
	idleAfter = time.Minute
	maxIdle   = 10_000
)

// New checks o, reads the rules that hold mail, and makes a scheduler. It starts nothing; what it is told by Fresh and
// Due before Run begins is kept.
func New(o Options) (*Scheduler, error) {
	o.fill()
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("queue options: %w", err)
	}
	s := &Scheduler{
		o:        o,
		log:      o.Logger,
		alarm:    make(chan struct{}, 1),
		reports:  make(chan struct{}, 1),
		turned:   make(chan struct{}, 1),
		settling: make(chan struct{}, maxSettling),
	}
	s.settled = s.outcomeDurable
	s.mu.settings = o.Settings
	s.mu.rand = rand.New(o.Rand)
	s.mu.clock = wallClock{seen: time.Now()}
	s.mu.rules = make(map[string]*Rule)
	s.mu.queues = make(map[spool.QueueKey]*queue)
	s.mu.tenants = make(map[string]*tenant)
	s.mu.workers = make(map[*worker]struct{})
	s.mu.siblings = make(map[message.ID][]place)
	for c := range s.mu.lines {
		s.mu.lines[c].class = class(c)
	}
	var err error
	if s.metrics, err = newMetrics(s, o.Registerer); err != nil {
		return nil, fmt.Errorf("queue metrics: %w", err)
	}
	if err := s.loadRules(context.Background()); err != nil {
		return nil, err
	}
	return s, nil
}

// SetSettings replaces the settings. They count from the next decision on; due times that are recorded stay.
func (s *Scheduler) SetSettings(settings Settings) error {
	settings.fill()
	if err := settings.validate(); err != nil {
		return fmt.Errorf("queue settings: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.settings = settings
	now := time.Now()
	for _, q := range s.mu.queues { // limits may have grown
		s.arrangeLocked(q, now)
	}
	s.pickAllLocked(now)
	return nil
}

// Run delivers until ctx ends. Then it claims no more, gives back what was not begun, waits for the attempts under
// way, aborts them when the drain time is over, and returns when every outcome is durable. It returns an error only if
// the spool failed; it goes on then only to be stopped.
func (s *Scheduler) Run(ctx context.Context) error {
	attempts, abort := context.WithCancel(context.WithoutCancel(ctx))
	defer abort()
	s.attempts = attempts
	s.begin()

	var others sync.WaitGroup
	others.Go(func() { s.followRules(ctx) })
	others.Go(func() { s.followClock(ctx) })
	others.Go(func() { s.age(ctx) })
	others.Go(func() { s.report(ctx) })
	s.watch(ctx)

	back := s.stop()
	if len(back) > 0 {
		s.o.Spool.Return(back)
	}
	drain := s.o.DrainTimeout
	if s.failure() != nil {
		drain = 0 // what cannot be recorded is repeated after the restart, so the less gets through the better
	}
	deadline := time.AfterFunc(drain, abort)
	s.working.Wait()
	deadline.Stop()
	others.Wait()
	for range cap(s.settling) { // each token in our hand is one that no attempt holds
		s.settling <- struct{}{}
	}
	return s.failure()
}

// failure returns why nothing is begun any more, or nil.
func (s *Scheduler) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.failed
}

// begin learns what the spool holds and sets workers to it.
func (s *Scheduler) begin() {
	stats := s.o.Spool.Queues()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.started = true
	now := time.Now()
	s.mu.outage.reached = now
	for _, stat := range stats {
		if !stat.NextDue.IsZero() {
			if stat.NextDue.After(now.Add(s.mu.settings.longestPause())) {
				notify(s.turned) // it was recorded by another clock
			}
			s.dueLocked(s.queueLocked(stat.Key), stat.NextDue)
		}
	}
	for _, q := range s.mu.queues {
		s.arrangeLocked(q, now)
	}
}

// watch wakes queues at their times until ctx ends.
func (s *Scheduler) watch(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var swept time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.alarm:
		case <-timer.C:
		}
		now := time.Now()
		s.mu.Lock()
		s.clockLocked(now)
		for q := s.mu.alarms.first(); q != nil && !q.wakeAt.After(now); q = s.mu.alarms.first() {
			s.mu.alarms.remove(q)
			s.arrangeLocked(q, now)
		}
		wait := sweepEvery
		if q := s.mu.alarms.first(); q != nil {
			wait = min(wait, q.wakeAt.Sub(now))
		}
		if now.Sub(swept) >= sweepEvery || now.Before(swept) {
			swept = now
			s.sweepLocked(now)
		}
		s.mu.Unlock()
		timer.Reset(wait)
	}
}

// sweepLocked forgets queues that have been idle and lets go workers that nobody needed.
func (s *Scheduler) sweepLocked(now time.Time) {
	for range s.mu.idle.Len() {
		q, _ := s.mu.idle.Pop()
		switch {
		case q.idleSince.IsZero():
			q.listed = false
		case now.Sub(q.idleSince) < idleAfter && !now.Before(q.idleSince) && s.mu.idle.Len() < maxIdle:
			q.window.Shrink()
			s.mu.idle.Push(q)
		default:
			q.listed = false
			s.dropLocked(q)
		}
	}
	for ; s.mu.spare > 0; s.mu.spare-- {
		last := len(s.mu.parked) - 1
		s.mu.parked[last].wake <- nil
		s.mu.parked = s.mu.parked[:last]
	}
	s.mu.spare = len(s.mu.parked)
}

// stop ends the beginning of anything new and returns the claimed entries that nobody has begun.
func (s *Scheduler) stop() (back []*spool.Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.stopping = true
	for _, q := range s.mu.queues {
		back = s.clearLocked(q, back)
	}
	for _, w := range s.mu.parked {
		w.wake <- nil
	}
	s.mu.parked = nil
	return back
}

// clearLocked empties q's window and appends what was in it to back.
func (s *Scheduler) clearLocked(q *queue, back []*spool.Entry) []*spool.Entry {
	for {
		g, ok := s.popLocked(q)
		if !ok {
			return back
		}
		back = append(back, g.entries...)
	}
}

// queueLocked returns the queue of key, made if there is none.
func (s *Scheduler) queueLocked(key spool.QueueKey) *queue {
	if q := s.mu.queues[key]; q != nil {
		return q
	}
	owner := s.mu.tenants[key.Tenant]
	if owner == nil {
		owner = &tenant{name: key.Tenant}
		s.mu.tenants[key.Tenant] = owner
	}
	owner.queues++
	q := &queue{key: key, tenant: owner, class: unproven, allowed: s.mu.settings.Initial}
	s.mu.queues[key] = q
	return q
}

func (s *Scheduler) dropLocked(q *queue) {
	q.gone = true
	s.mu.alarms.remove(q)
	delete(s.mu.queues, q.key)
	if q.tenant.queues--; q.tenant.queues == 0 {
		delete(s.mu.tenants, q.tenant.name)
	}
}

// arrangeLocked is called whenever something about q changed. It sets a worker to it, or puts it in line for a slot,
// or sets its alarm, or notes that it is idle: after it, nothing that q could do now is left without somebody who will
// do it.
func (s *Scheduler) arrangeLocked(q *queue, now time.Time) {
	if q.gone || !s.mu.started || s.mu.stopping || s.mu.failed != nil {
		return
	}
	if q.ready(now) {
		s.mu.alarms.remove(q)
		q.idleSince = time.Time{}
		s.engageLocked(q, now)
		return
	}
	at := q.alarmAt()
	if !at.After(now) {
		at = time.Time{} // a claim is under way; who makes it arranges q afterwards
	}
	if !at.Equal(q.wakeAt) {
		s.mu.alarms.set(q, at)
		if s.mu.alarms.first() == q {
			notify(s.alarm)
		}
	}
	if q.groups == 0 && q.due.IsZero() && q.active == 0 && !q.claiming {
		q.idleSince = now
		if !q.listed {
			q.listed = true
			s.mu.idle.Push(q)
		}
	}
}

// engageLocked gives a ready queue one worker more, or a place in line. Only one worker is on its way to a queue at a
// time; it sends for the next one when it has found work for itself, so a burst of mail wakes no more workers than
// there is work for.
func (s *Scheduler) engageLocked(q *queue, now time.Time) {
	if q.waking || q.lined || q.active >= q.limit(&s.mu.settings) {
		return
	}
	if !s.roomLocked(q) {
		q.lined = true
		s.mu.lines[q.class].add(q)
		return
	}
	w := s.workerLocked()
	s.acquireLocked(w, q, now)
	q.waking = true
	w.wake <- q
}

// roomLocked reports whether there is a slot for q. What is unproven gets at most half of the slots, and a tenant
// leaves a tenth of what it could have, so that mail of another tenant finds a slot at once.
func (s *Scheduler) roomLocked(q *queue) bool {
	limit := s.mu.settings.Attempts
	if s.mu.active >= limit || q.tenant.active >= most(limit) {
		return false
	}
	half := max(1, limit/2)
	return q.class == proven || s.mu.shares[unproven] < half && q.tenant.shares[unproven] < most(half)
}

// most returns what one tenant may have of n slots.
func most(n int) int { return max(1, n-max(n/10, 1)) }

// pickLocked returns the queue that gets the slot that has just become free, or nil. The classes take turns, then the
// tenants, then the queues of the tenant.
func (s *Scheduler) pickLocked(now time.Time) *queue {
	if s.mu.active >= s.mu.settings.Attempts {
		return nil
	}
	for range classes {
		s.mu.last = (s.mu.last + 1) % classes
		line := &s.mu.lines[s.mu.last]
		for blocked := 0; blocked < line.tenants.Len(); {
			q := line.next()
			switch {
			case !q.ready(now) || q.active >= q.limit(&s.mu.settings):
				q.lined = false // nothing to do any more; arrangeLocked has seen to it
			case !s.roomLocked(q):
				line.add(q)
				blocked++
			default:
				q.lined = false
				return q
			}
		}
	}
	return nil
}

// pickAllLocked gives away all free slots.
func (s *Scheduler) pickAllLocked(now time.Time) {
	for {
		q := s.pickLocked(now)
		if q == nil {
			return
		}
		s.engageLocked(q, now)
	}
}

func (s *Scheduler) acquireLocked(w *worker, q *queue, now time.Time) {
	w.queue, w.class, w.began, w.attempts = q, q.class, now, 0
	q.active++
	q.tenant.active++
	q.tenant.shares[w.class]++
	s.mu.active++
	s.mu.shares[w.class]++
}

// releaseLocked takes the worker's slot away.
func (s *Scheduler) releaseLocked(w *worker) {
	q := w.queue
	w.queue = nil
	q.active--
	q.tenant.active--
	q.tenant.shares[w.class]--
	s.mu.active--
	s.mu.shares[w.class]--
}

// dueLocked notes that q has an entry due at.
func (s *Scheduler) dueLocked(q *queue, at time.Time) {
	if !at.IsZero() && (q.due.IsZero() || at.Before(q.due)) {
		q.due = at
		q.idleSince = time.Time{}
	}
}

// outcomeDurable is told the fate of each settled attempt.
func (s *Scheduler) outcomeDurable(err error) {
	<-s.settling
	if err != nil {
		s.fail(err)
	}
}

func (s *Scheduler) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failLocked(err)
}

// failLocked notes that outcomes can no longer be recorded. Going on would deliver what is delivered already (and
// again after a restart), so nothing is begun any more.
func (s *Scheduler) failLocked(err error) {
	if s.mu.failed == nil {
		s.mu.failed = fmt.Errorf("record outcomes: %w", err)
		s.log.Error("outcomes cannot be recorded, delivery stops", "error", err)
	}
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
