package spool

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

// nullJournal takes everything and keeps nothing, so that benchmarks measure the spool. Done is called by one
// goroutine in order, as the contract says.
type nullJournal struct {
	mu   sync.Mutex
	at   atomic.Uint64
	work []*journal.Batch
	wake chan struct{}
}

func newNullJournal() *nullJournal { return &nullJournal{wake: make(chan struct{}, 1)} }

func (j *nullJournal) Run(ctx context.Context) error {
	var work []*journal.Batch
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-j.wake:
		}
		j.mu.Lock()
		work, j.work = j.work, work[:0]
		j.mu.Unlock()
		for _, b := range work {
			for i := range b.Records {
				b.Records[i].Position = journal.Position(j.at.Add(1000))
			}
			b.Done(b, nil)
		}
	}
}

func (j *nullJournal) Submit(b *journal.Batch) {
	j.mu.Lock()
	j.work = append(j.work, b)
	j.mu.Unlock()
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

func (j *nullJournal) Append(context.Context, *journal.Batch) error        { return nil }
func (j *nullJournal) AppendWritten(context.Context, *journal.Batch) error { return nil }
func (j *nullJournal) Read(context.Context, journal.Position) (journal.Record, error) {
	return journal.Record{}, journal.ErrNoRecord
}
func (j *nullJournal) NewReader(journal.Position) (journal.Reader, error) { return nullReader{}, nil }
func (j *nullJournal) End() journal.Position                              { return journal.Position(j.at.Load() + 1) }
func (j *nullJournal) Extents() (all []journal.Extent) {
	for id := range j.ExtentOf(j.End()) + 1 {
		all = append(all, journal.Extent{ID: id})
	}
	return all
}
func (j *nullJournal) ExtentOf(p journal.Position) journal.ExtentID   { return journal.ExtentID(p >> 26) }
func (j *nullJournal) Remove(context.Context, journal.ExtentID) error { return nil }
func (j *nullJournal) Roll(context.Context) error                     { return nil }
func (j *nullJournal) Owner() string                                  { return "null" }
func (j *nullJournal) Epoch() uint64                                  { return 1 }
func (j *nullJournal) Failed() <-chan struct{}                        { return nil }
func (j *nullJournal) Err() error                                     { return nil }
func (*nullJournal) Room(int64) error                                 { return nil }
func (j *nullJournal) Damage() []journal.Damage                       { return nil }
func (j *nullJournal) Close() error                                   { return nil }

type nullReader struct{}

func (nullReader) Next(context.Context, bool) (journal.Entry, error) { return journal.Entry{}, io.EOF }
func (nullReader) Close() error                                      { return nil }

// settler settles everything at once, as a queue does whose deliveries take no time.
type settler struct {
	spool  *Spool
	result Result
}

func (s *settler) Fresh(m *Message, es []*Entry) {
	now := time.Now()
	a := &Attempt{Message: m, Entries: es, Results: make([]Result, len(es)), Started: now, Ended: now}
	for i := range a.Results {
		a.Results[i] = s.result
	}
	s.spool.Settle(a, nil)
}
func (s *settler) Due(QueueKey, time.Time) {}

func benchSpool(b *testing.B, dir string, fs vfs.FS, j journal.Journal) (*Spool, func()) {
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = j.Run(ctx) })
	s, err := Open(context.Background(), Options{Dir: dir, FS: fs, Journal: j})
	if err != nil {
		b.Fatal(err)
	}
	running, halt := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(running) }()
	return s, func() {
		halt()
		if err := <-ran; err != nil {
			b.Error(err)
		}
		if err := s.Close(); err != nil {
			b.Error(err)
		}
		stop()
		wg.Wait()
	}
}

func benchMessage(ids *message.IDs, i int) *Message {
	now := time.Now()
	domain := "d" + strconv.Itoa(i%20000) + ".example"
	return &Message{
		ID: ids.New(now), Tenant: "default", Stream: "bulk", Received: now, Expires: now.Add(72 * time.Hour),
		DelayNotice: now.Add(4 * time.Hour), Session: "0123456789", Listener: "submission", Client: "192.0.2.1",
		Hello: "client.example", Protocol: "ESMTP",
		From:       smtp.Sender{Path: smtp.Path{Local: "news", Domain: "sender.example"}},
		Recipients: []smtp.Recipient{{Path: smtp.Path{Local: "user" + strconv.Itoa(i), Domain: domain}}},
		Queues:     []QueueKey{{"default", domain}},
		HeaderFrom: "news@sender.example", Subject: "Weekly news", MessageID: "<0123456789abcdef@sender.example>",
	}
}

