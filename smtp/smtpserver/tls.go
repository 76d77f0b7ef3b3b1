package smtpserver

import (
	"context"
	"crypto/tls"
	"errors"
	"net/netip"
	"os"
	"time"

	"github.com/godwit-mta/godwit/smtp"
)

// crowdedHandshake is the most a handshake may take while many are under way.
const crowdedHandshake = 5 * time.Second

// offersTLS reports whether STARTTLS has a place in this session.
func (s *session) offersTLS() bool {
	return s.server.options.TLS != nil && !s.server.options.ImplicitTLS && s.peer.TLS == nil
}

// startTLS secures the connection (RFC 3207). What was said in the clear is forgotten, and nothing that was sent in the
// clear is ever read as if it had come through TLS: octets behind the command end the session (CVE-2011-0411).
func (s *session) startTLS(ctx context.Context, args []byte) ending {
	switch {
	case s.peer.TLS != nil:
		return s.refuse(replyTLSActive)
	case !s.offersTLS():
		return s.refuse(replyNotOffered)
	case len(args) > 0:
		return s.refuse(replyNoArguments)
	case s.state == stateConnected:
		return s.refuse(replyHelloFirst)
	case s.state != stateReady, s.authenticated:
		return s.refuse(replySequence)
	case len(s.in.buffered()) > 0:
		return endInjected
	}
	client, ok := s.beginHandshake()
	if !ok {
		return s.excuse(replyTLSBusy)
	}
	defer s.server.handshakes.leave(client)
	if e := s.reply(replyReadyForTLS); e != goOn {
		return e
	}
	if e := s.flush(time.Now()); e != goOn {
		return e
	}
	s.mute = true
	if e := s.handshake(); e != goOn {
		return e
	}
	s.peer.Hello, s.peer.ESMTP = "", false
	s.offersAuth = false
	s.clear(stateConnected)
	s.backend.Reset()
	if b, ok := s.backend.(Securer); ok {
		s.rejection = b.Secured(ctx)
	}
	return goOn
}

// reject gives the client's command a reply that ends the session.
func (s *session) reject(r smtp.Reply) ending {
	_, e := s.answer(r, smtp.Reply{})
	if e == goOn {
		e = endRefused
	}
	return e
}

// beginHandshake takes a place for a handshake, of which one client gets a quarter at most, so that it cannot keep all
// others from TLS. The place is given back by leave.
func (s *session) beginHandshake() (client netip.Addr, ok bool) {
	client = clientOf(s.peer.Remote.Addr())
	places := Limits{Sessions: s.terms.Handshakes, SessionsPerClient: max(1, s.terms.Handshakes/4)}
	if _, ok = s.server.handshakes.enter(client, &places); !ok {
		s.server.metrics.unsecure[1].Inc()
	}
	return client, ok
}

// implicitTLS is the handshake before the greeting.
func (s *session) implicitTLS() ending {
	client, ok := s.beginHandshake()
	if !ok {
		return endTLSBusy
	}
	defer s.server.handshakes.leave(client)
	return s.handshake()
}

// handshake puts TLS over the connection. It runs in the session's goroutine; a drain wakes it as it wakes a session
// that waits for a command.
func (s *session) handshake() ending {
	server := s.server
	d := s.terms.HandshakeTimeout
	if server.handshakes.crowded(s.terms.Handshakes) {
		d = min(d, crowdedHandshake)
	}
	until := time.Now().Add(d)
	if until.After(s.expires) {
		until = s.expires
	}
	conn := tls.Server(s.wire, server.options.TLS)
	err := s.wait(until, conn.Handshake)
	if err != nil {
		server.metrics.unsecure[0].Inc()
		switch {
		case s.serving.draining.Load() && errors.Is(err, os.ErrDeadlineExceeded):
			return endDrain
		case errors.Is(err, os.ErrDeadlineExceeded):
			return endTimeout
		}
		if e := s.lost(err); e == endAbort {
			return e
		}
		return endHandshake
	}
	state := conn.ConnectionState()
	if c := server.metrics.secured[state.Version]; c != nil {
		c.Inc()
	}
	s.conn, s.mute, s.peer.TLS = conn, false, &state
	if s.debug {
		s.log.Debug("connection is secured", "version", tls.VersionName(state.Version),
			"cipher", tls.CipherSuiteName(state.CipherSuite), "group", state.CurveID.String(), "resumed", state.DidResume)
	}
	return goOn
}

// wait lets f read from and write to the wire until then, while a drain may end it.
func (s *session) wait(until time.Time, f func() error) error {
	if err := s.wire.SetDeadline(until); err != nil {
		return err
	}
	s.waiting.Store(true)
	defer s.waiting.Store(false)
	if s.serving.draining.Load() { // whoever drains sets the flag first and then the deadline
		return os.ErrDeadlineExceeded
	}
	err := f()
	s.armed, s.writeArmed = time.Time{}, time.Time{}
	return errors.Join(err, s.wire.SetDeadline(time.Time{}))
}
