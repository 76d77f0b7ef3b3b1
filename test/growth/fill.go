package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

// filling is a queue to be made before a server starts: entries that were tried once and wait, due over the hours
// after the first.
type filling struct {
	entries, size, domains, tenants int
}

const fillSpread = 4 * time.Hour

// tenantOf and domainOf name the owners of entry i. A domain belongs to one tenant.
func (f *filling) domainOf(i int) int    { return i % f.domains }
func (f *filling) tenantOf(d int) string { return "tenant" + strconv.Itoa(d%f.tenants) }

func domainName(d int) string { return "deep" + strconv.Itoa(d) + ".example" }

// run returns a function that fills a data directory; nil if there is nothing to fill.
func (f filling) run(ctx context.Context, b *bench) func(string) error {
	if f.entries == 0 {
		return nil
	}
	return func(data string) error {
		began := time.Now()
		if err := f.fill(ctx, data); err != nil {
			return fmt.Errorf("fill the spool: %w", err)
		}
		b.note("  filled with %d entries in %.0f s", f.entries, time.Since(began).Seconds())
		return nil
	}
}

// deferring is a spool's sink that has tried everything and found nobody.
type deferring struct {
	spool *spool.Spool
	until func() time.Time
}

func (d *deferring) Fresh(m *spool.Message, entries []*spool.Entry) {
	now := time.Now()
	a := &spool.Attempt{
		Message: m, Entries: entries, Results: make([]spool.Result, len(entries)),
		Started: now.Add(-time.Second), Ended: now, Connection: "",
	}
	for i := range a.Results {
		a.Results[i] = spool.Result{
			Outcome: spool.Deferred, Reason: event.ConnectionRefused, Class: 0, Phase: "connect",
			Host: "mx.deep.example", Site: "127.0.0.1", Source: "default",
			Explanation: "mx.deep.example refused the connection.", NextDue: d.until(),
		}
	}
	d.spool.Settle(a, nil)
}

func (*deferring) Due(spool.QueueKey, time.Time) {}

func (f *filling) fill(ctx context.Context, data string) (err error) {
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	j, err := journal.Open(journal.Options{Dir: filepath.Join(data, "journal")})
	if err != nil {
		return err
	}
	writing, endWriting := context.WithCancel(context.Background())
	written := make(chan error, 1)
	go func() { written <- j.Run(writing) }()
	defer func() {
		endWriting()
		err = errors.Join(err, <-written, j.Close())
	}()
	s, err := spool.Open(ctx, spool.Options{Dir: data, Journal: j, MemoryBudget: -1})
	if err != nil {
		return err
	}
	s.SetSink(&deferring{spool: s, until: func() time.Time {
		return time.Now().Add(time.Hour + time.Duration(rand.Int64N(int64(fillSpread))))
	}})
	running, endRunning := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(running) }()
	err = f.accept(ctx, s)
	endRunning()
	err = errors.Join(err, <-ran, s.Close())
	if err != nil {
		return err
	}
	return skipEvents(data, j.End())
}

// accept puts all entries into the spool.
func (f *filling) accept(ctx context.Context, s *spool.Spool) error {
	ids := message.NewIDs(nil)
	body := smtp.NewBody()
	defer body.Release()
	for body.Size() < int64(f.size) {
		body.Append([]byte("The quick brown godwit waits for a host that does not answer.\r\n"))
	}
	var next atomic.Int64
	failed := make(chan error, 1)
	several(128, func(int) {
		for ctx.Err() == nil {
			i := int(next.Add(1)) - 1
			if i >= f.entries {
				return
			}
			d := f.domainOf(i)
			now := time.Now()
			m := &spool.Message{
				ID: ids.New(now), Tenant: f.tenantOf(d), Stream: "default", Received: now, Expires: now.Add(72 * time.Hour),
				Session: "fill", Listener: "relay", Client: "127.0.0.1", Hello: "fill.example", Protocol: "ESMTP",
				From:       smtp.Sender{Path: smtp.Path{Local: "news", Domain: "sender.example"}},
				Size:       body.Size(),
				Recipients: []smtp.Recipient{{Path: smtp.Path{Local: "user" + strconv.Itoa(i), Domain: domainName(d)}}},
				Queues:     []spool.QueueKey{{Tenant: f.tenantOf(d), Domain: domainName(d)}},
			}
			if err := s.Accept(ctx, m, body); err != nil {
				select {
				case failed <- err:
				default:
				}
				return
			}
		}
	})
	select {
	case err := <-failed:
		return err
	default:
		return ctx.Err()
	}
}

// skipEvents tells the event log that it has told everything up to end: what it would say of the filling would be
// measured with what comes after.
func skipEvents(data string, end journal.Position) error {
	dir := filepath.Join(data, "events")
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	text, err := json.Marshal(map[string]uint64{"position": uint64(end)})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "cursor"), text, 0o640)
}
