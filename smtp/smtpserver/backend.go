package smtpserver

import (
	"context"
	"crypto/tls"
	"net/netip"

	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/sasl"
)

// Backend decides what sessions may do. NewSession is called for each connection before the greeting, from many
// goroutines. A non-zero reply refuses the connection: it is sent instead of the greeting (RFC 5321, 3.1), which then
// ends. p stays valid and unchanged, but for the fields that HELO, EHLO and STARTTLS set, until Session.Close.
type Backend interface {
	NewSession(ctx context.Context, p *Peer) (Session, smtp.Reply)
}

// hangUp is the code of the reply that is none.
const hangUp = -1

// HangUp returns what Session.Data answers when it is not known whether the message was kept: the connection is cut without a
// reply. The client then does not know either and sends the message again, which may come twice (RFC 5321, 4.5.4.1 and
// 6.1). Any reply would be a promise that may not hold.
func HangUp() smtp.Reply { return smtp.Reply{Code: hangUp} }

// Session answers for one connection. All calls come from one goroutine. A zero reply accepts, with the engine's own
// words. Other replies are of class 2, 4 or 5; after code 421 the engine closes the connection. ctx ends when the
// server aborts the session, not when it drains.
type Session interface {
	// Mail begins a transaction if it accepts.
	Mail(ctx context.Context, from *smtp.Sender) smtp.Reply

	// Rcpt is asked for each recipient; env holds those accepted before.
	Rcpt(ctx context.Context, env *smtp.Envelope, rcpt *smtp.Recipient) smtp.Reply

	// Data takes the whole message and ends the transaction. env and all it refers to belong to the backend from now
	// on. body is lent: the backend retains it if it keeps it. A positive reply makes the backend responsible for the
	// message (RFC 5321, 6.1).
	Data(ctx context.Context, env *smtp.Envelope, body *smtp.Body) smtp.Reply

	// Reset drops a transaction that Mail began and Data did not end.
	Reset()

	// Close is the last call. A transaction that is open is dropped with it, without Reset.
	Close()
}

// Refuser is a Session that is told of what the engine refused without asking it: a sender or recipient that is no address, a
// message that is too large or not in order. env holds what was accepted before, reply is what the client was told. Refused must
// be quick and keep neither.
type Refuser interface {
	Refused(env *smtp.Envelope, reply smtp.Reply)
}

// Authenticator is a Session that lets clients log in. The engine frames the dialog (RFC 4954), the mechanisms of
// package sasl speak it, and the session decides. After a success there is no second one (RFC 4954, 4).
type Authenticator interface {
	// Mechanisms names the mechanisms that are offered now, in order of preference. It is asked at each EHLO and AUTH.
	// With none AUTH is not offered.
	Mechanisms() []string

	// Auth begins an exchange with one of Mechanisms. A non-zero reply refuses it instead, such as 421, 454 or 538.
	Auth(ctx context.Context, mechanism string) (sasl.Server, smtp.Reply)

	// AuthDone is told how each exchange that Auth began has ended: nil is success; other errors are those of the
	// mechanism, wrap sasl.ErrMalformed if the client broke or cancelled it, or tell that the connection was lost. A zero reply
	// leaves the words to the engine. A reply that is not positive undoes a success.
	AuthDone(ctx context.Context, mechanism string, err error) smtp.Reply
}

// Securer is a Session that is told when STARTTLS has secured its connection: Peer.TLS is set, and all that the client
// said before is forgotten. A non-zero reply is given to the client's next command and ends the session. With implicit
// TLS the connection is secure before NewSession.
type Securer interface {
	Secured(ctx context.Context) smtp.Reply
}

// Peer is the other side of a session.
type Peer struct {
	Session string         // id of the session, 10 letters and digits, unique in the process
	Remote  netip.AddrPort // zero if the connection has no such address; IPv4 is never mapped into IPv6
	Local   netip.AddrPort

	// Hello is the name given with HELO or EHLO, empty before. It is safe in headers and logs: at most 255 letters,
	// digits and ".-_:[]"; a '?' stands for every other octet that was sent.
	Hello string
	ESMTP bool // EHLO was used

	// TLS is the state of the secured connection, nil on a clear one.
	TLS *tls.ConnectionState

	// Via is the other end of the TCP connection when it was believed to speak for a client that Remote names (PROXY header,
	// XCLIENT); zero otherwise.
	Via netip.AddrPort

	// Authenticated is set by the session after a successful AUTH: the login name in a form that is safe in headers. It is
	// what Protocol goes by.
	Authenticated string

	// XClientLogin is the login name that a trusted peer told with XCLIENT; empty otherwise. It has no control characters
	// and at most 255 octets.
	XClientLogin string
}

// Protocol returns the word for the "with" clause of a Received field (RFC 3848; RFC 6531, 4.3). utf8 tells whether
// MAIL had SMTPUTF8.
func (p *Peer) Protocol(utf8 bool) string {
	kind := 0
	if p.TLS != nil {
		kind |= 1
	}
	if p.Authenticated != "" {
		kind |= 2
	}
	switch {
	case utf8:
		return [...]string{"UTF8SMTP", "UTF8SMTPS", "UTF8SMTPA", "UTF8SMTPSA"}[kind]
	case p.ESMTP || kind&2 != 0: // AUTH is an extension, so who uses it speaks ESMTP
		return [...]string{"ESMTP", "ESMTPS", "ESMTPA", "ESMTPSA"}[kind]
	}
	return "SMTP"
}
