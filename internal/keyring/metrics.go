package keyring

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	checks   [verdicts]prometheus.Counter
	failures prometheus.Counter // of publishing
}

func newMetrics(k *Keyring, r prometheus.Registerer) (*metrics, error) {
	checks := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "godwit_keyring_checks_total",
		Help: "Answers of resolvers about key records, by what they showed. A lasting rise of missing or different means that mail " +
			"would be signed in vain, see godwit dkim check; of unknown, that DNS is in trouble.",
	}, []string{"verdict"})
	m := &metrics{failures: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "godwit_keyring_publish_failures_total",
		Help: "Key records that could not be written into DNS. A lasting rise means that keys are not replaced in time.",
	})}
	for v := range verdicts {
		m.checks[v] = checks.WithLabelValues(v.String())
	}
	if r == nil {
		return m, nil
	}
	errs := []error{r.Register(checks), r.Register(m.failures)}
	for _, s := range States() {
		errs = append(errs, r.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "godwit_keyring_keys",
			Help:        "Keys by state. Created or published ones that stay mean that a record waits to be put into DNS.",
			ConstLabels: prometheus.Labels{"state": string(s)},
		}, func() float64 { return float64(k.count(func(r *record) bool { return r.State == s })) })))
	}
	errs = append(errs, r.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "godwit_keyring_held_keys",
		Help: "Keys that are to sign and do not, since DNS does not show their record. Any lasting value needs a person: godwit " +
			"doctor list says what to do.",
	}, func() float64 {
		return float64(k.count(func(r *record) bool { return r.State == Signing && !r.shown() }))
	})))
	return m, errors.Join(errs...)
}

func (k *Keyring) count(is func(*record) bool) int {
	k.mu.RLock()
	defer k.mu.RUnlock()
	n := 0
	for _, r := range k.mu.records {
		if is(r) {
			n++
		}
	}
	return n
}
