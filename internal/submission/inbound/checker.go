package inbound

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/godwit-mta/godwit/mailauth/arc"
	"github.com/godwit-mta/godwit/mailauth/dkim"
	"github.com/godwit-mta/godwit/mailauth/dmarc"
	"github.com/godwit-mta/godwit/mailauth/spf"
	"github.com/godwit-mta/godwit/smtp"
)

// Defaults of Options.
const (
	DefaultInFlight = 256
	DefaultTimeout  = 20 * time.Second
	DefaultWait     = 2 * time.Second
)

// Options make a Checker. Hostname and Resolver are required.
type Options struct {
	Hostname string // our authserv-id (RFC 8601, 2.5)
	Resolver Resolver
	Keys     Keys          // to seal with; nil: nothing is sealed
	InFlight int           // checks at once, over all listeners; DefaultInFlight
	Timeout  time.Duration // for one check; DefaultTimeout. RFC 7208, 4.6.4, asks for 20 s at least
	Wait     time.Duration // for a place among the checks in flight; DefaultWait
	Config   Config

	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Config is what a reload replaces.
type Config struct {
	// TrustedSealers are the domains of relays (d= of ARC-Seal, in A-labels) whose word counts that a message passed DMARC
	// when it came to them.
	TrustedSealers []string
	// RejectSPF refuses, in the mode Reject, mail that fails SPF ("-all") and whose author's domain has no DMARC policy.
	RejectSPF bool
	// Seal names the domain whose key seals what is passed on; empty: nothing is sealed. Selector names one key of it; empty:
	// an RSA one, which all verifiers know.
	Seal, Selector string
}

// settings is a Config made ready.
type settings struct {
	Config
	trusted map[string]bool
}

// Checker checks mail. It is safe for concurrent use. It keeps no goroutine.
type Checker struct {
	o        Options
	slots    chan struct{}
	settings atomic.Pointer[settings]

	spf    *spf.Checker
	dkim   *dkim.Verifier
	dmarc  dmarc.Evaluator
	arc    *arc.Verifier
	sealer *arc.Sealer

	metrics *metrics
}

// New checks the options and returns a Checker.
func New(o Options) (*Checker, error) {
	switch {
	case o.Hostname == "" || o.Resolver == nil:
		return nil, errors.New("inbound: hostname and resolver are required")
	case o.InFlight < 0 || o.Timeout < 0 || o.Wait < 0:
		return nil, errors.New("inbound: a bound is negative")
	}
	if o.InFlight == 0 {
		o.InFlight = DefaultInFlight
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Wait == 0 {
		o.Wait = DefaultWait
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Checker{o: o, slots: make(chan struct{}, o.InFlight), dmarc: dmarc.Evaluator{Resolver: o.Resolver}}
	c.SetConfig(o.Config)
	var errs [5]error
	c.spf, errs[0] = spf.New(spf.Options{Resolver: o.Resolver, Receiver: o.Hostname, Timeout: o.Timeout})
	c.dkim, errs[1] = dkim.NewVerifier(dkim.VerifyOptions{Resolver: o.Resolver, Timeout: o.Timeout})
	c.arc, errs[2] = arc.New(arc.Options{Resolver: o.Resolver, Timeout: o.Timeout})
	c.sealer, errs[3] = arc.NewSealer(dkim.Options{})
	c.metrics, errs[4] = newMetrics(o.Registerer, func() int { return len(c.slots) })
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("inbound: %w", err)
	}
	return c, nil
}

// SetConfig replaces what a reload can change. Checks under way keep what they began with where it matters.
func (c *Checker) SetConfig(next Config) {
	s := &settings{Config: next, trusted: make(map[string]bool, len(next.TrustedSealers))}
	for _, d := range next.TrustedSealers {
		s.trusted[strings.ToLower(strings.TrimSuffix(d, "."))] = true
	}
	c.settings.Store(s)
}

// Hostname returns our authserv-id.
func (c *Checker) Hostname() string { return c.o.Hostname }

// Question is a message and where it came from.
type Question struct {
	Client  netip.Addr
	Hello   string    // what the client called itself
	From    smtp.Path // of MAIL; null for reports
	Authors Authors
	Pieces  [][]byte // the message as it came in, header first; only read
}

// Authors says whom a message is from, as its readers see it.
type Authors struct {
	// Domains of the addresses in From, in A-labels and lower case, each once.
	Domains []string
	// Unclear says that readers may disagree on the author: there is no From field, or more than one, or it cannot be read.
	Unclear bool
}

// maxAuthors is how many domains of authors are judged (RFC 9989, 11.5, wants a bound).
const maxAuthors = 4

// Check finds out what there is to find out about a message. It never fails: what could not be found out says so.
func (c *Checker) Check(ctx context.Context, q *Question) *Findings {
	begin := time.Now()
	f := &Findings{Client: q.Client.Unmap().WithZone(""), Hello: q.Hello, From: q.From, Authors: q.Authors}
	if !c.enter(ctx) {
		c.metrics.skipped.Inc()
		f.notChecked()
		c.metrics.count(f)
		return f
	}
	defer func() { <-c.slots }()
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	c.find(ctx, q, f)
	c.judge(ctx, f)
	c.metrics.count(f)
	c.metrics.seconds.Observe(time.Since(begin).Seconds())
	return f
}

// enter takes a place among the checks in flight.
func (c *Checker) enter(ctx context.Context) bool {
	select {
	case c.slots <- struct{}{}:
		return true
	default:
	}
	t := time.NewTimer(c.o.Wait)
	defer t.Stop()
	select {
	case c.slots <- struct{}{}:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

// find makes the checks that do not need each other, at the same time: what they wait for is the DNS.
func (c *Checker) find(ctx context.Context, q *Question, f *Findings) {
	sender := senderOf(q.From)
	var w sync.WaitGroup
	w.Go(func() { f.SPF = c.spf.Check(ctx, f.Client, q.Hello, sender) })
	if sender != "" {
		w.Go(func() { f.HELO = c.spf.Check(ctx, f.Client, q.Hello, "") })
		w.Go(func() { f.NoMail = c.takesNoMail(ctx, q.From.Domain) })
	}
	w.Go(func() { f.Reverse = c.reverse(ctx, f.Client) })
	w.Go(func() { f.ARC, f.arcErr = c.arc.Verify(ctx, q.Pieces, time.Now()) })
	f.DKIM, f.dkimErr = c.dkim.Verify(ctx, q.Pieces, time.Now())
	w.Wait()
}

// senderOf returns a path with its domain in A-labels, as SPF wants it; empty for the null path.
func senderOf(p smtp.Path) string {
	if p.IsNull() {
		return ""
	}
	domain, err := smtp.DomainToASCII(p.Domain)
	if err != nil {
		domain = p.Domain
	}
	return p.Local + "@" + domain
}

func (c *Checker) takesNoMail(ctx context.Context, domain string) bool {
	ascii, err := smtp.DomainToASCII(domain)
	if err != nil || ascii == "" || ascii[0] == '[' {
		return false
	}
	null, err := c.o.Resolver.TakesNoMail(ctx, ascii)
	return err == nil && null
}

// maxNames is how many names of an address are looked up (RFC 8601, 3, wants a bound).
const maxNames = 5

// reverse looks for a name of an address that has that address (RFC 8601, 3).
func (c *Checker) reverse(ctx context.Context, client netip.Addr) Reverse {
	if !client.IsValid() {
		return Reverse{}
	}
	names, err := c.o.Resolver.PTR(ctx, client)
	switch {
	case err != nil:
		return Reverse{Status: "temperror"}
	case len(names) == 0:
		return Reverse{Status: "permerror"}
	}
	network := "ip6"
	if client.Is4() {
		network = "ip4"
	}
	res := Reverse{Status: "fail"}
	for _, name := range names[:min(len(names), maxNames)] {
		addrs, err := c.o.Resolver.NetIP(ctx, network, name)
		if err != nil {
			res.Status = "temperror"
		}
		for _, a := range addrs {
			if a.Unmap() == client {
				return Reverse{Status: "pass", Name: name}
			}
		}
	}
	return res
}

// judge asks what DMARC makes of it all. Of several authors the one counts that it is worst for (RFC 9989, 11.5).
func (c *Checker) judge(ctx context.Context, f *Findings) {
	f.Author, f.DMARC = "", dmarc.Verdict{Result: dmarc.None, Policy: dmarc.PolicyNone, Disposition: dmarc.PolicyNone}
	if f.Authors.Unclear || len(f.Authors.Domains) > maxAuthors {
		f.Authors.Unclear = true
		return
	}
	ev := dmarc.Evidence{Unknown: f.SPF.Status == spf.TempError || f.dkimErr != nil}
	if f.SPF.Status == spf.Pass {
		ev.SPF = f.SPF.Domain
	}
	for i := range f.DKIM {
		switch f.DKIM[i].Status {
		case dkim.Pass:
			ev.DKIM = append(ev.DKIM, f.DKIM[i].Domain)
		case dkim.TempError:
			ev.Unknown = true
		}
	}
	for i, domain := range f.Authors.Domains {
		ev.Author = domain
		if v := c.dmarc.Evaluate(ctx, ev); i == 0 || badness(&v) > badness(&f.DMARC) {
			f.Author, f.DMARC = domain, v
		}
	}
	if f.DMARC.Result == dmarc.Fail {
		f.Sealer = c.vouched(f)
	}
}

// badness orders verdicts.
func badness(v *dmarc.Verdict) int {
	switch v.Result {
	case dmarc.Pass:
		return 0
	case dmarc.TempError:
		return 2
	case dmarc.Fail:
		switch v.Disposition {
		case dmarc.PolicyReject:
			return 5
		case dmarc.PolicyQuarantine:
			return 4
		}
		return 3
	}
	return 1
}
