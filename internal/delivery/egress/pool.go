package egress

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/godwit-mta/godwit/smtp/smtpclient"
)

// Path is where limits apply and sessions are shared: a source and a site.
type Path struct {
	Source string // name
	Site   string
	// Demand tells sessions apart by what was demanded of them when they were made: one made for a weaker demand is never
	// taken for a stronger one, nor one of a domain's policy for another's. Empty: nothing.
	Demand string
}

// Session is a connection with its SMTP session. It belongs to whoever opened it or took it from the pool.
type Session struct {
	*smtpclient.Conn
	ID     string // for logs and records
	Path   Path
	Target Target
	// TLS says how the session is encrypted, for records; empty: not. Verified: the host has proven who it is.
	TLS      string
	Verified bool
	// Backup says that better hosts of the site exist and failed when this session was opened. It is kept for a short
	// while only.
	Backup bool
	// Tx is memory for the session's transactions.
	Tx smtpclient.Transaction

	opened     time.Time
	idle       time.Time // since when it is in the pool
	prev, next *Session  // in the list of idle sessions, oldest first
}

// PoolOptions configures a [Pool]. Zero values mean the defaults named beside each field.
type PoolOptions struct {
	Idle            time.Duration // how long a session is kept idle; 30 s
	Age             time.Duration // how long a session lives at most; 10 min
	BackupAge       time.Duration // the same for sessions to hosts that are second choice; 1 min
	MaxTransactions int           // per session; 100
	Max             int           // idle sessions in all; 2,000
	MaxPerPath      int           // idle sessions per path for more than a few seconds; 50

	Registerer prometheus.Registerer // nil registers nothing
}

func (o PoolOptions) withDefaults() PoolOptions {
	fill := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	count := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	fill(&o.Idle, 30*time.Second)
	fill(&o.Age, 10*time.Minute)
	fill(&o.BackupAge, time.Minute)
	count(&o.MaxTransactions, 100)
	count(&o.Max, 2000)
	count(&o.MaxPerPath, 50)
	return o
}

// Pool keeps idle sessions. It is safe for concurrent use. Without Run nothing is kept: Put closes.
type Pool struct {
	o       PoolOptions
	metrics poolMetrics
	closing chan *Session // to be said farewell to

	mu struct {
		sync.Mutex
		open  bool // Run is running
		paths map[Path][]*Session
		idle  Session // ring of all idle sessions: next is the oldest
		n     int
	}
}

// NewPool returns an empty pool.
func NewPool(o PoolOptions) *Pool {
	o = o.withDefaults()
	p := &Pool{o: o, closing: make(chan *Session, 4*farewells), metrics: newPoolMetrics(o.Registerer)}
	p.mu.paths = make(map[Path][]*Session)
	p.mu.idle.prev, p.mu.idle.next = &p.mu.idle, &p.mu.idle
	return p
}

// NewSession wraps a session just started.
func NewSession(c *smtpclient.Conn, path Path, target Target, backup bool) *Session {
	return &Session{Conn: c, Path: path, Target: target, Backup: backup, opened: time.Now()}
}

// unchecked is how long an idle session is taken to stand without a look. Under load nearly all are used again sooner,
// and the look would be a tenth of what a message costs. One that was closed meanwhile shows it under the transaction,
// and whoever uses it must be ready for that in any case.
const unchecked = 50 * time.Millisecond

// Many domains of one site make for many attempts over one path, whose sessions come back and are taken again within
// milliseconds. A path may have burst times MaxPerPath idle sessions; those that have idled for lull are too many.
const (
	burst = 10
	lull  = time.Second
)

// Take returns the session of the path that was used last and still stands, or nil if there is none. Those found closed
// are dropped.
func (p *Pool) Take(path Path) *Session {
	for {
		s := p.pop(path)
		if s == nil {
			p.metrics.missed.Inc()
			return nil
		}
		now := time.Now()
		if p.expired(s, now) {
			p.part(s)
			continue
		}
		if now.Sub(s.idle) >= unchecked && !s.Alive() {
			p.metrics.found.Inc()
			_ = s.Close() // it is closed on the other side
			continue
		}
		p.metrics.reused.Inc()
		s.idle = time.Time{}
		return s
	}
}

func (p *Pool) pop(path Path) *Session {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.mu.paths[path]
	if len(list) == 0 {
		return nil
	}
	s := list[len(list)-1]
	list[len(list)-1] = nil
	p.mu.paths[path] = list[:len(list)-1] // an empty list stays for the next Put; sweep drops it
	p.unlinkLocked(s)
	return s
}

// Put takes a session back. What cannot be used again, or does not fit, is closed.
func (p *Pool) Put(s *Session) {
	if !s.Reusable() {
		_ = s.Close() // the session is over already or out of step: nothing to be polite about
		return
	}
	now := time.Now()
	if s.Transactions() >= p.o.MaxTransactions || p.expired(s, now) {
		p.part(s)
		return
	}
	if dropped := p.push(s, now); dropped != nil {
		p.part(dropped)
	}
}

