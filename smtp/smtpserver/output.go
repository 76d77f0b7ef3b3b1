package smtpserver

import (
	"io"
	"net"
	"time"

	"github.com/godwit-mta/godwit/smtp"
)

// maxOutput is how much of replies is held back: a client that sends commands without end gets answers in writes of
// this size.
const maxOutput = 4 << 10

// reply appends a reply of the engine. It is written before the session next waits.
func (s *session) reply(r smtp.Reply) ending {
	s.server.metrics.reply(s.verb, r.Code)
	s.out = r.AppendTo(s.out)
	if s.transcript {
		s.log.Log(s.serving.ctx, LevelTranscript, "server says", "reply", r.String())
	}
	if len(s.out) >= maxOutput {
		return s.flush(time.Now())
	}
	return goOn
}

// send appends a reply that lies ready in wire form.
func (s *session) send(code int, wire []byte) ending {
	s.server.metrics.reply(s.verb, code)
	s.out = append(s.out, wire...)
	if s.transcript {
		s.log.Log(s.serving.ctx, LevelTranscript, "server says", "reply", string(wire))
	}
	return goOn
}

// answer sends a reply of the backend, or def for a zero one, and returns what was sent. Code 421 ends the session.
func (s *session) answer(r, def smtp.Reply) (smtp.Reply, ending) {
	switch {
	case r.IsZero():
		r = def
	case r.Code == hangUp:
		return r, endAbort
	case r.Code < 200 || r.Code > 599 || r.Class() == 3 || !cleanText(r.Text):
		s.log.Error("backend gave a reply that is none", "reply", r.String())
		r = replyLocalError
	}
	e := s.reply(r)
	if r.Code == 421 && e == goOn {
		e = endBackend
	}
	return r, e
}

// cleanText reports printable lines separated by LF. UTF-8 is left in peace.
func cleanText(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\n' || c == 0x7f {
			return false
		}
	}
	return len(s) <= 4<<10
}

// refuse answers a command that is wrong in form or order, and counts it. What only follows from a MAIL that was
// refused, in a group sent before the client could know, counts less.
func (s *session) refuse(r smtp.Reply) ending {
	if s.orphans > 0 && s.state == stateReady && (s.verb == smtp.VerbRcpt || s.verb == smtp.VerbData || s.verb == smtp.VerbBdat) {
		s.orphans--
		return s.refused(r)
	}
	if s.bad++; s.bad > s.terms.BadCommands {
		_ = s.reply(r)
		return endBadCommands
	}
	return s.refused(r)
}

// excuse answers a command that could not succeed because of earlier refusals, and counts it as bringing no mail.
func (s *session) excuse(r smtp.Reply) ending {
	if e := s.refused(r); e != goOn {
		return e
	}
	return s.spendIdle()
}

// refused sends the reply. A client whose DATA is refused and that did not wait for the answer has sent its message
// already, and the next line is part of it: nothing of it may be taken for a command, so the session ends.
func (s *session) refused(r smtp.Reply) ending {
	e := s.reply(r)
	if e == goOn && s.verb == smtp.VerbData && len(s.in.buffered()) > 0 {
		return endUnawaited
	}
	return e
}

// flush writes what is held back.
func (s *session) flush(now time.Time) ending {
	if len(s.out) == 0 {
		return goOn
	}
	if until := now.Add(s.terms.WriteTimeout); s.writeArmed.Before(until) {
		s.writeArmed = until.Add(s.terms.WriteTimeout / 8)
		if err := s.conn.SetWriteDeadline(s.writeArmed); err != nil {
			return s.lost(err)
		}
	}
	_, err := s.conn.Write(s.out)
	s.out = s.out[:0]
	s.finalHeld = false
	if err != nil {
		return s.lost(err)
	}
	return goOn
}

// Bounds of the wait for the client's end of a connection that the server ends.
const (
	lingerTime  = time.Second
	lingerBytes = 256 << 10
)

// hangUp closes the connection, at once or so that the last reply arrives.
func (s *session) hangUp(atOnce bool) {
	if s.conn != s.wire && !s.mute { // TLS: its end is told, so that nothing looks cut off (RFC 8446, 6.1)
		if half, ok := s.conn.(interface{ CloseWrite() error }); ok {
			_ = s.wire.SetWriteDeadline(time.Now().Add(lingerTime))
			_ = half.CloseWrite()
		}
	}
	if atOnce {
		_ = s.wire.Close()
		return
	}
	linger(s.wire)
}

// linger closes c so that the last reply arrives: octets that were sent and not read would make the kernel reset the
// connection and drop it. The client is given a moment to see the reply and close.
func linger(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_ = c.SetReadDeadline(time.Now().Add(lingerTime))
		_, _ = io.CopyN(io.Discard, c, lingerBytes)
	}
	_ = c.Close()
}

// lost notes a connection that failed and tells why it did.
func (s *session) lost(err error) ending {
	s.failure = err
	if s.serving.ctx.Err() != nil {
		return endAbort
	}
	return endLost
}
