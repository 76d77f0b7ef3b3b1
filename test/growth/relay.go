package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// receiver is a sink at work.
type receiver struct {
	*smtptest.Sink
	address string
	cancel  context.CancelFunc
	done    chan error
}

func startSink(address string, o smtptest.SinkOptions) (*receiver, error) {
	sink, err := smtptest.NewSink(o)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &receiver{Sink: sink, address: l.Addr().String(), cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- sink.Run(ctx, l) }()
	return r, nil
}

func (r *receiver) stop() error {
	r.cancel()
	return <-r.done
}

// await returns when the sink has got n deliveries since the counter stood at from. It gives up when none comes for
// half a minute.
func (r *receiver) await(ctx context.Context, from, n int64) error {
	last, since := int64(-1), time.Now()
	for {
		got := r.Counters().Deliveries - from
		switch {
		case got >= n:
			return nil
		case got != last:
			last, since = got, time.Now()
		case time.Since(since) > 30*time.Second:
			return fmt.Errorf("%d of %d deliveries came, then none for half a minute", got, n)
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// rig is a server with a sink.
type rig struct {
	*server
	sink *receiver
	b    *bench
}

// newRig makes a data directory, lets fill put things into it, and starts both. end must be called.
func newRig(ctx context.Context, b *bench, fill func(data string) error) (*rig, error) {
	dir, err := os.MkdirTemp(b.dir, "growth")
	if err != nil {
		return nil, err
	}
	r := &rig{b: b}
	if r.sink, err = startSink("127.0.0.1:0", smtptest.SinkOptions{}); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	err = configure(dir, r.sink.address)
	if err == nil && fill != nil {
		err = fill(dir + "/data")
	}
	if err == nil {
		r.server, err = startServer(ctx, b, dir)
	}
	if err != nil {
		return nil, errors.Join(err, r.sink.stop(), os.RemoveAll(dir))
	}
	return r, nil
}

func (r *rig) end(err *error) {
	*err = errors.Join(*err, r.server.stop(), r.sink.stop(), os.RemoveAll(r.dir))
}

// measured is the cost of one run.
type measured struct {
	messages   int
	recipients int64         // deliveries
	elapsed    time.Duration // from the first message's begin to the last delivery
	accepted   time.Duration // to the last acceptance
	cpu        time.Duration
	rss        int64 // at most during the run
	load       smtptest.LoadResult
	age        smtptest.Latencies
}

func (m *measured) rate() float64       { return float64(m.messages) / m.elapsed.Seconds() }
func (m *measured) perMessage() float64 { return m.cpu.Seconds() * 1e6 / float64(m.messages) } // microseconds

// relay sends messages through the server and waits until all are delivered.
func (r *rig) relay(ctx context.Context, o smtptest.LoadOptions, recipients int) (m measured, err error) {
	o.Address = r.address
	if err := r.freshPeak(); err != nil {
		return m, err
	}
	before := r.sink.Counters().Deliveries
	cpu, err := r.cpu()
	if err != nil {
		return m, err
	}
	began := time.Now()
	if m.load, err = smtptest.Load(ctx, o); err != nil {
		return m, err
	}
	if m.load.Accepted != o.Messages {
		return m, fmt.Errorf("%d of %d messages accepted: %s", m.load.Accepted, o.Messages, m.load.FirstError)
	}
	m.accepted = time.Since(began)
	m.messages, m.recipients = o.Messages, int64(o.Messages)*int64(recipients)
	if err := r.sink.await(ctx, before, m.recipients); err != nil {
		return m, err
	}
	m.elapsed = time.Since(began)
	time.Sleep(200 * time.Millisecond) // work that trails the last delivery counts too
	after, err := r.cpu()
	if err != nil {
		return m, err
	}
	m.cpu = after - cpu
	if _, m.rss, err = r.memory(); err != nil {
		return m, err
	}
	if age := r.sink.Counters().Age; age != nil {
		m.age = *age
	}
	return m, nil
}

// warm makes the first connections and the first checkpoint, which no row is about.
func (r *rig) warm(ctx context.Context) error {
	_, err := r.relay(ctx, smtptest.LoadOptions{Messages: 500, Sessions: 50, Size: 10 << 10}, 1)
	return err
}

// several runs functions at once.
func several(n int, f func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { f(i) })
	}
	all.Wait()
}
