package smtpserver

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godwit-mta/godwit/smtp"
)

// ErrClosed is returned by Serve after Shutdown or Close.
var ErrClosed = errors.New("smtpserver: server is closed")

// Server receives mail on any number of listeners. Its methods may be called from any goroutine.
type Server struct {
	options  Options
	terms    atomic.Pointer[terms]
	access   atomic.Pointer[access]
	greeting []byte
	metrics  *metrics
	gate     gate
	refusing atomic.Int32 // connections being told that there are too many

	handshakes gate // TLS handshakes under way
	ids        ids

	mu struct {
		sync.Mutex
		closed   bool
		servings map[*serving]struct{}
	}
	wg sync.WaitGroup // servings

	refusals struct {
		sync.Mutex
		logged time.Time
		count  int // since then
	}
}

// New checks the options and returns a server. It opens nothing and starts nothing.
func New(o Options) (*Server, error) {
	if err := o.fillAndValidate(); err != nil {
		return nil, fmt.Errorf("smtpserver: %w", err)
	}
	t, err := newTerms(o.Hostname, o.Limits)
	if err != nil {
		return nil, fmt.Errorf("smtpserver: %w", err)
	}
	m, err := newMetrics(o.Registerer, o.Name)
	if err != nil {
		return nil, fmt.Errorf("smtpserver: metrics: %w", err)
	}
	s := &Server{options: o, metrics: m}
	s.ids.begin()
	s.terms.Store(t)
	s.access.Store(&access{allow: o.Allow, deny: o.Deny})
	words := o.Hostname + " ESMTP"
	if o.Banner != "" {
		words += " " + o.Banner
	}
	s.greeting = smtp.Reply{Code: 220, Text: words}.AppendTo(nil)
	s.mu.servings = make(map[*serving]struct{})
	return s, nil
}

// SetLimits replaces the limits for sessions that begin from now on. Limits that are not valid change nothing.
func (s *Server) SetLimits(l Limits) error {
	t, err := newTerms(s.options.Hostname, l)
	if err != nil {
		return fmt.Errorf("smtpserver: %w", err)
	}
	s.terms.Store(t)
	return nil
}

// Sessions returns the number of open sessions.
func (s *Server) Sessions() int { return int(s.gate.open.Load()) }

// Serve accepts connections until ctx is done, Shutdown or Close is called, or l is closed. Then it drains: sessions
// between commands are told 421, those within a transaction may finish it. It closes l and returns when all of its
// sessions have ended. When ctx was what ended it, sessions are cut after Options.DrainTimeout.
//
// Errors of l other than its end never end Serve: it waits and tries again, so that a shortage of descriptors passes
// (accept(2), EMFILE).
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	sv, err := s.begin(ctx, l)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	defer sv.end()
	stop := context.AfterFunc(ctx, sv.drain)
	defer stop()
	err = sv.accept(ctx, l)
	sv.drain()
	if ctx.Err() != nil {
		defer time.AfterFunc(s.options.DrainTimeout, sv.abort).Stop()
	}
	sv.wg.Wait()
	return err
}

// ServeConn serves one connection and closes it. It is bound to ctx like Serve.
func (s *Server) ServeConn(ctx context.Context, c net.Conn) {
	sv, err := s.begin(ctx, nil)
	if err != nil {
		_ = c.Close()
		return
	}
	defer sv.end()
	stop := context.AfterFunc(ctx, func() {
		sv.drain()
		timer := time.NewTimer(s.options.DrainTimeout)
		defer timer.Stop()
		select {
		case <-timer.C:
			sv.abort()
		case <-sv.ctx.Done():
		}
	})
	defer stop()
	sv.admit(c)
	sv.wg.Wait()
}

// Shutdown closes the listeners, tells sessions between commands 421, lets the others finish their transaction, and
// returns when all have ended. When ctx is done first it cuts them and returns the cause. Serve must be called no more.
func (s *Server) Shutdown(ctx context.Context) error {
	for _, sv := range s.close() {
		sv.drain()
	}
	cut := context.AfterFunc(ctx, func() {
		for _, sv := range s.close() {
			sv.abort()
		}
	})
	s.wg.Wait()
	if !cut() {
		return context.Cause(ctx)
	}
	return nil
}

// Close cuts all sessions and returns when they have ended. What was not acknowledged is not accepted.
func (s *Server) Close() error {
	for _, sv := range s.close() {
		sv.drain()
		sv.abort()
	}
	s.wg.Wait()
	return nil
}

// close lets nothing begin any more and returns what has begun.
func (s *Server) close() []*serving {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.closed = true
	list := make([]*serving, 0, len(s.mu.servings))
	for sv := range s.mu.servings {
		list = append(list, sv)
	}
	return list
}

// serving is one call of Serve or ServeConn and its sessions.
type serving struct {
	server   *Server
	listener net.Listener
	ctx      context.Context // of the sessions: done when they are cut
	cut      context.CancelFunc
	draining atomic.Bool
	wg       sync.WaitGroup

	mu struct {
		sync.Mutex
		sessions map[*session]struct{}
	}
}

func (s *Server) begin(ctx context.Context, l net.Listener) (*serving, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return nil, ErrClosed
	}
	sv := &serving{server: s, listener: l}
	sv.ctx, sv.cut = context.WithCancel(context.WithoutCancel(ctx))
	sv.mu.sessions = make(map[*session]struct{})
	s.mu.servings[sv] = struct{}{}
	s.wg.Add(1)
	return sv, nil
}

