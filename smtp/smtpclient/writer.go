package smtpclient

import (
	"bytes"
	"net"
	"sync"

	"github.com/godwit-mta/godwit/smtp"
)

// A body leaves in rounds of at most this many octets and slices, each under a time limit of its own.
const (
	roundOctets = 256 << 10
	roundSlices = 256
	gatherSize  = 32 << 10
)

// gatherBuffers serve connections without vectored writes, where each small slice would be a write (and later a TLS
// record) of its own.
var gatherBuffers = sync.Pool{New: func() any { return new([gatherSize]byte) }}

// bodyWriter sends slices in order. The first error ends all; offered counts what was added, sent what the
// connection took.
type bodyWriter struct {
	nc       net.Conn
	before   func() // called before each round
	vectored bool

	slices  [][]byte    // memory of round
	round   net.Buffers // a field, as WriteTo would make a local one escape
	queued  int
	offered int64
	sent    int64
	err     error
}

func newBodyWriter(nc net.Conn, before func()) bodyWriter {
	w := bodyWriter{nc: nc, before: before}
	switch nc.(type) {
	case *net.TCPConn, *net.UnixConn:
		w.vectored = true
	}
	return w
}

// begin starts anew and forgets an earlier error.
func (w *bodyWriter) begin() {
	w.slices, w.queued, w.offered, w.sent, w.err = w.slices[:0], 0, 0, 0, nil
}

// add queues p, which must stay as it is until the next flush.
func (w *bodyWriter) add(p []byte) {
	w.offered += int64(len(p))
	for len(p) > 0 && w.err == nil {
		n := min(len(p), roundOctets-w.queued)
		w.slices = append(w.slices, p[:n])
		w.queued += n
		p = p[n:]
		if w.queued == roundOctets || len(w.slices) == roundSlices {
			w.flush()
		}
	}
}

func (w *bodyWriter) addAll(slices [][]byte) {
	for _, p := range slices {
		w.add(p)
	}
}

// addStuffed queues p with a dot more before each line that begins with one (RFC 5321, 4.5.2). lineStart says
// whether p begins a line; the result says the same of what follows p.
func (w *bodyWriter) addStuffed(p []byte, lineStart bool) bool {
	if len(p) == 0 {
		return lineStart
	}
	if lineStart && p[0] == '.' {
		w.add(dot)
	}
	next := p[len(p)-1] == '\n'
	for {
		i := bytes.Index(p, lfDot)
		if i < 0 {
			w.add(p)
			return next
		}
		w.add(p[:i+1])
		w.add(dot)
		p = p[i+1:]
	}
}

var (
	dot   = []byte(".")
	lfDot = []byte("\n.")
	crlf  = []byte("\r\n")
)

// flush sends what is queued.
func (w *bodyWriter) flush() {
	if w.err != nil || w.queued == 0 {
		return
	}
	w.before()
	if w.vectored {
		w.round = w.slices
		n, err := w.round.WriteTo(w.nc)
		w.sent += n
		w.err = err
	} else {
		w.gather()
	}
	clear(w.slices)
	w.slices, w.round, w.queued = w.slices[:0], nil, 0
}

// gather sends what is queued through a buffer.
func (w *bodyWriter) gather() {
	buffer := gatherBuffers.Get().(*[gatherSize]byte)
	defer gatherBuffers.Put(buffer)
	n := 0
	write := func(p []byte) {
		k, err := w.nc.Write(p)
		w.sent += int64(k)
		w.err = err
	}
	for _, p := range w.slices {
		for len(p) > 0 && w.err == nil {
			k := copy(buffer[n:], p)
			n += k
			p = p[k:]
			if n == len(buffer) {
				write(buffer[:n])
				n = 0
			}
		}
	}
	if n > 0 && w.err == nil {
		write(buffer[:n])
	}
}

// lastLine returns what a body lacks to end with CRLF: whoever cut it, its end must not run into the terminating
// dot or leave half a line end on the wire.
func lastLine(pieces [][]byte) []byte {
	var last [2]byte
	n := 0
	for i := len(pieces) - 1; i >= 0 && n < 2; i-- {
		for j := len(pieces[i]) - 1; j >= 0 && n < 2; j-- {
			last[1-n] = pieces[i][j]
			n++
		}
	}
	switch {
	case n == 0, last == [2]byte{'\r', '\n'}:
		return nil
	case last[1] == '\r':
		return crlf[1:]
	}
	return crlf
}

// pieces returns the body's slices in the memory of old.
func pieces(old [][]byte, body *smtp.Body) [][]byte {
	if body == nil {
		return old[:0]
	}
	return body.AppendPieces(old[:0])
}
