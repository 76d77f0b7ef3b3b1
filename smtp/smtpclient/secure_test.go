package smtpclient_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/sasl"
	"github.com/godwit-mta/godwit/smtp/smtpclient"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

var certificate = sync.OnceValues(func() (tls.Certificate, error) {
	return smtptest.NewCertificate(smtptest.CertificateOptions{Names: []string{"sink.test"}})
})

func serverTLS(t testing.TB) *tls.Config {
	t.Helper()
	c, err := certificate()
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{c}}
}

var trusting = &tls.Config{InsecureSkipVerify: true, ServerName: "sink.test"}

// securePeer serves a sink with TLS on connections in memory.
func securePeer(t testing.TB, o smtptest.SinkOptions) *peer {
	t.Helper()
	p := &peer{script: o.Script}
	o.KeepBody, o.OnMessage = true, p.ledger.add
	var err error
	if p.Sink, err = smtptest.NewSink(o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	p.wait = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	t.Cleanup(p.wait)
	p.dial = func() (net.Conn, error) {
		client, server := smtptest.Pipe()
		running.Go(func() { p.ServeConn(ctx, server) })
		return client, nil
	}
	return p
}

func TestStartTLS(t *testing.T) {
	t.Parallel()
	p := securePeer(t, smtptest.SinkOptions{TLS: serverTLS(t), RequireTLS: true})
	c := p.open(t, smtpclient.Options{})
	if c.Secured() || c.TLS() != nil || c.Extensions().RequireTLS || !c.Extensions().StartTLS {
		t.Fatalf("in the clear: %+v", c.Extensions())
	}
	if err := c.StartTLS(t.Context(), trusting); err != nil {
		t.Fatal(err)
	}
	if x := c.Extensions(); !c.Secured() || x.StartTLS || !x.RequireTLS || !x.Pipelining {
		t.Errorf("over TLS: %+v", x)
	}
	if state := c.TLS(); state == nil || state.Version != tls.VersionTLS13 {
		t.Errorf("state %+v", state)
	}
	for range 3 {
		tx := message("x", 1, "")
		tx.From.RequireTLS = true
		if err := c.Send(t.Context(), tx); err != nil || tx.Result.Recipients[0].Status != smtpclient.Delivered {
			t.Fatalf("%v, %+v", err, tx.Result.Recipients[0])
		}
		if !c.Alive() {
			t.Fatal("an idle session over TLS is taken for dead")
		}
	}
	if err := c.StartTLS(t.Context(), trusting); err == nil {
		t.Error("TLS over TLS")
	}
	if err := c.Quit(t.Context()); err != nil {
		t.Error(err)
	}
	p.wait()
	if len(p.ledger.messages) != 3 {
		t.Fatalf("%d messages", len(p.ledger.messages))
	}
	for _, m := range p.ledger.messages {
		if !strings.HasPrefix(m.TLS, "TLS 1.3 ") || !strings.HasSuffix(m.TLS, "sink.test") || !strings.Contains(m.Parameters, "REQUIRETLS") {
			t.Errorf("came over %q with %q", m.TLS, m.Parameters)
		}
	}
}

func TestImplicitTLS(t *testing.T) {
	t.Parallel()
	p := securePeer(t, smtptest.SinkOptions{TLS: serverTLS(t), ImplicitTLS: true})
	c := p.open(t, smtpclient.Options{ImplicitTLS: trusting})
	if !c.Secured() || c.Extensions().StartTLS {
		t.Errorf("secured %v, %+v", c.Secured(), c.Extensions())
	}
	tx := message("x", 1, "")
	if err := c.Send(t.Context(), tx); err != nil || tx.Result.Recipients[0].Status != smtpclient.Delivered {
		t.Fatalf("%v, %+v", err, tx.Result.Recipients[0])
	}
}

// TestRefusedStartTLS: the session stands and goes on in the clear.
func TestRefusedStartTLS(t *testing.T) {
	t.Parallel()
	for _, reply := range []string{"454 4.7.0 not now", "500 5.5.1 what", "501 5.5.4 what", "502 5.5.1 no"} {
		p := securePeer(t, smtptest.SinkOptions{TLS: serverTLS(t),
			Script: smtptest.Script{Rules: []smtptest.Rule{{At: smtptest.AtStartTLS, Reply: reply}}}})
		c := p.open(t, smtpclient.Options{})
		err := c.StartTLS(t.Context(), trusting)
		broken, ok := errors.AsType[*smtpclient.Error](err)
		if !ok || broken.Phase != smtpclient.PhaseTLS || broken.Reply.IsZero() || smtpclient.HandshakeFailed(err) {
			t.Errorf("%s: %v", reply, err)
		}
		tx := message("x", 1, "")
		if err := c.Send(t.Context(), tx); err != nil || tx.Result.Recipients[0].Status != smtpclient.Delivered {
			t.Errorf("%s: %v, %+v", reply, err, tx.Result.Recipients[0])
		}
	}
}

// TestBrokenStartTLS: the session is over, whatever the peer does, and the error tells why.
func TestBrokenStartTLS(t *testing.T) {
	t.Parallel()
	for _, one := range []struct {
		name      string
		rule      smtptest.Rule
		want      error
		handshake bool
	}{
		{"reply behind 220", smtptest.Rule{Raw: "220 go\r\n250-x\r\n250 AUTH PLAIN\r\n"}, smtpclient.ErrInjected, true},
		{"octet behind 220", smtptest.Rule{Raw: "220 go\r\nx"}, smtpclient.ErrInjected, true},
		{"354", smtptest.Rule{Reply: "354 go"}, nil, true},
		{"421", smtptest.Rule{Reply: "421 4.7.0 bye"}, nil, false},
		{"close", smtptest.Rule{Drop: smtptest.DropFIN}, nil, true},
		{"220 and close", smtptest.Rule{Drop: smtptest.DropFIN, After: true}, nil, true},
		{"not a reply", smtptest.Rule{Raw: "hello\r\n"}, nil, true},
	} {
		t.Run(one.name, func(t *testing.T) {
			t.Parallel()
			one.rule.At = smtptest.AtStartTLS
			p := securePeer(t, smtptest.SinkOptions{TLS: serverTLS(t), Script: smtptest.Script{Rules: []smtptest.Rule{one.rule}}})
			c := p.open(t, smtpclient.Options{})
			err := c.StartTLS(t.Context(), trusting)
			if broken, ok := errors.AsType[*smtpclient.Error](err); !ok || broken.Phase != smtpclient.PhaseTLS {
				t.Fatalf("got %v", err)
			}
			if one.want != nil && !errors.Is(err, one.want) {
				t.Errorf("got %v, want %v", err, one.want)
			}
			if smtpclient.HandshakeFailed(err) != one.handshake {
				t.Errorf("%v: HandshakeFailed is %v", err, !one.handshake)
			}
			if c.Reusable() || c.Secured() || len(c.Extensions().Auth) > 0 {
				t.Errorf("the session goes on, knowing %+v", c.Extensions())
			}
		})
	}
}

// TestHangingHandshake is bounded by Timeouts.TLS for all of the handshake together.
func TestHangingHandshake(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := securePeer(t, smtptest.SinkOptions{TLS: serverTLS(t),
			Script: smtptest.Script{Rules: []smtptest.Rule{{At: smtptest.AtStartTLS, Stall: true, After: true}}}})
		c := p.open(t, smtpclient.Options{})
		began := time.Now()
		err := c.StartTLS(t.Context(), trusting)
		if !errors.Is(err, os.ErrDeadlineExceeded) || !smtpclient.HandshakeFailed(err) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took != 30*time.Second {
			t.Errorf("took %v, want 30s", took)
		}

		c = p.open(t, smtpclient.Options{})
		cause := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		stop := time.AfterFunc(time.Second, func() { cancel(cause) })
		defer stop.Stop()
		began = time.Now()
		if err := c.StartTLS(ctx, trusting); !errors.Is(err, cause) || time.Since(began) != time.Second {
			t.Errorf("got %v after %v, want %v after 1s", err, time.Since(began), cause)
		}
		p.wait()
	})
}

