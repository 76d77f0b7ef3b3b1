package dns

import (
	"context"
	"net/netip"
	"sync"
	"time"

	wire "github.com/miekg/dns"
)

// Addrs are the addresses of a host.
type Addrs struct {
	// IPs are to be tried in this order: IPv6 and IPv4 in turn, in random order within each. The slice is the caller's.
	// Nothing is filtered: see [Unusable].
	IPs []netip.Addr
	// Authentic says that a trusted resolver validated all of it with DNSSEC, the absence of a family included. A family
	// whose lookup failed does not count: else who breaks one answer could make a signed host look unsigned.
	Authentic bool
	// Name is the host's own name, at the end of its aliases.
	Name string
}

// LookupAddrs finds the addresses of host in both families at once, at most 16 of each. A family whose lookup failed is
// left out if the other one has addresses. The error is an [*Error] of the kind NXDomain, NoAddress, Malformed, Loop or
// Temporary.
func (r *Resolver) LookupAddrs(ctx context.Context, host string) (Addrs, error) {
	name, now := host, time.Now()
	v4, v6 := r.hit(key{name, wire.TypeA}, now), r.hit(key{name, wire.TypeAAAA}, now)
	if v4 == nil || v6 == nil { // what is in the cache was normal when it was put there
		var bad *Error
		if name, bad = normalize(host); bad != nil {
			bad.Type = "address"
			return Addrs{}, bad
		}
		v4, v6 = r.bothFamilies(ctx, name)
	}
	if v4 == nil || v6 == nil {
		return Addrs{}, interrupted(ctx, name, "address")
	}
	if err := noAddress(name, v4, v6); err != nil {
		return Addrs{}, err
	}
	n4, n6 := len(v4.addrs), len(v6.addrs)
	ips := make([]netip.Addr, n4+n6)
	// Each family is shuffled in its own part of the slice's end and then dealt out in turn.
	var four, six [maxAddrs]netip.Addr
	copy(four[:], v4.addrs)
	copy(six[:], v6.addrs)
	shuffle(r, four[:n4])
	shuffle(r, six[:n6])
	for i, j := 0, 0; i < n4 || j < n6; {
		if j < n6 && (j <= i || i == n4) {
			ips[i+j] = six[j]
			j++
			continue
		}
		ips[i+j] = four[i]
		i++
	}
	canonical := v4.name
	if n4 == 0 {
		canonical = v6.name
	}
	return Addrs{IPs: ips, Authentic: v4.authenticOr(v6) && v6.authenticOr(v4), Name: canonical}, nil
}

// authenticOr reports whether a is authentic, or says nothing while other does.
func (a *answer) authenticOr(other *answer) bool {
	if a.err != nil && a.err.Temporary() {
		return other.authentic
	}
	return a.authentic
}

// bothFamilies looks up A and AAAA, at the same time if neither is known. A nil result means that ctx ended.
func (r *Resolver) bothFamilies(ctx context.Context, name string) (v4, v6 *answer) {
	now := time.Now()
	k4, k6 := key{name, wire.TypeA}, key{name, wire.TypeAAAA}
	v4, v6 = r.hit(k4, now), r.hit(k6, now)
	switch {
	case v4 == nil && v6 == nil:
		return r.lookupPair(ctx, k4, k6)
	case v4 == nil:
		v4 = r.lookup(ctx, k4)
	case v6 == nil:
		v6 = r.lookup(ctx, k6)
	}
	return v4, v6
}

func (r *Resolver) lookupPair(ctx context.Context, k4, k6 key) (v4, v6 *answer) {
	var other sync.WaitGroup
	other.Go(func() { v6 = r.lookup(ctx, k6) })
	v4 = r.lookup(ctx, k4)
	other.Wait()
	return v4, v6
}

// noAddress returns why neither family gave an address, or nil if one did. In doubt it is temporary: only two final
// answers make a final one.
func noAddress(name string, v4, v6 *answer) *Error {
	if v4.err == nil || v6.err == nil {
		return nil
	}
	for _, a := range []*answer{v4, v6} {
		if a.err.Temporary() {
			return a.err
		}
	}
	if v4.err.Kind == NXDomain && v6.err.Kind == NXDomain {
		return &Error{Kind: NXDomain, Name: name, Type: "address", Server: v4.err.Server, Detail: v4.err.Detail}
	}
	return &Error{Kind: NoAddress, Name: name, Type: "address", Server: v4.err.Server}
}
