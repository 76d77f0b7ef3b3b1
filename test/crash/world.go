package crash

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/godwit-mta/godwit/internal/dns/dnstest"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// homeDomain is where senders live; nothing but reports comes there.
const homeDomain = "home.example"

// lmtpDomain is delivered by a route, over LMTP.
const lmtpDomain = "lmtp.example"

// provider is one simulated destination.
type provider struct {
	domain, address string
	script          smtptest.Script
	sink            *smtptest.Sink
	listener        net.Listener
}

// providers returns the simulated internet. Hard ones make what is in flight at a kill interesting.
func providers() []*provider {
	soon := smtptest.Duration(80 * time.Millisecond)
	return []*provider{
		{domain: "quick.example", address: "127.0.2.1"},
		{domain: "slow.example", address: "127.0.2.2", script: smtptest.Script{
			Rules: []smtptest.Rule{{At: smtptest.AtFinal, Delay: soon}},
		}},
		{domain: "moody.example", address: "127.0.2.3", script: smtptest.Script{Rules: []smtptest.Rule{
			{At: smtptest.AtRcpt, Share: 0.03, Reply: "450 4.2.1 Not now"},
			{At: smtptest.AtBody, Share: 0.02, Octets: 700, Drop: smtptest.DropRST},
			{At: smtptest.AtFinal, Share: 0.03, Reply: "451 4.3.0 Try again"},
			{At: smtptest.AtFinal, Share: 0.02, Drop: smtptest.DropFIN},              // the message is lost, no reply
			{At: smtptest.AtFinal, Share: 0.02, Cut: 7},                              // the message is taken, half a reply
			{At: smtptest.AtFinal, Share: 0.02, Drop: smtptest.DropFIN, After: true}, // taken, and gone after the reply
		}}},
		{domain: "users.example", address: "127.0.2.4", script: smtptest.Script{
			Rules: []smtptest.Rule{{At: smtptest.AtRcpt, Match: "nobody*", Reply: "550 5.1.1 No such user"}},
		}},
		{domain: "small.example", address: "127.0.2.5", script: smtptest.Script{
			Recipients: 3, SessionMessages: 5, Without: []string{"PIPELINING", "CHUNKING"},
		}},
		{domain: lmtpDomain, address: "127.0.2.6", script: smtptest.Script{LMTP: true}},
		{domain: homeDomain, address: "127.0.2.7"},
	}
}

// world is the simulated internet on loopback. It outlives the server that is killed.
type world struct {
	providers []*provider
	port      int
	dns       *dnstest.Server
	ledger    *ledger
	taken     func(n int) // told of deliveries that were complete
}

// newWorld opens sockets and starts nothing.
func newWorld(ledger *ledger, src *rand.Rand, taken func(int)) (*world, error) {
	return newWorldOf(providers(), "", ledger, src, taken)
}

// newWorldOf is newWorld with other providers, and with more of DNS than what they need.
func newWorldOf(list []*provider, more string, ledger *ledger, src *rand.Rand, taken func(int)) (*world, error) {
	w := &world{providers: list, ledger: ledger, taken: taken}
	for _, p := range w.providers {
		p.script.Hostname = "mx." + p.domain
		var err error
		p.sink, err = smtptest.NewSink(smtptest.SinkOptions{
			Script: p.script, KeepBody: true, Rand: rand.NewPCG(src.Uint64(), src.Uint64()),
			OnMessage: func(r *smtptest.Received) { w.note(p, r) },
		})
		if err != nil {
			return nil, fmt.Errorf("provider %s: %w", p.domain, err)
		}
	}
	if err := w.listen(); err != nil {
		return nil, err
	}
	var zones strings.Builder
	zones.WriteString(more)
	for _, p := range w.providers {
		if p.domain != lmtpDomain && p.domain != "" {
			fmt.Fprintf(&zones, "%[1]s. 300 IN MX 10 mx.%[1]s.\nmx.%[1]s. 300 IN A %[2]s\n", p.domain, p.address)
		}
	}
	var err error
	if w.dns, err = dnstest.New(zones.String()); err != nil {
		w.close()
		return nil, fmt.Errorf("simulated DNS: %w", err)
	}
	return w, nil
}

// listen finds a port that is free on all the addresses.
func (w *world) listen() error {
	var errs []error
	for range 20 {
		err := w.listenOnce()
		if err == nil {
			return nil
		}
		w.close()
		errs = append(errs, err)
	}
	return fmt.Errorf("no port is free on all addresses of the providers: %w", errors.Join(errs...))
}

