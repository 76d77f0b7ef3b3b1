package smtpserver

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/proxyproto"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

func networks(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, s := range list {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

// from is a connection whose other end has an address.
type from struct {
	net.Conn
	remote net.Addr
}

func (f *from) RemoteAddr() net.Addr { return f.remote }
func (f *from) LocalAddr() net.Addr  { return &net.TCPAddr{IP: net.IPv4(198, 51, 100, 1), Port: 587} }
func (f *from) CloseWrite() error    { return f.Conn.(interface{ CloseWrite() error }).CloseWrite() }

// dialFrom serves one session whose client has an address; nothing is read.
func dialFrom(t testing.TB, s *Server, address string) *client {
	t.Helper()
	near, far := smtptest.Pipe()
	c := &client{t: t, conn: near, r: newReader(near), done: make(chan struct{})}
	conn := &from{far, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(address))}
	go func() {
		defer close(c.done)
		s.ServeConn(t.Context(), conn)
	}()
	t.Cleanup(func() {
		_ = near.Close()
		<-c.done
	})
	return c
}

// leave wants the end, closes this side too, and waits until the server is done.
func (c *client) leave() {
	c.t.Helper()
	c.wantEnd()
	_ = c.conn.Close()
	<-c.done
}

const (
	proxyAddress  = "10.0.0.1:4000"
	directAddress = "192.0.2.9:4000"
)

func behindProxy(o *Options) { o.Proxies = networks("10.0.0.0/8") }

var claimed = proxyproto.Header{
	Source: netip.MustParseAddrPort("203.0.113.7:5555"), Destination: netip.MustParseAddrPort("198.51.100.9:25"),
}

func TestProxy(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		for _, header := range [][]byte{claimed.AppendV1(nil), claimed.AppendV2(nil)} {
			b := &backend{}
			c := dialFrom(t, newTestServer(t, b, func(o *Options) {
				behindProxy(o)
				if secure {
					o.TLS, o.ImplicitTLS = serverTLS(t), true
				}
			}), proxyAddress)
			c.send(string(header))
			if secure {
				c.secure(clientTLS(t))
			}
			c.want("220")
			c.hello()
			c.quit()
			if p := b.mu.peers[0]; p.Remote != claimed.Source || p.Local != claimed.Destination || p.Via.String() != proxyAddress {
				t.Errorf("%+v", p)
			}
		}
	}
}

// TestPX1: a header of somebody who is no proxy: closed, no banner.
func TestPX1Untrusted(t *testing.T) {
	t.Parallel()
	for _, header := range [][]byte{claimed.AppendV1(nil), claimed.AppendV2(nil)} {
		synctest.Test(t, func(t *testing.T) {
			b := &backend{}
			c := dialFrom(t, newTestServer(t, b, behindProxy), directAddress)
			c.send(string(header) + "EHLO x\r\n")
			if rest := c.wantEnd(); rest != "" {
				t.Errorf("answered %q", rest)
			}
		})
		// Where no proxies are expected the banner is out already; nothing else follows but a refusal.
		c := dialFrom(t, newTestServer(t, &backend{}, nil), directAddress)
		c.want("220")
		c.send(string(header) + "EHLO x\r\nMAIL FROM:<a@b>\r\n")
		if rest := c.wantEnd(); strings.Contains(rest, "250") || strings.Count(rest, "\r\n") > 1 {
			t.Errorf("answered %q", rest)
		}
	}
	// Who says nothing is served after a moment; who talks early and is no proxy is served too.
	synctest.Test(t, func(t *testing.T) {
		s := newTestServer(t, &backend{}, behindProxy)
		c := dialFrom(t, s, directAddress)
		c.want("220")
		c.hello()
		c.quit()
		c = dialFrom(t, s, directAddress)
		c.send("EHLO early\r\n")
		c.want("220", "250")
		c.quit()
	})
}

// TestPX2: a proxy that sends no header, or drips it, is closed within 5 seconds.
func TestPX2Late(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"silent", "drip", "other", "tls"} {
		synctest.Test(t, func(t *testing.T) {
			b := &backend{}
			c := dialFrom(t, newTestServer(t, b, behindProxy), proxyAddress)
			began := time.Now()
			switch how {
			case "drip":
				go func() {
					for _, octet := range claimed.AppendV1(nil) {
						if _, err := c.conn.Write([]byte{octet}); err != nil {
							return
						}
						time.Sleep(time.Second)
					}
				}()
			case "other":
				c.send("EHLO client.example\r\n")
			case "tls":
				c.send("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
			}
			if rest, _ := io.ReadAll(c.conn); len(rest) > 0 {
				t.Errorf("%s: answered %q", how, rest)
			}
			if d := time.Since(began); d > 5*time.Second {
				t.Errorf("%s: closed after %v", how, d)
			}
			time.Sleep(2 * time.Second)
		})
	}
}

