package smtpserver

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
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

// loginClient is a session over TLS that offers AUTH.
func loginClient(t testing.TB, b *loginBackend, change func(o *Options)) *client {
	t.Helper()
	c := dialBuffered(t, newTestServer(t, b, func(o *Options) {
		o.TLS = serverTLS(t)
		o.Limits.AuthFailures = 100
		o.Limits.BadCommands = 1000
		if change != nil {
			change(o)
		}
	}))
	c.want("220")
	c.hello()
	c.startTLS()
	c.hello()
	return c
}

// TestAuthDialogs is the list of malformed and unlucky exchanges, and what each is answered with.
func TestAuthDialogs(t *testing.T) {
	t.Parallel()
	wrong := b64("\x00joe\x00wrong")
	for _, steps := range [][]string{
		{"AUTH => 501 5.5.4"},
		{"AUTH  => 501 5.5.4"},
		{"AUTH PLAIN a b => 501 5.5.4"},
		{"AUTH PLÄIN => 501"},
		{"AUTH PLAIN/x => 501 5.5.4"},
		{"AUTH " + strings.Repeat("X", 21) + " => 501 5.5.4"},
		{"AUTH CRAM-MD5 => 504 5.5.4"},
		{"AUTH PLAIN * => 501"},
		{"AUTH PLAIN => 334 ", "* => 501"},
		{"AUTH LOGIN => 334 VXNlcm5hbWU6", "* => 501"},
		{"AUTH PLAIN = => 501 5.5.2"}, // the empty response
		{"AUTH PLAIN => 334 ", "= => 501 5.5.2"},
		{"AUTH PLAIN => 334 ", " => 501 5.5.2"},
		{"AUTH PLAIN AGpvZQBzZWNyZXQ => 501 5.5.2"},   // no padding
		{"AUTH PLAIN AGpvZQBzZWNyZXR= => 501 5.5.2"},  // bits that must be zero are not
		{"AUTH PLAIN AGpv!QBzZWNyZXQ= => 501 5.5.2"},  // no base64
		{"AUTH PLAIN AGpvZQBzZWNyZXQ== => 501 5.5.2"}, // too much of it
		{"AUTH PLAIN " + b64("joe") + " => 501 5.5.2"},
		{"AUTH PLAIN " + b64("joe\x00secret") + " => 501 5.5.2"},
		{"AUTH PLAIN " + b64("\x00joe\x00sec\x00ret") + " => 501 5.5.2"},
		{"AUTH PLAIN " + b64("\x00joe\x00") + " => 501 5.5.2"},
		{"AUTH PLAIN " + b64("\x00\x00secret") + " => 501 5.5.2"},
		{"AUTH PLAIN " + b64("\x00joe\xff\x00secret") + " => 501 5.5.2"},
		{"AUTH PLAIN " + b64("\x00joe\x00sec\nret") + " => 501 5.5.2"},
		{"AUTH PLAIN " + wrong + " => 535 5.7.8"},
		{"AUTH PLAIN " + b64("\x00nobody\x00secret") + " => 535 5.7.8"},
		{"AUTH PLAIN => 334 ", wrong + " => 535 5.7.8"},
		{"AUTH PLAIN " + b64("\x00slow\x00secret") + " => 454 4.7.0"},
		{"AUTH PLAIN " + b64("\x00broken\x00secret") + " => 454 4.7.0"},
		{"AUTH LOGIN => 334", " => 501 5.5.2"},
		{"AUTH LOGIN => 334", b64("joe") + " => 334 UGFzc3dvcmQ6", b64("wrong") + " => 535"},
		{"AUTH LOGIN " + b64("joe") + " => 334 UGFzc3dvcmQ6", " => 501 5.5.2"},
		{"AUTH OAUTHBEARER " + b64("n,,\x01auth=Bearer bad\x01\x01") + " => 334 eyJ", "AQ== => 535 5.7.8"},
		{"AUTH OAUTHBEARER " + b64("n,,\x01auth=Bearer bad\x01\x01") + " => 334 eyJ", "* => 501"},
		{"AUTH SCRAM-SHA-256 " + b64("n,,n=joe,r=12345678") + " => 334", "* => 501"},
		{"AUTH SCRAM-SHA-256 " + b64("y,,n=joe,r=12345678") + " => 535"}, // -PLUS was offered, says the session
		{"AUTH SCRAM-SHA-256 " + b64("p=tls-exporter,,n=joe,r=12345678") + " => 501"},
		{"AUTH PLAIN => 334 ", "QUIT => 501 5.5.2"}, // is no command here
	} {
		b := &loginBackend{backend: &backend{}}
		c := loginClient(t, b, nil)
		c.do(steps...)
		c.do("NOOP => 250", "MAIL FROM:<a@example.org> => 250", "AUTH PLAIN "+b64(plainJoe)+" => 503", "RSET => 250")
		c.do("auth plain "+b64(plainJoe)+" => 235 2.7.0", "AUTH PLAIN => 503 5.5.1", "AUTH => 503")
		c.quit()
		<-c.done
		if p := b.mu.peers[0]; p.Authenticated != "joe" {
			t.Errorf("%q: %q", steps, p.Authenticated)
		}
	}
}

