package dns

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	wire "github.com/miekg/dns"
)

const (
	systemFile  = "/etc/resolv.conf"
	systemCheck = 5 * time.Second // how often the file is looked at for changes

	downTime  = 30 * time.Second // a server that did not answer is asked last for so long
	quirkTime = 10 * time.Minute // how long it is remembered that a server takes no EDNS or loses letter case
)

// server is one recursive resolver and what was learned of it.
type server struct {
	addr    netip.AddrPort
	name    string // for people: without the usual port
	trusted bool   // its AD bit is believed

	down, plain, caseless until
}

// until is a time up to which something holds.
type until struct{ nano atomic.Int64 }

func (u *until) set(t time.Time)         { u.nano.Store(t.UnixNano()) }
func (u *until) holds(at time.Time) bool { return at.UnixNano() < u.nano.Load() }

func newServer(addr netip.AddrPort, trust Trust) *server {
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	s := &server{addr: addr, name: addr.String(), trusted: trust == TrustAll || trust == TrustLoopback && addr.Addr().IsLoopback()}
	if addr.Port() == 53 {
		s.name = addr.Addr().String()
	}
	return s
}

// serverList gives the servers to ask: fixed ones, or those of a resolv.conf file as it is now.
type serverList struct {
	file    string // empty: fixed
	trust   Trust
	current atomic.Pointer[[]*server]

	mu struct {
		sync.Mutex
		checked time.Time
		changed time.Time
		size    int64
	}
}

func newServerList(fixed []netip.AddrPort, file string, trust Trust) (*serverList, error) {
	l := &serverList{trust: trust}
	if len(fixed) > 0 {
		l.store(fixed)
		return l, nil
	}
	l.file = file
	addrs, err := readSystem(file)
	if err != nil {
		return nil, err
	}
	l.mu.checked = time.Now()
	if info, err := os.Stat(file); err == nil {
		l.mu.changed, l.mu.size = info.ModTime(), info.Size()
	}
	l.store(addrs)
	return l, nil
}

func (l *serverList) store(addrs []netip.AddrPort) {
	list := make([]*server, len(addrs))
	for i, a := range addrs {
		list[i] = newServer(a, l.trust)
	}
	l.current.Store(&list)
}

// order returns the servers, those that were down lately after the others.
func (l *serverList) order(now time.Time) []*server {
	l.refresh(now)
	list := slices.Clone(*l.current.Load())
	slices.SortStableFunc(list, func(a, b *server) int {
		return boolInt(a.down.holds(now)) - boolInt(b.down.holds(now))
	})
	return list
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// refresh reads the file again if it changed. A file that is gone or empty for a moment, as while it is rewritten,
// changes nothing.
func (l *serverList) refresh(now time.Time) {
	if l.file == "" || !l.mu.TryLock() {
		return
	}
	defer l.mu.Unlock()
	if now.Sub(l.mu.checked) < systemCheck {
		return
	}
	l.mu.checked = now
	info, err := os.Stat(l.file)
	if err != nil || info.Size() == 0 || info.ModTime().Equal(l.mu.changed) && info.Size() == l.mu.size {
		return
	}
	addrs, err := readSystem(l.file)
	if err != nil {
		return
	}
	l.mu.changed, l.mu.size = info.ModTime(), info.Size()
	l.store(addrs)
}

// readSystem reads the servers of a resolv.conf file. A file that does not exist or names none means the own machine,
// as resolv.conf(5) says. The search list is left alone: names in mail are absolute.
func readSystem(file string) ([]netip.AddrPort, error) {
	own := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53"), netip.MustParseAddrPort("[::1]:53")}
	p, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		return own, nil
	}
	if err != nil {
		return nil, fmt.Errorf("dns: reading the system's servers: %w", err)
	}
	conf, err := wire.ClientConfigFromReader(strings.NewReader(string(p)))
	if err != nil {
		return nil, fmt.Errorf("dns: reading the system's servers from %s: %w", file, err)
	}
	var addrs []netip.AddrPort
	for _, s := range conf.Servers {
		if a, err := netip.ParseAddr(s); err == nil {
			addrs = append(addrs, netip.AddrPortFrom(a, 53))
		}
	}
	if len(addrs) == 0 {
		return own, nil
	}
	return addrs, nil
}
