package signing

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// failure is why a message was not signed although it should have been.
type failure uint8

const (
	failedKeys      failure = iota // Keys had none to give
	failedWait                     // the sender, or the server, did not wait for the turn
	failedFrom                     // no From field, or several
	failedHeader                   // a line that is no field, or too many
	failedLineEnd                  // a bare CR or LF
	failedPrimitive                // a key failed
	failures
)

var failureWords = [failures]string{"keys", "wait", "from", "header", "line_end", "primitive"}

func (f failure) String() string { return failureWords[f] }

type metrics struct {
	rsa, ed25519 prometheus.Counter
	failures     [failures]prometheus.Counter
	unsigned     prometheus.Counter
	duration     prometheus.Histogram
	wait         prometheus.Histogram
	recipients   prometheus.Histogram
	wide         prometheus.Counter
}

// newMetrics makes the metrics and registers them unless r is nil.
func newMetrics(s *Signer, r prometheus.Registerer) (*metrics, error) {
	signatures := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "godwit_signing_signatures_total",
		Help: "DKIM signatures made, by algorithm. A lasting rise of one alone means that domains have keys of one kind only.",
	}, []string{"algorithm"})
	failed := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "godwit_signing_failures_total",
		Help: "Messages that had to be signed and could not be, by reason. keys: a domain has no key that may sign, see godwit " +
			"dkim check; wait: too many wait for their turn; primitive: a key or the command that holds it fails; from, header, " +
			"line_end: an application sends mail that programs disagree on.",
	}, []string{"reason"})
	m := &metrics{
		rsa:     signatures.WithLabelValues("rsa-sha256"),
		ed25519: signatures.WithLabelValues("ed25519-sha256"),
		unsigned: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "godwit_signing_unsigned_messages_total",
			Help: "Messages of authors whose domain has no key here, which leave unsigned. A lasting rise means that a domain that " +
				"sends was never given a key.",
		}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "godwit_signing_duration_seconds",
			Help: "Time to make all signatures of one message. A lasting rise means that the machine is busy, or keys are longer " +
				"than they need to be.",
			Buckets: prometheus.ExponentialBuckets(0.00005, 2, 14),
		}),
		wait: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "godwit_signing_wait_seconds",
			Help: "Time that messages waited for their turn to be signed. A lasting rise means that signing is the bottleneck: more " +
				"cores, or the build that signs with libcrypto, help.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9),
		}),
		recipients: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "godwit_signing_recipients",
			Help: "Recipients of each signed message. A lasting rise of the upper buckets means that single messages go to very " +
				"many, as in a replay of a signed one.",
			Buckets: prometheus.ExponentialBuckets(1, 10, 5),
		}),
		wide: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "godwit_signing_wide_messages_total",
			Help: "Signed messages of which more than 10,000 recipients were seen within an hour, over all transactions. Any rise that no " +
				"mailing explains may be a replay of a signed message; the log names it.",
		}),
	}
	for f := range failures {
		m.failures[f] = failed.WithLabelValues(f.String())
	}
	if r == nil {
		return m, nil
	}
	widest := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "godwit_signing_widest_message_recipients",
		Help: "Recipients of the signed message that went to most, within this hour and the last, over all transactions. A lasting " +
			"rise beyond the size of your mailings means that a signed message is being replayed.",
	}, func() float64 { return float64(s.spread.widest()) })
	var errs []error
	for _, c := range []prometheus.Collector{
		signatures, failed, m.unsigned, m.duration, m.wait, m.recipients, m.wide, widest,
	} {
		errs = append(errs, r.Register(c))
	}
	return m, errors.Join(errs...)
}

func (m *metrics) signature(algorithm string) prometheus.Counter {
	if algorithm == "ed25519-sha256" {
		return m.ed25519
	}
	return m.rsa
}
