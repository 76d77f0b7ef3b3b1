package smtpserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/godwit-mta/godwit/smtp"
)

// serve runs s on a listener on loopback and returns its address. stop ends it.
func serve(t testing.TB, s *Server) (address string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- s.Serve(ctx, l) }()
	return l.Addr().String(), func() {
		cancel()
		if err := <-result; err != nil {
			t.Errorf("serve: %v", err)
		}
	}
}

func dialTCP(t testing.TB, address string) *client {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return &client{t: t, conn: conn, r: newReader(conn)}
}

func TestServeTCP(t *testing.T) {
	t.Parallel()
	b := &backend{}
	s := newTestServer(t, b, nil)
	address, stop := serve(t, s)
	c := dialTCP(t, address)
	c.want("220 mx.example.org ESMTP")
	c.hello()
	c.envelope()
	c.do("DATA => 354")
	c.send("Subject: x\r\n\r\n" + lines(3000, 70) + ".\r\n")
	c.want("250")
	stop()
	if said, _ := ended(c); !strings.HasPrefix(said, "421 4.3.2") {
		t.Errorf("said %q", said)
	}
	_ = c.conn.Close()
	m := b.messages()
	if len(m) != 1 || m[0].body != "Subject: x\r\n\r\n"+lines(3000, 70) {
		t.Errorf("%d messages", len(m))
	}
	p := b.mu.peers[0]
	if p.Remote.Addr() != netip.MustParseAddr("127.0.0.1") || p.Local.String() != address ||
		len(p.Session) != 10 || p.Hello != "client.example" {
		t.Errorf("peer %+v", p)
	}
	if s.Sessions() != 0 {
		t.Errorf("%d sessions", s.Sessions())
	}
}

// TestLastWordsArrive over TCP though octets of the client were left unread, which makes the kernel reset a connection
// that is just closed.
func TestLastWordsArrive(t *testing.T) {
	t.Parallel()
	address, stop := serve(t, newTestServer(t, &backend{}, nil))
	defer stop()
	for range 20 {
		c := dialTCP(t, address)
		c.send("GET / HTTP/1.1\r\n" + strings.Repeat("X: y\r\n", 5000))
		c.want("220", "554 5.5.0")
		c.wantEnd()
		_ = c.conn.Close()
	}
}

// brokenListener fails as a system without descriptors does (C-2, R-15), then yields one connection at a time.
type brokenListener struct {
	fails   int
	conns   chan net.Conn
	closing sync.Once
	closed  chan struct{}
	calls   atomic.Int64
}

func (l *brokenListener) Accept() (net.Conn, error) {
	l.calls.Add(1)
	if l.fails > 0 {
		l.fails--
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *brokenListener) Close() error   { l.closing.Do(func() { close(l.closed) }); return nil }
func (l *brokenListener) Addr() net.Addr { return &net.TCPAddr{} }

// TestDescriptorsShort: accept fails for a while; the loop neither ends nor spins.
func TestDescriptorsShort(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		l := &brokenListener{fails: 100, conns: make(chan net.Conn), closed: make(chan struct{})}
		s := newTestServer(t, &backend{}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error, 1)
		start := time.Now()
		go func() { result <- s.Serve(ctx, l) }()
		near, far := net.Pipe()
		l.conns <- far
		if took := time.Since(start); took < 90*time.Second || took > 110*time.Second || l.calls.Load() > 102 {
			t.Errorf("%d calls in %v", l.calls.Load(), took)
		}
		c := &client{t: t, conn: near, r: newReader(near)}
		c.want("220")
		c.quit()
		cancel()
		if err := <-result; err != nil {
			t.Errorf("serve: %v", err)
		}

		// And it ends while accept fails.
		l = &brokenListener{fails: 1 << 30, closed: make(chan struct{})}
		ctx, cancel = context.WithCancel(t.Context())
		go func() { result <- s.Serve(ctx, l) }()
		time.Sleep(time.Minute)
		cancel()
		if err := <-result; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
}

// addressed is a connection from an address.
type addressed struct {
	net.Conn
	from string
}

func (a addressed) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(a.from))
}

