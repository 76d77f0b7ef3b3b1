package message

import (
	"bytes"
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"time"
)

// ID names one message. The first six octets are the Unix time in milliseconds, big-endian; the other six tell apart
// what was made in the same millisecond. IDs compare, as octets and as text, in the order they were made by one [IDs].
// The zero value names no message.
type ID [12]byte

// idText is the length of an ID as text.
const idText = 20

// The alphabet of base32hex in lower case keeps the order of the octets and is safe in file names, URLs and header
// fields.
var idEncoding = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// ErrID is what [ParseID] returns for anything but the text of an ID.
var ErrID = errors.New("message: not a message id")

// String returns the 20 characters of the text form.
func (id ID) String() string { return string(id.AppendTo(make([]byte, 0, idText))) }

// AppendTo appends the text form to dst.
func (id ID) AppendTo(dst []byte) []byte { return idEncoding.AppendEncode(dst, id[:]) }

// IsZero reports whether id names no message.
func (id ID) IsZero() bool { return id == ID{} }

// Compare returns -1, 0 or 1 by the order of making.
func (id ID) Compare(other ID) int { return bytes.Compare(id[:], other[:]) }

// Time returns when the ID was made, to the millisecond, in UTC.
func (id ID) Time() time.Time {
	return time.UnixMilli(int64(binary.BigEndian.Uint64(id[:8]) >> 16)).UTC()
}

// MarshalText implements [encoding.TextMarshaler].
func (id ID) MarshalText() ([]byte, error) { return id.AppendTo(nil), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (id *ID) UnmarshalText(p []byte) error {
	got, err := ParseID(string(p))
	if err != nil {
		return err
	}
	*id = got
	return nil
}

// ParseID reads the text form. It takes exactly what [ID.String] gives, so that one message has one name; everything
// else is [ErrID].
func ParseID(s string) (ID, error) {
	if len(s) != idText {
		return ID{}, ErrID
	}
	// The decoder skips line ends and ignores the four bits after the last octet, hence the detour over two buffers.
	var text, back [idText]byte
	copy(text[:], s)
	var id ID
	n, err := idEncoding.Decode(back[:], text[:])
	if err != nil || n != len(id) {
		return ID{}, ErrID
	}
	copy(id[:], back[:n])
	if idEncoding.Encode(back[:], id[:]); back != text {
		return ID{}, ErrID
	}
	return id, nil
}

// IDs makes IDs. All of its methods may be used by any number of goroutines.
type IDs struct {
	mu struct {
		sync.Mutex
		rand  io.Reader
		pool  [252]byte // random octets read ahead
		left  []byte
		milli uint64
		count uint64 // 48 bits
	}
}

const (
	idMilliMax = 1<<48 - 1
	idCountMax = 1<<48 - 1
)

// NewIDs returns a generator that draws from random; nil means crypto/rand. Two generators with good random sources
// do not meet: a millisecond starts at a random one of 2^47 places and moves on in random steps.
func NewIDs(random io.Reader) *IDs {
	if random == nil {
		random = rand.Reader
	}
	g := new(IDs)
	g.mu.rand = random
	return g
}

// New returns an ID greater than all that this generator made before, of the time now or, if the clock went back or a
// millisecond ran full, a little later. If the random source fails the order and uniqueness within this generator hold
// all the same.
func (g *IDs) New(now time.Time) ID {
	milli := uint64(min(max(now.UnixMilli(), 0), idMilliMax))
	g.mu.Lock()
	defer g.mu.Unlock()
	m := &g.mu
	switch step := g.drawLocked(); {
	case milli > m.milli:
		m.milli, m.count = milli, step>>1 // the upper half stays free for steps
	case m.count+step>>24+1 > idCountMax:
		m.milli, m.count = m.milli+1, step>>1
	default:
		m.count += step>>24 + 1
	}
	var id ID
	binary.BigEndian.PutUint64(id[:8], m.milli<<16|m.count>>32)
	binary.BigEndian.PutUint32(id[8:], uint32(m.count))
	return id
}

// drawLocked returns 48 random bits, or 0 if there are none to be had.
func (g *IDs) drawLocked() uint64 {
	m := &g.mu
	if len(m.left) < 6 {
		if _, err := io.ReadFull(m.rand, m.pool[:]); err != nil {
			return 0
		}
		m.left = m.pool[:]
	}
	p := m.left[:6]
	m.left = m.left[6:]
	return uint64(binary.BigEndian.Uint16(p))<<32 | uint64(binary.BigEndian.Uint32(p[2:]))
}
