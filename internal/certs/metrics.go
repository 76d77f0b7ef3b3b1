package certs

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	expiry  *prometheus.GaugeVec
	reloads [2]prometheus.Counter // taken over, broken
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	reloads := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "godwit_certs_reloads_total",
		Help: "New certificates in files, taken over or broken. Any rise of broken means that the old one stays in use " +
			"and will expire.",
	}, []string{"result"})
	m := &metrics{
		expiry: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "godwit_certs_expiry_timestamp_seconds",
			Help: "When the certificate in use expires. It rises at each renewal; one that does not is not renewed.",
		}, []string{"name"}),
		reloads: [2]prometheus.Counter{reloads.WithLabelValues("taken"), reloads.WithLabelValues("broken")},
	}
	if r == nil {
		return m, nil
	}
	return m, errors.Join(r.Register(m.expiry), r.Register(reloads))
}
