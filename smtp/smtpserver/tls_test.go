package smtpserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// testCertificate is made once; it is for mx.example.org and never expires in a test.
var testCertificate = sync.OnceValues(func() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mx.example.org"}, DNSNames: []string{"mx.example.org"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
})

func serverTLS(t testing.TB) *tls.Config {
	t.Helper()
	cert, err := testCertificate()
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
}

func clientTLS(t testing.TB) *tls.Config {
	t.Helper()
	cert, err := testCertificate()
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return &tls.Config{ServerName: "mx.example.org", RootCAs: pool}
}

func withTLS(t testing.TB) func(o *Options) {
	return func(o *Options) { o.TLS = serverTLS(t) }
}

// dialBuffered serves one session over a pipe that buffers, as TLS needs; nothing is read.
func dialBuffered(t testing.TB, s *Server) *client {
	t.Helper()
	near, far := smtptest.Pipe()
	c := &client{t: t, conn: near, r: newReader(near), done: make(chan struct{})}
	go func() {
		defer close(c.done)
		s.ServeConn(t.Context(), far)
	}()
	t.Cleanup(func() {
		_ = near.Close()
		<-c.done
	})
	return c
}

// secure puts TLS over the client's side.
func (c *client) secure(config *tls.Config) *tls.Conn {
	c.t.Helper()
	conn := tls.Client(c.conn, config)
	if err := conn.Handshake(); err != nil {
		c.t.Fatalf("handshake: %v", err)
	}
	c.conn, c.r = conn, newReader(conn)
	return conn
}

func (c *client) startTLS() *tls.Conn {
	c.t.Helper()
	c.do("STARTTLS => 220 2.0.0")
	return c.secure(clientTLS(c.t))
}

// offers sends EHLO and returns what is offered.
func (c *client) offers() smtp.Extensions {
	c.t.Helper()
	c.send("EHLO client.example\r\n")
	return smtp.ParseExtensions(strings.ReplaceAll(strings.ReplaceAll(c.reply(), "250-", ""), "250 ", ""))
}

func TestStartTLS(t *testing.T) {
	t.Parallel()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		b := &backend{}
		c := dialBuffered(t, newTestServer(t, b, withTLS(t)))
		c.want("220")
		if x := c.offers(); !x.StartTLS {
			t.Fatalf("%+v", x)
		}
		c.do("STARTTLS => 220 2.0.0")
		config := clientTLS(t)
		config.MaxVersion = version
		c.secure(config)
		if x := c.offers(); x.StartTLS || x.Size == 0 {
			t.Fatalf("in TLS: %+v", x)
		}
		c.envelope()
		c.do("DATA => 354")
		body := "\r\n" + lines(5000, 70)
		c.send(body + ".\r\n")
		c.want("250")
		c.send("MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nBDAT 6 LAST\r\nabcd\r\n")
		c.want("250", "250", "250")
		c.quit()
		m := b.messages()
		if len(m) != 2 || m[0].body != body || m[1].body != "abcd\r\n" {
			t.Errorf("%d messages", len(m))
		}
		if p := b.mu.peers[0]; p.TLS == nil || p.TLS.Version != version || p.Protocol(false) != "ESMTPS" || p.Protocol(true) != "UTF8SMTPS" {
			t.Errorf("peer %+v", p)
		}
	}
}

func TestImplicitTLS(t *testing.T) {
	t.Parallel()
	b := &backend{onSession: func(p *Peer) smtp.Reply {
		if p.TLS == nil {
			return say(554, 0, 0, "not secure")
		}
		return smtp.Reply{}
	}}
	c := dialBuffered(t, newTestServer(t, b, func(o *Options) { o.TLS, o.ImplicitTLS = serverTLS(t), true }))
	c.secure(clientTLS(t))
	c.want("220 mx.example.org ESMTP")
	if x := c.offers(); x.StartTLS {
		t.Fatalf("%+v", x)
	}
	c.do("STARTTLS => 503")
	c.envelope()
	c.do("DATA => 354")
	c.send(".\r\n")
	c.want("250")
	c.quit()
}

// wantClosed reads to the end and wants nothing but what is allowed.
func (c *client) wantClosed(allowed string) {
	c.t.Helper()
	if rest := c.wantEnd(); rest != allowed {
		c.t.Errorf("then %q, want %q", rest, allowed)
	}
}

const injected = "554 5.5.0 Nothing may follow STARTTLS before the handshake\r\n"

