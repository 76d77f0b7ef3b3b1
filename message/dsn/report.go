// Package dsn composes and parses delivery status notifications: the reports that tell a sender what became of a
// message.
//
//	r := dsn.Report{
//		Action:       dsn.Failed,
//		ReportingMTA: "mta1.example.com",
//		From:         "MAILER-DAEMON@mta1.example.com",
//		To:           "ann@example.org",
//		Recipients:   []dsn.RecipientStatus{{Final: rcpt, Status: smtp.EnhancedCode{5, 1, 1}, Diagnostic: reply}},
//		Original:     header,
//	}
//	p, err := r.Compose() // the message, to be sent with the null reverse-path
//
// A report has three parts (RFC 6522, 3): words for a person, fields for a program (RFC 3464), and the message it is
// about, or its header. Where addresses or the original header hold UTF-8 and the sender has shown to understand it,
// the forms of RFC 6533 are used.
//
// Whatever another host said is bounded and cleaned before it gets into a report: no control characters, no line that
// could pass for a field. When to send reports, and to whom, is not decided here: never about a message with a null
// reverse-path (RFC 5321, 6.1), and as NOTIFY asks (RFC 3461, 5.2).
package dsn

import (
	"time"

	"github.com/godwit-mta/godwit/smtp"
)

// Action says what happened (RFC 3464, 2.3.3).
type Action uint8

const (
	Failed    Action = iota + 1 // given up
	Delayed                     // not yet delivered, still tried
	Delivered                   // in the mailbox
	Relayed                     // handed to a host that sends no reports of success
	Expanded                    // delivered to a list, which sends it on
)

var actionNames = [...]string{
	Failed: "failed", Delayed: "delayed", Delivered: "delivered", Relayed: "relayed", Expanded: "expanded",
}

// String returns the word that stands in a report, or the empty string for the zero value.
func (a Action) String() string {
	if int(a) < len(actionNames) {
		return actionNames[a]
	}
	return ""
}

// class is the first number that a status code goes with (RFC 3463, 3.1). A failure may also have class 4: it was given
// up after a condition that need not last.
func (a Action) class() uint16 {
	switch a {
	case Failed:
		return 5
	case Delayed:
		return 4
	default:
		return 2
	}
}

func (a Action) allows(class uint16) bool { return class == a.class() || a == Failed && class == 4 }

// Bounds on what a report carries.
const (
	MaxOriginal   = 50 << 10 // octets of the original message
	MaxRecipients = 10_000   // groups of fields
	maxNamed      = 50       // recipients that the words for people list
	maxReplyLine  = 512      // octets kept of one line of a reply
	maxReply      = 4 << 10  // and of all of it
)

// Report is one notification.
type Report struct {
	Action       Action    // of all recipients that have none of their own
	ReportingMTA string    // host name of the server that reports
	EnvelopeID   string    // ENVID as the sender gave it, decoded; may be empty
	Arrival      time.Time // when the message came in; may be zero

	From      string // mailbox that the report comes from
	To        string // mailbox of the sender
	MessageID string // of the report, without angle brackets; empty leaves the field out, and submission adds one
	Now       time.Time

	Recipients []RecipientStatus

	// Original is the message in wire form if OriginalIsFull, else its header block; may be empty. A full one is
	// reduced to its header if it is larger than MaxOriginal or cannot be sent as it is.
	Original       []byte
	OriginalIsFull bool

	// UTF8 says that the sender used SMTPUTF8 and so takes a report in UTF-8 (RFC 6533). It is used only where 7 bits
	// will not do.
	UTF8 bool
}

// RecipientStatus is what happened to one recipient.
type RecipientStatus struct {
	Action   Action // zero means the report's
	Original smtp.OriginalRecipient
	Final    smtp.Path
	Status   smtp.EnhancedCode // its class is made to agree with Action; the zero value becomes x.0.0
	// RemoteMTA is the host that said Diagnostic. Both are empty if no host said anything.
	RemoteMTA  string
	Diagnostic smtp.Reply
	// Explanation says why in words for people; it also takes the place of Diagnostic if that is empty.
	Explanation    string
	LastAttempt    time.Time // may be zero
	WillRetryUntil time.Time // for Delayed; may be zero
}

// action returns what happened to rcpt.
func (r *Report) action(rcpt *RecipientStatus) Action {
	if rcpt.Action != 0 {
		return rcpt.Action
	}
	return r.Action
}

// status returns the recipient's code with a class that agrees with a.
func (rcpt *RecipientStatus) status(a Action) smtp.EnhancedCode {
	code := rcpt.Status
	if code.IsZero() {
		code = rcpt.Diagnostic.Enhanced
	}
	if !a.allows(code.Class) {
		if code.Class == 2 || a.class() == 2 { // its details are about the other class
			code.Subject, code.Detail = 0, 0
		}
		code.Class = a.class()
	}
	return code
}
