package crash

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// remote is one misbehaving mailbox provider of a row of K: what it does, and what may come of it.
type remote struct {
	name   string // its domain is name.example
	script smtptest.Script
	second bool // it has a second MX host that is healthy
	closed bool // its best MX host listens at no port

	recipients int  // of a message; 0: 1
	nobody     bool // it refuses each recipient for good
	mixed      bool // it refuses every third one for good
	ascii      bool // it takes no octets above 127
	large      bool // its messages are larger than what a connection holds
	twice      bool // its replies do not arrive or are no SMTP, so a message may come twice
	surely     bool // and some do
	direct     bool // nothing may be deferred
	reasons    []event.Reason
	within     time.Duration // of a message from acceptance to its end; 0: not looked at
}

func (m *remote) domain() string { return m.name + ".example" }

// to returns the recipients of message i.
func (m *remote) to(i int) []string {
	list := make([]string, max(m.recipients, 1))
	for k := range list {
		who := "user"
		if m.nobody || m.mixed && k%3 == 1 {
			who = "nobody"
		}
		list[k] = fmt.Sprintf("%s%d@%s", who, k, m.domain())
	}
	return list
}

// unheard says which recipients belong to remotes whose 250 may not be understood.
func unheard(list []*remote) func(to string) bool {
	domains := make(map[string]bool)
	for _, m := range list {
		if m.twice {
			domains[m.domain()] = true
		}
	}
	return func(to string) bool {
		_, domain, _ := strings.Cut(to, "@")
		return domains[domain]
	}
}

// Addresses: 127.0.3.n for the remotes of a row, 127.0.4.n for their healthy second hosts, 127.0.5.1 for what nobody
// listens at.
func remoteWorld(list []*remote) (providers []*provider, zones string) {
	var z strings.Builder
	for n, m := range list {
		first, second := fmt.Sprintf("127.0.3.%d", n+1), fmt.Sprintf("127.0.4.%d", n+1)
		own := first
		if m.closed {
			own = "127.0.5.1"
		} else {
			providers = append(providers, &provider{address: first, script: m.script})
		}
		fmt.Fprintf(&z, "%[1]s. 300 IN MX 10 mx1.%[1]s.\nmx1.%[1]s. 300 IN A %[2]s\n", m.domain(), own)
		if m.second {
			providers = append(providers, &provider{address: second})
			fmt.Fprintf(&z, "%[1]s. 300 IN MX 20 mx2.%[1]s.\nmx2.%[1]s. 300 IN A %[2]s\n", m.domain(), second)
		}
	}
	return providers, z.String()
}

// runRemotes lets n messages go to each of the remotes, and judges each by what it is.
func runRemotes(ctx context.Context, t *Trial, list []*remote, n int, nudged bool) (*Verdict, error) {
	providers, zones := remoteWorld(list)
	v, e, err := withRig(ctx, t, rigOptions{
		providers: providers, zones: zones, drain: 3 * time.Minute, hasty: !t.Full, unheard: unheard(list),
	},
		func(ctx context.Context, r *rig) error {
			if nudged {
				defer r.nudge(ctx, 500*time.Millisecond)()
			}
			sum := r.feed(ctx, feed{
				n: n * len(list), sessions: 16, to: func(i int) []string { return list[i%len(list)].to(i / len(list)) },
				ascii: func(i int) bool { return list[i%len(list)].ascii },
			})
			r.v.note("%d remotes; %s", len(list), sum)
			if sum.accepted != n*len(list) {
				r.v.breach(Row, "of %d messages %d were accepted: %v", n*len(list), sum.accepted, sum.err)
			}
			if !nudged {
				return nil
			}
			return r.drain(ctx, r.p) // while there is somebody who nudges
		})
	if err != nil {
		return nil, err
	}
	for _, m := range list {
		judgeRemote(v, e, m, n)
	}
	return v, nil
}

// judgeRemote holds what came of the mail for one remote against what may.
func judgeRemote(v *Verdict, e *evidence, m *remote, n int) {
	v.checks(Row)
	seen := make(map[delivery]int)
	for i := range e.receptions {
		if r := &e.receptions[i]; strings.HasSuffix(r.To, "@"+m.domain()) && r.Accepted {
			seen[delivery{r.Token, r.To}]++
		}
	}
	twice := 0
	for d, times := range seen {
		if times == 1 {
			continue
		}
		twice++
		if !m.twice {
			v.breach(Row, "%s: %s came to %s %d times", m.name, d.token, d.to, times)
		}
	}
	deferred := make(map[event.Reason]int)
	final := 0
	var slowest time.Duration
	begun := make(map[string]time.Time)
	for i := range e.events {
		t := &e.events[i]
		if t.Type == event.Accepted {
			begun[t.Message] = t.Time
		}
		if t.Queue != m.domain() || t.Recipient == "" {
			continue
		}
		switch {
		case t.Type == event.Deferred:
			deferred[t.Reason]++
			if len(m.reasons) > 0 && !slices.Contains(m.reasons, t.Reason) {
				v.breach(Row, "%s: an entry is deferred as %s: %s", m.name, t.Reason, t.Explanation)
			}
			if m.direct {
				v.breach(Row, "%s: an entry is deferred, and nothing has to be: %s %s", m.name, t.Reason, t.Explanation)
			}
		case t.Type.Final():
			final++
			slowest = max(slowest, t.Time.Sub(begun[t.Message]))
		}
	}
	if want := n * max(m.recipients, 1); final != want {
		v.breach(Row, "%s: %d entries have ended, and not %d", m.name, final, want)
	}
	if m.within > 0 && slowest > m.within {
		v.breach(Row, "%s: a message took %s", m.name, slowest.Round(time.Millisecond))
	}
	if m.surely && twice == 0 && n >= 100 {
		v.breach(Row, "%s: nothing came twice, so the fault was not made", m.name)
	}
	v.note("%-22s %d ended, deferred %v, %d came twice, slowest %s", m.name, final, deferred, twice,
		slowest.Round(time.Millisecond))
}
