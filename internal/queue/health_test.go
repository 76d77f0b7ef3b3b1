package queue

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/spool"
)

// N-1, N-4: after an outage of this server's own network or DNS the queues do not wait for their probes.
func TestQueuesRecoverTogetherAfterAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		var late atomic.Int64
		b := start(t, Options{}, func(_ context.Context, j *Job) Verdict {
			if down.Load() {
				return unreachable(j)
			}
			if j.Key.Domain == "busy.example" {
				late.Add(1)
			}
			return delivered(j)
		})
		defer b.stop()
		b.accept(b.message("t", "busy.example"))
		synctest.Wait()
		down.Store(true)
		for i := range 200 {
			for range 4 {
				b.accept(b.message("t", fmt.Sprint("d", i, ".example")))
			}
		}
		time.Sleep(3 * time.Hour) // probes come every half hour now
		down.Store(false)
		b.accept(b.message("t", "busy.example"))
		time.Sleep(time.Minute)
		synctest.Wait()
		stuck := 0
		for _, info := range b.s.List(Query{Suspended: true}).Queues {
			stuck++
			t.Log(info.Key, info.Why.Text)
		}
		if stuck > 0 {
			t.Errorf("%d queues are still suspended", stuck)
		}
		if late.Load() != 2 {
			t.Errorf("%d of 2 messages to the busy destination", late.Load())
		}
	})
}

// One destination that is down for hours is not an outage: its probes keep their schedule while others are reached.
func TestOneDeadDestinationIsNoOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int64
		b := start(t, Options{}, func(_ context.Context, j *Job) Verdict {
			if j.Key.Domain == "dead.example" {
				tries.Add(1)
				return unreachable(j)
			}
			return delivered(j)
		})
		defer b.stop()
		for range 100 {
			b.accept(b.message("t", "dead.example"))
		}
		for range 360 {
			time.Sleep(time.Minute)
			b.accept(b.message("t", "good.example"))
		}
		synctest.Wait()
		if n := tries.Load(); n > 24 {
			t.Errorf("%d tries in 6 h", n)
		}
	})
}

// What this server could not do says nothing about the destination.
func TestLocalTroubleDoesNotCountAgainstTheDestination(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, Options{}, func(_ context.Context, j *Job) Verdict {
			return all(j, spool.Result{Outcome: spool.Deferred, Reason: event.LocalError, Explanation: "no route has a source"})
		})
		defer b.stop()
		for range 10 {
			b.accept(b.message("t", "a.example"))
		}
		synctest.Wait()
		info, _ := b.s.Queue(spool.QueueKey{Tenant: "t", Domain: "a.example"})
		if info.Why.Code != Scheduled || info.Waiting != 10 {
			t.Errorf("%+v", info)
		}
	})
}

// Attempts that end for one and the same want of something are one reason to rest, and none is begun before the rest is over.
func TestRestIsNotMultiplied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int64
		b := start(t, narrow(), func(_ context.Context, j *Job) Verdict {
			tries.Add(1)
			time.Sleep(10 * time.Millisecond)
			return all(j, spool.Result{Explanation: "no file handle is free"})
		})
		defer b.stop()
		for range 10 {
			b.accept(b.message("t", "a.example"))
		}
		time.Sleep(510 * time.Millisecond)
		synctest.Wait()
		info, _ := b.s.Queue(spool.QueueKey{Tenant: "t", Domain: "a.example"})
		if n := tries.Load(); n != 2 || info.Why.Code != Paused || time.Until(info.Why.Until) != 500*time.Millisecond {
			t.Errorf("%d tries, %+v", n, info.Why)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		info, _ = b.s.Queue(spool.QueueKey{Tenant: "t", Domain: "a.example"})
		if rest := time.Until(info.Why.Until); info.Why.Code != Paused || rest < time.Second || rest > 2*time.Second {
			t.Errorf("after the second: %+v", info.Why)
		}
	})
}