func TestUntrusted(t *testing.T) {
	t.Parallel()
	p := securePeer(t, smtptest.SinkOptions{TLS: serverTLS(t)})
	c := p.open(t, smtpclient.Options{})
	mine := errors.New("not the one")
	err := c.StartTLS(t.Context(), &tls.Config{InsecureSkipVerify: true, VerifyConnection: func(tls.ConnectionState) error { return mine }})
	if !errors.Is(err, mine) || !smtpclient.HandshakeFailed(err) || c.Secured() {
		t.Errorf("got %v", err)
	}
}

func TestNoTLSOffered(t *testing.T) {
	t.Parallel()
	p := piped(t, smtptest.Script{})
	c := p.open(t, smtpclient.Options{})
	if err := c.StartTLS(t.Context(), trusting); !errors.Is(err, smtpclient.ErrNoTLS) || !c.Reusable() {
		t.Errorf("got %v, reusable %v", err, c.Reusable())
	}
	if err := c.Login(t.Context(), "u", "p"); !errors.Is(err, smtpclient.ErrNoTLS) {
		t.Errorf("a login in the clear: %v", err)
	}
	tx := message("x", 1, "")
	tx.From.RequireTLS = true
	if err := c.Send(t.Context(), tx); err != nil {
		t.Fatal(err)
	}
	r := tx.Result.Recipients[0]
	if r.Status != smtpclient.Refused || !errors.Is(r.Err, smtpclient.ErrNeedTLS) || r.Reply.Code != 550 ||
		r.Reply.Enhanced != (smtp.EnhancedCode{Class: 5, Subject: 7, Detail: 30}) {
		t.Errorf("REQUIRETLS in the clear: %+v", r)
	}
	p.wait()
	if n := p.Counters().Transactions; n != 0 {
		t.Errorf("%d transactions were begun", n)
	}
}

