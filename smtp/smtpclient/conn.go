package smtpclient

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/godwit-mta/godwit/smtp"
)

// Conn is the client's side of one session. Its methods belong to one goroutine at a time; only Close may be called
// from another.
//
// It takes a *net.TCPConn or *net.UnixConn as it is best: such a connection writes vectors, others get small slices
// gathered. The connection should buffer what is written to it as TCP does: a group of commands is written whole
// before its replies are read.
type Conn struct {
	nc     net.Conn  // the connection itself: deadlines, looks, the end
	wire   net.Conn  // what octets go through: nc, or tls once there is one
	tls    *tls.Conn // nil in the clear
	o      Options
	banner smtp.Reply
	ext    smtp.Extensions

	reader replyReader
	writer bodyWriter
	commands
	texts [memories]string // last reply text of each kind, see replyReader.read

	started      bool
	closed       atomic.Bool
	over         *Error // set once: the session is over
	needReset    bool   // a transaction was left open
	proven       bool   // the last transaction was accepted whole, its body by BDAT
	transactions int
	replyLimit   time.Duration // for the reply about to be read
	blockLimit   time.Duration // for the write about to be made

	mu struct {
		sync.Mutex
		ctx       context.Context // whose end interrupts reads and writes, nil if none does
		cancelled bool
	}
	interrupt func() // c.onDone
}

// memories count the kinds of replies whose texts are remembered.
const (
	memoryOther = iota
	memoryMail
	memoryRcpt
	memoryData
	memoryFinal
	memories
)

// New returns a session over nc, which belongs to it from now on. Nothing is read or written before Start.
func New(nc net.Conn, o Options) *Conn {
	c := &Conn{nc: nc, wire: nc, o: o.withDefaults()}
	c.reader = newReplyReader(nc, c.limitRead)
	c.writer = newBodyWriter(nc, c.limitWrite)
	c.interrupt = c.onDone
	return c
}

// Start reads the banner and says EHLO, or HELO to a peer that does not know it (RFC 5321, 3.2), all of it over TLS
// with [Options.ImplicitTLS]. An error is an *Error and leaves the session closed.
func (c *Conn) Start(ctx context.Context) error {
	if c.over != nil || c.started {
		return &Error{Phase: PhaseConnect, Err: ErrClosed}
	}
	stop, err := c.attach(ctx)
	if err != nil {
		return c.fail(PhaseConnect, err)
	}
	defer c.detach(stop)
	if c.o.ImplicitTLS != nil {
		if err := c.handshake(c.o.ImplicitTLS); err != nil {
			return err
		}
	}
	if err := c.greet(); err != nil {
		return err
	}
	if err := c.hello(); err != nil {
		return err
	}
	c.started = true
	return nil
}

// greet reads the banner (RFC 5321, 3.1).
func (c *Conn) greet() error {
	var err error
	if c.banner, err = c.readReply(c.o.Timeouts.Greeting, memoryOther, true); err != nil {
		return c.fail(PhaseGreeting, err)
	}
	if !c.banner.Positive() {
		return c.refused(PhaseGreeting, c.banner)
	}
	return nil
}

// hello introduces us and learns what the peer offers. It is a step of its own since it is to be repeated over a
// connection that was upgraded.
func (c *Conn) hello() error {
	c.ext = smtp.Extensions{}
	verb := "EHLO "
	if c.o.LMTP {
		verb = "LHLO "
	}
	reply, err := c.say(PhaseHello, c.o.Timeouts.Hello, verb+c.o.Hello, true)
	if err != nil {
		return err
	}
	if reply.Positive() {
		c.ext = smtp.ParseExtensions(reply.Text)
		return nil
	}
	if c.o.LMTP || !helloUnknown(reply) {
		return c.refused(PhaseHello, reply)
	}
	if reply, err = c.say(PhaseHello, c.o.Timeouts.Hello, "HELO "+c.o.Hello, true); err != nil {
		return err
	}
	if !reply.Positive() {
		return c.refused(PhaseHello, reply)
	}
	return nil
}

