package journal

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	bytes    prometheus.Counter
	records  prometheus.Counter
	batches  prometheus.Counter
	sync     prometheus.Histogram
	segments prometheus.Gauge
	damage   prometheus.Counter
	failed   prometheus.Gauge
	full     prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "godwit_journal_written_bytes_total",
			Help: "Octets written to the journal. A rise without mail means that something writes without end.",
		}),
		records: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "godwit_journal_written_records_total",
			Help: "Records written to the journal. A rise without mail means that something writes without end.",
		}),
		batches: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "godwit_journal_written_batches_total",
			Help: "Batches written. Per sync it is how many share one; near 1 under load means no grouping.",
		}),
		sync: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "godwit_journal_sync_seconds",
			Help:    "Time of one sync. A lasting rise means a slow or shared disk; each message waits for it.",
			Buckets: prometheus.ExponentialBuckets(50e-6, 2, 16),
		}),
		segments: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "godwit_journal_segments",
			Help: "Segments on disk. A lasting rise means that mail stays, or that a view does not keep up.",
		}),
		damage: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "godwit_journal_damage_total",
			Help: "Damaged stretches found. Any rise means that the disk or memory loses acknowledged data.",
		}),
		failed: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "godwit_journal_failed_state",
			Help: "1 after a write or sync has failed: nothing is accepted until a restart.",
		}),
	}
	m.full = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "godwit_journal_full_state",
		Help: "1 while the disk is nearly full and mail is refused.",
	})
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.bytes, m.records, m.batches, m.sync, m.segments, m.damage, m.failed,
		m.full} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
