package crash

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

const (
	day  = 24 * time.Hour
	year = 365 * day
)

// clockWorld is what mail meets in N-2: a site that takes it, one that defers half of it, and one that cannot be
// reached.
func clockWorld() []*provider {
	return []*provider{
		{domain: "good.example", address: "127.0.3.1"},
		{domain: "grey.example", address: "127.0.3.2", script: smtptest.Script{Rules: []smtptest.Rule{
			{At: smtptest.AtRcpt, Share: 0.5, Reply: "451 4.7.1 Come back"},
		}}},
		{domain: "dead.example", address: "127.0.3.3", script: deadScript},
	}
}

var deadScript = smtptest.Script{Rules: []smtptest.Rule{{At: smtptest.AtBanner, Drop: smtptest.DropRST}}}

// runClock is row N-2: the clock is set while mail is taken, delivered, waits and rests, and while the server is down.
func runClock(ctx context.Context, t *Trial) (v *Verdict, err error) {
	binary, err := buildWithClock(ctx, t.Dir)
	if err != nil {
		return nil, err
	}
	clock, err := newWallClock(t.Dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, clock.close()) }()
	live := []time.Duration{time.Hour, -time.Hour, -day, day, 10 * year, -10 * year}
	rest := time.Duration(t.pick(3, 4)) * time.Second
	v, e, err := withRig(ctx, t, rigOptions{
		binary: binary, env: []string{clock.env()}, providers: clockWorld(), retry: "[2s, 3s]", drain: time.Minute,
		stepped: true, hasty: true,
	}, func(ctx context.Context, r *rig) error {
		load, stop := context.WithCancel(ctx)
		defer stop()
		var fed sync.WaitGroup
		defer fed.Wait()
		sites := []string{"good", "grey"}
		fed.Go(func() {
			sum := r.feed(load, feed{name: "live", sessions: 4, rate: 100, to: func(i int) []string {
				return []string{fmt.Sprintf("user@%s.example", sites[i%2])}
			}})
			r.v.note("while the clock was set: %s", sum)
		})
		dead := r.world.providers[2]
		r.feed(ctx, feed{name: "dead", n: 200, sessions: 2, to: func(int) []string { return []string{"user@dead.example"} }})
		for _, d := range live {
			before := dead.sink.Counters().Connections
			clock.step(d)
			pause(ctx, rest)
			if n := dead.sink.Counters().Connections - before; n > 3 {
				r.v.breach(Row, "after a step of %s a site that cannot be reached was asked %d times within %s", d, n, rest)
			}
		}
		stop()
		fed.Wait()
		if err := r.clockRestarts(ctx, clock); err != nil {
			return err
		}
		if err := r.emptied(ctx, "good.example", "grey.example"); err != nil {
			return err
		}
		return r.retry(ctx) // or the next look at the site that could not be reached would take a minute
	})
	if err != nil {
		return nil, err
	}
	v.checks(Row)
	most := make(map[string]int)
	for i := range e.events {
		t := &e.events[i]
		if t.Type == event.Expired {
			v.breach(Row, "an entry of %s expired: %s", t.Queue, t.Explanation)
		}
		if t.Attempt > 0 {
			most[t.Queue] = max(most[t.Queue], t.Attempt)
		}
	}
	v.note("attempts of one entry, at most: %v", most)
	return v, nil
}

// clockRestarts sets the clock while the server is down, with mail that waits for a site that cannot be reached and, the
// last time, can.
func (r *rig) clockRestarts(ctx context.Context, clock *wallClock) error {
	dead := r.world.providers[2]
	for i, d := range []time.Duration{-day, 10 * year, -10 * year} {
		if d > 0 { // what is too old is tried once; here it succeeds
			if err := dead.sink.SetScript(smtptest.Script{}); err != nil {
				return err
			}
		}
		if err := r.down(); err != nil {
			return err
		}
		clock.step(d)
		if err := r.up(ctx); err != nil {
			return err
		}
		if d > 0 {
			if err := r.emptied(ctx, "dead.example"); err != nil {
				return err
			}
			if err := dead.sink.SetScript(deadScript); err != nil {
				return err
			}
		}
		r.feed(ctx, feed{name: fmt.Sprint("again", i), n: 50, sessions: 2, to: func(k int) []string {
			return []string{fmt.Sprintf("user@%s.example", []string{"grey", "dead"}[k%2])}
		}})
	}
	return dead.sink.SetScript(smtptest.Script{})
}

// emptied waits until nothing waits for the sites any more. Nobody but the schedule of the server helps it.
func (r *rig) emptied(ctx context.Context, sites ...string) error {
	const limit = 100 * time.Second
	client := r.client()
	defer client.Close()
	began := time.Now()
	for _, site := range sites {
		for {
			list, err := client.Queues(ctx, api.QueueQuery{Domain: site})
			if err != nil {
				return fmt.Errorf("look at the queue of %s: %w", site, err)
			}
			if list.Entries == 0 {
				break
			}
			if time.Since(began) > limit {
				r.v.breach(Row, "%s after %s took mail %d entries are left: %s", limit, site, list.Entries,
					list.Queues[0].Why.Text)
				break
			}
			if !pause(ctx, 200*time.Millisecond) {
				return context.Cause(ctx)
			}
		}
	}
	return nil
}
