package delivery

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/bounce"
	"github.com/godwit-mta/godwit/internal/delivery/egress"
	"github.com/godwit-mta/godwit/internal/queue"
	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/smtpclient"
)

// Deliverer makes attempts. It is a [queue.Deliverer], safe for concurrent use. Without Run it works and keeps no
// sessions.
type Deliverer struct {
	o        Options
	hostname string // lower case, without final dot
	routes   atomic.Pointer[routes]
	tls      atomic.Pointer[TLSSettings]
	suites   []uint16 // of opportunistic TLS
	resumed  tls.ClientSessionCache
	manners  manners
	known    knownKeys
	dialer   *egress.Dialer
	pool     *egress.Pool
	metrics  *metrics
	sessions atomic.Uint64 // opened, for their ids
	run      string        // tells ids of this process from those of others
}

var _ queue.Deliverer = (*Deliverer)(nil)

// New checks the options and returns a deliverer. It starts nothing.
func New(o Options) (*Deliverer, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	table, err := newRoutes(o.Routes)
	if err != nil {
		return nil, err
	}
	d := &Deliverer{
		o:        o,
		hostname: strings.TrimSuffix(strings.ToLower(o.Hostname), "."),
		dialer: egress.NewDialer(egress.DialerOptions{
			AllowedNetworks: o.AllowedNetworks, ConnectTimeout: o.ConnectTimeout, FallbackDelay: o.FallbackDelay, Dial: o.Dial,
		}),
		pool: egress.NewPool(egress.PoolOptions{
			Idle: o.Idle, MaxTransactions: o.MaxTransactions, Max: o.MaxKept, MaxPerPath: o.MaxKeptPerPath,
			Registerer: o.Registerer,
		}),
		metrics: newMetrics(o.Registerer),
		suites:  everySuite(),
		resumed: tls.NewLRUClientSessionCache(maxResumed),
		run:     strconv.FormatInt(time.Now().UnixMilli(), 36),
	}
	d.routes.Store(table)
	d.tls.Store(&o.TLS)
	return d, nil
}

// Run keeps sessions for further messages until ctx is done. It then says farewell to all of them, which takes a few
// seconds at most.
func (d *Deliverer) Run(ctx context.Context) error { return d.pool.Run(ctx) }

// SetRoutes puts other routes and allowed networks in place of those there are. On error everything stays as it was.
func (d *Deliverer) SetRoutes(list []Route, allowed []netip.Prefix) error {
	table, err := newRoutes(list)
	if err != nil {
		return err
	}
	d.dialer.SetAllowedNetworks(allowed)
	d.routes.Store(table)
	return nil
}

// SetTLS puts other demands in place of those there are, for sessions that are made from now on.
func (d *Deliverer) SetTLS(s TLSSettings) error {
	s, err := s.withDefaults()
	if err != nil {
		return err
	}
	d.tls.Store(&s)
	return nil
}

// Site implements [queue.Deliverer]. domain is in lower case without final dot.
func (d *Deliverer) Site(domain string) (string, bool) { return d.siteOf(domain) }

// Deliver implements [queue.Deliverer].
func (d *Deliverer) Deliver(ctx context.Context, j *queue.Job) queue.Verdict {
	a := attempts.Get().(*attempt)
	*a = attempt{d: d, ctx: ctx, job: j, pending: a.pending[:0]}
	a.begin()
	a.deliver()
	v := a.end()
	if cap(a.pending) > maxKeptRecipients {
		a.pending = nil
	}
	*a = attempt{pending: a.pending}
	attempts.Put(a)
	return v
}

// attempts are reused: nothing refers to one when its Deliver has returned.
var attempts = sync.Pool{New: func() any { return new(attempt) }}

// attempt is the work of one Deliver.
type attempt struct {
	d   *Deliverer
	ctx context.Context
	job *queue.Job

	record  *spool.Attempt
	pending []int // entries without a decision, by their index in the job
	site    string
	keptAt  string // site whose kept sessions were tried
	demand  string // and which of them, see egress.Path
	backup  bool   // the session under way is with a host of second choice

	body       *smtp.Body
	bodyFailed bool
	unreadable error // the bytes are lost
	fresh      bool  // a connection was made
	answered   bool  // the site said something about a recipient or the message

	failures   []failure
	retryAfter []time.Duration
}

