package smtptest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// SinkOptions configures a sink. The zero value counts and keeps nothing.
type SinkOptions struct {
	Script Script
	// Keep keeps messages in memory for [Sink.Messages], the oldest dropped beyond KeepAtMost (0 is 10,000).
	Keep       bool
	KeepAtMost int
	// Maildir is a directory to store messages in, made if it does not exist. They are stored as received, CRLF
	// included.
	Maildir string
	// Hash fills Received.Hash.
	Hash bool
	// OnMessage is called for every message that was complete, after the reply to it was written or could not be.
	// It is called by many sessions at once, and may keep the value; Body is nil unless Keep, KeepBody or Maildir
	// asks for it.
	OnMessage func(*Received)
	KeepBody  bool

	// TLS is offered by STARTTLS, or comes first of all with ImplicitTLS. Nil: there is none.
	TLS         *tls.Config
	ImplicitTLS bool
	// Handshake makes TLS over a connection in place of TLS, for peers that package tls cannot be.
	Handshake func(net.Conn) (net.Conn, error)
	// RequireTLS offers REQUIRETLS over TLS (RFC 8689).
	RequireTLS bool
	// Users are names with passwords: over TLS login is offered, and without one no mail is taken.
	Users map[string]string
	// Rand decides on shares of rules. Nil takes a random one; with a given one a test repeats itself as far as its
	// sessions come in order.
	Rand rand.Source
	// Logger gets what goes wrong in the sink itself. Nil discards.
	Logger *slog.Logger
}

// Received is one message a sink has seen to its end.
type Received struct {
	Session     uint64    `json:"session"` // counted from 1
	Transaction int       `json:"transaction"`
	Time        time.Time `json:"time"` // when its last octet was there
	Remote      string    `json:"remote"`
	Hello       string    `json:"hello"`
	From        string    `json:"from"`
	Parameters  string    `json:"parameters,omitempty"` // of MAIL
	Recipients  []string  `json:"recipients"`           // accepted at RCPT
	// RecipientParameters stand beside Recipients.
	RecipientParameters []string `json:"recipient_parameters,omitempty"`
	Size                int64    `json:"size"`           // octets, without stuffing and the final dot
	Hash                string   `json:"hash,omitempty"` // SHA-256 in hexadecimal
	Body                []byte   `json:"-"`
	Chunking            bool     `json:"chunking,omitempty"` // came by BDAT
	TLS                 string   `json:"tls,omitempty"`      // version, suite and name asked for; empty: in the clear
	User                string   `json:"user,omitempty"`     // who had logged in
	// Replies are the final ones: one, or with LMTP one for each recipient. One that was not given is empty.
	Replies []string `json:"replies"`
	// Accepted says that some reply was 2yz; Replied that all of them left this side without an error.
	Accepted bool `json:"accepted"`
	Replied  bool `json:"replied"`
}

// Sink is a receiving server for tests. Its methods may be called from any goroutine.
type Sink struct {
	o        SinkOptions
	play     atomic.Pointer[play]
	counters counters
	ids      atomic.Uint64
	maildir  *maildir
	grey     greylist
	pace     pacer
	dice     struct {
		mu sync.Mutex
		r  *rand.Rand
	}

	mu struct {
		sync.Mutex
		kept  []*Received
		first int // of kept as a ring
	}
}

