package delivery

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/delivery/egress"
	"github.com/godwit-mta/godwit/internal/dns"
)

// host is one host of a destination.
type host struct {
	name       string
	addr       netip.Addr // valid if the host is given by its address
	port       uint16
	preference int
}

// destination is where mail for one domain goes. It is immutable.
type destination struct {
	site   string
	hosts  []host // best preference first
	route  *route // nil: the hosts are from DNS, or an address literal
	from   answers
	lmtp   bool
	exempt bool // the hosts are the operator's word
	loop   bool // hosts were left out since they are ourselves
}

// siteOf names the site of domain from memory.
func (d *Deliverer) siteOf(domain string) (string, bool) {
	if r := d.routes.Load().find(domain); r != nil {
		return r.site, true
	}
	if strings.HasPrefix(domain, "[") {
		return domain, true
	}
	return d.o.Resolver.Site(domain)
}

// find looks up where mail for domain goes. The error is a *dns.Error, or the context's.
func (d *Deliverer) find(ctx context.Context, domain string) (destination, error) {
	if r := d.routes.Load().find(domain); r != nil {
		to := destination{site: r.site, route: r, lmtp: r.lmtp, exempt: true, hosts: make([]host, len(r.hosts))}
		for i, h := range r.hosts {
			to.hosts[i] = host{name: h.name, addr: h.addr, port: h.port, preference: i}
		}
		return to, nil
	}
	if strings.HasPrefix(domain, "[") {
		a, err := parseLiteral(domain)
		if err != nil {
			return destination{}, err
		}
		return destination{site: domain, hosts: []host{{name: a.String(), addr: a, port: d.o.Port}}}, nil
	}
	mx, err := d.o.Resolver.LookupMX(ctx, domain)
	if err != nil {
		return destination{}, err
	}
	to := destination{site: mx.Site, from: answers{mx: &mx, domain: domain}, hosts: make([]host, len(mx.Hosts))}
	for i, h := range mx.Hosts {
		to.hosts[i] = host{name: h.Name, port: d.o.Port, preference: int(h.Preference)}
	}
	for _, h := range to.hosts {
		if strings.EqualFold(h.name, d.hostname) {
			to.cut(h.preference)
			break
		}
	}
	return to, nil
}

// cut leaves out what is not better than preference, at which this server itself was found (RFC 5321, 5.1).
func (to *destination) cut(preference int) {
	to.loop = true
	to.hosts = slices.DeleteFunc(to.hosts, func(h host) bool { return h.preference >= preference })
}

// parseLiteral reads an address literal (RFC 5321, 4.1.3).
func parseLiteral(literal string) (netip.Addr, error) {
	text := strings.TrimSuffix(strings.TrimPrefix(literal, "["), "]")
	bare, tagged := text, false
	if len(text) > 5 && strings.EqualFold(text[:5], "IPv6:") {
		bare, tagged = text[5:], true
	}
	a, err := netip.ParseAddr(bare)
	if err != nil || a.Is4() == tagged || a.Zone() != "" || !strings.HasSuffix(literal, "]") {
		return netip.Addr{}, &dns.Error{Kind: dns.Malformed, Name: literal, Type: "address",
			Detail: "neither an IPv4 nor an IPv6 address literal"}
	}
	return a, nil
}

// candidate is a target with what a session with it must have.
type candidate struct {
	egress.Target
	need *demand
}

// finder walks the addresses of a destination in the order they are to be tried, and collects why some are not.
type finder struct {
	a        *attempt
	d        *Deliverer
	to       destination
	targets  []candidate // of the preference under way, not yet handed out
	backup   bool        // better preferences were tried before
	begun    bool
	tried    int
	failures []failure
}

// next returns one address to try, or two of one host to race. ok is false when there is nothing more. It asks DNS, one
// preference at a time.
func (f *finder) next(ctx context.Context) (first candidate, second egress.Target, ok bool) {
	left := f.d.o.MaxAddresses - f.tried
	if left <= 0 {
		return first, second, false
	}
	for len(f.targets) == 0 {
		if len(f.to.hosts) == 0 || ctx.Err() != nil {
			return first, second, false
		}
		f.backup = f.begun
		f.resolve(ctx)
	}
	f.begun = true
	first = f.targets[0]
	f.targets = f.targets[1:]
	f.tried++
	if left > 1 && len(f.targets) > 0 && f.targets[0].Host == first.Host &&
		f.targets[0].Addr.Addr().Is4() != first.Addr.Addr().Is4() {
		second = f.targets[0].Target
		f.targets = f.targets[1:]
		f.tried++
	}
	return first, second, true
}