func (w *world) listenOnce() error {
	w.port = 0
	for _, p := range w.providers {
		l, err := net.Listen("tcp", netip.AddrPortFrom(netip.MustParseAddr(p.address), uint16(w.port)).String())
		if err != nil {
			return err
		}
		p.listener = l
		w.port = l.Addr().(*net.TCPAddr).Port
	}
	return nil
}

// setDown makes all providers refuse everything for the time being, or take it as their scripts say.
func (w *world) setDown(down bool) error {
	for _, p := range w.providers {
		script := p.script
		if down {
			// What sessions were told in reply to EHLO stays true.
			script.Rules = []smtptest.Rule{{At: smtptest.AtMail, Reply: "451 4.3.2 Closed for now"}}
		}
		if err := p.sink.SetScript(script); err != nil {
			return fmt.Errorf("provider %s: %w", p.domain, err)
		}
	}
	return nil
}

func (w *world) close() {
	for _, p := range w.providers {
		if p.listener != nil {
			p.listener.Close()
			p.listener = nil
		}
	}
}

// run serves until ctx ends.
func (w *world) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(w.providers)+1)
	var all sync.WaitGroup
	start := func(i int, run func() error) {
		all.Go(func() {
			defer cancel()
			errs[i] = run()
		})
	}
	for i, p := range w.providers {
		start(i, func() error { return p.sink.Run(ctx, p.listener) })
	}
	start(len(w.providers), func() error { return w.dns.Run(ctx) })
	all.Wait()
	for i, err := range errs {
		if errors.Is(err, context.Canceled) {
			errs[i] = nil
		}
	}
	return errors.Join(errs...)
}

// note enters what a sink took, or did not, into the ledger.
func (w *world) note(p *provider, r *smtptest.Received) {
	line := reception{Site: p.domain, Replied: r.Replied, Arrived: r.Time, Time: time.Now()}
	content, traced := untrace(r.Body)
	sum := sha256.Sum256(content)
	line.Hash, line.Traced = hex.EncodeToString(sum[:]), traced
	line.Token = strings.Trim(fieldOf(content, "Message-ID"), "<>")
	if p.domain == homeDomain {
		line.About, line.Failed = readReport(content)
	}
	lines := make([]any, len(r.Recipients))
	accepted := 0
	for i, to := range r.Recipients {
		one := line
		one.To = to
		reply := ""
		if n := min(i, len(r.Replies)-1); n >= 0 { // LMTP has a reply for each recipient
			reply = r.Replies[n]
		}
		if one.Accepted = r.Accepted && strings.HasPrefix(reply, "2"); one.Accepted {
			accepted++
		}
		lines[i] = one
	}
	w.ledger.add(lines...)
	if p.domain != homeDomain {
		w.taken(accepted)
	}
}

// untrace cuts trace headers off. traced reports whether they are one Received field, as RFC 5321, 4.4 asks of us.
func untrace(p []byte) (content []byte, traced bool) {
	rest, found := bytes.CutPrefix(p, []byte("Received: "))
	if !found {
		return p, false
	}
	for {
		i := bytes.Index(rest, []byte("\r\n"))
		if i < 0 {
			return p, false
		}
		rest = rest[i+2:]
		if len(rest) == 0 || rest[0] != ' ' && rest[0] != '\t' {
			return rest, true
		}
	}
}

// fieldOf returns the first header field of this name that stands on one line, anywhere in p: also in the part of a
// report that quotes a header.
func fieldOf(p []byte, name string) string {
	for line := range bytes.Lines(p) {
		if v, ok := bytes.CutPrefix(line, []byte(name+": ")); ok {
			return string(bytes.TrimSpace(v))
		}
	}
	return ""
}

// readReport takes a report apart with as little knowledge as possible (RFC 3464, 2.3).
func readReport(p []byte) (about string, failed []string) {
	_, parts, _ := bytes.Cut(p, []byte("\r\n\r\n")) // below its own header
	about = strings.Trim(fieldOf(parts, "Message-ID"), "<>")
	for line := range bytes.Lines(p) {
		v, ok := bytes.CutPrefix(line, []byte("Final-Recipient: rfc822;"))
		if ok {
			failed = append(failed, string(bytes.TrimSpace(v)))
		}
	}
	return about, failed
}