func TestLogin(t *testing.T) {
	t.Parallel()
	const user, password = "relay", "correct horse"
	makers := map[string]func(*smtpclient.Conn) sasl.Client{
		"best": nil,
		"scram": func(*smtpclient.Conn) sasl.Client {
			return sasl.ScramSHA256Client(user, password, nil)
		},
		"plus": func(c *smtpclient.Conn) sasl.Client {
			return sasl.ScramSHA256Client(user, password, sasl.TLSExporter(c.TLS()))
		},
		"plain": func(*smtpclient.Conn) sasl.Client { return sasl.PlainClient("", user, password) },
		"login": func(*smtpclient.Conn) sasl.Client { return sasl.LoginClient(user, password) },
	}
	for name, maker := range makers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			o := smtpclient.Options{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: smtpclient.LevelTranscript}))}
			p := securePeer(t, smtptest.SinkOptions{TLS: serverTLS(t), Users: map[string]string{user: password}})
			c := p.open(t, o)
			if err := c.StartTLS(t.Context(), trusting); err != nil {
				t.Fatal(err)
			}
			tx := message("x", 1, "")
			if err := c.Send(t.Context(), tx); err != nil || tx.Result.Recipients[0].Status != smtpclient.Refused {
				t.Fatalf("without login: %v, %+v", err, tx.Result.Recipients[0])
			}
			var err error
			if maker == nil {
				err = c.Login(t.Context(), user, password)
			} else {
				err = c.Authenticate(t.Context(), maker(c))
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Send(t.Context(), tx); err != nil || tx.Result.Recipients[0].Status != smtpclient.Delivered {
				t.Fatalf("%v, %+v", err, tx.Result.Recipients[0])
			}
			p.wait()
			if got := p.ledger.messages[0].User; got != user {
				t.Errorf("logged in as %q", got)
			}
			for _, secret := range []string{password, "AHJlbGF5AGNvcnJlY3QgaG9yc2U", "Y29ycmVjdCBob3JzZQ", "cmVsYXk", ",p="} {
				if strings.Contains(log.String(), secret) {
					t.Errorf("the log has %q", secret)
				}
			}
		})
	}
	t.Run("wrong password", func(t *testing.T) {
		t.Parallel()
		p := securePeer(t, smtptest.SinkOptions{TLS: serverTLS(t), Users: map[string]string{user: password}})
		c := p.open(t, smtpclient.Options{})
		if err := c.StartTLS(t.Context(), trusting); err != nil {
			t.Fatal(err)
		}
		err := c.Login(t.Context(), user, "wrong")
		if broken, ok := errors.AsType[*smtpclient.Error](err); !ok || broken.Phase != smtpclient.PhaseAuth || broken.Reply.Code != 535 {
			t.Errorf("got %v", err)
		}
	})
}

