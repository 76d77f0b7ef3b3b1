package tlspolicy

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/godwit-mta/godwit/internal/dns"
	"github.com/godwit-mta/godwit/internal/store"
)

// Resolver is what is asked of DNS. [dns.Resolver] is one.
type Resolver interface {
	LookupTXT(ctx context.Context, name string) (dns.TXT, error)
	LookupTLSA(ctx context.Context, name string) (dns.TLSA, error)
	LookupCNAME(ctx context.Context, name string) (dns.CNAME, error)
	LookupMX(ctx context.Context, domain string) (dns.MX, error)     // by Show alone
	LookupAddrs(ctx context.Context, host string) (dns.Addrs, error) // by Show alone
}

// Fetcher gets documents over HTTPS. *[fetch.Client] is one.
type Fetcher interface {
	Get(ctx context.Context, url string) (body []byte, contentType string, err error)
}

// Options make Policies. Resolver is required.
type Options struct {
	Resolver Resolver
	Store    store.Store    // where MTA-STS policies outlive a restart, below "sts/"; nil: they do not
	Fetch    Fetcher        // nil: no MTA-STS
	NoDANE   bool           // TLSA records are not asked for
	Roots    *x509.CertPool // that hosts are checked against for MTA-STS; nil: the system's
	Port     uint16         // of hosts, for the names of TLSA records; 25

	// Wait is how long the first mail to a domain waits for its policy; 15 s, at most 60 s (RFC 8461, 3.3). Then it goes as
	// if there were none, the policy is fetched in the background, and later mail obeys it.
	Wait time.Duration
	// WaitKept is how long mail waits for news of a policy that is known; 5 s. Then what is known is obeyed.
	WaitKept time.Duration
	// Recheck is how long what was found of a domain is taken as it is: a changed id is seen so much later, and a fetch
	// that failed is not repeated before (RFC 8461, 3.3); 5 min.
	Recheck time.Duration
	// Refresh is when a policy is fetched anew without a changed id, less up to a quarter by chance; 24 h.
	Refresh time.Duration
	// Idle is how long after the last mail to its domain a policy is refreshed still; 30 d. It is obeyed until it expires.
	Idle time.Duration

	MaxPolicies int // kept; 50,000
	MaxOctets   int // of all policies kept; 64 MiB
	MaxWithout  int // domains known to have none; 65,536

	Logger     *slog.Logger          // nil discards
	Registerer prometheus.Registerer // nil registers nothing
}

func (o Options) withDefaults() (Options, error) {
	if o.Resolver == nil {
		return o, errors.New("tlspolicy: no resolver")
	}
	if o.Port == 0 {
		o.Port = 25
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	for _, d := range []struct {
		p   *time.Duration
		def time.Duration
	}{
		{&o.Wait, 15 * time.Second}, {&o.WaitKept, 5 * time.Second}, {&o.Recheck, 5 * time.Minute}, {&o.Refresh, 24 * time.Hour},
		{&o.Idle, 30 * 24 * time.Hour},
	} {
		if *d.p < 0 {
			return o, errors.New("tlspolicy: a time is negative")
		}
		if *d.p == 0 {
			*d.p = d.def
		}
	}
	if o.Wait > time.Minute {
		return o, errors.New("tlspolicy: waiting for a policy for more than 60 s; RFC 8461, 3.3 has that for the longest")
	}
	for _, n := range []struct {
		p   *int
		def int
	}{{&o.MaxPolicies, 50_000}, {&o.MaxOctets, 64 << 20}, {&o.MaxWithout, 65_536}} {
		if *n.p < 0 {
			return o, errors.New("tlspolicy: a limit is negative")
		}
		if *n.p == 0 {
			*n.p = n.def
		}
	}
	return o, nil
}

// Policies knows what receivers published. It is safe for concurrent use.
type Policies struct {
	o       Options
	prefix  string // of names of TLSA records
	cache   cache
	plans   plans
	metrics *metrics

	flights struct {
		sync.Mutex
		byDomain map[string]*flight
	}
}

// flight is a question for one domain's policy under way. Its leader fills entry and closes done; entry stays nil if
// the leader's context ended first, and then one of those who waited leads the next.
type flight struct {
	done  chan struct{}
	entry *entry
}

// New checks the options and reads what the store keeps. It starts nothing.
func New(o Options) (*Policies, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	p := &Policies{o: o, prefix: "_" + strconv.Itoa(int(o.Port)) + "._tcp."}
	p.cache.policies, p.cache.others = make(map[string]*entry), make(map[string]*entry)
	p.flights.byDomain = make(map[string]*flight)
	if p.metrics, err = newMetrics(o.Registerer, func() float64 { return float64(p.cache.count()) }); err != nil {
		return nil, fmt.Errorf("tlspolicy: registering metrics: %w", err)
	}
	if o.Store != nil {
		if err := p.load(context.Background()); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Domain is what holds towards a recipient's domain. It does not change and may be kept for an attempt, not longer.
type Domain struct {
	p    *Policies
	Name string
	// Notes are findings on the policy itself, such as that it could not be fetched: to be reported with each attempt.
	Notes []*Failure

	sts *stsPolicy // nil: none, or none that asks for anything
}

// Domain finds what domain, lower case in A-labels, published as MTA-STS policy. It asks the network only if nothing is
// known, or if what is known is older than [Options.Recheck], and waits a bounded time then. It never returns nil.
func (p *Policies) Domain(ctx context.Context, domain string) *Domain {
	now := time.Now()
	if e := p.cache.get(domain); e != nil && now.Before(e.recheck) {
		e.touch(now)
		return e.domain
	}
	if p.o.Fetch == nil || strings.HasPrefix(domain, "[") || !isHostName(domain) {
		return &Domain{p: p, Name: domain}
	}
	if e := p.ask(ctx, domain); e != nil {
		e.touch(now)
		return e.domain
	}
	if e := p.cache.get(domain); e.holds(now) { // the caller goes; what it does still is to obey
		return e.domain
	}
	return &Domain{p: p, Name: domain}
}

// Reset forgets the MTA-STS policy of a domain, so that the next mail asks for it anew. It reports whether there was one.
func (p *Policies) Reset(ctx context.Context, domain string) (bool, error) {
	domain = normal(domain)
	had := p.cache.remove(domain)
	if p.o.Store == nil || !had {
		return had, nil
	}
	var b store.Batch
	b.Delete(keyPrefix + domain)
	if _, err := p.o.Store.Apply(ctx, &b); err != nil {
		return had, fmt.Errorf("tlspolicy: forgetting the policy of %s: %w", domain, err)
	}
	return had, nil
}