// TestPX3: every header that is cut, at every octet, is closed without a word. What else is broken is tested in
// proxyproto.
func TestPX3Short(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, &backend{}, func(o *Options) { behindProxy(o); o.Logger = nil })
	for _, header := range [][]byte{claimed.AppendV1(nil), claimed.AppendV2(nil)} {
		for n := range header {
			c := dialFrom(t, s, proxyAddress)
			c.send(string(header[:n]))
			_ = c.conn.(interface{ CloseWrite() error }).CloseWrite()
			if rest := c.wantEnd(); rest != "" {
				t.Fatalf("%q: answered %q", header[:n], rest)
			}
		}
	}
}

// TestPX4: a second header is nothing but a bad line.
func TestPX4Two(t *testing.T) {
	t.Parallel()
	other := claimed
	other.Source = netip.MustParseAddrPort("127.0.0.1:1")
	for _, second := range [][]byte{other.AppendV1(nil), other.AppendV2(nil)} {
		b := &backend{}
		c := dialFrom(t, newTestServer(t, b, behindProxy), proxyAddress)
		c.send(string(claimed.AppendV1(nil)) + string(second) + "EHLO x\r\n")
		c.want("220")
		if rest := c.wantEnd(); strings.Contains(rest, "250") {
			t.Errorf("answered %q", rest)
		}
		if p := b.mu.peers[0]; p.Remote != claimed.Source {
			t.Errorf("%+v", p)
		}
	}
}

// TestPX5: the claimed address is the one that counts for access and limits, and is told apart from the real one.
func TestPX5Claims(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, &backend{}, func(o *Options) {
		behindProxy(o)
		o.Deny = networks("203.0.113.0/25")
		o.Limits.SessionsPerClient = 2
	})
	c := dialFrom(t, s, proxyAddress)
	c.send(string(claimed.AppendV2(nil)))
	c.want("554 5.7.1")
	c.leave()

	other := claimed
	other.Source = netip.MustParseAddrPort("203.0.113.200:1")
	var open []*client
	for range 2 {
		c := dialFrom(t, s, proxyAddress)
		c.send(string(other.AppendV1(nil)))
		c.want("220")
		open = append(open, c)
	}
	c = dialFrom(t, s, proxyAddress)
	c.send(string(other.AppendV1(nil)))
	c.want("421 4.7.0")
	c.leave()
	c = dialFrom(t, s, "203.0.113.200:7") // the same one, without the proxy
	c.want("421 4.7.0")
	c.leave()
	other.Source = netip.MustParseAddrPort("203.0.113.201:1") // the proxy itself has no limit of its own
	c = dialFrom(t, s, proxyAddress)
	c.send(string(other.AppendV1(nil)))
	c.want("220")
	c.quit()
	<-c.done
	for _, c := range open {
		c.quit()
		<-c.done
	}
	c = dialFrom(t, s, "203.0.113.200:7")
	c.want("220")
	c.quit()
	<-c.done
	if n := len(s.gate.mu.clients); n != 0 {
		t.Errorf("%d clients are still counted", n)
	}

	b := &backend{} // LOCAL and UNKNOWN: the proxy speaks for itself
	s = newTestServer(t, b, behindProxy)
	for _, header := range [][]byte{proxyproto.Header{Local: true}.AppendV1(nil), proxyproto.Header{Local: true}.AppendV2(nil)} {
		c := dialFrom(t, s, proxyAddress)
		c.send(string(header))
		c.want("220")
		c.quit()
	}
	for _, p := range b.mu.peers {
		if p.Remote.String() != proxyAddress || p.Via.IsValid() {
			t.Errorf("%+v", p)
		}
	}
}

