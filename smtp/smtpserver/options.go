package smtpserver

import (
	"errors"
	"fmt"
	"log/slog"
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

	CommandTimeout time.Duration // for a whole command line (5 min: RFC 5321, 4.5.3.2.7), up to an eighth more
	DataTimeout    time.Duration // span in which MinDataRate is measured (5 min), up to an eighth more
	MinDataRate    int           // octets a second that data must reach on average in each span (100)
	WriteTimeout   time.Duration // for a write of replies (2 min), up to an eighth more
	SessionAge     time.Duration // of a session, whatever it does (1 h)

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
	fill(&l.CommandTimeout, 5*time.Minute)
	fill(&l.DataTimeout, 5*time.Minute)
	fill(&l.MinDataRate, 100)
	fill(&l.WriteTimeout, 2*time.Minute)
	fill(&l.SessionAge, time.Hour)
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
	check("MinDataRate", int64(l.MinDataRate), 1, 1<<30)
	check("Sessions", int64(l.Sessions), 1, 1<<24)
	check("SessionsPerClient", int64(l.SessionsPerClient), 1, 1<<24)
	for _, d := range []struct {
		name string
		v    time.Duration
	}{
		{"CommandTimeout", l.CommandTimeout}, {"DataTimeout", l.DataTimeout},
		{"WriteTimeout", l.WriteTimeout}, {"SessionAge", l.SessionAge},
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
	hello []byte // reply to EHLO on the wire
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
	return &terms{Limits: l, hello: smtp.Reply{Code: 250, Text: words}.AppendTo(nil)}, nil
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
