package smtpclient

import (
	"context"
	"crypto/tls"
	"errors"
	"os"
	"syscall"
	"time"
)

// StartTLS asks for TLS, makes the handshake, and says EHLO again: what the peer said before is forgotten (RFC 3207,
// 4.2). config is not changed, and may be shared; whether the peer is who it should be is for its VerifyConnection, or
// for the usual verification, to say.
//
// An error is an *Error. After a refusal of the command (454, 502 and the like) the session stands and goes on in the
// clear, which [Conn.Reusable] tells; after any other error it is over. What comes behind the reply before the handshake
// is never taken for the peer's word ([ErrInjected]).
func (c *Conn) StartTLS(ctx context.Context, config *tls.Config) error {
	switch {
	case c.over != nil || !c.started || c.closed.Load():
		return &Error{Phase: PhaseTLS, Err: ErrClosed}
	case c.tls != nil:
		return &Error{Phase: PhaseTLS, Err: errTwice}
	case !c.ext.StartTLS:
		return &Error{Phase: PhaseTLS, Err: ErrNoTLS}
	}
	stop, err := c.attach(ctx)
	if err != nil {
		return &Error{Phase: PhaseTLS, Err: err}
	}
	defer c.detach(stop)
	reply, err := c.say(PhaseTLS, c.o.Timeouts.TLS, "STARTTLS", false)
	switch {
	case err != nil:
		return err
	case reply.Class() == 3 || reply.Code == closing:
		return c.refused(PhaseTLS, reply)
	case !reply.Positive():
		return &Error{Phase: PhaseTLS, Reply: reply}
	case c.reader.buffered() > 0:
		return c.fail(PhaseTLS, ErrInjected)
	}
	if err := c.handshake(config); err != nil {
		return err
	}
	c.proven, c.needReset = false, false
	return c.hello()
}

var errTwice = errors.New("session has TLS already")

// handshake puts TLS over the connection, within one limit for all of it.
func (c *Conn) handshake(config *tls.Config) error {
	conn := tls.Client(c.nc, config)
	c.mu.Lock()
	if !c.mu.cancelled {
		_ = c.nc.SetDeadline(time.Now().Add(c.o.Timeouts.TLS)) // the handshake tells of a closed connection
	}
	c.mu.Unlock()
	if err := conn.Handshake(); err != nil {
		return c.fail(PhaseTLS, err)
	}
	c.tls, c.wire = conn, conn
	c.reader.src = conn
	c.writer = newBodyWriter(conn, c.limitWrite)
	return nil
}

// TLS returns the state of the session's TLS, nil in the clear.
func (c *Conn) TLS() *tls.ConnectionState {
	if c.tls == nil {
		return nil
	}
	state := c.tls.ConnectionState()
	return &state
}

// Secured reports whether the session is over TLS. It costs nothing.
func (c *Conn) Secured() bool { return c.tls != nil }

// aliveOverTLS is Alive where octets at the socket may be TLS's own, such as tickets, and where octets of the peer may
// be in TLS's buffers already.
func (c *Conn) aliveOverTLS() bool {
	limit := time.Unix(1, 0) // what is in the buffers is read, and nothing else
	if raw, ok := c.nc.(syscall.Conn); ok {
		if quiet, known := isQuiet(raw); !known || !quiet {
			limit = time.Now().Add(time.Millisecond)
		}
	} else {
		limit = time.Now().Add(time.Millisecond)
	}
	return c.nothingMore(limit)
}

// nothingMore reads through TLS until limit and reports whether that brought nothing, not even the end.
func (c *Conn) nothingMore(limit time.Time) bool {
	if c.nc.SetReadDeadline(limit) != nil {
		return false
	}
	c.reader.makeRoom()
	n, err := c.wire.Read(c.reader.buf[c.reader.w:])
	c.reader.w += n
	return n == 0 && errors.Is(err, os.ErrDeadlineExceeded)
}

// closeTLS says that nothing more will come (RFC 8446, 6.1). Nothing depends on it.
func (c *Conn) closeTLS() {
	_ = c.nc.SetDeadline(time.Now().Add(time.Second))
	_ = c.tls.CloseWrite()
}

// unread returns how many octets of the peer wait to be read on this side of the socket.
func (c *Conn) unread() int {
	if c.tls != nil && c.reader.buffered() == 0 {
		c.nothingMore(time.Unix(1, 0))
	}
	return c.reader.buffered()
}

// HandshakeFailed reports whether err is of a handshake that was tried and did not come about: another one with other
// settings, or a session in the clear, may do.
func HandshakeFailed(err error) bool {
	broken, ok := errors.AsType[*Error](err)
	return ok && broken.Phase == PhaseTLS && broken.Reply.IsZero() && !errors.Is(err, ErrClosed)
}
