package smtpserver

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/proxyproto"
)

// stateSet is a set of states.
type stateSet uint8

func oneOf(list ...state) stateSet {
	var set stateSet
	for _, st := range list {
		set |= 1 << st
	}
	return set
}

func (set stateSet) has(st state) bool { return set&(1<<st) != 0 }

const anyState = stateSet(1<<states - 1)

// verbs says what each command is: where it is legal, whether it stands alone, whether it brings a message nearer, and
// what it does. RFC 5321, 4.1.4, has the order of commands; the table of states and verbs is tested whole in
// TestStateTable.
var verbs = [...]struct {
	legal stateSet
	alone bool // takes no arguments
	idle  bool // brings no message nearer: a budget of these is allowed between messages
	do    func(s *session, ctx context.Context, args []byte) ending
}{
	smtp.VerbUnknown:  {legal: anyState, do: (*session).unknown},
	smtp.VerbHelo:     {legal: anyState, idle: true, do: (*session).helo},
	smtp.VerbEhlo:     {legal: anyState, idle: true, do: (*session).ehlo},
	smtp.VerbMail:     {legal: oneOf(stateReady), do: (*session).mail},
	smtp.VerbRcpt:     {legal: oneOf(stateMail, stateRcpt), do: (*session).rcpt},
	smtp.VerbData:     {legal: anyState, alone: true, do: (*session).data},
	smtp.VerbBdat:     {legal: anyState, do: (*session).bdat},
	smtp.VerbRset:     {legal: anyState, alone: true, idle: true, do: (*session).rset},
	smtp.VerbNoop:     {legal: anyState, idle: true, do: (*session).noop},
	smtp.VerbVrfy:     {legal: anyState, idle: true, do: (*session).vrfy},
	smtp.VerbExpn:     {legal: anyState, do: (*session).notOffered},
	smtp.VerbHelp:     {legal: anyState, idle: true, do: (*session).help},
	smtp.VerbQuit:     {legal: anyState, alone: true, do: (*session).quit},
	smtp.VerbStartTLS: {legal: anyState, do: (*session).startTLS},
	smtp.VerbAuth:     {legal: anyState, do: (*session).auth},
	smtp.VerbXClient:  {legal: anyState, idle: true, do: (*session).xclient},
	smtp.VerbXForward: {legal: anyState, idle: true, do: (*session).xforward},
}

// command does one command.
func (s *session) command(ctx context.Context, line []byte) ending {
	verb, args, ok := smtp.ParseCommand(line)
	s.verb = verb
	if s.transcript {
		s.log.Log(ctx, LevelTranscript, "client says", "line", shown(verb, line))
	}
	if !s.rejection.IsZero() {
		return s.reject(s.rejection)
	}
	v := &verbs[verb]
	switch verb {
	case smtp.VerbBdat:
		return v.do(s, ctx, args) // octets follow whatever is wrong with it
	case smtp.VerbUnknown:
		args = line
	}
	if refusal := faultOf(line); refusal != nil {
		return s.refuse(*refusal)
	}
	switch {
	case !v.legal.has(s.state) && s.state == stateConnected:
		return s.refuse(replyHelloFirst)
	case !v.legal.has(s.state):
		return s.refuse(replySequence)
	case verb == smtp.VerbMail && !ok:
		return s.refuse(replyMailSyntax)
	case verb == smtp.VerbRcpt && !ok:
		return s.refuse(replyRcptSyntax)
	case v.alone && len(args) > 0:
		return s.refuse(replyNoArguments)
	}
	if v.idle {
		if e := s.spendIdle(); e != goOn {
			return e
		}
	}
	return v.do(s, ctx, args)
}

// spendIdle counts a command that brought no message nearer.
func (s *session) spendIdle() ending {
	if s.idle++; s.idle > s.terms.IdleCommands {
		return endIdleCommands
	}
	return goOn
}

// faultOf finds octets that no command may have.
func faultOf(line []byte) *smtp.Reply {
	ascii := true
	for _, c := range line {
		if c < ' ' || c == 0x7f {
			return &replyControls
		}
		ascii = ascii && c < utf8.RuneSelf
	}
	if !ascii && !utf8.Valid(line) {
		return &replyNotUTF8
	}
	return nil
}

// unknown refuses what is no command. A client that speaks HTTP, by mistake or because a browser was made to, is not
// let go on to lines that look like commands.
func (s *session) unknown(_ context.Context, line []byte) ending {
	word, rest, _ := bytes.Cut(line, []byte{' '})
	if bytes.Contains(rest, []byte("HTTP/")) {
		return endForeign
	}
	if s.state == stateConnected && proxyproto.Begins(append(line[:len(line):len(line)], "\r\n"...)) {
		return endForeign
	}
	switch string(word) {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "Host:":
		return endForeign
	}
	return s.refuse(replyUnknown)
}

func (s *session) notOffered(context.Context, []byte) ending { return s.refuse(replyNotOffered) }

func (s *session) helo(_ context.Context, args []byte) ending {
	if !s.hello(args, false) {
		return s.refuse(replyHelloSyntax)
	}
	return s.reply(smtp.Reply{Code: 250, Text: s.server.options.Hostname})
}

func (s *session) ehlo(_ context.Context, args []byte) ending {
	if !s.hello(args, true) {
		return s.refuse(replyHelloSyntax)
	}
	return s.sendHello()
}

