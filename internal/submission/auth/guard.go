package auth

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Budget is how many failures are borne within a window before a ban, and how long the first ban lasts; each further one
// lasts twice as long as the one before, up to Longest.
type Budget struct {
	Failures int
	Window   time.Duration
	Ban      time.Duration
	Longest  time.Duration
}

// each is how long it takes to forget one failure.
func (b *Budget) each() time.Duration { return b.Window / time.Duration(b.Failures) }

// full reports whether there is no room for another failure, if all until now are forgotten at busy.
func (b *Budget) full(busy, now time.Time) bool { return busy.Sub(now) > b.Window-b.each() }

// Budgets are those for failures. Zero values mean the defaults named here.
type Budgets struct {
	Address Budget // of an address or IPv6 /64: 10 in 10 min, 10 min, 24 h
	Account Budget // of a name, from addresses where it is not at home: 30 in 10 min, 10 min, 1 h
	Home    Budget // of a name from one address where it is at home: 30 in 10 min, 5 min, 15 min
	Global  Budget // of the server, not counting addresses at home: 100 in 20 s; no ban, only names at home come in meanwhile
	// AtHome is how long an address counts as a name's home after a success; 30 days.
	AtHome time.Duration
	// Subjects bounds the addresses and names that are remembered, each; 65,536.
	Subjects int
}

func (b Budgets) filled() (Budgets, error) {
	fill := func(p *Budget, def Budget) bool {
		if *p == (Budget{}) {
			*p = def
		}
		return p.Failures > 0 && p.Window > 0 && p.Ban >= 0 && p.Longest >= p.Ban
	}
	ok := fill(&b.Address, Budget{10, 10 * time.Minute, 10 * time.Minute, 24 * time.Hour})
	ok = fill(&b.Account, Budget{30, 10 * time.Minute, 10 * time.Minute, time.Hour}) && ok
	ok = fill(&b.Home, Budget{30, 10 * time.Minute, 5 * time.Minute, 15 * time.Minute}) && ok
	ok = fill(&b.Global, Budget{Failures: 100, Window: 20 * time.Second}) && ok
	if b.AtHome == 0 {
		b.AtHome = 30 * 24 * time.Hour
	}
	if b.Subjects == 0 {
		b.Subjects = 65_536
	}
	if !ok || b.AtHome < 0 || b.Subjects < 1 {
		return b, errors.New("auth: a budget is out of range")
	}
	return b, nil
}

// BanKind says what a ban is on. The set is closed.
type BanKind string

// The kinds of bans.
const (
	BanAddress BanKind = "address" // an address or IPv6 /64, but for names that are at home there
	BanAccount BanKind = "account" // a name, but for addresses where it is at home
	BanHome    BanKind = "home"    // a name at one of its home addresses
)

// Ban is an automatic ban. Nothing is hashed under it, and it ends by itself.
type Ban struct {
	Kind     BanKind
	Address  netip.Prefix // of BanAddress and BanHome
	Login    string       // of BanAccount and BanHome: as it was given, whether there is such a name or not
	Tenant   string       // of the login, if there is such a name
	Since    time.Time
	Until    time.Time
	Failures int // within the window that led to it
	Count    int // of bans in a row, this one included
}

// subject is what a budget is kept for.
type subject struct {
	addr  netip.Prefix
	login string
}

func (s subject) kind() BanKind {
	switch {
	case s.login == "":
		return BanAddress
	case s.addr.IsValid():
		return BanHome
	}
	return BanAccount
}

// counter measures failures by the time that is needed to forget them: each adds Window/Failures, and as time goes by
// it is worked off.
type counter struct {
	busy     time.Time // all is forgotten at that time
	since    time.Time // of the ban
	until    time.Time // of the ban
	failures int
	bans     int
}

func (c *counter) banned(now time.Time) bool { return now.Before(c.until) }

func (c *counter) idle(now time.Time) bool { return !now.Before(c.busy) && !now.Before(c.until) }

// fail counts one failure and reports whether it led to a ban.
func (c *counter) fail(b Budget, now time.Time) bool {
	if now.Sub(c.until) > b.Longest+b.Window {
		c.bans = 0 // long ago
	}
	if c.busy.Before(now) {
		c.busy, c.failures = now, 0
	}
	c.busy = c.busy.Add(b.each())
	c.failures++
	if !b.full(c.busy, now) || c.banned(now) {
		return false
	}
	length := b.Longest
	if c.bans < 32 && b.Ban<<c.bans>>c.bans == b.Ban {
		length = min(b.Ban<<c.bans, b.Longest)
	}
	c.bans++
	c.since, c.until, c.busy = now, now.Add(length), now
	return true
}

// guard keeps the budgets.
type guard struct {
	budgets Budgets
	told    chan Ban // automatic bans on their way to Options.Banned; full: they are not told

	mu       sync.Mutex
	counters map[subject]*counter
	global   counter
	homes    map[netip.Prefix]int // addresses that are home of so many names, or were: the names know better
}

