package crash

import (
	"context"
	"fmt"
	"time"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// runActs is row R-3: what an operator did is still done after a kill -9 that follows at once.
func runActs(ctx context.Context, t *Trial) (*Verdict, error) {
	const each = 20
	names := []string{"held", "released", "retried", "kept"}
	closed := smtptest.Script{Rules: []smtptest.Rule{{At: smtptest.AtMail, Reply: "451 4.3.2 Closed for now"}}}
	var list []*provider
	for i, name := range names {
		list = append(list, &provider{domain: name + ".example", address: fmt.Sprintf("127.0.3.%d", 1+i), script: closed})
	}
	v, _, err := withRig(ctx, t, rigOptions{providers: list, retry: "[1h]", hasty: true},
		func(ctx context.Context, r *rig) error {
			for _, name := range names {
				r.feed(ctx, feed{name: name, n: each, to: func(int) []string { return []string{"user@" + name + ".example"} }})
			}
			if err := r.count(ctx, map[string]int{"held": each, "released": each, "retried": each, "kept": each}); err != nil {
				return err
			}
			act := func(verb api.Verb, name string) error {
				c := r.client()
				defer c.Close()
				_, err := c.Act(ctx, api.Action{Verb: verb, Selection: api.Selection{Queue: name + ".example"}, Reason: "a test"})
				if err != nil {
					return fmt.Errorf("%s %s: %w", verb, name, err)
				}
				if err := r.killNow(r.p); err != nil { // nothing comes between the answer and the kill
					return err
				}
				return r.up(ctx)
			}
			for _, a := range []struct {
				verb api.Verb
				name string
			}{{api.Hold, "held"}, {api.Hold, "released"}, {api.Release, "released"}} {
				if err := act(a.verb, a.name); err != nil {
					return err
				}
			}
			for _, p := range list {
				if err := p.sink.SetScript(smtptest.Script{}); err != nil {
					return err
				}
			}
			if err := act(api.Retry, "retried"); err != nil {
				return err
			}
			r.feed(ctx, feed{name: "after", n: 1, to: func(int) []string { return []string{"user@held.example"} }})
			if err := r.await(ctx, list[2], each); err != nil {
				return err
			}
			c := r.client()
			defer c.Close()
			queues, err := c.Queues(ctx, api.QueueQuery{})
			if err != nil {
				return err
			}
			got := make(map[string]api.Queue)
			for _, q := range queues.Queues {
				got[q.Domain] = q
			}
			if q := got["held.example"]; q.Held != each+1 {
				r.v.breach(Row, "%d entries were held, and after the kill %d are, %d wait", each+1, q.Held, q.Waiting)
			}
			if q := got["released.example"]; q.Held != 0 || q.Waiting != each {
				r.v.breach(Row, "%d entries were released, and after the kill %d are held, %d wait", each, q.Held, q.Waiting)
			}
			if q := got["kept.example"]; q.Waiting != each {
				r.v.breach(Row, "%d entries waited for an hour, and %d do", each, q.Waiting)
			}
			if _, err := c.Act(ctx, api.Action{Verb: api.Release, Selection: api.Selection{All: true}}); err != nil {
				return fmt.Errorf("release: %w", err)
			}
			return nil // what waits is made due at the end
		})
	return v, err
}

// count waits until the queues hold so many entries that were tried.
func (r *rig) count(ctx context.Context, want map[string]int) error {
	c := r.client()
	defer c.Close()
	for began := time.Now(); ; {
		queues, err := c.Queues(ctx, api.QueueQuery{})
		if err != nil {
			return err
		}
		right := 0
		for _, q := range queues.Queues {
			for name, n := range want {
				if q.Domain == name+".example" && q.Waiting == n {
					right++
				}
			}
		}
		if right == len(want) {
			return nil
		}
		if time.Since(began) > 20*time.Second {
			return fmt.Errorf("the queues are not as they should be: %+v", queues.Queues)
		}
		if !pause(ctx, 20*time.Millisecond) {
			return context.Cause(ctx)
		}
	}
}

// await waits until a site has taken n recipients.
func (r *rig) await(ctx context.Context, p *provider, n int64) error {
	for began := time.Now(); p.sink.Counters().Deliveries < n; {
		if time.Since(began) > 20*time.Second {
			r.v.breach(Row, "%s got %d of %d messages after they were made due", p.domain, p.sink.Counters().Deliveries, n)
			return nil
		}
		if !pause(ctx, 20*time.Millisecond) {
			return context.Cause(ctx)
		}
	}
	return nil
}
