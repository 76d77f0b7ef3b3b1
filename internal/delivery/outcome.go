package delivery

import (
	"errors"
	"io"
	"os"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/bounce"
	"github.com/godwit-mta/godwit/internal/delivery/egress"
	"github.com/godwit-mta/godwit/internal/dns"
	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/smtpclient"
)

// This file is the one place that tells temporary from permanent from unknown.

// verdict is what a reply or a break of the session means for one recipient.
type verdict uint8

const (
	undecided verdict = iota // about the host or the session: another one may be asked at once
	delivered                // the remote took responsibility
	temporary                // the site said: not now
	permanent                // the site said: never
	unknown                  // the message left and its reply was not received
	rest                     // over the limit of the transaction: goes on at once in the next
)

// outcomes gives what becomes of an entry once no other host is left to ask.
var outcomes = [...]spool.Outcome{
	undecided: spool.Deferred,
	delivered: spool.Delivered,
	temporary: spool.Deferred,
	permanent: spool.Bounced,
	unknown:   spool.Deferred, // may have arrived: sending twice is better than losing (RFC 5321, 4.2.5)
	rest:      spool.Deferred,
}

// Phases beside those of the session itself.
const (
	phaseDNS     = "dns"
	phaseConnect = "connect"
)

// decide judges one recipient of a transaction. used says that the session had carried a transaction before this one.
func decide(r *smtpclient.RecipientResult, used bool) (verdict, event.Reason, event.Class) {
	switch r.Status {
	case smtpclient.Delivered:
		return delivered, event.OK, 0
	case smtpclient.TooMany:
		return rest, event.TooManyRecipients, event.ClassTooManyRecipients
	case smtpclient.Unknown:
		reason := breakReason(r.Err)
		return unknown, reason, bounce.Class(reason, bounce.StageMessage, smtp.Reply{})
	case smtpclient.Refused:
		if r.Err != nil {
			reason := ownReason(r)
			return permanent, reason, bounce.Class(reason, stageOf(r.Phase), r.Reply)
		}
		return decideReply(r.Phase, r.Reply, used)
	}
	return undecided, 0, 0
}

// ownReason names what the message needs and the remote does not offer.
func ownReason(r *smtpclient.RecipientResult) event.Reason {
	switch {
	case errors.Is(r.Err, smtpclient.ErrNeedUTF8):
		return event.UTF8Unsupported
	case errors.Is(r.Err, smtpclient.ErrNeed8BitMIME):
		return event.EightBitUnsupported
	case errors.Is(r.Err, smtpclient.ErrTooLarge):
		return event.SizeExceeded
	case errors.Is(r.Err, smtpclient.ErrNeedTLS):
		return event.RequireTLSUnsupported
	case errors.Is(r.Err, smtpclient.ErrAddress):
		if r.Reply.Enhanced.Detail == 7 { // 5.1.7 speaks of the sender, 5.1.3 of the recipient
			return event.InvalidSender
		}
		return event.InvalidRecipient
	}
	return event.ExtensionUnsupported
}

// decideReply judges a negative reply to MAIL, RCPT, DATA or the message.
func decideReply(phase smtpclient.Phase, r smtp.Reply, used bool) (verdict, event.Reason, event.Class) {
	class := bounce.Classify(stageOf(phase), r)
	switch {
	case r.Permanent():
		switch {
		case r.Code == 552 && phase == smtpclient.PhaseRcpt && class == event.ClassTooManyRecipients:
			return temporary, event.TooManyRecipients, class // RFC 5321, 4.5.3.1.10
		case r.Code == 503 && phase == smtpclient.PhaseMail && used:
			return undecided, event.ProtocolError, event.ClassProtocol // the session is out of step, the sender is not refused
		}
		return permanent, event.RemoteRefused, class
	case r.Temporary():
		reason := temporaryReason(r, class)
		if phase < smtpclient.PhaseFinal && leadsOn(r, class, used && phase == smtpclient.PhaseMail) {
			return undecided, reason, class
		}
		return temporary, reason, class
	}
	return undecided, event.ProtocolError, event.ClassProtocol // neither refusal nor consent: not a word of SMTP
}

