package smtptest

import (
	"context"
	"net"
	"sync"
	"testing"
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
