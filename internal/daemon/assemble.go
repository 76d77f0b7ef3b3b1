package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"crypto/rand"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/delivery"
	"github.com/godwit-mta/godwit/internal/delivery/egress"
	"github.com/godwit-mta/godwit/internal/dns"
	"github.com/godwit-mta/godwit/internal/outbox"
	"github.com/godwit-mta/godwit/internal/queue"
	"github.com/godwit-mta/godwit/internal/reports"
	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp/smtpclient"
)

// running is the parts that mail flows through, made by assemble from what is on the disk.
type running struct {
	d         *Daemon
	spool     *spool.Spool
	events    *outbox.Log
	resolver  *dns.Resolver
	deliver   *delivery.Deliverer
	transport *transport
	reports   *reports.Reports
	queue     *queue.Scheduler
	door      *frontDoor
	check     *selfCheck

	parts  struct{ spool, events, transport, reports, deliver, queue *part }
	admin  *part
	public *part
}

// assemble makes all parts. The journal must be running: what the last process left in flight is written down before
// anything is delivered.
func (d *Daemon) assemble(ctx context.Context, cfg *config.Config) (_ *running, err error) {
	r := &running{d: d}
	defer func() {
		if err != nil && r.spool != nil {
			err = errors.Join(err, r.spool.Close())
		}
	}()
	r.spool, err = spool.Open(ctx, spool.Options{
		Dir:          cfg.DataDir,
		FS:           SealedFS(d.keys, d.diskFS()),
		Journal:      d.journal,
		MemoryBudget: d.kept,
		Memory:       d.memory,
		Logger:       d.log,
		Registerer:   d.metrics,
	})
	if err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	r.events, err = outbox.New(outbox.Options{
		Dir:        cfg.Events.Dir,
		Journal:    d.journal,
		View:       r.spool.RegisterView("events"),
		Limits:     eventLimits(cfg),
		Sealer:     eventSealer(d.keys),
		DiskFull:   func() { d.journal.Relieve() },
		Logger:     d.log,
		Registerer: d.metrics,
	})
	if err != nil {
		return nil, fmt.Errorf("open event log: %w", err)
	}
	if r.resolver, err = newResolver(d, cfg); err != nil {
		return nil, err
	}
	if r.transport, err = d.newTransport(ctx, cfg, r.resolver); err != nil {
		return nil, err
	}
	ids := message.NewIDs(rand.Reader)
	if r.reports, err = d.newReports(ctx, cfg, r, ids); err != nil {
		return nil, err
	}
	if r.door, err = d.openDoor(ctx, cfg, r); err != nil {
		return nil, err
	}
	if r.deliver, err = newDeliverer(d, cfg, r); err != nil {
		return nil, err
	}
	if r.check, err = d.newSelfCheck(); err != nil {
		return nil, err
	}
	r.queue, err = queue.New(queue.Options{
		Spool:        r.spool,
		Deliverer:    &intake{Deliverer: r.deliver, reports: r.reports, host: cfg.Hostname},
		Store:        d.store,
		IDs:          ids,
		Hostname:     cfg.Hostname,
		Sign:         r.door.signs.signer.Sign,
		Settings:     d.queueSettings(cfg),
		DrainTimeout: cfg.DrainTimeout,
		Poll:         max(10*time.Second/time.Duration(d.o.Scale), 50*time.Millisecond),
		Logger:       d.log,
		Registerer:   d.metrics,
	})
	if err != nil {
		return nil, err
	}
	r.spool.SetSink(r.queue)
	for i := range d.inlets {
		if err := d.inlets[i].assemble(d, cfg, r, ids); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// start lets mail flow, from the end of the road to its begin.
func (r *running) start(ctx context.Context, p *parts) {
	r.parts.spool = p.start(ctx, "spool", r.spool.Run)
	r.parts.events = p.start(ctx, "event log", r.events.Run)
	r.parts.transport = p.start(ctx, "transport", r.transport.run)
	r.parts.reports = p.start(ctx, "reports", r.reports.Run)
	r.parts.deliver = p.start(ctx, "delivery", r.deliver.Run)
	r.parts.queue = p.start(ctx, "queue", r.queue.Run)
	r.door.start(ctx, p)
	files := newDescriptors(fileLimit(), r.d.log)
	for _, in := range r.d.inlets {
		socket := files.share(in.socket)
		in.part = p.start(ctx, "listener "+in.name, func(ctx context.Context) error { return in.server.Serve(ctx, socket) })
	}
	r.check.part = p.start(ctx, "self-check", r.check.run)
}

// stop ends the parts in the order that mail flows: sessions, attempts, kept connections, and the views at the last. After a
// failure nobody is waited for longer than it takes to say goodbye.
func (r *running) stop(drain time.Duration, failed bool) error {
	if failed {
		drain = min(drain, time.Second)
	}
	ctx, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	errs := []error{r.check.part.end()}
	// Attempts may begin to drain while sessions do: what a session still hands in waits in the spool for the next start.
	sessions := make(chan error, len(r.d.inlets))
	for _, in := range r.d.inlets {
		go func() {
			if err := in.server.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
				sessions <- fmt.Errorf("listener %s: %w", in.name, err)
				return
			}
			sessions <- nil
		}()
	}
	errs = append(errs, r.parts.queue.end())
	for range r.d.inlets {
		errs = append(errs, <-sessions)
	}
	for _, in := range r.d.inlets {
		errs = append(errs, in.part.end())
	}
	errs = append(errs, r.door.end(), r.parts.deliver.end(), r.parts.reports.end(), r.parts.transport.end(), r.public.end(),
		r.admin.end(), r.parts.events.end(), r.parts.spool.end(),
		r.spool.Close())
	return errors.Join(errs...)
}

func eventLimits(cfg *config.Config) outbox.Limits {
	e := cfg.Events
	return outbox.Limits{
		MaxSize: int64(e.MaxSize), MaxAge: e.MaxAge, Keep: e.Keep, KeepFor: e.KeepFor, Compress: outbox.Compression(e.Compress),
	}
}

func newResolver(d *Daemon, cfg *config.Config) (*dns.Resolver, error) {
	var servers []netip.AddrPort
	for _, s := range cfg.DNS.Servers {
		a, err := config.ParseServer(s)
		if err != nil {
			return nil, fmt.Errorf("dns server %q: %w", s, err)
		}
		servers = append(servers, a)
	}
	r, err := dns.New(dns.Options{Servers: servers, Timeout: cfg.DNS.Timeout, Trust: trusted(cfg), Logger: d.log, Registerer: d.metrics})
	if err != nil {
		return nil, fmt.Errorf("resolver: %w", err)
	}
	return r, nil
}

func newDeliverer(d *Daemon, cfg *config.Config, r *running) (*delivery.Deliverer, error) {
	c := cfg.Delivery
	source := egress.Source{Name: "default", Hello: c.Hello}
	if c.SourceAddress != "" {
		a, err := netip.ParseAddr(c.SourceAddress)
		if err != nil {
			return nil, fmt.Errorf("delivery.source_address: %w", err)
		}
		if a = a.Unmap(); a.Is4() {
			source.IPv4 = a
		} else {
			source.IPv6 = a
		}
	}
	list, err := routes(cfg)
	if err != nil {
		return nil, err
	}
	demands, err := tlsSettings(cfg, r.door.directory)
	if err != nil {
		return nil, err
	}
	deliverer, err := delivery.New(delivery.Options{
		Hostname:        cfg.Hostname,
		Resolver:        r.resolver,
		Routes:          list,
		TLS:             demands,
		Roots:           d.o.Internet.Roots,
		Policies:        r.transport.published(),
		Recorder:        d.recorder(r.reports),
		Floors:          r.transport.floors,
		AllowedNetworks: c.AllowedNetworks,
		Port:            uint16(c.Port),
		Source:          source,
		Listening:       d.listening,
		Timeouts:        smtpclient.DefaultTimeouts().Divided(d.o.Scale),
		ConnectTimeout:  c.ConnectTimeout,
		MaxTransactions: c.TransactionsPerSession,
		Idle:            c.IdleTimeout,
		Logger:          d.log,
		Registerer:      d.metrics,
	})
	if err != nil {
		return nil, fmt.Errorf("delivery: %w", err)
	}
	return deliverer, nil
}

func (d *Daemon) queueSettings(cfg *config.Config) queue.Settings {
	c := cfg.Delivery
	s := queue.Settings{
		Retry: c.Retry, Jitter: c.RetryJitter, Attempts: c.MaxAttemptsInFlight, Connections: c.ConnectionsPerQueue,
		DelayNotices: queue.DelayAsked,
	}
	if d.o.Scale > 1 {
		s.Probes, s.Pause = queue.DefaultProbes(), time.Second/time.Duration(d.o.Scale)
		for i := range s.Probes {
			s.Probes[i] /= time.Duration(d.o.Scale)
		}
	}
	if c.RetryJitter == 0 {
		s.Jitter = -1 // to the queue zero means its default
	}
	switch c.DelayNotices {
	case "always":
		s.DelayNotices = queue.DelayAlways
	case "never":
		s.DelayNotices = queue.DelayNever
	}
	return s
}

// refused passes a refusal on to the event log.
func (r *running) refused(e *event.Event) { r.events.Refused(e) }
