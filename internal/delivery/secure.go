package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/delivery/egress"
	"github.com/godwit-mta/godwit/internal/delivery/tlspolicy"
	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/smtpclient"
)

// A session is made in steps: the connection, the greeting, TLS, the login. Where TLS fails the connection is gone with
// it, and the next one is made another way: with what old hosts can bear, then in the clear, all within this attempt
// (RFC 7435, 3). Where TLS is required there is no last step.

// open makes a session with one of two targets of one host. reached is the target connected to, zero if none was; the
// session is nil if it could not be made.
func (a *attempt) open(to *destination, first candidate, second egress.Target) (
	s *egress.Session, reached egress.Target, failed []failure,
) {
	o := opening{a: a, to: to, need: first.need}
	began := time.Now()
	conn, target, failed := a.dial(first.Target, second)
	if conn == nil {
		return nil, egress.Target{}, failed
	}
	o.target = target
	o.manner = a.d.manners.get(target.Addr, began)
	if o.manner == mannerClear && !o.mayBeClear("") {
		o.manner = mannerPlain
	}
	for {
		c, again, f := o.session(conn)
		if f != nil {
			failed = append(failed, *f)
		}
		if c != nil {
			return o.finish(c), target, failed
		}
		if !again || a.stopped() {
			return nil, target, failed
		}
		var more []failure
		if conn, _, more = a.dial(target, egress.Target{}); conn == nil {
			return nil, target, append(failed, more...)
		}
	}
}

// dial makes a connection, and notes how that went.
func (a *attempt) dial(first, second egress.Target) (net.Conn, egress.Target, []failure) {
	d := a.d
	began := time.Now()
	a.job.Enter("connecting", first.Host, began)
	conn, target, err := d.dialer.Dial(a.ctx, &d.o.Source, first, second)
	a.record.Timings.Connect += time.Since(began)
	a.fresh = true
	if err == nil {
		d.metrics.dialed(0)
		return conn, target, nil
	}
	failed := dialFailures(err)
	for i := range failed {
		d.metrics.dialed(failed[i].reason)
		d.o.Logger.Debug("connection not made", slog.String("site", a.site), slog.String("source", d.o.Source.Name),
			slog.String("message", a.job.Message.ID.String()), slog.String("why", failed[i].text))
	}
	return nil, egress.Target{}, failed
}

// opening is the making of one session.
type opening struct {
	a      *attempt
	to     *destination
	need   *demand
	target egress.Target
	manner manner

	tried   bool               // TLS was tried and did not come about
	trouble *tlspolicy.Failure // why, for reports
	refused string             // why the session goes on in the clear, in words
	told    bool               // a result was given to the recorder
	clear   bool               // the floor was asked, and lets the session be in the clear
}

// session makes one session over conn. again says that another connection may do better, made in another manner.
func (o *opening) session(conn net.Conn) (c *smtpclient.Conn, again bool, f *failure) {
	a, d := o.a, o.a.d
	began := time.Now()
	a.job.Enter("greeting", o.target.Host, began)
	defer func() { a.record.Timings.Greeting += time.Since(began) }()
	options := smtpclient.Options{
		Hello: d.o.Source.Hello, LMTP: o.to.lmtp, Timeouts: d.o.Timeouts, Allow8Bit: d.o.Allow8Bit, Logger: d.o.Logger,
	}
	if o.need.implicit {
		options.ImplicitTLS = d.tlsConfig(o.need, min(o.manner, mannerPlain))
	}
	c = smtpclient.New(conn, options)
	if err := c.Start(a.ctx); err != nil {
		if o.need.implicit && smtpclient.HandshakeFailed(err) {
			again, f = o.handshakeFailed(err)
			return nil, again, f
		}
		return nil, false, o.broken(c, err)
	}
	if !c.Secured() && o.need.level > LevelNone {
		if again, f = o.startTLS(c); again || f != nil {
			return nil, again, f
		}
	}
	if f := o.inspect(c); f != nil {
		a.leave(c)
		return nil, false, f
	}
	if l := o.need.login; l != nil {
		if err := c.Login(a.ctx, l.Username, l.Password); err != nil {
			_ = c.Close() // it is of no use
			return nil, false, o.loginFailed(err)
		}
	}
	return c, false, nil
}

