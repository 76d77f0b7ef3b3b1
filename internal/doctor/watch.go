package doctor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Options make a Watch. Targets is required.
type Options struct {
	Targets    func() []Target // asked each time, since listeners' rules change
	Every      time.Duration   // 0 is 24 h
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Watch tries the listeners at the start and then every day. It is safe for concurrent use.
type Watch struct {
	opts    Options
	turn    sync.Mutex // one round at a time
	metrics struct {
		open  prometheus.Gauge
		tried prometheus.Gauge
	}

	mu struct {
		sync.Mutex
		last  []Result
		since map[string]time.Time // listeners that are open, by name
	}
}

// Result is what became of one target in a round.
type Result struct {
	Target Target
	Report Report
	Err    error // the target could not be tried
	Time   time.Time
}

// NewWatch checks the options.
func NewWatch(o Options) (*Watch, error) {
	if o.Targets == nil {
		return nil, errors.New("doctor: no targets")
	}
	if o.Every == 0 {
		o.Every = 24 * time.Hour
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	w := &Watch{opts: o}
	w.mu.since = make(map[string]time.Time)
	w.metrics.open = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "godwit_doctor_open_relay_listeners",
		Help: "Listeners through which the self-check could send as a stranger. Anything above 0 is abused within hours: " +
			"godwit doctor relay says how.",
	})
	w.metrics.tried = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "godwit_doctor_relay_check_timestamp_seconds",
		Help: "When the self-check for open relays last ended, in Unix time. If it does not rise for more than a day, the check " +
			"does not run.",
	})
	if o.Registerer == nil {
		return w, nil
	}
	return w, errors.Join(o.Registerer.Register(w.metrics.open), o.Registerer.Register(w.metrics.tried))
}

// Run tries the listeners now and every day until ctx ends.
func (w *Watch) Run(ctx context.Context) error {
	tick := time.NewTicker(w.opts.Every)
	defer tick.Stop()
	for {
		w.Now(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Now tries all listeners and returns what was found.
func (w *Watch) Now(ctx context.Context) []Result {
	w.turn.Lock()
	defer w.turn.Unlock()
	var list []Result
	open := 0
	for _, t := range w.opts.Targets() {
		r := Result{Target: t}
		r.Report, r.Err = Relay(ctx, t)
		r.Time = time.Now()
		if ctx.Err() != nil {
			return list
		}
		list = append(list, r)
		for _, f := range r.Report.Open {
			w.opts.Logger.Error("OPEN RELAY: a stranger can send through this listener", "listener", t.Name, "probe", f.Probe.ID,
				"tries", f.Probe.What, "reply", f.Reply)
		}
		if r.Err != nil {
			w.opts.Logger.Warn("a listener could not be tried for open relaying", "listener", t.Name, "error", r.Err)
		}
		if len(r.Report.Open) > 0 {
			open++
		}
	}
	w.metrics.open.Set(float64(open))
	w.metrics.tried.SetToCurrentTime()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.last = list
	since := make(map[string]time.Time)
	for i := range list {
		if r := &list[i]; len(r.Report.Open) > 0 || r.Err != nil {
			if since[r.Target.Name] = w.mu.since[r.Target.Name]; since[r.Target.Name].IsZero() {
				since[r.Target.Name] = r.Time
			}
		}
	}
	w.mu.since = since
	return list
}

// Problem is a listener that a person must look at.
type Problem struct {
	Listener, What, Advice string
	Since                  time.Time
	Open                   bool // it is an open relay; otherwise it could not be tried
}

// Problems returns what the last round found.
func (w *Watch) Problems() []Problem {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []Problem
	for i := range w.mu.last {
		r := &w.mu.last[i]
		p := Problem{Listener: r.Target.Name, Since: w.mu.since[r.Target.Name]}
		switch {
		case len(r.Report.Open) > 0:
			f := r.Report.Open[0]
			p.Open = true
			p.What = fmt.Sprintf("is an open relay: anyone can send through it (probe %s: %s)", f.Probe.ID, f.Probe.What)
			p.Advice = "narrow trusted_networks, xclient and proxy_protocol of the listener, or set auth: required"
		case r.Err != nil:
			p.What = "could not be tried for open relaying: " + r.Err.Error()
			p.Advice = "run \"godwit doctor relay\" when the server is less busy"
		default:
			continue
		}
		list = append(list, p)
	}
	return slices.Clip(list)
}
