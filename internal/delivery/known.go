package delivery

import (
	"sync"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/delivery/egress"
	"github.com/godwit-mta/godwit/internal/delivery/tlspolicy"
	"github.com/godwit-mta/godwit/smtp/smtpclient"
)

// knownKeys remembers for a moment which sessions fit a domain's mail, so that each message need not look at policies and
// hosts anew to find a kept session.
type knownKeys struct {
	mu  sync.RWMutex
	all map[knownKey]knownAs
}

type knownKey struct {
	domain   string
	level    Level
	optional bool // policies are ignored
}

type knownAs struct {
	key   string
	until time.Time
}

// knownFor is far below what DNS and MTA-STS let a policy be remembered.
const (
	knownFor = 30 * time.Second
	maxKnown = 8192
)

func (k *knownKeys) get(q knownKey, now time.Time) (string, bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	as, ok := k.all[q]
	if !ok || now.After(as.until) {
		return "", false
	}
	return as.key, true
}

func (k *knownKeys) set(q knownKey, key string, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.all == nil {
		k.all = make(map[knownKey]knownAs)
	}
	for old := range k.all {
		if len(k.all) < maxKnown {
			break
		}
		delete(k.all, old)
	}
	k.all[q] = knownAs{key, now.Add(knownFor)}
}

// knownKey names what the demand on a session follows from, besides the hosts. A message that demands something itself has
// none.
func (a *attempt) knownKey() knownKey {
	m := a.job.Message
	if a.wantsTLS() {
		return knownKey{}
	}
	return knownKey{domain: a.job.Key.Domain, level: a.d.level(nil, m.Tenant), optional: m.TLSOptional}
}

// askPolicies finds what the domain published, and reports what is wrong with that.
func (a *attempt) askPolicies(to *destination) {
	if a.d.o.Policies == nil || to.from.mx == nil || a.d.level(nil, a.job.Message.Tenant) == LevelNone {
		return
	}
	began := time.Now()
	a.job.Enter("policy", to.from.domain, began)
	to.from.policy = a.d.o.Policies.Domain(a.ctx, to.from.domain)
	a.record.Timings.DNS += time.Since(began)
	for _, f := range to.from.policy.Findings() {
		a.report(to, &tlspolicy.Plan{Policy: tlspolicy.KindSTS}, tlspolicy.Result{Failure: f})
	}
}

// unusable is the failure of a host that need not be connected to, nil if there is none. It also remembers which sessions
// fit.
func (a *attempt) unusable(to *destination, host string, need *demand) *failure {
	o := opening{a: a, to: to, need: need, target: egress.Target{Host: host}}
	switch {
	case need.plan.Skip != nil:
		a.report(to, &need.plan, tlspolicy.Result{Failure: need.plan.Skip, Host: host})
		f := o.failure(event.TLSPolicy, host+" is not used: "+clip(need.plan.Skip.Detail, maxQuote))
		return f
	case need.hopeless != "":
		f := o.noRequireTLS(host + " cannot prove who it is: " + need.hopeless)
		f.phase = smtpclient.PhaseTLS.String()
		return f
	}
	if key := a.knownKey(); key.domain != "" && to.route == nil {
		a.d.known.set(key, need.key, time.Now())
	}
	return nil
}
