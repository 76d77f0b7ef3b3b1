package egress

import "github.com/prometheus/client_golang/prometheus"

type poolMetrics struct {
	reused, missed, found, closed prometheus.Counter
}

func newPoolMetrics(r prometheus.Registerer) poolMetrics {
	taken := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "godwit_egress_kept_sessions_total",
		Help: "Asks for a kept session by what came of them. reused: it carried mail; missed: none was kept; " +
			"found_closed: the remote had closed it; closed: our own farewells. A lasting rise of found_closed says " +
			"that remotes close sooner than the idle limit.",
	}, []string{"result"})
	if r != nil {
		r.MustRegister(taken)
	}
	return poolMetrics{
		reused: taken.WithLabelValues("reused"), missed: taken.WithLabelValues("missed"),
		found: taken.WithLabelValues("found_closed"), closed: taken.WithLabelValues("closed"),
	}
}
