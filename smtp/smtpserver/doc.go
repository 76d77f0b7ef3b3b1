// Package smtpserver is the receiving engine of SMTP: it speaks RFC 5321 on any net.Conn and hands whole messages to a
// [Backend].
//
// The engine frames and the backend decides. The engine knows lines, verbs and their order, limits, time, and where a
// message ends; it answers all of that by itself with fixed, generic words. Who may send, to whom, and what happens to
// a message is asked of the backend's [Session], one call for each of MAIL, RCPT and the end of the data:
//
//	server, err := smtpserver.New(smtpserver.Options{Hostname: "mta1.example.com", Backend: backend})
//	...
//	err = server.Serve(ctx, listener) // returns when ctx is done and every session has ended
//
// # Where a line and a message end
//
// A command ends with CRLF and the data ends with CRLF.CRLF, and with nothing else (RFC 5321, 2.3.8 and 4.1.1.4). A
// message in which a CR or LF stands alone is read to its true end and refused once, as is one that is too large, has
// too long a line, or contains NUL. With [Options.Normalize] bare LF becomes CRLF and bare CR goes away, but never does
// either end the data. After the final reply to DATA or to the last BDAT the envelope is empty, whatever that reply
// was.
//
// # Who comes in
//
// Before the greeting stand the header of a listed proxy (package proxyproto), the networks that may connect, and TLS if
// it is implicit. STARTTLS (RFC 3207) forgets all that was said before it, and octets that were sent behind it in the clear
// end the session. A backend's session that is an [Authenticator] lets clients log in by the mechanisms of package sasl
// (RFC 4954); one that is a [Securer] is told of TLS. Peers that are listed may say by XCLIENT for whom they speak, and the
// session then begins again. What [Peer] says of a client is what was proven or believed so far, and of whom.
//
// # Bytes
//
// The body is read from the connection straight into the pooled pieces of an [smtp.Body], examined there once, and lent
// to the backend, which retains it if it keeps it. While a session waits for a command it holds one small buffer.
//
// # Time and number
//
// Everything is bounded by [Limits]: a wait for a command, the rate of data, a write, the age of a session; lines,
// headers, messages, recipients, bad commands; sessions in all and of one client. All waiting is done by deadlines and
// timers of package time, so a server on net.Pipe runs in the fake time of testing/synctest.
//
// Extensions: PIPELINING (RFC 2920), SIZE (RFC 1870), 8BITMIME (RFC 6152), SMTPUTF8 (RFC 6531), ENHANCEDSTATUSCODES
// (RFC 2034), DSN (RFC 3461), CHUNKING (RFC 3030, without BINARYMIME), LIMITS (RFC 9422), STARTTLS (RFC 3207), AUTH
// (RFC 4954), XCLIENT and XFORWARD (Postfix).
package smtpserver
