package smtpserver

import (
	"log/slog"

	"github.com/godwit-mta/godwit/smtp"
)

func code(class, subject, detail uint16) smtp.EnhancedCode {
	return smtp.EnhancedCode{Class: class, Subject: subject, Detail: detail}
}

// What the engine says. The words are fixed and generic; reasons are in the log.
var (
	replyHello         = smtp.Reply{Code: 250, Enhanced: code(2, 0, 0), Text: "OK"}
	replyMail          = smtp.Reply{Code: 250, Enhanced: code(2, 1, 0), Text: "Sender OK"}
	replyRcpt          = smtp.Reply{Code: 250, Enhanced: code(2, 1, 5), Text: "Recipient OK"}
	replyData          = smtp.Reply{Code: 354, Text: "End data with <CR><LF>.<CR><LF>"}
	replyAccepted      = smtp.Reply{Code: 250, Enhanced: code(2, 0, 0), Text: "Message accepted"}
	replyChunk         = smtp.Reply{Code: 250, Enhanced: code(2, 0, 0), Text: "Chunk received"}
	replyQuit          = smtp.Reply{Code: 221, Enhanced: code(2, 0, 0), Text: "Bye"}
	replyVrfy          = smtp.Reply{Code: 252, Enhanced: code(2, 0, 0), Text: "Cannot verify, but will take a message and try"}
	replyHelp          = smtp.Reply{Code: 214, Enhanced: code(2, 0, 0), Text: "See RFC 5321"}
	replyUnknown       = smtp.Reply{Code: 500, Enhanced: code(5, 5, 2), Text: "Command not recognized"}
	replyLineTooLong   = smtp.Reply{Code: 500, Enhanced: code(5, 5, 2), Text: "Line too long"}
	replyControls      = smtp.Reply{Code: 500, Enhanced: code(5, 5, 2), Text: "Control characters are not allowed"}
	replyNotUTF8       = smtp.Reply{Code: 501, Enhanced: code(5, 5, 2), Text: "Not valid UTF-8"}
	replyNoArguments   = smtp.Reply{Code: 501, Enhanced: code(5, 5, 4), Text: "Syntax: no arguments allowed"}
	replyHelloSyntax   = smtp.Reply{Code: 501, Enhanced: code(5, 5, 4), Text: "Syntax: HELO or EHLO and a domain or address literal"}
	replyMailSyntax    = smtp.Reply{Code: 501, Enhanced: code(5, 5, 4), Text: "Syntax: MAIL FROM:<address>"}
	replyRcptSyntax    = smtp.Reply{Code: 501, Enhanced: code(5, 5, 4), Text: "Syntax: RCPT TO:<address>"}
	replyVrfySyntax    = smtp.Reply{Code: 501, Enhanced: code(5, 5, 4), Text: "Syntax: VRFY and a name"}
	replyNotOffered    = smtp.Reply{Code: 502, Enhanced: code(5, 5, 1), Text: "Command not implemented"}
	replySequence      = smtp.Reply{Code: 503, Enhanced: code(5, 5, 1), Text: "Bad sequence of commands"}
	replyHelloFirst    = smtp.Reply{Code: 503, Enhanced: code(5, 5, 1), Text: "Send EHLO or HELO first"}
	replyNoRecipients  = smtp.Reply{Code: 554, Enhanced: code(5, 5, 1), Text: "No valid recipients"}
	replyTooBig        = smtp.Reply{Code: 552, Enhanced: code(5, 3, 4), Text: "Message size exceeds fixed limit"}
	replyManyRecipient = smtp.Reply{Code: 452, Enhanced: code(4, 5, 3), Text: "Too many recipients"}
	replyLocalError    = smtp.Reply{Code: 451, Enhanced: code(4, 3, 0), Text: "Local error, try again later"}
	replyFull          = smtp.Reply{Code: 421, Enhanced: code(4, 3, 2), Text: "Too many connections, try again later"}
	replyClientFull    = smtp.Reply{Code: 421, Enhanced: code(4, 7, 0), Text: "Too many connections from your address"}
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
	endTimeout:      {"timeout", slog.LevelInfo, smtp.Reply{Code: 421, Enhanced: code(4, 4, 2), Text: "Timeout"}},
	endSlow:         {"slow", slog.LevelInfo, smtp.Reply{Code: 421, Enhanced: code(4, 4, 2), Text: "Data is too slow"}},
	endAge:          {"age", slog.LevelInfo, smtp.Reply{Code: 421, Enhanced: code(4, 3, 2), Text: "Session has lasted too long"}},
	endDrain:        {"drain", slog.LevelDebug, smtp.Reply{Code: 421, Enhanced: code(4, 3, 2), Text: "Server is shutting down"}},
	endAbort:        {"abort", slog.LevelInfo, smtp.Reply{}},
	endBadCommands:  {"bad_commands", slog.LevelInfo, smtp.Reply{Code: 421, Enhanced: code(4, 7, 0), Text: "Too many bad commands"}},
	endIdleCommands: {"idle_commands", slog.LevelInfo, smtp.Reply{Code: 421, Enhanced: code(4, 7, 0), Text: "Too many commands without mail"}},
	endLongLine:     {"long_line", slog.LevelInfo, smtp.Reply{}},
	endBareLF:       {"bare_lf", slog.LevelInfo, smtp.Reply{Code: 500, Enhanced: code(5, 5, 2), Text: "Lines must end with CR LF"}},
	endFraming:      {"framing", slog.LevelInfo, smtp.Reply{Code: 501, Enhanced: code(5, 5, 4), Text: "Syntax: BDAT and a size, then LAST or nothing"}},
	endUnawaited:    {"unawaited", slog.LevelInfo, smtp.Reply{}},
	endEarly:        {"early", slog.LevelInfo, smtp.Reply{Code: 554, Enhanced: code(5, 5, 0), Text: "Client talks before the greeting"}},
	endForeign:      {"foreign", slog.LevelInfo, smtp.Reply{Code: 554, Enhanced: code(5, 5, 0), Text: "This is an SMTP server"}},
	endPanic:        {"panic", slog.LevelError, smtp.Reply{Code: 421, Enhanced: code(4, 3, 0), Text: "Local error, try again later"}},
}
