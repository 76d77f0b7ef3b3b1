package smtpserver

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/godwit-mta/godwit/smtp"
)

// LevelTranscript is the log level, below debug, at which the lines of a session are logged. Bodies are never shown.
const LevelTranscript = slog.LevelDebug - 4

// Options describe a server.
type Options struct {
	Hostname string  // our name in greeting and EHLO; required
	Backend  Backend // required
	Limits   Limits

	// Memory bounds the messages being received, with all other bodies of the process; beyond, 452 4.3.1. Nil: a budget
	// of its own of 1 GiB.
	Memory *smtp.Budget

	Banner string // words after the name in the greeting, printable ASCII; none by default

	// Normalize accepts mail of clients that send bare LF: in commands and data it is read as CRLF, and bare CR in data
	// is dropped. The end of data is CRLF.CRLF as ever.
	Normalize bool

	// GreetingDelay holds the greeting back for so long; a client that talks meanwhile is no mail server and is refused
	// with 554 (RFC 5321, 3.1 and 4.3.1). Zero greets at once.
	GreetingDelay time.Duration

	// TLS secures connections: STARTTLS is offered (RFC 3207), or with ImplicitTLS the handshake comes before the greeting
	// (RFC 8314, 3.3). Nil: neither. Early data is never taken, since crypto/tls has none.
	TLS         *tls.Config
	ImplicitTLS bool

	// Proxies are the networks of proxies: their connections must begin with a PROXY header, which names the client. Others
	// that send one are closed.
	Proxies []netip.Prefix

	// XClient are the networks whose peers may use XCLIENT and XFORWARD and are believed in MAIL's AUTH parameter: filters
	// and front ends of the operator. A client that a PROXY header names counts as itself, not as its proxy.
	XClient []netip.Prefix

	// Allow and Deny are the networks of clients: those in Deny, and those not in Allow unless it is empty, are refused with
	// 554 before the greeting, or closed if TLS is implicit. SetAccess replaces both.
	Allow, Deny []netip.Prefix

	// DrainTimeout is how long sessions may finish their transaction after the context of Serve is done; then they are
	// cut. Zero means 30 seconds.
	DrainTimeout time.Duration

	Logger     *slog.Logger          // nil discards
	Registerer prometheus.Registerer // nil: metrics are kept but not registered
	Name       string                // the listener's name, a label of all metrics
}

// Limits bound what a client can use up. Zero means the default, in parentheses.
type Limits struct {
	CommandLine int // octets of a command line with its CRLF (2,048; at least 512: RFC 5321, 4.5.3.1.4)

	// TextLine is the octets of a line of a message without CRLF (65,536; at least 998). RFC 5321, 4.5.3.1.6, obliges a
	// server to take 998 and forbids a client to send more. Real applications do send more, HTML in one line and a To
	// field of all recipients above all, and receivers take it, so the default refuses only what is no text any more. A
	// line is never cut: that would break signatures and encodings. Who wants the letter of the law sets 998.
	TextLine int

	HeaderBytes  int   // octets of a message's header (256 KiB)
	MessageBytes int64 // octets of a message, offered as SIZE (50 MiB; at least 64 KiB: RFC 5321, 4.5.3.1.7)
	Recipients   int   // of a transaction; beyond, 452 4.5.3 (1,000; at least 100: RFC 5321, 4.5.3.1.8)
	BadCommands  int   // refused for syntax or order in a session; beyond, 421 (20)
	IdleCommands int   // that bring no message nearer (RSET, NOOP, HELO...) since the last message; beyond, 421 (100)
	AuthFailures int   // failed, broken or refused logins of a session; then 421 (5)

	CommandTimeout time.Duration // for a whole command line (5 min: RFC 5321, 4.5.3.2.7), up to an eighth more
	DataTimeout    time.Duration // span in which MinDataRate is measured (5 min), up to an eighth more
	MinDataRate    int           // octets a second that data must reach on average in each span (100)
	WriteTimeout   time.Duration // for a write of replies (2 min), up to an eighth more
	SessionAge     time.Duration // of a session, whatever it does (1 h)

	// HandshakeTimeout is for a TLS handshake (30 s). While more than three quarters of Handshakes are under way it is at
	// most 5 s.
	HandshakeTimeout time.Duration
	Handshakes       int // TLS handshakes at once, a quarter for one client; beyond, 454 4.7.0, or closed if TLS is implicit (1,000)

	// Sessions is how many may be open at once; beyond, 421 4.3.2 (20,000). While more than three quarters of them are,
	// waits are a tenth of the timeouts, but at least 10 s.
	Sessions          int
	SessionsPerClient int // of one IPv4 address or IPv6 /64; beyond, 421 4.7.0 (1,000)
}

// maxInput bounds every size that can be configured, so that sums never overflow.
const maxInput = 1 << 40