func TestAccess(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		allow, deny []string
		address     string
		want        string
	}{
		{nil, nil, "192.0.2.1:1", "220"},
		{nil, []string{"192.0.2.0/24"}, "192.0.2.1:1", "554 5.7.1"},
		{nil, []string{"192.0.2.0/24"}, "192.0.3.1:1", "220"},
		{[]string{"192.0.2.0/24"}, nil, "192.0.2.1:1", "220"},
		{[]string{"192.0.2.0/24"}, nil, "192.0.3.1:1", "554 5.7.1"},
		{[]string{"192.0.2.0/24"}, []string{"192.0.2.1/32"}, "192.0.2.1:1", "554 5.7.1"},
		{[]string{"192.0.2.0/24"}, nil, "[::ffff:192.0.2.1]:1", "220"},
		{[]string{"2001:db8::/32"}, nil, "[2001:db8::1]:1", "220"},
		{[]string{"2001:db8::/32"}, nil, "192.0.2.1:1", "554 5.7.1"},
		{nil, []string{"::/0"}, "192.0.2.1:1", "220"},
	} {
		s := newTestServer(t, &backend{}, func(o *Options) { o.Allow, o.Deny = networks(tt.allow...), networks(tt.deny...) })
		c := dialFrom(t, s, tt.address)
		c.want(tt.want)
		if tt.want != "220" {
			c.wantEnd()
		}
	}
	s := newTestServer(t, &backend{}, nil)
	if err := s.SetAccess(nil, networks("0.0.0.0/0")); err != nil {
		t.Fatal(err)
	}
	if s.SetAccess([]netip.Prefix{{}}, nil) == nil || s.SetAccess(networks("::ffff:192.0.2.0/120"), nil) == nil {
		t.Error("networks that are none")
	}
	c := dialFrom(t, s, directAddress)
	c.want("554")
	c.wantEnd()
	c = dialFrom(t, newTestServer(t, &backend{}, func(o *Options) {
		o.TLS, o.ImplicitTLS, o.Deny = serverTLS(t), true, networks("0.0.0.0/0")
	}), directAddress)
	if rest := c.wantEnd(); rest != "" {
		t.Errorf("in the clear where TLS is expected: %q", rest)
	}
	if _, err := New(Options{Hostname: "mx.example.org", Backend: &backend{}, ImplicitTLS: true}); err == nil {
		t.Error("implicit TLS without TLS")
	}
}

func trusting(o *Options) { o.XClient, o.Limits.BadCommands = networks("10.0.0.0/8"), 100 }

// TestXC1: who may say for whom it speaks.
func TestXC1(t *testing.T) {
	t.Parallel()
	b := &backend{}
	c := dialFrom(t, newTestServer(t, b, trusting), directAddress) // nobody we know
	c.want("220")
	c.send("EHLO x\r\n")
	if r := c.reply(); strings.Contains(r, "XCLIENT") || strings.Contains(r, "XFORWARD") {
		t.Errorf("offered: %s", r)
	}
	c.do("XCLIENT ADDR=127.0.0.1 LOGIN=admin => 500 5.5.2", "XFORWARD ADDR=127.0.0.1 => 500 5.5.2", "NOOP => 250")
	c.quit()
	if p := b.mu.peers[0]; p.Remote.String() != directAddress || p.XClientLogin != "" || len(b.mu.peers) != 1 {
		t.Errorf("%+v", p)
	}

	b = &backend{}
	c = dialFrom(t, newTestServer(t, b, trusting), "10.0.0.7:4000")
	c.want("220")
	c.send("EHLO x\r\n")
	if r := c.reply(); !strings.Contains(r, "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT") || !strings.Contains(r, "XFORWARD") {
		t.Errorf("not offered: %s", r)
	}
	for _, bad := range []string{
		"XCLIENT", "XCLIENT ADDR", "XCLIENT ADDR=", "XCLIENT ADDR=999.1.1.1", "XCLIENT ADDR=127.0.0.1 ADDR=127.0.0.2", "XCLIENT FOO=x",
		"XCLIENT LOGIN=a+0D+0AMAIL", "XCLIENT LOGIN=a+00b", "XCLIENT LOGIN=a+1B[31m", "XCLIENT NAME=a+0Ab", "XCLIENT LOGIN=+zz", "XCLIENT LOGIN=+ff",
		"XCLIENT PORT=70000", "XCLIENT PORT=x", "XCLIENT PROTO=LMTP", "XCLIENT LOGIN=" + strings.Repeat("x", 256), "XCLIENT ADDR=fe80::1%eth0",
		"XCLIENT DESTADDR=x", "XFORWARD IDENT=a+0D+0Ab", "XFORWARD", "XFORWARD LOGIN=x",
	} {
		c.do(bad + " => 501 5.5.4")
	}
	c.do("MAIL FROM:<a@example.org> => 250", "XCLIENT ADDR=192.0.2.1 => 503", "XFORWARD ADDR=192.0.2.1 => 503", "RSET => 250")
	c.do("XFORWARD NAME=client.example ADDR=192.0.2.1 IDENT=abc SOURCE=REMOTE => 250")
	c.do("XCLIENT ADDR=192.0.2.1 PORT=77 LOGIN=joe+2Bx NAME=[UNAVAILABLE] HELO=a.example PROTO=ESMTP DESTADDR=IPV6:2001:db8::5 DESTPORT=25 => 220 mx")
	c.do("MAIL FROM:<a@example.org> => 503") // it is the greeting
	c.do("EHLO y => 250", "MAIL FROM:<a@example.org> => 250", "RCPT TO:<b@example.net> => 250", "DATA => 354")
	c.send(".\r\n")
	c.want("250")
	c.do("XCLIENT ADDR=[TEMPUNAVAIL] LOGIN=[UNAVAILABLE] => 220", "NOOP => 250")
	c.quit()
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.mu.peers[len(b.mu.peers)-1] // one struct, set anew
	if len(b.mu.peers) != 3 || b.mu.closes != 3 || p.Remote.Addr().IsValid() || p.Via.String() != "10.0.0.7:4000" || p.XClientLogin != "" {
		t.Errorf("%d peers, %d closes, %+v", len(b.mu.peers), b.mu.closes, p)
	}
}

