package smtp

import (
	"bytes"
	"encoding/binary"
	"io"
	"sync"
	"sync/atomic"
)

// Sizes of the pooled pieces a Body is made of: nearly all mail fits one small piece, large mail pays few.
const (
	smallPiece = 16 << 10
	largePiece = 64 << 10
)

var (
	smallPieces = sync.Pool{New: func() any { return new([smallPiece]byte) }}
	largePieces = sync.Pool{New: func() any { return new([largePiece]byte) }}
)

// Body is the bytes of one message in wire form: CRLF line ends, no dot-stuffing, no terminating dot. They lie in
// pooled pieces and are never copied on their way from the receiving socket to the journal and the sending socket.
//
// A Body is filled by one goroutine ([Body.Free], [Body.Extend], [Body.Prepend]) and then only read, by any number. It
// starts with one reference; who keeps it takes another with [Body.Retain], and everyone ends with [Body.Release].
// After the last Release the bytes belong to the next message: no slice got from Pieces may be used any more.
type Body struct {
	refs   atomic.Int32
	front  []byte    // trace headers set before the received bytes
	skip   int       // octets at the begin of pieces that are no part any more
	pieces [][]byte  // filled parts of the pooled arrays
	room   [2][]byte // where pieces lies while it is short
	size   int64

	budget  *Budget // of a body being received; nil: bounded by nobody
	memory  int64   // octets of the pieces
	charged int64   // of these, or ahead of them, counted in budget
	over    bool    // a piece was more than the budget had
	claim   Claim   // of a body that was read back

	// EightBit says that an octet above 127 occurs. DotLine says that some line begins with a dot, so that DATA must
	// stuff it (RFC 5321, 4.5.2). Both are set by whoever fills the body.
	EightBit bool
	DotLine  bool
}

// NewBody returns an empty body with one reference.
func NewBody() *Body {
	b := new(Body)
	b.pieces = b.room[:0]
	b.refs.Store(1)
	return b
}

// BodyOf returns a body that holds a copy of p, which must be in wire form.
func BodyOf(p []byte) *Body {
	b := NewBody()
	b.Append(p)
	return b
}

// Append copies p to the end and keeps the flags EightBit and DotLine true to it. p may be cut anywhere.
func (b *Body) Append(p []byte) {
	b.EightBit = b.EightBit || HasEightBit(p)
	b.DotLine = b.DotLine || b.startsDotLine(p)
	for len(p) > 0 {
		n := copy(b.Free(), p)
		b.Extend(n)
		p = p[n:]
	}
}

func (b *Body) startsDotLine(p []byte) bool {
	if len(p) > 0 && p[0] == '.' && b.endsLine() {
		return true
	}
	return bytes.Contains(p, []byte("\n."))
}

// endsLine reports that what comes next begins a line.
func (b *Body) endsLine() bool {
	for i := len(b.pieces) - 1; i >= 0; i-- {
		if piece := b.pieces[i]; len(piece) > 0 {
			return piece[len(piece)-1] == '\n'
		}
	}
	return len(b.front) == 0 || b.front[len(b.front)-1] == '\n'
}

// HasEightBit reports whether an octet of p is above 127.
func HasEightBit(p []byte) bool {
	const high = 0x8080808080808080
	for len(p) >= 32 {
		v := binary.LittleEndian.Uint64(p) | binary.LittleEndian.Uint64(p[8:]) |
			binary.LittleEndian.Uint64(p[16:]) | binary.LittleEndian.Uint64(p[24:])
		if v&high != 0 {
			return true
		}
		p = p[32:]
	}
	for _, c := range p {
		if c >= 0x80 {
			return true
		}
	}
	return false
}

// leastFree is the space below which a piece counts as full: a read into less is not worth its system call.
const leastFree = 512

