package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/daemon"
	"github.com/godwit-mta/godwit/smtp/smtpclient"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// demoScale is how much shorter the demo's time constants are: what takes a minute in a server takes a second.
const demoScale = 60

// demoMaxAge is after what time the demo gives a message up, if there are a thousand.
const demoMaxAge = 8 * time.Second

// maxAge leaves the slow provider time for its share of many messages: it takes about a hundred in a second.
func (f demoFlags) maxAge() time.Duration {
	return demoMaxAge + time.Duration(max(f.messages-1000, 0))*1500*time.Microsecond
}

type demoFlags struct {
	messages, sessions, size int
	keep                     bool
}

func (a *app) demoCommand() *cobra.Command {
	var f demoFlags
	c := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole road in a minute: the real server against a simulated internet",
		Long: `Show the whole road in a minute: the server that "serve" runs, in a temporary directory, fed over real SMTP
sessions, delivering over real DNS to simulated mailbox providers that are quick, slow, busy, greylisting, down,
or do not know their users. Everything stays on loopback, and nothing is left behind.

Retries are scaled by 60 so that you need not wait: what is a minute in a server is a second here, and a message
is given up after 8 seconds instead of 72 hours. The status is 0 if every message has an outcome, none was lost,
and none arrived twice.`,
		Example: `  godwit demo
  godwit demo --messages 5000 --json
  godwit demo --keep`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.demo(c.Context(), f) },
	}
	c.Flags().IntVar(&f.messages, "messages", 1000, "submit `N` messages")
	c.Flags().IntVar(&f.sessions, "sessions", 20, "submit them over `N` sessions")
	c.Flags().IntVar(&f.size, "size", 10240, "`OCTETS` of each message")
	c.Flags().BoolVar(&f.keep, "keep", false,
		"leave it running afterwards to try the other commands on, and print its addresses")
	return c
}

// demoResult is what the demo ends with, all numbers recipients of the application's messages. Accepted is the sum of
// the outcomes, of Queued, and of Lost.
type demoResult struct {
	Accepted   int `json:"accepted"`
	Delivered  int `json:"delivered"`
	Bounced    int `json:"bounced"`
	Expired    int `json:"expired"`
	Suppressed int `json:"suppressed"`
	Cancelled  int `json:"cancelled"`
	Queued     int `json:"queued"`
	Lost       int `json:"lost"`       // accepted, and neither received, nor reported back, nor queued
	Duplicates int `json:"duplicates"` // received more than once
	Unsigned   int `json:"unsigned"`   // received without the application's DKIM signatures, or with broken ones

	Seconds           float64 `json:"seconds"` // until the last outcome
	MessagesPerSecond float64 `json:"messages_per_second"`

	accepting time.Duration // until the last acceptance
	reports   int           // reports about failures that came back to the application
	rejected  int           // not accepted in the first place
}

// demoRun is one run of the demo.
type demoRun struct {
	a      *app
	flags  demoFlags
	dir    string
	world  *world
	story  *story
	daemon *daemon.Daemon
	client *api.Client

	mu       sync.Mutex
	accepted map[string]bool // ledger of the application: token and recipient
	rejected int
}

