package smtptest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"
)

const (
	sessionBuffer = 64 << 10
	longestLine   = 16 << 10
	mostBad       = 100
)

var sessionBuffers = sync.Pool{New: func() any { return new([sessionBuffer]byte) }}

// session is one connection to a sink.
type session struct {
	ctx  context.Context
	sink *Sink
	nc   net.Conn
	id   uint64
	peer string

	buffer *[sessionBuffer]byte
	r, w   int
	out    []byte
	err    error // the connection is over: nothing more is read or written

	replied bool // the last thing written before a rule ended the session was a whole reply

	hello        string
	secure       string // TLS in words
	user         string
	greeted      bool
	bad          int
	counts       map[Point]int // of points reached in the session
	transactions int
	tx           delivery
	sum          hash.Hash
}

// delivery is the transaction under way; resetting it is assigning the zero value.
type delivery struct {
	open       bool
	from       []byte
	parameters []byte
	size       int64 // declared
	tried      int   // RCPTs
	recipients []recipient
	chunks     bool // BDAT has begun
	tooBig     bool
	failed     bool // a chunk was refused
	octets     int64
	read       int64 // raw octets of the body
	state      lineState
	head       []byte // the begin of the message
	body       []byte
}

type recipient struct{ address, parameters string }

func newSession(ctx context.Context, s *Sink, nc net.Conn) *session {
	return &session{
		ctx: ctx, sink: s, nc: nc, id: s.ids.Add(1), peer: nc.RemoteAddr().String(),
		buffer: sessionBuffers.Get().(*[sessionBuffer]byte),
	}
}

func (s *session) release() { sessionBuffers.Put(s.buffer) }

func (s *session) play() *play { return s.sink.play.Load() }

// serve runs the dialog. open is how many sessions are open, this one included.
func (s *session) serve(open int64) {
	if s.sink.o.ImplicitTLS && !s.secureConn() {
		return
	}
	p := s.play()
	if p.Sessions > 0 && open > int64(p.Sessions) {
		s.sink.counters.limited.Add(1)
		s.say("421 4.3.2 too many sessions, try again later")
		s.flush()
		return
	}
	code := s.act(AtBanner, nil, "220 "+p.Hostname+" ESMTP sink ready")
	if code/100 != 2 {
		s.flush()
		return
	}
	for s.err == nil {
		line, ok := s.line()
		if !ok {
			break
		}
		s.command(line)
		if s.bad > mostBad {
			s.say("421 4.7.0 too many bad commands")
			break
		}
	}
	s.flush()
}

// line returns the next command line without its CRLF; the slice is good until the next read.
func (s *session) line() ([]byte, bool) {
	searched := 0
	for {
		if i := bytes.IndexByte(s.buffer[s.r+searched:s.w], '\n'); i >= 0 {
			line := s.buffer[s.r : s.r+searched+i]
			s.r += searched + i + 1
			if n := len(line); n > 0 && line[n-1] == '\r' && bytes.IndexByte(line[:n-1], '\r') < 0 {
				return line[:n-1], true
			}
			s.refuse("500 5.5.2 line does not end with CRLF")
			searched = 0
			if s.bad > mostBad {
				return nil, false
			}
			continue
		}
		searched = s.w - s.r
		if searched > longestLine {
			s.say("500 5.5.2 line too long")
			s.flush()
			return nil, false
		}
		if !s.fill() {
			return nil, false
		}
	}
}

// fill reads more, after it has written what is to be said: the replies to a group of commands leave together.
func (s *session) fill() bool {
	if s.err != nil {
		return false
	}
	s.flush()
	if s.r == s.w {
		s.r, s.w = 0, 0
	} else if s.w == len(s.buffer) {
		s.w = copy(s.buffer[:], s.buffer[s.r:s.w])
		s.r = 0
	}
	if s.err != nil || s.w == len(s.buffer) {
		return false
	}
	idle := time.Duration(s.play().Idle)
	if idle > 0 {
		if s.err = s.nc.SetReadDeadline(time.Now().Add(idle)); s.err != nil {
			return false
		}
	}
	n, err := s.nc.Read(s.buffer[s.w:])
	s.w += n
	if err != nil && n == 0 {
		if idle > 0 && errors.Is(err, os.ErrDeadlineExceeded) {
			s.sink.counters.dropped.Add(1)
			s.say("421 4.4.2 idle for too long")
			s.flush()
		}
		s.err = err
	}
	return n > 0
}

func (s *session) say(reply string) { s.out = append(append(s.out, reply...), '\r', '\n') }

func (s *session) flush() {
	if len(s.out) == 0 || s.err != nil {
		return
	}
	_, s.err = s.nc.Write(s.out)
	s.out = s.out[:0]
}

