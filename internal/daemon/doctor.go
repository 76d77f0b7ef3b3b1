package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/doctor"
)

// selfCheck tries our own listeners as a stranger would. Its connections are known, so that what they are refused is not told as
// if somebody had been refused.
type selfCheck struct {
	d     *Daemon
	watch *doctor.Watch
	part  *part

	wg     sync.WaitGroup // sessions within the process
	mu     sync.Mutex
	own    map[netip.AddrPort]struct{}
	serial uint16
}

func (d *Daemon) newSelfCheck() (*selfCheck, error) {
	s := &selfCheck{d: d, own: make(map[netip.AddrPort]struct{})}
	var err error
	s.watch, err = doctor.NewWatch(doctor.Options{Targets: s.targets, Logger: d.log, Registerer: d.metrics})
	return s, err
}

func (s *selfCheck) run(ctx context.Context) error {
	err := s.watch.Run(ctx)
	s.wg.Wait()
	return err
}

// isOwn reports a connection of ours by the address that it comes from.
func (s *selfCheck) isOwn(a netip.AddrPort) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.own[a]
	return ok
}

func (s *selfCheck) note(a netip.AddrPort, is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if is {
		s.own[a] = struct{}{}
	} else {
		delete(s.own, a)
	}
}

func (s *selfCheck) targets() []doctor.Target {
	cfg := s.d.cfg.Load()
	var list []doctor.Target
	for _, in := range s.d.inlets {
		l, ok := listenerNamed(cfg, in.name)
		at, tcp := in.socket.Addr().(*net.TCPAddr)
		if !ok || !tcp {
			continue
		}
		list = append(list, s.target(cfg, l, in, at.AddrPort()))
	}
	return list
}

func (s *selfCheck) target(cfg *config.Config, l *config.Listener, in *inlet, at netip.AddrPort) doctor.Target {
	t := doctor.Target{Name: l.Name, Implicit: l.TLS == "implicit", Hostname: cfg.Hostname, RelayDomains: l.RelayDomains}
	to := at.Addr().Unmap()
	if to.IsUnspecified() {
		to = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	t.Address = to.String()
	for i := range cfg.Tenants {
		if len(cfg.Tenants[i].Domains) > 0 && t.Ours == "" {
			t.Ours = trimWild(cfg.Tenants[i].Domains[0])
		}
	}
	from, ok := stranger(l, loopbacks(to))
	if !ok {
		from, ok = stranger(l, documented)
		t.From, t.Note = from.String(), "every loopback address has rights here, so the address of a stranger was claimed within the process"
		if !ok {
			t.From, t.Note = documented[0].String(), "every address has rights here"
		}
		t.Dial = func(ctx context.Context) (net.Conn, error) { return s.within(ctx, in, from), nil }
		return t
	}
	t.From = from.String()
	if contains(l.ProxyProtocol, from) {
		t.Preface = fmt.Sprintf("PROXY TCP4 %s 192.0.2.2 40000 25\r\n", documented[0])
	}
	t.Dial = func(ctx context.Context) (net.Conn, error) {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: from.AsSlice()}}
		c, err := dialer.DialContext(ctx, "tcp", netip.AddrPortFrom(to, at.Port()).String())
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, context.Canceled) {
				return s.within(ctx, in, from), nil // the system lets no such connection out
			}
			return nil, err
		}
		return s.known(c), nil
	}
	return t
}

func trimWild(domain string) string {
	if len(domain) > 2 && domain[:2] == "*." {
		return "mail." + domain[2:]
	}
	return domain
}

// documented are addresses that no client has (RFC 5737).
var documented = []netip.Addr{
	netip.AddrFrom4([4]byte{192, 0, 2, 83}), netip.AddrFrom4([4]byte{198, 51, 100, 83}), netip.AddrFrom4([4]byte{203, 0, 113, 83}),
}

// loopbacks are addresses to come from, by the family of the listener.
func loopbacks(to netip.Addr) []netip.Addr {
	if to.Is6() {
		return []netip.Addr{netip.IPv6Loopback()}
	}
	list := make([]netip.Addr, 0, 16)
	for i := range byte(16) {
		list = append(list, netip.AddrFrom4([4]byte{127, 83 + 11*i, 14 + 13*i, 9 + 7*i}))
	}
	return list
}

