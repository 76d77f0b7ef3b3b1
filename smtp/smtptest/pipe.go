package smtptest

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

const pipeBuffer = 256 << 10

// Pipe returns the two ends of a connection in memory. Unlike those of net.Pipe they buffer, 256 KiB each way, as
// TCP does: a write returns before the peer has read, what was written before Close can still be read, and a write
// to a closed peer fails. Deadlines follow package time, so it works in fake time.
func Pipe() (client, server net.Conn) {
	there, back := newHalfPipe(), newHalfPipe()
	return &pipeEnd{in: back, out: there, local: "client", remote: "server"},
		&pipeEnd{in: there, out: back, local: "server", remote: "client"}
}

type pipeEnd struct {
	in, out       *halfPipe
	local, remote pipeAddr
}

type pipeAddr string

func (pipeAddr) Network() string  { return "pipe" }
func (a pipeAddr) String() string { return string(a) }

func (e *pipeEnd) Read(p []byte) (int, error)  { return e.in.read(p) }
func (e *pipeEnd) Write(p []byte) (int, error) { return e.out.write(p) }
func (e *pipeEnd) LocalAddr() net.Addr         { return e.local }
func (e *pipeEnd) RemoteAddr() net.Addr        { return e.remote }

// CloseWrite lets the peer read to the end, as half a close of TCP does.
func (e *pipeEnd) CloseWrite() error {
	e.out.closeWriter()
	return nil
}

func (e *pipeEnd) Close() error {
	e.out.closeWriter()
	e.in.closeReader()
	return nil
}

func (e *pipeEnd) SetDeadline(t time.Time) error {
	e.in.setDeadline(&e.in.reader, t)
	e.out.setDeadline(&e.out.writer, t)
	return nil
}

func (e *pipeEnd) SetReadDeadline(t time.Time) error {
	e.in.setDeadline(&e.in.reader, t)
	return nil
}

func (e *pipeEnd) SetWriteDeadline(t time.Time) error {
	e.out.setDeadline(&e.out.writer, t)
	return nil
}

// halfPipe carries octets one way.
type halfPipe struct {
	mu             sync.Mutex
	changed        *sync.Cond
	buf            []byte // a ring of pipeBuffer octets, made at the first write
	start, n       int
	reader, writer pipeSide
}

// pipeSide is what one side of a half has set.
type pipeSide struct {
	closed bool
	at     time.Time
	timer  *time.Timer
}

func (s *pipeSide) expired() bool { return !s.at.IsZero() && !time.Now().Before(s.at) }

func newHalfPipe() *halfPipe {
	h := &halfPipe{}
	h.changed = sync.NewCond(&h.mu)
	return h
}

func (h *halfPipe) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.reader.closed:
			return 0, net.ErrClosed
		case h.reader.expired():
			return 0, os.ErrDeadlineExceeded
		case len(p) == 0:
			return 0, nil
		case h.n > 0:
			k := copy(p, h.buf[h.start:min(h.start+h.n, len(h.buf))])
			h.start = (h.start + k) % len(h.buf)
			h.n -= k
			h.changed.Broadcast()
			return k, nil
		case h.writer.closed:
			return 0, io.EOF
		}
		h.changed.Wait()
	}
}

func (h *halfPipe) write(p []byte) (written int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.buf == nil {
		h.buf = make([]byte, pipeBuffer)
	}
	for {
		switch {
		case h.writer.closed:
			return written, net.ErrClosed
		case h.reader.closed:
			return written, io.ErrClosedPipe
		case h.writer.expired():
			return written, os.ErrDeadlineExceeded
		case len(p) == 0:
			return written, nil
		case h.n < len(h.buf):
			end := (h.start + h.n) % len(h.buf)
			k := copy(h.buf[end:min(end+len(h.buf)-h.n, len(h.buf))], p)
			h.n += k
			written += k
			p = p[k:]
			h.changed.Broadcast()
			continue
		}
		h.changed.Wait()
	}
}

func (h *halfPipe) closeWriter() { h.closeSide(&h.writer) }
func (h *halfPipe) closeReader() { h.closeSide(&h.reader) }

func (h *halfPipe) closeSide(s *pipeSide) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
	h.changed.Broadcast()
}

func (h *halfPipe) setDeadline(s *pipeSide, t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.at = t
	if s.timer != nil {
		s.timer.Stop()
	}
	if !t.IsZero() && !s.closed {
		d := max(0, time.Until(t))
		if s.timer == nil {
			s.timer = time.AfterFunc(d, h.wake)
		} else {
			s.timer.Reset(d)
		}
	}
	h.changed.Broadcast()
}

func (h *halfPipe) wake() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changed.Broadcast()
}
