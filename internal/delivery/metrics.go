package delivery

import (
	"crypto/tls"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/spool"
)

type metrics struct {
	outcomes    *prometheus.CounterVec
	delivered   prometheus.Counter // of outcomes: the hot one
	connections *prometheus.CounterVec
	opened      prometheus.Counter // of connections
	fresh, kept prometheus.Observer
	bytes       prometheus.Counter
	sessions    *prometheus.CounterVec
	clear       prometheus.Counter // of sessions: the hot one
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "godwit_delivery_outcomes_total",
			Help: "Recipients by what an attempt did to them and what a failure meant. A lasting rise of deferred or " +
				"bounced says by its class who is at fault: blocked, reputation and rate_limited are about this " +
				"source, no_such_user about lists.",
		}, []string{"outcome", "class"}),
		connections: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "godwit_delivery_connections_total",
			Help: "Connections to mail hosts by how making them went. A lasting rise of anything but ok says that hosts " +
				"or the network are down; local_error means that this server is short of descriptors or ports.",
		}, []string{"result"}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "godwit_delivery_sent_bytes_total",
			Help: "Octets of message data sent, repeats included. A rise without a rise of delivered recipients says " +
				"that messages are refused late.",
		}),
	}
	m.sessions = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "godwit_delivery_sessions_total",
		Help: "Sessions opened to mail hosts by the version of TLS (clear: none) and whether the host proved who it is. " +
			"A lasting rise of clear says that hosts no longer offer TLS, or that somebody on the way takes it out.",
	}, []string{"tls", "verified"})
	duration := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "godwit_delivery_attempt_seconds",
		Help: "Duration of attempts that delivered to somebody, by whether a kept session carried them. A lasting rise " +
			"says that remotes answer slower or that sessions are not kept.",
		Buckets: []float64{.001, .003, .01, .03, .1, .3, 1, 3, 10, 30, 100, 300},
	}, []string{"session"})
	if r != nil {
		r.MustRegister(m.outcomes, m.connections, m.bytes, m.sessions, duration)
	}
	m.delivered = m.outcomes.WithLabelValues(spool.Delivered.String(), "")
	m.clear = m.sessions.WithLabelValues("clear", "no")
	m.opened = m.connections.WithLabelValues(event.OK.String())
	m.fresh, m.kept = duration.WithLabelValues("new"), duration.WithLabelValues("kept")
	return m
}

// dialed counts one connection; no reason means that it was made.
func (m *metrics) dialed(r event.Reason) {
	if r == 0 {
		m.opened.Inc()
		return
	}
	m.connections.WithLabelValues(r.String()).Inc()
}

// secured counts one session that was opened; state is nil in the clear.
func (m *metrics) secured(state *tls.ConnectionState, verified bool) {
	if state == nil {
		m.clear.Inc()
		return
	}
	proof := "no"
	if verified {
		proof = "yes"
	}
	m.sessions.WithLabelValues(versionWord(state.Version), proof).Inc()
}

// count takes in an attempt that has ended.
func (m *metrics) count(a *spool.Attempt) {
	some := false
	for i := range a.Results {
		switch r := &a.Results[i]; r.Outcome {
		case spool.None:
		case spool.Delivered:
			some = true
			m.delivered.Inc()
		default:
			m.outcomes.WithLabelValues(r.Outcome.String(), r.Class.String()).Inc()
		}
	}
	if a.Bytes > 0 {
		m.bytes.Add(float64(a.Bytes))
	}
	if !some {
		return
	}
	observer := m.fresh
	if a.Reused {
		observer = m.kept
	}
	observer.Observe(a.Ended.Sub(a.Started).Seconds())
}
