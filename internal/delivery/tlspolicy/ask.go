package tlspolicy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"mime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godwit-mta/godwit/internal/dns"
	"github.com/godwit-mta/godwit/internal/fetch"
)

// ask leads or joins the question for a domain's policy. It returns nil only if ctx ended.
func (p *Policies) ask(ctx context.Context, domain string) *entry {
	for {
		f, leader := p.join(domain)
		if leader {
			return p.lead(ctx, domain, f)
		}
		select {
		case <-f.done:
			if f.entry != nil {
				return f.entry
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (p *Policies) join(domain string) (f *flight, leader bool) {
	p.flights.Lock()
	defer p.flights.Unlock()
	if f, ok := p.flights.byDomain[domain]; ok {
		return f, false
	}
	f = &flight{done: make(chan struct{})}
	p.flights.byDomain[domain] = f
	return f, true
}

// lead does the work of a flight. The time that mail waits is bounded, whatever happens.
func (p *Policies) lead(ctx context.Context, domain string, f *flight) *entry {
	defer func() {
		p.flights.Lock()
		delete(p.flights.byDomain, domain)
		p.flights.Unlock()
		close(f.done)
	}()
	now := time.Now()
	prev := p.cache.get(domain)
	if prev != nil && now.Before(prev.recheck) { // the flight before this one has just ended
		f.entry = prev
		return prev
	}
	limit := p.o.Wait
	if prev.holds(now) {
		limit = p.o.WaitKept
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	e := p.check(limited, domain, prev)
	if ctx.Err() != nil && e.failed > 0 {
		return nil // the caller has gone, which says nothing about the domain
	}
	p.keep(ctx, e, prev)
	f.entry = e
	return e
}

// check asks for the record, and for the policy if the record's id is not that of the policy known (RFC 8461, 3.1 and
// 5.1). Trouble of whatever kind never takes away a policy that holds.
func (p *Policies) check(ctx context.Context, domain string, prev *entry) *entry {
	txt, err := p.o.Resolver.LookupTXT(ctx, "_mta-sts."+domain)
	var d *dns.Error
	if err != nil && (!errors.As(err, &d) || d.Temporary()) {
		p.o.Logger.Debug("MTA-STS record cannot be looked up", slog.String("domain", domain), slog.Any("error", err))
		e := p.postpone(domain, prev, nil)
		e.recheck = earlier(e.recheck, time.Now().Add(time.Minute))
		return e
	}
	id, why := recordID(txt.Records)
	if why != "" {
		p.o.Logger.Debug("MTA-STS record does not count", slog.String("domain", domain), slog.String("why", why))
	}
	// If the record is gone a policy holds still: only one that says "none", or time, ends it (RFC 8461, 2 and 8.3).
	if id == "" || prev.holds(time.Now()) && prev.id == id {
		return p.postpone(domain, prev, nil)
	}
	return p.fetch(ctx, domain, id, prev)
}

// fetch gets the policy itself (RFC 8461, 3.3). id is that of the record, empty if it is not known.
func (p *Policies) fetch(ctx context.Context, domain, id string, prev *entry) *entry {
	holds := prev.holds(time.Now())
	policy, fail, outcome := p.get(ctx, domain)
	if fail != nil {
		p.metrics.fetches[outcome].Inc()
		level := slog.LevelInfo
		if holds {
			level = slog.LevelWarn // what protects mail is going to expire
		}
		p.o.Logger.Log(ctx, level, "MTA-STS policy cannot be fetched", slog.String("domain", domain), slog.String("why", fail.Error()),
			slog.Bool("kept_one_holds", holds))
		return p.postpone(domain, prev, fail)
	}
	now := time.Now()
	used := new(atomic.Int64)
	used.Store(now.Unix())
	outcome = fetchNew
	if prev != nil {
		used = prev.used
		if prev.policy != nil && slices.Equal(prev.policy.lines, policy.lines) {
			outcome = fetchSame
		}
		if id == "" {
			id = prev.id
		}
	}
	p.metrics.fetches[outcome].Inc()
	return p.newEntry(domain, policy, id, now, used)
}

func (p *Policies) get(ctx context.Context, domain string) (*stsPolicy, *Failure, string) {
	body, contentType, err := p.o.Fetch.Get(ctx, "https://mta-sts."+domain+"/.well-known/mta-sts.txt")
	if err != nil {
		text := err.Error()
		var f *fetch.Error
		if errors.As(err, &f) {
			text = f.Detail
			if f.Kind == fetch.Certificate {
				return nil, failure(STSWebPKIInvalid, text), fetchPKIX
			}
		}
		return nil, failure(STSPolicyFetchError, text), fetchFailed
	}
	// Where users can upload files, a page of theirs is not the site's policy (RFC 8461, 3.3).
	if media, _, err := mime.ParseMediaType(contentType); err != nil || media != "text/plain" {
		return nil, failure(STSPolicyFetchError, fmt.Sprintf("the policy is sent as %q, not as text/plain", cut(contentType, 60))), fetchFailed
	}
	policy, err := parsePolicy(string(body))
	if err != nil {
		return nil, failure(STSPolicyInvalid, err.Error()), fetchInvalid
	}
	return policy, nil, ""
}

// newEntry makes the entry of a policy.
func (p *Policies) newEntry(domain string, policy *stsPolicy, id string, fetched time.Time, used *atomic.Int64) *entry {
	d := &Domain{p: p, Name: domain}
	if policy.mode != modeNone {
		d.sts = policy
	}
	age := max(policy.maxAge, p.o.Recheck) // a policy of no age would be fetched for each message
	expires := fetched.Add(age)
	return &entry{
		domain: d, policy: policy, id: id, fetched: fetched, expires: expires, used: used,
		recheck: earlier(time.Now().Add(p.o.Recheck), expires), refresh: fetched.Add(jitter(min(p.o.Refresh, age/2))),
	}
}

// postpone makes the entry that says what prev does, if that holds, and else that there is no policy, and that nothing is
// asked for a while.
func (p *Policies) postpone(domain string, prev *entry, fail *Failure) *entry {
	now := time.Now()
	e := &entry{domain: &Domain{p: p, Name: domain}, used: new(atomic.Int64)}
	e.used.Store(now.Unix())
	switch {
	case prev.holds(now):
		next := *prev
		e = &next
	case prev != nil:
		e.used, e.failed = prev.used, prev.failed
	}
	e.recheck = now.Add(p.o.Recheck)
	if fail == nil {
		if e.policy == nil {
			e.failed = 0
		}
	} else {
		d := *e.domain
		d.Notes = []*Failure{fail}
		e.domain = &d
		// Run tries with all the time there is, more and more seldom, and mail does not wait for it again meanwhile.
		e.refresh = now.Add(min(p.o.Recheck<<min(e.failed, 6), max(p.o.Recheck, time.Hour)))
		if e.policy != nil { // and again before it is too late
			e.refresh = earlier(e.refresh, now.Add(max(p.o.Recheck, e.expires.Sub(now)/2)))
		}
		e.failed++
		e.recheck = e.refresh.Add(2 * time.Minute)
	}
	if e.policy != nil {
		e.recheck = earlier(e.recheck, e.expires)
	}
	return e
}

// keep puts an entry into the cache in place of prev, and what is new of it into the store.
func (p *Policies) keep(ctx context.Context, e, prev *entry) {
	dropped, ok := p.cache.put(e, &p.o, time.Now())
	if !ok {
		p.metrics.full.Inc()
		p.o.Logger.Warn("MTA-STS policy is obeyed now and not kept: there is no room", slog.String("domain", e.domain.Name))
	}
	if !ok || e.policy == nil || prev != nil && e.fetched.Equal(prev.fetched) {
		e = nil
	}
	if e != nil || len(dropped) > 0 {
		p.save(context.WithoutCancel(ctx), e, dropped)
	}
}

// refreshers bounds the fetches in the background.
const refreshers = 8

// Run fetches policies anew before they expire, and those that mail could not wait for, until ctx ends (RFC 8461, 5.1 and
// 10.2).
func (p *Policies) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		p.refreshDue(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (p *Policies) refreshDue(ctx context.Context) {
	due, expired := p.cache.due(time.Now(), p.o.Idle)
	for batch := range slices.Chunk(expired, 1000) {
		for _, name := range batch {
			p.cache.remove(name)
			p.o.Logger.Info("MTA-STS policy has expired", slog.String("domain", name))
		}
		p.save(ctx, nil, batch)
	}
	if p.o.Fetch == nil {
		return
	}
	rand.Shuffle(len(due), func(i, j int) { due[i], due[j] = due[j], due[i] }) // no host's domains all at once
	work := make(chan string)
	var all sync.WaitGroup
	for range min(refreshers, len(due)) {
		all.Go(func() {
			for domain := range work {
				p.refresh(ctx, domain)
			}
		})
	}
	for _, domain := range due {
		select {
		case work <- domain:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(work)
	all.Wait()
}

// refresh fetches a policy whatever its record says, for who can hide the record could otherwise wait for the policy to
// expire. Mail does not wait for it.
func (p *Policies) refresh(ctx context.Context, domain string) {
	prev := p.cache.get(domain)
	if prev == nil || time.Now().Before(prev.refresh) {
		return
	}
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	id := ""
	if txt, err := p.o.Resolver.LookupTXT(limited, "_mta-sts."+domain); err == nil {
		id, _ = recordID(txt.Records)
	}
	var e *entry
	if id == "" && !prev.holds(time.Now()) { // the record has gone before there was a policy
		e = p.postpone(domain, prev, nil)
	} else {
		e = p.fetch(limited, domain, id, prev)
	}
	if ctx.Err() != nil && e.failed > 0 || p.cache.get(domain) != prev { // stopped; or mail or an operator was faster
		return
	}
	p.keep(ctx, e, prev)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// jitter takes up to a quarter off.
func jitter(d time.Duration) time.Duration {
	if d < 4 {
		return d
	}
	return d - rand.N(d/4)
}