func (sv *serving) end() {
	sv.cut()
	sv.server.mu.Lock()
	delete(sv.server.mu.servings, sv)
	sv.server.mu.Unlock()
	sv.server.wg.Done()
}

// drain takes no new sessions and wakes those that wait for a command.
func (sv *serving) drain() {
	sv.draining.Store(true)
	if sv.listener != nil {
		_ = sv.listener.Close()
	}
	sv.mu.Lock()
	defer sv.mu.Unlock()
	for s := range sv.mu.sessions {
		if s.waiting.Load() {
			_ = s.wire.SetReadDeadline(time.Unix(1, 0))
		}
	}
}

// abort cuts all sessions.
func (sv *serving) abort() {
	sv.cut()
	sv.mu.Lock()
	defer sv.mu.Unlock()
	for s := range sv.mu.sessions {
		_ = s.wire.Close()
	}
}

// Pauses after an error of accept.
const (
	firstPause = 5 * time.Millisecond
	lastPause  = time.Second
)

// accept runs until the listener is closed.
func (sv *serving) accept(ctx context.Context, l net.Listener) error {
	log := sv.server.options.Logger
	pause := time.Duration(0)
	for {
		c, err := l.Accept()
		switch {
		case err == nil:
			if pause > 0 {
				log.Info("listener accepts again", "listener", sv.server.options.Name)
				pause = 0
			}
			sv.admit(c)
			continue
		case sv.draining.Load():
			return nil
		case errors.Is(err, net.ErrClosed):
			return nil
		}
		sv.server.metrics.accepts.Inc()
		if pause == 0 {
			log.Error("listener cannot accept, will try again", "listener", sv.server.options.Name, "error", err)
		}
		pause = min(max(2*pause, firstPause), lastPause)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// maxRefusing bounds the connections that are being told that there are too many; beyond it they are closed without a
// word.
const maxRefusing = 64

// admit begins a session for c or refuses it.
func (sv *serving) admit(c net.Conn) {
	s := sv.server
	client := s.clientAt(addrPort(c.RemoteAddr()).Addr())
	limits := &s.terms.Load().Limits
	if refusal, ok := s.gate.enter(client, limits); !ok {
		sv.refuse(c, client, refusal)
		return
	}
	s.metrics.accepted.Inc()
	s.metrics.open.Inc()
	sess := newSession(sv, c)
	sv.mu.Lock()
	sv.mu.sessions[sess] = struct{}{}
	sv.mu.Unlock()
	sv.wg.Go(func() {
		defer func() {
			sv.mu.Lock()
			delete(sv.mu.sessions, sess)
			sv.mu.Unlock()
			s.gate.leave(client)
			s.gate.leaveClient(sess.claimed)
			s.metrics.open.Dec()
		}()
		if sv.ctx.Err() != nil { // cut before it could be seen
			_ = c.Close()
			return
		}
		sess.run(sv.ctx)
	})
}

func (sv *serving) refuse(c net.Conn, client netip.Addr, refusal smtp.Reply) {
	s := sv.server
	counter := s.metrics.refused[0]
	if refusal == replyClientFull {
		counter = s.metrics.refused[1]
	}
	counter.Inc()
	s.noteRefusal(client, refusal)
	if s.options.ImplicitTLS { // no word would be understood
		_ = c.Close()
		return
	}
	if s.refusing.Add(1) > maxRefusing {
		s.refusing.Add(-1)
		_ = c.Close()
		return
	}
	sv.wg.Go(func() {
		defer s.refusing.Add(-1)
		_ = c.SetDeadline(time.Now().Add(lingerTime))
		_, _ = c.Write(refusal.AppendTo(nil))
		linger(c)
	})
}

// refusalPause is the least time between two log records of refused connections: a flood must not fill the log.
const refusalPause = 10 * time.Second

// noteRefusal logs a refused connection, and how many were refused since the last record.
func (s *Server) noteRefusal(client netip.Addr, refusal smtp.Reply) {
	s.refusals.Lock()
	defer s.refusals.Unlock()
	s.refusals.count++
	now := time.Now()
	if now.Sub(s.refusals.logged) < refusalPause {
		return
	}
	s.options.Logger.Warn("connections refused", "listener", s.options.Name, "count", s.refusals.count,
		"client", client.String(), "reply", refusal.String(), "sessions", s.Sessions())
	s.refusals.logged, s.refusals.count = now, 0
}

// ids makes session ids: unique in the process, and hard to guess the number of sessions from.
type ids struct {
	seed uint64
	last atomic.Uint64
}

func (g *ids) begin() {
	var seed [8]byte
	_, _ = rand.Read(seed[:]) // never fails (crypto/rand)
	g.seed = binary.LittleEndian.Uint64(seed[:])
}

// next returns the next id. Multiplying by an odd number and folding with a constant permutes 50 bits, so no id comes
// twice in 2^50.
func (g *ids) next() string {
	const letters = "0123456789abcdefghjkmnpqrstvwxyz"
	const bits = 50
	n := (g.last.Add(1) + g.seed) * 0x9e3779b97f4a7c15 & (1<<bits - 1)
	n ^= n >> 23
	var id [bits / 5]byte
	for i := range id {
		id[i] = letters[n>>(5*i)&31]
	}
	return string(id[:])
}