func (a *app) demo(ctx context.Context, f demoFlags) (err error) {
	if f.messages < 1 || f.sessions < 1 {
		return usagef("--messages and --sessions are at least 1")
	}
	if f.size < smallestLoad {
		return usagef("--size is at least %d: the header alone is that long", smallestLoad)
	}
	// Whatever ends the demo, and however often it is asked to end, it tidies up, which takes a second.
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	dir, err := os.MkdirTemp("", "godwit-demo-")
	if err != nil {
		return fmt.Errorf("make temporary directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	run := &demoRun{a: a, flags: f, dir: dir, accepted: make(map[string]bool)}
	run.story = newStory(filepath.Join(dir, "events", "current.jsonl"))
	keys, err := newDemoKeys(dir)
	if err != nil {
		return err
	}
	if run.world, err = newWorld(keys); err != nil {
		return err
	}
	defer run.world.close()
	if err := run.makeDaemon(); err != nil {
		return err
	}
	// The providers outlive the server, which may be busy with them when it is asked to end.
	outer, cancelOuter := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelOuter()
	inner, cancelInner := context.WithCancel(ctx)
	defer cancelInner()
	var all sync.WaitGroup
	var worldErr, daemonErr error
	all.Go(func() {
		defer cancelInner()
		worldErr = run.world.run(outer)
	})
	all.Go(func() {
		defer cancelOuter()
		defer cancelInner()
		daemonErr = run.daemon.Run(inner)
	})
	select {
	case <-run.daemon.Ready():
		err = run.play(inner)
	case <-inner.Done():
		err = inner.Err()
	}
	cancelInner()
	all.Wait()
	if ctx.Err() == nil && errors.Is(err, context.Canceled) {
		err = errors.New("a part of the demo ended early")
	}
	return errors.Join(err, worldErr, daemonErr)
}

func (r *demoRun) makeDaemon() error {
	cfg := config.Default()
	cfg.Hostname = "godwit.demo.example"
	cfg.DataDir = r.dir
	cfg.Events.Dir = filepath.Join(r.dir, "events")
	cfg.Events.MaxSize = 16 << 30 // one file, which is followed to its end
	cfg.DrainTimeout = time.Second
	cfg.Listeners = []config.Listener{{
		Name: "demo", Address: "127.0.0.1:0", Tenant: config.DefaultTenant, Stream: config.DefaultStream,
		TrustedNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Limits: cfg.Limits,
	}}
	cfg.HTTP.Address = "127.0.0.1:0"
	cfg.DNS.Servers = []string{r.world.dns.Addr().String()}
	cfg.DKIM.Keys = r.world.keys.config
	d := &cfg.Delivery
	d.Port = r.world.port
	d.AllowedNetworks = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	for i := range d.Retry {
		d.Retry[i] /= demoScale
	}
	d.MaxAge = map[string]time.Duration{config.DefaultStream: r.flags.maxAge()}
	logger := slog.New(slog.DiscardHandler)
	var err error
	r.daemon, err = daemon.New(daemon.Options{Config: cfg, Logger: logger, Version: readBuild().Version, Scale: demoScale})
	if err != nil {
		return fmt.Errorf("make server: %w", err)
	}
	r.client = api.NewSocketClient(filepath.Join(r.dir, "admin.sock"))
	return nil
}

// play feeds the server, waits until nothing is queued, and tells the result.
func (r *demoRun) play(ctx context.Context) error {
	defer r.client.Close()
	if !r.a.json {
		r.introduce()
	}
	begun := time.Now()
	if err := r.feed(ctx); err != nil {
		return err
	}
	accepted := time.Since(begun)
	if err := r.drain(ctx); err != nil {
		return err
	}
	took := time.Since(begun)
	res := r.judge()
	res.Seconds, res.accepting = took.Seconds(), accepted
	res.MessagesPerSecond = float64(res.Accepted) / took.Seconds()
	var err error
	if r.a.json {
		err = r.a.print(res, nil)
	} else {
		err = r.summarize(ctx, res)
	}
	if err != nil {
		return err
	}
	if r.flags.keep {
		r.keep(ctx)
	}
	switch {
	case res.Lost > 0 || res.Duplicates > 0:
		return fmt.Errorf("%s lost and %s: this must not happen, please report it",
			count(res.Lost, "message", "messages"), count(res.Duplicates, "duplicate", "duplicates"))
	case res.Unsigned > 0:
		return fmt.Errorf("%s without signatures that hold: this must not happen, please report it",
			count(res.Unsigned, "message arrived", "messages arrived"))
	case res.Queued > 0:
		return fmt.Errorf("%s had no outcome after %s: is this machine very busy?", count(res.Queued, "message", "messages"),
			took.Round(time.Second))
	case res.rejected > 0:
		return fmt.Errorf("%s not accepted", count(res.rejected, "message was", "messages were"))
	}
	return nil
}

func (r *demoRun) introduce() {
	w := r.a.out
	fmt.Fprintf(w, "Godwit is running in %s.\n", r.dir)
	fmt.Fprintf(w, "Around it is a simulated internet, DNS included, which never leaves this machine:\n\n")
	for _, p := range r.world.providers {
		fmt.Fprintf(w, "  %-16s %s\n", p.domain, p.about)
	}
	fmt.Fprintf(w, "\nMail is signed with two DKIM keys of %s, made for this run; the providers look their records up.\n", homeDomain)
	fmt.Fprintf(w, "\nThe server is the real one; only its retries are scaled by %d: a minute is a second here,\n"+
		"and messages are given up after %s instead of 72 hours.\n\n", demoScale, short(r.flags.maxAge()))
}

// feed submits the messages over real sessions and keeps the application's ledger.
func (r *demoRun) feed(ctx context.Context) error {
	bar := r.a.newProgress("submitting", r.flags.messages)
	defer bar.end()
	var wheel []string
	for _, p := range r.world.providers {
		for range p.share {
			wheel = append(wheel, p.domain)
		}
	}
	res, err := smtptest.Load(ctx, smtptest.LoadOptions{
		Address:  r.daemon.Addresses()["demo"],
		Messages: r.flags.messages,
		Size:     r.flags.size,
		Sessions: min(r.flags.sessions, r.flags.messages),
		Hello:    homeDomain,
		From:     func(int) string { return "app@" + homeDomain },
		// 37 has no factor in common with 100: each run of messages meets every provider.
		To:       func(i int) []string { return []string{fmt.Sprintf("user%d@%s", i, wheel[i*37%len(wheel)])} },
		Progress: func(done int) { bar.set(done, "") },
		OnResult: func(e smtptest.LoadEntry) {
			r.mu.Lock()
			defer r.mu.Unlock()
			if e.Status == smtpclient.Delivered {
				r.accepted[e.Token+" "+e.Recipient] = true
			} else {
				r.rejected++ // sessions that broke are the error of Load
			}
		},
	})
	if err != nil {
		return fmt.Errorf("submit: %w", err)
	}
	if res.Failed > 0 {
		return fmt.Errorf("submit: %d messages got no answer: %s", res.Failed, res.FirstError)
	}
	return nil
}

// drain waits until every entry has its outcome and the event log has told it, or patience is at its end.
func (r *demoRun) drain(ctx context.Context) error {
	bar := r.a.newProgress("delivering", r.flags.messages)
	defer bar.end()
	deadline := time.Now().Add(r.flags.maxAge() + 30*time.Second)
	var late time.Time
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for time.Now().Before(deadline) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		s, err := r.client.SpoolStats(ctx)
		if err != nil {
			return err
		}
		if err := r.story.follow(); err != nil {
			return err
		}
		is := r.story.outcomes
		bar.set(len(r.story.final), fmt.Sprintf("delivered %d, bounced %d, expired %d", is["delivered"], is["bounced"],
			is["expired"]))
		if s.Queued > 0 || r.story.open() > 0 || len(r.story.messages) < r.messages() {
			continue
		}
		// A report is written a moment after the failure that it is about, and is an entry of its own then.
		if r.unseen() == 0 {
			return nil
		}
		if late.IsZero() {
			late = time.Now().Add(reportPatience)
		} else if time.Now().After(late) {
			return nil // they are lost
		}
	}
	return nil
}

// reportPatience is how long the demo waits for reports after the last outcome.
const reportPatience = 10 * time.Second

// unseen returns how many accepted recipients neither got their message nor were reported back to the application.
func (r *demoRun) unseen() int {
	r.world.mu.Lock()
	defer r.world.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for key := range r.accepted {
		if r.world.received[key] == 0 && r.world.reported[key] == 0 {
			n++
		}
	}
	return n
}

// messages returns how many messages the application knows to be accepted; each has one recipient.
func (r *demoRun) messages() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.accepted)
}

