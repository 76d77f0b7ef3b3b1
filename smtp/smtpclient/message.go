package smtpclient

import (
	"bytes"
	"cmp"
	"strconv"
	"time"

	"github.com/godwit-mta/godwit/smtp"
)

// message sends the body once the envelope's replies are in, and reads the final reply.
func (c *Conn) message() *Error {
	tx := &c.tx
	switch {
	case tx.accepted == 0 || refusal(tx.result.Mail):
		return c.abandon()
	case c.chunking():
		return c.sendChunk()
	case tx.data.IsZero():
		c.append(smtp.VerbData, 0)
		if err := c.exchange(); err != nil {
			return err
		}
	}
	if refusal(tx.data) {
		return nil // conclude gives it to those who were accepted
	}
	return c.sendData()
}

// abandon ends a transaction that nobody is to get. A peer that asks for the data all the same gets a lone dot
// (RFC 2920, 3.1); but not one that took a recipient after it had refused the sender: to that one even a lone dot
// might be a message.
func (c *Conn) abandon() *Error {
	tx := &c.tx
	if tx.data.Class() != 3 {
		return nil
	}
	if tx.accepted > 0 {
		return c.fail(PhaseData, protocolError("data asked for after the sender was refused"))
	}
	reply, err := c.say(PhaseFinal, c.o.Timeouts.DataInit, ".", false)
	if err != nil {
		return c.fail(PhaseFinal, err)
	}
	if reply.Code == closing {
		return c.refused(PhaseFinal, reply)
	}
	return nil
}

// sendData sends the body in answer to 354, with dots stuffed if it needs it, and the dot that ends it
// (RFC 5321, 4.5.2).
func (c *Conn) sendData() *Error {
	tx := &c.tx
	if c.reader.buffered() > 0 { // a word between 354 and the data: a farewell, or a peer out of step
		return c.unsolicited(PhaseBody)
	}
	c.startBody()
	if tx.t.Body != nil && tx.t.Body.DotLine {
		lineStart := true
		for _, p := range c.body {
			lineStart = c.writer.addStuffed(p, lineStart)
		}
	} else {
		c.writer.addAll(c.body)
	}
	c.writer.add(tx.tail)
	body := c.writer.offered
	c.writer.add(endOfData)
	c.writer.flush()
	tx.result.Bytes = min(c.writer.sent, body)
	if err := c.bodyLeft(); err != nil {
		return err
	}
	return c.final()
}

var endOfData = []byte(".\r\n")

// sendChunk sends the body as one chunk (RFC 3030, 2).
func (c *Conn) sendChunk() *Error {
	if c.reader.buffered() > 0 {
		return c.unsolicited(PhaseBody)
	}
	c.startBody()
	c.writeChunk()
	if err := c.bodyLeft(); err != nil {
		return err
	}
	return c.final()
}

// exchangeWhole sends the group and the body in one write, then reads all replies.
func (c *Conn) exchangeWhole() *Error {
	tx := &c.tx
	c.startBody()
	c.writeChunk()
	if tx.writeErr = c.writer.err; tx.writeErr == nil {
		c.left()
	}
	if err := c.collect(); err != nil {
		return err
	}
	if err := c.final(); err != nil {
		return err
	}
	if c.unread() > 0 && !c.reader.begins(farewell) {
		// One of the replies was one too many, so the one taken for the final one may have been another's.
		for i := range tx.result.Recipients {
			if r := &tx.result.Recipients[i]; r.Status == Delivered {
				*r = RecipientResult{}
			}
		}
		return c.fail(PhaseFinal, ErrUnsolicited)
	}
	return nil
}

var farewell = []byte("421")

func (c *Conn) startBody() {
	c.tx.result.DataStarted = time.Now()
	c.blockLimit = c.o.Timeouts.DataBlock
	c.writer.begin()
}

// writeChunk sends the commands not yet written, BDAT and the body.
func (c *Conn) writeChunk() {
	tx := &c.tx
	c.line = append(c.line, "BDAT "...)
	c.line = strconv.AppendInt(c.line, tx.size, 10)
	c.line = append(c.line, " LAST\r\n"...)
	c.logLine()
	c.writer.add(c.line)
	c.writer.addAll(c.body)
	c.writer.add(tx.tail)
	c.writer.flush()
	tx.result.Bytes = max(0, c.writer.sent-int64(len(c.line))) // of the body
	c.line = c.line[:0]
}

// bodyLeft follows the write of a body. If that broke, the peer may have said why before it closed: such a refusal
// counts.
func (c *Conn) bodyLeft() *Error {
	tx := &c.tx
	if c.writer.err == nil {
		c.left()
		return nil
	}
	reply, err := c.readReply(min(c.o.Timeouts.DataDone, salvage), memoryFinal, false)
	if err != nil || !refusal(reply) {
		return c.fail(PhaseBody, c.writer.err)
	}
	for _, i := range c.active {
		if r := &tx.result.Recipients[i]; r.taken() {
			*r = RecipientResult{Reply: reply, Phase: PhaseBody, Status: Refused}
		}
	}
	if reply.Code == closing {
		return c.refused(PhaseBody, reply)
	}
	return c.fail(PhaseBody, c.writer.err)
}

// left marks the point of no return: the peer has, or will have, all it needs to take the message over.
func (c *Conn) left() {
	c.tx.left = true
	c.tx.result.DataSent = time.Now()
	c.detach(c.tx.stop)
}

// final reads what the peer says to the whole message: one reply, or with LMTP one for each accepted recipient, in
// the order of their RCPTs (RFC 2033, 4.2).
func (c *Conn) final() *Error {
	tx := &c.tx
	limit := c.o.Timeouts.DataDone
	if tx.writeErr != nil {
		limit = min(limit, salvage)
	}
	var reply smtp.Reply
	for _, i := range c.active {
		r := &tx.result.Recipients[i]
		if !r.taken() {
			continue
		}
		if reply.IsZero() || c.o.LMTP {
			var err error
			if reply, err = c.readReply(limit, memoryFinal, false); err != nil {
				return c.fail(PhaseFinal, cmp.Or(tx.writeErr, err))
			}
			if reply.Class() == 3 || reply.Positive() && !tx.left {
				return c.fail(PhaseFinal, protocolError("reply out of place: "+reply.String()))
			}
		}
		*r = RecipientResult{Reply: reply, Phase: PhaseFinal, Status: Refused}
		if reply.Positive() {
			r.Status = Delivered
		} else {
			tx.refused = true
		}
		if reply.Code == closing && c.o.LMTP {
			return c.refused(PhaseFinal, reply)
		}
	}
	if reply.IsZero() { // an eager body that nobody is to get; whatever the peer says to it delivers nothing
		var err error
		if reply, err = c.readReply(limit, memoryFinal, false); err != nil {
			return c.fail(PhaseFinal, cmp.Or(tx.writeErr, err))
		}
	}
	switch {
	case reply.Code == closing:
		return c.refused(PhaseFinal, reply)
	case tx.writeErr != nil:
		return c.fail(PhaseBody, tx.writeErr)
	}
	c.needReset = !reply.Positive() || tx.accepted == 0
	c.proven = !tx.refused && c.chunking()
	return nil
}

// begins reports whether what is buffered begins with p, as far as it goes.
func (r *replyReader) begins(p []byte) bool {
	b := r.buf[r.r:r.w]
	return bytes.HasPrefix(b, p[:min(len(p), len(b))])
}
