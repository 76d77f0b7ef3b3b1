package reports

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/godwit-mta/godwit/internal/delivery/tlspolicy"
	"github.com/godwit-mta/godwit/mailauth/tlsrpt"
)

var _ tlspolicy.Recorder = (*Reports)(nil)

// Bounds on what is counted.
const (
	maxDomains  = 50_000    // counted at once, those included that turned out to want no reports
	maxPolicies = 10        // of one domain in one day
	maxFailures = 100       // kinds of failures of one domain in one day
	maxStrings  = 50        // of one policy
	maxString   = 500       // octets of one of them
	maxOctets   = 32 << 20  // of all texts together
	maxValue    = 900 << 10 // octets of a record in the store
)

// wanted says whether a domain asks for reports.
type wanted uint8

const (
	unknown wanted = iota
	wants
	wantsNot
)

// tally is what was counted of one domain in one day, or since its last report.
type tally struct {
	start    time.Time
	policies []tlsrpt.Policy
	failures int  // kinds
	octets   int  // of texts
	omitted  bool // there was more than fits
	wanted   wanted
	dirty    bool // not yet in the store as it is
	stored   bool // in the store in some form
}

type tallyKey struct {
	day    time.Time // its begin, UTC
	domain string
}

// tallies is what was counted and is not yet a report.
type tallies struct {
	mu     sync.Mutex
	m      map[tallyKey]*tally
	octets int
}

// Record counts the result of one session. It never blocks.
func (r *Reports) Record(res tlspolicy.Result) {
	if !r.settings.Load().sends() || res.Domain == "" || len(res.Domain) > 255 {
		return
	}
	now := time.Now()
	if res.Time.IsZero() || !now.Before(r.over(res.Time.UTC().Truncate(r.o.Day))) {
		res.Time = now // its day has been told already
	}
	t := &r.tallies
	t.mu.Lock()
	defer t.mu.Unlock()
	key := tallyKey{res.Time.UTC().Truncate(r.o.Day), res.Domain}
	c := t.m[key]
	if c == nil {
		if len(t.m) >= maxDomains {
			r.metrics.dropped.Inc()
			return
		}
		c = &tally{start: key.day}
		t.m[key] = c
	}
	if c.wanted == wantsNot {
		return
	}
	r.metrics.results.Inc()
	before := c.octets
	c.add(&res, maxOctets-t.octets)
	t.octets += c.octets - before
}

// over returns when a day is over: a minute's grace is for what is recorded at its turn.
func (r *Reports) over(day time.Time) time.Time {
	return day.Add(r.o.Day + min(time.Minute, r.o.Day/60))
}

// add counts one result; room is how many octets of texts there is memory for.
func (c *tally) add(res *tlspolicy.Result, room int) {
	c.dirty = true
	p := c.policy(res, room)
	if p == nil {
		c.omitted = true
		return
	}
	if res.Failure == nil {
		p.Summary.Successful++
		return
	}
	p.Summary.Failed++
	f := tlsrpt.Failure{
		Type: tlsrpt.ResultType(res.Failure.Type), SendingIP: addressText(res.Source), Host: clip(res.Host), Hello: clip(res.Hello),
		ReceivingIP: addressText(res.Remote), Reason: clip(res.Failure.Detail),
	}
	for i := range p.Failures {
		have := p.Failures[i]
		have.Sessions = 0
		if have == f {
			p.Failures[i].Sessions++
			return
		}
	}
	size := 200 + len(f.Host) + len(f.Hello) + len(f.Reason)
	if c.failures >= maxFailures || size > room {
		c.omitted = true
		return
	}
	f.Sessions = 1
	c.failures++
	c.octets += size
	p.Failures = append(p.Failures, f)
}

// policy finds the counts under the policy of a result, or begins them. Nil: there is no room.
func (c *tally) policy(res *tlspolicy.Result, room int) *tlsrpt.Policy {
	for i := range c.policies {
		d := &c.policies[i].Policy
		if d.Type == tlsrpt.PolicyType(res.Policy) && same(d.Strings, res.Strings) && same(d.Hosts, res.Patterns) {
			return &c.policies[i]
		}
	}
	d := tlsrpt.PolicyDescription{
		Type: tlsrpt.PolicyType(res.Policy), Domain: res.Domain, Strings: clipAll(res.Strings), Hosts: clipAll(res.Patterns),
	}
	size := 200 + len(d.Domain)
	for _, s := range slices.Concat(d.Strings, d.Hosts) {
		size += len(s) + 16
	}
	if len(c.policies) >= maxPolicies || size > room {
		return nil
	}
	c.octets += size
	c.policies = append(c.policies, tlsrpt.Policy{Policy: d})
	return &c.policies[len(c.policies)-1]
}

// same reports whether have is what clipAll made of list.
func same(have, list []string) bool {
	if len(have) != min(len(list), maxStrings) {
		return false
	}
	for i, s := range have {
		if s != clip(list[i]) {
			return false
		}
	}
	return true
}

func clipAll(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	out := make([]string, min(len(list), maxStrings))
	for i := range out {
		out[i] = clip(list[i])
	}
	return out
}

func clip(s string) string {
	return s[:min(len(s), maxString)]
}

func addressText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.Unmap().WithZone("").String()
}

// measure counts anew what add counts, of a tally that was read back.
func (c *tally) measure() {
	c.octets, c.failures = 0, 0
	for i := range c.policies {
		p := &c.policies[i]
		c.octets += 200 + len(p.Policy.Domain)
		for _, s := range slices.Concat(p.Policy.Strings, p.Policy.Hosts) {
			c.octets += len(s) + 16
		}
		for j := range p.Failures {
			c.octets += 200 + len(p.Failures[j].Host) + len(p.Failures[j].Hello) + len(p.Failures[j].Reason)
		}
		c.failures += len(p.Failures)
	}
}
