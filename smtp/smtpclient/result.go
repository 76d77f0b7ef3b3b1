package smtpclient

import (
	"time"

	"github.com/godwit-mta/godwit/smtp"
)

// Transaction is one message for some recipients. It may be used again; Result keeps its memory.
type Transaction struct {
	From       smtp.Sender
	Recipients []smtp.Recipient
	// HeaderUTF8 says that the header has octets above 127, so that the message needs SMTPUTF8 even if its
	// addresses do not (RFC 6531, 3.4).
	HeaderUTF8 bool
	// Body is borrowed for the time of Send.
	Body *smtp.Body
	// Result is filled by Send.
	Result Result
}

// Result is what became of a transaction.
type Result struct {
	Mail       smtp.Reply // to MAIL, zero if there was none
	Recipients []RecipientResult

	Started     time.Time // the transaction's first octet was about to leave
	MailDone    time.Time // the reply to MAIL was read
	DataStarted time.Time // the body's first octet was about to leave
	DataSent    time.Time // the message's last octet has left; the rest is waiting for the peer
	Done        time.Time // the last reply was read, or the session ended
	Bytes       int64     // octets of the body that the connection took, dots of stuffing included
}

// RecipientResult is what became of one recipient.
type RecipientResult struct {
	// Reply decided: of MAIL, RCPT, DATA, or the final one. Zero if no reply did.
	Reply  smtp.Reply
	Phase  Phase // in which it was decided, or the session broke
	Status Status
	// Err says why there is no reply of the peer: the *Error that ended the session, or one of ErrNeedUTF8,
	// ErrNeed8BitMIME, ErrNeedTLS, ErrTooLarge and ErrAddress beside a Reply of our own.
	Err error
}

// taken reports a recipient whose RCPT the peer took, and of whom nothing more is decided.
func (r *RecipientResult) taken() bool { return r.Status == Unsent && r.Reply.Positive() }

// Status is the state of a recipient after a transaction.
type Status uint8

const (
	// Unsent: nothing was decided, the session ended before. Nothing was delivered.
	Unsent Status = iota
	// Delivered: the peer took the message over by a 2yz final reply.
	Delivered
	// Refused: Reply says so, its class says whether for good. Nothing was delivered.
	Refused
	// TooMany: over the peer's limit of recipients (RFC 5321, 4.5.3.1.10; RFC 9422, RCPTMAX). At least one other
	// recipient of the transaction was decided, so the rest may go at once, in the next transaction.
	TooMany
	// Unknown: the whole message left, and its final reply was not read. It may have been delivered.
	Unknown
	statuses
)

var statusWords = [statuses]string{
	Unsent: "unsent", Delivered: "delivered", Refused: "refused", TooMany: "too many", Unknown: "unknown",
}

// String returns the word of the status.
func (s Status) String() string {
	if s < statuses {
		return statusWords[s]
	}
	return "invalid"
}

// begin makes r ready for n recipients, all of them Unsent.
func (r *Result) begin(n int) {
	recipients := r.Recipients[:0]
	if cap(recipients) < n {
		recipients = make([]RecipientResult, n)
	}
	recipients = recipients[:n]
	clear(recipients)
	*r = Result{Recipients: recipients, Started: time.Now()}
}