// TestT1: what was sent in the clear behind STARTTLS is never a command (CVE-2011-0411), and what was said before is
// forgotten.
func TestT1Injection(t *testing.T) {
	t.Parallel()
	b := &backend{}
	s := newTestServer(t, b, withTLS(t))
	c := dialBuffered(t, s)
	c.want("220")
	c.hello()
	c.send("STARTTLS\r\nEHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n")
	c.wantClosed(injected)

	// In a segment of its own it is read as TLS, which it is not.
	c = dialBuffered(t, s)
	c.want("220")
	c.hello()
	c.do("STARTTLS => 220")
	c.send("EHLO x\r\nMAIL FROM:<a@b>\r\n")
	if rest := c.wantEnd(); strings.Contains(rest, "250") || strings.Contains(rest, "503") {
		t.Errorf("answered in the clear: %q", rest)
	}

	c = dialBuffered(t, s)
	c.want("220")
	c.hello()
	c.startTLS()
	c.do("MAIL FROM:<a@example.org> => 503", "RCPT TO:<b@example.net> => 503", "EHLO x => 250")
	c.quit()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.mu.messages) != 0 || b.mu.resets != 1 {
		t.Errorf("%d messages, %d resets", len(b.mu.messages), b.mu.resets)
	}
}

// TestT2: the beginning of TLS in one segment with STARTTLS ends the session and hangs nothing.
func TestT2HelloTogether(t *testing.T) {
	t.Parallel()
	c := dialBuffered(t, newTestServer(t, &backend{}, withTLS(t)))
	c.want("220")
	c.hello()
	c.send("STARTTLS\r\n\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
	c.wantClosed(injected)
}

// TestT3: STARTTLS has one place.
func TestT3Places(t *testing.T) {
	t.Parallel()
	b := &loginBackend{backend: &backend{}}
	s := newTestServer(t, b, withTLS(t))
	c := dialBuffered(t, s)
	c.want("220")
	c.do("STARTTLS => 503", "EHLO x => 250", "STARTTLS foo => 501 5.5.4", "MAIL FROM:<a@example.org> => 250", "STARTTLS => 503",
		"RCPT TO:<b@example.net> => 250", "STARTTLS => 503")
	c.send("BDAT 3\r\nx\r\n")
	c.want("250")
	c.do("STARTTLS => 503", "RSET => 250")
	c.startTLS()
	c.do("STARTTLS => 503 5.5.1", "EHLO x => 250", "STARTTLS => 503", "STARTTLS foo => 503")
	c.quit()

	c = dialBuffered(t, s) // logged in by somebody else, who then puts the victim's TLS over it
	c.want("220")
	c.do("EHLO x => 250", "AUTH PLAIN "+b64(plainJoe)+" => 235", "STARTTLS => 503")
	c.quit()

	c = dialBuffered(t, newTestServer(t, b, nil))
	c.want("220")
	c.do("STARTTLS => 502", "EHLO x => 250", "STARTTLS => 502", "STARTTLS foo => 502")
	c.quit()
}

// TestT4: no login in the clear if the backend says so.
func TestT4AuthInTheClear(t *testing.T) {
	t.Parallel()
	b := &loginBackend{backend: &backend{}, mechanisms: func(p *Peer) []string {
		if p.TLS == nil {
			return nil
		}
		return []string{"PLAIN"}
	}}
	c := dialBuffered(t, newTestServer(t, b, withTLS(t)))
	c.want("220")
	if x := c.offers(); len(x.Auth) > 0 {
		t.Errorf("offered in the clear: %v", x.Auth)
	}
	c.do("AUTH PLAIN "+b64(plainJoe)+" => 538 5.7.11", "AUTH LOGIN => 538 5.7.11")
	c.startTLS()
	if x := c.offers(); len(x.Auth) != 1 {
		t.Errorf("not offered: %v", x.Auth)
	}
	c.do("AUTH LOGIN => 504 5.5.4", "AUTH PLAIN "+b64(plainJoe)+" => 235")
	c.quit()

	b.mechanisms = func(*Peer) []string { return nil }
	c = dial(t, newTestServer(t, b, nil))
	c.do("AUTH PLAIN => 502", "EHLO x => 250", "AUTH PLAIN => 502")
	c.quit()
}

// TestT5: a handshake that does not come to its end costs half a minute and no goroutine.
func TestT5Handshakes(t *testing.T) {
	t.Parallel()
	for _, implicit := range []bool{false, true} {
		for _, how := range []string{"garbage", "silence", "drip", "close", "drain", "cut"} {
			synctest.Test(t, func(t *testing.T) {
				b := &backend{}
				s := newTestServer(t, b, func(o *Options) { o.TLS, o.ImplicitTLS = serverTLS(t), implicit })
				c := dialBuffered(t, s)
				if !implicit {
					c.want("220")
					c.hello()
					c.do("STARTTLS => 220")
				}
				synctest.Wait()
				began := time.Now()
				limit := 31 * time.Second
				switch how {
				case "garbage":
					c.send("\x16\x03\x01\xff\xff garbage, and much of it")
					limit = 0
				case "drip":
					go func() {
						for {
							if _, err := c.conn.Write([]byte{0x16}); err != nil {
								return
							}
							time.Sleep(9 * time.Second)
						}
					}()
				case "close":
					_ = c.conn.(interface{ CloseWrite() error }).CloseWrite()
					limit = 0
				case "drain":
					go func() { _ = s.Shutdown(context.Background()) }()
					limit = 0
				case "cut":
					go func() { _ = s.Close() }()
					limit = 0
				}
				rest, _ := io.ReadAll(c.conn)
				if d := time.Since(began); d > limit {
					t.Errorf("%s, implicit %v: it took %v", how, implicit, d)
				}
				if strings.Contains(string(rest), "421") || strings.Contains(string(rest), "220") {
					t.Errorf("%s, implicit %v: words in the clear: %q", how, implicit, rest)
				}
				_ = c.conn.Close()
				time.Sleep(10 * time.Second) // whoever drips sees that nobody is there
				synctest.Wait()
				if n := s.Sessions(); n != 0 {
					t.Errorf("%s, implicit %v: %d sessions", how, implicit, n)
				}
				_ = s.Close()
			})
		}
	}
}

// TestT5Deadline: after a handshake the session has its own time again.
func TestT5Deadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := dialBuffered(t, newTestServer(t, &backend{}, withTLS(t)))
		c.want("220")
		c.hello()
		c.startTLS()
		c.hello()
		time.Sleep(4 * time.Minute)
		c.do("NOOP => 250")
		began := time.Now()
		c.want("421 4.4.2")
		if d := time.Since(began); d < 4*time.Minute || d > 6*time.Minute {
			t.Errorf("timeout after %v", d)
		}
		c.wantEnd()
	})
}

