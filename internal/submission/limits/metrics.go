package limits

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	refused   [kinds]prometheus.Counter
	forgotten prometheus.Counter
	snapshots prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "godwit_limits_refused_total",
		Help: "Messages and recipients refused since a sender had used up what it may send, by whose limit it was. A lasting rise means " +
			"a limit that is too low for honest use, or an account in strange hands: godwit limit list shows which.",
	}, []string{"holder"})
	m := &metrics{
		forgotten: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "godwit_limits_forgotten_total",
			Help: "Senders whose counters were dropped to bound memory. A lasting rise means more senders than are remembered, " +
				"so that limits of those seldom seen do not hold.",
		}),
		snapshots: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "godwit_limits_snapshot_errors_total",
			Help: "Counters that could not be written to the store. A lasting rise means that a restart forgets what was sent.",
		}),
	}
	for k := range m.refused {
		m.refused[k] = refused.WithLabelValues(Kind(k).String())
	}
	if r == nil {
		return m, nil
	}
	return m, errors.Join(r.Register(refused), r.Register(m.forgotten), r.Register(m.snapshots))
}