// TestAuthLineLength: lines of AUTH may have 12,288 octets, whatever the limit of commands is (RFC 4954, 4).
func TestAuthLineLength(t *testing.T) {
	t.Parallel()
	for _, n := range []int{2000, 2049, 4096, 4097, 12288, 12289, 12290, 20000, 70000} {
		for _, initial := range []bool{true, false} {
			b := &loginBackend{backend: &backend{}}
			c := loginClient(t, b, func(o *Options) { o.Logger = nil })
			room := n
			if initial {
				room -= len("AUTH PLAIN ")
			}
			long := strings.Repeat("A", room) // NULs, and too many
			want := "501 5.5.2"
			if n > 12288 {
				want = "500 5.5.6"
			}
			if initial {
				c.do("AUTH PLAIN " + long + " => " + want)
			} else {
				c.do("AUTH PLAIN => 334", long+" => "+want)
			}
			c.do("NOOP => 250", "AUTH PLAIN "+b64(plainJoe)+" => 235")
			c.do("AUTH PLAIN " + strings.Repeat("A", 3000) + " => 500") // there is no AUTH any more
			c.quit()
		}
	}
	// Nor is there any before it is offered.
	c := dial(t, newTestServer(t, &backend{}, nil))
	c.hello()
	c.do("AUTH PLAIN " + strings.Repeat("A", 3000) + " => 500 5.5.2")
	c.quit()
}

// TestAuthLineSplit: a line that is longer than the session's buffer, in pieces, with a command behind it.
func TestAuthLineSplit(t *testing.T) {
	t.Parallel()
	b := &loginBackend{backend: &backend{}}
	c := loginClient(t, b, func(o *Options) { o.Logger = nil })
	token := strings.Repeat("x", 7000)
	line := "AUTH OAUTHBEARER " + b64("n,,\x01auth=Bearer "+token+"\x01\x01") + "\r\nAQ==\r\nNOOP\r\n"
	for i := 0; i < len(line); i += 1000 {
		c.send(line[i:min(i+1000, len(line))])
	}
	c.want("334", "535", "250")
	c.quit()
}

func TestAuthMechanisms(t *testing.T) {
	t.Parallel()
	for name, make := range map[string]func(c *client) sasl.Client{
		"PLAIN":       func(*client) sasl.Client { return sasl.PlainClient("", "joe", "secret") },
		"LOGIN":       func(*client) sasl.Client { return sasl.LoginClient("joe", "secret") },
		"OAUTHBEARER": func(*client) sasl.Client { return sasl.OAuthBearerClient("joe", "goodtoken") },
		"SCRAM":       func(*client) sasl.Client { return sasl.ScramSHA256Client("joe", "secret", nil) },
		"SCRAM-PLUS": func(c *client) sasl.Client {
			state := c.conn.(interface{ ConnectionState() tls.ConnectionState }).ConnectionState()
			return sasl.ScramSHA256Client("joe", "secret", sasl.TLSExporter(&state))
		},
	} {
		b := &loginBackend{backend: &backend{}, mechanisms: func(*Peer) []string {
			return []string{"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN", "OAUTHBEARER"}
		}}
		c := loginClient(t, b, nil)
		if r := c.login(make(c)); !strings.HasPrefix(r, "235 2.7.0") {
			t.Errorf("%s: %s", name, r)
		}
		c.quit()
		if b.mu.peers[0].Authenticated != "joe" || len(b.log.ends) != 1 || !strings.HasSuffix(b.log.ends[0], "<nil>") {
			t.Errorf("%s: %q, %q", name, b.mu.peers[0].Authenticated, b.log.ends)
		}
	}
}

// login runs an exchange and returns the last reply.
func (c *client) login(m sasl.Client) string {
	c.t.Helper()
	name, response, err := m.Start()
	if err != nil {
		c.t.Fatal(err)
	}
	line := "AUTH " + name
	if response != nil {
		line += " " + b64(string(response))
	}
	for {
		c.send(line + "\r\n")
		r := c.reply()
		text, ok := strings.CutPrefix(r, "334 ")
		if !ok {
			return r
		}
		challenge, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			c.t.Fatalf("challenge %q", text)
		}
		if response, err = m.Next(challenge); err != nil {
			c.t.Fatal(err)
		}
		line = b64(string(response))
	}
}

// TestAuthFailures: a session may fail so often and then ends.
func TestAuthFailures(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"AUTH PLAIN " + b64("\x00joe\x00wrong"), "AUTH PLAIN !", "AUTH XYZ", "AUTH PLAIN *"} {
		b := &loginBackend{backend: &backend{}}
		c := loginClient(t, b, func(o *Options) { o.Limits.AuthFailures = 3 })
		c.do(bad+" => 5", bad+" => 5")
		c.send(bad + "\r\n")
		c.want("5", "421 4.7.0 Too many failed logins")
		c.wantEnd()
	}
}

