package crash

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// runCrowded is row K-5: sites that take little, late or seldom, beside healthy ones.
func runCrowded(ctx context.Context, t *Trial) (*Verdict, error) {
	const healthy, rounds, share = 20, 3, 0.9
	n := t.runs(1000, 5000)
	slow := []*provider{
		{domain: "slow.example", script: smtptest.Script{Rate: 20}},
		{domain: "narrow.example", script: smtptest.Script{Sessions: 3}},
		{domain: "grey.example", script: smtptest.Script{Greylist: smtptest.Duration(2 * time.Second)}},
		{domain: "short.example", script: smtptest.Script{SessionMessages: 10}},
		{domain: "refusing.example", script: smtptest.Script{Rate: 100, RateReply: "451 4.7.28 Too many messages"}},
	}
	var list []*provider
	for i, p := range slow {
		p.address = fmt.Sprintf("127.0.3.%d", 100+i)
		list = append(list, p)
	}
	for i := range healthy {
		list = append(list, &provider{domain: fmt.Sprintf("d%d.example", i), address: fmt.Sprintf("127.0.3.%d", 1+i)})
	}
	v, e, err := withRig(ctx, t, rigOptions{
		providers: list, retry: "[3s, 4s, 5s]", drain: 2 * time.Minute, delivery: "retry_jitter: 30",
	}, func(ctx context.Context, r *rig) error {
		good := func(i int) []string { return []string{fmt.Sprintf("user%d@d%d.example", i, i%healthy)} }
		rate := func(name string) (float64, error) {
			began := time.Now()
			before := r.reachedAll(list[len(slow):])
			r.feed(ctx, feed{name: name, n: n, sessions: 16, to: good})
			for r.reachedAll(list[len(slow):])-before < int64(n) {
				if time.Since(began) > time.Minute {
					return 0, fmt.Errorf("healthy sites got only %d of %d messages within a minute",
						r.reachedAll(list[len(slow):])-before, n)
				}
				if !pause(ctx, 5*time.Millisecond) {
					return 0, context.Cause(ctx)
				}
			}
			return float64(n) / time.Since(began).Seconds(), nil
		}
		// The machine is shared, so what is measured twice differs by a tenth or two without any cause: the best of some rounds counts.
		best := func(name string) (most float64, err error) {
			for i := range rounds {
				one, err := rate(fmt.Sprintf("%s%d", name, i))
				if err != nil {
					return 0, err
				}
				most = max(most, one)
			}
			return most, nil
		}
		alone, err := best("alone")
		if err != nil {
			return err
		}
		limited := t.pick(200, 1000)
		r.feed(ctx, feed{name: "slow", n: limited, sessions: 16, to: func(i int) []string {
			return []string{fmt.Sprintf("user%d@%s", i, slow[i%len(slow)].domain)}
		}})
		beside, err := best("beside")
		if err != nil {
			return err
		}
		r.v.note("healthy sites take %.0f messages a second alone, %.0f beside %d for limited ones", alone, beside, limited)
		if beside < share*alone {
			r.v.breach(Row, "healthy sites take %.0f messages a second, and beside limited ones %.0f", alone, beside)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	judgeSpread(v, e)
	return v, nil
}

// reachedAll returns how many recipients the sites have taken.
func (r *rig) reachedAll(list []*provider) (n int64) {
	for _, p := range list {
		n += p.sink.Counters().Deliveries
	}
	return n
}

// judgeSpread looks whether entries that were deferred together are due together again.
func judgeSpread(v *Verdict, e *evidence) {
	var pauses []time.Duration
	first := make(map[string]time.Time)
	var due []time.Time
	for i := range e.events {
		t := &e.events[i]
		if t.Type != event.Deferred || t.Queue != "grey.example" || t.NextAttempt.IsZero() || t.Attempt > 1 {
			continue
		}
		pauses = append(pauses, t.NextAttempt.Sub(t.Time))
		due = append(due, t.NextAttempt)
		first[t.Entry] = t.Time
	}
	if len(pauses) < 20 {
		v.breach(Row, "only %d entries were deferred by the greylisting site, too few to tell", len(pauses))
		return
	}
	slices.Sort(pauses)
	slices.SortFunc(due, time.Time.Compare)
	most := 0 // due within a tenth of the spread
	for i, j := 0, 0; i < len(due); i++ {
		for due[i].Sub(due[j]) > 180*time.Millisecond {
			j++
		}
		most = max(most, i-j+1)
	}
	v.note("%d entries deferred together wait %s to %s; at most %d of them are due within 0.2 s", len(pauses),
		pauses[0].Round(time.Millisecond), pauses[len(pauses)-1].Round(time.Millisecond), most)
	if pauses[len(pauses)-1]-pauses[0] < time.Second || most > len(due)/2 {
		v.breach(Row, "entries that are deferred together come back together: %s to %s, %d within 0.2 s", pauses[0],
			pauses[len(pauses)-1], most)
	}
}
