package smtpserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/godwit-mta/godwit/smtp"
)

// memoryConn is one end of a connection in memory: two buffers, a lock and a condition each. Unlike net.Pipe it does
// not allocate for deadlines, which it ignores, and lets a write return before it is read, as a socket does.
type memoryConn struct{ in, out *memoryBuffer }

type memoryBuffer struct {
	mu     sync.Mutex
	change sync.Cond
	buf    []byte
	r, w   int
	closed bool
}

func memoryPipe() (net.Conn, net.Conn) {
	a, b := newMemoryBuffer(), newMemoryBuffer()
	return &memoryConn{a, b}, &memoryConn{b, a}
}

func newMemoryBuffer() *memoryBuffer {
	m := &memoryBuffer{buf: make([]byte, 256<<10)}
	m.change.L = &m.mu
	return m
}

func (m *memoryBuffer) Read(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.r == m.w {
		if m.closed {
			return 0, io.EOF
		}
		m.change.Wait()
	}
	n := copy(p, m.buf[m.r:m.w])
	if m.r += n; m.r == m.w {
		m.r, m.w = 0, 0
	}
	m.change.Signal()
	return n, nil
}

func (m *memoryBuffer) Write(p []byte) (n int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for n < len(p) {
		if m.closed {
			return n, io.ErrClosedPipe
		}
		if m.w == len(m.buf) {
			m.change.Wait()
			continue
		}
		k := copy(m.buf[m.w:], p[n:])
		m.w += k
		n += k
		m.change.Signal()
	}
	return n, nil
}

func (m *memoryBuffer) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.change.Broadcast()
}

func (c *memoryConn) Read(p []byte) (int, error)  { return c.in.Read(p) }
func (c *memoryConn) Write(p []byte) (int, error) { return c.out.Write(p) }
func (c *memoryConn) Close() error                { c.in.Close(); c.out.Close(); return nil }
func (c *memoryConn) LocalAddr() net.Addr         { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 25} }
func (c *memoryConn) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4025}
}
func (c *memoryConn) SetDeadline(time.Time) error      { return nil }
func (c *memoryConn) SetReadDeadline(time.Time) error  { return nil }
func (c *memoryConn) SetWriteDeadline(time.Time) error { return nil }

// acceptAll is a backend that takes everything and keeps nothing.
type acceptAll struct{}

var queued = smtp.Reply{Code: 250, Enhanced: smtp.EnhancedCode{Class: 2}, Text: "queued"}

func (acceptAll) NewSession(context.Context, *Peer) (Session, smtp.Reply) {
	return acceptAll{}, smtp.Reply{}
}
func (acceptAll) Mail(context.Context, *smtp.Sender) smtp.Reply { return smtp.Reply{} }
func (acceptAll) Rcpt(context.Context, *smtp.Envelope, *smtp.Recipient) smtp.Reply {
	return smtp.Reply{}
}
func (acceptAll) Data(context.Context, *smtp.Envelope, *smtp.Body) smtp.Reply { return queued }
func (acceptAll) Reset()                                                      {}
func (acceptAll) Close()                                                      {}

// message is a text of about size octets in lines of 76.
func benchMessage(size int) []byte {
	var b bytes.Buffer
	b.WriteString("From: a@example.org\r\nTo: b@example.net\r\nSubject: test\r\n\r\n")
	for b.Len() < size-78 {
		b.WriteString(strings.Repeat("x", 76) + "\r\n")
	}
	return b.Bytes()
}

// cpuTime is the processor time of the whole process, so of both ends of the connection.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkMessage sends pipelined transactions over one session in memory. cpu-us/op counts both ends.
func BenchmarkMessage(b *testing.B) {
	for _, size := range []int{1 << 10, 10 << 10, 100 << 10} {
		body := benchMessage(size)
		envelope := "MAIL FROM:<sender@example.org> SIZE=10240\r\nRCPT TO:<recipient@example.net>\r\n"
		b.Run(fmt.Sprintf("DATA/%dK", size>>10), func(b *testing.B) {
			benchmarkSession(b, body, func(conn net.Conn, in []byte) {
				write(b, conn, []byte(envelope+"DATA\r\n"))
				readReplies(b, conn, in, 3)
				write(b, conn, body)
				write(b, conn, []byte(".\r\n"))
				readReplies(b, conn, in, 1)
			})
		})
		b.Run(fmt.Sprintf("BDAT/%dK", size>>10), func(b *testing.B) {
			all := fmt.Appendf(nil, "%sBDAT %d LAST\r\n%s", envelope, len(body), body)
			benchmarkSession(b, body, func(conn net.Conn, in []byte) {
				write(b, conn, all)
				readReplies(b, conn, in, 3)
			})
		})
	}
}

