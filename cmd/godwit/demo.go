package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/daemon"
	"github.com/godwit-mta/godwit/smtp/smtpclient"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// demoScale is how much shorter the demo's time constants are: what takes a minute in a server takes a second.
const demoScale = 60

// demoPatience is how long the demo waits for the queue to become empty after the last message was accepted.
const demoPatience = 60 * time.Second

type demoFlags struct {
	messages, sessions, size int
	keep                     bool
}

func (a *app) demoCommand() *cobra.Command {
	var f demoFlags
	c := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole road in a minute: the real server against a simulated internet",
		Long: `Show the whole road in a minute: the real server, in a temporary directory, fed over real SMTP sessions,
delivering over real DNS to simulated mailbox providers that are quick, slow, busy, greylisting, down, or do not
know their users. Everything stays on loopback. Time constants are scaled: what is a minute in a server
(between two attempts, say) is a second here.`,
		Example: "  godwit demo\n  godwit demo --messages 5000 --json\n  godwit demo --keep    # leaves it running, to try the other commands on",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return a.demo(c.Context(), f) },
	}
	c.Flags().IntVar(&f.messages, "messages", 1000, "how many messages")
	c.Flags().IntVar(&f.sessions, "sessions", 20, "sessions that submit them")
	c.Flags().IntVar(&f.size, "size", 10240, "octets of each message")
	c.Flags().BoolVar(&f.keep, "keep", false, "leave it running afterwards, with its addresses printed")
	return c
}

// demoResult is what the demo ends with. Accepted is recipients of the application's messages, and the sum of the outcomes,
// of Queued, and of Lost; reports that the server itself sent are counted apart.
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

	Deferrals int `json:"deferrals"` // attempts that ended with "later"
	Reports   int `json:"reports"`   // reports about failures that came back to the application
	Rejected  int `json:"rejected"`  // not accepted in the first place

	Seconds           float64 `json:"seconds"` // until the last outcome
	MessagesPerSecond float64 `json:"messages_per_second"`
	AcceptSeconds     float64 `json:"accept_seconds"` // until the last acceptance
}

