package smtptest

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"time"
)

// lineState is how far the octets read so far have come into a line end.
type lineState uint8

const (
	inLine    lineState = iota
	afterCR             // CR was the last octet
	lineStart           // CRLF were the last, or nothing was read yet
)

var (
	endOfData   = []byte("\r\n.\r\n")
	stuffedLine = []byte("\r\n.")
)

// data answers DATA and takes the message that follows.
func (s *session) data(p *play, rest []byte) {
	usual := "354 go ahead, end with a dot"
	switch {
	case len(rest) > 0:
		usual = "501 5.5.4 DATA takes no parameter"
	case !s.tx.open || s.tx.chunks:
		usual = "503 5.5.1 MAIL first"
	case len(s.tx.recipients) == 0:
		usual = "554 5.5.1 no valid recipients"
	}
	if s.act(AtData, s.tx.from, usual)/100 != 3 {
		return
	}
	s.begin()
	s.tx.state = lineStart
	if s.readData(p) {
		s.complete(p, false)
	}
}

// begin prepares the hash before the first octet of a message.
func (s *session) begin() {
	if s.sink.o.Hash {
		s.newSum()
	}
}

// readData reads up to CRLF.CRLF and nothing else (RFC 5321, 4.1.1.4). It reports false if the session ended
// before.
func (s *session) readData(p *play) bool {
	watch := s.watchBody(p)
	begun := false // something before the buffered octets was taken
	for {
		in := s.buffer[s.r:s.w]
		if !begun && bytes.HasPrefix(in, endOfData[2:]) {
			s.r += 3
			return true
		}
		if i := bytes.Index(in, endOfData); i >= 0 {
			if !s.take(in[:i+2], true, watch) {
				return false
			}
			s.r += i + len(endOfData)
			return true
		}
		// What may be the begin of the end stays.
		keep := len(endOfData) - 1
		if n := len(in) - keep; n > 0 && (begun || len(in) >= len(endOfData)) {
			if !s.take(in[:n], true, watch) {
				return false
			}
			s.r += n
			begun = true
		}
		if !s.fill() {
			return false
		}
	}
}

// bdat answers BDAT (RFC 3030, 2). The octets are taken whatever the answer is.
func (s *session) bdat(p *play, rest []byte) {
	word, last, _ := bytes.Cut(rest, []byte{' '})
	n, err := strconv.ParseInt(string(word), 10, 64)
	isLast := bytes.EqualFold(bytes.TrimSpace(last), []byte("LAST"))
	if err != nil || n < 0 || len(last) > 0 && !isLast || !p.offers["CHUNKING"] {
		// The chunk cannot be told from commands any more.
		s.refuse("501 5.5.4 bad BDAT")
		s.flush()
		s.err = errBadChunk
		return
	}
	if r := p.ruleAt(AtData, s.tx.from, s.count(AtData), s.sink.chance); r != nil && r.wire == nil {
		if s.obey(r, ""); s.err != nil {
			return
		}
	}
	if !s.tx.chunks {
		s.begin()
	}
	valid := s.tx.open && len(s.tx.recipients) > 0 && !s.tx.failed
	s.tx.chunks = s.tx.open
	if !s.readChunk(p, n, valid) {
		return
	}
	switch {
	case !s.tx.open:
		s.say("503 5.5.1 MAIL first")
	case !valid:
		s.tx.failed = true
		s.say("554 5.5.1 no valid recipients")
	case isLast:
		s.complete(p, true)
	default:
		s.say("250 2.0.0 chunk taken")
	}
}

func (s *session) readChunk(p *play, n int64, valid bool) bool {
	watch := bodyWatch{}
	if valid {
		watch = s.watchBody(p)
	}
	for n > 0 {
		if s.r == s.w && !s.fill() {
			return false
		}
		k := int(min(n, int64(s.w-s.r)))
		if valid && !s.take(s.buffer[s.r:s.r+k], false, watch) {
			return false
		}
		s.r += k
		n -= int64(k)
	}
	return true
}

// bodyWatch is a rule that acts within a body, and where.
type bodyWatch struct {
	rule *runningRule
	at   int64
}

func (s *session) watchBody(p *play) bodyWatch {
	r := p.ruleAt(AtBody, s.tx.from, s.count(AtBody), s.sink.chance)
	if r == nil {
		return bodyWatch{}
	}
	at := r.Octets
	if r.Percent > 0 {
		at = s.tx.size * int64(r.Percent) / 100
	}
	w := bodyWatch{r, at}
	if at == 0 {
		s.fireBody(w)
	}
	return w
}

// fireBody lets a rule act within a body. What it says comes unasked; a rule that does not end the session delays
// it.
func (s *session) fireBody(w bodyWatch) {
	s.obey(w.rule, "")
	s.flush()
}

