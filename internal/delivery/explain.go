package delivery

import (
	"strings"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/delivery/egress"
	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/smtpclient"
)

// Explanations are for operators and for the senders of mail that failed: plain sentences without capital and period.

const (
	maxQuote   = 300 // octets of a reply
	maxOthers  = 3   // failures told beside the main one
	maxExplain = 900 // octets in all
)

// quote returns a reply on one line, bounded and without control characters.
func quote(r smtp.Reply) string {
	return clip(strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, r.String()), maxQuote)
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "..."
}

// refusedWords says what a negative reply in a phase was the answer to.
func refusedWords(p smtpclient.Phase) string {
	switch p {
	case smtpclient.PhaseConnect, smtpclient.PhaseGreeting:
		return "refused the session:"
	case smtpclient.PhaseHello:
		return "refused our EHLO:"
	}
	return "ended the session:"
}

// phaseWords says what the remote was expected to answer.
var phaseWords = map[smtpclient.Phase]string{
	smtpclient.PhaseConnect:  "before its greeting",
	smtpclient.PhaseGreeting: "before its greeting",
	smtpclient.PhaseHello:    "in answer to EHLO",
	smtpclient.PhaseMail:     "in answer to MAIL",
	smtpclient.PhaseRcpt:     "in answer to RCPT",
	smtpclient.PhaseData:     "in answer to DATA",
	smtpclient.PhaseBody:     "while the message was being sent",
	smtpclient.PhaseFinal:    "after the whole message was sent",
}

// explainBreak tells of a session that ended without a reply.
func explainBreak(t egress.Target, e *smtpclient.Error, reason event.Reason) string {
	where := t.String()
	when := phaseWords[e.Phase]
	switch reason {
	case event.ReplyTimeout:
		return where + " did not answer in time (" + e.Phase.String() + ")"
	case event.ProtocolError:
		return where + " broke the protocol " + when + ": " + clip(e.Err.Error(), maxQuote)
	}
	if isEOF(e.Err) {
		return where + " closed the connection " + when
	}
	return "the connection to " + where + " broke " + when
}

// explainUnknown tells of a message whose fate is not known.
func explainUnknown(t egress.Target, reason event.Reason) string {
	how := "the connection broke before its reply"
	switch reason {
	case event.ReplyTimeout:
		how = "no reply came in time"
	case event.ProtocolError:
		how = "its reply made no sense"
	}
	return "the whole message was sent to " + t.String() + ", but " + how + "; it will be sent again and may arrive twice"
}

// explainReply tells of a reply that decided.
func explainReply(t egress.Target, r *smtpclient.RecipientResult) string {
	if r.Err != nil { // the reply is our own
		return t.String() + " cannot take the message: " + r.Err.Error()
	}
	if r.Reply.Class() == 4 || r.Reply.Class() == 5 {
		return t.String() + " answered " + quote(r.Reply)
	}
	return t.String() + " answered " + quote(r.Reply) + ", which makes no sense there"
}

// explainAll tells of the failure that stands for all, and briefly of the others.
func explainAll(failures []failure, best int) string {
	var b strings.Builder
	b.WriteString(failures[best].text)
	others := 0
	for i := range failures {
		if i == best || failures[i].text == failures[best].text {
			continue
		}
		if others++; others > maxOthers {
			b.WriteString("; and more")
			break
		}
		b.WriteString("; ")
		b.WriteString(failures[i].text)
	}
	return clip(b.String(), maxExplain)
}