// withDefaults fills zero fields.
func (l Limits) withDefaults() Limits {
	fill(&l.CommandLine, 2048)
	fill(&l.TextLine, 64<<10)
	fill(&l.HeaderBytes, 256<<10)
	fill(&l.MessageBytes, 50<<20)
	fill(&l.Recipients, 1000)
	fill(&l.BadCommands, 20)
	fill(&l.IdleCommands, 100)
	fill(&l.AuthFailures, 5)
	fill(&l.CommandTimeout, 5*time.Minute)
	fill(&l.DataTimeout, 5*time.Minute)
	fill(&l.MinDataRate, 100)
	fill(&l.WriteTimeout, 2*time.Minute)
	fill(&l.SessionAge, time.Hour)
	fill(&l.HandshakeTimeout, 30*time.Second)
	fill(&l.Handshakes, 1000)
	fill(&l.Sessions, 20000)
	fill(&l.SessionsPerClient, 1000)
	return l
}

func fill[T int | int64 | time.Duration](v *T, def T) {
	if *v == 0 {
		*v = def
	}
}

// validate checks limits that have their defaults.
func (l Limits) validate() error {
	var errs []error
	check := func(name string, v, low, high int64) {
		if v < low || v > high {
			errs = append(errs, fmt.Errorf("limit %s: %d is not between %d and %d", name, v, low, high))
		}
	}
	check("CommandLine", int64(l.CommandLine), 512, 64<<10)
	check("TextLine", int64(l.TextLine), 998, maxInput)
	check("HeaderBytes", int64(l.HeaderBytes), 1<<10, maxInput)
	check("MessageBytes", l.MessageBytes, 64<<10, maxInput)
	check("Recipients", int64(l.Recipients), 100, 1<<20)
	check("BadCommands", int64(l.BadCommands), 1, 1<<20)
	check("IdleCommands", int64(l.IdleCommands), 1, 1<<20)
	check("AuthFailures", int64(l.AuthFailures), 1, 1<<20)
	check("Handshakes", int64(l.Handshakes), 1, 1<<24)
	check("MinDataRate", int64(l.MinDataRate), 1, 1<<30)
	check("Sessions", int64(l.Sessions), 1, 1<<24)
	check("SessionsPerClient", int64(l.SessionsPerClient), 1, 1<<24)
	for _, d := range []struct {
		name string
		v    time.Duration
	}{
		{"CommandTimeout", l.CommandTimeout}, {"DataTimeout", l.DataTimeout},
		{"WriteTimeout", l.WriteTimeout}, {"SessionAge", l.SessionAge}, {"HandshakeTimeout", l.HandshakeTimeout},
	} {
		if d.v < time.Second || d.v > 30*24*time.Hour {
			errs = append(errs, fmt.Errorf("limit %s: %v is not between 1s and 720h", d.name, d.v))
		}
	}
	return errors.Join(errs...)
}

// terms are limits and the words that follow from them. A session keeps those it began with.
type terms struct {
	Limits
	words string // reply to EHLO, without what depends on the session
	hello []byte // the same on the wire
}

func newTerms(hostname string, l Limits) (*terms, error) {
	l = l.withDefaults()
	if err := l.validate(); err != nil {
		return nil, err
	}
	words := hostname +
		"\nPIPELINING" +
		"\nSIZE " + strconv.FormatInt(l.MessageBytes, 10) +
		"\n8BITMIME" +
		"\nSMTPUTF8" +
		"\nENHANCEDSTATUSCODES" +
		"\nDSN" +
		"\nCHUNKING" +
		"\nLIMITS RCPTMAX=" + strconv.Itoa(l.Recipients)
	return &terms{Limits: l, words: words, hello: smtp.Reply{Code: 250, Text: words}.AppendTo(nil)}, nil
}

func (o *Options) fillAndValidate() error {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	fill(&o.DrainTimeout, 30*time.Second)
	if o.Memory == nil {
		o.Memory = smtp.NewBudget(1 << 30)
	}
	var errs []error
	if o.Backend == nil {
		errs = append(errs, errors.New("no backend"))
	}
	if _, err := smtp.DomainToASCII(o.Hostname); err != nil || !printable(o.Hostname) {
		errs = append(errs, fmt.Errorf("hostname %q: not a domain name", o.Hostname))
	}
	if !printable(o.Banner) || len(o.Banner) > 200 {
		errs = append(errs, fmt.Errorf("banner %q: not printable ASCII of at most 200 characters", o.Banner))
	}
	if o.GreetingDelay < 0 || o.GreetingDelay > time.Minute {
		errs = append(errs, fmt.Errorf("greeting delay %v is not between 0 and 1m", o.GreetingDelay))
	}
	if o.ImplicitTLS && o.TLS == nil {
		errs = append(errs, errors.New("implicit TLS without a TLS configuration"))
	}
	for _, list := range [][]netip.Prefix{o.Proxies, o.XClient, o.Allow, o.Deny} {
		errs = append(errs, checkNetworks(list))
	}
	if o.DrainTimeout < 0 {
		errs = append(errs, fmt.Errorf("drain timeout %v is negative", o.DrainTimeout))
	}
	return errors.Join(errs...)
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
