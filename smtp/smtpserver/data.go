package smtpserver

import (
	"context"
	"time"

	"github.com/godwit-mta/godwit/smtp"
)

// maxChunks bounds the BDATs of a message: a client that cuts it finer has no honest reason.
const maxChunks = 1 << 16

// tinyChunk is the size below which a refused chunk counts as a bad command.
const tinyChunk = 1 << 10

// data takes a message that ends with a lone dot (RFC 5321, 4.1.1.4).
func (s *session) data(ctx context.Context, _ []byte) ending {
	if s.state != stateRcpt {
		return s.refuseData()
	}
	if s.beginBody(true); s.tx.scan.flaw != flawNone { // sooner than after it was sent in vain
		s.noteFlaw(s.tx.scan.flaw)
		s.tell(s.tx.env, flaws[s.tx.scan.flaw].reply)
		s.drop(stateReady)
		return s.reply(flaws[flawMemory].reply)
	}
	if e := s.reply(replyData); e != goOn {
		return e
	}
	if e := s.receiveData(); e != goOn {
		return e
	}
	return s.deliver(ctx)
}

// refuseData answers DATA where it has no place. Among chunks it breaks the transaction (RFC 3030, 2); otherwise its
// final reply ends the transaction.
func (s *session) refuseData() ending {
	switch {
	case s.state == stateConnected:
		return s.refuse(replyHelloFirst)
	case s.state >= stateChunks:
		s.drop(stateBroken)
	case s.state == stateMail && s.tx.tried > 0:
		s.drop(stateReady)
		return s.excuse(replyNoRecipients)
	default:
		s.drop(stateReady)
	}
	return s.refuse(replySequence)
}

// bdat takes a chunk (RFC 3030, 2). The octets behind the command are read whatever the answer is, so that they are
// never taken for commands; if their number cannot be read the session ends.
func (s *session) bdat(ctx context.Context, args []byte) ending {
	n, last, ok := parseChunk(args)
	if !ok {
		return endFraming
	}
	switch s.state {
	case stateRcpt:
		s.beginBody(false)
		s.setState(stateChunks)
	case stateChunks:
	default:
		return s.refuseChunk(n, last)
	}
	if s.tx.chunks++; s.tx.chunks > maxChunks {
		s.tx.scan.find(flawChunks)
	}
	if n > s.terms.MessageBytes-s.tx.scan.size {
		s.tx.scan.find(flawSize)
	}
	if e := s.receiveChunk(n); e != goOn {
		return e
	}
	switch {
	case last:
		s.endChunks()
		return s.deliver(ctx)
	case s.tx.scan.flaw != flawNone:
		f := s.tx.scan.flaw
		s.noteFlaw(f)
		s.drop(stateBroken)
		return s.reply(flaws[f].reply)
	}
	return s.reply(replyChunk)
}

// refuseChunk reads over a chunk that has no place and answers it. The last one ends the transaction, such as it is.
func (s *session) refuseChunk(n int64, last bool) ending {
	if e := s.skip(n); e != goOn {
		return e
	}
	from, tried := s.state, s.tx.tried > 0
	switch {
	case from < stateMail:
	case last:
		s.drop(stateReady)
	default:
		s.drop(stateBroken)
	}
	switch {
	case from == stateConnected:
		return s.refuse(replyHelloFirst)
	case from == stateMail && tried:
		return s.excuse(replyNoRecipients)
	case from == stateBroken && n >= tinyChunk: // was on its way when the first was refused
		return s.reply(replySequence)
	}
	return s.refuse(replySequence)
}

// parseChunk parses the arguments of BDAT: a decimal number and perhaps LAST.
func parseChunk(args []byte) (n int64, last, ok bool) {
	i := 0
	for ; i < len(args) && '0' <= args[i] && args[i] <= '9'; i++ {
		if n = 10*n + int64(args[i]-'0'); n > maxInput {
			return 0, false, false
		}
	}
	if i == 0 {
		return 0, false, false
	}
	if i == len(args) {
		return n, false, true
	}
	if args[i] != ' ' {
		return 0, false, false
	}
	for i < len(args) && args[i] == ' ' {
		i++
	}
	word := args[i:]
	last = len(word) == 4 && word[0]|0x20 == 'l' && word[1]|0x20 == 'a' && word[2]|0x20 == 's' && word[3]|0x20 == 't'
	return n, last, last
}

