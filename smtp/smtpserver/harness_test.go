package smtpserver

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/godwit-mta/godwit/smtp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// received is a message as the backend got it.
type received struct {
	env  smtp.Envelope
	body string
	flag string // "8" eight-bit, "." dot line
}

// backend records what it is told and answers as its functions say; nil functions accept.
type backend struct {
	onSession func(p *Peer) smtp.Reply
	onMail    func(from *smtp.Sender) smtp.Reply
	onRcpt    func(rcpt *smtp.Recipient) smtp.Reply
	onData    func(ctx context.Context, env *smtp.Envelope, body *smtp.Body) smtp.Reply

	mu struct {
		sync.Mutex
		messages []received
		peers    []*Peer
		resets   int
		closes   int
	}
}

func (b *backend) NewSession(_ context.Context, p *Peer) (Session, smtp.Reply) {
	if b.onSession != nil {
		if r := b.onSession(p); !r.IsZero() {
			return nil, r
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.peers = append(b.mu.peers, p)
	return &backendSession{b: b}, smtp.Reply{}
}

type backendSession struct{ b *backend }

func (s *backendSession) Mail(_ context.Context, from *smtp.Sender) smtp.Reply {
	if s.b.onMail != nil {
		return s.b.onMail(from)
	}
	return smtp.Reply{}
}

func (s *backendSession) Rcpt(_ context.Context, _ *smtp.Envelope, rcpt *smtp.Recipient) smtp.Reply {
	if s.b.onRcpt != nil {
		return s.b.onRcpt(rcpt)
	}
	return smtp.Reply{}
}

func (s *backendSession) Data(ctx context.Context, env *smtp.Envelope, body *smtp.Body) smtp.Reply {
	if s.b.onData != nil {
		if r := s.b.onData(ctx, env, body); !r.IsZero() {
			return r
		}
	}
	m := received{env: *env, body: bodyText(body)}
	if body.EightBit {
		m.flag += "8"
	}
	if body.DotLine {
		m.flag += "."
	}
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	s.b.mu.messages = append(s.b.mu.messages, m)
	return smtp.Reply{Code: 250, Enhanced: smtp.EnhancedCode{Class: 2}, Text: "queued"}
}

func (s *backendSession) Reset() {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	s.b.mu.resets++
}

func (s *backendSession) Close() {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	s.b.mu.closes++
}

func (b *backend) messages() []received {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.messages
}

func bodyText(b *smtp.Body) string {
	p, _ := io.ReadAll(b.Reader())
	return string(p)
}

// newTestServer makes a server whose log must stay free of control octets.
func newTestServer(t testing.TB, b Backend, change func(o *Options)) *Server {
	t.Helper()
	log := slog.NewTextHandler(&cleanWriter{t: t}, &slog.HandlerOptions{Level: LevelTranscript})
	o := Options{Hostname: "mx.example.org", Backend: b, Logger: slog.New(log)}
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

type cleanWriter struct{ t testing.TB }

func (w *cleanWriter) Write(p []byte) (int, error) {
	line := bytes.TrimSuffix(p, []byte("\n"))
	for _, c := range line {
		if c < ' ' || c == 0x7f {
			w.t.Errorf("log line has raw control octets: %q", p)
			break
		}
	}
	return len(p), nil
}

func newReader(c net.Conn) *bufio.Reader { return bufio.NewReader(c) }

// client speaks to a server over a pipe, as a script.
type client struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
	done chan struct{}
}

// dial serves one session over a pipe and reads the greeting.
func dial(t testing.TB, s *Server) *client {
	t.Helper()
	c := dialSilent(t, s)
	c.want("220")
	return c
}

func dialSilent(t testing.TB, s *Server) *client {
	t.Helper()
	near, far := net.Pipe()
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

// send writes text without waiting for anything but the server's reading.
func (c *client) send(text string) {
	c.t.Helper()
	if _, err := c.conn.Write([]byte(text)); err != nil {
		c.t.Fatalf("sending %.60q: %v", text, err)
	}
}

// reply reads one reply; its lines are joined by LF, without CRLF.
func (c *client) reply() string {
	c.t.Helper()
	var lines []string
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			c.t.Fatalf("reading a reply after %q: %v", lines, err)
		}
		line, ok := strings.CutSuffix(line, "\r\n")
		if !ok || len(line) < 4 {
			c.t.Fatalf("reply line %q", line)
		}
		lines = append(lines, line)
		if line[3] == ' ' {
			return strings.Join(lines, "\n")
		}
	}
}

// want reads a reply for each prefix.
func (c *client) want(prefixes ...string) {
	c.t.Helper()
	for _, p := range prefixes {
		if got := c.reply(); !strings.HasPrefix(got, p) {
			c.t.Fatalf("reply %q, want %s", got, p)
		}
	}
}

// do sends lines, each as a command of its own, and wants the reply behind " => ".
func (c *client) do(script ...string) {
	c.t.Helper()
	for _, step := range script {
		line, want, _ := strings.Cut(step, " => ")
		c.send(line + "\r\n")
		if got := c.reply(); !strings.HasPrefix(got, want) {
			c.t.Fatalf("%q: reply %q, want %s", line, got, want)
		}
	}
}

// wantEnd reads to the end of the connection and returns what else came.
func (c *client) wantEnd() string {
	c.t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	rest, err := io.ReadAll(c.r)
	if err != nil {
		c.t.Fatalf("session did not end: %v (%q)", err, rest)
	}
	return string(rest)
}

// hello, and the envelope of a message.
func (c *client) hello() { c.do("EHLO client.example => 250") }

func (c *client) envelope() {
	c.t.Helper()
	c.do("MAIL FROM:<a@example.org> => 250 2.1.0", "RCPT TO:<b@example.net> => 250 2.1.5")
}

func (c *client) quit() {
	c.t.Helper()
	c.do("QUIT => 221 2.0.0")
	c.wantEnd()
}

func lines(n, width int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%0*d\r\n", width, i)
	}
	return b.String()
}

// replyWith answers the data with a code of its own, but for 250.
func replyWith(code int) func(context.Context, *smtp.Envelope, *smtp.Body) smtp.Reply {
	return func(context.Context, *smtp.Envelope, *smtp.Body) smtp.Reply {
		if code == 250 {
			return smtp.Reply{}
		}
		return smtp.Reply{Code: code, Enhanced: smtp.EnhancedCode{Class: uint16(code / 100), Subject: 3}, Text: "no"}
	}
}

// counted is the value of a counter.
func counted(t testing.TB, c prometheus.Collector) float64 {
	t.Helper()
	reg := prometheus.NewRegistry()
	if err := reg.Register(c); err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families[0].GetMetric()[0].GetCounter().GetValue()
}

// held returns the octets of memory that the server's budget counts.
func held(s *Server) int64 {
	received, _, _ := s.options.Memory.Usage()
	return received
}
