package daemon

import (
	"context"
	"crypto/x509"
	"net"

	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/delivery/tlspolicy"
	"github.com/godwit-mta/godwit/internal/dns"
	"github.com/godwit-mta/godwit/internal/fetch"
)

// Internet stands for what a server meets outside, for tests. The zero value is the real one.
type Internet struct {
	// DialWeb connects to HTTPS servers that others name; nil means a [net.Dialer]. What may be connected to is checked before.
	DialWeb func(ctx context.Context, network, address string) (net.Conn, error)
	// Roots are the authorities that these, and mail hosts with an MTA-STS policy, are checked against; nil: the system's.
	Roots *x509.CertPool
	// Results is told what came of each session with a mail host, as reports are; may be nil.
	Results func(tlspolicy.Result)
}

// newFetcher makes the client for documents that others name the place of.
func (d *Daemon) newFetcher(cfg *config.Config, resolver *dns.Resolver) (*fetch.Client, error) {
	return fetch.New(fetch.Options{
		Resolver: resolver, AllowedNetworks: cfg.Delivery.AllowedNetworks, RootCAs: d.o.Internet.Roots, Dial: d.o.Internet.DialWeb,
	})
}

// trusted says whose word is believed that an answer was validated. What /etc/resolv.conf names on this machine may be a
// plain forwarder, which passes on the bit of whoever it asks: only a server that the operator has named counts.
func trusted(cfg *config.Config) dns.Trust {
	switch {
	case cfg.DNS.DNSSEC == "all":
		return dns.TrustAll
	case cfg.DNS.DNSSEC == "none", len(cfg.DNS.Servers) == 0:
		return dns.TrustNone
	}
	return dns.TrustLoopback
}

// recorder hands results to reports, and to a test that listens.
func (d *Daemon) recorder(reports tlspolicy.Recorder) tlspolicy.Recorder {
	if d.o.Internet.Results == nil {
		return reports
	}
	return &overheard{reports, d.o.Internet.Results}
}

type overheard struct {
	tlspolicy.Recorder
	results func(tlspolicy.Result)
}

func (o *overheard) Record(r tlspolicy.Result) {
	o.results(r)
	o.Recorder.Record(r)
}
