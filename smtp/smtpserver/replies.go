package smtpserver

import (
	"log/slog"

	"github.com/godwit-mta/godwit/smtp"
)

// say makes a reply whose enhanced code has the class of its code (RFC 2034, 4).
func say(code int, subject, detail uint16, text string) smtp.Reply {
	enhanced := smtp.EnhancedCode{Class: uint16(code / 100), Subject: subject, Detail: detail}
	return smtp.Reply{Code: code, Enhanced: enhanced, Text: text}
}

// What the engine says. The words are fixed and generic; reasons are in the log.
var (
	replyHello         = say(250, 0, 0, "OK")
	replyMail          = say(250, 1, 0, "Sender OK")
	replyRcpt          = say(250, 1, 5, "Recipient OK")
	replyData          = smtp.Reply{Code: 354, Text: "End data with <CR><LF>.<CR><LF>"}
	replyAccepted      = say(250, 0, 0, "Message accepted")
	replyChunk         = say(250, 0, 0, "Chunk received")
	replyQuit          = say(221, 0, 0, "Bye")
	replyVrfy          = say(252, 0, 0, "Cannot verify, but will take a message and try")
	replyHelp          = say(214, 0, 0, "See RFC 5321")
	replyUnknown       = say(500, 5, 2, "Command not recognized")
	replyLineTooLong   = say(500, 5, 2, "Line too long")
	replyControls      = say(500, 5, 2, "Control characters are not allowed")
	replyNotUTF8       = say(501, 5, 2, "Not valid UTF-8")
	replyNoArguments   = say(501, 5, 4, "Syntax: no arguments allowed")
	replyHelloSyntax   = say(501, 5, 4, "Syntax: HELO or EHLO and a domain or address literal")
	replyMailSyntax    = say(501, 5, 4, "Syntax: MAIL FROM:<address>")
	replyRcptSyntax    = say(501, 5, 4, "Syntax: RCPT TO:<address>")
	replyVrfySyntax    = say(501, 5, 4, "Syntax: VRFY and a name")
	replyNotOffered    = say(502, 5, 1, "Command not implemented")
	replySequence      = say(503, 5, 1, "Bad sequence of commands")
	replyHelloFirst    = say(503, 5, 1, "Send EHLO or HELO first")
	replyNoRecipients  = say(554, 5, 1, "No valid recipients")
	replyManyRecipient = say(452, 5, 3, "Too many recipients")
	replyLocalError    = say(451, 3, 0, "Local error, try again later")
	replyFull          = say(421, 3, 2, "Too many connections, try again later")
	replyClientFull    = say(421, 7, 0, "Too many connections from your address")
	replyDenied        = say(554, 7, 1, "Your network may not connect here")
	replyReadyForTLS   = say(220, 0, 0, "Ready to start TLS")
	replyTLSActive     = say(503, 5, 1, "TLS is active already")
	replyTLSBusy       = say(454, 7, 0, "TLS is not available now, try again later")
	replyRequireTLS    = say(555, 5, 4, "REQUIRETLS is for sessions over TLS")
	replyTLSFirst      = say(538, 7, 11, "Use STARTTLS first")
	replyAuthDone      = say(235, 7, 0, "Authentication successful")
	replyAuthTwice     = say(503, 5, 1, "Authenticated already")
	replyAuthSyntax    = say(501, 5, 4, "Syntax: AUTH and a mechanism, then an initial response or nothing")
	replyAuthUnknown   = say(504, 5, 4, "Mechanism not offered")
	replyAuthCancelled = say(501, 0, 0, "Authentication cancelled")
	replyAuthMalformed = say(501, 5, 2, "Response is malformed")
	replyAuthFailed    = say(535, 7, 8, "Authentication credentials invalid")
	replyAuthTemporary = say(454, 7, 0, "Temporary authentication failure")
	replyAuthTooLong   = say(500, 5, 6, "Authentication exchange line is too long")
	replyXClientSyntax = say(501, 5, 4, "Bad attribute or value")
)

// ending is why a session ends.
type ending uint8

const (
	goOn ending = iota // it does not
	endQuit
	endRefused
	endBackend
	endLost
	endTimeout
	endSlow
	endAge
	endDrain
	endAbort
	endBadCommands
	endIdleCommands
	endLongLine
	endBareLF
	endFraming
	endUnawaited
	endEarly
	endForeign
	endProxy
	endDenied
	endInjected
	endHandshake
	endTLSBusy
	endAuthFailures
	endPanic
	endings
)

// farewells says for each ending the last words, if any are due, and how it is logged.
var farewells = [endings]struct {
	word  string // for metrics and logs
	level slog.Level
	reply smtp.Reply
}{
	goOn:            {word: "none"},
	endQuit:         {"quit", slog.LevelDebug, smtp.Reply{}},
	endRefused:      {"refused", slog.LevelDebug, smtp.Reply{}},
	endBackend:      {"backend", slog.LevelDebug, smtp.Reply{}},
	endLost:         {"lost", slog.LevelDebug, smtp.Reply{}},
	endTimeout:      {"timeout", slog.LevelInfo, say(421, 4, 2, "Timeout")},
	endSlow:         {"slow", slog.LevelInfo, say(421, 4, 2, "Data is too slow")},
	endAge:          {"age", slog.LevelInfo, say(421, 3, 2, "Session has lasted too long")},
	endDrain:        {"drain", slog.LevelDebug, say(421, 3, 2, "Server is shutting down")},
	endAbort:        {"abort", slog.LevelInfo, smtp.Reply{}},
	endBadCommands:  {"bad_commands", slog.LevelInfo, say(421, 7, 0, "Too many bad commands")},
	endIdleCommands: {"idle_commands", slog.LevelInfo, say(421, 7, 0, "Too many commands without mail")},
	endLongLine:     {"long_line", slog.LevelInfo, smtp.Reply{}},
	endBareLF:       {"bare_lf", slog.LevelInfo, say(500, 5, 2, "Lines must end with CR LF")},
	endFraming:      {"framing", slog.LevelInfo, say(501, 5, 4, "Syntax: BDAT and a size, then LAST or nothing")},
	endUnawaited:    {"unawaited", slog.LevelInfo, smtp.Reply{}},
	endEarly:        {"early", slog.LevelInfo, say(554, 5, 0, "Client talks before the greeting")},
	endForeign:      {"foreign", slog.LevelInfo, say(554, 5, 0, "This is an SMTP server")},
	endProxy:        {"proxy", slog.LevelInfo, smtp.Reply{}},
	endDenied:       {"denied", slog.LevelDebug, replyDenied},
	endInjected:     {"injected", slog.LevelWarn, say(554, 5, 0, "Nothing may follow STARTTLS before the handshake")},
	endHandshake:    {"handshake", slog.LevelInfo, smtp.Reply{}},
	endTLSBusy:      {"tls_busy", slog.LevelWarn, smtp.Reply{}},
	endAuthFailures: {"auth_failures", slog.LevelInfo, say(421, 7, 0, "Too many failed logins")},
	endPanic:        {"panic", slog.LevelError, say(421, 3, 0, "Local error, try again later")},
}