func (a *attempt) begin() {
	n := len(a.job.Entries)
	if n == 1 { // nearly all: one allocation for both
		one := new(struct {
			attempt spool.Attempt
			result  [1]spool.Result
		})
		a.record = &one.attempt
		a.record.Results = one.result[:]
	} else {
		a.record = &spool.Attempt{Results: make([]spool.Result, n)}
	}
	a.record.Message, a.record.Entries = a.job.Message, a.job.Entries
	a.record.Started = time.Now()
	for i := range n {
		a.pending = append(a.pending, i)
	}
}

func (a *attempt) deliver() {
	domain := a.job.Key.Domain
	routed := a.d.routes.Load().find(domain)
	key, sure := a.constantKey(routed)
	if !sure {
		key, sure = a.d.known.get(a.knownKey(), time.Now())
	}
	if site, ok := a.d.siteOf(domain); ok && sure {
		if a.useKept(site, key); a.over() {
			return
		}
	}
	began := time.Now()
	a.job.Enter("resolving", "", began)
	to, err := a.d.find(a.ctx, domain)
	a.record.Timings.DNS += time.Since(began)
	if a.stopped() {
		return
	}
	if err != nil {
		a.failures = append(a.failures, lookupFailure(domain, err))
		return
	}
	if key, sure := a.constantKey(to.route); sure && to.site != a.site {
		if a.useKept(to.site, key); a.over() {
			return
		}
	}
	a.site = to.site
	a.askPolicies(&to)
	f := finder{a: a, d: a.d, to: to}
	for !a.over() && a.mayGoOn(&f) {
		began = time.Now()
		a.job.Enter("resolving", "", began)
		first, second, ok := f.next(a.ctx)
		a.record.Timings.DNS += time.Since(began)
		if !ok {
			if !a.stopped() {
				f.nothingLeft()
			}
			break
		}
		a.backup = f.backup
		if first.need.key != a.demand || to.site != a.keptAt {
			if a.useKept(to.site, first.need.key); a.over() {
				return
			}
		}
		a.useTargets(&to, first, second)
	}
	a.failures = append(a.failures, f.failures...)
}

// stopped reports that the server aborts. A deadline counts as soon as it has passed: whoever took it from the context
// may have given up a moment before the context ends.
func (a *attempt) stopped() bool {
	if a.ctx.Err() != nil {
		return true
	}
	deadline, ok := a.ctx.Deadline()
	return ok && !time.Now().Before(deadline)
}

// over reports that nothing more is to be tried.
func (a *attempt) over() bool { return len(a.pending) == 0 || a.bodyFailed || a.stopped() }

// mayGoOn bounds an attempt in time. Two addresses are tried however long they take (RFC 5321, 5.1).
func (a *attempt) mayGoOn(f *finder) bool {
	return f.tried < 2 || time.Since(a.record.Started) < a.d.o.TryFor
}

// keptTries bounds how many kept sessions are tried. If several are found closed under a transaction, a new one tells
// more.
const keptTries = 3

// useKept brings the message out over kept sessions of a site that have what is demanded, if there are any.
func (a *attempt) useKept(site, key string) {
	a.site, a.keptAt, a.demand = site, site, key
	path := egress.Path{Source: a.d.o.Source.Name, Site: site, Demand: key}
	for range keptTries {
		s := a.d.pool.Take(path)
		if s == nil {
			return
		}
		// What breaks a kept session before a decision is not held against the site: it is the risk of keeping sessions.
		_, _ = a.use(s, true)
		if a.over() {
			return
		}
	}
}

// useTargets brings the message out over new sessions with one host, reached at one of two addresses: more than one
// session as long as each gets some recipients through, and one at the second address if the first was connected to
// and did not serve.
func (a *attempt) useTargets(to *destination, first candidate, second egress.Target) {
	for !a.over() {
		s, reached, failed := a.open(to, first, second)
		progress := false
		if s != nil {
			var err error
			if progress, err = a.use(s, false); err != nil {
				failed = append(failed, sessionFailure(reached, err))
			}
		}
		a.failures = append(a.failures, failed...)
		switch {
		case progress:
			first.Target, second = reached, egress.Target{}
		case reached == first.Target && second.Addr.IsValid():
			first.Target, second = second, egress.Target{}
		default:
			return
		}
	}
}

