// Package bounce tells what a failure meant. It turns the reply of a remote server, whatever its wording, into one
// [event.Class] of a closed list: no_such_user, mailbox_full, rate_limited, spam and so on. It is pure: no state, no
// configuration, the same answer for the same reply.
//
// Replies are classified by tables in a fixed order; the first match decides:
//
//  1. tells: words that one kind of failure alone uses, such as "receiving mail too quickly", and the marks of large
//     providers, such as "[TSS04]". They come first since some servers send them with codes that say something else.
//  2. enhanced status codes that speak for themselves (RFC 3463, 3; IANA registry of enhanced status codes).
//  3. phrases: words that usually mean one thing.
//  4. what is left of the codes, and where in the session the reply came.
//
// Codes such as 5.7.1 and 554 say nothing by themselves, so they stand last. What matches nothing is
// [event.ClassUnknown]: nothing may be concluded about the recipient from it.
//
// A class never decides whether a failure is permanent: the first digit of the reply alone does that (RFC 5321, 4.2.1).
package bounce

import (
	"strings"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/smtp"
)

// Stage is where in a session a reply came.
type Stage uint8

const (
	StageSession   Stage = iota // greeting, EHLO: all before the first MAIL is about us as a source, not a message
	StageSender                 // MAIL
	StageRecipient              // RCPT
	StageMessage                // DATA, BDAT and the final reply
)

// maxText bounds the part of a reply that is looked at.
const maxText = 2 << 10

// Classify returns the class of a negative reply. A positive one, or none, has the zero class.
func Classify(stage Stage, r smtp.Reply) event.Class {
	if !r.Temporary() && !r.Permanent() {
		return 0
	}
	text := strings.ToLower(r.Text[:min(len(r.Text), maxText)])
	if c := match(tells, r.Class(), text); c != 0 {
		return c
	}
	code := r.Enhanced
	if c := matchCode(plainCodes, code); c != 0 {
		return c
	}
	if c := match(phrases, r.Class(), text); c != 0 {
		return c
	}
	if c := matchCode(vagueCodes, code); c != 0 {
		return c
	}
	return bare(stage, r.Code)
}

// Class returns the class of a failure that moved an entry for reason: the meaning of the reply where a reply decided,
// otherwise what the reason itself says. Reasons that are no failures of a delivery have the zero class.
func Class(reason event.Reason, stage Stage, r smtp.Reply) event.Class {
	switch reason {
	case event.RemoteRefused, event.RemoteDeferred, event.SessionRefused, event.SessionClosed:
		return Classify(stage, r)
	case event.Greylisted:
		return event.ClassGreylisted
	case event.RateLimited:
		// The reply may say more exactly what there is too much of.
		if c := Classify(stage, r); c != 0 && c != event.ClassUnknown {
			return c
		}
		return event.ClassRateLimited
	case event.ConnectionRefused, event.ConnectionTimeout, event.NetworkUnreachable, event.ConnectionFailed,
		event.ConnectionLost, event.ReplyTimeout:
		return event.ClassConnection
	case event.ProtocolError, event.UTF8Unsupported, event.EightBitUnsupported, event.ExtensionUnsupported:
		return event.ClassProtocol
	case event.DNSTemporary, event.DNSMalformed, event.NoUsableAddress:
		return event.ClassDNS
	case event.DNSNXDomain, event.DNSNullMX, event.DNSNoAddress:
		return event.ClassNoSuchDomain
	case event.Loop:
		return event.ClassLoop
	case event.TLSRequired, event.TLSUntrusted, event.TLSPolicy, event.TLSDowngrade, event.RequireTLSUnsupported,
		event.LoginFailed:
		return event.ClassTLS
	case event.SizeExceeded:
		return event.ClassSize
	case event.TooManyRecipients:
		return event.ClassTooManyRecipients
	case event.Suspended, event.Aged, event.Interrupted, event.LocalError, event.SuppressionListed:
		return event.ClassLocal
	}
	return 0
}

// match returns the class of the first rule whose words all occur in text in their order. digit is the class of the
// reply, 4 or 5.
func match(rules []rule, digit int, text string) event.Class {
	if text == "" {
		return 0
	}
	for i := range rules {
		r := &rules[i]
		if (r.only == 0 || r.only == digit) && occurs(r.words, text) {
			return r.class
		}
	}
	return 0
}

// occurs reports whether the parts of words, separated by '*', occur in text one after the other.
func occurs(words, text string) bool {
	for {
		part, rest, more := strings.Cut(words, "*")
		i := strings.Index(text, part)
		if i < 0 {
			return false
		}
		if !more {
			return true
		}
		words, text = rest, text[i+len(part):]
	}
}

func matchCode(table []codeRule, code smtp.EnhancedCode) event.Class {
	if code.IsZero() {
		return 0
	}
	for i := range table {
		r := &table[i]
		if r.subject == code.Subject && r.detail == code.Detail && (r.only == 0 || r.only == code.Class) {
			return r.class
		}
	}
	return 0
}

// bare judges by basic code and stage, and gives no guess about a recipient.
func bare(stage Stage, code int) event.Class {
	switch code {
	case 421, 451:
		return event.ClassBusy
	case 452:
		if stage == StageRecipient {
			return event.ClassTooManyRecipients
		}
		return event.ClassBusy
	case 500, 501, 502, 503, 504, 555:
		return event.ClassProtocol
	case 521: // RFC 7504: the host takes no mail
		return event.ClassBlocked
	case 523, 538:
		return event.ClassTLSRequired
	case 530, 535:
		return event.ClassRelayDenied
	case 551:
		return event.ClassMailboxInactive
	case 552:
		if stage == StageMessage || stage == StageSender {
			return event.ClassSize
		}
		return event.ClassMailboxFull
	case 553:
		if stage == StageSender {
			return event.ClassSenderRefused
		}
	case 556: // RFC 7504: the domain takes no mail
		return event.ClassNoSuchDomain
	}
	if stage == StageSession {
		if code < 500 {
			return event.ClassBusy
		}
		return event.ClassBlocked
	}
	return event.ClassUnknown
}
