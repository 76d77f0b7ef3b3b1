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
	"net"
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

var _ = []any{context.Background, io.EOF, net.Pipe, synctest.Test}