// use makes transactions on a session until nothing is pending or the session is over, and gives it to the pool if it
// can be used again. progress says that some recipient got a decision. err says why the session ended, if it did.
func (a *attempt) use(s *egress.Session, kept bool) (progress bool, err error) {
	switch a.loadBody() {
	case bodyLater:
		// Nobody keeps a remote waiting for our memory. Whoever calls opens another session if this one is gone by then.
		path := s.Path
		a.d.pool.Put(s)
		if !a.awaitBody() {
			return false, nil
		}
		if s = a.d.pool.Take(path); s == nil {
			return true, nil
		}
		kept = true
	case bodyUnreadable:
		a.d.pool.Put(s)
		return false, nil
	}
	a.record.Connection = s.ID
	for len(a.pending) > 0 && s.Reusable() && !a.stopped() {
		before := len(a.pending)
		used := kept || s.Transactions() > 0
		if err = a.transact(s, kept, used); err != nil {
			_ = s.Close() // Send has ended the session
			return progress || len(a.pending) < before, err
		}
		progress = true
		kept = false
	}
	a.d.pool.Put(s)
	if !progress && !a.stopped() { // a session that never stood: the remote spoke out of turn
		return false, &smtpclient.Error{Phase: smtpclient.PhaseMail, Protocol: true, Err: smtpclient.ErrUnsolicited}
	}
	return progress, nil
}

// bodyState is what became of reading a message back.
type bodyState uint8

const (
	bodyHere bodyState = iota
	bodyLater
	bodyUnreadable
)

// loadBody gets the message's bytes, once per attempt and not before a session stands, if that needs no waiting.
func (a *attempt) loadBody() bodyState {
	if a.body != nil {
		return bodyHere
	}
	load := a.job.BodyNow
	if load == nil {
		load = a.job.Body
	}
	body, err := load(a.ctx)
	if errors.Is(err, smtp.ErrNoMemory) {
		return bodyLater
	}
	return a.loaded(body, err)
}

// awaitBody gets the message's bytes when there is memory for them, and reports whether it did.
func (a *attempt) awaitBody() bool {
	a.job.Enter(queue.PhaseMemory, "", time.Now())
	return a.loaded(a.job.Body(a.ctx)) == bodyHere
}

func (a *attempt) loaded(body *smtp.Body, err error) bodyState {
	if err == nil {
		a.body = body
		return bodyHere
	}
	a.bodyFailed = true
	if errors.Is(err, spool.ErrUnreadable) {
		a.unreadable = err
		return bodyUnreadable
	}
	if !a.stopped() {
		a.d.o.Logger.Error("message cannot be read back, delivery waits", slog.String("message", a.job.Message.ID.String()),
			slog.Any("error", err))
	}
	return bodyUnreadable
}

// leaveLate closes the session some time after the end of the attempt's context, unless the function it returns is
// called before. A server that stops would otherwise wait ten minutes for a remote that has all of a message and says
// nothing.
func (a *attempt) leaveLate(s *egress.Session) (stay func()) {
	done, left := make(chan struct{}), make(chan struct{})
	stop := context.AfterFunc(a.ctx, func() {
		defer close(left)
		t := time.NewTimer(a.d.o.Farewell)
		defer t.Stop()
		select {
		case <-t.C:
			_ = s.Close() // what Send says of it decides
		case <-done:
		}
	})
	return func() {
		if close(done); !stop() {
			<-left
		}
	}
}

// transact offers the message for as many pending recipients as one transaction takes, and sorts what came of it.
func (a *attempt) transact(s *egress.Session, kept, used bool) error {
	m := a.job.Message
	tx := &s.Tx
	tx.From, tx.HeaderUTF8, tx.Body = m.From, m.HeaderUTF8, a.body
	tx.From.RequireTLS = m.From.RequireTLS && (s.Verified || !m.From.IsNull()) && s.Extensions().RequireTLS
	n := min(len(a.pending), a.d.o.MaxRecipients)
	tx.Recipients = tx.Recipients[:0]
	for _, i := range a.pending[:n] {
		tx.Recipients = append(tx.Recipients, *a.job.Entries[i].Recipient())
	}
	a.job.Enter("transaction", s.Target.Host, time.Now())
	stay := a.leaveLate(s)
	err := s.Send(a.ctx, tx)
	stay()
	tx.Body = nil
	a.addTimings(&tx.Result)

	// A kept session that gave no answer at all was closed before the message came: nobody took anything over.
	silent := kept && err != nil && tx.Result.Mail.IsZero()
	undone := a.pending[:0]
	for k, i := range a.pending {
		if k >= n || silent || !a.settle(i, s, &tx.Result.Recipients[k], used) {
			undone = append(undone, i)
		}
	}
	decided := len(a.pending) - len(undone)
	a.pending = undone
	if err == nil && decided == 0 {
		err = a.refused(tx, n)
	}
	clear(tx.Recipients)
	if cap(tx.Recipients) > maxKeptRecipients {
		tx.Recipients, tx.Result.Recipients = nil, nil
	}
	return err
}