func newGuard(b Budgets) *guard {
	return &guard{budgets: b, told: make(chan Ban, 256), counters: make(map[subject]*counter), homes: make(map[netip.Prefix]int)}
}

// network is the unit that addresses are judged by: an IPv4 address, or an IPv6 /64, which one holder has whole.
func network(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// shut reports whether nobody may come in from the address: it is banned, and nobody is at home there.
func (g *guard) shut(addr netip.Prefix) bool {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.counters[subject{addr: addr}]
	return c != nil && c.banned(now) && g.homes[addr] == 0
}

// allows says whether a name may try from an address; the outcome says why not.
func (g *guard) allows(addr netip.Prefix, login string, home bool) (outcome, bool) {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	banned := func(s subject) bool {
		c := g.counters[s]
		return c != nil && c.banned(now)
	}
	switch {
	case home && banned(subject{addr: addr, login: login}):
		return outcomeAccountOver, false
	case home:
		return "", true
	case banned(subject{addr: addr}):
		return outcomeAddressOver, false
	case login != "" && banned(subject{login: login}):
		return outcomeAccountOver, false
	}
	return "", true
}

// crowded reports whether the whole server has had so many failures that names not at home have to wait.
func (g *guard) crowded() bool {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.budgets.Global.full(g.global.busy, now)
}

// failed counts a failure. login is empty where no name was given; home says that the address is a home of the name.
func (g *guard) failed(addr netip.Prefix, login, tenant string, home bool) {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	if home {
		g.countLocked(subject{addr: addr, login: login}, g.budgets.Home, tenant, now)
		return
	}
	if b := &g.budgets.Global; !b.full(g.global.busy, now) {
		g.global.busy = later(g.global.busy, now).Add(b.each())
	}
	g.countLocked(subject{addr: addr}, g.budgets.Address, "", now)
	if login != "" {
		g.countLocked(subject{login: login}, g.budgets.Account, tenant, now)
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (g *guard) countLocked(s subject, b Budget, tenant string, now time.Time) {
	c := g.counters[s]
	if c == nil {
		if len(g.counters) >= 2*g.budgets.Subjects {
			g.evictLocked(now)
		}
		c = new(counter)
		g.counters[s] = c
	}
	if !c.fail(b, now) {
		return
	}
	select {
	case g.told <- s.ban(c, tenant):
	default: // so many at once that their number says it all
	}
}

func (s subject) ban(c *counter, tenant string) Ban {
	return Ban{Kind: s.kind(), Address: s.addr, Login: s.login, Tenant: tenant, Since: c.since, Until: c.until,
		Failures: c.failures, Count: c.bans}
}

// evictLocked makes room: of a few that the map's random order brings up it drops the one that matters least.
func (g *guard) evictLocked(now time.Time) {
	var victim subject
	var worth time.Time
	seen := 0
	for s, c := range g.counters {
		if c.idle(now) {
			victim = s
			break
		}
		if w := later(c.busy, c.until); seen == 0 || w.Before(worth) {
			victim, worth = s, w
		}
		if seen++; seen == evictSample {
			break
		}
	}
	delete(g.counters, victim)
}

// succeeded forgets the failures of a name at its home; budgets of others stay as they are.
func (g *guard) succeeded(addr netip.Prefix, login string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.counters, subject{addr: addr, login: login})
}

// moved notes that addresses have become, or are no longer, home of one more name.
func (g *guard) moved(in, out []netip.Prefix) {
	if len(in) == 0 && len(out) == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, a := range in {
		g.homes[a]++
	}
	for _, a := range out {
		if g.homes[a]--; g.homes[a] <= 0 {
			delete(g.homes, a)
		}
	}
}

// sweep drops what is long forgotten.
func (g *guard) sweep() {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	for s, c := range g.counters {
		if c.idle(now) && now.Sub(later(c.busy, c.until)) > g.budgets.Address.Longest {
			delete(g.counters, s)
		}
	}
}

func (g *guard) banned() int { return len(g.list()) }

// list returns the bans in force, those that end last first.
func (g *guard) list() []Ban {
	now := time.Now()
	g.mu.Lock()
	var out []Ban
	for s, c := range g.counters {
		if c.banned(now) {
			out = append(out, s.ban(c, ""))
		}
	}
	g.mu.Unlock()
	slices.SortFunc(out, func(a, b Ban) int {
		return cmp.Or(b.Until.Compare(a.Until), a.Address.Addr().Compare(b.Address.Addr()), strings.Compare(a.Login, b.Login))
	})
	return out
}

// clear lifts bans and forgets the failures behind them; match says which.
func (g *guard) clear(match func(Ban) bool) []Ban {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	var lifted []Ban
	for s, c := range g.counters {
		b := s.ban(c, "")
		if !match(b) {
			continue
		}
		if c.banned(now) {
			lifted = append(lifted, b)
		}
		delete(g.counters, s)
	}
	return lifted
}