func contains(networks []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(a) })
}

// stranger finds an address without any right at a listener.
func stranger(l *config.Listener, list []netip.Addr) (netip.Addr, bool) {
	for _, a := range list {
		if !contains(l.TrustedNetworks, a) && !contains(l.XClient, a) && !contains(l.DenyNetworks, a) &&
			(len(l.AllowNetworks) == 0 || contains(l.AllowNetworks, a)) {
			return a, true
		}
	}
	return list[0], false
}

// known remembers a connection as ours until it is closed.
func (s *selfCheck) known(c net.Conn) net.Conn {
	local, ok := c.LocalAddr().(*net.TCPAddr)
	if !ok {
		return c
	}
	a := netip.AddrPortFrom(local.AddrPort().Addr().Unmap(), local.AddrPort().Port())
	s.note(a, true)
	return &ownConn{Conn: c, closed: func() { s.note(a, false) }}
}

// within hands the listener's engine a connection that claims to come from an address.
func (s *selfCheck) within(ctx context.Context, in *inlet, from netip.Addr) net.Conn {
	s.mu.Lock()
	s.serial++
	a := netip.AddrPortFrom(from, s.serial)
	s.mu.Unlock()
	s.note(a, true)
	ours, theirs := net.Pipe()
	s.wg.Go(func() {
		in.server.ServeConn(ctx, &claimedConn{Conn: theirs, remote: net.TCPAddrFromAddrPort(a), local: in.socket.Addr()})
	})
	return &ownConn{Conn: ours, closed: func() { s.note(a, false) }}
}

// ownConn says when it is closed. What its session is still refused then is nobody's news.
type ownConn struct {
	net.Conn
	once   sync.Once
	closed func()
}

func (c *ownConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.closed)
	return err
}

// claimedConn is a connection with addresses of our choice.
type claimedConn struct {
	net.Conn
	remote, local net.Addr
}

func (c *claimedConn) RemoteAddr() net.Addr { return c.remote }
func (c *claimedConn) LocalAddr() net.Addr  { return c.local }

// physician answers the administrators' interface about the server's health.
type physician struct{ r *running }

// Relay implements httpapi.Doctor.
func (p physician) Relay(ctx context.Context) (api.RelayReport, error) {
	out := api.RelayReport{Listeners: []api.RelayListener{}}
	for _, r := range p.r.check.watch.Now(ctx) {
		l := api.RelayListener{
			Listener: r.Target.Name, Address: r.Target.Address, From: r.Target.From, Note: r.Target.Note, Probes: r.Report.Probes,
			Open: []api.RelayFinding{},
		}
		if r.Err != nil {
			l.Error = r.Err.Error()
		}
		for _, f := range r.Report.Open {
			l.Open = append(l.Open, api.RelayFinding{Probe: f.Probe.ID + ": " + f.Probe.What, Reply: f.Reply})
		}
		out.Open = out.Open || len(l.Open) > 0
		out.Time = r.Time
		out.Listeners = append(out.Listeners, l)
	}
	return out, context.Cause(ctx)
}

// Findings implements httpapi.Doctor.
func (p physician) Findings() []api.Finding {
	list := append(p.r.storageFindings(), p.r.dkimFindings()...)
	list = append(list, p.r.reports.Findings()...)
	for _, f := range p.r.check.watch.Problems() {
		list = append(list, api.Finding{
			Subject: "relay", Name: f.Listener, Problem: f.What, Advice: f.Advice, Since: timeOrNil(f.Since), Grave: f.Open,
		})
	}
	if err := p.r.d.audit.Finding(); err != nil {
		list = append(list, api.Finding{
			Subject: "audit", Name: "chain", Problem: err.Error(), Advice: "see `godwit audit verify`, and who could write data_dir", Grave: true,
		})
	}
	if p.r.door.certs == nil {
		return list
	}
	for _, f := range p.r.door.certs.Findings() {
		list = append(list, api.Finding{
			Subject: "certificate", Name: f.Certificate, Problem: f.Problem, Advice: f.Advice, Since: timeOrNil(f.Since), Grave: f.Grave,
		})
	}
	return list
}