// Free returns unused space at the end, at least 512 octets. What is written there becomes part of the body by
// [Body.Extend].
func (b *Body) Free() []byte {
	if n := len(b.pieces); n > 0 {
		last := b.pieces[n-1]
		if cap(last)-len(last) >= leastFree {
			return last[len(last):cap(last)]
		}
	}
	var piece []byte
	if len(b.pieces) == 0 {
		piece = smallPieces.Get().(*[smallPiece]byte)[:0]
	} else {
		piece = largePieces.Get().(*[largePiece]byte)[:0]
	}
	b.pieces = append(b.pieces, piece)
	b.memory += int64(cap(piece))
	if b.budget != nil && b.memory > b.charged {
		if !b.budget.take(b.memory-b.charged, b.charged) {
			b.over = true
		}
		b.charged = b.memory
	}
	return piece[:cap(piece)]
}

// Over reports that the body has grown beyond what its budget had. It should be released.
func (b *Body) Over() bool { return b.over }

// Memory returns the octets of the pieces that the body is made of.
func (b *Body) Memory() int64 { return b.memory }

// Reserve counts a body of size octets in its budget before it comes. It returns false, and counts nothing, if there
// is no room for it.
func (b *Body) Reserve(size int64) bool {
	more := memoryOf(size) - b.charged
	if b.budget == nil || more <= 0 {
		return true
	}
	if !b.budget.take(more, b.charged) {
		b.budget.give(more)
		return false
	}
	b.charged += more
	return true
}

// Trim gives back what Reserve counted and did not come.
func (b *Body) Trim() {
	if b.budget != nil && b.charged > b.memory {
		b.budget.give(b.charged - b.memory)
		b.charged = b.memory
	}
}

// Extend takes the first n bytes of what Free returned last into the body.
func (b *Body) Extend(n int) {
	last := &b.pieces[len(b.pieces)-1]
	*last = (*last)[:len(*last)+n]
	b.size += int64(n)
}

// Truncate drops the last n bytes, which must lie within what the last Extend added.
func (b *Body) Truncate(n int) {
	last := &b.pieces[len(b.pieces)-1]
	*last = (*last)[:len(*last)-n]
	b.size -= int64(n)
}

// Prepend puts p before all bytes there are: trace headers, newest first (RFC 5321, 4.4). It keeps p.
func (b *Body) Prepend(p []byte) {
	if b.front != nil {
		p = append(p[:len(p):len(p)], b.front...)
		b.size -= int64(len(b.front))
	}
	b.front = p
	b.size += int64(len(p))
}

// DropFront takes the first n octets out, which must be no more than there are and none that Prepend put there: a header
// that is replaced as a whole.
func (b *Body) DropFront(n int) {
	b.skip += n
	b.size -= int64(n)
}

// Size returns the octets of the body, prepended ones included.
func (b *Body) Size() int64 { return b.size }

// AppendPieces appends the body's bytes to dst as slices, in order, for a vectored write.
func (b *Body) AppendPieces(dst [][]byte) [][]byte {
	if len(b.front) > 0 {
		dst = append(dst, b.front)
	}
	skip := b.skip
	for _, p := range b.pieces {
		n := min(skip, len(p))
		skip -= n
		if len(p) > n {
			dst = append(dst, p[n:])
		}
	}
	return dst
}

// Reader reads the body from its begin. It holds no reference of its own.
func (b *Body) Reader() io.Reader { return &bodyReader{rest: b.AppendPieces(nil)} }

type bodyReader struct{ rest [][]byte }

func (r *bodyReader) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) && len(r.rest) > 0 {
		k := copy(p[n:], r.rest[0])
		n += k
		if r.rest[0] = r.rest[0][k:]; len(r.rest[0]) == 0 {
			r.rest = r.rest[1:]
		}
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

// Retain takes one more reference and returns b.
func (b *Body) Retain() *Body {
	b.refs.Add(1)
	return b
}

// Release gives one reference back; the last one returns the pieces to their pools.
func (b *Body) Release() {
	switch n := b.refs.Add(-1); {
	case n > 0:
		return
	case n < 0:
		panic("smtp: Body released more often than retained")
	}
	for i, p := range b.pieces {
		switch cap(p) {
		case smallPiece:
			smallPieces.Put((*[smallPiece]byte)(p[:smallPiece]))
		case largePiece:
			largePieces.Put((*[largePiece]byte)(p[:largePiece]))
		}
		b.pieces[i] = nil
	}
	b.pieces, b.front = nil, nil
	if b.charged > 0 {
		b.budget.give(b.charged)
	}
	b.claim.Release()
}
