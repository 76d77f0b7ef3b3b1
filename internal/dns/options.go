package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Trust says which servers are believed that set the AD bit (RFC 4035, 3.2.3). Anybody on the way can set a bit.
type Trust uint8

const (
	TrustLoopback Trust = iota // those on this machine
	TrustAll
	TrustNone
)

// Options shapes a [Resolver]. The zero value asks the system's servers with the defaults named below.
type Options struct {
	// Servers are recursive resolvers, asked in this order. Empty means those of /etc/resolv.conf, followed as it
	// changes.
	Servers []netip.AddrPort
	// Trust says whose word is believed that an answer was validated with DNSSEC; TrustLoopback.
	Trust Trust

	Timeout     time.Duration // for one query to one server; 3 s
	Tries       int           // rounds over the servers before a lookup fails; 2, at most 10
	Deadline    time.Duration // for one lookup with all its queries; 20 s
	Concurrency int           // lookups that may be on the network at once, others wait; 256

	CacheEntries   int           // answers kept; 65,536. An answer takes about 500 octets
	MaxTTL         time.Duration // longest time an answer is kept, whatever its TTL; 24 h
	MaxNegativeTTL time.Duration // the same for "does not exist"; 15 min
	FailureTTL     time.Duration // how long a temporary failure is kept (RFC 9520, 3.2); 5 s
	MaxHosts       int           // MX hosts handed out per domain, best first; 10

	// Rand gives ids, letter case and the order among equals. Nil means the runtime's generator. It is used under a
	// lock.
	Rand rand.Source
	// Dial opens a connection to a server, network being "udp" or "tcp". Nil means a [net.Dialer].
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	Logger     *slog.Logger          // nil discards
	Registerer prometheus.Registerer // nil registers nothing
}

func (o Options) withDefaults() (Options, error) {
	var errs []error
	check := func(ok bool, what string) {
		if !ok {
			errs = append(errs, fmt.Errorf("dns: %s", what))
		}
	}
	for _, s := range o.Servers {
		check(s.IsValid() && s.Port() != 0, fmt.Sprintf("server %v needs an address and a port", s))
	}
	check(o.Timeout >= 0 && o.Deadline >= 0 && o.MaxTTL >= 0 && o.MaxNegativeTTL >= 0 && o.FailureTTL >= 0,
		"no time may be negative")
	check(o.Tries >= 0 && o.Tries <= 10, "tries must be 1 to 10")
	check(o.Concurrency >= 0 && o.CacheEntries >= 0 && o.MaxHosts >= 0, "no number may be negative")
	if err := errors.Join(errs...); err != nil {
		return o, err
	}
	setDefault(&o.Timeout, 3*time.Second)
	setDefault(&o.Tries, 2)
	setDefault(&o.Deadline, 20*time.Second)
	setDefault(&o.Concurrency, 256)
	setDefault(&o.CacheEntries, 65_536)
	setDefault(&o.MaxTTL, 24*time.Hour)
	setDefault(&o.MaxNegativeTTL, 15*time.Minute)
	setDefault(&o.FailureTTL, 5*time.Second)
	setDefault(&o.MaxHosts, 10)
	if o.Dial == nil {
		o.Dial = new(net.Dialer).DialContext
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}
