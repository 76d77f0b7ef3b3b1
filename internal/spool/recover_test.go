package spool

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/smtp"
)

// A crash loop may not hammer a remote: the rest grows with each interruption and is forgotten by a finished attempt.
func TestInterruptionsGrow(t *testing.T) {
	t.Parallel()
	r := newRig(t, vfs.NewMem(), nil)
	m := r.accept(r.message("a.example"))
	for i := range len(defaultInterrupted) + 2 {
		r.reopen()
		e := r.one(Filter{})
		rest := defaultInterrupted[min(i, len(defaultInterrupted)-1)]
		if wait := time.Until(e.Due); e.Interrupted != i+1 || wait > rest+rest/5 || wait < rest-5*time.Second {
			t.Errorf("interruption %d: due in %v, %+v", i+1, wait, e)
		}
		if i == 2 {
			r.checkpoint()
		}
		if es := r.claim("a.example", e.Due, 1); len(es) != 1 {
			t.Fatal("not claimed")
		}
		if i == 3 {
			r.checkpoint() // it is claimed in the index
		}
	}
	r.reopen()
	e := r.one(Filter{})
	es := r.claim("a.example", e.Due, 1)
	r.settle(es, deferred(time.Now()))
	if e := r.one(Filter{}); e.Interrupted != 0 || e.Attempts != 1 {
		t.Errorf("after an attempt: %+v", e)
	}
	_ = m
}

// After an orderly stop everything goes on at once.
func TestOrderlyStop(t *testing.T) {
	t.Parallel()
	r := newRig(t, vfs.NewMem(), nil)
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- r.spool.Run(ctx) }()
	m := r.accept(r.message("a.example", "b.example"))
	r.settle(r.taken(m)[:1], deferred(time.Now()))
	r.spool.Return(r.taken(m)[1:])
	claimed := r.claim("a.example", time.Now().Add(time.Second), 1)
	r.spool.Return(claimed)
	stop()
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	if r.spool.committed == 0 || r.spool.synced != r.spool.committed {
		t.Errorf("committed %d, synced %d", r.spool.committed, r.spool.synced)
	}
	r.reopen()
	for _, e := range r.entries(Filter{}) {
		if e.Interrupted != 0 || e.Due.After(time.Now()) {
			t.Errorf("%+v", e)
		}
	}
}

func TestMemoryBudget(t *testing.T) {
	t.Parallel()
	for _, budget := range []int64{-1, 70_000} {
		r := newRig(t, vfs.NewMem(), func(r *rig) { r.opts.MemoryBudget = budget })
		var ms []*Message
		for range 10 {
			ms = append(ms, r.accept(r.message("a.example")))
		}
		if n := r.spool.Stats().BodyBytes; n > max(budget, 0) || budget > 0 && n == 0 {
			t.Errorf("%d octets in memory, the budget is %d", n, budget)
		}
		for _, m := range ms {
			body, err := r.spool.Body(context.Background(), m)
			if err != nil {
				t.Fatal(err)
			}
			if body.Size() != m.Size {
				t.Errorf("a body of %d octets", body.Size())
			}
			body.Release()
			r.settle(r.taken(m), deferred(time.Now()))
		}
		if n := r.spool.Stats().BodyBytes; n != 0 {
			t.Errorf("%d octets of deferred mail in memory", n)
		}
	}
}