func (s *session) refuse(reply string) {
	s.bad++
	s.sink.counters.badCommands.Add(1)
	s.say(reply)
}

// act passes a point: it gives the usual reply, or does what a rule says. It returns the code of what was said, 0
// if that is none or the session is over. address is what rules match.
func (s *session) act(at Point, address []byte, usual string) int {
	return s.actNth(at, address, s.count(at), usual)
}

// count counts a point of the session, if any rule asks for it.
func (s *session) count(at Point) int {
	if len(s.play().rules[at]) == 0 {
		return 0
	}
	if s.counts == nil {
		s.counts = map[Point]int{}
	}
	s.counts[at]++
	return s.counts[at]
}

func (s *session) actNth(at Point, address []byte, nth int, usual string) int {
	if p := s.play(); len(p.rules[at]) > 0 {
		if r := p.ruleAt(at, address, nth, s.sink.chance); r != nil {
			return s.obey(r, usual)
		}
	}
	s.say(usual)
	return replyCode(usual)
}

// obey does what a rule says at a point where usual would be the reply, or none if that is empty.
func (s *session) obey(r *runningRule, usual string) int {
	if r.Delay > 0 {
		s.flush()
		if !sleep(s.ctx, time.Duration(r.Delay)) {
			s.err = context.Cause(s.ctx)
			return 0
		}
	}
	ends := r.Drop != "" || r.Stall || r.Cut > 0
	code, start := 0, len(s.out)
	switch {
	case r.wire != nil:
		code = r.code
		s.out = append(s.out, r.wire...)
	case usual != "" && (!ends || r.After || r.Cut > 0):
		code = replyCode(usual)
		s.say(usual)
	}
	if r.Cut > 0 {
		s.out = s.out[:min(start+r.Cut, len(s.out))]
	}
	if ends {
		s.leave(r, code != 0 && r.Cut == 0)
	}
	return code
}

// leave ends the session, or its talk, as a rule says. What was said before is written first.
func (s *session) leave(r *runningRule, replied bool) {
	s.flush()
	s.replied = replied && s.err == nil
	switch {
	case s.err != nil:
	case r.Stall:
		s.sink.counters.stalled.Add(1)
		if r.At != AtBody {
			_, _ = io.Copy(io.Discard, s.nc) // until the client leaves or the sink stops
		} else {
			<-s.ctx.Done()
		}
	case r.Drop == DropRST:
		s.sink.counters.dropped.Add(1)
		if tcp, ok := s.nc.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // Close resets then
		}
		_ = s.nc.Close()
	default:
		s.sink.counters.dropped.Add(1)
		s.closeInOrder()
	}
	s.err = net.ErrClosed
}

// closeInOrder sends FIN. To close with octets unread would send a reset, so the rest is read for a moment.
func (s *session) closeInOrder() {
	const moment = 100 * time.Millisecond
	if half, ok := s.nc.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		if s.nc.SetReadDeadline(time.Now().Add(moment)) == nil {
			_, _ = io.Copy(io.Discard, s.nc)
		}
	}
	_ = s.nc.Close()
}

// command answers one command.
func (s *session) command(line []byte) {
	verb, rest, _ := bytes.Cut(line, []byte{' '})
	if s.extended(verb, rest) {
		return
	}
	var word [4]byte
	if len(verb) == 4 {
		for i, c := range verb {
			if 'a' <= c && c <= 'z' {
				c -= 'a' - 'A'
			}
			word[i] = c
		}
	}
	p := s.play()
	switch string(word[:]) {
	case "EHLO", "LHLO":
		if string(word[:]) == "LHLO" != p.LMTP || !p.offers["ESMTP"] && !p.LMTP {
			s.refuse("500 5.5.1 unknown command")
			return
		}
		s.greet(AtEhlo, rest, string(bytes.TrimSuffix(s.greeting(p), []byte("\r\n"))))
	case "HELO":
		if p.LMTP {
			s.refuse("500 5.5.1 unknown command")
			return
		}
		s.greet(AtHelo, rest, "250 "+p.Hostname)
	case "MAIL":
		s.mail(p, rest)
	case "RCPT":
		s.rcpt(p, rest)
	case "DATA":
		s.data(p, rest)
	case "BDAT":
		s.bdat(p, rest)
	case "RSET":
		s.reset()
		s.act(AtRset, nil, "250 2.0.0 reset")
	case "NOOP":
		s.act(AtNoop, nil, "250 2.0.0 ok")
	case "QUIT":
		s.act(AtQuit, nil, "221 2.0.0 bye")
		s.flush()
		s.err = io.EOF
	default:
		s.refuse("500 5.5.1 unknown command")
	}
}

