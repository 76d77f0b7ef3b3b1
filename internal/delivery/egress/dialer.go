package egress

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/godwit-mta/godwit/internal/dns"
)

// Source is what mail leaves from. The zero value lets the system choose the address.
type Source struct {
	Name  string     // for people, records and metrics
	Hello string     // name given to EHLO
	IPv4  netip.Addr // local address for IPv4, or zero
	IPv6  netip.Addr // local address for IPv6, or zero
}

// Local returns the address to leave from towards to. A source that is bound to addresses of one family cannot reach
// the other.
func (s *Source) Local(to netip.Addr) (local netip.Addr, ok bool) {
	if !s.IPv4.IsValid() && !s.IPv6.IsValid() {
		return netip.Addr{}, true
	}
	if to.Is4() {
		return s.IPv4, s.IPv4.IsValid()
	}
	return s.IPv6, s.IPv6.IsValid()
}

// Target is one address of one host.
type Target struct {
	Host string // name, or the address itself where there is none
	Addr netip.AddrPort
	// Exempt says that the address is the operator's own word, not DNS's: the policy does not apply.
	Exempt bool
}

// String returns the target as people read it: "mx1.example.com [192.0.2.1]:25".
func (t Target) String() string {
	if t.Host == "" || t.Host == t.Addr.Addr().String() {
		return fmt.Sprintf("[%s]:%d", t.Addr.Addr(), t.Addr.Port())
	}
	return fmt.Sprintf("%s [%s]:%d", t.Host, t.Addr.Addr(), t.Addr.Port())
}

// ControlFunc looks at a socket before it connects, as [net.Dialer.Control] does.
type ControlFunc func(network, address string, c syscall.RawConn) error

// DialFunc makes one TCP connection to an address, from local if that is valid. It must call control with the socket
// before that connects; a function that makes no sockets may leave that out.
type DialFunc func(ctx context.Context, local netip.Addr, to netip.AddrPort, control ControlFunc) (net.Conn, error)

// DialerOptions configures a [Dialer]. Zero values mean the defaults named beside each field.
type DialerOptions struct {
	AllowedNetworks []netip.Prefix // where the policy does not apply; none
	ConnectTimeout  time.Duration  // for one address; 30 s
	// FallbackDelay is how long the first of two addresses may take before the second is tried beside it; 1 s. Negative:
	// never.
	FallbackDelay time.Duration
	Dial          DialFunc // DialTCP
}

// Dialer makes connections. It is safe for concurrent use.
type Dialer struct {
	o       DialerOptions
	allowed atomic.Pointer[[]netip.Prefix]
}

// NewDialer returns a dialer.
func NewDialer(o DialerOptions) *Dialer {
	if o.ConnectTimeout <= 0 {
		o.ConnectTimeout = 30 * time.Second
	}
	if o.FallbackDelay == 0 {
		o.FallbackDelay = time.Second
	}
	if o.Dial == nil {
		o.Dial = DialTCP
	}
	d := &Dialer{o: o}
	d.SetAllowedNetworks(o.AllowedNetworks)
	return d
}

// SetAllowedNetworks replaces the networks where the policy does not apply.
func (d *Dialer) SetAllowedNetworks(networks []netip.Prefix) {
	networks = slices.Clone(networks)
	d.allowed.Store(&networks)
}

// Unusable reports whether the policy forbids an address that DNS gave, and why.
func (d *Dialer) Unusable(a netip.Addr) (reason string, bad bool) {
	reason, bad = dns.Unusable(a)
	if !bad {
		return "", false
	}
	for _, p := range *d.allowed.Load() {
		if p.Contains(a) { // never a mapped address: the sockets would take it for another
			return "", false
		}
	}
	return reason, true
}

// DialTCP is the usual DialFunc.
func DialTCP(ctx context.Context, local netip.Addr, to netip.AddrPort, control ControlFunc) (net.Conn, error) {
	d := net.Dialer{
		Control:       control,
		FallbackDelay: -1, // one address: nothing to fall back to
		KeepAlive:     -1, // every wait has its own limit
	}
	if local.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 0))
	}
	return d.DialContext(ctx, "tcp", to.String())
}

// dialed is how one dial ended.
type dialed struct {
	conn   net.Conn
	target Target
	err    *DialError
}

// Dial connects to first or, if that fails or takes long, to second, which is left out by giving its zero value. The
// error is a [*DialError], or two of them joined in the order of the targets.
func (d *Dialer) Dial(ctx context.Context, source *Source, first, second Target) (net.Conn, Target, error) {
	if !second.Addr.IsValid() {
		r := d.dialOne(ctx, source, first)
		if r.err != nil {
			return nil, first, r.err
		}
		return r.conn, first, nil
	}
	return d.race(ctx, source, first, second)
}

func (d *Dialer) race(ctx context.Context, source *Source, first, second Target) (net.Conn, Target, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan dialed, 2)
	start := func(t Target) { go func() { results <- d.dialOne(ctx, source, t) }() }
	start(first)
	var late <-chan time.Time
	if d.o.FallbackDelay >= 0 {
		timer := time.NewTimer(d.o.FallbackDelay)
		defer timer.Stop()
		late = timer.C
	}
	running, failed := 1, make([]*DialError, 0, 2)
	secondStarted := false
	for {
		select {
		case <-late:
			late = nil
			if !secondStarted {
				secondStarted = true
				start(second)
				running++
			}
		case r := <-results:
			running--
			if r.err == nil {
				cancel()
				if running > 0 { // whoever loses is closed, and waited for
					if loser := <-results; loser.conn != nil {
						_ = loser.conn.Close() // never used
					}
				}
				return r.conn, r.target, nil
			}
			failed = append(failed, r.err)
			if !secondStarted && ctx.Err() == nil {
				secondStarted = true
				start(second)
				running++
			}
			if running == 0 {
				return nil, first, joinDials(failed, first)
			}
		}
	}
}

// dialOne connects to one address within the time limit.
func (d *Dialer) dialOne(ctx context.Context, source *Source, t Target) dialed {
	local, ok := source.Local(t.Addr.Addr())
	if !ok {
		return dialed{target: t, err: &DialError{Target: t, Err: errNoFamily}}
	}
	if err := d.check(t, t.Addr.Addr()); err != nil {
		return dialed{target: t, err: &DialError{Target: t, Err: err}}
	}
	limited, cancel := context.WithTimeout(ctx, d.o.ConnectTimeout)
	defer cancel()
	conn, err := d.o.Dial(limited, local, t.Addr, func(_, address string, _ syscall.RawConn) error {
		actual, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("address %q about to be dialled: %w", address, err)
		}
		return d.check(t, actual.Addr())
	})
	if err == nil {
		return dialed{conn: conn, target: t}
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return dialed{target: t, err: &DialError{Target: t, Err: err}}
}

// check applies the policy to an address that is about to be dialled for t.
func (d *Dialer) check(t Target, a netip.Addr) error {
	if t.Exempt {
		if a != t.Addr.Addr() {
			return fmt.Errorf("address %s about to be dialled in place of %s", a, t.Addr.Addr())
		}
		return nil
	}
	if reason, bad := d.Unusable(a); bad {
		return &ForbiddenError{Addr: a, Reason: reason}
	}
	return nil
}