// Without room Accept waits, and gives up with its context.
func TestAcceptWaitsForRoom(t *testing.T) {
	t.Parallel()
	r := newRig(t, vfs.NewMem(), func(r *rig) { r.opts.OverlayEntries = 1 })
	for range overlayHard {
		r.accept(r.message("a.example"))
	}
	m := r.message("a.example")
	body := smtp.BodyOf(bodyFor(m))
	defer body.Release()
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer stop()
	if err := r.spool.Accept(ctx, m, body); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("accepted into a full overlay: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- r.spool.Accept(context.Background(), m, body) }()
	for _, e := range r.entries(Filter{}) {
		r.spool.Return([]*Entry{e})
	}
	r.checkpoint()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestAcceptRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t, vfs.NewMem(), nil)
	body := smtp.BodyOf([]byte("x\r\n"))
	defer body.Release()
	for name, change := range map[string]func(*Message){
		"no id": func(m *Message) { m.ID = [12]byte{} },
		"too many recipients": func(m *Message) {
			m.Recipients, m.Queues = make([]smtp.Recipient, MaxRecipients+1), make([]QueueKey, MaxRecipients+1)
		},
		"too large an envelope": func(m *Message) { m.Hello = strings.Repeat("x", maxEnvelope) },
		"no recipients":         func(m *Message) { m.Recipients, m.Queues = nil, nil },
		"too few queues":        func(m *Message) { m.Queues = nil },
		"a queue unnamed":       func(m *Message) { m.Queues[0].Domain = "" },
		"NUL in a domain":       func(m *Message) { m.Queues[0].Domain = "a\x00b" },
		"NUL in a tenant":       func(m *Message) { m.Queues[0].Tenant = "a\x00b" },
	} {
		m := r.message("a.example")
		change(m)
		if err := r.spool.Accept(context.Background(), m, body); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := r.spool.Accept(context.Background(), r.message("a.example"), nil); err == nil {
		t.Error("accepted without a body")
	}
	m := r.accept(r.message("a.example"))
	if err := r.spool.Accept(context.Background(), m, body); !errors.Is(err, ErrExists) {
		t.Errorf("accepted twice: %v", err)
	}
	r.sums()
}

// Without a sink fresh mail waits.
func TestNoSink(t *testing.T) {
	t.Parallel()
	r := newRig(t, vfs.NewMem(), nil)
	r.spool.sink.Store(nil)
	r.accept(r.message("a.example"))
	if e := r.one(Filter{}); e.State != Waiting || e.Due.After(time.Now()) {
		t.Errorf("%+v", e)
	}
}

// The sink hears when a queue is due earlier, and only then.
func TestDueNotices(t *testing.T) {
	t.Parallel()
	r := newRig(t, vfs.NewMem(), nil)
	key := QueueKey{"t", "a.example"}
	now := time.Now()
	heard := func() time.Time {
		r.mu.Lock()
		defer r.mu.Unlock()
		at := r.dues[key]
		delete(r.dues, key)
		return at
	}
	var ms []*Message
	for range 3 {
		ms = append(ms, r.accept(r.message("a.example")))
	}
	for i, step := range []struct{ due, want time.Duration }{
		{2 * time.Hour, 2 * time.Hour}, {3 * time.Hour, 0}, {time.Hour, time.Hour},
	} {
		r.settle(r.taken(ms[i]), deferred(now.Add(step.due)))
		if got := heard(); step.want == 0 && !got.IsZero() || step.want != 0 && micros(got) != micros(now.Add(step.want)) {
			t.Errorf("due in %v: heard %v", step.due, got.Sub(now))
		}
	}
	r.checkpoint()
	n, err := r.spool.Reschedule(context.Background(), Filter{Domain: "a.example"}, now.Add(time.Minute))
	if n != 3 || err != nil {
		t.Fatal(n, err)
	}
	if got := heard(); micros(got) != micros(now.Add(time.Minute)) {
		t.Errorf("rescheduled: heard %v", got.Sub(now))
	}
	if q, ok := r.spool.Queue(key); !ok || micros(q.NextDue) != micros(now.Add(time.Minute)) || q.Waiting != 3 {
		t.Errorf("%+v", q)
	}
}

func TestOldestOfQueues(t *testing.T) {
	t.Parallel()
	var a ages
	rng := rand.New(rand.NewPCG(1, 2))
	at := func(m int) (id [12]byte) {
		ms := uint64(m) * 60_000
		for i := range 6 {
			id[i] = byte(ms >> (8 * (5 - i)))
		}
		return id
	}
	var all []int
	now := 30_000_000
	for range 20_000 {
		now += rng.IntN(2)
		m := now
		if rng.IntN(50) == 0 {
			m -= rng.IntN(4000)
		}
		all = append(all, m)
		a.add(at(m))
		if rng.IntN(3) > 0 {
			i := rng.IntN(len(all))
			a.drop(at(all[i]))
			all[i] = all[len(all)-1]
			all = all[:len(all)-1]
		}
		oldest := now
		for _, m := range all[:min(len(all), 1)] {
			oldest = m
		}
		for _, m := range all {
			oldest = min(oldest, m)
		}
		got := int(a.oldest().Unix() / 60)
		if len(all) > 0 && (got > oldest || float64(oldest-got) > 1+0.25*float64(now-oldest)) || len(a.steps) > maxAgeSteps {
			t.Fatalf("oldest %d, is %d minutes old, said %d; %d steps", oldest, now-oldest, now-got, len(a.steps))
		}
	}
	for _, m := range all {
		a.drop(at(m))
	}
	if !a.oldest().IsZero() {
		t.Errorf("oldest of none: %v", a.oldest())
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	_, err := Open(context.Background(), Options{
		PendingBytes: -1, MoveRate: -1, IndexMemtable: 1, Interrupted: []time.Duration{-1},
	})
	for _, want := range []string{"directory", "journal", "pending", "move rate", "memtable", "negative"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not tell of %s", err, want)
		}
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	r := newRig(t, vfs.NewMem(), func(r *rig) { r.opts.Registerer = reg })
	m := r.accept(r.message("a.example", "b.example"))
	r.settle(r.taken(m)[:1], delivered())
	r.checkpoint()
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
	if n, err := testutil.GatherAndCount(reg); n < 15 || err != nil {
		t.Errorf("%d series, %v", n, err)
	}
	r.opts.Registerer = nil
}

// Everything at once, for the race detector and for lost or doubled entries.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	r := newRig(t, vfs.NewMem(), func(r *rig) {
		r.segment = 64 << 10
		r.opts.OverlayEntries, r.opts.Checkpoint, r.opts.Waste = 50, 5*time.Millisecond, 64<<10
	})
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- r.spool.Run(ctx) }()
	const workers, each = 6, 60
	var wg, others sync.WaitGroup
	for w := range workers {
		rng := rand.New(rand.NewPCG(uint64(w), 1))
		wg.Go(func() {
			for range each {
				m := r.accept(r.message(fmt.Sprintf("d%d.example", rng.IntN(4)), fmt.Sprintf("d%d.example", rng.IntN(4))))
				for _, e := range r.taken(m) {
					switch rng.IntN(3) {
					case 0:
						r.settle([]*Entry{e}, delivered())
					case 1:
						r.settle([]*Entry{e}, deferred(time.Now()))
					case 2:
						r.spool.Return([]*Entry{e})
					}
				}
			}
		})
	}
	working, idle := context.WithCancel(ctx)
	for w := range 4 { // deliverers
		others.Go(func() {
			for i := 0; working.Err() == nil; i++ {
				es := r.claim(fmt.Sprintf("d%d.example", (w+i)%4), time.Now(), 7)
				for k, e := range es {
					if (i+k)%3 == 0 {
						r.spool.Return([]*Entry{e})
						continue
					}
					body, err := r.spool.Body(ctx, e.Message)
					if err != nil {
						t.Error(err)
						return
					}
					body.Release()
					r.settle([]*Entry{e}, delivered())
				}
			}
		})
	}
	others.Go(func() { // an operator
		for i := 0; working.Err() == nil; i++ {
			f := Filter{Domain: fmt.Sprintf("d%d.example", i%4)}
			if _, err := r.spool.Hold(ctx, f, "x"); err != nil {
				t.Error(err)
			}
			for e, err := range r.spool.Entries(ctx, Filter{}, 20, EntryID{}) {
				if err != nil || e.State == Final {
					t.Error(e, err)
				}
			}
			r.spool.Aging(time.Now(), 10)
			r.spool.Queues()
			if _, err := r.spool.Release(ctx, f); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	for deadline := time.Now().Add(20 * time.Second); r.spool.Stats().Queued() > 0 && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	idle()
	others.Wait()
	stop()
	if err := <-ran; err != nil {
		t.Error(err)
	}
	if st := r.sums(); st.Delivered != 2*workers*each || st.Queued() != 0 || st.LiveBytes != 0 {
		t.Errorf("%+v", st)
	}
}

var _ journal.Journal = (*nullJournal)(nil)
