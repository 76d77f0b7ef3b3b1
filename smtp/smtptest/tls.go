package smtptest

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"net"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/smtp/sasl"
)

// handshakeTime bounds the handshake of a sink.
const handshakeTime = 10 * time.Second

// offersTLS reports whether a session may become one over TLS.
func (s *session) offersTLS() bool {
	o := &s.sink.o
	return (o.TLS != nil || o.Handshake != nil) && !o.ImplicitTLS && s.secure == ""
}

// greeting is the reply to EHLO with what depends on the session.
func (s *session) greeting(p *play) []byte {
	var more []string
	if s.offersTLS() {
		more = append(more, "STARTTLS")
	}
	if s.secure != "" {
		if s.sink.o.RequireTLS {
			more = append(more, "REQUIRETLS")
		}
		if len(s.sink.o.Users) > 0 {
			more = append(more, "AUTH "+strings.Join(s.mechanisms(), " "))
		}
	}
	if more == nil {
		return p.greeting
	}
	return p.hello(more)
}

func (s *session) mechanisms() []string {
	all := []string{sasl.NameScramSHA256, sasl.NamePlain, sasl.NameLogin}
	if s.binding() != nil {
		all = append(all, sasl.NameScramSHA256Plus)
	}
	return all
}

func (s *session) binding() *sasl.ChannelBinding {
	conn, ok := s.nc.(*tls.Conn)
	if !ok {
		return nil
	}
	state := conn.ConnectionState()
	return sasl.TLSExporter(&state)
}

// extended answers the commands of TLS and logins, and reports whether verb was one of them.
func (s *session) extended(verb, rest []byte) bool {
	switch {
	case bytes.EqualFold(verb, []byte("STARTTLS")):
		s.startTLS()
	case bytes.EqualFold(verb, []byte("AUTH")) && len(s.sink.o.Users) > 0:
		s.auth(string(rest))
	default:
		return false
	}
	return true
}

func (s *session) startTLS() {
	if !s.offersTLS() {
		s.refuse("502 5.5.1 STARTTLS is not offered")
		return
	}
	if s.act(AtStartTLS, nil, "220 2.0.0 go ahead") != 220 || s.err != nil {
		return
	}
	s.flush()
	s.r, s.w = 0, 0 // whatever came behind the command in the clear is no part of the session
	s.reset()
	s.greeted, s.hello = false, ""
	s.secureConn()
}

// secureConn makes the handshake.
func (s *session) secureConn() bool {
	if s.err != nil {
		return false
	}
	if s.err = s.nc.SetDeadline(time.Now().Add(handshakeTime)); s.err != nil {
		return false
	}
	var conn net.Conn
	if s.sink.o.Handshake != nil {
		conn, s.err = s.sink.o.Handshake(s.nc)
	} else {
		secure := tls.Server(s.nc, s.sink.o.TLS)
		conn, s.err = secure, secure.HandshakeContext(s.ctx)
	}
	if s.err != nil {
		s.sink.counters.dropped.Add(1)
		return false
	}
	s.secure = "TLS"
	if secure, ok := conn.(*tls.Conn); ok {
		state := secure.ConnectionState()
		s.secure = strings.TrimSpace(tls.VersionName(state.Version) + " " + tls.CipherSuiteName(state.CipherSuite) + " " + state.ServerName)
	}
	s.err = s.nc.SetDeadline(time.Time{})
	s.nc = conn
	return s.err == nil
}

// auth answers one login.
func (s *session) auth(rest string) {
	name, initial, given := strings.Cut(rest, " ")
	server := s.mechanism(strings.ToUpper(name))
	if server == nil || s.secure == "" || s.user != "" {
		s.refuse("504 5.5.4 not now")
		return
	}
	var response []byte
	if given && initial != "=" {
		var err error
		if response, err = base64.StdEncoding.DecodeString(initial); err != nil {
			s.refuse("501 5.5.2 not base64")
			return
		}
	} else if given {
		response = []byte{}
	}
	for {
		challenge, done, err := server.Next(s.ctx, response)
		switch {
		case err != nil:
			s.refuse("535 5.7.8 no")
			return
		case done:
			s.say("235 2.7.0 welcome")
			return
		}
		s.say("334 " + base64.StdEncoding.EncodeToString(challenge))
		line, ok := s.line()
		if !ok {
			return
		}
		if response, err = base64.StdEncoding.DecodeString(string(line)); err != nil {
			s.refuse("501 5.5.2 not base64")
			return
		}
	}
}

func (s *session) mechanism(name string) sasl.Server {
	password := func(_ context.Context, _, user, password string) error {
		if want, ok := s.sink.o.Users[user]; !ok || want != password {
			return sasl.ErrFailed
		}
		s.user = user
		return nil
	}
	verifier := func(_ context.Context, user string) (sasl.Verifier, error) {
		salt := []byte("salt of the sink")
		want, ok := s.sink.o.Users[user]
		if !ok {
			return sasl.FakeVerifier(salt, user, len(salt), sasl.MinIterations), sasl.ErrFailed
		}
		return sasl.NewVerifier(want, salt, sasl.MinIterations)
	}
	done := func(user string) { s.user = user }
	switch name {
	case sasl.NamePlain:
		return sasl.Plain(password)
	case sasl.NameLogin:
		return sasl.Login(password)
	case sasl.NameScramSHA256:
		binding := s.binding()
		if binding != nil {
			binding.Unused = true
		}
		return sasl.ScramSHA256(verifier, binding, done)
	case sasl.NameScramSHA256Plus:
		if binding := s.binding(); binding != nil {
			return sasl.ScramSHA256(verifier, binding, done)
		}
	}
	return nil
}
