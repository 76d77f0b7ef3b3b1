package journal_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/smtp"
)

// BenchmarkAppend is what acceptance costs on the file system of the test's temporary directory: 10 KB messages with
// a meta of 300 octets, from a number of writers that each wait for their verdict.
func BenchmarkAppend(b *testing.B) {
	for _, writers := range []int{1, 16, 50, 128} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			dir := benchDir(b)
			j := openRunning(b, journal.Options{Dir: dir})
			meta := make([]byte, 300)
			body := smtp.BodyOf(make([]byte, 10_000))
			defer body.Release()
			ctx := context.Background()
			b.ReportAllocs()
			b.SetBytes(10_344)
			var next atomic.Int64
			b.ResetTimer()
			var wg sync.WaitGroup
			for range writers {
				wg.Go(func() {
					batch := &journal.Batch{Records: make([]journal.Record, 1)}
					for next.Add(1) <= int64(b.N) {
						batch.Records[0] = journal.Record{Kind: 1, Meta: meta, Body: body}
						if err := j.Append(ctx, batch); err != nil {
							b.Error(err)
							return
						}
						// As the spool does: what is no longer needed goes.
						if p := batch.Records[0].Position; p.Offset() < 10_000 {
							for _, e := range j.Extents() {
								if e.Sealed {
									if err := j.Remove(ctx, e.ID); err != nil {
										b.Error(err)
									}
								}
							}
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}

func benchDir(b *testing.B) string {
	b.Helper()
	dir, err := os.MkdirTemp(os.Getenv("BENCH_DIR"), "journal")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	return dir + "/journal"
}

// openRunning opens a journal and runs it until the end of the test.
func openRunning(tb testing.TB, o journal.Options) *journal.Log {
	tb.Helper()
	j, err := journal.Open(o)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- j.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && j.Err() == nil {
			tb.Error(err)
		}
		if err := j.Close(); err != nil {
			tb.Error(err)
		}
	})
	return j
}

// benchLog is a journal on disk with 6,000 messages of 10 KB in its only, unsealed segment.
func benchLog(b *testing.B) (*journal.Log, string, []journal.Position) {
	b.Helper()
	dir := benchDir(b)
	j := openRunning(b, journal.Options{Dir: dir})
	body := smtp.BodyOf(make([]byte, 10_000))
	defer body.Release()
	batch := &journal.Batch{}
	for range 6000 {
		batch.Records = append(batch.Records, journal.Record{Kind: 1, Meta: make([]byte, 300), Body: body})
	}
	if err := j.Append(context.Background(), batch); err != nil {
		b.Fatal(err)
	}
	var p []journal.Position
	for _, r := range batch.Records {
		p = append(p, r.Position)
	}
	return j, dir, p
}

// BenchmarkReader is what a view's replay costs per record, bodies of 10 KB skipped.
func BenchmarkReader(b *testing.B) {
	j, _, all := benchLog(b)
	b.ReportAllocs()
	n := 0
	var r journal.Reader
	for b.Loop() {
		if n%len(all) == 0 {
			if r != nil {
				r.Close()
			}
			var err error
			if r, err = j.NewReader(0); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := r.Next(context.Background(), false); err != nil {
			b.Fatal(err)
		}
		n++
	}
	r.Close()
}

// BenchmarkRead is what it costs to fetch one message of 10 KB back.
func BenchmarkRead(b *testing.B) {
	j, _, all := benchLog(b)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		r, err := j.Read(context.Background(), all[n%len(all)])
		if err != nil {
			b.Fatal(err)
		}
		r.Body.Release()
		n++
	}
}

// BenchmarkRecover is Open after a crash with 60 MB in the unsealed segment, all verified.
func BenchmarkRecover(b *testing.B) {
	_, dir, _ := benchLog(b)
	for b.Loop() {
		j, err := journal.Open(journal.Options{Dir: dir, ReadOnly: true})
		if err != nil {
			b.Fatal(err)
		}
		if err := j.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
