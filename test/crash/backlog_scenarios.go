package crash

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/godwit-mta/godwit/api"
)

// runBacklog is rows M-1 and M-2: all sinks are down while mail for many domains of many tenants is accepted; then
// they are up again.
func runBacklog(ctx context.Context, t *Trial) (_ *Verdict, err error) {
	tenants, domains, messages := t.pick(20, 100), t.pick(2000, 20000), t.runs(20_000, 300_000)
	y, err := newYard(t, tenants, domains, "delivery: {retry: [10m]}\n")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, y.close()) }()
	p, err := y.start()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.end()) }()
	y.v.checks(Row, I6, I7)
	domain := func(i int) string { return fmt.Sprintf("d%d", i%domains) }
	first, err := y.load(ctx, p, messages/10, 4<<10, 100, domain)
	if err != nil {
		return nil, err
	}
	middle, err := y.load(ctx, p, messages-2*(messages/10), 4<<10, 100, domain)
	if err != nil {
		return nil, err
	}
	last, err := y.load(ctx, p, messages/10, 4<<10, 100, domain)
	if err != nil {
		return nil, err
	}
	y.v.note("accepted %d messages of 4 KB in %s; the first tenth at %.0f/s, the last at %.0f/s, while attempts failed",
		messages, (first + middle + last).Round(time.Millisecond), float64(messages/10)/first.Seconds(),
		float64(messages/10)/last.Seconds())
	if p, err = y.measureBacklog(ctx, p, messages); err != nil {
		return nil, err
	}
	if err := y.drainBacklog(ctx, p, messages); err != nil {
		return nil, err
	}
	if err := p.stop(30 * time.Second); err != nil {
		return nil, err
	}
	return y.judge()
}

// measureBacklog is M-1: memory, the list, and a restart. It returns the new process.
func (y *yard) measureBacklog(ctx context.Context, p *process, messages int) (*process, error) {
	p99, err := y.latencies(ctx, 200)
	if err != nil {
		return p, err
	}
	u, err := p.use(ctx)
	if err != nil {
		return p, err
	}
	peak, err := p.memory("VmHWM")
	if err != nil {
		return p, err
	}
	if err := p.stop(60 * time.Second); err != nil {
		return p, err
	}
	began := time.Now()
	if p, err = y.start(); err != nil {
		return p, err
	}
	ready := time.Since(began)
	y.v.RestartMax, y.v.RestartP50 = ready, ready
	y.v.note("with %d queued: %s, at most %.0f MiB; a list of 100 queues in %s (p99); a restart is ready in %s",
		messages, u, mib(peak), p99.Round(100*time.Microsecond), ready.Round(time.Millisecond))
	if limit := 300 * time.Millisecond; p99 > limit {
		y.v.breach(Row, "listing queues takes %s (p99), and may take %s", p99, limit)
	}
	if limit := int64(256<<20) + int64(messages)*512; u.resident > limit {
		y.v.breach(Row, "%.0f MiB are resident with %d queued, and %.0f may be", mib(u.resident), messages, mib(limit))
	}
	if limit := readyLimit + time.Duration(messages)*5*time.Microsecond; ready > limit {
		y.v.breach(I6, "the start with %d queued took %s, and may take %s", messages, ready, limit)
	}
	return p, nil
}

// drainBacklog is M-2.
func (y *yard) drainBacklog(ctx context.Context, p *process, messages int) error {
	if err := y.open(ctx); err != nil {
		return err
	}
	client := y.client()
	defer client.Close()
	began := time.Now()
	if _, err := client.Act(ctx, api.Action{Verb: api.Retry, Selection: api.Selection{All: true}}); err != nil {
		return fmt.Errorf("retry: %w", err)
	}
	acted := time.Since(began)
	var half []int
	err := y.awaitEmpty(ctx, p, 5*time.Minute, func(queued int) {
		if half == nil && queued < messages/2 {
			half = y.owners()
		}
	})
	if err != nil {
		return err
	}
	took := time.Since(began)
	least, most := spread(half)
	y.v.note("sinks up: drained in %s, %.0f/s; `queue retry` of all took %s; half way tenants had %d to %d delivered",
		took.Round(time.Millisecond), float64(messages)/took.Seconds(), acted.Round(time.Millisecond), least, most)
	if least*2 < most {
		y.v.breach(Row, "half way one tenant had %d delivered and another %d, of the same backlog", least, most)
	}
	return nil
}