// TestTALPACA: what speaks another protocol is sent away at its first line, with one reply at most.
func TestTALPACA(t *testing.T) {
	t.Parallel()
	for _, first := range []string{
		"GET / HTTP/1.1\r\nHost: mx.example.org\r\nX: MAIL FROM:<a@b>\r\n", "POST / HTTP/1.1\r\n\r\nEHLO x\r\nMAIL FROM:<a@b>\r\n",
		"CONNECT mx.example.org:25 HTTP/1.1\r\n", "OPTIONS * HTTP/1.1\r\n", "PUT /x HTTP/1.0\r\n", "Host: x\r\n", "XYZZY / HTTP/1.1\r\n",
		"\x16\x03\x01", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("\n\r\nMAIL FROM:<a@b>\r\n", 20),
	} {
		b := &backend{}
		c := dialBuffered(t, newTestServer(t, b, withTLS(t)))
		c.want("220")
		c.send(first)
		if rest := c.wantEnd(); strings.Count(rest, "\r\n") > 1 {
			t.Errorf("%q: %q", first, rest)
		}
	}
	// The other way round: a browser speaks HTTP in TLS.
	c := dialBuffered(t, newTestServer(t, &backend{}, func(o *Options) { o.TLS, o.ImplicitTLS = serverTLS(t), true }))
	c.secure(clientTLS(t))
	c.want("220")
	c.send("GET / HTTP/1.1\r\nHost: mx.example.org\r\n\r\n")
	c.want("554")
	c.wantEnd()
}

// TestHandshakeCap: a flood of handshakes that do not end leaves the sessions that are open alone, and goes by quickly.
func TestHandshakeCap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newTestServer(t, &backend{}, func(o *Options) { o.TLS, o.Limits.Handshakes = serverTLS(t), 4 })
		for range 4 {
			c := dialBuffered(t, s)
			c.want("220")
			c.hello()
			c.do("STARTTLS => 220")
		}
		synctest.Wait()
		late := dialBuffered(t, s)
		late.want("220")
		late.hello()
		late.do("STARTTLS => 454 4.7.0", "NOOP => 250")
		time.Sleep(6 * time.Second) // the last of the four got less time
		late.startTLS()
		late.hello()
		late.quit()
	})
}

