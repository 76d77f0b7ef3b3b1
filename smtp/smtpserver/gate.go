package smtpserver

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/godwit-mta/godwit/smtp"
)

// gate counts open sessions, in all and of each client. A client is an IPv4 address or an IPv6 /64, which is what one
// customer has.
type gate struct {
	open atomic.Int64
	mu   struct {
		sync.Mutex
		clients map[netip.Addr]int
	}
}

// clientOf is the key under which the sessions of a are counted; invalid for a connection without IP address, which
// only counts in all.
func clientOf(a netip.Addr) netip.Addr {
	if !a.Is6() {
		return a
	}
	p, err := a.WithZone("").Prefix(64)
	if err != nil {
		return a
	}
	return p.Addr()
}

// enter takes a place for a client, or says why there is none. Each place taken is given back by leave.
func (g *gate) enter(client netip.Addr, l *Limits) (refusal smtp.Reply, ok bool) {
	if g.open.Add(1) > int64(l.Sessions) {
		g.open.Add(-1)
		return replyFull, false
	}
	if !g.enterClient(client, l) {
		g.open.Add(-1)
		return replyClientFull, false
	}
	return smtp.Reply{}, true
}

// enterClient takes a place for a client that an open session is found to speak for; it is given back by leaveClient.
func (g *gate) enterClient(client netip.Addr, l *Limits) bool {
	if !client.IsValid() {
		return true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.clients[client] >= l.SessionsPerClient {
		return false
	}
	if g.mu.clients == nil {
		g.mu.clients = make(map[netip.Addr]int)
	}
	g.mu.clients[client]++
	return true
}

func (g *gate) leave(client netip.Addr) {
	g.open.Add(-1)
	g.leaveClient(client)
}

func (g *gate) leaveClient(client netip.Addr) {
	if !client.IsValid() {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.clients[client]--; g.mu.clients[client] <= 0 {
		delete(g.mu.clients, client)
	}
}

// crowded reports that more than three quarters of limit are taken.
func (g *gate) crowded(limit int) bool { return 4*g.open.Load() > 3*int64(limit) }