func (s *session) beginBody(stuffed bool) {
	s.tx.body = s.server.options.Memory.NewBody()
	s.tx.scan = scanner{stuffed: stuffed, limits: &s.terms.Limits}
	s.window = window{}
	// What the client announced is counted from here on: a few large messages that fit are worth more than many that
	// are refused half-way.
	if !s.tx.body.Reserve(max(1, s.tx.env.From.Size)) {
		s.tx.scan.find(flawMemory)
	}
}

// endChunks completes a message that came in chunks. Its last line gets the CRLF that wire form asks for.
func (s *session) endChunks() {
	if s.server.options.Normalize && s.tx.clean.place == afterCR {
		s.tx.clean.place = inLine // the CR was bare and is dropped
	}
	if s.tx.scan.finish() {
		s.put([]byte("\r\n"))
	}
}

// receiveData reads until the end of data. What was read with it and lies behind it stays to be understood next.
func (s *session) receiveData() ending {
	if data := s.in.buffered(); len(data) > 0 {
		used, done := s.take(data)
		s.in.r += used
		if done {
			return goOn
		}
	}
	if s.server.options.Normalize {
		return s.receiveNormalized()
	}
	for {
		free := s.tx.body.Free()
		n, e := s.receive(free)
		if e != goOn {
			return e
		}
		kept, used, done := s.tx.scan.scan(free[:n])
		if done {
			s.in.unread(free[used:n]) // before free may go back to its pool
		}
		s.grow(kept)
		if done {
			return goOn
		}
		if e := s.slowDown(n); e != goOn {
			return e
		}
	}
}

// receiveNormalized is receiveData through a buffer of its own, since normalizing changes the number of octets.
func (s *session) receiveNormalized() ending {
	buf := largeInputs.Get().(*[largeInput]byte)
	defer largeInputs.Put(buf)
	for {
		n, e := s.receive(buf[:])
		if e != goOn {
			return e
		}
		if used, done := s.take(buf[:n]); done {
			s.in.unread(buf[used:n])
			return goOn
		}
		if e := s.slowDown(n); e != goOn {
			return e
		}
	}
}

// receiveChunk reads n octets of a message.
func (s *session) receiveChunk(n int64) ending {
	if data := s.in.buffered(); len(data) > 0 {
		data = data[:min(int64(len(data)), n)]
		s.take(data)
		s.in.r += len(data)
		n -= int64(len(data))
	}
	if s.server.options.Normalize && n > 0 {
		return s.receiveNormalizedChunk(n)
	}
	for n > 0 {
		free := s.tx.body.Free()
		k, e := s.receive(free[:min(int64(len(free)), n)])
		if e != goOn {
			return e
		}
		kept, _, _ := s.tx.scan.scan(free[:k])
		s.grow(kept)
		if e := s.slowDown(k); e != goOn {
			return e
		}
		n -= int64(k)
	}
	return goOn
}

func (s *session) receiveNormalizedChunk(n int64) ending {
	buf := largeInputs.Get().(*[largeInput]byte)
	defer largeInputs.Put(buf)
	for n > 0 {
		k, e := s.receive(buf[:min(int64(len(buf)), n)])
		if e != goOn {
			return e
		}
		s.take(buf[:k])
		if e := s.slowDown(k); e != goOn {
			return e
		}
		n -= int64(k)
	}
	return goOn
}

// take copies octets that lie elsewhere into the body, cleaned if that is asked for. It stops behind the end of data.
func (s *session) take(p []byte) (used int, done bool) {
	if s.server.options.Normalize {
		var clean [1 << 10]byte
		for used < len(p) && !done {
			n, from, _ := s.tx.clean.next(clean[:], p[used:], s.tx.scan.stuffed)
			var kept int
			kept, _, done = s.tx.scan.scan(clean[:n])
			s.put(clean[:kept])
			used += from
		}
		return used, done
	}
	for used < len(p) && !done {
		free := s.tx.body.Free()
		n := copy(free, p[used:])
		var kept int
		kept, n, done = s.tx.scan.scan(free[:n])
		s.grow(kept)
		used += n
	}
	return used, done
}

// put adds a copy of p to the body.
func (s *session) put(p []byte) {
	for {
		n := copy(s.tx.body.Free(), p)
		s.grow(n)
		if p = p[n:]; len(p) == 0 {
			return
		}
	}
}

