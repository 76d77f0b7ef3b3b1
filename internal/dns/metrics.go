package dns

import (
	"github.com/prometheus/client_golang/prometheus"
)

// outcome is what one query to one server came to; a closed set, used as a metric label.
type outcome string

const (
	outcomeOK        outcome = "ok" // NOERROR or NXDOMAIN
	outcomeTimeout   outcome = "timeout"
	outcomeNetwork   outcome = "unreachable"
	outcomeRcode     outcome = "refused" // SERVFAIL, REFUSED and the like
	outcomeMalformed outcome = "malformed"
	outcomeReferral  outcome = "referral"
)

var outcomes = []outcome{outcomeOK, outcomeTimeout, outcomeNetwork, outcomeRcode, outcomeMalformed, outcomeReferral}

type metrics struct {
	cached, shared, network prometheus.Counter
	queries                 map[outcome]prometheus.Counter
	discarded               prometheus.Counter
	seconds                 prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, c *cache) (*metrics, error) {
	lookups := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "godwit_dns_lookups_total",
		Help: "Lookups by where the answer came from. A lasting rise of network against cache means that TTLs are " +
			"short or the cache is too small.",
	}, []string{"from"})
	queries := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "godwit_dns_queries_total",
		Help: "Queries to servers by outcome. A lasting rise of any but ok means that a configured DNS server or " +
			"the way to it is in trouble.",
	}, []string{"outcome"})
	m := &metrics{
		cached:  lookups.WithLabelValues("cache"),
		shared:  lookups.WithLabelValues("shared"),
		network: lookups.WithLabelValues("network"),
		queries: make(map[outcome]prometheus.Counter),
		discarded: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "godwit_dns_discarded_packets_total",
			Help: "Packets that did not belong to a query. A lasting rise means that somebody tries to forge answers.",
		}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "godwit_dns_query_seconds",
			Help: "Time of one query to one server. A lasting rise means a slow DNS server, which slows first " +
				"deliveries to new domains.",
			Buckets: []float64{.001, .005, .02, .1, .5, 2, 5},
		}),
	}
	for _, o := range outcomes {
		m.queries[o] = queries.WithLabelValues(string(o))
	}
	entries := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "godwit_dns_cache_entries",
		Help: "Answers kept, expired ones included. A value that stays at the limit means that answers are " +
			"dropped early.",
	}, func() float64 { return float64(c.len()) })
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{lookups, queries, m.discarded, m.seconds, entries} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
