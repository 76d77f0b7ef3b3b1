package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/internal/store"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

// life is a scheduler over the real spool and journal on disk, from start to stop.
type life struct {
	journal *journal.Log
	spool   *spool.Spool
	queue   *Scheduler
	stop    func()
}

func live(t testing.TB, dir string, o Options, d Deliverer) *life {
	t.Helper()
	var l life
	var err error
	if l.journal, err = journal.Open(journal.Options{Dir: dir + "/journal", Owner: "test"}); err != nil {
		t.Fatal(err)
	}
	endJournal := run(t, l.journal.Run)
	l.spool, err = spool.Open(context.Background(), spool.Options{
		Dir: dir + "/spool", Journal: l.journal, Checkpoint: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	o.Spool, o.Deliverer, o.Hostname, o.IDs = l.spool, d, "mta.example.org", message.NewIDs(nil)
	if o.Store == nil {
		o.Store = &memory{keys: make(map[string][]byte), put: make(chan store.Change)}
	}
	if l.queue, err = New(o); err != nil {
		t.Fatal(err)
	}
	l.spool.SetSink(l.queue)
	endSpool := run(t, l.spool.Run)
	endQueue := run(t, l.queue.Run)
	l.stop = sync.OnceFunc(func() {
		endQueue()
		endSpool()
		if err := l.spool.Close(); err != nil {
			t.Error(err)
		}
		endJournal()
		if err := l.journal.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(l.stop)
	return &l
}

// run starts f and returns what ends it and waits.
func run(t testing.TB, f func(context.Context) error) func() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// A few lives with random outcomes, holds, retries and limits over the real spool: nothing is lost, nothing is
// delivered twice, every sender is told, and the sums agree.
func TestLivesOverTheRealSpool(t *testing.T) {
	const lives, perLife = 3, 400
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(3, 5))
	draw := func(n int) int { mu.Lock(); defer mu.Unlock(); return r.IntN(n) }
	delivered := make(map[spool.EntryID]int)
	final := make(map[spool.EntryID]spool.Outcome)
	var wanted []spool.EntryID
	var reports atomic.Int64
	d := &deliver{sites: map[string]string{"d0.example": "s", "d1.example": "s"}}
	d.f = func(_ context.Context, j *Job) Verdict {
		body, err := j.Body(context.Background())
		if err != nil {
			t.Errorf("body of %s: %v", j.Message.ID, err)
			return all(j, spool.Result{})
		}
		if body.Size() != j.Message.Size {
			t.Errorf("body of %d octets, want %d", body.Size(), j.Message.Size)
		}
		body.Release()
		if j.Message.Report {
			reports.Add(1)
		}
		time.Sleep(time.Duration(draw(2000)) * time.Microsecond)
		if k := draw(20); k == 0 {
			return unreachable(j)
		} else if k == 1 {
			return all(j, spool.Result{})
		}
		v := all(j, spool.Result{})
		for i, e := range j.Entries {
			res := &v.Attempt.Results[i]
			switch k := draw(10); {
			case j.Message.Report || k < 5:
				*res = spool.Result{Outcome: spool.Delivered, Reason: event.OK}
			case k < 6:
				*res = spool.Result{Outcome: spool.Bounced, Reason: event.RemoteRefused, Reply: smtp.Reply{Code: 550, Text: "no"}}
			case k < 7:
			default:
				*res = greylisted(j).Attempt.Results[0]
			}
			if res.Outcome.Final() {
				mu.Lock()
				delivered[e.ID()]++
				final[e.ID()] = res.Outcome
				mu.Unlock()
			}
		}
		return v
	}
	dir := t.TempDir()
	memory := &memory{keys: make(map[string][]byte), put: make(chan store.Change)}
	for n := range lives {
		l := live(t, dir, Options{
			Store: memory, Window: 20, WindowTotal: 60, Claim: 7, Poll: 20 * time.Millisecond,
			Settings: Settings{
				Retry: []time.Duration{5 * time.Millisecond, 20 * time.Millisecond}, Probes: []time.Duration{10 * time.Millisecond},
				Pause:    time.Millisecond,
				Attempts: 12, Connections: 4, Initial: 2,
			},
		}, d)
		var clients sync.WaitGroup
		for c := range 4 {
			clients.Go(func() {
				for range perLife / 4 {
					m, body := realMessage(l.queue.o.IDs, fmt.Sprint("t", c%2), 1+draw(4), draw)
					for i := range m.Recipients {
						mu.Lock()
						wanted = append(wanted, spool.EntryID{Message: m.ID, Index: i})
						mu.Unlock()
					}
					if err := l.spool.Accept(t.Context(), m, body); err != nil {
						t.Error(err)
					}
					body.Release()
				}
			})
		}
		if _, err := l.queue.Hold(t.Context(), Selection{Domain: "d3.example"}, "test"); err != nil {
			t.Error(err)
		}
		clients.Wait()
		if n == lives-1 {
			for len(l.queue.Rules()) > 0 {
				if _, err := l.queue.Release(t.Context(), Selection{All: true}); err != nil {
					t.Fatal(err)
				}
			}
			awaitEmpty(t, l)
		} else {
			time.Sleep(time.Duration(draw(100)) * time.Millisecond)
		}
		l.stop()
		st := l.spool.Stats()
		if st.Accepted != st.Settled()+uint64(st.Queued()) {
			t.Errorf("accepted %d, final %d, queued %d", st.Accepted, st.Settled(), st.Queued())
		}
		if st.Claimed != 0 {
			t.Errorf("%d entries are claimed after an orderly stop", st.Claimed)
		}
	}
	bounced := make(map[message.ID]bool)
	for _, id := range wanted {
		if delivered[id] != 1 {
			t.Errorf("%s has %d final attempts", id, delivered[id])
		}
		if final[id] == spool.Bounced {
			bounced[id.Message] = true
		}
	}
	if n := int(reports.Load()); n < len(bounced) {
		t.Errorf("%d attempts of reports about %d messages with failures", n, len(bounced))
	}
}

func awaitEmpty(t *testing.T, l *life) {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		st := l.spool.Stats()
		if st.Queued() == 0 && st.Unreported == 0 {
			return
		}
		if time.Since(begin) > 20*time.Second {
			for _, q := range l.queue.List(Query{Limit: 5}).Queues {
				t.Logf("%+v: %s", q.QueueStat, q.Why.Text)
			}
			t.Fatalf("entries are stuck: %+v", st)
		}
	}
}

func realMessage(ids *message.IDs, tenant string, n int, draw func(int) int) (*spool.Message, *smtp.Body) {
	body := smtp.BodyOf([]byte("Subject: test\r\n\r\nhello\r\n"))
	now := time.Now()
	m := &spool.Message{
		ID: ids.New(now), Tenant: tenant, Received: now, Expires: now.Add(time.Hour), Size: body.Size(),
		From: smtp.Sender{Path: smtp.Path{Local: "sender", Domain: "example.org"}},
	}
	for i := range n {
		d := fmt.Sprint("d", draw(5), ".example")
		m.Recipients = append(m.Recipients, smtp.Recipient{Path: smtp.Path{Local: fmt.Sprint("u", i), Domain: d}})
		m.Queues = append(m.Queues, spool.QueueKey{Tenant: tenant, Domain: d})
	}
	return m, body
}

// Expiry and operators' wishes reach what the real spool holds in its index.
func TestExpiryOverTheRealSpool(t *testing.T) {
	d := &deliver{f: func(_ context.Context, j *Job) Verdict {
		if j.Message.Report {
			return delivered(j)
		}
		return unreachable(j)
	}}
	l := live(t, t.TempDir(), Options{
		Poll: 50 * time.Millisecond, Settings: Settings{Probes: []time.Duration{time.Hour}},
	}, d)
	for range 100 {
		m, body := realMessage(l.queue.o.IDs, "t", 1, func(int) int { return 0 })
		m.Expires = m.Received.Add(time.Second)
		if err := l.spool.Accept(t.Context(), m, body); err != nil {
			t.Fatal(err)
		}
		body.Release()
	}
	for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		st := l.spool.Stats()
		if st.Expired == 100 && st.Delivered == 100 && st.Queued() == 0 {
			return
		}
		if time.Since(begin) > 20*time.Second {
			t.Fatalf("%+v, want 100 expired and 100 reports delivered", st)
		}
	}
}

// when outcomes cannot be recorded nothing more is delivered.
func TestNothingIsDeliveredWhenTheSpoolFails(t *testing.T) {
	var failing atomic.Bool
	n := 0
	tab := &failingSpool{null: null{*newTable(t)}, failing: &failing}
	s, err := New(Options{
		Spool: tab, Hostname: "h", IDs: message.NewIDs(nil), Store: &memory{}, Settings: Settings{Connections: 1},
		Deliverer: &deliver{f: func(_ context.Context, j *Job) Verdict { n++; return delivered(j) }},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	failing.Store(true)
	for range 10 {
		m := tab.message("t", "a.example")
		s.Fresh(m, []*spool.Entry{{Message: m, State: spool.Claimed}})
	}
	for {
		s.mu.Lock()
		failed := s.mu.failed
		s.mu.Unlock()
		if failed != nil {
			break
		}
		runtime.Gosched()
	}
	cancel()
	if err := <-done; !errors.Is(err, spool.ErrFailed) {
		t.Errorf("Run: %v", err)
	}
	if n != 1 {
		t.Errorf("%d deliveries, want the one whose outcome could not be recorded", n)
	}
}

type failingSpool struct {
	null
	failing *atomic.Bool
}

func (f *failingSpool) Settle(_ *spool.Attempt, done func(error)) { done(spool.ErrFailed) }

// BenchmarkAcceptToSettled is the whole way through spool and queue on a real disk, 50 clients at once, without SMTP.
func BenchmarkAcceptToSettled(b *testing.B) {
	d := &deliver{f: func(_ context.Context, j *Job) Verdict {
		body, err := j.Body(context.Background())
		if err != nil {
			b.Error(err)
		}
		body.Release()
		return delivered(j)
	}}
	l := live(b, b.TempDir(), Options{}, d)
	payload := slices.Repeat([]byte("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n"), 10_000/64)
	var domain atomic.Int64
	before := cpu(b)
	b.SetParallelism(25)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		key := spool.QueueKey{Tenant: "t", Domain: fmt.Sprint("d", domain.Add(1)%10, ".example")}
		for pb.Next() {
			body := smtp.BodyOf(payload)
			now := time.Now()
			m := &spool.Message{
				ID: l.queue.o.IDs.New(now), Tenant: "t", Received: now, Expires: now.Add(time.Hour), Size: body.Size(),
				From:       smtp.Sender{Path: smtp.Path{Local: "sender", Domain: "example.org"}},
				Recipients: []smtp.Recipient{{Path: smtp.Path{Local: "u", Domain: key.Domain}}}, Queues: []spool.QueueKey{key},
			}
			if err := l.spool.Accept(b.Context(), m, body); err != nil {
				b.Error(err)
			}
			body.Release()
		}
	})
	for l.spool.Stats().Queued() > 0 {
		time.Sleep(100 * time.Microsecond)
	}
	b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
}
