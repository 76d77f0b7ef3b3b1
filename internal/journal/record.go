package journal

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/godwit-mta/godwit/smtp"
)

// A record's header, little-endian:
//
//	 0  4  magic
//	 4  1  kind
//	 5  1  flags
//	 6  2  zero
//	 8  4  index of the record in its batch
//	12  4  records of the batch
//	16  4  octets of the meta
//	20  4  octets of the body
//	24  8  position below which the journal was durable when this was written
//	32  4  sum of the meta
//	36  4  sum of the body
//	40  4  sum of the 40 octets above, begun from the segment's salt and the record's position
const (
	recordHeaderSize = 44
	recordSummed     = 40
	recordMagic      = 0x9d4a17c5 // no valid UTF-8 and no CR, LF or digits: rare in mail
)

const (
	flagBody     = 1 << iota // has a body, which may be empty
	flagEightBit             // Body.EightBit
	flagDotLine              // Body.DotLine
	flagSealed               // meta and body are as a Sealer gave them
	flagsKnown   = flagBody | flagEightBit | flagDotLine | flagSealed
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type recordHeader struct {
	kind     Kind
	flags    uint8
	index    uint32
	count    uint32
	metaSize uint32
	bodySize uint32
	durable  Position
	metaSum  uint32
	bodySum  uint32
}

// size returns the octets of the whole record.
func (h *recordHeader) size() int64 { return recordHeaderSize + int64(h.metaSize) + int64(h.bodySize) }

// encode writes the header of the record at p to dst[:recordHeaderSize].
func (h *recordHeader) encode(dst []byte, salt uint64, p Position) {
	dst = dst[:recordHeaderSize]
	le := binary.LittleEndian
	le.PutUint32(dst, recordMagic)
	dst[4] = byte(h.kind)
	dst[5] = h.flags
	dst[6], dst[7] = 0, 0
	le.PutUint32(dst[8:], h.index)
	le.PutUint32(dst[12:], h.count)
	le.PutUint32(dst[16:], h.metaSize)
	le.PutUint32(dst[20:], h.bodySize)
	le.PutUint64(dst[24:], uint64(h.durable))
	le.PutUint32(dst[32:], h.metaSum)
	le.PutUint32(dst[36:], h.bodySum)
	le.PutUint32(dst[40:], headerSum(dst, salt, p))
}

// decode reads the header of the record at p from src and says whether it is one.
func (h *recordHeader) decode(src []byte, salt uint64, p Position) bool {
	if len(src) < recordHeaderSize {
		return false
	}
	src = src[:recordHeaderSize]
	le := binary.LittleEndian
	if le.Uint32(src) != recordMagic || le.Uint32(src[40:]) != headerSum(src, salt, p) {
		return false
	}
	*h = recordHeader{
		kind: Kind(src[4]), flags: src[5],
		index: le.Uint32(src[8:]), count: le.Uint32(src[12:]),
		metaSize: le.Uint32(src[16:]), bodySize: le.Uint32(src[20:]),
		durable: Position(le.Uint64(src[24:])),
		metaSum: le.Uint32(src[32:]), bodySum: le.Uint32(src[36:]),
	}
	return h.flags&^flagsKnown == 0 && src[6] == 0 && src[7] == 0 && h.index < h.count && h.count <= MaxRecords &&
		h.metaSize <= MaxMeta && h.size() <= MaxBatch && h.durable <= p
}

// headerSum begins with a state mixed from salt and position, so that the same bytes elsewhere have another sum.
func headerSum(header []byte, salt uint64, p Position) uint32 {
	x := salt ^ uint64(p)*0x9e3779b97f4a7c15
	x = (x ^ x>>32) * 0xd6e8feb86659fd93
	x ^= x >> 32
	return crc32.Update(uint32(x), castagnoli, header[:recordSummed])
}

func bodyFlags(b *smtp.Body) uint8 {
	if b == nil {
		return 0
	}
	f := uint8(flagBody)
	if b.EightBit {
		f |= flagEightBit
	}
	if b.DotLine {
		f |= flagDotLine
	}
	return f
}

func bodySum(b *smtp.Body) uint32 {
	var array [16][]byte // enough for 1 MB without an allocation
	var sum uint32
	for _, p := range b.AppendPieces(array[:0]) {
		sum = crc32.Update(sum, castagnoli, p)
	}
	return sum
}

// Positions of this engine: segment number and octet in the file.

func position(id ExtentID, off int64) Position { return Position(id)<<32 | Position(off) }
func (p Position) extent() ExtentID            { return ExtentID(p >> 32) }
func (p Position) offset() int64               { return int64(p & (1<<32 - 1)) }
