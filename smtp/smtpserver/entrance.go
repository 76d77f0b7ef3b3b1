package smtpserver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/proxyproto"
)

const (
	// proxyTimeout is how long a proxy may take for its header, which it sends in one piece before anything else.
	proxyTimeout = 5 * time.Second

	// proxySilence is how long the greeting is held back from a client that is no proxy, where proxies connect too: one
	// that sends a header is closed without having learned that somebody listens.
	proxySilence = 200 * time.Millisecond
)

// access says which networks may connect. It is never changed, only replaced.
type access struct{ allow, deny []netip.Prefix }

func (a *access) permits(client netip.Addr) bool {
	return !inNetworks(a.deny, client) && (len(a.allow) == 0 || inNetworks(a.allow, client))
}

func inNetworks(list []netip.Prefix, a netip.Addr) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// checkNetworks wants prefixes that some address can be in, since addresses are never IPv4 mapped into IPv6.
func checkNetworks(list []netip.Prefix) error {
	for _, p := range list {
		if !p.IsValid() || p.Addr().Is4In6() {
			return fmt.Errorf("network %v: not a valid prefix, or IPv4 mapped into IPv6", p)
		}
	}
	return nil
}

// SetAccess replaces the networks that may connect, for connections from now on. Networks that are not valid change
// nothing.
func (s *Server) SetAccess(allow, deny []netip.Prefix) error {
	if err := errors.Join(checkNetworks(allow), checkNetworks(deny)); err != nil {
		return fmt.Errorf("smtpserver: %w", err)
	}
	s.access.Store(&access{allow: allow, deny: deny})
	return nil
}

// clientAt is whom a connection from a counts for. That of a proxy counts for the client that it names, once it does.
func (s *Server) clientAt(a netip.Addr) netip.Addr {
	if inNetworks(s.options.Proxies, a) {
		return netip.Addr{}
	}
	return clientOf(a)
}

// enter is all that comes before the greeting: who is it, may it be here, and TLS if it is implicit.
func (s *session) enter(context.Context) ending {
	if inNetworks(s.server.options.Proxies, s.peer.Remote.Addr()) {
		if e := s.readProxy(); e != goOn {
			return e
		}
	}
	s.trusted = inNetworks(s.server.options.XClient, s.peer.Remote.Addr())
	if !s.permitted() {
		return endDenied
	}
	if s.server.options.ImplicitTLS {
		return s.implicitTLS()
	}
	return goOn
}

// permitted asks whether the client may be here.
func (s *session) permitted() bool {
	if s.server.access.Load().permits(s.peer.Remote.Addr()) {
		return true
	}
	s.server.noteRefusal(s.peer.Remote.Addr(), replyDenied)
	return false
}

// readProxy reads the header that a proxy owes us. It is read to its last octet and not further: what follows may be
// TLS.
func (s *session) readProxy() ending {
	var h proxyproto.Header
	err := s.wait(time.Now().Add(proxyTimeout), func() (err error) {
		h, err = proxyproto.Read(s.wire)
		return err
	})
	switch {
	case err == nil:
	case s.serving.draining.Load() && errors.Is(err, os.ErrDeadlineExceeded):
		return endDrain
	default:
		if e := s.lost(err); e == endAbort {
			return e
		}
		return endProxy
	}
	if h.Local { // its own check of health, or a client it does not know: nobody but itself is there
		return s.claim(s.peer.Remote, s.peer.Local)
	}
	s.peer.Via = s.peer.Remote
	return s.claim(h.Source, h.Destination)
}

// claim makes another client of the session's peer, and counts the session for it.
func (s *session) claim(remote, local netip.AddrPort) ending {
	s.server.gate.leaveClient(s.claimed)
	s.claimed = netip.Addr{}
	client := clientOf(remote.Addr())
	if !s.server.gate.enterClient(client, &s.terms.Limits) {
		s.server.metrics.refused[1].Inc()
		s.server.noteRefusal(client, replyClientFull)
		return s.turnAway(replyClientFull)
	}
	s.claimed = client
	s.peer.Remote, s.peer.Local = remote, local
	return goOn
}

// awaitSilence holds the greeting back for a while in which a client that knows SMTP says nothing.
func (s *session) awaitSilence() ending {
	d := s.server.options.GreetingDelay
	stranger := len(s.server.options.Proxies) > 0 && !s.peer.Via.IsValid() && s.peer.TLS == nil
	if stranger {
		d = max(d, proxySilence)
	}
	if d == 0 {
		return goOn
	}
	now := time.Now()
	space := s.in.space()
	n, e := s.read(space, now, wait{until: now.Add(d)})
	switch e {
	case goOn:
		switch {
		case stranger && proxyproto.Begins(space[:n]):
			return endProxy
		case s.server.options.GreetingDelay > 0:
			return endEarly
		}
		s.in.w += n // it is in a hurry, which is not asked about here
		return goOn
	case endTimeout:
		return goOn
	}
	return e
}

// turnAway says the last words before there is a backend.
func (s *session) turnAway(r smtp.Reply) ending {
	if !s.mute {
		_ = s.reply(r)
	}
	return endRefused
}