func TestSessionsPerClient(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newTestServer(t, &backend{}, func(o *Options) { o.Limits.SessionsPerClient = 2 })
		connect := func(from string) *client {
			near, far := net.Pipe()
			c := &client{t: t, conn: near, r: newReader(near), done: make(chan struct{})}
			go func() { defer close(c.done); s.ServeConn(t.Context(), addressed{far, from}) }()
			return c
		}
		var open []*client
		for _, step := range []struct{ from, want string }{
			{"192.0.2.1:1", "220"}, {"[::ffff:192.0.2.1]:2", "220"}, {"192.0.2.1:3", "421 4.7.0"},
			{"192.0.2.2:1", "220"}, {"[2001:db8:0:1::1]:1", "220"}, {"[2001:db8:0:1:ffff::2]:1", "220"},
			{"[2001:db8:0:1::3]:1", "421 4.7.0"}, {"[2001:db8:0:2::1]:1", "220"},
		} {
			c := connect(step.from)
			c.want(step.want)
			if step.want == "220" {
				open = append(open, c)
			} else {
				c.wantEnd()
			}
		}
		if s.Sessions() != 6 {
			t.Errorf("%d sessions", s.Sessions())
		}
		open[0].quit()
		<-open[0].done
		again := connect("192.0.2.1:9")
		again.want("220")
		for _, c := range append(open[1:], again) {
			c.quit()
			<-c.done
		}
		if len(s.gate.mu.clients) != 0 || s.Sessions() != 0 {
			t.Errorf("%d sessions, clients %v", s.Sessions(), s.gate.mu.clients)
		}
	})
}

// TestPanic costs its session and nothing else, wherever it comes from.
func TestPanic(t *testing.T) {
	t.Parallel()
	var where string
	b := &backend{
		onSession: func(*Peer) smtp.Reply { return panicIf(where == "session") },
		onMail:    func(*smtp.Sender) smtp.Reply { return panicIf(where == "mail") },
		onRcpt:    func(*smtp.Recipient) smtp.Reply { return panicIf(where == "rcpt") },
		onData:    func(context.Context, *smtp.Envelope, *smtp.Body) smtp.Reply { return panicIf(where == "data") },
	}
	s := newTestServer(t, b, nil)
	bystander := dial(t, s)
	bystander.hello()
	for _, where = range []string{"session", "mail", "rcpt", "data"} {
		c := dialSilent(t, s)
		script := "EHLO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\nx\r\n.\r\n"
		go func() { _, _ = c.conn.Write([]byte(script)) }()
		said, _ := ended(c)
		if !strings.Contains(said, "421 4.3.0") || strings.Count(said, "421") != 1 {
			t.Errorf("%s: said %q", where, said)
		}
		<-c.done
	}
	if s.Sessions() != 1 || held(s) != 0 {
		t.Errorf("%d sessions, %d octets held", s.Sessions(), held(s))
	}
	bystander.do("NOOP => 250")
	bystander.quit()
}

func panicIf(yes bool) smtp.Reply {
	if yes {
		panic("on purpose")
	}
	return smtp.Reply{}
}

func TestClose(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, &backend{}, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	go func() { result <- s.Serve(t.Context(), l) }()
	c := dialTCP(t, l.Addr().String())
	c.want("220")
	c.hello()
	c.envelope()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-result; err != nil {
		t.Errorf("serve: %v", err)
	}
	ended(c)
	_ = c.conn.Close()
	l, err = net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(t.Context(), l); !errors.Is(err, ErrClosed) {
		t.Errorf("serve after close: %v", err)
	}
}

