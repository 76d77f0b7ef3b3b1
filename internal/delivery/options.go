package delivery

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/godwit-mta/godwit/internal/delivery/egress"
	"github.com/godwit-mta/godwit/internal/delivery/tlspolicy"
	"github.com/godwit-mta/godwit/internal/dns"
	"github.com/godwit-mta/godwit/smtp/smtpclient"
)

// Resolver is what delivery needs of DNS. [dns.Resolver] is one.
type Resolver interface {
	LookupMX(ctx context.Context, domain string) (dns.MX, error)
	LookupAddrs(ctx context.Context, host string) (dns.Addrs, error)
	Site(domain string) (string, bool)
}

// Options configures a [Deliverer]. Zero values mean the defaults named beside each field.
type Options struct {
	Hostname string   // our name; given to EHLO, and an MX of this name is ourselves. Required
	Resolver Resolver // required

	Routes          []Route
	TLS             TLSSettings        // what is demanded of hosts; opportunistic TLS
	Roots           *x509.CertPool     // whom to trust where nothing says otherwise; the system's
	Policies        Policies           // what receivers demand; nil: nothing is looked for
	Floors          Floors             // hosts that used to have TLS; nil: none
	Recorder        tlspolicy.Recorder // of what came of sessions; nil: nobody is told
	AllowedNetworks []netip.Prefix     // networks that MX hosts may lie in although nobody else's mail host can; none
	Port            uint16             // of MX hosts; 25
	Source          egress.Source      // what mail leaves from; its name is "default" and it says Hostname

	// Listening tells where this server receives mail: an MX host with such an address and port is ourselves. It is asked
	// when hosts are chosen, so it may answer nothing before the listeners are open. Nil: nowhere.
	Listening func() []netip.AddrPort

	Timeouts smtpclient.Timeouts // of each phase of a session; RFC 5321, 4.5.3.2
	// Farewell is how long, once the context of an attempt has ended, the reply to a message that has left is awaited
	// still; 5 s. Then the connection is closed, and nobody knows whether the remote took the message.
	Farewell       time.Duration
	ConnectTimeout time.Duration // for one address; 30 s
	FallbackDelay  time.Duration // before the other address family is tried beside the first; 1 s, negative: never
	// TryFor is how long an attempt goes on to further addresses, once two were tried; 5 min.
	TryFor          time.Duration
	MaxAddresses    int // tried in one attempt; 8, at least 2
	MaxRecipients   int // of one transaction; 100, which every server takes (RFC 5321, 4.5.3.1.8)
	MaxTransactions int // of one session; 100
	Allow8Bit       bool

	Idle           time.Duration // how long a session is kept for the next message; 30 s
	MaxKept        int           // kept sessions in all; 2,000
	MaxKeptPerPath int           // kept sessions per path; 50

	Dial       egress.DialFunc       // TCP
	Logger     *slog.Logger          // nil discards
	Registerer prometheus.Registerer // nil registers nothing
}

func (o Options) withDefaults() (Options, error) {
	if o.Hostname == "" {
		return o, errors.New("delivery: no hostname")
	}
	if o.Resolver == nil {
		return o, errors.New("delivery: no resolver")
	}
	if o.Port == 0 {
		o.Port = 25
	}
	if o.Source.Name == "" {
		o.Source.Name = "default"
	}
	if o.Source.Hello == "" {
		o.Source.Hello = o.Hostname
	}
	if a := o.Source.IPv4; a.IsValid() && !a.Is4() {
		return o, fmt.Errorf("delivery: source address %s is not IPv4", a)
	}
	if a := o.Source.IPv6; a.IsValid() && (!a.Is6() || a.Is4In6()) {
		return o, fmt.Errorf("delivery: source address %s is not IPv6", a)
	}
	if o.Farewell <= 0 {
		o.Farewell = 5 * time.Second
	}
	if o.TryFor <= 0 {
		o.TryFor = 5 * time.Minute
	}
	if o.MaxAddresses == 0 {
		o.MaxAddresses = 8
	}
	if o.MaxAddresses < 2 {
		return o, fmt.Errorf("delivery: %d addresses in an attempt; RFC 5321, 5.1 asks for at least 2", o.MaxAddresses)
	}
	if o.MaxRecipients == 0 {
		o.MaxRecipients = 100
	}
	if o.MaxRecipients < 0 || o.MaxTransactions < 0 || o.MaxKept < 0 || o.MaxKeptPerPath < 0 {
		return o, errors.New("delivery: a limit is negative")
	}
	var err error
	if o.TLS, err = o.TLS.withDefaults(); err != nil {
		return o, err
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, nil
}
