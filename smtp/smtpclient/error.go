package smtpclient

import (
	"errors"
	"fmt"
	"os"

	"github.com/godwit-mta/godwit/smtp"
)

// Phase is a part of a session, in the order of the wire.
type Phase uint8

const (
	PhaseConnect  Phase = iota // before the first octet; the caller's dialling belongs here
	PhaseGreeting              // the banner
	PhaseHello                 // EHLO, HELO, LHLO
	PhaseTLS                   // STARTTLS and the handshake; before the banner if TLS is implicit
	PhaseAuth                  // AUTH
	PhaseMail                  // MAIL, and RSET before it
	PhaseRcpt                  // RCPT
	PhaseData                  // the DATA command
	PhaseBody                  // the octets of the message
	PhaseFinal                 // the reply to the end of the data
	phases
)

var phaseWords = [phases]string{
	PhaseConnect: "connect", PhaseGreeting: "greeting", PhaseHello: "hello", PhaseTLS: "tls", PhaseAuth: "auth",
	PhaseMail: "mail", PhaseRcpt: "rcpt", PhaseData: "data", PhaseBody: "body", PhaseFinal: "final",
}

// String returns the word of the phase.
func (p Phase) String() string {
	if p < phases {
		return phaseWords[p]
	}
	return "unknown"
}

// Error says why a session is over, or was never opened.
type Error struct {
	Phase Phase
	// Reply is the peer's refusal; zero if the connection broke or the peer made no sense.
	Reply smtp.Reply
	// Protocol says that the peer broke the protocol: a temporary failure, and a reason to try another host.
	Protocol bool
	// Err is the cause when there is no Reply: an error of the connection (os.ErrDeadlineExceeded for a peer too
	// slow, io.EOF or io.ErrUnexpectedEOF for one that left), the context's cause, or words about the nonsense.
	Err error
}

// Error returns phase and cause on one line.
func (e *Error) Error() string {
	switch {
	case !e.Reply.IsZero():
		return fmt.Sprintf("smtp: %s: refused: %s", e.Phase, e.Reply)
	case e.Protocol:
		return fmt.Sprintf("smtp: %s: protocol error: %v", e.Phase, e.Err)
	case errors.Is(e.Err, os.ErrDeadlineExceeded):
		return fmt.Sprintf("smtp: %s: timed out", e.Phase)
	}
	return fmt.Sprintf("smtp: %s: %v", e.Phase, e.Err)
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// Temporary reports that trying again may help: all but a 5yz reply.
func (e *Error) Temporary() bool { return !e.Reply.Permanent() }

// Errors that a caller branches on.
var (
	// ErrClosed is the cause when a session is used that is over or was never started.
	ErrClosed = errors.New("session is closed")
	// ErrUnsolicited is the cause when the peer sent a reply that nothing had asked for.
	ErrUnsolicited = errors.New("reply without a command")
	// ErrInjected is the cause when there was more in the clear behind the reply to STARTTLS: somebody in between may have
	// put it there to have it taken for the peer's word over TLS (CVE-2011-0411).
	ErrInjected = errors.New("octets in the clear behind the reply to STARTTLS")
	// ErrNoTLS is the cause when a password would leave in the clear, or the peer does not offer STARTTLS.
	ErrNoTLS = errors.New("session has no TLS")
	// ErrNoMechanism is the cause when the peer offers no way to log in that this side knows.
	ErrNoMechanism = errors.New("peer offers no mechanism of authentication that is known here")
)

// Causes of a refusal that never reached the peer, found in [RecipientResult.Err]; the Reply beside it is our own.
var (
	ErrNeedUTF8     = errors.New("peer does not offer SMTPUTF8, which the message needs")
	ErrNeed8BitMIME = errors.New("peer does not offer 8BITMIME, which the message needs")
	ErrNeedTLS      = errors.New("message requires TLS all the way, which the peer does not offer (REQUIRETLS)")
	ErrTooLarge     = errors.New("message is larger than the peer takes")
	ErrAddress      = errors.New("address cannot be put into a command")
)
