package egress

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/smtpclient"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// yard is a pool with a sink behind every session, in fake time.
type yard struct {
	t        *testing.T
	p        *Pool
	sink     *smtptest.Sink
	sessions sync.WaitGroup
	end      context.CancelFunc
	ended    chan error
}

func newYard(t *testing.T, o PoolOptions, script smtptest.Script) *yard {
	t.Helper()
	sink, err := smtptest.NewSink(smtptest.SinkOptions{Script: script})
	if err != nil {
		t.Fatal(err)
	}
	y := &yard{t: t, p: NewPool(o), sink: sink, ended: make(chan error, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	y.end = cancel
	go func() { y.ended <- y.p.Run(ctx) }()
	synctest.Wait()
	return y
}

func (y *yard) stop() {
	y.t.Helper()
	y.end()
	if err := <-y.ended; err != nil {
		y.t.Error(err)
	}
	y.sessions.Wait()
}

func (y *yard) open(site string, backup bool) *Session {
	y.t.Helper()
	client, server := smtptest.Pipe()
	y.sessions.Go(func() { y.sink.ServeConn(context.Background(), server) })
	c := smtpclient.New(client, smtpclient.Options{Hello: "test"})
	if err := c.Start(y.t.Context()); err != nil {
		y.t.Fatal(err)
	}
	return NewSession(c, Path{Site: site}, Target{Addr: netip.MustParseAddrPort("192.0.2.1:25")}, backup)
}

func (y *yard) send(s *Session) {
	y.t.Helper()
	body := smtp.BodyOf([]byte("Subject: x\r\n\r\nx\r\n"))
	defer body.Release()
	s.Tx.Recipients = []smtp.Recipient{{Path: smtp.Path{Local: "u", Domain: "example.test"}}}
	s.Tx.Body = body
	if err := s.Send(y.t.Context(), &s.Tx); err != nil {
		y.t.Fatal(err)
	}
}

// open sessions as the other side sees them, when all is at rest.
func (y *yard) openSessions() int64 {
	time.Sleep(time.Second) // farewells
	synctest.Wait()
	return y.sink.Counters().Sessions
}

func TestPoolTakesTheLastUsed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		y := newYard(t, PoolOptions{Registerer: registry}, smtptest.Script{})
		a, b, c := y.open("x", false), y.open("x", false), y.open("y", false)
		y.p.Put(a)
		y.p.Put(b)
		y.p.Put(c)
		if y.p.Len() != 3 {
			t.Errorf("%d are kept", y.p.Len())
		}
		if got := y.p.Take(Path{Site: "z"}); got != nil {
			t.Error("a session of another path was given")
		}
		if got := y.p.Take(Path{Site: "x"}); got != b {
			t.Error("not the one used last")
		}
		if got := y.p.Take(Path{Site: "x"}); got != a {
			t.Error("not the other one")
		}
		if got := y.p.Take(Path{Site: "x"}); got != nil {
			t.Error("a third one")
		}
		y.send(a)
		y.p.Put(a)
		y.p.Put(b)
		if got := y.p.Take(Path{Site: "x"}); got != b {
			t.Error("not the one put back last")
		}
		_ = b.Close()
		if n := testutil.CollectAndCount(registry, "godwit_egress_kept_sessions_total"); n != 4 {
			t.Errorf("%d series", n)
		}
		y.stop()
		if n := y.sink.Counters().Sessions; n != 0 {
			t.Errorf("%d sessions are left", n)
		}
	})
}