// TestLyingServer: one that does not know the password must not be believed that all is well.
func TestLyingServer(t *testing.T) {
	t.Parallel()
	for name, answers := range map[string][]string{
		"235 at once":            {"235 2.7.0 fine"},
		"235 in place of proof":  {"334 %s", "235 2.7.0 fine"},
		"335":                    {"335 what"},
		"challenge is no base64": {"334 !!!"},
		"never ends":             {"334 "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, server := smtptest.Pipe()
			var running sync.WaitGroup
			running.Go(func() { serveLies(t, server, answers) })
			c := smtpclient.New(client, smtpclient.Options{ImplicitTLS: trusting})
			if err := c.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			err := c.Login(t.Context(), "relay", "secret")
			if broken, ok := errors.AsType[*smtpclient.Error](err); !ok || broken.Phase != smtpclient.PhaseAuth {
				t.Errorf("got %v", err)
			}
			if c.Reusable() {
				t.Error("the session goes on")
			}
			_ = c.Close()
			running.Wait()
		})
	}
}

// serveLies offers SCRAM and answers its steps as told, the last one for ever.
func serveLies(t *testing.T, nc net.Conn, answers []string) {
	conn := tls.Server(nc, serverTLS(t))
	defer func() { _ = conn.Close() }()
	buf := make([]byte, 4096)
	say := func(s string) bool { _, err := conn.Write([]byte(s + "\r\n")); return err == nil }
	if !say("220 x") {
		return
	}
	for step := -1; ; step++ {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		if step < 0 {
			say("250-x\r\n250 AUTH SCRAM-SHA-256")
			continue
		}
		answer := answers[min(step, len(answers)-1)]
		if strings.Contains(answer, "%s") {
			initial, _ := strings.CutPrefix(strings.TrimSpace(string(buf[:n])), "AUTH SCRAM-SHA-256 ")
			answer = fmt.Sprintf(answer, challengeFor(initial))
		}
		if !say(answer) {
			return
		}
	}
}

func challengeFor(initial string) string {
	raw := decode64(initial)
	_, nonce, _ := strings.Cut(raw, "r=")
	return encode64("r=" + nonce + "more,s=c2FsdHNhbHQ=,i=4096")
}

// TestAliveOverTLS: what TLS itself says to an idle session does not end it, what the peer says does.
func TestAliveOverTLS(t *testing.T) {
	t.Parallel()
	for _, tcp := range []bool{true, false} {
		client, server := smtptest.Pipe()
		if tcp {
			client, server = tcpPair(t)
		}
		conn := tls.Server(server, serverTLS(t))
		answers := make(chan string)
		var running sync.WaitGroup
		running.Go(func() {
			buf := make([]byte, 4096)
			for a := range answers {
				if _, err := conn.Write([]byte(a)); err != nil {
					t.Error(err)
				}
				if strings.HasPrefix(a, "220") {
					_, _ = conn.Read(buf)
				}
			}
			_ = conn.Close()
		})
		c := smtpclient.New(client, smtpclient.Options{ImplicitTLS: trusting})
		go func() { answers <- "220 x\r\n"; answers <- "250 x\r\n" }()
		if err := c.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if !c.Alive() {
				t.Error("dead without a cause")
			}
		}
		answers <- "421 bye\r\n"
		for end := time.Now().Add(5 * time.Second); c.Alive() && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		if c.Alive() {
			t.Error("alive after 421")
		}
		close(answers)
		_ = c.Close()
		running.Wait()
	}
}

func tcpPair(t *testing.T) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return client, server
}
