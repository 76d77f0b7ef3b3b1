package smtptest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// startSink serves a sink on loopback until the test ends.
func startSink(t testing.TB, o SinkOptions) (*Sink, string) {
	t.Helper()
	sink, err := NewSink(o)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- sink.Run(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return sink, l.Addr().String()
}

func TestLoad(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	sent, got := map[string]bool{}, 0
	sink, addr := startSink(t, SinkOptions{Hash: true, OnMessage: func(m *Received) {
		mu.Lock()
		defer mu.Unlock()
		got++
		if m.Size != 1000 || !m.Replied || !m.Accepted || m.Hash == "" {
			t.Errorf("message %+v", m)
		}
	}})
	result, err := Load(t.Context(), LoadOptions{
		Address: addr, Messages: 300, Size: 1000, Sessions: 7, MessagesPerSession: 10, Rate: 10_000,
		OnResult: func(e LoadEntry) {
			mu.Lock()
			defer mu.Unlock()
			sent[e.Token] = true
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if result.Sent != 300 || result.Accepted != 300 || result.Rejected+result.Failed != 0 || result.FirstError != "" {
		t.Errorf("result %+v", result)
	}
	if result.Latency.P50 <= 0 || result.Latency.P50 > result.Latency.P95 || result.Latency.P99 > result.Latency.Max {
		t.Errorf("latencies %+v", result.Latency)
	}
	if c := sink.Counters(); c.Messages != 300 || c.Octets != 300_000 || c.BadCommands != 0 || c.Deliveries != 300 {
		t.Errorf("counters %+v", c)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(sent) != 300 {
		t.Errorf("%d tokens", len(sent))
	}
}

// TestLoadCounts: accepted, rejected and failed add up, whatever the peer does.
func TestLoadCounts(t *testing.T) {
	t.Parallel()
	_, addr := startSink(t, SinkOptions{Script: Script{SessionMessages: 7, Rules: []Rule{
		{At: AtRcpt, Match: "user1?@*", Reply: "550 5.1.1 unknown"}, // no pattern: matches nobody
		{At: AtRcpt, Match: "user1*@*", Reply: "550 5.1.1 unknown"},
		{At: AtFinal, Match: "*", Skip: 10, Times: 5, Drop: DropFIN},
	}}})
	entries, done := 0, 0
	var mu sync.Mutex
	result, err := Load(t.Context(), LoadOptions{
		Address: addr, Messages: 100, Size: 300, Sessions: 3,
		From: func(i int) string { return map[bool]string{true: "", false: "Jürgen@load.test"}[i%2 == 0] },
		To: func(i int) []string {
			return []string{fmt.Sprintf("user%d@load.test", i), fmt.Sprintf("copy%d@load.test", i)}
		},
		Headers:  func(i int) string { return fmt.Sprintf("X-Number: %d\r\n", i) },
		Progress: func(int) { mu.Lock(); done++; mu.Unlock() },
		OnResult: func(LoadEntry) { mu.Lock(); entries++; mu.Unlock() },
	})
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if result.Sent != 100 || result.Accepted+result.Rejected+result.Failed != 100 || done != 100 || entries != 200 {
		t.Errorf("%+v, %d done, %d entries", result, done, entries)
	}
	// user1 and user10 to user19 are unknown; five drops cost a message each, and a refusal at MAIL (421 after seven)
	// some more.
	if result.Rejected < 11 || result.Failed != 5 || result.FirstError == "" || result.Sessions < 14 {
		t.Errorf("%+v", result)
	}
}

func TestLoadFails(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	synctest.Test(t, func(t *testing.T) {
		dial := func(context.Context) (net.Conn, error) { return nil, errors.New("no route") }
		result, err := Load(t.Context(), LoadOptions{Dial: dial, Messages: 10, Sessions: 2})
		if err == nil || result.Sent != 0 || result.FirstError != "no route" {
			t.Errorf("%+v %v", result, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if _, err := Load(ctx, LoadOptions{Dial: dial}); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		// A rate is kept, and the end of a context ends the load.
		sink := newSink(t, SinkOptions{})
		var serving sync.WaitGroup
		ctx, cancel = context.WithTimeout(t.Context(), 1050*time.Millisecond)
		defer cancel()
		result, err = Load(ctx, LoadOptions{Rate: 10, Messages: 100, Dial: func(context.Context) (net.Conn, error) {
			client, server := Pipe()
			serving.Go(func() { sink.ServeConn(t.Context(), server) })
			return client, nil
		}})
		if result.Accepted != 11 || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%+v %v", result, err)
		}
		serving.Wait()
	})
	if _, err := Load(t.Context(), LoadOptions{Address: l.Addr().String()}); err == nil {
		t.Error("sent to nobody")
	}
	for _, o := range []LoadOptions{{}, {Address: "x", Size: 10}, {Address: "x", Messages: -1}, {Address: "x", Rate: -1}} {
		if _, err := Load(t.Context(), o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	for _, c := range []struct {
		name       string
		noChunking bool
		noPipe     bool
	}{{"bdat", false, false}, {"data", true, false}, {"alone", true, true}} {
		b.Run(c.name, func(b *testing.B) {
			_, addr := startSink(b, SinkOptions{})
			start := time.Now()
			result, err := Load(b.Context(), LoadOptions{
				Address: addr, Messages: b.N, Size: 10 << 10, Sessions: 50,
				NoChunking: c.noChunking, NoPipelining: c.noPipe,
			})
			if err != nil || result.Accepted != b.N {
				b.Fatalf("%+v %v", result, err)
			}
			b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "msg/s")
			b.ReportAllocs()
		})
	}
}

// BenchmarkSink feeds a sink pipelined transactions of 10 KB over one TCP connection, made before: what a sink itself
// can take.
func BenchmarkSink(b *testing.B) {
	body := strings.Repeat(strings.Repeat("x", 76)+"\r\n", 131)
	envelope := "MAIL FROM:<sender@load.test>\r\nRCPT TO:<user@load.test>\r\n"
	for _, c := range []struct {
		name, transaction string
		o                 SinkOptions
	}{
		{"data", envelope + "DATA\r\n" + body + ".\r\n", SinkOptions{}},
		{"bdat", envelope + fmt.Sprintf("BDAT %d LAST\r\n%s", len(body), body), SinkOptions{}},
		{"hash", envelope + fmt.Sprintf("BDAT %d LAST\r\n%s", len(body), body), SinkOptions{Hash: true, OnMessage: func(*Received) {}}},
	} {
		b.Run(c.name, func(b *testing.B) {
			sink, addr := startSink(b, c.o)
			nc, err := net.Dial("tcp", addr)
			if err != nil {
				b.Fatal(err)
			}
			defer nc.Close()
			var reading sync.WaitGroup
			reading.Go(func() { _, _ = io.Copy(io.Discard, nc) })
			if _, err := io.WriteString(nc, "EHLO load.test\r\n"); err != nil {
				b.Fatal(err)
			}
			many := []byte(strings.Repeat(c.transaction, 20))
			b.ReportAllocs()
			b.SetBytes(int64(len(c.transaction)))
			start := time.Now()
			for sent := 0; sent < b.N; sent += 20 {
				if _, err := nc.Write(many[:min(20, b.N-sent)*len(c.transaction)]); err != nil {
					b.Fatal(err)
				}
			}
			if _, err := io.WriteString(nc, "QUIT\r\n"); err != nil {
				b.Fatal(err)
			}
			reading.Wait()
			if n := sink.Counters().Messages; n != int64(b.N) {
				b.Fatalf("%d of %d messages", n, b.N)
			}
			b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "msg/s")
		})
	}
}
