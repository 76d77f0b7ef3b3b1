package smtpclient

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/godwit-mta/godwit/smtp"
)

// A group of commands is written before any of its replies is read. Its bounds keep the replies of a whole group
// well below what the sockets on both sides buffer, so that neither end can block the other (RFC 2920, 3.1).
const (
	groupCommands = 128
	groupOctets   = 16 << 10
	keptLineCap   = 4 << 10 // of the command buffer between transactions
)

// command is one that was sent or is about to be, and whose reply is awaited.
type command struct {
	verb  smtp.Verb
	index int // of the recipient
}

// commands is the memory of the transaction under way, kept from one to the next.
type commands struct {
	line    []byte    // commands not yet written
	awaited []command // in the order of the wire
	active  []int     // recipients that are to be sent
	body    [][]byte
	tx      transaction
}

// transaction is its state; resetting it is assigning the zero value.
type transaction struct {
	t        *Transaction
	result   *Result
	from     smtp.Sender
	ext      smtp.Extensions // as used for this message
	stop     func() bool     // detaches the context
	size     int64           // octets of the body
	tail     []byte          // what the body lacks to end its last line
	next     int             // of active, the first whose RCPT is not sent
	pending  int             // RCPTs awaited
	accepted int             // recipients taken by a 2yz reply
	refused  bool            // a command or recipient was refused
	full     bool            // the peer wants no more recipients
	data     smtp.Reply      // to DATA
	writeErr error           // writing broke: only replies already under way can be read
	left     bool            // the whole message has left
}

// Send sends one message and fills t.Result. An error, always an *Error, says that the session is over; the result
// of each recipient holds all the same. Without an error the session is in step, and Reusable tells whether it
// takes another.
//
// ctx interrupts it at any point before the last octet of the message has left. From then on the reply is awaited
// to the end of Timeouts.DataDone, since the peer may have taken the message over (RFC 5321, 4.5.3.2.6). A context
// that has ended before leaves the session untouched.
func (c *Conn) Send(ctx context.Context, t *Transaction) error {
	t.Result.begin(len(t.Recipients))
	c.prepare(t)
	var err *Error
	if len(c.active) > 0 {
		err = c.send(ctx)
	}
	c.conclude(err)
	if err != nil {
		return err
	}
	return nil
}

func (c *Conn) send(ctx context.Context) *Error {
	switch {
	case c.over != nil:
		return &Error{Phase: PhaseMail, Err: errors.Join(ErrClosed, c.over)}
	case !c.started || c.closed.Load():
		return &Error{Phase: PhaseMail, Err: ErrClosed}
	case c.unread() > 0:
		return c.unsolicited(PhaseMail)
	}
	stop, err := c.attach(ctx)
	if err != nil {
		return &Error{Phase: PhaseMail, Err: err}
	}
	defer c.detach(stop)
	c.tx.stop = stop
	eager := c.proven && c.mayBeEager()
	c.proven = false
	chunked, failed := c.envelope(eager)
	if failed != nil || chunked {
		return failed
	}
	return c.message()
}

func (c *Conn) pipelining() bool { return c.ext.Pipelining && !c.o.NoPipelining }

// chunking tells whether the body goes by BDAT. LMTP keeps to DATA, whose count of replies is beyond doubt.
func (c *Conn) chunking() bool { return c.ext.Chunking && !c.o.NoChunking && !c.o.LMTP }

func (c *Conn) mayBeEager() bool { return c.pipelining() && c.chunking() && c.tx.size <= c.o.Eager }

// envelope sends MAIL and RCPT and reads their replies; also DATA if it fits into the same group, and the body too
// if eager. done says that the transaction has had its final reply.
func (c *Conn) envelope(eager bool) (done bool, err *Error) {
	tx := &c.tx
	if c.needReset {
		if err := c.put(smtp.VerbRset, 0); err != nil {
			return false, err
		}
	}
	c.needReset = true
	c.transactions++
	if err := c.put(smtp.VerbMail, 0); err != nil {
		return false, err
	}
	for !tx.full && tx.next < len(c.active) && !refusal(tx.result.Mail) {
		if tx.next == c.ext.RcptMax && c.ext.RcptMax > 0 {
			break
		}
		tx.next++
		tx.pending++
		if err := c.put(smtp.VerbRcpt, c.active[tx.next-1]); err != nil {
			return false, err
		}
	}
	switch {
	case refusal(tx.result.Mail) || tx.accepted+tx.pending == 0:
		return false, c.exchange()
	case eager && tx.result.Mail.IsZero():
		return true, c.exchangeWhole()
	case c.pipelining() && !c.chunking():
		c.append(smtp.VerbData, 0)
	}
	return false, c.exchange()
}

// refusal reports a reply that refuses; no reply at all does not.
func refusal(r smtp.Reply) bool { return r.Temporary() || r.Permanent() }