// runQueueChurn is row M-4: very many messages come and go while a few stay, spread over all that time.
func runQueueChurn(ctx context.Context, t *Trial) (_ *Verdict, err error) {
	messages := t.runs(200_000, 1_000_000)
	y, err := newYard(t, 4, 400, `delivery: {retry: [6h], idle_timeout: 5s}
journal: {segment_size: 8MiB}
`)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, y.close()) }()
	if err := y.open(ctx); err != nil {
		return nil, err
	}
	p, err := y.start()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.end()) }()
	y.v.checks(Row, I7)
	client := y.client()
	defer client.Close()
	// What stays is held: one domain in a hundred. What the server keeps once it has held as much, in pools, caches and maps, is
	// no growth.
	act := func(verb api.Verb) error {
		a := api.Action{Verb: verb, Selection: api.Selection{Queue: "d0." + yardDomain}, Reason: "it stays"}
		if _, err := client.Act(ctx, a); err != nil {
			return fmt.Errorf("%s: %w", verb, err)
		}
		return nil
	}
	before, err := y.afterHolding(ctx, p, messages/100, act)
	if err != nil {
		return nil, err
	}
	if err := act(api.Hold); err != nil {
		return nil, err
	}
	const steps = 5
	done := 0
	var firstList time.Duration
	for step := range steps {
		part := messages / steps
		took, err := y.load(ctx, p, part, 1<<10, 48, func(i int) string { return fmt.Sprintf("d%d", (i/4)%100) })
		if err != nil {
			return nil, err
		}
		done += part
		list, err := y.measureQueueChurn(ctx, client, done, float64(part)/took.Seconds())
		if err != nil {
			return nil, err
		}
		if step == 0 {
			firstList = max(list, 10*time.Millisecond)
		}
		if list > 5*firstList {
			y.v.breach(Row, "listing queues takes %s (p99) after %d messages, and took %s at first", list, done, firstList)
		}
	}
	if err := act(api.Release); err != nil {
		return nil, err
	}
	if err := y.awaitEmpty(ctx, p, 2*time.Minute, func(int) {}); err != nil {
		return nil, err
	}
	now, err := awaitUsage(ctx, p, before)
	if err != nil {
		return nil, err
	}
	y.v.judgeUsage(before, now)
	if err := p.stop(30 * time.Second); err != nil {
		return nil, err
	}
	return y.judge()
}

// afterHolding has n messages held, released and delivered, and returns what the server uses then.
func (y *yard) afterHolding(ctx context.Context, p *process, n int, act func(api.Verb) error) (*usage, error) {
	if err := act(api.Hold); err != nil {
		return nil, err
	}
	if _, err := y.load(ctx, p, n, 1<<10, 48, func(int) string { return "d0" }); err != nil {
		return nil, err
	}
	if err := act(api.Release); err != nil {
		return nil, err
	}
	if err := y.awaitEmpty(ctx, p, time.Minute, func(int) {}); err != nil {
		return nil, err
	}
	return p.use(ctx)
}

// Dead octets that the journal may hold before it copies the living forward, spares, and what the index takes anyway.
const churnSlack = 1<<30 + 192<<20

// measureQueueChurn looks at the disk and at the list after so many messages.
func (y *yard) measureQueueChurn(ctx context.Context, client *api.Client, done int, rate float64) (
	time.Duration, error) {
	// What has just been delivered is forgotten with the next checkpoint.
	pause(ctx, 3*time.Second)
	list, err := y.latencies(ctx, 100)
	if err != nil {
		return 0, err
	}
	s, err := client.SpoolStats(ctx)
	if err != nil {
		return 0, err
	}
	journal, err := usedBy(filepath.Join(y.data, "journal"))
	if err != nil {
		return 0, err
	}
	index, err := usedBy(filepath.Join(y.data, "index"))
	if err != nil {
		return 0, err
	}
	y.v.note("%d came, %.0f/s: %d stay with %.1f MiB; journal %.1f MiB, index %.1f MiB; list in %s (p99)", done, rate,
		s.Queued, mib(s.LiveSize), mib(journal), mib(index), list.Round(100*time.Microsecond))
	if used := journal + index; used > 2*s.LiveSize+churnSlack {
		y.v.breach(Row, "%.0f MiB on disk for %.0f MiB of living mail after %d messages", mib(used), mib(s.LiveSize), done)
	}
	return list, nil
}