// hello takes the client's name; a transaction that is open is dropped (RFC 5321, 4.1.4). Names that are no domain are
// taken, since real applications have such, but made harmless.
func (s *session) hello(args []byte, esmtp bool) bool {
	const longest = 255
	if len(args) == 0 || len(args) > longest || bytes.IndexByte(args, ' ') >= 0 {
		return false
	}
	if name := harmless(args); name != s.peer.Hello {
		s.peer.Hello = name
	}
	s.peer.ESMTP = esmtp
	s.drop(stateReady)
	return true
}

// harmless replaces all but the letters, digits and signs that names and literals have.
func harmless(name []byte) string {
	var b strings.Builder
	b.Grow(len(name))
	for _, c := range name {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9',
			c == '.', c == '-', c == '_', c == ':', c == '[', c == ']':
		default:
			c = '?'
		}
		b.WriteByte(c)
	}
	return b.String()
}

func (s *session) mail(ctx context.Context, args []byte) ending {
	s.orphans = s.terms.Recipients + 1
	from, err := smtp.ParseMail(s.keep(args))
	if !s.trusted {
		from.Auth = "" // anybody could claim to pass on an administrator's mail (RFC 4954, 5)
	}
	switch {
	case err != nil:
		s.tx = transaction{}
		s.tell(&smtp.Envelope{}, parseReply(err))
		return s.refuse(parseReply(err))
	case from.RequireTLS && s.peer.TLS == nil: // RFC 8689, 4.1
		s.tx = transaction{}
		return s.refuse(replyRequireTLS)
	case from.Size > s.terms.MessageBytes:
		s.tx = transaction{}
		s.tell(&smtp.Envelope{From: from}, flaws[flawSize].reply)
		return s.excuse(flaws[flawSize].reply)
	case !s.server.options.Memory.Room(from.Size): // sooner than after it was sent in vain
		s.tx = transaction{}
		return s.excuse(flaws[flawMemory].reply)
	}
	env := newEnvelope()
	env.From = from
	r, e := s.answer(s.backend.Mail(ctx, &env.From), replyMail)
	if e != goOn || !r.Positive() {
		s.tx = transaction{}
		if e == goOn {
			e = s.spendIdle()
		}
		return e
	}
	s.orphans = 0
	s.tx.env = env
	s.setState(stateMail)
	return goOn
}

func (s *session) rcpt(ctx context.Context, args []byte) ending {
	env := s.tx.env
	s.tx.tried++
	if len(env.Recipients) >= s.terms.Recipients || s.tx.tried > 2*s.terms.Recipients {
		return s.reply(replyManyRecipient)
	}
	to, err := smtp.ParseRcpt(s.keep(args), smtp.PathOptions{UTF8: env.From.UTF8})
	if err != nil {
		s.tell(env, parseReply(err))
		return s.refuse(parseReply(err))
	}
	// The recipient lies behind those accepted, so that the backend can be shown it where it will stay.
	env.Recipients = append(env.Recipients, to)
	n := len(env.Recipients) - 1
	slot := &env.Recipients[n]
	env.Recipients = env.Recipients[:n]
	r, e := s.answer(s.backend.Rcpt(ctx, env, slot), replyRcpt)
	if e != goOn || !r.Positive() {
		return e
	}
	env.Recipients = env.Recipients[:n+1]
	s.setState(stateRcpt)
	return goOn
}

// tell passes a refusal of the engine's own on to a backend that wants to know.
func (s *session) tell(env *smtp.Envelope, r smtp.Reply) {
	if k, ok := s.backend.(Refuser); ok {
		k.Refused(env, r)
	}
}

func (s *session) rset(context.Context, []byte) ending {
	s.drop(min(s.state, stateReady))
	return s.reply(replyHello)
}

func (s *session) noop(context.Context, []byte) ending { return s.reply(replyHello) }

func (s *session) vrfy(_ context.Context, args []byte) ending {
	if len(args) == 0 {
		return s.refuse(replyVrfySyntax)
	}
	return s.reply(replyVrfy)
}

func (s *session) help(context.Context, []byte) ending { return s.reply(replyHelp) }

func (s *session) quit(context.Context, []byte) ending {
	_ = s.reply(replyQuit)
	return endQuit
}

// parseReply is the reply to text that the parsers refused.
func parseReply(err error) smtp.Reply {
	if pe, ok := errors.AsType[*smtp.ParseError](err); ok {
		return pe.Reply()
	}
	return replyLocalError
}

// newEnvelope makes an envelope with room for the usual number of recipients in one piece of memory.
func newEnvelope() *smtp.Envelope {
	block := &struct {
		smtp.Envelope
		room [2]smtp.Recipient
	}{}
	block.Recipients = block.room[:0]
	return &block.Envelope
}

// keep copies p out of the input buffer. The copies of a transaction lie together, so that an envelope costs few
// allocations.
func (s *session) keep(p []byte) string {
	b := &s.tx.text
	if b.Cap()-b.Len() < len(p) {
		room := max(len(p), min(2*b.Cap(), 8<<10), 192)
		s.tx.text = strings.Builder{}
		b.Grow(room)
	}
	from := b.Len()
	b.Write(p)
	return b.String()[from:]
}
