package smtptest

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"
)

func TestPipe(t *testing.T) {
	t.Parallel()
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		c1, c2 = Pipe()
		return c1, c2, func() { _, _ = c1.Close(), c2.Close() }, nil
	})
}

// TestPipeBuffers: what TCP does and net.Pipe does not.
func TestPipeBuffers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe()
		if n, err := a.Write(make([]byte, pipeBuffer)); n != pipeBuffer || err != nil {
			t.Fatal(n, err)
		}
		start := time.Now()
		_ = a.SetWriteDeadline(start.Add(time.Minute))
		if n, err := a.Write([]byte("x")); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Minute {
			t.Error(n, err, time.Since(start))
		}
		_ = a.Close()
		if got, err := io.ReadAll(b); len(got) != pipeBuffer || err != nil {
			t.Error(len(got), err)
		}
		if _, err := b.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
			t.Error(err)
		}
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		_ = b.Close()
	})
}

func TestHistogram(t *testing.T) {
	t.Parallel()
	var h, other histogram
	if h.quantile(0.5) != 0 {
		t.Error("of nothing")
	}
	for i := 1; i <= 10_000; i++ {
		if i%2 == 0 {
			h.add(time.Duration(i) * 10 * time.Microsecond)
		} else {
			other.add(time.Duration(i) * 10 * time.Microsecond)
		}
	}
	h.merge(&other)
	for _, q := range []float64{0.001, 0.01, 0.5, 0.95, 0.99, 1} {
		exact := time.Duration(q*10_000) * 10 * time.Microsecond
		if got := h.quantile(q); got < exact || float64(got) > 1.02*float64(exact)+1000 {
			t.Errorf("%v: %s, exactly %s", q, got, exact)
		}
	}
	if h.longest != 100*time.Millisecond || h.n != 10_000 {
		t.Error(h.longest, h.n)
	}
	last := -1
	for d := time.Duration(0); d < 38*time.Hour; d = d*5/4 + time.Microsecond {
		i := bucketOf(d)
		if i < last || upperEdge(i) < d {
			t.Fatalf("%s lies in %d, which ends at %s", d, i, upperEdge(i))
		}
		last = i
	}
	if bucketOf(-1) != 0 || bucketOf(1<<62) >= len(h.buckets) {
		t.Error("out of bounds")
	}
}