// startTLS brings TLS over the session, or decides that it goes on without.
func (o *opening) startTLS(c *smtpclient.Conn) (again bool, f *failure) {
	a := o.a
	switch {
	case !c.Extensions().StartTLS:
		o.refused = o.target.String() + " does not offer STARTTLS"
		if !o.tried {
			o.trouble = &tlspolicy.Failure{Type: tlspolicy.STARTTLSNotSupported, Detail: "STARTTLS is not offered"}
		}
	case o.manner == mannerClear:
		if o.refused == "" {
			o.refused = o.target.String() + " was found unable to do TLS a while ago"
			o.trouble = &tlspolicy.Failure{Type: tlspolicy.ValidationFailure, Detail: "the handshake failed a while ago"}
		}
	default:
		a.job.Enter("tls", o.target.Host, time.Now())
		err := c.StartTLS(a.ctx, a.d.tlsConfig(o.need, o.manner))
		if err == nil {
			return false, nil
		}
		broken, _ := errors.AsType[*smtpclient.Error](err)
		switch {
		case a.stopped():
			return false, o.broken(c, err)
		case broken != nil && broken.Phase == smtpclient.PhaseTLS && !broken.Reply.IsZero() && c.Reusable():
			o.refused = o.target.String() + " refused STARTTLS: " + quote(broken.Reply)
			o.trouble = &tlspolicy.Failure{Type: tlspolicy.STARTTLSNotSupported, Detail: "STARTTLS is refused: " + quote(broken.Reply)}
		case broken != nil && !broken.Reply.IsZero() && broken.Phase != smtpclient.PhaseTLS:
			return false, o.broken(c, err) // the host does not want us, in TLS or out of it
		default:
			return o.handshakeFailed(err)
		}
	}
	if o.mayBeClear(o.refused) {
		return false, nil
	}
	o.report(c)
	a.leave(c)
	return false, o.missing()
}

// handshakeFailed decides what is tried after a handshake, or a STARTTLS, that cost the connection.
func (o *opening) handshakeFailed(err error) (again bool, f *failure) {
	a := o.a
	a.d.o.Logger.Debug("TLS not made", slog.String("site", a.site), slog.String("source", a.d.o.Source.Name),
		slog.String("message", a.job.Message.ID.String()), slog.String("host", o.target.String()), slog.Any("error", err))
	o.tried = true
	if unverified, ok := errors.AsType[*unverifiedError](err); ok { // another manner would show the same certificate
		o.trouble = unverified.failure
		o.report(nil)
		return false, o.untrusted(unverified.failure)
	}
	o.trouble = &tlspolicy.Failure{Type: tlspolicy.ValidationFailure, Detail: "the TLS handshake failed: " + clip(cause(err), maxQuote)}
	o.refused = "the TLS handshake with " + o.target.String() + " failed: " + clip(cause(err), maxQuote)
	if o.manner == mannerFull {
		o.manner = mannerPlain
		return true, nil
	}
	if !o.need.implicit && o.mayBeClear(o.refused) {
		o.manner = mannerClear
		return true, nil
	}
	o.report(nil)
	return false, o.missing()
}

// cause returns what broke a session, without the words of the client around it.
func cause(err error) string {
	if broken, ok := errors.AsType[*smtpclient.Error](err); ok && broken.Err != nil {
		if isTimeout(broken.Err) {
			return "no answer in time"
		}
		if isEOF(broken.Err) {
			return "the connection was closed"
		}
		return broken.Err.Error()
	}
	return err.Error()
}

// mayBeClear decides whether a session may go on in the clear. why is empty to ask without consequences for the floor.
func (o *opening) mayBeClear(why string) bool {
	switch {
	case o.need.required() || o.need.implicit || o.need.login != nil:
		return false
	case o.need.level == LevelNone || why == "" || o.a.d.o.Floors == nil || o.to.exempt:
		return true
	}
	if !o.clear {
		o.clear = !o.a.d.o.Floors.Missing(o.target.Host, why)
	}
	return o.clear
}

// inspect looks at a session that stands, for what only the reply to the last EHLO tells.
func (o *opening) inspect(c *smtpclient.Conn) *failure {
	if !o.need.requireTLS || c.Secured() && c.Extensions().RequireTLS {
		return nil
	}
	return o.noRequireTLS(o.target.String() + " does not offer REQUIRETLS")
}

// finish makes the session that is handed out.
func (o *opening) finish(c *smtpclient.Conn) *egress.Session {
	a, d := o.a, o.a.d
	s := egress.NewSession(c, egress.Path{Source: d.o.Source.Name, Site: a.site, Demand: o.need.key}, o.target, a.backup)
	s.ID = fmt.Sprintf("%s-%d", d.run, d.sessions.Add(1))
	if state := c.TLS(); state != nil {
		how := "unverified"
		switch {
		case o.need.verified():
			how = o.need.how
			s.Verified = true
		case o.need.plan.Testing && o.need.plan.Verify != nil:
			if o.trouble = o.need.plan.Verify(state); o.trouble == nil {
				how = "sts"
			}
		}
		if o.trouble == nil {
			o.trouble = o.need.plan.Note
		}
		s.TLS = secureWords(state, how)
		if !o.to.exempt && d.o.Floors != nil {
			d.o.Floors.Worked(o.target.Host)
		}
	}
	switch {
	case c.Secured():
		d.manners.set(o.target.Addr, o.manner, time.Now())
	case o.tried:
		d.manners.set(o.target.Addr, mannerClear, time.Now())
	}
	d.metrics.secured(c.TLS(), o.need.verified())
	o.report(c)
	return s
}

// leave says farewell to a session that is not to be used, without waiting long for the answer.
func (a *attempt) leave(c *smtpclient.Conn) {
	ctx, cancel := context.WithTimeout(a.ctx, time.Second)
	defer cancel()
	_ = c.Quit(ctx) // nothing depends on it
}

