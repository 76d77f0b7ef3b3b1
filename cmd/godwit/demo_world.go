package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/godwit-mta/godwit/internal/dns/dnstest"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/message/dsn"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// provider is one simulated mailbox provider of the demo.
type provider struct {
	domain  string
	address string // loopback address that its MX has; empty: none
	share   int    // of a hundred messages
	about   string // for people
	script  smtptest.Script
	down    bool // nobody listens
	sink    *smtptest.Sink
}

// homeDomain is where the demo's application sits: reports come back there.
const homeDomain = "app.example"

// providers returns the simulated internet. Their shares add up to a hundred.
func providers() []*provider {
	reply := func(at smtptest.Point, match, text string) smtptest.Rule {
		return smtptest.Rule{At: at, Match: match, Reply: text}
	}
	return []*provider{
		{domain: "quick.example", address: "127.0.1.1", share: 50, about: "takes everything at once"},
		{domain: "slow.example", address: "127.0.1.2", share: 15, about: "thinks for 200 ms about each message",
			script: smtptest.Script{Rules: []smtptest.Rule{
				{At: smtptest.AtFinal, Delay: smtptest.Duration(200 * time.Millisecond)},
			}}},
		{domain: "grey.example", address: "127.0.1.3", share: 12, about: "greylists: says \"try again later\" for 1 s",
			script: smtptest.Script{Greylist: smtptest.Duration(time.Second)}},
		{domain: "busy.example", address: "127.0.1.4", share: 10, about: "allows 4 sessions of 10 messages each",
			script: smtptest.Script{Sessions: 4, SessionMessages: 10}},
		{domain: "users.example", address: "127.0.1.5", share: 8, about: "does not know some of its users",
			script: smtptest.Script{Rules: []smtptest.Rule{
				reply(smtptest.AtRcpt, "*7@users.example", "550 5.1.1 No such user here"),
				reply(smtptest.AtRcpt, "*3@users.example", "550 5.1.1 No such user here"),
			}}},
		{domain: "down.example", address: "127.0.1.6", share: 3, about: "is down: nobody answers", down: true},
		{domain: "nomail.example", share: 2, about: "says in DNS that it takes no mail (null MX)"},
		{domain: homeDomain, address: "127.0.1.7", about: "the application's own domain: reports come back here"},
	}
}

// world is the simulated internet on loopback: real DNS, real SMTP servers, and a ledger of what they received.
type world struct {
	providers []*provider
	port      int
	dns       *dnstest.Server
	keys      *demoKeys
	listeners []net.Listener

	mu       sync.Mutex
	received map[string]int // token and recipient: how often a sink took it
	reported map[string]int // token and recipient: how often a report of its failure came back
	unsigned int            // what came in without signatures that hold
	odd      []string       // what came back and was no report
}

// newWorld opens sockets and starts nothing. All mail hosts share one port, as they do on the internet.
func newWorld(keys *demoKeys) (*world, error) {
	w := &world{providers: providers(), keys: keys, received: make(map[string]int), reported: make(map[string]int)}
	for _, p := range w.providers {
		o := smtptest.SinkOptions{Script: p.script, KeepBody: true, OnMessage: w.note}
		o.Script.Hostname = "mx." + p.domain
		var err error
		if p.sink, err = smtptest.NewSink(o); err != nil {
			return nil, fmt.Errorf("provider %s: %w", p.domain, err)
		}
	}
	if err := w.listen(); err != nil {
		return nil, err
	}
	var err error
	if w.dns, err = dnstest.New(w.zones()); err != nil {
		w.close()
		return nil, fmt.Errorf("simulated DNS: %w", err)
	}
	return w, nil
}

// listen finds a port that is free on all the addresses.
func (w *world) listen() error {
	var err error
	for range 20 {
		if err = w.listenOnce(); err == nil {
			return nil
		}
		w.close()
	}
	if errors.Is(err, syscall.EADDRNOTAVAIL) {
		return fmt.Errorf("the demo needs the loopback addresses 127.0.1.1 to 127.0.1.7, which some systems lack until "+
			"they are added (ifconfig lo0 alias 127.0.1.1, and so on): %w", err)
	}
	return fmt.Errorf("no port is free on 127.0.1.1 to 127.0.1.7: %w", err)
}

func (w *world) listenOnce() error {
	w.port, w.listeners = 0, nil
	for _, p := range w.providers {
		if p.address == "" || p.down {
			continue
		}
		l, err := net.Listen("tcp", netip.AddrPortFrom(netip.MustParseAddr(p.address), uint16(w.port)).String())
		if err != nil {
			return err
		}
		w.listeners = append(w.listeners, l)
		w.port = l.Addr().(*net.TCPAddr).Port
	}
	return nil
}

func (w *world) close() {
	for _, l := range w.listeners {
		l.Close()
	}
	w.listeners = nil
}

func (w *world) zones() string {
	var b strings.Builder
	for _, p := range w.providers {
		if p.address == "" {
			fmt.Fprintf(&b, "%s. 300 IN MX 0 .\n", p.domain)
			continue
		}
		fmt.Fprintf(&b, "%[1]s. 300 IN MX 10 mx.%[1]s.\nmx.%[1]s. 300 IN A %[2]s\n", p.domain, p.address)
	}
	return b.String() + w.keys.zone()
}

// run serves until ctx ends.
func (w *world) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make(chan error, len(w.listeners)+1)
	var all sync.WaitGroup
	start := func(run func() error) {
		all.Go(func() {
			defer cancel()
			errs <- run()
		})
	}
	start(func() error { return w.dns.Run(ctx) })
	next := 0
	for _, p := range w.providers {
		if p.address == "" || p.down {
			continue
		}
		l := w.listeners[next]
		next++
		start(func() error { return p.sink.Run(ctx, l) })
	}
	all.Wait()
	close(errs)
	for err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
	}
	return nil
}

// note enters what a sink took into the ledger.
func (w *world) note(r *smtptest.Received) {
	if !r.Accepted {
		return
	}
	token, signed := tokenOf(r.Body), true
	if r.From != "" && r.From != "<>" { // reports are of another domain
		signed = w.keys.hold(r.Body)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, to := range r.Recipients {
		if !strings.HasSuffix(to, "@"+homeDomain) {
			w.received[token+" "+to]++
			if !signed {
				w.unsigned++
			}
			continue
		}
		report, err := dsn.Parse(r.Body)
		if err != nil {
			w.odd = append(w.odd, err.Error())
			continue
		}
		about := tokenOf(report.Original)
		for _, s := range report.Recipients {
			w.reported[about+" "+s.Final.String()]++
		}
	}
}

// tokenOf returns what the load generator named a message.
func tokenOf(body []byte) string {
	h, err := message.ParseHeader(body)
	if err != nil {
		return ""
	}
	v, _ := h.Get("Load-Token")
	return string(bytes.TrimSpace(v))
}
