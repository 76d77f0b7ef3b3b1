package smtpclient_test

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/smtpclient"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// answering is a connection whose peer answers at once, without a goroutine or a copy: what is measured is the client
// alone. It tells by the last octets of a write what is to be answered.
type answering struct {
	net.Conn
	queue  []byte
	writes int
}

func (a *answering) Write(p []byte) (int, error) {
	a.writes++
	switch {
	case bytes.HasPrefix(p, []byte("EHLO")):
		a.queue = append(a.queue, "250-x\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE 50000000\r\n250 CHUNKING\r\n"...)
	case bytes.HasPrefix(p, []byte("MAIL")):
		a.queue = append(a.queue, "250 2.1.0 ok\r\n250 2.1.5 ok\r\n"...)
		if bytes.HasSuffix(p, []byte("DATA\r\n")) {
			a.queue = append(a.queue, "354 go\r\n"...)
		} else if len(p) > 1000 {
			a.queue = append(a.queue, "250 2.0.0 queued as 4bXkQ3\r\n"...)
		}
	default:
		a.queue = append(a.queue, "250 2.0.0 queued as 4bXkQ3\r\n"...)
	}
	return len(p), nil
}

func (a *answering) Read(p []byte) (int, error) {
	n := copy(p, a.queue)
	a.queue = a.queue[:copy(a.queue, a.queue[n:])]
	return n, nil
}

func (a *answering) Close() error                     { return nil }
func (a *answering) SetDeadline(time.Time) error      { return nil }
func (a *answering) SetReadDeadline(time.Time) error  { return nil }
func (a *answering) SetWriteDeadline(time.Time) error { return nil }

func tenKB() *smtp.Body {
	return smtp.BodyOf([]byte("Subject: ten\r\n\r\n" + strings.Repeat(strings.Repeat("x", 76)+"\r\n", 131)))
}

func benchmarkWays() map[string]smtpclient.Options {
	return map[string]smtpclient.Options{
		"bdat": {}, "late bdat": {Eager: -1}, "data": {NoChunking: true},
	}
}

// BenchmarkSendAlone is the client's own cost of a 10 KB message on a kept session.
func BenchmarkSendAlone(b *testing.B) {
	for name, o := range benchmarkWays() {
		b.Run(name, func(b *testing.B) {
			conn := &answering{queue: []byte("220 hi\r\n")}
			c := smtpclient.New(conn, o)
			if err := c.Start(b.Context()); err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			tx := message("x", 1, "")
			tx.Body = tenKB()
			b.ReportAllocs()
			conn.writes = 0
			for b.Loop() {
				if err := c.Send(ctx, tx); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(conn.writes)/float64(b.N), "writes/op")
		})
	}
}

// BenchmarkSendLoopback is a 10 KB message over a kept TCP session to a sink that counts: both sides and the kernel.
func BenchmarkSendLoopback(b *testing.B) {
	for name, o := range benchmarkWays() {
		b.Run(name, func(b *testing.B) {
			sink, err := smtptest.NewSink(smtptest.SinkOptions{})
			if err != nil {
				b.Fatal(err)
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			ended := make(chan error, 1)
			go func() { ended <- sink.Run(ctx, l) }()
			defer func() {
				cancel()
				if err := <-ended; err != nil {
					b.Error(err)
				}
			}()
			nc, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			c := smtpclient.New(nc, o)
			if err := c.Start(ctx); err != nil {
				b.Fatal(err)
			}
			tx := message("x", 1, "")
			tx.Body = tenKB()
			b.ReportAllocs()
			for b.Loop() {
				if err := c.Send(ctx, tx); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestSendAllocations holds the kept session to its budget: 10 KB over TCP without a copy and nearly without garbage.
func TestSendAllocations(t *testing.T) {
	for name, o := range benchmarkWays() {
		conn := &answering{queue: []byte("220 hi\r\n")}
		c := smtpclient.New(conn, o)
		if err := c.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		tx := message("x", 1, "")
		tx.Body = tenKB()
		conn.writes = 0
		const most = 4 // what context.AfterFunc takes
		n := testing.AllocsPerRun(100, func() {
			if err := c.Send(ctx, tx); err != nil {
				t.Fatal(err)
			}
		})
		if n > most || float64(conn.writes)/101 > 2 {
			t.Errorf("%s: %v allocations, %d writes for 101 messages", name, n, conn.writes)
		}
		cancel()
	}
}

// BenchmarkSendOverTLS is a 10 KB message on a kept session over TLS on loopback, the peer's share included.
func BenchmarkSendOverTLS(b *testing.B) {
	sink, err := smtptest.NewSink(smtptest.SinkOptions{TLS: serverTLS(b), ImplicitTLS: true})
	if err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- sink.Run(ctx, l) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			b.Error(err)
		}
	}()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	config := trusting.Clone()
	config.DynamicRecordSizingDisabled = true
	c := smtpclient.New(nc, smtpclient.Options{ImplicitTLS: config})
	if err := c.Start(ctx); err != nil {
		b.Fatal(err)
	}
	tx := message("x", 1, "")
	tx.Body = tenKB()
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Send(ctx, tx); err != nil {
			b.Fatal(err)
		}
	}
	_ = c.Close()
}