// NewSink checks the options and prepares the maildir.
func NewSink(o SinkOptions) (*Sink, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.KeepAtMost <= 0 {
		o.KeepAtMost = 10_000
	}
	if o.Rand == nil {
		o.Rand = rand.NewPCG(rand.Uint64(), rand.Uint64())
	}
	s := &Sink{o: o}
	s.dice.r = rand.New(o.Rand)
	if err := s.SetScript(o.Script); err != nil {
		return nil, err
	}
	if o.Maildir != "" {
		var err error
		if s.maildir, err = newMaildir(o.Maildir); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// SetScript changes the behaviour from the next command of each session on. The counts of rules begin anew.
func (s *Sink) SetScript(script Script) error {
	p, err := newPlay(script)
	if err != nil {
		return err
	}
	s.play.Store(p)
	return nil
}

// chance returns a number from 0 to 1 for a rule's share.
func (s *Sink) chance() float64 {
	s.dice.mu.Lock()
	defer s.dice.mu.Unlock()
	return s.dice.r.Float64()
}

// Counters returns the counts up to now.
func (s *Sink) Counters() Counters { return s.counters.snapshot() }

// Messages returns the messages kept, oldest first.
func (s *Sink) Messages() []*Received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append(append([]*Received(nil), s.mu.kept[s.mu.first:]...), s.mu.kept[:s.mu.first]...)
}

// Run serves the listeners until ctx ends or one of them fails, then closes all listeners and sessions and waits
// for them. It returns nil at the end of ctx.
func (s *Sink) Run(ctx context.Context, listeners ...net.Listener) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	for _, l := range listeners {
		stop := context.AfterFunc(ctx, func() { _ = l.Close() }) // its accept loop tells if it was open
		defer stop()
		running.Go(func() {
			if err := s.accept(ctx, l, &running); ctx.Err() == nil {
				cancel(fmt.Errorf("accept on %s: %w", l.Addr(), err))
			}
		})
	}
	running.Wait()
	if err := context.Cause(ctx); err != nil && !errors.Is(err, ctx.Err()) {
		return err
	}
	return nil
}

// accept takes connections until that fails for good, and returns why.
func (s *Sink) accept(ctx context.Context, l net.Listener, running *sync.WaitGroup) error {
	for {
		nc, err := l.Accept()
		if err != nil {
			if temporary, ok := errors.AsType[interface {
				error
				Temporary() bool
			}](err); ok && temporary.Temporary() && ctx.Err() == nil { // out of descriptors
				sleep(ctx, 10*time.Millisecond)
				continue
			}
			return err
		}
		running.Go(func() { s.ServeConn(ctx, nc) })
	}
}

// ServeConn serves one connection until it or ctx ends, and closes it.
func (s *Sink) ServeConn(ctx context.Context, nc net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = nc.Close() }) // the session's next read tells
	defer stop()
	s.counters.connections.Add(1)
	n := s.counters.sessionOpened()
	defer s.counters.sessions.Add(-1)
	session := newSession(ctx, s, nc)
	defer session.release()
	session.serve(n)
	_ = nc.Close() // whatever it says, the session is over
}

// keep takes a message into memory.
func (s *Sink) keep(m *Received) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.mu.kept) < s.o.KeepAtMost {
		s.mu.kept = append(s.mu.kept, m)
		return
	}
	s.mu.kept[s.mu.first] = m
	s.mu.first = (s.mu.first + 1) % len(s.mu.kept)
}

// sleep waits for d, or for the end of ctx, which it reports by false.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// greylist remembers when a triplet was first seen. It is bounded: when full it forgets all, which only makes
// clients wait again.
type greylist struct {
	mu   sync.Mutex
	seen map[string]time.Time
}

const greylistEntries = 1 << 20

// passes reports whether the triplet was first seen at least wait ago.
func (g *greylist) passes(triplet string, wait time.Duration) bool {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	first, ok := g.seen[triplet]
	if !ok {
		if g.seen == nil || len(g.seen) >= greylistEntries {
			g.seen = map[string]time.Time{}
		}
		g.seen[triplet] = now
		return wait <= 0
	}
	return now.Sub(first) >= wait
}

// pacer gives out turns at a rate, without letting unused ones pile up beyond one second's.
type pacer struct {
	mu   sync.Mutex
	next time.Time
}

// wait returns how long to wait for the next turn and takes it; with peek it takes it only if there is nothing to
// wait for.
func (p *pacer) wait(rate float64, peek bool) time.Duration {
	if rate <= 0 {
		return 0
	}
	step := time.Duration(float64(time.Second) / rate)
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.next.Before(now) {
		p.next = now
	}
	d := p.next.Sub(now)
	if d == 0 || !peek {
		p.next = p.next.Add(step)
	}
	return d
}
