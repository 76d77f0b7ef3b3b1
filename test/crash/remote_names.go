package crash

import (
	"context"
	"fmt"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/dns/dnstest"
)

// runNames is row N-1: DNS does not answer, loses half of what it is asked, or fails, while mail is taken.
func runNames(ctx context.Context, t *Trial) (*Verdict, error) {
	span := time.Duration(t.pick(3, 5)) * time.Second
	const domains = 30
	var list []*provider
	for i := range domains {
		list = append(list, &provider{domain: fmt.Sprintf("d%d.example", i), address: fmt.Sprintf("127.0.3.%d", 1+i)})
	}
	v, e, err := withRig(ctx, t, rigOptions{providers: list, drain: 90 * time.Second}, func(ctx context.Context, r *rig) error {
		to := func(from, n int) func(int) []string {
			return func(i int) []string { return []string{fmt.Sprintf("user@d%d.example", from+i%n)} }
		}
		rate := float64(t.pick(200, 500))
		load := func(name string, to func(int) []string) *fed {
			limited, cancel := context.WithTimeout(ctx, span)
			defer cancel()
			sum := r.feed(limited, feed{name: name, sessions: 8, rate: rate, to: to})
			r.v.note("%s: %s", name, sum)
			return sum
		}
		calm := load("calm", to(0, 6))
		err := r.drain(ctx, r.p)
		if err == nil {
			r.began, err = r.p.use(ctx) // with the pools and caches that it keeps
		}
		if err != nil {
			return err
		}
		for i, f := range []struct {
			name string
			b    dnstest.Behaviour
		}{
			{"dead", dnstest.Behaviour{Drop: true}},
			{"loss", dnstest.Behaviour{Drop: true, Share: 0.5}},
			{"servfail", dnstest.Behaviour{Rcode: "SERVFAIL"}},
			{"slow", dnstest.Behaviour{Delay: 10 * time.Second}},
		} {
			r.world.dns.Fail("*", f.b)
			sum := load(f.name, to(6+6*i, 6)) // names that no cache knows
			if sum.accepted < calm.accepted*3/4 || sum.refused+sum.unknown > 0 {
				r.v.breach(Row, "with DNS %s %s; and without %s", f.name, sum, calm)
			}
			if a, b := calm.quantile(0.5), sum.quantile(0.5); b > 3*a+20*time.Millisecond {
				r.v.breach(Row, "with DNS %s mail is accepted in %s (half), and without in %s", f.name, b, a)
			}
			r.world.dns.Fail("*", dnstest.Behaviour{})
			r.began.heap += int64(sum.accepted) * 256 // Go's maps keep the room that they needed for what piled up
		}
		began := time.Now()
		defer r.nudge(ctx, 2*time.Second)() // suspended queues are tried again by an operator; else it takes minutes
		if err := r.drain(ctx, r.p); err != nil {
			return err
		}
		r.v.note("all is delivered %s after DNS was well again", time.Since(began).Round(100*time.Millisecond))
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i := range e.events {
		if t := &e.events[i]; t.Type == event.Bounced || t.Type == event.Expired {
			v.breach(Row, "DNS made an entry of %s final: %s %s", t.Queue, t.Type, t.Explanation)
		}
	}
	return v, nil
}
