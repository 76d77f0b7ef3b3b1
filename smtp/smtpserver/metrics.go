package smtpserver

import (
	"crypto/tls"
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/godwit-mta/godwit/smtp"
)

// verbCount is the number of verbs, unknown included.
const verbCount = int(smtp.VerbXForward) + 1

// metrics are the counters of a server, looked up once so that counting is one atomic addition.
type metrics struct {
	open     prometheus.Gauge
	accepted prometheus.Counter
	refused  [2]prometheus.Counter // for all, for one client
	ends     [endings]prometheus.Counter
	replies  [verbCount][4]prometheus.Counter // class 2 to 5
	messages [4]prometheus.Counter            // class 2 to 5 of the final reply
	bytes    prometheus.Counter
	flaws    [len(flaws)]prometheus.Counter
	auths    [authResults]prometheus.Counter
	secured  map[uint16]prometheus.Counter // by version
	unsecure [2]prometheus.Counter         // handshakes that failed: by the client, for want of a place
	accepts  prometheus.Counter
	panics   prometheus.Counter
}

var classWords = [4]string{"2xx", "3xx", "4xx", "5xx"}

func newMetrics(r prometheus.Registerer, name string) (*metrics, error) {
	reg := &registry{labels: prometheus.Labels{"listener": name}, to: r}
	m := &metrics{
		open: reg.gauge("godwit_smtpserver_sessions",
			"Open SMTP sessions. A lasting rise means clients that do not end their sessions, or a slow backend."),
		accepted: reg.counter("godwit_smtpserver_sessions_total", "SMTP sessions begun. It rises with traffic."),
		bytes: reg.counter("godwit_smtpserver_message_bytes_total",
			"Octets of accepted messages. It rises with traffic."),
		accepts: reg.counter("godwit_smtpserver_accept_errors_total",
			"Connections the system could not give us. A rise means that descriptors or memory are short: "+
				"raise the limits of the service."),
		panics: reg.counter("godwit_smtpserver_panics_total",
			"Sessions ended by a defect of the program. Any rise is a bug to report."),
	}
	refused := reg.vec("godwit_smtpserver_sessions_refused_total",
		"Connections refused because too many were open, of all or of one client. "+
			"A lasting rise means a flood or limits that are too low.", "limit")
	m.refused = [2]prometheus.Counter{refused("all"), refused("client")}
	ends := reg.vec("godwit_smtpserver_session_ends_total",
		"Why sessions ended. A lasting rise of a cause other than quit means that clients or the network misbehave.",
		"cause")
	for e := range m.ends {
		if ending(e) != goOn {
			m.ends[e] = ends(farewells[e].word)
		}
	}
	replies := reg.vec("godwit_smtpserver_replies_total",
		"Replies by verb and class. A lasting rise of 5xx means that clients are refused, of 4xx put off.",
		"verb", "class")
	for v := range m.replies {
		for c := range m.replies[v] {
			m.replies[v][c] = replies(smtp.Verb(v).String(), classWords[c])
		}
	}
	messages := reg.vec("godwit_smtpserver_messages_total",
		"Messages by class of the final reply. A lasting rise of 4xx means that the queue cannot take mail.", "class")
	for _, c := range [...]int{0, 2, 3} {
		m.messages[c] = messages(classWords[c])
	}
	found := reg.vec("godwit_smtpserver_message_flaws_total",
		"Messages refused for their form. A lasting rise of bare_lf or bare_cr means an application to repair, "+
			"or an attempt at smuggling.", "flaw")
	for f := range m.flaws {
		if flaw(f) != flawNone {
			m.flaws[f] = found(flaws[f].word)
		}
	}
	auths := reg.vec("godwit_smtpserver_auth_total",
		"Logins by result. A lasting rise of failed means wrong passwords in use or being guessed, "+
			"of temporary that credentials cannot be checked.", "result")
	for i := range m.auths {
		m.auths[i] = auths(authWords[i])
	}
	shakes := reg.vec("godwit_smtpserver_tls_handshakes_total",
		"TLS handshakes by version, or that failed. A lasting rise of failed means clients that do not trust the "+
			"certificate or know only old TLS, of busy too many handshakes at once.", "result")
	m.secured = map[uint16]prometheus.Counter{
		tls.VersionTLS12: shakes("tls1.2"), tls.VersionTLS13: shakes("tls1.3"),
	}
	m.unsecure = [2]prometheus.Counter{shakes("failed"), shakes("busy")}
	return m, errors.Join(reg.errs...)
}

// reply counts a reply to a verb.
func (m *metrics) reply(v smtp.Verb, code int) {
	if c := code/100 - 2; c >= 0 && c < 4 {
		m.replies[v][c].Inc()
	}
}

// message counts the final reply to a message.
func (m *metrics) message(r smtp.Reply) {
	if r.Code == hangUp {
		return // nobody knows
	}
	if c := m.messages[r.Class()-2]; c != nil {
		c.Inc()
	}
}

// registry makes metrics and registers them. Those of a server of the same name that was there before, as after a
// reload, are taken over.
type registry struct {
	to     prometheus.Registerer
	labels prometheus.Labels
	errs   []error
}

func register[C prometheus.Collector](r *registry, c C) C {
	if r.to == nil {
		return c
	}
	err := r.to.Register(c)
	if err == nil {
		return c
	}
	if there, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if old, ok := there.ExistingCollector.(C); ok {
			return old
		}
	}
	r.errs = append(r.errs, err)
	return c
}

func (r *registry) gauge(name, help string) prometheus.Gauge {
	return register(r, prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: r.labels}))
}

func (r *registry) counter(name, help string) prometheus.Counter {
	return register(r, prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: r.labels}))
}

func (r *registry) vec(name, help string, labels ...string) func(values ...string) prometheus.Counter {
	opts := prometheus.CounterOpts{Name: name, Help: help, ConstLabels: r.labels}
	v := register(r, prometheus.NewCounterVec(opts, labels))
	return func(values ...string) prometheus.Counter { return v.WithLabelValues(values...) }
}