// BenchmarkAcceptSettle is the life of a message that is delivered at once, without the journal.
func BenchmarkAcceptSettle(b *testing.B) {
	s, stop := benchSpool(b, "/spool", vfs.NewMem(), newNullJournal())
	s.SetSink(&settler{s, delivered()})
	body := smtp.BodyOf(make([]byte, 10<<10))
	ids := message.NewIDs(nil)
	var n atomic.Int64
	b.ReportAllocs()
	b.SetParallelism(8)
	report := cpu(b)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m := benchMessage(ids, int(n.Add(1)))
			m.Size = body.Size()
			if err := s.Accept(context.Background(), m, body); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.StopTimer()
	report()
	stop()
}

// BenchmarkAcceptSettleDurable is the same with the real journal on a real disk, 50 messages at a time.
func BenchmarkAcceptSettleDurable(b *testing.B) {
	dir := b.TempDir()
	j, err := journal.Open(journal.Options{Dir: dir + "/journal"})
	if err != nil {
		b.Fatal(err)
	}
	s, stop := benchSpool(b, dir, vfs.Default, j)
	s.SetSink(&settler{s, delivered()})
	body := smtp.BodyOf(make([]byte, 10<<10))
	ids := message.NewIDs(nil)
	var n atomic.Int64
	b.ReportAllocs()
	b.SetBytes(10 << 10)
	b.SetParallelism(50 / runtime.GOMAXPROCS(0))
	report := cpu(b)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m := benchMessage(ids, int(n.Add(1)))
			m.Size = body.Size()
			if err := s.Accept(context.Background(), m, body); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.StopTimer()
	report()
	stop()
	if err := j.Close(); err != nil {
		b.Error(err)
	}
}

// BenchmarkAcceptDefer is the life of a message whose first attempt fails for now: it goes to the index.
func BenchmarkAcceptDefer(b *testing.B) {
	s, stop := benchSpool(b, b.TempDir(), vfs.Default, newNullJournal())
	s.SetSink(&settler{s, deferred(time.Now().Add(time.Hour))})
	body := smtp.BodyOf(make([]byte, 4<<10))
	ids := message.NewIDs(nil)
	var n atomic.Int64
	b.ReportAllocs()
	b.SetParallelism(8)
	report := cpu(b)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m := benchMessage(ids, int(n.Add(1)))
			m.Size = body.Size()
			if err := s.Accept(context.Background(), m, body); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.StopTimer()
	report()
	stop()
}

