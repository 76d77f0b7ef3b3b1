package tlspolicy

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godwit-mta/godwit/internal/store"
)

// keyPrefix is where policies lie in the store, by domain.
const keyPrefix = "sts/"

// entry is what is known of a domain. It does not change; a newer one takes its place.
type entry struct {
	domain *Domain // handed out; its policy is nil if the domain has none or it says "none"

	// Of a policy, also one that says "none". It holds until expires.
	policy           *stsPolicy
	id               string
	fetched, expires time.Time

	recheck time.Time // until then nothing is asked
	refresh time.Time // when Run is to fetch; zero: never
	failed  int       // fetches in a row that gave nothing

	used *atomic.Int64 // Unix seconds of the last mail; goes on from entry to entry
}

// holds reports whether e has a policy that has not expired.
func (e *entry) holds(now time.Time) bool {
	return e != nil && e.policy != nil && now.Before(e.expires)
}

func (e *entry) touch(now time.Time) {
	if at := now.Unix(); e.used.Load() != at {
		e.used.Store(at)
	}
}

// size is what a policy counts against the bound on all of them.
func (e *entry) size() int {
	if e.policy == nil {
		return 0
	}
	n := 200 + len(e.domain.Name)
	for _, l := range e.policy.lines {
		n += 2 * len(l) // as lines and as patterns
	}
	return n
}

// cache holds entries in memory, in two parts: domains with policy, and domains of which is known that they have none. The
// second is bounded by dropping at random. In the first a policy that is obeyed is never dropped for another one:
// whoever can make this server send to many domains of theirs could otherwise drive out the policy that protects
// another. When it is full of those, new ones are obeyed at the time and not kept.
type cache struct {
	mu       sync.RWMutex
	policies map[string]*entry
	others   map[string]*entry
	octets   int // of policies
}

func (c *cache) get(domain string) *entry {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if e := c.policies[domain]; e != nil {
		return e
	}
	return c.others[domain]
}

func (c *cache) count() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.policies)
}

// put keeps e in place of what is known of its domain. dropped names policies that are to leave the store; ok is false
// if e's policy could not be kept.
func (c *cache) put(e *entry, o *Options, now time.Time) (dropped []string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	name := e.domain.Name
	had := c.policies[name] != nil
	c.removeLocked(name)
	if e.policy == nil {
		if had {
			dropped = append(dropped, name)
		}
		c.putOtherLocked(e, o)
		return dropped, true
	}
	for len(c.policies) >= o.MaxPolicies || c.octets+e.size() > o.MaxOctets {
		victim := c.leastLocked(now)
		if victim == "" {
			if had {
				dropped = append(dropped, name)
			}
			if e.size() <= maxTransient { // not asked for by each message at least
				c.putOtherLocked(e, o)
			}
			return dropped, false
		}
		c.removeLocked(victim)
		dropped = append(dropped, victim)
	}
	c.policies[name] = e
	c.octets += e.size()
	return dropped, true
}

// maxTransient bounds the policies that take the place of a domain without one.
const maxTransient = 2 << 10

func (c *cache) putOtherLocked(e *entry, o *Options) {
	for old := range c.others { // in random order
		if len(c.others) < o.MaxWithout {
			break
		}
		delete(c.others, old)
	}
	c.others[e.domain.Name] = e
}

// leastLocked finds a policy that may be dropped: one that has expired, else one that demands nothing.
func (c *cache) leastLocked(now time.Time) (victim string) {
	for name, e := range c.policies {
		switch {
		case !e.holds(now):
			return name
		case e.policy.mode != modeEnforce && victim == "":
			victim = name
		}
	}
	return victim
}

func (c *cache) removeLocked(domain string) {
	if e := c.policies[domain]; e != nil {
		c.octets -= e.size()
		delete(c.policies, domain)
	}
	delete(c.others, domain)
}

func (c *cache) remove(domain string) (had bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	had = c.policies[domain] != nil
	c.removeLocked(domain)
	return had
}

// due returns the entries for Run: those to fetch anew, and policies that have expired.
func (c *cache) due(now time.Time, idle time.Duration) (fetch []string, expired []string) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, part := range []map[string]*entry{c.policies, c.others} {
		for name, e := range part {
			switch {
			case e.policy != nil && !e.holds(now):
				expired = append(expired, name)
			case e.refresh.IsZero() || now.Before(e.refresh), now.Sub(time.Unix(e.used.Load(), 0)) > idle:
			default:
				fetch = append(fetch, name)
			}
		}
	}
	return fetch, expired
}

// kept is a policy as the store has it.
type kept struct {
	ID      string    `json:"id"`
	Fetched time.Time `json:"fetched"`
	Used    time.Time `json:"used"`
	Policy  string    `json:"policy"` // as published
}

// load reads what the store keeps. What cannot be read is left out and said: mail must go on.
func (p *Policies) load(ctx context.Context) error {
	now := time.Now()
	for kv, err := range p.o.Store.Scan(ctx, keyPrefix) {
		if err != nil {
			return fmt.Errorf("tlspolicy: reading kept policies: %w", err)
		}
		name := strings.TrimPrefix(kv.Key, keyPrefix)
		var k kept
		if err := json.Unmarshal(kv.Value, &k); err != nil {
			p.o.Logger.Error("kept MTA-STS policy cannot be read and is fetched anew", slog.String("domain", name), slog.Any("error", err))
			continue
		}
		policy, err := parsePolicy(k.Policy)
		if err != nil {
			p.o.Logger.Error("kept MTA-STS policy cannot be read and is fetched anew", slog.String("domain", name), slog.Any("error", err))
			continue
		}
		if k.Fetched.After(now) { // the clock was wrong then
			k.Fetched = now
		}
		used := new(atomic.Int64)
		used.Store(min(k.Used.Unix(), now.Unix()))
		e := p.newEntry(name, policy, k.ID, k.Fetched, used)
		e.recheck = k.Fetched // the first mail asks for the id
		p.cache.put(e, &p.o, now)
	}
	return nil
}

// save writes a policy, and removes others, in one batch.
func (p *Policies) save(ctx context.Context, e *entry, removed []string) {
	if p.o.Store == nil {
		return
	}
	var b store.Batch
	for _, name := range removed {
		b.Delete(keyPrefix + name)
	}
	name := ""
	if e != nil {
		name = e.domain.Name
		value, err := json.Marshal(kept{ID: e.id, Fetched: e.fetched.UTC(), Used: time.Unix(e.used.Load(), 0).UTC(),
			Policy: strings.Join(e.policy.lines, "\n")})
		if err != nil { // strings and times
			return
		}
		b.Put(keyPrefix+name, value)
	}
	if _, err := p.o.Store.Apply(ctx, &b); err != nil {
		p.o.Logger.Error("MTA-STS policy is not kept beyond a restart", slog.String("domain", name), slog.Any("error", err))
	}
}