// grow adds octets that lie in the body's free space to it. Octets of a flawed message are left there to be
// overwritten, and those kept before are given back at once.
func (s *session) grow(kept int) {
	if s.tx.scan.flaw == flawNone {
		s.tx.body.Extend(kept)
		if !s.tx.body.Over() {
			return
		}
		s.tx.scan.find(flawMemory)
	}
	if !s.tx.scrap {
		s.tx.scrap = true
		s.tx.body.Release()
		s.tx.body = smtp.NewBody()
	}
}

// deliver judges the message and, if it is in order, hands it over. The envelope is empty afterwards, whatever the
// reply (RFC 5321, 4.1.1.4).
func (s *session) deliver(ctx context.Context) ending {
	if f := s.tx.scan.flaw; f != flawNone {
		s.noteFlaw(f)
		s.tell(s.tx.env, flaws[f].reply)
		s.drop(stateReady)
		return s.reply(flaws[f].reply)
	}
	if s.finalHeld { // its client must not wait for this message's journal to know of the last one
		if e := s.flush(time.Now()); e != goOn {
			return e
		}
	}
	env, body := s.tx.env, s.tx.body
	body.Trim()
	body.EightBit, body.DotLine = s.tx.scan.eightBit, s.tx.scan.dotLine
	size := s.tx.scan.size
	s.tx.env = nil // the backend's from here on; nothing is left to reset
	r, e := s.answer(s.backend.Data(ctx, env, body), replyAccepted)
	s.finalHeld = true
	s.server.metrics.message(r)
	if r.Positive() {
		s.server.metrics.bytes.Add(float64(size))
		s.messages++
		s.idle = 0
	}
	s.clear(stateReady)
	return e
}

func (s *session) noteFlaw(f flaw) {
	s.server.metrics.flaws[f].Inc()
	s.server.metrics.message(flaws[f].reply)
	s.log.Info("message has a flaw", "flaw", flaws[f].word, "client", s.peer.Remote.String(),
		"hello", s.peer.Hello, "sender", s.tx.env.From.String(), "reply", flaws[f].reply.String())
}

// window is a span in which a minimum of octets must arrive.
type window struct {
	wait
	bytes int64
	least int64
}

// receive reads octets of a message. A client that drips them loses the session at the end of the span in which too few
// came.
func (s *session) receive(p []byte) (int, ending) {
	w := &s.window
	for {
		now := time.Now()
		if !now.Before(w.until) {
			if w.bytes < w.least {
				return 0, endSlow
			}
			w.wait, w.bytes = s.patience(now, s.terms.DataTimeout), 0
			w.least = max(1, int64(w.until.Sub(now).Seconds()*float64(s.terms.MinDataRate)))
		}
		n, e := s.read(p, now, w.wait)
		if e != endTimeout {
			w.bytes += int64(n)
			return n, e
		}
	}
}

// Speed at which octets are read that are thrown away: a flood must not cost more than this.
const (
	skipRate  = 16 << 20 // octets a second
	skipBurst = 1 << 20
)

// throttle is how much was thrown away since when.
type throttle struct {
	since time.Time
	bytes int64
}

// slowDown waits if n octets that were read are thrown away and come faster than skipRate.
func (s *session) slowDown(n int) ending {
	if s.tx.scan.flaw == flawNone && s.tx.body != nil {
		return goOn
	}
	t := &s.throttle
	now := time.Now()
	if t.since.IsZero() {
		t.since = now
	}
	t.bytes += int64(n)
	ahead := time.Duration(float64(t.bytes-skipBurst)/skipRate*float64(time.Second)) - now.Sub(t.since)
	if ahead < time.Millisecond {
		return goOn
	}
	timer := time.NewTimer(ahead)
	defer timer.Stop()
	select {
	case <-timer.C:
		return goOn
	case <-s.serving.ctx.Done():
		return endAbort
	}
}

// skip reads n octets and throws them away.
func (s *session) skip(n int64) ending {
	s.window = window{}
	k := min(int64(len(s.in.buffered())), n)
	s.in.r += int(k)
	for n -= k; n > 0; n -= k {
		space := s.in.space()
		got, e := s.receive(space[:min(int64(len(space)), n)])
		if e != goOn {
			return e
		}
		if e := s.slowDown(got); e != goOn {
			return e
		}
		k = int64(got)
	}
	return goOn
}
