package reports

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	results prometheus.Counter
	dropped prometheus.Counter
	sent    *prometheus.CounterVec // by way, result
	taken   *prometheus.CounterVec // by kind
}

func newMetrics(reg prometheus.Registerer, r *Reports) *metrics {
	m := &metrics{
		results: prometheus.NewCounter(prometheus.CounterOpts{Name: "godwit_reports_tls_results_total",
			Help: "Results of TLS sessions that were counted for reports."}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{Name: "godwit_reports_tls_results_dropped_total",
			Help: "Results that found no room; a rise says that mail goes to more domains in a day than are counted."}),
		sent: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "godwit_reports_sent_total",
			Help: "Tries to send a TLS report, by way (mail, https) and result (ok, failed); a lasting rise of failures has its reasons in " +
				"`godwit reports list --sent`."}, []string{"way", "result"}),
		taken: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "godwit_reports_received_total",
			Help: "Reports that came in, by kind (tls, dmarc, duplicate, unreadable, dropped); a rise of unreadable or dropped ones says that " +
				"somebody sends what is none."}, []string{"kind"}),
	}
	for _, way := range []string{"mail", "https"} {
		for _, result := range []string{"ok", "failed"} {
			m.sent.WithLabelValues(way, result)
		}
	}
	for _, kind := range []string{"tls", "dmarc", "duplicate", "unreadable", "dropped"} {
		m.taken.WithLabelValues(kind)
	}
	if reg == nil {
		return m
	}
	reg.MustRegister(m.results, m.dropped, m.sent, m.taken,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "godwit_reports_tls_domains",
			Help: "Domains whose TLS sessions are counted now."}, func() float64 {
			r.tallies.mu.Lock()
			defer r.tallies.mu.Unlock()
			return float64(len(r.tallies.m))
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "godwit_reports_waiting_reports",
			Help: "TLS reports that are to be sent; a number that stays for more than a day says that sending fails."}, func() float64 {
			return float64(r.due.len())
		}))
	return m
}