// judge compares the ledgers of the application, of the providers, and the event log.
func (r *demoRun) judge() demoResult {
	unseen := r.unseen()
	r.world.mu.Lock()
	defer r.world.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.story
	res := demoResult{
		Accepted: len(r.accepted), rejected: r.rejected, reports: len(r.world.reported),
		Delivered: s.outcomes["delivered"], Bounced: s.outcomes["bounced"], Expired: s.outcomes["expired"],
		Suppressed: s.outcomes["suppressed"], Cancelled: s.outcomes["cancelled"], Queued: s.open(),
	}
	res.Lost, res.Unsigned = max(unseen-res.Queued, 0), r.world.unsigned
	for _, n := range r.world.received {
		res.Duplicates += n - 1
	}
	return res
}

// keep leaves everything running until the user stops it.
func (r *demoRun) keep(ctx context.Context) {
	w := r.a.out
	if r.a.json {
		w = r.a.err
	}
	self := r.a.self
	fmt.Fprintf(w, "\nStill running; Ctrl-C ends it. In another terminal:\n\n")
	fmt.Fprintf(w, "  %s send --server %s --from me@%s --to you@grey.example --subject Hello --text Hi\n", self,
		r.daemon.Addresses()["demo"], homeDomain)
	fmt.Fprintf(w, "  %s queue list --data-dir %s\n", self, r.dir)
	fmt.Fprintf(w, "  %s message show ID --data-dir %s    (the 250 reply names the ID)\n", self, r.dir)
	fmt.Fprintf(w, "  curl http://%s/metrics\n", r.daemon.HTTPAddress())
	<-ctx.Done()
}

