package smtpserver

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/godwit-mta/godwit/smtp"
)

// state is where a session stands (RFC 5321, 4.1.4). The verb table says which commands each allows.
type state uint8

const (
	stateConnected state = iota // greeted, but the client has not
	stateReady                  // HELO or EHLO was given; no transaction
	stateMail                   // MAIL was accepted, no recipient yet
	stateRcpt                   // at least one recipient was accepted
	stateChunks                 // at least one BDAT was accepted, LAST has not come
	stateBroken                 // a BDAT before LAST failed; only RSET or LAST leads out (RFC 3030, 2)
	states
)

var stateWords = [states]string{"connected", "ready", "mail", "rcpt", "chunks", "broken"}

func (st state) String() string { return stateWords[st] }

// inTransaction reports that a message is on its way, which a drain lets finish.
func (st state) inTransaction() bool { return st >= stateMail }

// session is one connection. All fields belong to its goroutine but for waiting.
type session struct {
	server  *Server
	serving *serving
	terms   *terms
	wire    net.Conn // the connection itself, for those who wake or cut the session
	conn    net.Conn // what is read and written: wire, or TLS over it
	mute    bool     // the other side expects TLS: no word of SMTP may be written
	backend Session
	peer    Peer
	log     *slog.Logger

	state state
	tx    transaction

	in        input
	out       []byte
	finalHeld bool // out holds the reply to a message, which must not wait for the next one's

	claimed       netip.Addr // client that a proxy named, which the gate counts too
	trusted       bool       // may use XCLIENT and XFORWARD
	offersAuth    bool       // the last EHLO did
	exchanging    bool       // the next line belongs to AUTH
	authenticated bool
	authFailures  int
	greeted       bool
	rejection     smtp.Reply // for the next command, which is the last

	verb smtp.Verb // being answered
	bad  int       // commands refused
	idle int       // commands since the last message that brought none nearer

	orphans int // commands still excused that pipelining sent behind a MAIL that was refused

	began      time.Time
	expires    time.Time // SessionAge from the begin
	armed      time.Time // read deadline of the connection
	writeArmed time.Time
	window     window      // of the message being read
	throttle   throttle    // of what was thrown away
	waiting    atomic.Bool // waits for a command outside a transaction: a drain may end it
	failure    error       // why the connection was lost

	messages   int // accepted
	debug      bool
	transcript bool
}

// transaction is one message on its way in. Its zero value is none.
type transaction struct {
	env   *smtp.Envelope
	text  strings.Builder // what the strings of env are cut from
	tried int             // RCPTs given, accepted or not

	body   *smtp.Body
	scrap  bool // body only takes what is thrown away
	scan   scanner
	clean  normalizer
	chunks int
}

func newSession(sv *serving, conn net.Conn) *session {
	s := sv.server
	t := s.terms.Load()
	now := time.Now()
	sess := &session{
		server: s, serving: sv, terms: t, wire: conn, conn: conn, mute: s.options.ImplicitTLS,
		peer:    Peer{Session: s.ids.next(), Remote: addrPort(conn.RemoteAddr()), Local: addrPort(conn.LocalAddr())},
		in:      newInput(t.CommandLine),
		out:     make([]byte, 0, 256),
		began:   now,
		expires: now.Add(t.SessionAge),
	}
	ctx := sv.ctx
	sess.log = s.options.Logger
	sess.debug = sess.log.Enabled(ctx, slog.LevelDebug)
	sess.transcript = sess.log.Enabled(ctx, LevelTranscript)
	sess.log = sess.log.With("session", sess.peer.Session)
	return sess
}

// addrPort returns the address of a TCP connection, with IPv4 never mapped into IPv6, so that there is one spelling to
// compare.
func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// run serves the session to its end.
func (s *session) run(ctx context.Context) {
	e := s.guarded(ctx)
	s.finish(e)
}

// guarded turns a panic, ours or the backend's, into the end of this session alone.
func (s *session) guarded(ctx context.Context) (e ending) {
	defer func() {
		if p := recover(); p != nil {
			s.server.metrics.panics.Inc()
			s.log.Error("session panicked", "panic", p, "state", s.state.String(), "stack", string(debug.Stack()))
			e = endPanic
		}
	}()
	return s.loop(ctx)
}

// loop is the session: greeting, then one command after the other.
func (s *session) loop(ctx context.Context) ending {
	e := s.enter(ctx)
	if e == goOn {
		e = s.greet(ctx)
	}
	for e == goOn {
		var line []byte
		s.verb = smtp.VerbUnknown
		if line, e = s.readLine(); e == goOn && line != nil {
			e = s.command(ctx, line)
		}
	}
	return e
}

// greet asks the backend and sends the first words (RFC 5321, 3.1).
func (s *session) greet(ctx context.Context) ending {
	var refusal smtp.Reply
	s.backend, refusal = s.server.options.Backend.NewSession(ctx, &s.peer)
	if !refusal.IsZero() {
		if refusal.Class() < 4 {
			refusal = replyLocalError
		}
		_, e := s.answer(refusal, smtp.Reply{})
		if e == goOn {
			e = endRefused
		}
		return e
	}
	if !s.greeted {
		if e := s.awaitSilence(); e != goOn {
			return e
		}
	}
	s.greeted = true
	return s.send(220, s.server.greeting)
}

// setState moves the session. It is the only place that does.
func (s *session) setState(to state) {
	if s.debug && s.state != to {
		s.log.Debug("session moves", "from", s.state.String(), "to", to.String())
	}
	s.state = to
}

// drop ends a transaction without a message. The backend is told if it knew of one.
func (s *session) drop(to state) {
	open := s.tx.env != nil
	s.clear(to)
	if open {
		s.backend.Reset()
	}
}

// clear forgets the transaction.
func (s *session) clear(to state) {
	if s.tx.body != nil {
		s.tx.body.Release()
	}
	s.tx = transaction{}
	s.setState(to)
}

// finish says the last words and closes everything. What was not acknowledged is dropped: a client that got no final
// reply sends its message again (RFC 5321, 4.5.4.1).
func (s *session) finish(e ending) {
	f := &farewells[e]
	s.clear(stateConnected)
	silent := s.mute || e == endLost || e == endAbort
	if !silent {
		if !f.reply.IsZero() {
			_ = s.reply(f.reply)
		}
		_ = s.flush(time.Now())
	}
	s.closeBackend()
	s.hangUp(silent || e == endQuit)
	s.in.buf, s.out = nil, nil
	s.server.metrics.ends[e].Inc()
	if s.log.Enabled(s.serving.ctx, f.level) {
		s.logEnd(e)
	}
}

func (s *session) logEnd(e ending) {
	attrs := []slog.Attr{
		slog.String("cause", farewells[e].word),
		slog.String("client", s.peer.Remote.String()), slog.String("hello", s.peer.Hello),
		slog.Int("messages", s.messages), slog.Int("bad_commands", s.bad), slog.Duration("lasted", time.Since(s.began)),
	}
	if s.peer.Via.IsValid() {
		attrs = append(attrs, slog.String("via", s.peer.Via.String()))
	}
	if s.failure != nil {
		attrs = append(attrs, slog.String("error", s.failure.Error()))
	}
	s.log.LogAttrs(s.serving.ctx, farewells[e].level, "session ended", attrs...)
}

// closeBackend tells the backend that the session is over; a panic there must not keep the connection open.
func (s *session) closeBackend() {
	if s.backend == nil {
		return
	}
	defer func() {
		if p := recover(); p != nil {
			s.server.metrics.panics.Inc()
			s.log.Error("closing the session panicked", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	s.backend.Close()
}
