package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// facts prints a table of what was found and what was aimed at.
type facts struct {
	title string
	lines []string
}

func (f *facts) add(what, aim, format string, args ...any) {
	f.lines = append(f.lines, fmt.Sprintf("| %s | %s | %s |", what, fmt.Sprintf(format, args...), aim))
}

func (f *facts) print(b *bench) {
	fmt.Fprintf(b.out, "### %s\n\n| what | measured | aim |\n|---|--:|--:|\n%s\n\n", f.title, strings.Join(f.lines, "\n"))
}

// acceptRate sends messages over 50 sessions to a server whose sink is down.
func acceptRate(ctx context.Context, s *server, n, size int) (measured, error) {
	var m measured
	before, err := s.cpu()
	if err != nil {
		return m, err
	}
	began := time.Now()
	if m.load, err = smtptest.Load(ctx, smtptest.LoadOptions{
		Address: s.address, Messages: n, Size: size, Sessions: 50,
		To: func(i int) []string { return []string{"user@now" + strconv.Itoa(i%1000) + ".example"} },
	}); err != nil {
		return m, err
	}
	if m.load.Accepted != n {
		return m, fmt.Errorf("%d of %d messages accepted: %s", m.load.Accepted, n, m.load.FirstError)
	}
	m.messages, m.elapsed = n, time.Since(began)
	after, err := s.cpu()
	m.cpu = after - before
	return m, err
}

// emptyRate is acceptRate of a server with nothing in its queue.
func emptyRate(ctx context.Context, b *bench, n, size int) (m measured, err error) {
	dir, err := os.MkdirTemp(b.dir, "growth")
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	down, err := closedPort()
	if err != nil {
		return m, err
	}
	if err := configure(dir, down); err != nil {
		return m, err
	}
	s, err := startServer(ctx, b, dir)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if _, err := acceptRate(ctx, s, 500, size); err != nil {
		return m, err
	}
	return acceptRate(ctx, s, n, size)
}

