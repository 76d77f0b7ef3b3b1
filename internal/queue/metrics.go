package queue

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	fresh, spilled prometheus.Counter
	held           prometheus.Counter
	freshWait      prometheus.Histogram
	claims         prometheus.Counter
	claimed        prometheus.Counter
	suspensions    prometheus.Counter
	expired        prometheus.Counter
	reports        *prometheus.CounterVec
	panics         prometheus.Counter
	clockSteps     prometheus.Counter
}

// newMetrics makes the metrics and registers them unless r is nil.
func newMetrics(s *Scheduler, r prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "godwit_queue_" + name, Help: help})
	}
	m := &metrics{
		fresh: counter("fresh_entries_total",
			"Entries of new messages that went straight to delivery from memory."),
		spilled: counter("fresh_spilled_entries_total",
			"Entries of new messages that wait in the spool since memory or destination had no room. "+
				"A lasting rise means that mail comes in faster than it leaves."),
		held: counter("fresh_held_entries_total", "Entries of new messages that a rule of the operator held."),
		freshWait: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "godwit_queue_fresh_wait_seconds",
			Help: "Time from acceptance to the first attempt of messages that were delivered from memory. " +
				"A lasting rise means that destinations or the limits of attempts are the bottleneck.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 10),
		}),
		claims: counter("claims_total", "Times that due entries were claimed from the spool."),
		claimed: counter("claimed_entries_total",
			"Due entries that were claimed from the spool. Its ratio to the rate of new mail says how much is retried."),
		suspensions: counter("suspensions_total",
			"Times that a queue was suspended since its destination could not be reached. A lasting rise means that "+
				"destinations are down, or that this server's network or DNS is."),
		expired: counter("expired_entries_total",
			"Entries given up because of their age. A lasting rise means that destinations were down for days."),
		reports: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "godwit_queue_reports_total",
			Help: "Reports sent to senders, by action. A lasting rise of failed means that mail goes to addresses that do not " +
				"exist or refuse it.",
		}, []string{"action"}),
		clockSteps: counter("clock_steps_total",
			"Times that the wall clock was set by more than 10 s while the server ran, or the machine slept. A lasting rise "+
				"means that its time is not kept: synchronise it."),
		panics: counter("delivery_panics_total", "Attempts that ended in a panic. Any rise is a defect to be reported."),
	}
	if r == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{
		m.fresh, m.spilled, m.held, m.freshWait, m.claims, m.claimed, m.suspensions, m.expired,
		m.reports, m.panics, m.clockSteps, newCensus(s),
	} {
		errs = append(errs, r.Register(c))
	}
	return m, errors.Join(errs...)
}

// census counts what there is at the moment of asking.
type census struct {
	s                                          *Scheduler
	queues, suspended, attempts, window, lined *prometheus.Desc
}

func newCensus(s *Scheduler) *census {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("godwit_queue_"+name, help, nil, nil)
	}
	return &census{
		s:      s,
		queues: desc("queues", "Queues in memory: those with entries, and for a minute those without."),
		suspended: desc("suspended_queues",
			"Queues whose destination cannot be reached for now. A lasting rise means that destinations are down, or this "+
				"server's network is."),
		attempts: desc("attempts",
			"Attempts under way. A value that stays at the limit means that more attempts at once are needed."),
		window: desc("window_entries", "Claimed entries in memory that wait for an attempt."),
		lined: desc("lined_tenants",
			"Tenants with queues that wait for one of the slots. A lasting rise means that more attempts at once are needed."),
	}
}

func (c *census) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.queues, c.suspended, c.attempts, c.window, c.lined} {
		ch <- d
	}
}

func (c *census) Collect(ch chan<- prometheus.Metric) {
	s, now := c.s, time.Now()
	s.mu.Lock()
	suspended := 0
	for _, q := range s.mu.queues {
		if q.health.suspended(&s.mu.settings) || q.health.stopped(now) {
			suspended++
		}
	}
	queues, attempts, window := len(s.mu.queues), s.mu.active, s.mu.entries
	lined := s.mu.lines[proven].tenants.Len() + s.mu.lines[unproven].tenants.Len()
	s.mu.Unlock()
	gauge := func(d *prometheus.Desc, v int) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v))
	}
	gauge(c.queues, queues)
	gauge(c.suspended, suspended)
	gauge(c.attempts, attempts)
	gauge(c.window, window)
	gauge(c.lined, lined)
}