// take takes octets of a body, dots of stuffing included if stuffed is set. It reports false if a rule ended the
// session.
func (s *session) take(p []byte, stuffed bool, watch bodyWatch) bool {
	if s.err != nil {
		return false
	}
	if watch.rule != nil && s.tx.read < watch.at && s.tx.read+int64(len(p)) >= watch.at {
		s.fireBody(watch)
		if s.err != nil {
			return false
		}
	}
	s.tx.read += int64(len(p))
	if !stuffed {
		s.store(p)
		return true
	}
	for len(p) > 0 {
		if s.tx.state == lineStart && p[0] == '.' {
			p = p[1:]
			s.tx.state = inLine
			continue
		}
		if s.tx.state == afterCR && p[0] == '\n' {
			s.store(p[:1])
			p = p[1:]
			s.tx.state = lineStart
			continue
		}
		i := bytes.Index(p, stuffedLine)
		if i < 0 {
			s.store(p)
			switch {
			case bytes.HasSuffix(p, endOfData[:2]):
				s.tx.state = lineStart
			case p[len(p)-1] == '\r':
				s.tx.state = afterCR
			default:
				s.tx.state = inLine
			}
			return true
		}
		s.store(p[:i+2])
		p = p[i+3:]
		s.tx.state = inLine
	}
	return true
}

// store counts the octets of a message, hashes and keeps them as asked.
func (s *session) store(p []byte) {
	s.tx.octets += int64(len(p))
	o := &s.sink.o
	if n := headOctets - len(s.tx.head); n > 0 {
		s.tx.head = append(s.tx.head, p[:min(n, len(p))]...)
	}
	if limit := s.play().Size; limit > 0 && s.tx.octets > limit {
		s.tx.tooBig = true
		return
	}
	if o.Hash {
		s.sum.Write(p)
	}
	if o.Keep || o.KeepBody || o.Maildir != "" {
		s.tx.body = append(s.tx.body, p...)
	}
}

// complete answers a message that is there to its last octet, and reports it.
func (s *session) complete(p *play, chunking bool) {
	c := &s.sink.counters
	if p.Rate > 0 && p.RateReply == "" {
		if d := s.sink.pace.wait(p.Rate, false); d > 0 {
			c.limited.Add(1)
			s.flush()
			if !sleep(s.ctx, d) {
				s.err = s.ctx.Err()
				return
			}
		}
	}
	usual := "250 2.0.0 taken as " + strconv.FormatUint(s.id, 10) + "." + strconv.Itoa(s.transactions)
	var stored string
	if s.tx.tooBig {
		usual = "552 5.3.4 message too large"
	} else if s.sink.maildir != nil {
		var err error
		if stored, err = s.sink.maildir.store(s.tx.body); err != nil {
			s.sink.o.Logger.Error("message not stored", "error", err)
			usual = "451 4.3.0 not stored"
		}
	}
	came := time.Now()
	report := s.report(chunking)
	s.replied = false
	accepted := s.final(p, usual, report)
	if accepted > 0 {
		c.messages.Add(1)
		c.deliveries.Add(int64(accepted))
		c.octets.Add(s.tx.octets)
		c.ages.note(s.tx.head, came)
	} else {
		c.refused.Add(1)
		s.sink.maildir.remove(stored)
	}
	if report != nil {
		s.flush()
		report.Accepted = accepted > 0
		report.Replied = s.err == nil || s.replied
		if s.sink.o.Keep && report.Accepted {
			s.sink.keep(report)
		}
		if s.sink.o.OnMessage != nil {
			s.sink.o.OnMessage(report)
		}
	}
	s.reset()
}

// final gives the final reply, or with LMTP one for each recipient, and returns how many recipients it accepts.
func (s *session) final(p *play, usual string, report *Received) (accepted int) {
	nth := s.count(AtFinal)
	if !p.LMTP {
		code := s.conclude(s.tx.from, nth, usual, report)
		if code/100 == 2 {
			accepted = len(s.tx.recipients)
		}
		return accepted
	}
	for _, r := range s.tx.recipients {
		if s.err != nil { // the others get none
			if report != nil {
				report.Replies = append(report.Replies, "")
			}
			continue
		}
		if s.conclude([]byte(r.address), nth, usual, report)/100 == 2 {
			accepted++
		}
	}
	return accepted
}

func (s *session) conclude(address []byte, nth int, usual string, report *Received) int {
	reply := usual
	code := 0
	if r := s.play().ruleAt(AtFinal, address, nth, s.sink.chance); r == nil {
		s.say(usual)
		code = replyCode(usual)
	} else {
		code = s.obey(r, usual)
		switch {
		case r.wire != nil:
			reply = strings.TrimRight(string(r.wire), "\r\n")
		case code == 0:
			reply = ""
		}
	}
	if report != nil {
		report.Replies = append(report.Replies, reply)
	}
	return code
}

// report describes the message, if anybody wants to know.
func (s *session) report(chunking bool) *Received {
	o := &s.sink.o
	if o.OnMessage == nil && !o.Keep {
		return nil
	}
	m := &Received{
		Session: s.id, Transaction: s.transactions, Time: time.Now(), Remote: s.peer, Hello: s.hello, TLS: s.secure, User: s.user,
		From: string(s.tx.from), Parameters: string(s.tx.parameters), Size: s.tx.octets, Body: s.tx.body,
		Chunking:   chunking,
		Recipients: make([]string, len(s.tx.recipients)), RecipientParameters: make([]string, len(s.tx.recipients)),
	}
	for i, r := range s.tx.recipients {
		m.Recipients[i], m.RecipientParameters[i] = r.address, r.parameters
	}
	if o.Hash {
		m.Hash = s.hash()
	}
	return m
}

var errBadChunk = errors.New("BDAT that cannot be framed")
