package inbound

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/godwit-mta/godwit/mailauth/dkim"
)

// words are the results of each method that metrics tell apart.
var words = map[string][]string{
	"spf":   {"none", "neutral", "pass", "fail", "softfail", "temperror", "permerror"},
	"dkim":  {"none", "pass", "fail", "policy", "neutral", "temperror", "permerror"},
	"dmarc": {"none", "pass", "fail", "temperror", "permerror"},
	"arc":   {"none", "pass", "fail"},
	"iprev": {"pass", "fail", "temperror", "permerror"},
}

type metrics struct {
	results   map[[2]string]prometheus.Counter
	decisions map[Decision]prometheus.Counter
	seals     map[string]prometheus.Counter
	skipped   prometheus.Counter
	seconds   prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, inFlight func() int) (*metrics, error) {
	results := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "godwit_inbound_results_total",
		Help: "Messages from outside by method and result. A lasting rise of temperror means DNS in trouble, of fail means forgery or a relay in front.",
	}, []string{"method", "result"})
	decisions := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "godwit_inbound_decisions_total",
		Help: "What became of checked messages. A lasting rise of put_off means that mail waits for DNS.",
	}, []string{"decision"})
	seals := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "godwit_inbound_seals_total",
		Help: "Messages to be sealed (ARC) by outcome. A lasting rise of failed means that the domain that seals has no key.",
	}, []string{"outcome"})
	m := &metrics{
		results: make(map[[2]string]prometheus.Counter), decisions: make(map[Decision]prometheus.Counter),
		seals: make(map[string]prometheus.Counter),
		skipped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "godwit_inbound_skipped_total",
			Help: "Messages not checked since too many checks were in flight. A lasting rise means DNS that is slow.",
		}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "godwit_inbound_check_seconds",
			Help:    "Time of the checks of one message. A lasting rise means DNS that is slow.",
			Buckets: []float64{.001, .005, .02, .1, .5, 2, 10},
		}),
	}
	for method, list := range words {
		for _, w := range list {
			m.results[[2]string{method, w}] = results.WithLabelValues(method, w)
		}
	}
	for _, d := range Decisions() {
		m.decisions[d] = decisions.WithLabelValues(string(d))
	}
	for _, w := range []string{"sealed", "left", "failed"} {
		m.seals[w] = seals.WithLabelValues(w)
	}
	busy := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "godwit_inbound_checks_in_flight",
		Help: "Checks under way. A value that stays at the bound means DNS that is slow.",
	}, func() float64 { return float64(inFlight()) })
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{results, decisions, seals, m.skipped, m.seconds, busy} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// count counts the findings, each method once: of several signatures the best.
func (m *metrics) count(f *Findings) {
	best := "none"
	if f.dkimErr != nil {
		best = string(dkim.TempError)
	}
	for i := range f.DKIM {
		if s := f.DKIM[i].Status; i == 0 || s == dkim.Pass {
			best = string(s)
		}
	}
	m.add("spf", string(f.SPF.Status))
	m.add("dkim", best)
	m.add("dmarc", f.dmarcResult())
	m.add("arc", string(f.ARC.Status))
	m.add("iprev", f.Reverse.Status)
}

func (m *metrics) add(method, result string) {
	if c := m.results[[2]string{method, result}]; c != nil {
		c.Inc()
	}
}
