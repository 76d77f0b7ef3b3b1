package smtpclient

import (
	"bytes"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/godwit-mta/godwit/smtp"
)

// Bounds of a reply. RFC 5321, 4.5.3.1.5 allows 512 octets a line; what is longer is cut, what is more than
// readable is read and dropped, what does not end breaks the session.
const (
	keptLine    = 512
	keptReply   = 4 << 10
	maxReply    = 512 << 10
	readBuffer  = 4 << 10
	maxNoBytes  = 16 // reads that return nothing before the connection counts as broken
	maxQuotedIn = 32 // octets of nonsense shown in an error
)

// protocolError says how a peer broke the protocol.
type protocolError string

func (e protocolError) Error() string { return string(e) }

// replyReader cuts replies (RFC 5321, 4.2) from what a peer sends. It is strict where a guess could take one reply
// for another, and lenient elsewhere: the code decides alone, text may be anything, a line may end with LF only.
type replyReader struct {
	src  io.Reader
	wait func() // called once a reply, before the first read that may block

	buf    []byte
	r, w   int
	octets int  // of the current reply
	waited bool // wait was called for the current reply
	text   []byte
}

func newReplyReader(src io.Reader, wait func()) replyReader {
	return replyReader{src: src, wait: wait, buf: make([]byte, readBuffer)}
}

// buffered returns the octets that are read and not consumed.
func (r *replyReader) buffered() int { return r.w - r.r }

// read reads one reply. With plain set no enhanced code is looked for, as in the replies to the connection and to
// EHLO (RFC 2034, 3). memory holds the text of the last reply of the kind: peers repeat themselves, and the same
// words need not be allocated again.
func (r *replyReader) read(plain bool, memory *string) (smtp.Reply, error) {
	r.octets, r.waited, r.text = 0, false, r.text[:0]
	var reply smtp.Reply
	for first := true; ; first = false {
		line, err := r.line()
		if err != nil {
			return smtp.Reply{}, err
		}
		code, text, more, err := splitLine(line)
		if err != nil {
			return smtp.Reply{}, err
		}
		if !first && code/100 != reply.Code/100 {
			// Either class may be the true one: to bounce on it or to forget the message would both be a guess.
			return smtp.Reply{}, protocolError(fmt.Sprintf("lines of one reply say both %d and %d", reply.Code, code))
		}
		reply.Code = code
		r.keep(text, first, plain, &reply)
		if !more {
			break
		}
	}
	if string(r.text) != *memory {
		*memory = string(r.text)
	}
	reply.Text = *memory
	return reply, nil
}

// keep adds the text of a line to the reply's text, as far as there is room.
func (r *replyReader) keep(line []byte, first, plain bool, reply *smtp.Reply) {
	if !plain {
		enhanced, rest, ok := cutEnhanced(line, reply.Code/100)
		if ok && (reply.Enhanced.IsZero() || reply.Enhanced == enhanced) {
			reply.Enhanced, line = enhanced, rest
		}
	}
	room := keptReply - len(r.text)
	if !first {
		if room <= 1 {
			return
		}
		r.text = append(r.text, '\n')
		room--
	}
	if len(line) > room {
		line = line[:room]
	}
	r.text = appendClean(r.text, line)
}

// line returns the next line without its end, cut to keptLine octets. The slice is good until the next call.
func (r *replyReader) line() ([]byte, error) {
	searched, idle := 0, 0
	for {
		if i := bytes.IndexByte(r.buf[r.r+searched:r.w], '\n'); i >= 0 {
			line := r.buf[r.r : r.r+searched+i]
			r.r += searched + i + 1
			r.octets += searched + i + 1
			if r.octets > maxReply {
				return nil, protocolError("reply does not end")
			}
			if len(line) > keptLine {
				line = line[:keptLine]
			}
			for len(line) > 0 && line[len(line)-1] == '\r' {
				line = line[:len(line)-1]
			}
			return line, nil
		}
		if r.octets+r.buffered() > maxReply {
			return nil, protocolError("reply does not end")
		}
		r.makeRoom()
		searched = r.buffered()
		if !r.waited {
			r.waited = true
			r.wait()
		}
		n, err := r.src.Read(r.buf[r.w:])
		r.w += n
		if n > 0 {
			idle = 0
			continue
		}
		if err == nil {
			if idle++; idle >= maxNoBytes {
				return nil, io.ErrNoProgress
			}
			continue
		}
		if err == io.EOF && (r.octets > 0 || r.buffered() > 0) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
}

// makeRoom leaves room to read into: it moves what is unread to the front, and of a line that fills the buffer it
// keeps the part that line returns. It is called only when what is unread holds no line end.
func (r *replyReader) makeRoom() {
	if r.w < len(r.buf) {
		return
	}
	if r.r > 0 {
		r.w = copy(r.buf, r.buf[r.r:r.w])
		r.r = 0
	}
	if r.w == len(r.buf) {
		r.octets += r.w - keptLine
		r.w = keptLine
	}
}

// splitLine takes a line of a reply apart (RFC 5321, 4.2.1). A code without text may end the line at once.
func splitLine(line []byte) (code int, text []byte, more bool, err error) {
	if len(line) < 3 || !isDigit(line[0]) || !isDigit(line[1]) || !isDigit(line[2]) ||
		len(line) > 3 && line[3] != ' ' && line[3] != '-' {
		return 0, nil, false, protocolError(fmt.Sprintf("not a reply: %q", line[:min(len(line), maxQuotedIn)]))
	}
	code = int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0')
	if code < 200 || code > 599 {
		return 0, nil, false, protocolError(fmt.Sprintf("reply code %d does not exist", code))
	}
	if len(line) > 3 {
		text, more = line[4:], line[3] == '-'
	}
	return code, text, more, nil
}

// cutEnhanced takes an enhanced code of the class from the begin of the text (RFC 2034, 4). One of another class is
// left in the text: the first digit of the reply decides, and the words remain for people to read.
func cutEnhanced(text []byte, class int) (code smtp.EnhancedCode, rest []byte, ok bool) {
	if len(text) < 5 || text[0] != '0'+byte(class) || text[1] != '.' || class == 3 {
		return code, text, false
	}
	subject, n := number(text[2:])
	if n == 0 || 2+n >= len(text) || text[2+n] != '.' {
		return code, text, false
	}
	i := 2 + n + 1
	detail, n := number(text[i:])
	if n == 0 || i+n < len(text) && text[i+n] != ' ' {
		return code, text, false
	}
	rest = bytes.TrimLeft(text[i+n:], " ")
	return smtp.EnhancedCode{Class: uint16(class), Subject: subject, Detail: detail}, rest, true
}

// number reads one to three digits (RFC 3463, 2).
func number(p []byte) (value uint16, n int) {
	for n < len(p) && isDigit(p[n]) {
		if n == 3 {
			return 0, 0
		}
		value = value*10 + uint16(p[n]-'0')
		n++
	}
	return value, n
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// appendClean appends text that goes into logs and reports: control characters become spaces, octets that are no
// UTF-8 become question marks.
func appendClean(dst, text []byte) []byte {
	clean := true
	for _, c := range text {
		if c < ' ' || c >= 0x7f {
			clean = false
			break
		}
	}
	if clean {
		return append(dst, text...)
	}
	for len(text) > 0 {
		c, n := utf8.DecodeRune(text)
		switch {
		case c == utf8.RuneError && n == 1:
			dst = append(dst, '?')
		case c < ' ' || c >= 0x7f && c < 0xa0:
			dst = append(dst, ' ')
		default:
			dst = append(dst, text[:n]...)
		}
		text = text[n:]
	}
	return dst
}
