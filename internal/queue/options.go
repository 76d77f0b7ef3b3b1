package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/godwit-mta/godwit/internal/store"
	"github.com/godwit-mta/godwit/message"
)

// Options make a [Scheduler]. Spool, Deliverer, Store, IDs and Hostname are needed; for everything else the zero value
// means the default.
type Options struct {
	Spool     Spool
	Deliverer Deliverer
	Store     store.Store  // keeps the rules that hold mail yet to come, below "queue/hold/"
	IDs       *message.IDs // names the reports
	Hostname  string       // Reporting-MTA of reports, and the domain of their sender in the header

	// Sign appends the signatures of a report to dst, whose bytes lie in pieces: signing.Signer.Sign is one. The domain is
	// Hostname, and there is no tenant, since a report is the server's own mail. Nil: reports are not signed.
	Sign func(ctx context.Context, dst []byte, pieces [][]byte, domain, tenant string) ([]byte, error)

	Settings Settings

	// DrainTimeout is how long attempts may go on after Run was asked to stop; then they are aborted. Default 30 s.
	DrainTimeout time.Duration

	// Window bounds the entries of one queue that are claimed and held in memory, ready for an attempt. Default 10,000.
	// Of one message's, [spool.Share] count as one.
	Window int
	// WindowTotal and WindowBytes bound the same over all queues, in entries and in octets of the messages; one tenant
	// gets at most half of the entries. Defaults 40,000 and 256 MiB.
	WindowTotal int
	WindowBytes int64
	// Claim is how many due entries of a queue are claimed at once. Default 100.
	Claim int

	// Poll is how often entries are looked for that have grown too old or are late enough for a notice; an expired
	// entry is final within two polls. 1 s to 15 s in a server; shorter where all times are scaled down. Default 10 s.
	Poll time.Duration

	// Rand is the source of jitter. Default: a randomly seeded one.
	Rand rand.Source

	Logger     *slog.Logger          // nil discards
	Registerer prometheus.Registerer // nil: metrics are kept but not registered
}

// Settings are the options that can be replaced while the scheduler runs.
type Settings struct {
	// Retry holds the pauses between attempts, at least one; see [DefaultRetry]. Jitter is how far each is stretched
	// or shortened at random, in percent, 1 to 50; negative for not at all. Default 15.
	Retry  []time.Duration
	Jitter int

	// DelayNotices says who is told of a delay; when is said by the message itself. Default: who asked.
	DelayNotices DelayPolicy

	// Attempts bounds the attempts that run at once. Queues whose destination has not answered lately get at most half
	// of them, and one tenant at most nine tenths. Default 500.
	Attempts int
	// Connections bounds the attempts of one queue that run at once. Default 20. A queue begins with Initial of them
	// (default 5) and may make one more with each attempt that reaches its destination.
	Connections int
	Initial     int

	// SuspendAfter is how many attempts in a row must fail to reach a destination before its queue is suspended.
	// Default 3.
	SuspendAfter int
	// Probes holds the pauses between tries at a suspended destination; see [DefaultProbes].
	Probes []time.Duration

	// Pause is how long a queue rests after an attempt that this server could not make, such as for want of a file
	// handle; it doubles with each in a row, up to 64 times. Default 1 s.
	Pause time.Duration
}

// DelayPolicy says who is told of a delay.
type DelayPolicy uint8

// The policies. NOTIFY=NEVER is always obeyed, and nobody is ever told about a message with the null sender.
const (
	DelayAsked  DelayPolicy = iota // senders who asked by NOTIFY=DELAY (RFC 3461, 4.1)
	DelayAlways                    // and those who gave no NOTIFY parameter
	DelayNever                     // nobody
)

func (o *Options) fill() {
	set(&o.DrainTimeout, 30*time.Second)
	set(&o.Window, 10_000)
	set(&o.WindowTotal, 40_000)
	set(&o.WindowBytes, 256<<20)
	set(&o.Claim, 100)
	set(&o.Poll, 10*time.Second)
	if o.Rand == nil {
		o.Rand = rand.NewPCG(rand.Uint64(), rand.Uint64())
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Settings.fill()
}

func (s *Settings) fill() {
	if len(s.Retry) == 0 {
		s.Retry = DefaultRetry()
	}
	if len(s.Probes) == 0 {
		s.Probes = DefaultProbes()
	}
	set(&s.Jitter, 15)
	set(&s.Attempts, 500)
	set(&s.Connections, 20)
	set(&s.Initial, 5)
	set(&s.SuspendAfter, 3)
	set(&s.Pause, time.Second)
	s.Jitter = max(s.Jitter, 0)
	s.Initial = min(s.Initial, s.Connections)
}

// set gives *p the default if it is zero.
func set[T comparable](p *T, value T) {
	var zero T
	if *p == zero {
		*p = value
	}
}

func (o *Options) validate() error {
	var errs []error
	need := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	need(o.Spool != nil, "no Spool")
	need(o.Deliverer != nil, "no Deliverer")
	need(o.Store != nil, "no Store")
	need(o.IDs != nil, "no IDs")
	need(o.Hostname != "", "no Hostname")
	need(o.DrainTimeout > 0, "DrainTimeout %v is not positive", o.DrainTimeout)
	need(o.Window > 0, "Window %d is not positive", o.Window)
	need(o.WindowTotal > 0, "WindowTotal %d is not positive", o.WindowTotal)
	need(o.WindowBytes > 0, "WindowBytes %d is not positive", o.WindowBytes)
	need(o.Claim > 0, "Claim %d is not positive", o.Claim)
	need(o.Poll > 0, "Poll %v is not positive", o.Poll)
	return errors.Join(append(errs, o.Settings.validate())...)
}

func (s *Settings) validate() error {
	var errs []error
	need := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	for i, d := range s.Retry {
		need(d > 0, "Retry[%d] %v is not positive", i, d)
	}
	for i, d := range s.Probes {
		need(d > 0, "Probes[%d] %v is not positive", i, d)
	}
	need(s.Jitter <= 50, "Jitter %d is above 50 percent", s.Jitter)
	need(s.DelayNotices <= DelayNever, "DelayNotices %d is not a policy", s.DelayNotices)
	need(s.Attempts > 0, "Attempts %d is not positive", s.Attempts)
	need(s.Connections > 0, "Connections %d is not positive", s.Connections)
	need(s.Initial > 0, "Initial %d is not positive", s.Initial)
	need(s.Pause > 0, "Pause %v is not positive", s.Pause)
	need(s.SuspendAfter > 0, "SuspendAfter %d is not positive", s.SuspendAfter)
	return errors.Join(errs...)
}
