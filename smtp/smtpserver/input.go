package smtpserver

import (
	"bytes"
	"errors"
	"os"
	"sync"
	"time"
)

// Sizes of the buffer a session reads commands into. The small one is all that an idle session holds. The large one
// takes what a client pipelined behind a message, which was read with the message, and is given back when it is empty.
const (
	smallInput = 4 << 10
	largeInput = 64 << 10
)

var largeInputs = sync.Pool{New: func() any { return new([largeInput]byte) }}

// input is what was read and not yet understood: buf[r:w].
type input struct {
	buf, small []byte
	r, w       int
}

func newInput(line int) input {
	small := make([]byte, max(smallInput, line))
	return input{buf: small, small: small}
}

func (in *input) buffered() []byte { return in.buf[in.r:in.w] }

// unread keeps p, which lies elsewhere, to be understood next. The buffer must be empty.
func (in *input) unread(p []byte) {
	in.r, in.w = 0, 0
	if len(p) == 0 {
		return
	}
	if len(p) > len(in.buf) {
		in.release()
		in.buf = largeInputs.Get().(*[largeInput]byte)[:]
	}
	in.w = copy(in.buf, p)
}

// release returns to the small buffer. The buffer must be empty.
func (in *input) release() {
	if len(in.buf) == largeInput && len(in.small) != largeInput {
		largeInputs.Put((*[largeInput]byte)(in.buf))
	}
	in.buf = in.small
	in.r, in.w = 0, 0
}

// widen makes room for a line of n octets; what is buffered stays.
func (in *input) widen(n int) {
	if len(in.buf) >= n {
		return
	}
	buf := make([]byte, n)
	in.w = copy(buf, in.buffered())
	in.r, in.buf = 0, buf
}

// space makes room behind what is buffered and returns it; it is empty only if a whole buffer is waiting.
func (in *input) space() []byte {
	switch {
	case in.r == in.w:
		in.release()
	case in.r > 0 && in.w == len(in.buf):
		in.w = copy(in.buf, in.buf[in.r:in.w])
		in.r = 0
	}
	return in.buf[in.w:]
}

// tlsHandshake begins the records of a TLS client (RFC 8446, 5.1), and no command.
const tlsHandshake = 0x16

// readLine returns the next command line without its end. The line lies in the buffer and is valid until the next read.
//
// A line that is longer than the limit is answered as soon as that is known, and skipped. An LF without CR ends the
// session: a client that sends such lines is not understood, and what stands behind the LF must not be taken for a
// command.
func (s *session) readLine() (line []byte, e ending) {
	searched := 0 // octets behind r that have no LF
	limit := s.terms.CommandLine
	tooLong := replyLineTooLong
	var w wait
	for {
		data := s.in.buffered()
		if s.state == stateConnected && len(data) > 0 && data[0] == tlsHandshake {
			return nil, endForeign // whose line may never end
		}
		i := bytes.IndexByte(data[searched:], '\n')
		if len(data) >= limit && limit < maxAuthLine && (i < 0 || searched+i >= limit) && s.mayBeLong(data) {
			limit, tooLong = maxAuthLine, replyAuthTooLong
			s.in.widen(maxAuthLine)
			continue
		}
		if i >= 0 && searched+i < limit {
			end := searched + i
			s.in.r += end + 1
			switch {
			case end > 0 && data[end-1] == '\r':
				return data[:end-1], goOn
			case s.server.options.Normalize:
				return data[:end], goOn
			}
			return nil, endBareLF
		}
		searched = len(data)
		if searched >= limit {
			if e := s.refuse(tooLong); e != goOn {
				return nil, e
			}
			return nil, s.skipLine(w)
		}
		now := time.Now()
		if w.until.IsZero() {
			w = s.patience(now, s.terms.CommandTimeout)
		}
		s.waiting.Store(!s.state.inTransaction())
		n, e := s.read(s.in.space(), now, w)
		if e != goOn {
			return nil, e
		}
		s.waiting.Store(false)
		s.in.w += n
	}
}

// maxSkipped bounds how much of a line that was too long is skipped in the hope of its end.
const maxSkipped = 1 << 20

// skipLine reads to the end of a line that is too long, in the buffer that it fills.
func (s *session) skipLine(w wait) ending {
	for skipped := 0; skipped < maxSkipped; {
		data := s.in.buffered()
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			s.in.r += i + 1
			if i > 0 && data[i-1] == '\r' || s.server.options.Normalize {
				return goOn
			}
			return endBareLF
		}
		if n := len(data) - 1; n > 0 { // the last octet stays: it may be the CR of the end
			s.in.r += n
			skipped += n
		}
		now := time.Now()
		if w.until.IsZero() {
			w = s.patience(now, s.terms.CommandTimeout)
		}
		n, e := s.read(s.in.space(), now, w)
		if e != goOn {
			return e
		}
		s.in.w += n
	}
	return endLongLine
}

// wait is how long to wait for the client. The deadline of the connection may be late by slack: setting it anew at each
// read costs more than it is worth.
type wait struct {
	until time.Time
	slack time.Duration
}

// patience is a wait of d from now, shortened while the server is nearly full.
func (s *session) patience(now time.Time, d time.Duration) wait {
	if s.server.gate.crowded(s.terms.Sessions) {
		d = min(d, max(d/10, 10*time.Second))
	}
	return wait{until: now.Add(d), slack: d / 8}
}

// read is the only place that waits for the client. What was answered so far leaves before (RFC 2920, 3.2), so that a
// group of commands is answered in one write.
func (s *session) read(p []byte, now time.Time, w wait) (int, ending) {
	if e := s.flush(now); e != goOn {
		return 0, e
	}
	for {
		if late := w.until.Add(w.slack); s.armed.Before(w.until) || s.armed.After(late) {
			if late.After(s.expires) {
				late = s.expires
			}
			if s.armed != late {
				s.armed = late
				if err := s.conn.SetReadDeadline(late); err != nil {
					return 0, s.lost(err)
				}
			}
		}
		// Whoever drains sets the flag first and then the deadline, so one of the two is seen.
		if s.serving.draining.Load() && s.waiting.Load() {
			return 0, endDrain
		}
		n, err := s.conn.Read(p)
		switch {
		case n > 0:
			return n, goOn
		case err == nil:
			continue
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return 0, s.lost(err)
		}
		switch now = time.Now(); {
		case s.serving.draining.Load() && s.waiting.Load():
			return 0, endDrain
		case !now.Before(s.expires):
			return 0, endAge
		case !now.Before(w.until):
			return 0, endTimeout
		}
		s.armed = time.Time{} // a drain woke this session, whose time has not come
	}
}
