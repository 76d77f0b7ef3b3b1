package smtpserver

import (
	"context"
	"net/netip"

	"github.com/godwit-mta/godwit/smtp"
)

// Backend decides what sessions may do. NewSession is called for each connection before the greeting, from many
// goroutines. A non-zero reply refuses the connection: it is sent instead of the greeting (RFC 5321, 3.1), which then
// ends. p stays valid and unchanged, but for the fields HELO and EHLO set, until Session.Close.
type Backend interface {
	NewSession(ctx context.Context, p *Peer) (Session, smtp.Reply)
}

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

// Peer is the other side of a session.
type Peer struct {
	Session string         // id of the session, 10 letters and digits, unique in the process
	Remote  netip.AddrPort // zero if the connection has no such address; IPv4 is never mapped into IPv6
	Local   netip.AddrPort

	// Hello is the name given with HELO or EHLO, empty before. It is safe in headers and logs: at most 255 letters,
	// digits and ".-_:[]"; a '?' stands for every other octet that was sent.
	Hello string
	ESMTP bool // EHLO was used
}

// Protocol returns the word for the "with" clause of a Received field (RFC 3848; RFC 6531, 4.3). utf8 tells whether
// MAIL had SMTPUTF8.
func (p *Peer) Protocol(utf8 bool) string {
	switch {
	case utf8:
		return "UTF8SMTP"
	case p.ESMTP:
		return "ESMTP"
	}
	return "SMTP"
}
