package queue

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

// null is a spool that takes everything and holds nothing.
type null struct{ table }

func (n *null) Settle(a *spool.Attempt, done func(error)) { done(nil) }
func (n *null) Return([]*spool.Entry)                     {}
func (n *null) Queues() []spool.QueueStat                 { return nil }

// BenchmarkFreshToSettled is one fresh message through the scheduler: Fresh, worker, verdict, Settle. What the
// Deliverer and the spool cost comes on top. cpu-ns/op counts all threads.
func BenchmarkFreshToSettled(b *testing.B) {
	for _, queues := range []int{1, 1000} {
		b.Run(fmt.Sprint(queues, "queues"), func(b *testing.B) {
			var settled atomic.Int64
			attempt := sync.Pool{New: func() any { return &spool.Attempt{Results: make([]spool.Result, 1)} }}
			d := &deliver{f: func(_ context.Context, j *Job) Verdict {
				a := attempt.Get().(*spool.Attempt)
				a.Message, a.Entries = j.Message, j.Entries
				a.Results[0] = spool.Result{Outcome: spool.Delivered}
				settled.Add(1)
				attempt.Put(a)
				return Verdict{Attempt: a}
			}}
			s, err := New(Options{
				Spool: &null{}, Deliverer: d, Hostname: "mta.example.org", Store: &memory{}, IDs: message.NewIDs(nil),
			})
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan struct{})
			go func() { defer close(done); s.Run(ctx) }()
			messages := make([][]*spool.Entry, 4096)
			for i := range messages {
				m := &spool.Message{
					Tenant: "t", Size: 10_000, Received: time.Now(), Expires: time.Now().Add(time.Hour),
					Recipients: make([]smtp.Recipient, 1),
					Queues:     []spool.QueueKey{{Tenant: "t", Domain: fmt.Sprint("domain", i%queues, ".example")}},
				}
				binary.BigEndian.PutUint64(m.ID[:8], uint64(i))
				messages[i] = []*spool.Entry{{Message: m}}
			}
			b.ReportAllocs()
			before, begin := cpu(b), settled.Load()
			n := 0
			for b.Loop() {
				for int64(n)-(settled.Load()-begin) > 1000 {
					runtime.Gosched()
				}
				e := messages[n%len(messages)]
				n++
				s.Fresh(e[0].Message, e)
			}
			for settled.Load()-begin < int64(n) {
				time.Sleep(time.Microsecond)
			}
			b.ReportMetric(float64(cpu(b)-before)/float64(n), "cpu-ns/op")
			cancel()
			<-done
		})
	}
}

func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// many is a spool with many queues of which all wait.
type many struct {
	null
	stats []spool.QueueStat
}

func (m *many) Queues() []spool.QueueStat { return slices.Clone(m.stats) }

// BenchmarkList is one page of the list of 20,000 queues, and reports what each queue costs the scheduler in memory.
func BenchmarkList(b *testing.B) {
	const queues = 20_000
	tab := &many{}
	for i := range queues {
		tab.stats = append(tab.stats, spool.QueueStat{
			Key:     spool.QueueKey{Tenant: fmt.Sprint("t", i%100), Domain: fmt.Sprint("domain", i, ".example")},
			Waiting: i % 977, NextDue: time.Now().Add(time.Hour), Oldest: time.Now(),
		})
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s, err := New(Options{Spool: tab, Deliverer: &deliver{}, Hostname: "h", Store: &memory{}, IDs: message.NewIDs(nil)})
	if err != nil {
		b.Fatal(err)
	}
	for i := range tab.stats {
		s.Due(tab.stats[i].Key, tab.stats[i].NextDue)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	for b.Loop() {
		if l := s.List(Query{Limit: 100}); len(l.Queues) != 100 {
			b.Fatal("no list")
		}
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/queues, "B/queue")
}