// TestMetrics are registered once, are taken over by the next server of the same name, and count.
func TestMetrics(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	for range 2 {
		for _, name := range []string{"relay", "submission"} {
			c := dial(t, newTestServer(t, &backend{}, func(o *Options) { o.Registerer, o.Name = reg, name }))
			c.hello()
			c.envelope()
			c.do("DATA => 354")
			c.send("x\ny\r\n.\r\n")
			c.want("554")
			c.envelope()
			c.do("DATA => 354")
			c.send("x\r\n.\r\n")
			c.want("250")
			c.quit()
			<-c.done
		}
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		if !strings.Contains(f.GetHelp(), "ris") { // says what a rise means
			t.Errorf("%s: help %q", f.GetName(), f.GetHelp())
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			values[f.GetName()+" "+strings.Join(labels, " ")] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	for name, want := range map[string]float64{
		"godwit_smtpserver_sessions relay":                      0,
		"godwit_smtpserver_sessions_total relay":                2,
		"godwit_smtpserver_session_ends_total quit relay":       2,
		"godwit_smtpserver_messages_total 2xx submission":       2,
		"godwit_smtpserver_messages_total 5xx submission":       2,
		"godwit_smtpserver_message_bytes_total submission":      6,
		"godwit_smtpserver_message_flaws_total bare_lf relay":   2,
		"godwit_smtpserver_replies_total 2xx relay RCPT":        4,
		"godwit_smtpserver_replies_total 3xx relay DATA":        4,
		"godwit_smtpserver_replies_total 2xx submission DATA":   2,
		"godwit_smtpserver_sessions_refused_total all relay":    0,
		"godwit_smtpserver_sessions_refused_total client relay": 0,
	} {
		if got, ok := values[name]; !ok || got != want {
			t.Errorf("%s is %v (%v), want %v", name, got, ok, want)
		}
	}
}

func TestIDs(t *testing.T) {
	t.Parallel()
	var g ids
	g.begin()
	seen := map[string]bool{}
	for range 100000 {
		id := g.next()
		if seen[id] || len(id) != 10 {
			t.Fatalf("id %q", id)
		}
		seen[id] = true
	}
}

// TestClosedSets: each ending, flaw and state has its words.
func TestClosedSets(t *testing.T) {
	t.Parallel()
	words := map[string]bool{}
	for e := range endings {
		words["ending "+farewells[e].word] = farewells[e].word != ""
	}
	for f := range flaws {
		words["flaw "+flaws[f].word] = flaws[f].word != "" && (flaw(f) == flawNone || flaws[f].reply.Class() >= 4)
	}
	for st := range states {
		words["state "+st.String()] = st.String() != ""
	}
	if want := int(endings) + len(flaws) + int(states); len(words) != want {
		t.Errorf("%d words for %d values", len(words), want)
	}
	for w, ok := range words {
		if !ok {
			t.Errorf("%q lacks something", w)
		}
	}
}

// TestIdleSessions measures what an idle session holds: 15,000 must fit at 32 KiB each. The test opens fewer and is in
// memory, so that it needs no descriptors.
func TestIdleSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 1000
		s, err := New(Options{Hostname: "mx.example.org", Backend: acceptAll{}})
		if err != nil {
			t.Fatal(err)
		}
		before := heap()
		var conns []net.Conn
		var wg sync.WaitGroup
		for range n {
			near, far := net.Pipe()
			conns = append(conns, near)
			wg.Go(func() { s.ServeConn(t.Context(), far) })
			buf := make([]byte, 512)
			readReplies(t, near, buf, 1)
			write(t, near, []byte("EHLO client.example\r\n"))
			readReplies(t, near, buf, 1)
			write(t, near, []byte("MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nBDAT 3 LAST\r\nx\r\n"))
			readReplies(t, near, buf, 3)
		}
		synctest.Wait()
		each := (heap() - before) / n
		t.Logf("%d octets for each idle session, stacks and this test's pipes included", each)
		if each > 32<<10 {
			t.Errorf("an idle session holds %d octets", each)
		}
		for _, c := range conns {
			_ = c.Close()
		}
		wg.Wait()
	})
}

func heap() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}

func ExampleServer() {
	s, err := New(Options{Hostname: "mx.example.org", Backend: acceptAll{}})
	if err != nil {
		fmt.Println(err)
		return
	}
	near, far := net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.ServeConn(ctx, far)
	}()
	line, _ := newReader(near).ReadString('\n')
	fmt.Print(line)
	_ = near.Close()
	<-done
	// Output: 220 mx.example.org ESMTP
}
