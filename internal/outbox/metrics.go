package outbox

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/godwit-mta/godwit/event"
)

type metrics struct {
	events  [64]prometheus.Counter // by type
	dropped prometheus.Counter
	errors  prometheus.Counter
	skipped prometheus.Counter
	lag     prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	events := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "godwit_outbox_events_total",
		Help: "Events written to the event log, by type. Tells what happens to mail; a type that stops rising while mail flows is worth a look.",
	}, []string{"type"})
	m := &metrics{
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "godwit_outbox_refused_dropped_total",
			Help: "Events about refused mail that were not written since they came too fast. A lasting rise means a flood of refused mail or a slow disk.",
		}),
		errors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "godwit_outbox_errors_total",
			Help: "Failed writes, syncs and rotations of the event log, each tried again. A lasting rise means a full or failing disk; " +
				"the journal then grows, since it keeps what is not yet told.",
		}),
		skipped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "godwit_outbox_records_skipped_total",
			Help: "Journal records that could not be read as events. Anything but zero means damage or a journal of a newer version.",
		}),
		lag: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "godwit_outbox_lag_seconds",
			Help: "Age of the record told last while more are waiting, else 0. A lasting rise means that the event log cannot keep up.",
		}),
	}
	for _, t := range event.Types() {
		m.events[t] = events.WithLabelValues(t.String())
	}
	if reg != nil {
		reg.MustRegister(events, m.dropped, m.errors, m.skipped, m.lag)
	}
	return m
}