// BenchmarkMessageTLS is BenchmarkMessage in TLS 1.3.
func BenchmarkMessageTLS(b *testing.B) {
	for _, size := range []int{1 << 10, 10 << 10, 100 << 10} {
		body := append(benchMessage(size), ".\r\n"...)
		envelope := []byte("MAIL FROM:<sender@example.org> SIZE=10240\r\nRCPT TO:<recipient@example.net>\r\nDATA\r\n")
		b.Run(fmt.Sprintf("DATA/%dK", size>>10), func(b *testing.B) {
			benchmarkSessionOf(b, Options{TLS: serverTLS(b), ImplicitTLS: true}, body, func(conn net.Conn, in []byte) {
				write(b, conn, envelope)
				readReplies(b, conn, in, 3)
				write(b, conn, body)
				readReplies(b, conn, in, 1)
			})
		})
	}
}

func benchmarkSession(b *testing.B, body []byte, message func(conn net.Conn, in []byte)) {
	benchmarkSessionOf(b, Options{}, body, message)
}

func benchmarkSessionOf(b *testing.B, o Options, body []byte, message func(conn net.Conn, in []byte)) {
	o.Hostname, o.Backend = "mx.example.org", acceptAll{}
	s, err := New(o)
	if err != nil {
		b.Fatal(err)
	}
	near, far := memoryPipe()
	var served sync.WaitGroup
	served.Go(func() { s.ServeConn(b.Context(), far) })
	if o.TLS != nil {
		near = tls.Client(near, clientTLS(b))
	}
	in := make([]byte, 4<<10)
	readReplies(b, near, in, 1)
	write(b, near, []byte("EHLO client.example\r\n"))
	readReplies(b, near, in, 1)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	runtime.GC()
	cpu := cpuTime()
	for b.Loop() {
		message(near, in)
	}
	b.ReportMetric(float64((cpuTime()-cpu).Nanoseconds())/1e3/float64(b.N), "cpu-us/op")
	_ = near.Close()
	served.Wait()
}

func write(b testing.TB, c net.Conn, p []byte) {
	if _, err := c.Write(p); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkTCP is BenchmarkMessage over loopback with 50 sessions at once, system calls and all.
func BenchmarkTCP(b *testing.B) {
	s, err := New(Options{Hostname: "mx.example.org", Backend: acceptAll{}})
	if err != nil {
		b.Fatal(err)
	}
	address, stop := serve(b, s)
	defer stop()
	body := append(benchMessage(10<<10), ".\r\n"...)
	envelope := []byte("MAIL FROM:<sender@example.org> SIZE=10240\r\nRCPT TO:<recipient@example.net>\r\nDATA\r\n")
	b.SetBytes(int64(len(body)))
	b.SetParallelism(50 / runtime.GOMAXPROCS(0))
	b.ReportAllocs()
	cpu := cpuTime()
	b.RunParallel(func(pb *testing.PB) {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			b.Error(err)
			return
		}
		defer conn.Close()
		in := make([]byte, 4<<10)
		readReplies(b, conn, in, 1)
		write(b, conn, []byte("EHLO client.example\r\n"))
		readReplies(b, conn, in, 1)
		for pb.Next() {
			write(b, conn, envelope)
			readReplies(b, conn, in, 3)
			write(b, conn, body)
			readReplies(b, conn, in, 1)
		}
	})
	b.ReportMetric(float64((cpuTime()-cpu).Nanoseconds())/1e3/float64(b.N), "cpu-us/op")
}

// readReplies reads n replies, whose last lines have a space behind the code.
func readReplies(b testing.TB, c net.Conn, buf []byte, n int) {
	got := 0
	for {
		k, err := c.Read(buf[got:])
		if err != nil {
			b.Fatal(err)
		}
		got += k
		have, rest := 0, buf[:got]
		for {
			i := bytes.IndexByte(rest, '\n')
			if i < 0 {
				break
			}
			if rest[3] == ' ' {
				have++
			}
			if rest[0] != '2' && rest[0] != '3' {
				b.Fatalf("reply %q", rest[:i])
			}
			rest = rest[i+1:]
		}
		if have == n {
			return
		}
	}
}

// BenchmarkScan is the cost of looking at each octet of a message once.
func BenchmarkScan(b *testing.B) {
	l := Limits{}.withDefaults()
	for _, bench := range []struct {
		name string
		body []byte
	}{
		{"plain", benchMessage(10 << 10)},
		{"dots", bytes.Repeat([]byte("..dot\r\n"), 1463)},
	} {
		b.Run(bench.name, func(b *testing.B) {
			p := make([]byte, len(bench.body))
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				copy(p, bench.body)
				c := scanner{stuffed: true, limits: &l}
				c.scan(p)
				if c.flaw != flawNone {
					b.Fatal(c.flaw)
				}
			}
		})
	}
}