// push puts s into its path and returns what has to go for that: s itself, the oldest of all, or nothing.
func (p *Pool) push(s *Session, now time.Time) (dropped *Session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.mu.paths[s.Path]
	if !p.mu.open || len(list) >= p.o.MaxPerPath && (len(list) >= burst*p.o.MaxPerPath || p.mu.n >= p.o.Max) {
		return s
	}
	if p.mu.n >= p.o.Max {
		dropped = p.mu.idle.next
		p.removeLocked(dropped)
		list = p.mu.paths[s.Path]
	}
	s.idle = now
	p.mu.paths[s.Path] = append(list, s)
	ring := &p.mu.idle
	s.prev, s.next = ring.prev, ring
	s.prev.next, ring.prev = s, s
	p.mu.n++
	return dropped
}

func (p *Pool) unlinkLocked(s *Session) {
	s.prev.next, s.next.prev = s.next, s.prev
	s.prev, s.next = nil, nil
	p.mu.n--
}

// removeLocked takes the oldest session out. Being the oldest of all, it is the first of its path.
func (p *Pool) removeLocked(s *Session) {
	list := p.mu.paths[s.Path]
	copy(list, list[1:])
	list[len(list)-1] = nil
	p.mu.paths[s.Path] = list[:len(list)-1]
	p.unlinkLocked(s)
}

func (p *Pool) expired(s *Session, now time.Time) bool {
	age := p.o.Age
	if s.Backup {
		age = p.o.BackupAge
	}
	return now.Sub(s.opened) >= age || !s.idle.IsZero() && now.Sub(s.idle) >= p.o.Idle
}

// Farewells: QUIT is said by a few goroutines of Run, each waiting a moment for the reply. When they are busy the
// connection is just closed.
const (
	farewells    = 16
	farewellTime = 2 * time.Second
)

// part ends a session politely, by the hands of Run's goroutines.
func (p *Pool) part(s *Session) {
	p.metrics.closed.Inc()
	if !p.handOver(s) {
		_ = s.Close() // politeness has its bounds
	}
}

// handOver does not block. It holds the lock so that nothing is handed over after Run has stopped.
func (p *Pool) handOver(s *Session) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.mu.open {
		return false
	}
	select {
	case p.closing <- s:
		return true
	default:
		return false
	}
}

// Len returns how many idle sessions are kept.
func (p *Pool) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.n
}

// Keeping reports whether Run is at work, so that sessions are kept.
func (p *Pool) Keeping() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.open
}

// Run closes sessions that have been idle too long. When ctx is done it closes all that are kept, and returns within a
// few seconds.
func (p *Pool) Run(ctx context.Context) error {
	p.mu.Lock()
	p.mu.open = true
	p.mu.Unlock()

	var all sync.WaitGroup
	stopped := make(chan struct{})
	patience, impatient := context.WithCancel(context.WithoutCancel(ctx))
	defer impatient()
	for range farewells {
		all.Go(func() { p.sayFarewell(patience, stopped) })
	}
	tick := time.NewTicker(min(max(p.o.Idle/8, time.Millisecond), 5*time.Second))
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-tick.C:
			p.sweep(time.Now())
		case <-ctx.Done():
		}
	}
	deadline := time.AfterFunc(farewellTime, impatient) // for all together
	defer deadline.Stop()
	for _, s := range p.shut() {
		p.metrics.closed.Inc()
		p.closing <- s
	}
	close(stopped)
	all.Wait()
	return nil
}

// sayFarewell ends sessions that are handed over, and stops when there are none and stopped is closed.
func (p *Pool) sayFarewell(patience context.Context, stopped <-chan struct{}) {
	quit := func(s *Session) {
		ctx, cancel := context.WithTimeout(patience, farewellTime)
		defer cancel()
		_ = s.Quit(ctx) // nothing depends on the reply
	}
	for {
		select {
		case s := <-p.closing:
			quit(s)
		case <-stopped:
			select {
			case s := <-p.closing:
				quit(s)
			default:
				return
			}
		}
	}
}

// sweep parts from sessions idle for too long, and forgets paths without any.
func (p *Pool) sweep(now time.Time) {
	for {
		s := p.oldest(now)
		if s == nil {
			break
		}
		p.part(s)
	}
	for _, s := range p.surplus(now) {
		p.part(s)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for path, list := range p.mu.paths {
		if len(list) == 0 {
			delete(p.mu.paths, path)
		}
	}
}

// surplus takes out what paths have beyond their bound since a lull.
func (p *Pool) surplus(now time.Time) (all []*Session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for path := range p.mu.paths {
		for len(p.mu.paths[path]) > p.o.MaxPerPath && now.Sub(p.mu.paths[path][0].idle) >= lull {
			s := p.mu.paths[path][0]
			p.removeLocked(s)
			all = append(all, s)
		}
	}
	return all
}

func (p *Pool) oldest(now time.Time) *Session {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.mu.idle.next
	if s == &p.mu.idle || now.Sub(s.idle) < p.o.Idle {
		return nil
	}
	p.removeLocked(s)
	return s
}

// shut takes everything out and lets nothing in any more.
func (p *Pool) shut() []*Session {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.open = false
	var all []*Session
	for s := p.mu.idle.next; s != &p.mu.idle; s = p.mu.idle.next {
		p.removeLocked(s)
		all = append(all, s)
	}
	clear(p.mu.paths)
	return all
}