func (r *demoRun) summarize(ctx context.Context, res demoResult) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s accepted in %.1f s, each synced to disk before its 250 reply.\n",
		count(res.Accepted, "message was", "messages were"), res.accepting.Seconds())
	end := "nothing was left to do"
	if res.Queued > 0 {
		end = "this is where they were"
	}
	fmt.Fprintf(&b, "%.1f s later %s:\n\n", res.Seconds-res.accepting.Seconds(), end)
	var rows [][]cell
	row := func(n int, what, how string, always bool) {
		if n > 0 || always {
			rows = append(rows, []cell{word(""), number(n), word(what), word(how)})
		}
	}
	row(res.Delivered, "delivered", "a provider took it over with a 250 reply", true)
	row(res.Bounced, "bounced", "refused for good: an unknown user, or a domain without mail", false)
	row(res.Expired, "expired", "given up: the provider was down all the time", false)
	row(res.Queued, "queued", "still waiting", false)
	row(res.Lost, "lost", "", true)
	row(res.Duplicates, "duplicates", "", true)
	row(res.Unsigned, "unsigned", "received without signatures that hold", false)
	row(res.rejected, "not accepted", "refused when it was submitted", false)
	b.WriteString(table(rows, 0))
	if d := r.story.deferrals; d > 0 {
		fmt.Fprintf(&b, "\nOn the way, %s answered with \"later\" or not at all, and put off.\n",
			count(d, "attempt was", "attempts were"))
	}
	if res.Delivered > 0 && res.Unsigned == 0 {
		fmt.Fprintf(&b, "\nWhat was delivered had signatures by RSA and by Ed25519, and all of them hold.\n")
	}
	if res.reports > 0 {
		fmt.Fprintf(&b, "%s back to %s in reports that people understand.\n",
			count(res.reports, "failure was told", "failures were told"), homeDomain)
	}
	b.WriteString("\nBy provider:\n\n" + r.byProvider())
	if id := r.story.example(); id != "" {
		m, err := r.client.Message(ctx, id)
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "\nOne message's whole story, as \"godwit message show\" tells it:\n\n")
		printTimeline(&b, m.Events)
	}
	if !r.flags.keep {
		fmt.Fprintf(&b, "\nAll this is gone now. \"%s demo --keep\" leaves it running to look around;\n"+
			"README.md tells how to run it for real.\n", r.a.self)
	}
	_, err := r.a.out.Write(b.Bytes())
	return err
}

func (r *demoRun) byProvider() string {
	columns := []event.Type{event.Delivered, event.Deferred, event.Bounced, event.Expired}
	head := []cell{word(""), word("")}
	for _, t := range columns {
		head = append(head, cell{text: t.String(), right: true})
	}
	rows := [][]cell{head}
	for _, p := range r.world.providers {
		had := r.story.domains[p.domain]
		if had == nil {
			continue
		}
		row := []cell{word(""), word(p.domain)}
		for _, t := range columns {
			n := number(had[t.String()])
			if n.text == "0" {
				n.text = "."
			}
			row = append(row, n)
		}
		rows = append(rows, row)
	}
	return table(rows, 0)
}
