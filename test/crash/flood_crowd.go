package crash

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// crowd is many clients at once. They come from 127.0.6.1 and following addresses, so that there are ports for all.
type crowd struct {
	address string
	secure  *tls.Config // nil: no TLS
	next    atomic.Int64

	mu    sync.Mutex
	conns []net.Conn
}

// connect opens one connection and keeps it in the crowd.
func (c *crowd) connect(ctx context.Context) (net.Conn, error) {
	d := net.Dialer{
		Timeout: patience, KeepAlive: -1,
		LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 6, byte(1+c.next.Add(1)%40))},
	}
	nc, err := d.DialContext(ctx, "tcp", c.address)
	if err != nil {
		return nil, err
	}
	if c.secure != nil {
		t := tls.Client(nc, c.secure)
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(err, nc.Close())
		}
		nc = t
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conns = append(c.conns, nc)
	return nc, nil
}

// gather opens n connections, some at a time, and lets each say hello if told to.
func (c *crowd) gather(ctx context.Context, n int, hello bool) error {
	var left atomic.Int64
	left.Store(int64(n))
	var all sync.WaitGroup
	errs := make([]error, 32)
	for i := range errs {
		all.Go(func() {
			r := bufio.NewReaderSize(nil, 512)
			for left.Add(-1) >= 0 && errs[i] == nil {
				nc, err := c.connect(ctx)
				if err == nil && hello {
					r.Reset(nc)
					err = (&session{nc: nc, r: r}).greet("crowd.example")
				}
				errs[i] = err
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// greet reads the greeting and says hello.
func (s *session) greet(hello string) error {
	for _, command := range []string{"", "EHLO " + hello + "\r\n"} {
		r, err := s.ask(command)
		if err != nil {
			return err
		}
		if !r.positive() {
			return fmt.Errorf("greeting: %d %s", r.code, r.text)
		}
	}
	return nil
}

// disperse closes all connections.
func (c *crowd) disperse() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, nc := range c.conns {
		_ = nc.Close() // the server may have closed it
	}
	c.conns = nil
}

// awaitEnds waits until the server has closed every connection, and returns when the first and the last were, after
// since; left is how many are open at the end of the limit.
func (c *crowd) awaitEnds(since time.Time, limit time.Duration) (first, last time.Duration, left int) {
	c.mu.Lock()
	conns := slices.Clone(c.conns)
	c.mu.Unlock()
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, nc := range conns {
		all.Go(func() {
			_ = nc.SetReadDeadline(since.Add(limit))
			_, err := io.Copy(io.Discard, nc)
			at := time.Since(since)
			mu.Lock()
			defer mu.Unlock()
			if errors.Is(err, os.ErrDeadlineExceeded) {
				left++
				return
			}
			if first == 0 || at < first {
				first = at
			}
			last = max(last, at)
		})
	}
	all.Wait()
	return first, last, left
}

// banners measures for so long how quickly new clients are greeted, and returns the times in order.
func (r *rig) banners(ctx context.Context, span time.Duration) (waits []time.Duration, failed int) {
	for end := time.Now().Add(span); time.Now().Before(end) && ctx.Err() == nil; pause(ctx, 20*time.Millisecond) {
		begin := time.Now()
		nc, err := net.DialTimeout("tcp", r.address, 2*time.Second)
		if err != nil {
			failed++
			continue
		}
		_ = nc.SetReadDeadline(time.Now().Add(2 * time.Second))
		line := make([]byte, 4)
		if _, err := io.ReadFull(nc, line); err != nil || string(line) != "220 " {
			failed++
		}
		waits = append(waits, time.Since(begin))
		_ = nc.Close()
	}
	slices.Sort(waits)
	return waits, failed
}

func quantileOf(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// cpu returns how much processor time the process has used.
func (p *process) cpu() (time.Duration, error) {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), "stat"))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // the name may hold anything
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, errors.New("/proc/PID/stat is short")
	}
	var ticks int64
	for _, f := range fields[11:13] { // utime and stime, in hundredths of a second
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// background is mail that goes on while something else happens.
type background struct {
	r    *rig
	stop context.CancelFunc
	done chan *fed
}

// traffic submits mail to good.example at a rate until it is ended.
func (r *rig) traffic(ctx context.Context, name string, rate float64) *background {
	ctx, cancel := context.WithCancel(ctx)
	b := &background{r: r, stop: cancel, done: make(chan *fed, 1)}
	go func() {
		b.done <- r.feed(ctx, feed{
			name: name, sessions: 8, rate: rate, to: func(int) []string { return []string{"user@good.example"} },
		})
	}()
	return b
}

func (b *background) end(what string) *fed {
	b.stop()
	sum := <-b.done
	b.r.v.note("mail %s: %s", what, sum)
	return sum
}

func goodWorld() []*provider { return []*provider{{domain: "good.example", address: "127.0.3.1"}} }