// listing measures "queue list": every n-th answer in percentiles.
func listing(ctx context.Context, s *server, n int) (p50, p99 time.Duration, err error) {
	took := make([]time.Duration, n)
	for i := range took {
		began := time.Now()
		if _, err := s.api.Queues(ctx, api.QueueQuery{}); err != nil {
			return 0, 0, err
		}
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	return took[n/2], took[n*99/100], nil
}

// deferredJob is a million entries that wait while no sink answers, and then one does.
func deferredJob(ctx context.Context, b *bench) (_ *row, err error) {
	f := filling{entries: pick(b, 1_000_000, 200_000), size: 4 << 10, domains: pick(b, 20_000, 4_000), tenants: 100}
	n := pick(b, 50_000, 15_000)
	table := facts{title: fmt.Sprintf("%s entries of 4 KB deferred, %s domains, %d tenants, sink down",
		grouped(float64(f.entries)), grouped(float64(f.domains)), f.tenants)}
	defer table.print(b) // what is known, however it ends
	empty, err := emptyRate(ctx, b, n, 4<<10)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(b.dir, "growth")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	down, err := closedPort()
	if err != nil {
		return nil, err
	}
	if err := configure(dir, down); err != nil {
		return nil, err
	}
	if err := f.run(ctx, b)(dir + "/data"); err != nil {
		return nil, err
	}
	s, err := startServer(ctx, b, dir)
	if err != nil {
		return nil, err
	}
	stopped := false
	defer func() {
		if !stopped {
			err = errors.Join(err, s.stop())
		}
	}()
	table.add("ready after", "10 s", "%.2f s", s.startup.Seconds())
	if err := standing(ctx, s, &table, "400 MiB"); err != nil {
		return nil, err
	}
	full, err := acceptRate(ctx, s, n, 4<<10)
	if err != nil {
		return nil, err
	}
	table.add("accepted with an empty queue", "", "%.0f/s, %.0f µs CPU", empty.rate(), empty.perMessage())
	table.add("accepted beside them", "80 % of that", "%.0f/s, %.0f µs CPU (%.0f %%)", full.rate(), full.perMessage(),
		100*full.rate()/empty.rate())
	p50, p99, err := listing(ctx, s, 200)
	if err != nil {
		return nil, err
	}
	table.add("queue list, p50 and p99", "300 ms", "%.0f ms, %.0f ms", ms(p50), ms(p99))
	if err := f.drain(ctx, b, s, down, n, &table); err != nil {
		return nil, err
	}
	_, most, err := s.memory()
	if err != nil {
		return nil, err
	}
	table.add("resident at most, to the end", "", "%d MiB", most>>20)
	stopped = true
	return nil, s.stop()
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// standing lets the server stand for a while and notes its memory and what it does then.
func standing(ctx context.Context, s *server, table *facts, aim string) error {
	before, err := s.cpu()
	if err != nil {
		return err
	}
	const while = 20 * time.Second
	select {
	case <-time.After(while):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	after, err := s.cpu()
	if err != nil {
		return err
	}
	now, most, err := s.memory()
	if err != nil {
		return err
	}
	table.add("resident, and at most since the start", aim, "%d MiB, %d MiB", now>>20, most>>20)
	table.add("CPU used while nothing happens", "", "%.1f %%", 100*(after-before).Seconds()/while.Seconds())
	return nil
}

// drain brings the sink up, asks for every entry to be tried now, and measures how fast and how fairly they leave.
func (f *filling) drain(ctx context.Context, b *bench, s *server, address string, more int, table *facts) (err error) {
	all := int64(f.entries + more)
	byTenant := make([]atomic.Int64, f.tenants)
	var half atomic.Pointer[[]int64]
	var seen atomic.Int64
	var once sync.Once
	sink, err := startSink(address, smtptest.SinkOptions{OnMessage: func(m *smtptest.Received) {
		for _, to := range m.Recipients {
			_, domain, _ := strings.Cut(to, "@deep")
			if d, err := strconv.Atoi(strings.TrimSuffix(domain, ".example")); err == nil {
				byTenant[d%f.tenants].Add(1)
			}
		}
		if seen.Add(1) == all/2 {
			once.Do(func() {
				counts := make([]int64, f.tenants)
				for i := range counts {
					counts[i] = byTenant[i].Load()
				}
				half.Store(&counts)
			})
		}
	}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sink.stop()) }()
	cpu, err := s.cpu()
	if err != nil {
		return err
	}
	b.note("  the sink is up")
	began := time.Now()
	asking, giveUp := context.WithCancel(ctx)
	defer giveUp()
	answered := make(chan error, 1)
	asked := time.Duration(0)
	go func() { // it is still under way when most have been delivered
		_, err := s.api.Act(asking, api.Action{Verb: "retry", Selection: api.Selection{All: true}})
		asked = time.Since(began)
		answered <- err
	}()
	if err = sink.await(ctx, 0, all); err != nil {
		giveUp()
	}
	if err := errors.Join(<-answered, err); err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	table.add("retry --all answered after", "", "%.1f s", asked.Seconds())
	took := time.Since(began)
	after, err := s.cpu()
	if err != nil {
		return err
	}
	table.add("sink up: drained at", "80 % of relaying", "%.0f/s, %.0f µs CPU", float64(all)/took.Seconds(),
		(after-cpu).Seconds()*1e6/float64(all))
	if counts := half.Load(); counts != nil {
		least, most := slices.Min(*counts), slices.Max(*counts)
		table.add("delivered by tenant when half was out: least, most", "close", "%d, %d", least, most)
	}
	return nil
}

// deepJob is ten million entries that wait.
func deepJob(ctx context.Context, b *bench) (_ *row, err error) {
	f := filling{entries: pick(b, 10_000_000, 1_000_000), size: 1 << 10, domains: 20_000, tenants: 100}
	table := facts{title: grouped(float64(f.entries)) + " entries of 1 KB deferred"}
	dir, err := os.MkdirTemp(b.dir, "growth")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	down, err := closedPort()
	if err != nil {
		return nil, err
	}
	if err := configure(dir, down); err != nil {
		return nil, err
	}
	if err := f.run(ctx, b)(dir + "/data"); err != nil {
		return nil, err
	}
	s, err := startServer(ctx, b, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	table.add("ready after", "30 s", "%.2f s", s.startup.Seconds())
	if err := standing(ctx, s, &table, "1,024 MiB"); err != nil {
		return nil, err
	}
	m, err := acceptRate(ctx, s, pick(b, 50_000, 15_000), 10<<10)
	if err != nil {
		return nil, err
	}
	table.add("accepted beside them", "", "%.0f/s, %.0f µs CPU", m.rate(), m.perMessage())
	p50, p99, err := listing(ctx, s, 200)
	if err != nil {
		return nil, err
	}
	table.add("queue list, p50 and p99", "300 ms", "%.0f ms, %.0f ms", ms(p50), ms(p99))
	_, most, err := s.memory()
	if err != nil {
		return nil, err
	}
	table.add("resident at most, to the end", "1,024 MiB", "%d MiB", most>>20)
	table.print(b)
	return nil, nil
}

// latencyJob relays at half of the rate that the server reaches.
func latencyJob(ctx context.Context, b *bench) (_ *row, err error) {
	var top measured
	for _, half := range []bool{false, true} {
		m, err := func() (m measured, err error) {
			r, err := newRig(ctx, b, nil)
			if err != nil {
				return m, err
			}
			defer r.end(&err)
			if err := r.warm(ctx); err != nil {
				return m, err
			}
			o := smtptest.LoadOptions{Messages: pick(b, 100_000, 20_000), Sessions: 50}
			if half {
				o.Rate = top.rate() / 2
			}
			return r.relay(ctx, o, 1)
		}()
		if err != nil {
			return nil, err
		}
		if !half {
			top = m
			continue
		}
		table := facts{title: "Latency at half load"}
		table.add("rate", "", "%.0f/s of %.0f/s", m.rate(), top.rate())
		table.add("accepted after, p50, p99, at most", "p99 10 ms", "%.1f, %.1f, %.1f ms", m.load.Latency.P50,
			m.load.Latency.P99, m.load.Latency.Max)
		table.add("delivered after, p50, p99, at most", "p99 50 ms", "%.1f, %.1f, %.1f ms", m.age.P50, m.age.P99, m.age.Max)
		table.print(b)
	}
	return nil, nil
}

// idleJob is sessions that have said EHLO and say no more.
func idleJob(ctx context.Context, b *bench) (_ *row, err error) {
	r, err := newRig(ctx, b, nil)
	if err != nil {
		return nil, err
	}
	defer r.end(&err)
	if err := r.warm(ctx); err != nil {
		return nil, err
	}
	sessions := pick(b, 15_000, 3_000)
	before, _, err := r.memory()
	if err != nil {
		return nil, err
	}
	held := make([]net.Conn, sessions)
	defer func() {
		for _, c := range held {
			if c != nil {
				c.Close()
			}
		}
	}()
	var next atomic.Int64
	var failed atomic.Pointer[error]
	several(50, func(int) {
		for {
			i := int(next.Add(1)) - 1
			if i >= sessions || failed.Load() != nil {
				return
			}
			c, _, err := greet(r.address)
			if err != nil {
				failed.CompareAndSwap(nil, &err)
				return
			}
			held[i] = c
		}
	})
	if first := failed.Load(); first != nil {
		return nil, *first
	}
	waited := pick(b, 2*time.Minute, 15*time.Second)
	var banners []time.Duration
	for end := time.Now().Add(waited); time.Now().Before(end); {
		c, banner, err := greet(r.address)
		if err != nil {
			return nil, err
		}
		c.Close()
		banners = append(banners, banner)
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	now, _, err := r.memory()
	if err != nil {
		return nil, err
	}
	slices.Sort(banners)
	table := facts{title: fmt.Sprintf("%s idle sessions for %v", grouped(float64(sessions)), waited)}
	table.add("memory for each", "32 KiB", "%.1f KiB", float64(now-before)/float64(sessions)/1024)
	table.add("banner of a new one, p50, p99", "250 ms", "%.1f, %.1f ms", ms(banners[len(banners)/2]),
		ms(banners[len(banners)*99/100]))
	table.print(b)
	return nil, nil
}

// greet opens a session, reads the banner and says EHLO. It returns how long the banner took.
func greet(address string) (c net.Conn, banner time.Duration, err error) {
	began := time.Now()
	c, err = net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return nil, 0, err
	}
	fail := func(err error) (net.Conn, time.Duration, error) { return nil, 0, errors.Join(err, c.Close()) }
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return fail(err)
	}
	var buf [2048]byte
	n, err := c.Read(buf[:])
	if err != nil || !strings.HasPrefix(string(buf[:n]), "220") {
		return fail(fmt.Errorf("banner %q: %w", buf[:n], err))
	}
	banner = time.Since(began)
	if _, err := c.Write([]byte("EHLO idle.example\r\n")); err != nil {
		return fail(err)
	}
	if n, err = c.Read(buf[:]); err != nil || !strings.HasPrefix(string(buf[:n]), "250") {
		return fail(fmt.Errorf("EHLO %q: %w", buf[:n], err))
	}
	return c, banner, nil
}