func TestPoolLimits(t *testing.T) {
	t.Parallel()
	t.Run("idle", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			y := newYard(t, PoolOptions{Idle: 10 * time.Second}, smtptest.Script{})
			y.p.Put(y.open("x", false))
			time.Sleep(5 * time.Second)
			y.p.Put(y.open("x", false))
			time.Sleep(6 * time.Second)
			if n := y.openSessions(); n != 1 || y.p.Len() != 1 {
				t.Errorf("%d sessions, %d kept", n, y.p.Len())
			}
			s := y.p.Take(Path{Site: "x"})
			time.Sleep(time.Hour / 10) // idle time is not use time
			y.send(s)
			y.p.Put(s)
			if y.p.Len() != 1 {
				t.Error("a session was dropped for the length of its use")
			}
			time.Sleep(20 * time.Second)
			if n := y.openSessions(); n != 0 || y.p.Len() != 0 {
				t.Errorf("%d sessions, %d kept", n, y.p.Len())
			}
			y.stop()
		})
	})
	t.Run("age", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			y := newYard(t, PoolOptions{Age: time.Minute, BackupAge: 10 * time.Second}, smtptest.Script{})
			y.p.Put(y.open("x", false))
			y.p.Put(y.open("y", true))
			time.Sleep(9 * time.Second)
			s := y.p.Take(Path{Site: "y"})
			if s == nil {
				t.Fatal("a young session is gone")
			}
			y.p.Put(s)
			time.Sleep(2 * time.Second)
			if y.p.Take(Path{Site: "y"}) != nil {
				t.Error("a session to a second choice is kept for long")
			}
			for range 4 {
				time.Sleep(10 * time.Second)
				if s = y.p.Take(Path{Site: "x"}); s == nil {
					t.Fatal("a session is gone before its time")
				}
				y.p.Put(s)
			}
			time.Sleep(10 * time.Second)
			if y.p.Take(Path{Site: "x"}) != nil {
				t.Error("an old session is still kept")
			}
			if n := y.openSessions(); n != 0 {
				t.Errorf("%d sessions", n)
			}
			y.stop()
		})
	})
	t.Run("transactions", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			y := newYard(t, PoolOptions{MaxTransactions: 2}, smtptest.Script{})
			s := y.open("x", false)
			y.send(s)
			y.p.Put(s)
			if y.p.Take(Path{Site: "x"}) != s {
				t.Fatal("not kept")
			}
			y.send(s)
			y.p.Put(s)
			if y.p.Len() != 0 || y.openSessions() != 0 {
				t.Error("kept beyond its transactions")
			}
			y.stop()
		})
	})
	t.Run("numbers", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			y := newYard(t, PoolOptions{Max: 3, MaxPerPath: 2}, smtptest.Script{})
			oldest := y.open("a", false)
			y.p.Put(oldest)
			for range 3 {
				y.p.Put(y.open("b", false))
			}
			if y.p.Len() != 3 || y.openSessions() != 3 {
				t.Errorf("%d kept", y.p.Len())
			}
			y.p.Put(y.open("c", false))
			if y.p.Len() != 3 || y.openSessions() != 3 || oldest.Reusable() {
				t.Errorf("%d kept; the oldest is reusable: %v", y.p.Len(), oldest.Reusable())
			}
			if y.p.Take(Path{Site: "a"}) != nil {
				t.Error("the oldest is still there")
			}
			y.stop()
		})
	})
	t.Run("burst", func(t *testing.T) { // many come back at once, and are kept for a moment
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			y := newYard(t, PoolOptions{MaxPerPath: 2}, smtptest.Script{})
			for range burst*2 + 3 {
				y.p.Put(y.open("x", false))
			}
			if y.p.Len() != burst*2 {
				t.Errorf("%d kept, want %d", y.p.Len(), burst*2)
			}
			latest := y.open("x", false)
			if s := y.p.Take(Path{Site: "x"}); s == nil {
				t.Error("none to take")
			} else {
				_ = s.Close()
			}
			y.p.Put(latest)
			time.Sleep(5 * time.Second) // a sweep comes by
			if y.p.Len() != 2 || y.p.Take(Path{Site: "x"}) != latest {
				t.Errorf("%d kept after a while, want the latest 2", y.p.Len())
			}
			_ = latest.Close()
			y.stop()
		})
	})
	t.Run("same-path-at-the-bound", func(t *testing.T) { // the oldest of all may be of the path that is put to
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			y := newYard(t, PoolOptions{Max: 1}, smtptest.Script{})
			a, b := y.open("x", false), y.open("x", false)
			y.p.Put(a)
			y.p.Put(b)
			if got := y.p.Take(Path{Site: "x"}); got != b {
				t.Error("not the newer one")
			} else {
				_ = got.Close()
			}
			if y.p.Take(Path{Site: "x"}) != nil || y.p.Len() != 0 {
				t.Error("more than one was kept")
			}
			y.stop()
		})
	})
}

// TestPoolFoundClosed: a session that the other side ended is not given out.
func TestPoolFoundClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, PoolOptions{}, smtptest.Script{Rules: []smtptest.Rule{{At: smtptest.AtFinal, Drop: smtptest.DropFIN,
			After: true}}})
		s := y.open("x", false)
		y.send(s)
		synctest.Wait()
		y.p.Put(s)
		time.Sleep(unchecked)
		if y.p.Take(Path{Site: "x"}) != nil {
			t.Error("a dead session was given out")
		}
		y.stop()
	})
}

// TestPoolWithoutRun: nothing is kept before Run and after it.
func TestPoolWithoutRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, PoolOptions{}, smtptest.Script{})
		s := y.open("x", false)
		kept := y.open("x", false)
		y.p.Put(kept)
		y.end()
		if err := <-y.ended; err != nil {
			t.Error(err)
		}
		y.p.Put(s)
		y.sessions.Wait()
		if y.p.Keeping() || y.p.Len() != 0 || s.Reusable() || kept.Reusable() {
			t.Error("a session is kept although nobody looks after it")
		}
	})
}

// TestPoolStopsInTime: hosts that do not answer QUIT do not hold up the stop.
func TestPoolStopsInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, PoolOptions{MaxPerPath: 200}, smtptest.Script{Rules: []smtptest.Rule{{At: smtptest.AtQuit,
			Stall: true}}})
		for range 150 {
			y.p.Put(y.open("x", false))
		}
		began := time.Now()
		y.stop()
		if took := time.Since(began); took > 3*farewellTime {
			t.Errorf("stopping took %v", took)
		}
	})
}

// TestPoolConcurrent gives the race detector something to look at, and counts what is left.
func TestPoolConcurrent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, PoolOptions{Max: 6, MaxPerPath: 3, Idle: 20 * time.Millisecond, MaxTransactions: 5},
			smtptest.Script{})
		sites := []string{"a", "b", "c"}
		var workers sync.WaitGroup
		for i := range 12 {
			workers.Go(func() {
				for range 30 {
					site := sites[i%len(sites)]
					s := y.p.Take(Path{Site: site})
					if s == nil {
						s = y.open(site, i%5 == 0)
					}
					if s.Path.Site != site {
						t.Errorf("a session of %s was given for %s", s.Path.Site, site)
					}
					y.send(s)
					time.Sleep(time.Duration(i) * time.Millisecond)
					y.p.Put(s)
				}
			})
		}
		workers.Wait()
		y.stop()
		if c := y.sink.Counters(); c.Sessions != 0 || c.Messages != 360 {
			t.Errorf("got %+v", c)
		}
	})
}