// helloUnknown tells a peer that does not know EHLO from one that does not want us.
func helloUnknown(r smtp.Reply) bool {
	switch r.Code {
	case 521, 554, 556: // RFC 7504
		return false
	}
	return r.Permanent()
}

// say sends one command alone and reads its reply.
func (c *Conn) say(phase Phase, limit time.Duration, command string, plain bool) (smtp.Reply, error) {
	if c.reader.buffered() > 0 {
		return smtp.Reply{}, c.unsolicited(phase)
	}
	c.line = append(append(c.line[:0], command...), '\r', '\n')
	writeErr := c.writeLine(limit)
	if writeErr != nil {
		limit = min(limit, salvage)
	}
	reply, err := c.readReply(limit, memoryOther, plain)
	if err != nil {
		return reply, c.fail(phase, cmp.Or(writeErr, err))
	}
	return reply, nil
}

// salvage bounds the wait for replies that a peer may have sent before it left. They are worth reading: a refusal
// explains, and may be for good.
const salvage = 5 * time.Second

// Extensions returns what the peer offered; nothing after HELO.
func (c *Conn) Extensions() smtp.Extensions { return c.ext }

// Banner returns the reply to the connection.
func (c *Conn) Banner() smtp.Reply { return c.banner }

// RemoteAddr returns the peer's address.
func (c *Conn) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

// LocalAddr returns our address.
func (c *Conn) LocalAddr() net.Addr { return c.nc.LocalAddr() }

// Transactions returns how many transactions were begun, by a MAIL that was sent.
func (c *Conn) Transactions() int { return c.transactions }

// Reusable reports whether another transaction may follow: the session is in step, and the peer's own limit is not
// reached (RFC 9422, MAILMAX).
func (c *Conn) Reusable() bool {
	if !c.started || c.over != nil || c.closed.Load() || c.reader.buffered() > 0 {
		return false
	}
	return c.ext.MailMax == 0 || c.transactions < c.ext.MailMax
}

// Alive reports whether an idle session still stands, as far as this side can see without asking: false if the peer
// has closed, or has said anything, which can only be a farewell. It costs one system call. A true answer is no
// promise.
func (c *Conn) Alive() bool {
	if !c.Reusable() {
		return false
	}
	if c.nc.SetReadDeadline(time.Time{}) != nil {
		return false
	}
	if c.tls != nil {
		return c.aliveOverTLS()
	}
	if raw, ok := c.nc.(syscall.Conn); ok {
		if quiet, known := isQuiet(raw); known {
			return quiet
		}
	}
	// A connection that cannot be peeked at is read from for an instant. What comes is kept, and tells the same.
	const instant = time.Millisecond
	if c.nc.SetReadDeadline(time.Now().Add(instant)) != nil {
		return false
	}
	c.reader.makeRoom()
	n, err := c.nc.Read(c.reader.buf[c.reader.w:])
	c.reader.w += n
	return n == 0 && errors.Is(err, os.ErrDeadlineExceeded)
}

// Quit says QUIT, waits for the reply, and closes (RFC 5321, 4.1.1.10). The session is over whatever it returns.
func (c *Conn) Quit(ctx context.Context) error {
	if !c.started || c.over != nil || c.closed.Load() {
		return c.Close()
	}
	stop, err := c.attach(ctx)
	if err != nil {
		return errors.Join(err, c.Close())
	}
	defer c.detach(stop)
	_, err = c.say(PhaseConnect, c.o.Timeouts.Quit, "QUIT", false)
	if err == nil && c.tls != nil {
		c.closeTLS()
	}
	return errors.Join(err, c.Close())
}

// Close closes the connection without a word. It may be called more than once, and from any goroutine.
func (c *Conn) Close() error {
	c.closed.Store(true)
	if err := c.nc.Close(); err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.ErrClosedPipe) {
		return err
	}
	return nil
}

// fail ends the session for a cause that is no reply.
func (c *Conn) fail(phase Phase, err error) *Error {
	if c.over != nil {
		return c.over
	}
	e := &Error{Phase: phase, Err: err}
	if cause := c.cancelCause(); cause != nil {
		e.Err = cause
	} else if _, ok := errors.AsType[protocolError](err); ok || errors.Is(err, ErrUnsolicited) {
		e.Protocol = true
	}
	return c.end(e)
}