// TestAuthReplies: the backend has the last word.
func TestAuthReplies(t *testing.T) {
	t.Parallel()
	b := &loginBackend{backend: &backend{}, refuse: say(454, 7, 0, "too busy")}
	c := loginClient(t, b, nil)
	c.do("AUTH PLAIN " + b64(plainJoe) + " => 454 4.7.0 too busy")
	b.refuse = smtp.Reply{}
	b.done = func(err error) smtp.Reply { return say(535, 7, 8, "no") }
	c.do("AUTH PLAIN "+b64(plainJoe)+" => 535 5.7.8 no", "AUTH PLAIN => 334", "* => 535 5.7.8 no")
	b.done = func(err error) smtp.Reply { return say(235, 7, 0, "yes") }
	c.do("AUTH PLAIN "+b64("\x00joe\x00wrong")+" => 535 5.7.8 Auth", "AUTH PLAIN "+b64(plainJoe)+" => 235 2.7.0 yes")
	c.quit()

	b = &loginBackend{backend: &backend{}, refuse: say(421, 7, 0, "go away")}
	c = loginClient(t, b, nil)
	c.do("AUTH PLAIN " + b64(plainJoe) + " => 421 4.7.0 go away")
	c.wantEnd()
}

// TestAuthLost: the backend is told of an exchange that the client did not end.
func TestAuthLost(t *testing.T) {
	t.Parallel()
	b := &loginBackend{backend: &backend{}}
	c := loginClient(t, b, nil)
	c.do("AUTH LOGIN => 334")
	_ = c.conn.Close()
	<-c.done
	if len(b.log.ends) != 1 || !strings.Contains(b.log.ends[0], "lost") {
		t.Errorf("%q", b.log.ends)
	}
}

// TestAuthParameter: MAIL's AUTH is believed of listed peers alone (RFC 4954, 5).
func TestAuthParameter(t *testing.T) {
	t.Parallel()
	for _, trusted := range []bool{false, true} {
		b := &backend{}
		c := dialFrom(t, newTestServer(t, b, func(o *Options) {
			if trusted {
				o.XClient = networks("192.0.2.0/24")
			}
		}), "192.0.2.1:4000")
		c.want("220")
		c.hello()
		c.do("MAIL FROM:<a@example.org> AUTH=admin@ours.example => 250", "RCPT TO:<b@example.net> => 250", "DATA => 354")
		c.send(".\r\n")
		c.want("250")
		c.quit()
		if got := b.messages()[0].env.From.Auth; (got == "admin@ours.example") != trusted {
			t.Errorf("trusted %v: %q", trusted, got)
		}
	}
}

// TestAuthNotInTranscript: neither passwords nor challenges are logged.
func TestAuthNotInTranscript(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	b := &loginBackend{backend: &backend{}}
	c := loginClient(t, b, func(o *Options) {
		o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: LevelTranscript}))
	})
	c.do("AUTH PLAIN "+b64("\x00joe\x00canary")+" => 535", "AUTH LOGIN => 334", b64("joe")+" => 334", b64("canary")+" => 535",
		"AUTH PLAIN "+b64("\x00joe\x00canary")+"x => 501", "auth login "+b64("canary")+" => 334", "* => 501", "QUIT => 221")
	c.leave()
	for _, secret := range []string{"canary", b64("canary"), b64("\x00joe\x00canary"), b64("canary")[:6]} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("%q is in the log: %s", secret, log.String())
		}
	}
	if !strings.Contains(log.String(), "AUTH PLAIN ***") {
		t.Error("the dialog is not shown at all")
	}
}

// TestStateTableSecure is S-STATE for STARTTLS and AUTH where both are offered, and for all verbs once logged in.
func TestStateTableSecure(t *testing.T) {
	t.Parallel()
	codes := map[string]string{
		"STARTTLS\r\n":                         "503 220 503 503 503 503 503 220 220",
		"AUTH PLAIN " + b64(plainJoe) + "\r\n": "503 235 503 503 503 503 503 235 235",
		"AUTH PLAIN !\r\n":                     "503 501 503 503 503 503 503 501 501",
	}
	for send, row := range codes {
		for i, setup := range stateSetups {
			b := &loginBackend{backend: refusing()}
			c := dialBuffered(t, newTestServer(t, b, withTLS(t)))
			c.want("220")
			for _, step := range setup.steps {
				send, want, _ := strings.Cut(step, " => ")
				c.send(send)
				c.want(want)
			}
			c.send(send)
			code := strings.Fields(row)[i]
			c.want(code)
			if code == "220" {
				c.secure(clientTLS(t))
				c.do("MAIL FROM:<a@example.org> => 503")
			}
			c.do("RSET => 250")
			c.hello()
			c.envelope()
			c.quit()
		}
	}
	for _, verb := range stateVerbs { // authenticated behaves as greeted does
		b := &loginBackend{backend: refusing()}
		c := loginClient(t, b, nil)
		c.do("AUTH PLAIN " + b64(plainJoe) + " => 235")
		code := strings.Fields(verb.codes)[1]
		switch verb.send[:4] {
		case "AUTH", "STAR":
			code = "503"
		}
		c.send(verb.send)
		c.want(code)
		if code != "221" {
			c.do("RSET => 250", "EHLO x => 250", "AUTH PLAIN => 503")
			c.quit()
		}
	}
}
