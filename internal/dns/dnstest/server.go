// Package dnstest is a DNS server for tests and demonstrations: zones as text, answers over real UDP and TCP on
// loopback, and any misbehaviour that a test asks for. It behaves like a recursive resolver that finds all of its
// knowledge in the text.
//
//	s := dnstest.Start(t, `
//		$TTL 300
//		example.com.     MX    10 mx1.example.com.
//		example.com.     MX    20 mx2.example.net.
//		mx1.example.com. A     192.0.2.1
//		mx1.example.com. AAAA  2001:db8::1
//		nomail.example.  MX    0 .
//		*.wild.example.  A     192.0.2.9
//		alias.example.   CNAME example.com.
//	`)
//	s.Fail("mx2.example.net", dnstest.Behaviour{Rcode: "SERVFAIL"})
//	r, err := dns.New(dns.Options{Servers: []netip.AddrPort{s.Addr()}})
//
// The text is a master file (RFC 1035, 5) whose origin is the root and whose TTL is 60 s unless it says otherwise.
// Names that it does not hold do not exist. A SOA record gives the negative TTL of what is below it; without one it is
// 60 s.
//
// Outside tests make a server by [New] and let [Server.Run] serve until its context ends. Under testing/synctest, where
// no real socket works, use [InMemory] and give the resolver [Server.Dial].
package dnstest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Server answers DNS queries on one loopback port, over UDP and TCP. Its methods may be used at any time by any number
// of goroutines; Run only once.
type Server struct {
	udp  *net.UDPConn // nil in memory
	tcp  *net.TCPListener
	addr netip.AddrPort

	dialed sync.WaitGroup // connections of Dial

	mu struct {
		sync.RWMutex
		data       *zones
		behaviours map[string]*behaviour
		queries    map[question]int
	}
}

// portTries bounds the search for a port that is free for both UDP and TCP.
const portTries = 20

// New reads the zones and opens a port on 127.0.0.1. Nothing is answered until Run.
func New(text string) (*Server, error) {
	s, err := newServer(text)
	if err != nil {
		return nil, err
	}
	loopback := net.IPv4(127, 0, 0, 1)
	for range portTries {
		if s.udp, err = net.ListenUDP("udp4", &net.UDPAddr{IP: loopback}); err != nil {
			break
		}
		s.addr = s.udp.LocalAddr().(*net.UDPAddr).AddrPort()
		if s.tcp, err = net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(s.addr)); err == nil {
			return s, nil
		}
		s.udp.Close()
	}
	return nil, fmt.Errorf("dnstest: opening a port: %w", err)
}

func newServer(text string) (*Server, error) {
	data, err := parseZones(text)
	if err != nil {
		return nil, err
	}
	s := new(Server)
	s.mu.data = data
	s.mu.behaviours = make(map[string]*behaviour)
	s.mu.queries = make(map[question]int)
	return s, nil
}

// InMemory makes a server without sockets, which answers only through Dial. It waits at the test's end until all those
// connections are closed.
func InMemory(t TB, text string) *Server {
	t.Helper()
	s, err := newServer(text)
	if err != nil {
		t.Fatal(err)
	}
	s.addr = netip.MustParseAddrPort("127.0.0.1:53")
	t.Cleanup(s.dialed.Wait)
	return s
}

// Dial connects to the server in memory, whatever the address; network is "udp" or "tcp". It fits a resolver's Options
// and works without Run.
func (s *Server) Dial(ctx context.Context, network, _ string) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	near, far := net.Pipe()
	s.dialed.Go(func() {
		defer far.Close()
		if network == "udp" {
			s.servePackets(far)
			return
		}
		s.serveConn(context.Background(), far)
	})
	return near, nil
}

// servePackets answers on a pipe, which keeps the bounds of packets, until its other end is closed.
func (s *Server) servePackets(pipe net.Conn) {
	buf := make([]byte, maxPacket)
	for {
		n, err := pipe.Read(buf)
		if err != nil {
			return
		}
		packets, delay := s.respond(buf[:n], false)
		time.Sleep(delay)
		for _, p := range packets {
			if _, err := pipe.Write(p); err != nil {
				return
			}
		}
	}
}

// TB is what Start needs of a [testing.TB].
type TB interface {
	Helper()
	Fatal(args ...any)
	Cleanup(func())
}

// Start makes a server that runs until the test ends.
func Start(t TB, text string) *Server {
	t.Helper()
	s, err := New(text)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
		s.dialed.Wait()
	})
	return s
}

// Addr returns where the server listens, the same port for UDP and TCP. In memory it is an address where nothing is.
func (s *Server) Addr() netip.AddrPort { return s.addr }

// Set puts other zones in place of all there are. On error the old ones stay.
func (s *Server) Set(text string) error {
	data, err := parseZones(text)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.data = data
	return nil
}

// Queries returns how often name was asked for records of the type ("MX", "A"), over UDP and TCP together. An empty
// name stands for all names, an empty type for all types.
func (s *Server) Queries(name, typ string) int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if name != "" && typ != "" {
		return s.mu.queries[question{canonical(name), typ}]
	}
	n := 0
	for q, times := range s.mu.queries {
		if (name == "" || q.name == canonical(name)) && (typ == "" || q.typ == typ) {
			n += times
		}
	}
	return n
}

// Run answers queries until ctx is done, and then closes the port and returns when all is at rest. It returns nil
// unless a socket fails.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		s.udp.Close()
		s.tcp.Close()
	})()
	var all sync.WaitGroup
	var udpErr, tcpErr error
	all.Go(func() {
		defer cancel()
		udpErr = s.serveUDP(ctx, &all)
	})
	all.Go(func() {
		defer cancel()
		tcpErr = s.serveTCP(ctx, &all)
	})
	all.Wait()
	return errors.Join(udpErr, tcpErr)
}

func (s *Server) serveUDP(ctx context.Context, all *sync.WaitGroup) error {
	buf := make([]byte, maxPacket)
	for {
		n, peer, err := s.udp.ReadFromUDPAddrPort(buf)
		if err != nil {
			return unlessDone(ctx, err)
		}
		packets, delay := s.respond(buf[:n], false)
		send := func() {
			for _, p := range packets {
				s.udp.WriteToUDPAddrPort(p, peer) // a lost answer is what UDP is like
			}
		}
		if delay == 0 {
			send()
			continue
		}
		all.Go(func() {
			if wait(ctx, delay) {
				send()
			}
		})
	}
}

func (s *Server) serveTCP(ctx context.Context, all *sync.WaitGroup) error {
	for {
		conn, err := s.tcp.Accept()
		if err != nil {
			return unlessDone(ctx, err)
		}
		all.Go(func() {
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			s.serveConn(ctx, conn)
		})
	}
}

// tcpIdle bounds how long a TCP connection may stay silent.
const tcpIdle = 10 * time.Second

func (s *Server) serveConn(ctx context.Context, conn net.Conn) {
	for {
		conn.SetDeadline(time.Now().Add(tcpIdle))
		query, err := readFramed(conn)
		if err != nil {
			return
		}
		packets, delay := s.respond(query, true)
		if len(packets) == 0 || !wait(ctx, delay) {
			return
		}
		conn.SetDeadline(time.Now().Add(tcpIdle))
		for _, p := range packets {
			if err := writeFramed(conn, p); err != nil {
				return
			}
		}
	}
}

func unlessDone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("dnstest: %w", err)
}

// wait returns false if ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	if d == 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