func (s *session) greet(at Point, name []byte, usual string) {
	s.hello = string(name)
	s.reset()
	s.greeted = s.act(at, name, usual)/100 == 2
}

func (s *session) reset() {
	s.tx = delivery{from: s.tx.from[:0], parameters: s.tx.parameters[:0], recipients: s.tx.recipients[:0],
		head: s.tx.head[:0]}
}

func (s *session) mail(p *play, rest []byte) {
	from, parameters, ok := cutPath(rest, "FROM:")
	c := &s.sink.counters
	switch {
	case !ok:
		s.refuse("501 5.5.4 syntax: MAIL FROM:<address>")
		return
	case !s.greeted:
		s.refuse("503 5.5.1 EHLO first")
		return
	case len(s.sink.o.Users) > 0 && s.user == "":
		s.refuse("530 5.7.0 log in first")
		return
	case s.tx.open:
		s.refuse("503 5.5.1 transaction is open")
		return
	case p.SessionMessages > 0 && s.transactions >= p.SessionMessages:
		c.limited.Add(1)
		s.say("421 4.7.0 too many messages in this session")
		s.flush()
		s.err = io.EOF
		return
	}
	s.reset()
	s.tx.size = declaredSize(parameters)
	usual := "250 2.1.0 ok"
	switch {
	case p.Size > 0 && s.tx.size > p.Size:
		c.limited.Add(1)
		usual = "552 5.3.4 message too large"
	case p.RateReply != "" && s.sink.pace.wait(p.Rate, true) > 0:
		c.limited.Add(1)
		usual = p.RateReply
	}
	if s.act(AtMail, from, usual)/100 != 2 {
		return
	}
	s.transactions++
	c.transactions.Add(1)
	s.tx.open = true
	s.tx.from = append(s.tx.from, from...)
	s.tx.parameters = append(s.tx.parameters, parameters...)
}

func (s *session) rcpt(p *play, rest []byte) {
	to, parameters, ok := cutPath(rest, "TO:")
	c := &s.sink.counters
	switch {
	case !ok || len(to) == 0:
		s.refuse("501 5.5.4 syntax: RCPT TO:<address>")
		return
	case s.tx.chunks:
		s.refuse("503 5.5.1 chunks have begun")
		return
	}
	usual := "250 2.1.5 ok"
	switch {
	case !s.tx.open:
		usual = "503 5.5.1 MAIL first"
	case p.Recipients > 0 && len(s.tx.recipients) >= p.Recipients:
		c.limited.Add(1)
		usual = "452 4.5.3 too many recipients"
	case p.Greylist > 0 && !s.sink.grey.passes(s.triplet(to), time.Duration(p.Greylist)):
		c.greylisted.Add(1)
		usual = "450 4.7.1 greylisted, try again later"
	}
	s.tx.tried++
	code := s.actNth(AtRcpt, to, s.tx.tried, usual)
	switch {
	case code/100 == 2 && s.tx.open:
		c.recipients.Add(1)
		s.tx.recipients = append(s.tx.recipients, recipient{string(to), string(parameters)})
	case code >= 400:
		c.rejected.Add(1)
	}
}

// triplet is what greylisting goes by.
func (s *session) triplet(to []byte) string {
	host, _, err := net.SplitHostPort(s.peer)
	if err != nil {
		host = s.peer
	}
	return host + "\x00" + string(s.tx.from) + "\x00" + string(to)
}

// cutPath takes "FROM:<a@b> PARAMETERS" apart. What stands between the brackets is not looked into.
func cutPath(rest []byte, word string) (address, parameters []byte, ok bool) {
	if len(rest) < len(word)+2 || !bytes.EqualFold(rest[:len(word)], []byte(word)) || rest[len(word)] != '<' {
		return nil, nil, false
	}
	rest = rest[len(word)+1:]
	quoted := false
	for i := 0; i < len(rest); i++ {
		switch c := rest[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case c == '>' && !quoted:
			if i+1 < len(rest) && rest[i+1] != ' ' {
				return nil, nil, false
			}
			return rest[:i], bytes.TrimLeft(rest[i+1:], " "), true
		}
	}
	return nil, nil, false
}

func declaredSize(parameters []byte) int64 {
	for field := range bytes.FieldsSeq(parameters) {
		if len(field) > 5 && bytes.EqualFold(field[:5], []byte("SIZE=")) {
			n, err := strconv.ParseInt(string(field[5:]), 10, 64)
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}

// newSum returns the session's hash, made new.
func (s *session) newSum() hash.Hash {
	if s.sum == nil {
		s.sum = sha256.New()
	}
	s.sum.Reset()
	return s.sum
}

func (s *session) hash() string { return hex.EncodeToString(s.sum.Sum(nil)) }
