package smtpserver

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/sasl"
)

// loginBackend is a backend whose sessions know one user, "joe" with the password "secret".
type loginBackend struct {
	*backend
	mechanisms func(p *Peer) []string // nil: all but EXTERNAL
	refuse     smtp.Reply             // of Auth
	done       func(err error) smtp.Reply
	secured    smtp.Reply

	log struct {
		sync.Mutex
		ends []string // of exchanges
	}
}

func (b *loginBackend) NewSession(ctx context.Context, p *Peer) (Session, smtp.Reply) {
	s, r := b.backend.NewSession(ctx, p)
	if s == nil {
		return nil, r
	}
	return &loginSession{Session: s, b: b, peer: p}, r
}

type loginSession struct {
	Session
	b    *loginBackend
	peer *Peer
	user string
}

func (s *loginSession) Secured(context.Context) smtp.Reply { return s.b.secured }

func (s *loginSession) Mechanisms() []string {
	if s.b.mechanisms != nil {
		return s.b.mechanisms(s.peer)
	}
	return []string{"SCRAM-SHA-256", "PLAIN", "LOGIN", "OAUTHBEARER"}
}

func (s *loginSession) verify(_ context.Context, _, authcid, password string) error {
	switch {
	case authcid == "slow":
		return sasl.ErrTemporary
	case authcid == "broken":
		return errors.New("disk on fire")
	case authcid != "joe" || password != "secret":
		return fmt.Errorf("%w: joe has another one", sasl.ErrFailed)
	}
	s.user = authcid
	return nil
}

func (s *loginSession) Auth(_ context.Context, mechanism string) (sasl.Server, smtp.Reply) {
	if !s.b.refuse.IsZero() {
		return nil, s.b.refuse
	}
	switch mechanism {
	case sasl.NamePlain:
		return sasl.Plain(s.verify), smtp.Reply{}
	case sasl.NameLogin:
		return sasl.Login(s.verify), smtp.Reply{}
	case sasl.NameOAuthBearer:
		return sasl.OAuthBearer(func(_ context.Context, _, token string) error {
			if token != "goodtoken" {
				return sasl.ErrFailed
			}
			s.user = "joe"
			return nil
		}), smtp.Reply{}
	case sasl.NameScramSHA256, sasl.NameScramSHA256Plus:
		var binding *sasl.ChannelBinding
		if b := sasl.TLSExporter(s.peer.TLS); b != nil {
			b.Unused = mechanism == sasl.NameScramSHA256
			binding = b
		}
		return sasl.ScramSHA256(func(_ context.Context, user string) (sasl.Verifier, error) {
			if user != "joe" {
				return sasl.FakeVerifier([]byte("x"), user, 16, sasl.MinIterations), sasl.ErrFailed
			}
			return sasl.NewVerifier("secret", []byte("0123456789abcdef"), sasl.MinIterations)
		}, binding, func(user string) { s.user = user }), smtp.Reply{}
	}
	return nil, say(504, 5, 4, "what")
}

func (s *loginSession) AuthDone(_ context.Context, mechanism string, err error) smtp.Reply {
	s.b.log.Lock()
	s.b.log.ends = append(s.b.log.ends, fmt.Sprintf("%s %v", mechanism, err))
	s.b.log.Unlock()
	if s.b.done != nil {
		return s.b.done(err)
	}
	if err == nil {
		s.peer.Authenticated = s.user
	}
	return smtp.Reply{}
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

const plainJoe = "\x00joe\x00secret"

func TestAuthPlain(t *testing.T) {
	t.Parallel()
	b := &loginBackend{backend: &backend{}}
	c := dialBuffered(t, newTestServer(t, b, withTLS(t)))
	c.want("220")
	c.hello()
	c.startTLS()
	if x := c.offers(); strings.Join(x.Auth, " ") != "SCRAM-SHA-256 PLAIN LOGIN OAUTHBEARER" {
		t.Errorf("%+v", x.Auth)
	}
	c.do("AUTH PLAIN " + b64(plainJoe) + " => 235 2.7.0")
	if x := c.offers(); len(x.Auth) > 0 { // there is no second one
		t.Errorf("%+v", x.Auth)
	}
	c.do("AUTH PLAIN " + b64(plainJoe) + " => 503")
	c.quit()
	if p := b.mu.peers[0]; p.Protocol(false) != "ESMTPSA" || p.Authenticated != "joe" {
		t.Errorf("%+v", p)
	}
}
