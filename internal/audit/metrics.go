package audit

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	records  prometheus.Counter
	failures prometheus.Counter
	broken   prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		records: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "godwit_audit_records_total",
			Help: "Administrative acts on record. A lasting rise that nobody explains means that somebody is at work.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "godwit_audit_failures_total",
			Help: "Acts refused since they could not be recorded. A lasting rise means a failing store or anchor.",
		}),
		broken: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "godwit_audit_broken_state",
			Help: "1 when the chain is not the one that was anchored: records were removed, changed or put back.",
		}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.records, m.failures, m.broken} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
