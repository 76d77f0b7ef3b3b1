package tlspolicy

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	fetches map[string]prometheus.Counter // by outcome
	full    prometheus.Counter
	tlsa    map[string]prometheus.Counter // by outcome
}

// What came of a policy's fetch and of TLSA lookups; closed sets, used as labels.
const (
	fetchNew     = "new"
	fetchSame    = "same" // the policy that is kept already
	fetchFailed  = "failed"
	fetchPKIX    = "untrusted"
	fetchInvalid = "invalid"

	tlsaUsable   = "usable"
	tlsaUnusable = "unusable"
	tlsaNone     = "none"
	tlsaFailed   = "failed"
)

func newMetrics(reg prometheus.Registerer, count func() float64) (*metrics, error) {
	fetches := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "godwit_tlspolicy_sts_fetches_total",
		Help: "MTA-STS policies asked for by what came of it. A lasting rise of any but new and same means that policies of " +
			"receivers cannot be refreshed, or that HTTPS is blocked for this server.",
	}, []string{"outcome"})
	tlsa := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "godwit_tlspolicy_tlsa_lookups_total",
		Help: "TLSA lookups for hosts in signed zones by what came of it. A lasting rise of failed means that the resolver " +
			"finds answers forged or cannot get them; mail to those hosts waits.",
	}, []string{"outcome"})
	m := &metrics{fetches: map[string]prometheus.Counter{}, tlsa: map[string]prometheus.Counter{},
		full: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "godwit_tlspolicy_sts_not_kept_total",
			Help: "MTA-STS policies that were obeyed once and not kept, since as many as may be are kept already. A lasting " +
				"rise means that somebody fills the cache.",
		})}
	for _, o := range []string{fetchNew, fetchSame, fetchFailed, fetchPKIX, fetchInvalid} {
		m.fetches[o] = fetches.WithLabelValues(o)
	}
	for _, o := range []string{tlsaUsable, tlsaUnusable, tlsaNone, tlsaFailed} {
		m.tlsa[o] = tlsa.WithLabelValues(o)
	}
	kept := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "godwit_tlspolicy_sts_policies",
		Help: "MTA-STS policies kept. A lasting rise means more domains with policies, up to the limit.",
	}, count)
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{fetches, tlsa, m.full, kept} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