// maxKeptRecipients bounds the memory a kept session holds for its next transaction.
const maxKeptRecipients = 16

// refused returns the reply for which a transaction decided nothing although the session stands, as the error that ends
// it: the session is of no use then.
func (a *attempt) refused(tx *smtpclient.Transaction, n int) error {
	for k := range n {
		if r := &tx.Result.Recipients[k]; !r.Reply.IsZero() {
			return &smtpclient.Error{Phase: r.Phase, Reply: r.Reply}
		}
	}
	return &smtpclient.Error{Phase: smtpclient.PhaseRcpt, Protocol: true, Err: errNothingDecided}
}

func (a *attempt) addTimings(r *smtpclient.Result) {
	t := &a.record.Timings
	a.record.Bytes += r.Bytes
	data := r.DataStarted
	if data.IsZero() {
		t.Mail += r.Done.Sub(r.Started)
		return
	}
	t.Mail += data.Sub(r.Started)
	if r.DataSent.IsZero() {
		t.Data += r.Done.Sub(data)
		return
	}
	t.Data += r.DataSent.Sub(data)
	t.Final += r.Done.Sub(r.DataSent)
}

// settle writes what a transaction did to entry i. It returns false if that is still open.
func (a *attempt) settle(i int, s *egress.Session, r *smtpclient.RecipientResult, used bool) bool {
	v, reason, class := decide(r, used)
	if v == undecided || v == rest {
		return false
	}
	a.answered = true
	result := &a.record.Results[i]
	result.Outcome, result.Reason, result.Class = outcomes[v], reason, class
	result.Reply, result.Phase = r.Reply, r.Phase.String()
	a.place(result, s.Target)
	result.TLS = s.TLS
	switch v {
	case delivered:
		result.RemoteDSN = s.Extensions().DSN
	case unknown:
		result.Explanation = explainUnknown(s.Target, reason)
	default:
		result.Explanation = explainReply(s.Target, r)
		a.askedWait(i, r.Reply)
	}
	return true
}

func (a *attempt) place(result *spool.Result, t egress.Target) {
	result.Host, result.Addr = t.Host, t.Addr
	result.Site, result.Source = a.site, a.d.o.Source.Name
}

// askedWait notes how long a reply asks to wait.
func (a *attempt) askedWait(i int, r smtp.Reply) {
	wait := bounce.RetryAfter(r)
	if wait == 0 {
		return
	}
	if a.retryAfter == nil {
		a.retryAfter = make([]time.Duration, len(a.record.Results))
	}
	a.retryAfter[i] = wait
}

// end gives a result to whatever has none.
func (a *attempt) end() queue.Verdict {
	if a.body != nil {
		a.body.Release()
	}
	a.record.Ended = time.Now()
	a.record.Reused = a.answered && !a.fresh
	destination := false
	if len(a.pending) > 0 && !a.stopped() && !a.bodyFailed {
		destination = a.fail()
	}
	a.d.metrics.count(a.record)
	return queue.Verdict{
		Attempt: a.record, Destination: destination, RetryAfter: a.retryAfter, Unreadable: a.unreadable,
	}
}

// fail settles the pending entries by the failures there were, and reports whether these concern the destination as a
// whole.
func (a *attempt) fail() (destination bool) {
	f := sum(a.failures)
	for _, i := range a.pending {
		r := &a.record.Results[i]
		r.Outcome = spool.Deferred
		if f.final {
			r.Outcome = spool.Bounced
		}
		r.Reason, r.Class, r.Reply, r.Phase, r.Explanation = f.reason, f.class, f.reply, f.phase, f.text
		a.place(r, f.target)
		a.askedWait(i, f.reply)
	}
	a.d.o.Logger.Debug("no host took the message", slog.String("message", a.job.Message.ID.String()),
		slog.String("site", a.site), slog.String("source", a.d.o.Source.Name), slog.String("why", f.text))
	return !a.answered && !f.final && f.reason != event.LocalError && !a.wantsTLS()
}