// leadsOn tells a temporary reply about the host or the session, which another one may not give, from one of the site
// about us or the message.
func leadsOn(r smtp.Reply, class event.Class, usedAtMail bool) bool {
	if class == event.ClassSessionLimit && usedAtMail {
		return true
	}
	if r.Code != 421 {
		return false
	}
	switch class {
	case event.ClassBusy, event.ClassUnknown, event.ClassSessionLimit, event.ClassProtocol, event.ClassConnection:
		return true
	}
	return false // 421 that explains itself: all hosts of the site would say the same
}

func temporaryReason(r smtp.Reply, class event.Class) event.Reason {
	switch class {
	case event.ClassGreylisted:
		return event.Greylisted
	case event.ClassRateLimited, event.ClassTooManyConnections, event.ClassRecipientRate, event.ClassReputation:
		return event.RateLimited
	case event.ClassTooManyRecipients:
		return event.TooManyRecipients
	}
	if r.Code == 421 {
		return event.SessionClosed
	}
	return event.RemoteDeferred
}

// stageOf maps the phases of a session to what the classifier wants to know.
func stageOf(p smtpclient.Phase) bounce.Stage {
	switch p {
	case smtpclient.PhaseConnect, smtpclient.PhaseGreeting, smtpclient.PhaseHello:
		return bounce.StageSession
	case smtpclient.PhaseMail:
		return bounce.StageSender
	case smtpclient.PhaseRcpt:
		return bounce.StageRecipient
	}
	return bounce.StageMessage
}

// breakReason sorts the break of a session.
func breakReason(err error) event.Reason {
	broken, ok := errors.AsType[*smtpclient.Error](err)
	switch {
	case !ok:
		return event.ConnectionLost
	case broken.Protocol:
		return event.ProtocolError
	case errors.Is(broken.Err, os.ErrDeadlineExceeded):
		return event.ReplyTimeout
	case !broken.Reply.IsZero():
		return event.SessionClosed
	}
	return event.ConnectionLost
}

// failure is why one host, or one address of it, could not be used. Unless all are final, the entry is tried again.
type failure struct {
	target egress.Target
	reason event.Reason
	class  event.Class
	reply  smtp.Reply
	phase  string
	text   string // what happened, with the name of the host, as a sentence without capital and period
	final  bool
}

// weight orders failures by how much they tell: words of a mail server most, silence of DNS least.
func (f *failure) weight() int {
	switch {
	case !f.reply.IsZero():
		return 4
	case f.phase == phaseDNS:
		return 1
	case f.phase == phaseConnect:
		return 2
	}
	return 3
}

// sum joins the failures of an attempt that reached no decision: the one that tells most stands for all, the first
// among equals; a final one does so only if all are final.
func sum(failures []failure) failure {
	best := -1
	final := true
	for i := range failures {
		final = final && failures[i].final
	}
	for i := range failures {
		if failures[i].final != final {
			continue
		}
		if best < 0 || failures[i].weight() > failures[best].weight() {
			best = i
		}
	}
	if best < 0 {
		// Nobody said why. That is no ground to give mail up.
		return failure{reason: event.DNSTemporary, class: event.ClassDNS, phase: phaseDNS,
			text: "no mail server of this domain was found"}
	}
	f := failures[best]
	f.text = explainAll(failures, best)
	return f
}

