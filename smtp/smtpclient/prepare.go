package smtpclient

import (
	"strings"
	"time"

	"github.com/godwit-mta/godwit/smtp"
)

// prepare decides what needs no peer: which parameters the message needs, and who cannot be sent at all.
func (c *Conn) prepare(t *Transaction) {
	c.line, c.awaited, c.active = c.line[:0], c.awaited[:0], c.active[:0]
	c.body = pieces(c.body, t.Body)
	c.tx = transaction{t: t, result: &t.Result, from: t.From, ext: c.ext, tail: lastLine(c.body)}
	tx := &c.tx
	eightBit := false
	if t.Body != nil {
		tx.size = t.Body.Size() + int64(len(tx.tail))
		eightBit = t.Body.EightBit
	}
	if eightBit {
		tx.from.Body = smtp.Body8BitMIME
	} else {
		tx.from.Body = smtp.Body7Bit
	}

	utf8, extra := t.HeaderUTF8 || t.From.NeedsUTF8(), t.From.UTF8 || !t.From.IsASCII()
	for i := range t.Recipients {
		if !t.Recipients[i].IsASCII() {
			extra = true
			break
		}
	}
	// Declared whenever there is a cause and the peer knows it; without it, U-labels leave as A-labels.
	tx.from.UTF8 = c.ext.SMTPUTF8 && (utf8 || extra)
	tx.ext.SMTPUTF8 = tx.from.UTF8

	switch {
	case t.From.NeedsUTF8() && !c.ext.SMTPUTF8:
		c.refuseAll(needUTF8, ErrNeedUTF8)
		return
	case t.HeaderUTF8 && !c.ext.SMTPUTF8:
		c.refuseAll(needUTF8Header, ErrNeedUTF8)
		return
	case eightBit && !c.ext.EightBitMIME && !c.o.Allow8Bit:
		c.refuseAll(need8Bit, ErrNeed8BitMIME)
		return
	case t.From.RequireTLS && (c.tls == nil || !c.ext.RequireTLS):
		c.refuseAll(needTLS, ErrNeedTLS)
		return
	case c.ext.Size > 0 && tx.size > c.ext.Size:
		c.refuseAll(tooLarge, ErrTooLarge)
		return
	case !oneLine(t.From.Local, t.From.Domain):
		c.refuseAll(badSender, ErrAddress)
		return
	}
	for i := range t.Recipients {
		switch r := &t.Recipients[i]; {
		case r.NeedsUTF8() && !c.ext.SMTPUTF8:
			c.refuse(&t.Result.Recipients[i], needUTF8, ErrNeedUTF8)
		case !oneLine(r.Local, r.Domain, r.Original.Type):
			c.refuse(&t.Result.Recipients[i], badRecipient, ErrAddress)
		default:
			c.active = append(c.active, i)
		}
	}
}

// Our own replies, where the peer need not be asked. Which code tells that an address, and which that the header needs
// SMTPUTF8, is RFC 6531, 3.5.
var (
	needUTF8       = ourReply(553, 6, 7, "peer does not take internationalised addresses")
	needUTF8Header = ourReply(550, 6, 9, "peer does not take internationalised mail, and the header is UTF-8")
	need8Bit       = ourReply(554, 6, 3, "peer does not take 8-bit mail")
	needTLS        = ourReply(550, 7, 30, "REQUIRETLS support required")
	tooLarge       = ourReply(552, 3, 4, "message is larger than the peer takes")
	badSender      = ourReply(553, 1, 7, "sender address is malformed")
	badRecipient   = ourReply(553, 1, 3, "recipient address is malformed")
)

func ourReply(code int, subject, detail uint16, text string) smtp.Reply {
	return smtp.Reply{Code: code, Enhanced: smtp.EnhancedCode{Class: 5, Subject: subject, Detail: detail}, Text: text}
}

func (c *Conn) refuseAll(reply smtp.Reply, cause error) {
	for i := range c.tx.result.Recipients {
		c.refuse(&c.tx.result.Recipients[i], reply, cause)
	}
}

func (c *Conn) refuse(r *RecipientResult, reply smtp.Reply, cause error) {
	*r = RecipientResult{Reply: reply, Phase: PhaseMail, Status: Refused, Err: cause}
	c.tx.refused = true
}

// oneLine reports whether all of s fits into one line: an address that smuggled a line end this far must not become a
// command of its own. What goes out encoded (ENVID, the address of ORCPT) needs no look.
func oneLine(words ...string) bool {
	for _, s := range words {
		if strings.IndexByte(s, '\n') >= 0 || strings.IndexByte(s, '\r') >= 0 {
			return false
		}
	}
	return true
}

// conclude gives every recipient its final state and lets go of the transaction.
func (c *Conn) conclude(err *Error) {
	tx := &c.tx
	tx.result.Done = time.Now()
	for _, i := range c.active {
		r := &tx.result.Recipients[i]
		switch {
		case refusal(tx.result.Mail): // what RCPT got after that (503, for one) says nothing of the recipient
			*r = RecipientResult{Reply: tx.result.Mail, Phase: PhaseMail, Status: Refused}
		case r.Status != Unsent:
		case refusal(tx.data) && r.taken():
			*r = RecipientResult{Reply: tx.data, Phase: PhaseData, Status: Refused}
		case err != nil && tx.left: // even at 421 in the middle: a peer that says so and goes on has the message
			*r = RecipientResult{Phase: err.Phase, Status: Unknown, Err: err}
		case err != nil:
			*r = RecipientResult{Phase: err.Phase, Err: err}
		default: // not sent, as the peer wants no more
			*r = RecipientResult{Phase: PhaseRcpt, Status: TooMany}
		}
	}
	if cap(c.line) > keptLineCap {
		c.line = nil
	}
	clear(c.body)
	*tx = transaction{}
}
