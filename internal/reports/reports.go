package reports

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godwit-mta/godwit/api"
)

// Reports collects, sends and takes in reports. All methods may be called from many goroutines.
type Reports struct {
	o        Options
	log      *slog.Logger
	metrics  *metrics
	settings atomic.Pointer[settings]

	tallies tallies       // of days that are not over
	turn    chan struct{} // held by who moves counts to the store, closes days, or sends
	reading chan struct{} // held by who reads a report that came in: one at a time bounds the memory
	due     schedule

	mu struct {
		sync.Mutex
		day      time.Time // of the next two
		taken    int       // by mail
		dropped  int       // beyond MaxPerDay
		unsigned string    // why reports do not go out by mail, the last time
	}
}

// New checks the options and reads what was counted and not yet sent. It starts nothing.
func New(ctx context.Context, o Options) (*Reports, error) {
	o.fill()
	if err := o.validate(); err != nil {
		return nil, err
	}
	r := &Reports{o: o, log: o.Logger, turn: make(chan struct{}, 1), reading: make(chan struct{}, 1)}
	if err := r.SetSettings(o.Settings); err != nil {
		return nil, err
	}
	r.metrics = newMetrics(o.Registerer, r)
	if err := r.load(ctx); err != nil {
		return nil, err
	}
	return r, nil
}

// SetSettings replaces the settings.
func (r *Reports) SetSettings(s Settings) error {
	next, err := r.o.settings(s)
	if err != nil {
		return err
	}
	r.settings.Store(next)
	return nil
}

// Run writes down what is counted, closes days and sends reports until ctx ends; then it writes down the rest.
func (r *Reports) Run(ctx context.Context) error {
	tick := time.NewTicker(r.o.Flush)
	defer tick.Stop()
	var sending sync.WaitGroup
	sending.Go(func() { r.sendLoop(ctx) })
	pruned := time.Time{}
	for {
		select {
		case <-ctx.Done():
			sending.Wait()
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			r.complain("what was counted for TLS reports is lost", r.flush(last))
			return nil
		case <-tick.C:
		}
		now := time.Now()
		r.lookUp(ctx)
		r.complain("what was counted for TLS reports is not written down", r.flush(ctx))
		r.complain("the day's TLS reports are not made", r.closeDays(ctx, now))
		if now.Sub(pruned) >= time.Hour {
			pruned = now
			r.complain("old reports are not removed", r.prune(ctx, now))
		}
	}
}

func (r *Reports) complain(what string, err error) {
	if err != nil {
		r.log.Warn(what, "error", err)
	}
}

// hold waits for the turn; the caller gives it back by calling done.
func (r *Reports) hold(ctx context.Context) (done func(), err error) {
	select {
	case r.turn <- struct{}{}:
		return func() { <-r.turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Findings tells what an operator should look at.
func (r *Reports) Findings() []api.Finding {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []api.Finding
	if s := r.settings.Load(); r.mu.unsigned != "" && s.sends() {
		list = append(list, api.Finding{Subject: "reports", Name: "tls reports", Problem: "TLS reports do not go out by mail: " + r.mu.unsigned,
			Advice: "make a DKIM key for the domain of reports.contact, or set reports: {tls: false}"})
	}
	if r.mu.dropped > 0 && time.Now().UTC().Truncate(24*time.Hour).Equal(r.mu.day) {
		list = append(list, api.Finding{Subject: "reports", Name: "incoming reports",
			Problem: "more reports came in today than are taken in a day, and were dropped",
			Advice:  "see `godwit reports list` for who sends them"})
	}
	return list
}