// sessionFailure judges a session that could not be opened, or ended before a recipient's fate was decided.
func sessionFailure(t egress.Target, err error) failure {
	f := failure{target: t, reason: breakReason(err)}
	broken, ok := errors.AsType[*smtpclient.Error](err)
	if !ok {
		f.class, f.phase, f.text = event.ClassConnection, phaseConnect, "session with "+t.String()+" failed: "+err.Error()
		return f
	}
	f.phase, f.reply = broken.Phase.String(), broken.Reply
	opening := broken.Phase <= smtpclient.PhaseHello
	if !f.reply.IsZero() {
		f.class = bounce.Classify(stageOf(broken.Phase), f.reply)
		if f.reply.Temporary() {
			f.reason = temporaryReason(f.reply, f.class)
		}
		if opening && f.reason != event.RateLimited && f.reason != event.Greylisted {
			f.reason = event.SessionRefused
		}
		// RFC 7504: such a host never takes mail. Any other 5yz before MAIL is about us as a source, not about the message.
		f.final = opening && (f.reply.Code == 521 || f.reply.Code == 556)
		f.text = t.String() + " " + refusedWords(broken.Phase) + " " + quote(f.reply)
		return f
	}
	f.class = bounce.Class(f.reason, stageOf(broken.Phase), f.reply)
	f.text = explainBreak(t, broken, f.reason)
	return f
}

// dialFailures judges targets that could not be connected to.
func dialFailures(err error) []failure {
	var all []failure
	joined, ok := err.(interface{ Unwrap() []error })
	list := []error{err}
	if ok {
		list = joined.Unwrap()
	}
	for _, e := range list {
		f := failure{phase: phaseConnect, reason: event.ConnectionFailed, text: e.Error()}
		if dial, ok := errors.AsType[*egress.DialError](e); ok {
			f.target, f.reason = dial.Target, dial.Reason()
			f.final = f.reason == event.NoUsableAddress
		}
		f.class = bounce.Class(f.reason, bounce.StageSession, smtp.Reply{})
		all = append(all, f)
	}
	return all
}

// errOtherFamily: a host has addresses of one family only, and the source has none of it.
var errOtherFamily = errors.New("this server sends from addresses of the other family only")

// addressFailure judges a host none of whose addresses may be dialled.
func addressFailure(h *host, err error) failure {
	f := failure{phase: phaseDNS, class: event.ClassDNS, target: egress.Target{Host: h.name}}
	if forbidden, ok := errors.AsType[*egress.ForbiddenError](err); ok {
		f.reason, f.final = event.NoUsableAddress, true
		f.target.Host = h.name
		f.text = "mail server " + h.name + " has the address " + forbidden.Addr.String() + ", which is not used: " +
			forbidden.Reason
		return f
	}
	f.reason = event.NetworkUnreachable
	f.class = event.ClassConnection
	f.text = err.Error()
	return f
}

// lookupFailure judges a lookup: name is the mail domain, or a mail server of it.
func lookupFailure(name string, err error) failure {
	f := failure{phase: phaseDNS, target: egress.Target{Host: name}, class: event.ClassDNS}
	var lookup *dns.Error
	if !errors.As(err, &lookup) {
		f.reason, f.text = event.DNSTemporary, "the lookup of "+name+" failed: "+err.Error()
		return f
	}
	f.text = lookup.Explain()
	f.final = !lookup.Temporary()
	switch lookup.Kind {
	case dns.NXDomain:
		f.reason = event.DNSNXDomain
	case dns.NullMX:
		f.reason = event.DNSNullMX
	case dns.NoRecord, dns.NoAddress:
		f.reason = event.DNSNoAddress
	case dns.NoUsableHost:
		f.reason = event.NoUsableAddress
	case dns.Malformed, dns.Loop:
		f.reason = event.DNSMalformed
	default:
		f.reason = event.DNSTemporary
	}
	f.class = bounce.Class(f.reason, bounce.StageSession, smtp.Reply{})
	return f
}

// isTimeout reports a remote that did not answer in time.
func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// isEOF reports a connection that the remote closed in order.
func isEOF(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

// errNothingDecided: a session stands and yet a transaction on it had no result for anyone.
var errNothingDecided = errors.New("no recipient was decided")