// demoRun is one run of the demo.
type demoRun struct {
	a      *app
	flags  demoFlags
	dir    string
	world  *world
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
	dir, err := os.MkdirTemp("", "godwit-demo-")
	if err != nil {
		return fmt.Errorf("make temporary directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	run := &demoRun{a: a, flags: f, dir: dir, accepted: make(map[string]bool)}
	if run.world, err = newWorld(); err != nil {
		return err
	}
	defer run.world.close()
	if err := run.makeDaemon(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 2)
	go func() { ended <- run.world.run(ctx) }()
	go func() { ended <- run.daemon.Run(ctx) }()
	select {
	case <-run.daemon.Ready():
		err = run.play(ctx, ended)
	case err = <-ended:
		ended <- nil
	}
	cancel()
	return errors.Join(err, <-ended, <-ended)
}

func (r *demoRun) makeDaemon() error {
	cfg := config.Default()
	cfg.Hostname = "godwit.demo.example"
	cfg.DataDir = r.dir
	cfg.Events.Dir = filepath.Join(r.dir, "events")
	cfg.DrainTimeout = 5 * time.Second
	cfg.Listeners = []config.Listener{{
		Name: "demo", Address: "127.0.0.1:0", Tenant: config.DefaultTenant, Stream: config.DefaultStream,
		TrustedNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Limits: cfg.Limits,
	}}
	cfg.HTTP.Address = "127.0.0.1:0"
	cfg.DNS.Servers = []string{r.world.dns.Addr().String()}
	d := &cfg.Delivery
	d.Port = r.world.port
	d.AllowedNetworks = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	for i := range d.Retry {
		d.Retry[i] /= demoScale
	}
	d.MaxAge = map[string]time.Duration{config.DefaultStream: 8 * time.Second}
	logger := slog.New(slog.DiscardHandler)
	var err error
	r.daemon, err = daemon.New(daemon.Options{Config: cfg, Logger: logger, Version: readBuild().Version, Scale: demoScale})
	if err != nil {
		return fmt.Errorf("make server: %w", err)
	}
	r.client = api.NewSocketClient(filepath.Join(r.dir, "admin.sock"))
	return nil
}

// play feeds the server, waits until nothing is queued, and tells the result. ended carries the news that a part has ended early.
func (r *demoRun) play(ctx context.Context, ended chan error) error {
	defer r.client.Close()
	if !r.a.json {
		r.introduce()
	}
	begun := time.Now()
	if err := r.feed(ctx); err != nil {
		return err
	}
	accepted := time.Since(begun)
	if err := r.drain(ctx, ended); err != nil {
		return err
	}
	took := time.Since(begun)
	story, err := readStory(filepath.Join(r.dir, "events"))
	if err != nil {
		return err
	}
	res := r.judge(story)
	res.Seconds, res.AcceptSeconds = took.Seconds(), accepted.Seconds()
	res.MessagesPerSecond = float64(r.flags.messages) / took.Seconds()
	if r.a.json {
		err = r.a.print(res, nil)
	} else {
		err = r.summarize(ctx, res, story)
	}
	if err != nil {
		return err
	}
	if r.flags.keep {
		r.keep(ctx, ended)
	}
	if res.Lost > 0 || res.Duplicates > 0 {
		return fmt.Errorf("%d messages lost and %d duplicated: this must not happen, please report it", res.Lost, res.Duplicates)
	}
	return nil
}

func (r *demoRun) introduce() {
	w := r.a.out
	fmt.Fprintf(w, "Godwit is running in %s, with a simulated internet on loopback:\n\n", r.dir)
	for _, p := range r.world.providers {
		fmt.Fprintf(w, "  %-16s %s\n", p.domain, p.about)
	}
	fmt.Fprintf(w, "\nTimes are scaled by %d: a minute between two attempts is a second here.\n\n", demoScale)
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
		Sessions: r.flags.sessions,
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
				r.rejected++
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

// drain waits until every entry has its outcome.
func (r *demoRun) drain(ctx context.Context, ended chan error) error {
	bar := r.a.newProgress("delivering", r.flags.messages)
	defer bar.end()
	deadline := time.Now().Add(demoPatience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for time.Now().Before(deadline) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-ended:
			ended <- nil
			return errors.Join(errors.New("a part of the demo ended early"), err)
		case <-tick.C:
		}
		s, err := r.client.SpoolStats(ctx)
		if err != nil {
			return err
		}
		note := fmt.Sprintf("delivered %d, bounced %d, expired %d, waiting %d", s.Delivered, s.Bounced, s.Expired, s.Queued)
		bar.set(r.flags.messages-int(min(s.Queued, uint64(r.flags.messages))), note)
		if s.Queued == 0 {
			return r.events(ctx)
		}
	}
	return nil
}

// events waits until the event log has told the last outcome, which it does a moment after.
func (r *demoRun) events(ctx context.Context) error {
	for range 100 {
		story, err := readStory(filepath.Join(r.dir, "events"))
		if err != nil {
			return err
		}
		if story.open() == 0 && len(story.messages) > 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

// judge compares the ledgers of the application, of the providers, and the event log.
func (r *demoRun) judge(s *story) demoResult {
	r.world.mu.Lock()
	defer r.world.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	res := demoResult{
		Accepted: len(r.accepted), Rejected: r.rejected, Reports: len(r.world.reported),
		Delivered: s.outcomes["delivered"], Bounced: s.outcomes["bounced"], Expired: s.outcomes["expired"],
		Suppressed: s.outcomes["suppressed"], Cancelled: s.outcomes["cancelled"], Deferrals: s.deferrals,
		Queued: s.open(),
	}
	unseen := 0
	for key := range r.accepted {
		if r.world.received[key] == 0 && r.world.reported[key] == 0 {
			unseen++
		}
	}
	res.Lost = max(unseen-res.Queued, 0)
	for _, n := range r.world.received {
		res.Duplicates += n - 1
	}
	return res
}

// keep leaves everything running until the user stops it.
func (r *demoRun) keep(ctx context.Context, ended chan error) {
	w := r.a.out
	if r.a.json {
		w = r.a.err
	}
	fmt.Fprintf(w, "\nStill running; end it with Ctrl-C. In another terminal:\n\n")
	fmt.Fprintf(w, "  godwit send --server %s --from me@%s --to you@grey.example --subject Hello --text Hi\n",
		r.daemon.Addresses()["demo"], homeDomain)
	fmt.Fprintf(w, "  godwit queue list --data-dir %s\n", r.dir)
	fmt.Fprintf(w, "  curl http://%s/metrics\n", r.daemon.HTTPAddress())
	select {
	case <-ctx.Done():
	case err := <-ended:
		ended <- err
	}
}

func (r *demoRun) summarize(ctx context.Context, res demoResult, s *story) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%d messages accepted in %.1f s, each on stable storage before its 250.\n", res.Accepted, res.AcceptSeconds)
	fmt.Fprintf(&b, "%.1f s later nothing was left to do:\n\n", res.Seconds-res.AcceptSeconds)
	row := func(n int, what, how string) {
		if n > 0 || what == "lost" {
			fmt.Fprintf(&b, "  %7d  %-11s %s\n", n, what, how)
		}
	}
	row(res.Delivered, "delivered", "")
	row(res.Bounced, "bounced", "refused for good: unknown users, a domain without mail")
	row(res.Expired, "expired", "the provider was down until the message was too old")
	row(res.Queued, "queued", "still waiting")
	row(res.Lost, "lost", "")
	row(res.Duplicates, "duplicates", "")
	fmt.Fprintf(&b, "\nOn the way %d attempts were told \"later\" and repeated; %d failures were reported back to %s.\n",
		res.Deferrals, res.Reports, homeDomain)
	fmt.Fprintf(&b, "\nBy provider:\n\n")
	fmt.Fprintf(&b, "  %-16s %9s %9s %9s %9s\n", "", "delivered", "deferred", "bounced", "expired")
	for _, p := range r.world.providers {
		if t := s.domains[p.domain]; t != nil {
			fmt.Fprintf(&b, "  %-16s %9d %9d %9d %9d\n", p.domain, t["delivered"], t["deferred"], t["bounced"], t["expired"])
		}
	}
	if id := s.example(); id != "" {
		m, err := r.client.Message(ctx, id)
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "\nOne message's whole story (godwit message show %s):\n\n", id)
		printTimeline(&b, m.Events)
	}
	fmt.Fprintf(&b, "\nNext: \"godwit demo --keep\" leaves it running to look around; README.md tells how to run it for real.\n")
	_, err := r.a.out.Write([]byte(strings.TrimLeft(b.String(), "\n")))
	return err
}
