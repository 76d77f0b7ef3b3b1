package auth

import (
	"github.com/prometheus/client_golang/prometheus"
)

// outcome of an attempt to come in. The set is closed, for metrics and logs; no peer is told.
type outcome string

const (
	outcomeOK          outcome = "ok"
	outcomeCached      outcome = "ok_cached"
	outcomeUnknown     outcome = "unknown_name"
	outcomeWrong       outcome = "wrong_secret"
	outcomeDisabled    outcome = "disabled"
	outcomeExpired     outcome = "expired"
	outcomeNetwork     outcome = "wrong_network"
	outcomeScope       outcome = "missing_scope"
	outcomeMalformed   outcome = "malformed"
	outcomeAddressOver outcome = "address_over_budget"
	outcomeAccountOver outcome = "account_over_budget"
	outcomeGlobalOver  outcome = "server_over_budget"
	outcomeBusy        outcome = "hashers_busy"
	outcomeIssuer      outcome = "issuer_unreachable"
	outcomeFailed      outcome = "failed" // an exchange that ended before it was known why
)

type metrics struct {
	attempts    *prometheus.CounterVec
	hash        prometheus.Histogram
	hashWaiting prometheus.GaugeFunc
	bans        *prometheus.CounterVec
	banned      prometheus.GaugeFunc
	known       prometheus.GaugeFunc
	unreadable  prometheus.Counter
}

func newMetrics(r prometheus.Registerer, d *Directory) (*metrics, error) {
	m := &metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "godwit_auth_attempts_total",
			Help: "Attempts to authenticate, by mechanism and outcome. A lasting rise of wrong_secret or unknown_name means that " +
				"somebody guesses, or that an application has an old password."},
			[]string{"mechanism", "outcome"}),
		hash: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "godwit_auth_hash_seconds",
			Help:    "Time that hashing one password took. A lasting rise means that the machine is short of CPU or memory bandwidth.",
			Buckets: []float64{.001, .005, .01, .02, .04, .08, .16, .32, .64, 1.28}}),
		hashWaiting: prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "godwit_auth_hash_waiting_attempts",
			Help: "Attempts that wait for a hasher. If it stays above 0 there are more attempts than hashers can check; " +
				"beyond the queue they are answered 454."},
			func() float64 { return float64(d.gate.waiting()) }),
		bans: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "godwit_auth_bans_total",
			Help: "Automatic bans after too many failures, by what was banned. A lasting rise means that somebody guesses."},
			[]string{"kind"}),
		banned: prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "godwit_auth_banned_subjects",
			Help: "Addresses and accounts under an automatic ban now; see \"godwit ban list\"."},
			func() float64 { return float64(d.guard.banned()) }),
		known: prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "godwit_auth_credentials",
			Help: "Credentials there are."},
			func() float64 { return float64(d.state.credentialCount()) }),
		unreadable: prometheus.NewCounter(prometheus.CounterOpts{Name: "godwit_auth_unreadable_records_total",
			Help: "Records of tenants, domains or credentials that could not be read and count as absent. Any rise means a damaged " +
				"store or one of a newer version."}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.attempts, m.hash, m.hashWaiting, m.bans, m.banned, m.known, m.unreadable} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