// BenchmarkClaim claims entries of one queue from the index, 100 at a time.
func BenchmarkClaim(b *testing.B) {
	s, stop := benchSpool(b, b.TempDir(), vfs.Default, newNullJournal())
	defer stop()
	due := time.Now().Add(time.Hour)
	s.SetSink(&settler{s, deferred(due)})
	body := smtp.BodyOf(make([]byte, 4<<10))
	ids := message.NewIDs(nil)
	key := QueueKey{"default", "d0.example"}
	fill := func(n int) {
		for range n {
			m := benchMessage(ids, 0)
			if err := s.Accept(context.Background(), m, body); err != nil {
				b.Fatal(err)
			}
		}
		if err := s.Checkpoint(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	left := 0
	for b.Loop() {
		if left == 0 {
			b.StopTimer()
			fill(20000)
			left = 20000
			b.StartTimer()
		}
		es, err := s.Claim(context.Background(), key, due.Add(time.Minute), 100, nil)
		if err != nil || len(es) != 100 {
			b.Fatalf("%d claimed, %v", len(es), err)
		}
		left -= len(es)
		for _, e := range es {
			s.Settle(&Attempt{Message: e.Message, Entries: []*Entry{e}, Results: []Result{delivered()}}, nil)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/entry")
}

// BenchmarkOpen opens a spool with entries in the index; SPOOL_BENCH_ENTRIES says how many.
func BenchmarkOpen(b *testing.B) {
	n, _ := strconv.Atoi(os.Getenv("SPOOL_BENCH_ENTRIES"))
	if n == 0 {
		n = 50_000
	}
	dir, j := b.TempDir(), newNullJournal()
	s, stop := benchSpool(b, dir, vfs.Default, j)
	s.SetSink(&settler{s, deferred(time.Now().Add(time.Hour))})
	body := smtp.BodyOf(make([]byte, 4<<10))
	ids := message.NewIDs(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for range 16 {
		wg.Go(func() {
			for {
				i := int(next.Add(1))
				if i > n {
					return
				}
				if err := s.Accept(context.Background(), benchMessage(ids, i), body); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	filled := time.Since(began)
	stop()
	var mem runtime.MemStats
	for b.Loop() {
		s, stop := benchSpool(b, dir, vfs.Default, j)
		if got := s.Stats().Waiting; got != n {
			b.Fatalf("%d waiting, want %d", got, n)
		}
		b.StopTimer()
		runtime.GC()
		runtime.ReadMemStats(&mem)
		stop()
		b.StartTimer()
	}
	b.ReportMetric(float64(mem.HeapAlloc)/(1<<20), "MiB-heap")
	b.ReportMetric(float64(n)/filled.Seconds(), "fill/s")
	if size, err := dirSize(dir); err == nil {
		b.ReportMetric(float64(size)/float64(n), "disk-B/entry")
	}
}

// cpu reports the processor time of the whole process, since other programs run beside benchmarks.
func cpu(b *testing.B) (report func()) {
	before := used(b)
	return func() { b.ReportMetric(float64(used(b)-before)/float64(b.N), "cpu-ns/op") }
}

// used returns the processor time of the whole process.
func used(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func dirSize(dir string) (n int64, err error) {
	files, err := os.ReadDir(dir + "/index")
	for _, f := range files {
		if info, e := f.Info(); e == nil {
			n += info.Size()
		}
	}
	if err != nil {
		err = fmt.Errorf("index: %w", err)
	}
	return n, err
}

// BenchmarkBacklog is the life of entries that wait, without the journal: they are deferred, made due by an operator while
// nothing is delivered, then claimed from the index and delivered, queue by queue. SPOOL_BENCH_ENTRIES says how many.
// It reports the processor time of each step for one entry.
func BenchmarkBacklog(b *testing.B) {
	n, _ := strconv.Atoi(os.Getenv("SPOOL_BENCH_ENTRIES"))
	if n == 0 {
		n = 50_000
	}
	queues := max(1, n/50)
	body := smtp.BodyOf(make([]byte, 4<<10))
	var spent [3]time.Duration
	for b.Loop() {
		s, stop := benchSpool(b, b.TempDir(), vfs.Default, newNullJournal())
		var mark time.Duration
		step := func(i int) {
			if err := s.Checkpoint(); err != nil {
				b.Fatal(err)
			}
			now := used(b)
			if i >= 0 {
				spent[i] += now - mark
			}
			mark = now
		}
		step(-1)
		s.SetSink(&settler{s, deferred(time.Now().Add(time.Hour))})
		ids := message.NewIDs(nil)
		for i := range n {
			m := benchMessage(ids, i%queues)
			if err := s.Accept(context.Background(), m, body); err != nil {
				b.Fatal(err)
			}
		}
		step(0)
		if got, err := s.Reschedule(context.Background(), Filter{}, time.Now()); err != nil || got != n {
			b.Fatalf("%d made due, %v", got, err)
		}
		step(1)
		for left := n; left > 0; {
			for i := range queues {
				key := QueueKey{"default", "d" + strconv.Itoa(i%20000) + ".example"}
				es, err := s.Claim(context.Background(), key, time.Now(), 16, nil)
				if err != nil {
					b.Fatal(err)
				}
				left -= len(es)
				for _, e := range es {
					s.Settle(&Attempt{Message: e.Message, Entries: []*Entry{e}, Results: []Result{delivered()}}, nil)
				}
			}
		}
		step(2)
		stop()
	}
	for i, name := range []string{"defer-ns/entry", "due-ns/entry", "deliver-ns/entry"} {
		b.ReportMetric(float64(spent[i])/float64(b.N*n), name)
	}
}