// resolve turns the hosts of the best preference left into targets.
func (f *finder) resolve(ctx context.Context) {
	preference := f.to.hosts[0].preference
	n := slices.IndexFunc(f.to.hosts, func(h host) bool { return h.preference != preference })
	if n < 0 {
		n = len(f.to.hosts)
	}
	tier := f.to.hosts[:n]
	f.to.hosts = f.to.hosts[n:]

	// With other hosts to turn to, one host does not get all the tries.
	perHost := f.d.o.MaxAddresses
	if n > 1 || len(f.to.hosts) > 0 {
		perHost = max(2, perHost/2)
	}
	found := make([][]netip.Addr, n)
	needs := make([]demand, n)
	errs := make([]error, n)
	var lookups sync.WaitGroup
	for i := range tier {
		lookups.Go(func() {
			addrs, err := f.d.addresses(ctx, &tier[i])
			if err == nil {
				needs[i] = f.a.demandOf(ctx, &f.to, tier[i].name, &addrs)
			}
			found[i], errs[i] = addrs.IPs, err
		})
	}
	lookups.Wait()
	for i := range tier {
		ours := func(a netip.Addr) bool { return f.d.isOurselves(netip.AddrPortFrom(a, tier[i].port)) }
		if slices.ContainsFunc(found[i], ours) {
			f.to.loop = true
			f.to.hosts, f.targets = nil, nil
			return
		}
	}
	for i := range tier {
		if errs[i] != nil {
			f.failures = append(f.failures, lookupFailure(tier[i].name, errs[i]))
			continue
		}
		if failed := f.a.unusable(&f.to, tier[i].name, &needs[i]); failed != nil {
			f.failures = append(f.failures, *failed)
			continue
		}
		f.addTargets(&tier[i], &needs[i], found[i], perHost)
	}
}

func (f *finder) addTargets(h *host, need *demand, addrs []netip.Addr, limit int) {
	var forbidden error
	usable := 0
	for _, a := range addrs {
		if usable == limit {
			break
		}
		if reason, bad := f.d.dialer.Unusable(a); bad && !f.to.exempt {
			forbidden = &egress.ForbiddenError{Addr: a, Reason: reason}
			continue
		}
		if _, ok := f.d.o.Source.Local(a); !ok {
			forbidden = &egress.DialError{Target: egress.Target{Host: h.name, Addr: netip.AddrPortFrom(a, h.port)},
				Err: errOtherFamily}
			continue
		}
		usable++
		f.targets = append(f.targets, candidate{egress.Target{Host: h.name, Addr: netip.AddrPortFrom(a, h.port), Exempt: f.to.exempt}, need})
	}
	if usable == 0 && forbidden != nil {
		f.failures = append(f.failures, addressFailure(h, forbidden))
	}
}

// addresses returns the addresses of a host, unmapped.
func (d *Deliverer) addresses(ctx context.Context, h *host) (dns.Addrs, error) {
	if h.addr.IsValid() {
		return dns.Addrs{IPs: []netip.Addr{h.addr}}, nil
	}
	if h.name == "localhost" { // of a route: MX records are never let through with this name
		return dns.Addrs{IPs: []netip.Addr{netip.IPv6Loopback(), netip.AddrFrom4([4]byte{127, 0, 0, 1})}}, nil
	}
	return d.o.Resolver.LookupAddrs(ctx, h.name)
}

// isOurselves reports whether this server listens at a.
func (d *Deliverer) isOurselves(a netip.AddrPort) bool {
	if d.o.Listening == nil {
		return false
	}
	for _, l := range d.o.Listening() {
		if l.Port() != a.Port() {
			continue
		}
		listening, addr := l.Addr().Unmap().WithZone(""), a.Addr().Unmap().WithZone("")
		if listening == addr {
			return true
		}
		if !listening.IsUnspecified() || listening.Is4() && addr.Is6() {
			continue
		}
		if addr.IsLoopback() || addr.IsUnspecified() || isLocal(addr) {
			return true
		}
	}
	return false
}

// isLocal reports whether one of this machine's interfaces has the address.
func isLocal(a netip.Addr) bool {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return false // the address alone is not known to be ours; the hop count ends what loops
	}
	return slices.ContainsFunc(all, func(n net.Addr) bool {
		ipnet, ok := n.(*net.IPNet)
		if !ok {
			return false
		}
		own, ok := netip.AddrFromSlice(ipnet.IP)
		return ok && own.Unmap() == a
	})
}

// nothingLeft is the failure when a destination has no address to try, or had none that was not tried.
func (f *finder) nothingLeft() {
	if f.to.loop {
		f.failures = append(f.failures, failure{reason: event.Loop, class: event.ClassLoop, final: true, phase: phaseDNS,
			text: "the best mail server left for this domain is this server itself: mail would go round in circles"})
	}
}