// seenPeers is a backend that copies what it is told of its peers.
type seenPeers struct {
	*backend
	seen []Peer
}

func (b *seenPeers) NewSession(ctx context.Context, p *Peer) (Session, smtp.Reply) {
	b.seen = append(b.seen, *p)
	return b.backend.NewSession(ctx, p)
}

// TestXC1Counts: limits and access count the claimed and the real address.
func TestXC1Counts(t *testing.T) {
	t.Parallel()
	b := &seenPeers{backend: &backend{}}
	s := newTestServer(t, b, func(o *Options) {
		trusting(o)
		o.Limits.SessionsPerClient = 2
		o.Deny = networks("192.0.2.128/25")
	})
	var open []*client
	for _, claim := range []string{"192.0.2.1", "192.0.2.1"} {
		c := dialFrom(t, s, "10.0.0.7:4000")
		c.want("220")
		c.do("XCLIENT ADDR=" + claim + " LOGIN=joe => 220")
		open = append(open, c)
	}
	if p := b.seen[1]; p.Remote.Addr().String() != "192.0.2.1" || p.XClientLogin != "joe" || p.Via.Addr().String() != "10.0.0.7" || p.Hello != "" {
		t.Errorf("%+v", p)
	}
	c := dialFrom(t, s, "10.0.0.7:4000") // the real one has no place left
	c.want("421 4.7.0")
	c = dialFrom(t, s, "10.0.0.8:4000") // another has, but not for this client
	c.want("220")
	c.do("XCLIENT ADDR=192.0.2.1 => 421 4.7.0")
	c.wantEnd()
	c = dialFrom(t, s, "10.0.0.9:4000")
	c.want("220")
	c.do("XCLIENT ADDR=192.0.2.200 => 554 5.7.1")
	c.wantEnd()
	for _, c := range open {
		c.quit()
		<-c.done
	}
}

// TestXClientBehindProxy: the proxy's claim decides who is trusted, not the proxy's own address.
func TestXClientBehindProxy(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, &backend{}, func(o *Options) { behindProxy(o); trusting(o) })
	c := dialFrom(t, s, proxyAddress)
	c.send(string(claimed.AppendV1(nil)))
	c.want("220")
	c.do("EHLO x => 250", "XCLIENT ADDR=127.0.0.1 => 500")
	c.quit()
}

// TestXClientCertificate: who speaks for another does not lend it its certificate.
func TestXClientCertificate(t *testing.T) {
	t.Parallel()
	b := &seenPeers{backend: &backend{}}
	config := serverTLS(t)
	config.ClientAuth = tls.RequireAnyClientCert
	c := dialFrom(t, newTestServer(t, b, func(o *Options) {
		trusting(o)
		o.TLS, o.ImplicitTLS = config, true
	}), "10.0.0.7:4000")
	mine := clientTLS(t)
	mine.Certificates = config.Certificates
	c.secure(mine)
	c.want("220")
	c.do("XCLIENT ADDR=192.0.2.1 => 220")
	c.quit()
	if n := len(b.seen[0].TLS.PeerCertificates); n != 1 {
		t.Errorf("%d certificates of the peer itself", n)
	}
	if p := b.seen[1]; p.TLS == nil || len(p.TLS.PeerCertificates) != 0 {
		t.Errorf("the client has a certificate: %+v", p)
	}
}