// TestHandshakeCapOfClient: one client gets a quarter of the places.
func TestHandshakeCapOfClient(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newTestServer(t, &backend{}, func(o *Options) { o.TLS, o.ImplicitTLS, o.Limits.Handshakes = serverTLS(t), true, 8 })
		for range 2 {
			dialFrom(t, s, "192.0.2.1:1")
		}
		synctest.Wait()
		if rest := dialFrom(t, s, "192.0.2.1:1").wantEnd(); rest != "" {
			t.Errorf("answered %q", rest)
		}
		other := dialFrom(t, s, "192.0.2.2:1")
		other.secure(clientTLS(t))
		other.want("220")
		other.quit()
	})
}

// TestTLSDrain: a drain reaches a session that waits in TLS.
func TestTLSDrain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newTestServer(t, &backend{}, withTLS(t))
		c := dialBuffered(t, s)
		c.want("220")
		c.hello()
		c.startTLS()
		c.hello()
		synctest.Wait()
		go func() { _ = s.Shutdown(context.Background()) }()
		c.want("421 4.3.2")
		c.wantEnd()
	})
}

// TestSecured: a session that is told of its TLS may end it.
func TestSecured(t *testing.T) {
	t.Parallel()
	b := &loginBackend{backend: &backend{}, secured: say(554, 7, 1, "not with this certificate")}
	c := dialBuffered(t, newTestServer(t, b, withTLS(t)))
	c.want("220")
	c.hello()
	c.startTLS()
	c.send("EHLO x\r\n")
	c.want("554 5.7.1 not with")
	c.wantEnd()
}

// TestTLSTruncated: a message is whole only with its end, whatever happens to the connection.
func TestTLSTruncated(t *testing.T) {
	t.Parallel()
	b := &backend{}
	c := dialBuffered(t, newTestServer(t, b, withTLS(t)))
	c.want("220")
	c.hello()
	conn := c.startTLS()
	c.hello()
	c.envelope()
	c.do("DATA => 354")
	c.send("\r\nhalf a message\r\n")
	_ = conn.NetConn().Close()
	<-c.done
	if n := len(b.messages()); n != 0 {
		t.Errorf("%d messages", n)
	}
}

// TestTLSSplit sends a dialog in records cut at every place.
func TestTLSSplit(t *testing.T) {
	t.Parallel()
	dialog := "MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nBDAT 5\r\nab\r\nxBDAT 4 LAST\r\nyz\r\nNOOP\r\n"
	b := &backend{}
	s := newTestServer(t, b, func(o *Options) { o.TLS, o.ImplicitTLS, o.Logger = serverTLS(t), true, nil })
	for at := 1; at < len(dialog); at++ {
		c := dialBuffered(t, s)
		c.secure(clientTLS(t))
		c.want("220")
		c.hello()
		c.send(dialog[:at])
		c.send(dialog[at:])
		c.want("250", "250", "250", "250", "250")
		c.quit()
	}
	for _, m := range b.messages() {
		if m.body != "ab\r\nxyz\r\n" {
			t.Fatalf("%q", m.body)
		}
	}
}

func TestProtocol(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		p    Peer
		utf8 bool
		want string
	}{
		{Peer{}, false, "SMTP"}, {Peer{ESMTP: true}, false, "ESMTP"}, {Peer{TLS: &tls.ConnectionState{}}, false, "SMTP"},
		{Peer{ESMTP: true, TLS: &tls.ConnectionState{}}, false, "ESMTPS"}, {Peer{ESMTP: true, Authenticated: "x"}, false, "ESMTPA"},
		{Peer{ESMTP: true, Authenticated: "x", TLS: &tls.ConnectionState{}}, false, "ESMTPSA"},
		{Peer{}, true, "UTF8SMTP"}, {Peer{Authenticated: "x", TLS: &tls.ConnectionState{}}, true, "UTF8SMTPSA"},
		{Peer{Authenticated: "x"}, true, "UTF8SMTPA"}, {Peer{TLS: &tls.ConnectionState{}}, true, "UTF8SMTPS"},
	} {
		if got := tt.p.Protocol(tt.utf8); got != tt.want {
			t.Errorf("%+v: %s, want %s", tt.p, got, tt.want)
		}
	}
}