// put adds a command to the group, and exchanges the group once it is full.
func (c *Conn) put(verb smtp.Verb, index int) *Error {
	c.append(verb, index)
	if !c.pipelining() || len(c.awaited) == groupCommands || len(c.line) >= groupOctets {
		return c.exchange()
	}
	return nil
}

func (c *Conn) append(verb smtp.Verb, index int) {
	tx := &c.tx
	switch verb {
	case smtp.VerbRset:
		c.line = append(c.line, "RSET\r\n"...)
	case smtp.VerbMail:
		c.line = smtp.AppendMail(c.line, tx.from, tx.size, tx.ext)
	case smtp.VerbRcpt:
		c.line = smtp.AppendRcpt(c.line, tx.t.Recipients[index], tx.ext)
	case smtp.VerbData:
		c.line = append(c.line, "DATA\r\n"...)
	}
	c.awaited = append(c.awaited, command{verb, index})
}

// exchange writes the group and reads its replies.
func (c *Conn) exchange() *Error {
	if len(c.line) > 0 {
		c.tx.writeErr = c.writeLine(c.o.Timeouts.Mail)
		c.line = c.line[:0]
	}
	if err := c.collect(); err != nil {
		return err
	}
	if c.tx.writeErr != nil {
		return c.fail(PhaseRcpt, c.tx.writeErr)
	}
	return nil
}

// collect reads the replies awaited. If writing broke, those that the peer sent before it left are still worth
// reading: a refusal for good is not to be taken for a broken connection.
func (c *Conn) collect() *Error {
	tx := &c.tx
	for _, a := range c.awaited {
		phase, memory, limit := c.table(a.verb)
		if tx.writeErr != nil {
			limit = min(limit, salvage)
		}
		reply, err := c.readReply(limit, memory, false)
		if err != nil {
			return c.fail(phase, cmp.Or(tx.writeErr, err))
		}
		if err := c.apply(a, phase, reply); err != nil {
			return err
		}
	}
	c.awaited = c.awaited[:0]
	return nil
}

// table says in which phase a verb is answered, and within which time.
func (c *Conn) table(v smtp.Verb) (phase Phase, memory int, limit time.Duration) {
	t := &c.o.Timeouts
	switch v {
	case smtp.VerbMail:
		return PhaseMail, memoryMail, t.Mail
	case smtp.VerbRcpt:
		return PhaseRcpt, memoryRcpt, t.Rcpt
	case smtp.VerbData:
		return PhaseData, memoryData, t.DataInit
	}
	return PhaseMail, memoryOther, t.Mail
}

// apply takes a reply into the result. An error says that the session ends with it.
func (c *Conn) apply(a command, phase Phase, reply smtp.Reply) *Error {
	tx := &c.tx
	intermediate := reply.Class() == 3
	switch a.verb {
	case smtp.VerbRset:
		if !reply.Positive() {
			if reply.Code == closing {
				return c.refused(phase, reply)
			}
			return c.fail(phase, protocolError("RSET refused: "+reply.String()))
		}
		c.needReset = false
		return nil
	case smtp.VerbMail:
		if intermediate {
			break
		}
		c.needReset = true
		tx.result.Mail = reply
		tx.result.MailDone = time.Now()
		tx.refused = tx.refused || !reply.Positive()
	case smtp.VerbRcpt:
		tx.pending--
		if intermediate {
			break
		}
		c.applyRcpt(&tx.result.Recipients[a.index], reply)
	case smtp.VerbData:
		tx.data = reply
		if reply.Positive() {
			return c.fail(phase, protocolError("DATA answered without asking for the data: "+reply.String()))
		}
		intermediate = false
		tx.refused = tx.refused || reply.Class() != 3
	}
	switch {
	case intermediate:
		return c.fail(phase, protocolError("reply out of place: "+reply.String()))
	case reply.Code == closing:
		return c.refused(phase, reply)
	}
	return nil
}

func (c *Conn) applyRcpt(r *RecipientResult, reply smtp.Reply) {
	r.Reply, r.Phase = reply, PhaseRcpt
	switch {
	case reply.Positive():
		c.tx.accepted++
	case c.tx.accepted > 0 && overLimit(reply):
		r.Status = TooMany
		c.tx.full, c.tx.refused = true, true
	default:
		r.Status = Refused
		c.tx.refused = true
	}
}

// overLimit tells a limit of the transaction from a refusal of the recipient. 452 is for both (RFC 5321, 4.2.3),
// and 552 was once used for the first (RFC 5321, 4.5.3.1.10); the enhanced code, if there is one, tells them apart:
// X.5.3 is the limit, X.3.z a system short of something, all others speak of the recipient (RFC 3463, 3.6).
func overLimit(r smtp.Reply) bool {
	e := r.Enhanced
	switch r.Code {
	case 450, 451, 452:
		return e.Subject == 5 && e.Detail == 3 || r.Code == 452 && (e.IsZero() || e.Subject == 3)
	case 552:
		return e.IsZero() || e.Subject == 5 && e.Detail == 3
	}
	return false
}