// broken judges a session that did not open, or broke.
func (o *opening) broken(c *smtpclient.Conn, err error) *failure {
	_ = c.Close() // the client has ended the session
	f := sessionFailure(o.target, err)
	o.a.d.o.Logger.Debug("session not opened", slog.String("site", o.a.site), slog.String("source", o.a.d.o.Source.Name),
		slog.String("message", o.a.job.Message.ID.String()), slog.String("why", f.text))
	return &f
}

// report tells the recorder what came of the way to a host, once. c may be nil.
func (o *opening) report(c *smtpclient.Conn) {
	if o.told || o.a.d.o.Recorder == nil || o.to.from.policy == nil {
		return
	}
	o.told = true
	var source netip.Addr
	hello := ""
	if c != nil {
		if tcp, ok := c.LocalAddr().(*net.TCPAddr); ok {
			source = tcp.AddrPort().Addr().Unmap()
		}
		hello, _, _ = strings.Cut(c.Banner().Text, " ")
	}
	o.a.report(o.to, &o.need.plan, tlspolicy.Result{
		Failure: o.trouble, Source: source, Remote: o.target.Addr.Addr().Unmap(), Host: o.target.Host, Hello: hello,
	})
}

// report completes a result and gives it to the recorder. What a report comes to is told nobody, or reports would be made about
// reports for ever.
func (a *attempt) report(to *destination, plan *tlspolicy.Plan, r tlspolicy.Result) {
	d := a.d
	if d.o.Recorder == nil || to.from.policy == nil || a.job.Message.Protocol == spool.ProtocolTLSReport {
		return
	}
	r.Time = time.Now()
	r.Policy, r.Strings, r.Patterns, r.Domain = plan.Policy, plan.Strings, plan.Patterns, plan.Domain
	if r.Policy == "" {
		r.Policy = tlspolicy.KindNone
	}
	if r.Domain == "" {
		r.Domain = to.from.domain
	}
	d.o.Recorder.Record(r)
}

// The failures of TLS. All of them wait and are tried again, but for what RFC 8689 gives up at once.

func (o *opening) failure(reason event.Reason, text string) *failure {
	return &failure{target: o.target, reason: reason, class: event.ClassTLS, phase: smtpclient.PhaseTLS.String(), text: text}
}

// missing is the failure where TLS must be and is not.
func (o *opening) missing() *failure {
	switch {
	case o.need.requireTLS && !o.tried:
		return o.noRequireTLS(o.refused)
	case o.need.required() || o.need.implicit || o.need.login != nil:
		return o.failure(event.TLSRequired, o.refused+"; "+o.demander()+", so the mail waits")
	}
	return o.failure(event.TLSDowngrade, o.refused+"; it used to, so the mail waits a while before it goes in the clear "+
		"(see godwit tls floor)")
}

func (o *opening) untrusted(f *tlspolicy.Failure) *failure {
	return o.failure(event.TLSUntrusted, o.target.String()+" did not prove who it is: "+clip(f.Detail, maxQuote)+"; "+o.demander()+
		", so the mail waits")
}

// demander says who demands TLS.
func (o *opening) demander() string {
	switch {
	case o.need.requireTLS:
		return "the message requires TLS (REQUIRETLS)"
	case o.need.plan.Required && o.need.plan.Policy == tlspolicy.KindTLSA:
		return "the host publishes TLSA records (DANE)"
	case o.need.plan.Required:
		return "the domain's MTA-STS policy demands it"
	}
	return "this server is set to send there with TLS alone (" + o.need.level.String() + ")"
}

// needsRequireTLS is our own reply for a message that cannot go on (RFC 8689, 4.2.1).
var needsRequireTLS = smtp.Reply{
	Code: 550, Enhanced: smtp.EnhancedCode{Class: 5, Subject: 7, Detail: 30}, Text: "REQUIRETLS support required",
}

func (o *opening) noRequireTLS(why string) *failure {
	f := o.failure(event.RequireTLSUnsupported, why+"; the message requires TLS all the way (REQUIRETLS)")
	f.reply, f.final = needsRequireTLS, true
	return f
}

// loginFailed is temporary whatever the host says: it speaks of what the operator wrote down, not of the message.
func (o *opening) loginFailed(err error) *failure {
	f := o.failure(event.LoginFailed, "")
	f.phase = smtpclient.PhaseAuth.String()
	broken, ok := errors.AsType[*smtpclient.Error](err)
	switch {
	case ok && !broken.Reply.IsZero():
		f.reply = broken.Reply
		f.text = o.target.String() + " refused our login: " + quote(broken.Reply)
	case errors.Is(err, smtpclient.ErrNoMechanism):
		f.text = o.target.String() + " offers no way to log in that is known here"
	default:
		f.text = "the login at " + o.target.String() + " failed: " + clip(cause(err), maxQuote)
	}
	o.a.d.o.Logger.Warn("login at a smart host failed", slog.String("site", o.a.site), slog.String("why", f.text))
	return f
}