// refused ends the session for a reply.
func (c *Conn) refused(phase Phase, reply smtp.Reply) *Error {
	if class := reply.Class(); class == 2 || class == 3 {
		return c.fail(phase, protocolError("reply out of place: "+reply.String()))
	}
	return c.end(&Error{Phase: phase, Reply: reply})
}

// unsolicited ends the session for a reply that no command asked for: a farewell (421) if it is one, else a peer
// out of step.
func (c *Conn) unsolicited(phase Phase) *Error {
	if reply, err := c.readReply(time.Millisecond, memoryOther, false); err == nil && reply.Code == closing {
		return c.refused(phase, reply)
	}
	return c.fail(phase, ErrUnsolicited)
}

// closing is the code by which a peer may end a session at any point (RFC 5321, 3.8 and 4.2.3).
const closing = 421

func (c *Conn) end(e *Error) *Error {
	c.over = e
	_ = c.Close() // the session is over for a better reason than what closing may say
	return e
}

// attach makes the end of ctx interrupt what blocks, until detach.
func (c *Conn) attach(ctx context.Context) (stop func() bool, err error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if ctx.Done() == nil {
		return nil, nil
	}
	c.mu.Lock()
	c.mu.ctx = ctx
	c.mu.Unlock()
	return context.AfterFunc(ctx, c.interrupt), nil
}

// detach undoes attach. It may be called again without effect.
func (c *Conn) detach(stop func() bool) {
	if stop == nil {
		return
	}
	stop()
	c.mu.Lock()
	c.mu.ctx, c.mu.cancelled = nil, false
	c.mu.Unlock()
}

// onDone runs when an attached context has ended. It may come late, when another is attached already.
func (c *Conn) onDone() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.ctx == nil || c.mu.ctx.Err() == nil {
		return
	}
	c.mu.cancelled = true
	_ = c.nc.SetDeadline(time.Unix(1, 0)) // fails only on a closed connection, which blocks nobody
}

func (c *Conn) cancelCause() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.mu.cancelled {
		return nil
	}
	return context.Cause(c.mu.ctx)
}

// limitRead sets the deadline of a reply once, so that a peer cannot stretch it octet by octet.
func (c *Conn) limitRead() {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.mu.cancelled: // the past deadline that onDone set must stay
	case c.tls != nil: // which may have to write to go on reading
		_ = c.nc.SetDeadline(time.Now().Add(c.replyLimit))
	default:
		_ = c.nc.SetReadDeadline(time.Now().Add(c.replyLimit)) // the read after it tells of a closed connection
	}
}

// limitWrite is limitRead's counterpart for one write.
func (c *Conn) limitWrite() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.mu.cancelled {
		_ = c.nc.SetWriteDeadline(time.Now().Add(c.blockLimit)) // likewise
	}
}

func (c *Conn) readReply(limit time.Duration, memory int, plain bool) (smtp.Reply, error) {
	c.replyLimit = limit
	reply, err := c.reader.read(plain, &c.texts[memory])
	if c.transcript() {
		if err != nil {
			c.o.Logger.Log(context.Background(), LevelTranscript, "reply lost", slog.Any("error", err))
		} else {
			c.o.Logger.Log(context.Background(), LevelTranscript, "reply read", slog.String("reply", reply.String()))
		}
	}
	return reply, err
}

// writeLine sends c.line in one write.
func (c *Conn) writeLine(limit time.Duration) error {
	c.logLine()
	c.blockLimit = limit
	c.limitWrite()
	_, err := c.wire.Write(c.line)
	return err
}

func (c *Conn) logLine() {
	if c.transcript() {
		c.o.Logger.Log(context.Background(), LevelTranscript, "commands sent", slog.String("commands", string(c.line)))
	}
}

func (c *Conn) transcript() bool { return c.o.Logger.Enabled(context.Background(), LevelTranscript) }
