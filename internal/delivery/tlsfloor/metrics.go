package tlsfloor

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	missing, givenUp prometheus.Counter
}

func newMetrics(r prometheus.Registerer, counts func() (floors, missing int)) metrics {
	m := metrics{
		missing: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "godwit_tlsfloor_missing_total",
			Help: "How often TLS was found gone at a host that used to have it. A lasting rise says that somebody on the way " +
				"takes STARTTLS out of dialogs, or that a large receiver has broken its TLS.",
		}),
		givenUp: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "godwit_tlsfloor_given_up_total",
			Help: "Hosts that mail goes to in the clear since TLS did not come back in time. Any rise is worth a look.",
		}),
	}
	if r != nil {
		r.MustRegister(m.missing, m.givenUp,
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "godwit_tlsfloor_hosts",
				Help: "Hosts that mail does not leave to in the clear without a wait, since they have had TLS all along. A " +
					"lasting fall says that TLS works at fewer hosts.",
			}, func() float64 { floors, _ := counts(); return float64(floors) }),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "godwit_tlsfloor_missing",
				Help: "Hosts with a floor at which TLS is missing now, so that mail waits. A lasting rise says the same as " +
					"godwit_tlsfloor_missing_total.",
			}, func() float64 { _, missing := counts(); return float64(missing) }))
	}
	return m
}
