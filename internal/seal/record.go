package seal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/godwit-mta/godwit/smtp"
)

// What is sealed begins with a header:
//
//	 0   1  version
//	 1   4  data key
//	 5  16  salt of the stream
//	21   8  number within the stream
//	29      ciphertext and tag
//
// The nonce of each piece is the number and the piece's place: 0 for the meta or a text, 1 and more for the pieces of a body,
// with lastPiece in the last one.
const (
	version    = 1
	headerSize = 1 + 4 + saltSize + 8
	tagSize    = 16
	overhead   = headerSize + tagSize

	pieceSealed = 16 << 10 // octets of a body's piece as written
	pieceClear  = pieceSealed - tagSize
	lastPiece   = 1 << 31
)

// ErrForged says that bytes are not what was sealed.
var ErrForged = errors.New("what is encrypted was changed or belongs elsewhere")

// scratch keeps what a cipher is given from being allocated for each call.
type scratch struct {
	nonce [12]byte
	about [1]byte
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

func (s *scratch) set(kind uint8, number uint64, place uint32) {
	s.about[0] = kind
	binary.BigEndian.PutUint64(s.nonce[:], number)
	binary.BigEndian.PutUint32(s.nonce[8:], place)
}

// Seal returns what is written in place of a record's meta, in dst's memory, and of its body, a new one with a reference for the
// caller; nil for nil. It never fails. The keyring must be sealing.
func (k *Keyring) Seal(dst []byte, kind uint8, meta []byte, body *smtp.Body) ([]byte, *smtp.Body) {
	st := k.current.Load()
	number := st.counter.Add(1)
	dst = append(dst, version)
	dst = binary.LittleEndian.AppendUint32(dst, st.key)
	dst = append(dst, st.salt[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, number)
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	s.set(kind, number, 0)
	dst = st.aead.Seal(dst, s.nonce[:], meta, s.about[:])
	if body == nil {
		return dst, nil
	}
	out := smtp.NewBody()
	out.EightBit, out.DotLine = body.EightBit, body.DotLine
	var room [8][]byte
	pieces, at := body.AppendPieces(room[:0]), 0
	left := body.Size()
	for place := uint32(1); ; place++ {
		n := int(min(left, pieceClear))
		free := out.Free()
		for filled := 0; filled < n; {
			c := copy(free[filled:n], pieces[0][at:])
			filled, at = filled+c, at+c
			if at == len(pieces[0]) {
				pieces, at = pieces[1:], 0
			}
		}
		left -= int64(n)
		if left == 0 {
			place |= lastPiece
		}
		s.set(kind, number, place)
		st.aead.Seal(free[:0], s.nonce[:], free[:n], s.about[:])
		out.Extend(n + tagSize)
		if left == 0 {
			return dst, out
		}
	}
}

// header reads which stream a sealed text is of, and its number there.
func header(sealed []byte) (id streamID, number uint64, err error) {
	if len(sealed) < overhead || sealed[0] != version {
		return id, 0, fmt.Errorf("%w: no header", ErrForged)
	}
	id.key = binary.LittleEndian.Uint32(sealed[1:])
	copy(id.salt[:], sealed[5:])
	return id, binary.LittleEndian.Uint64(sealed[headerSize-8:]), nil
}

// OpenMeta undoes what Seal did to a meta and appends it to dst.
func (k *Keyring) OpenMeta(dst []byte, kind uint8, sealed []byte) ([]byte, error) {
	id, number, err := header(sealed)
	if err != nil {
		return nil, err
	}
	a, err := k.aead(id)
	if err != nil {
		return nil, err
	}
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	s.set(kind, number, 0)
	dst, err = a.Open(dst, s.nonce[:], sealed[headerSize:], s.about[:])
	if err != nil {
		return nil, ErrForged
	}
	return dst, nil
}

// OpenBody undoes what Seal did to the body of the record with this sealed meta. The caller keeps its reference to sealed and gets
// one to the result.
func (k *Keyring) OpenBody(kind uint8, sealedMeta []byte, sealed *smtp.Body) (*smtp.Body, error) {
	id, number, err := header(sealedMeta)
	if err != nil {
		return nil, err
	}
	a, err := k.aead(id)
	if err != nil {
		return nil, err
	}
	out := smtp.NewBody()
	out.EightBit, out.DotLine = sealed.EightBit, sealed.DotLine
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	var (
		room  [8][]byte
		whole []byte // a piece that lies in two parts of the body
	)
	pieces, at := sealed.AppendPieces(room[:0]), 0
	left := sealed.Size()
	if left < tagSize {
		out.Release()
		return nil, ErrForged
	}
	for place := uint32(1); left > 0; place++ {
		n := int(min(left, pieceSealed))
		piece := pieces[0][at:min(at+n, len(pieces[0]))]
		if len(piece) < n {
			whole = whole[:0]
			for len(whole) < n {
				part := pieces[0][at:min(at+n-len(whole), len(pieces[0]))]
				whole = append(whole, part...)
				if at += len(part); at == len(pieces[0]) {
					pieces, at = pieces[1:], 0
				}
			}
			piece = whole
		} else if at += n; at == len(pieces[0]) {
			pieces, at = pieces[1:], 0
		}
		left -= int64(n)
		if left == 0 {
			place |= lastPiece
		}
		s.set(kind, number, place)
		free := out.Free()
		if n < tagSize || len(free) < n-tagSize {
			out.Release()
			return nil, ErrForged
		}
		clear, err := a.Open(free[:0], s.nonce[:], piece, s.about[:])
		if err != nil {
			out.Release()
			return nil, ErrForged
		}
		out.Extend(len(clear))
	}
	return out, nil
}

// BodySize returns the octets of a body that has sealed octets as written.
func (k *Keyring) BodySize(sealed int64) int64 {
	pieces := (sealed + pieceSealed - 1) / pieceSealed
	return max(sealed-pieces*tagSize, 0)
}

// kindText is the kind of what is no record of a journal.
const kindText = 0xff

// SealText seals a text by itself, such as a line of the event log or a value of the store, and appends it to dst.
func (k *Keyring) SealText(dst, text []byte) []byte {
	dst, _ = k.Seal(dst, kindText, text, nil)
	return dst
}

// OpenText undoes SealText.
func (k *Keyring) OpenText(dst, sealed []byte) ([]byte, error) {
	return k.OpenMeta(dst, kindText, sealed)
}
