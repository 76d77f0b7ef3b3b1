package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A segment's header stands twice, each copy in a block of its own, since with it all records of the segment are lost.
const (
	headerCopy   = 4 << 10
	headerSize   = 2 * headerCopy // where records begin
	headerUsed   = 320
	headerMagic  = "GODWITJ\n"
	versionFirst = 1
)

// segmentHeader, little-endian:
//
//	 0   8  magic
//	 8   4  version
//	12   4  octets of all copies, where records begin
//	16   8  number
//	24   8  epoch
//	32   8  durable end of the journal when this was made: the end of the segment before
//	40   8  salt
//	48   8  when it was made, Unix nanoseconds: for people
//	56   1  octets of the owner
//	57 255  owner
//	316  4  sum of the above
type segmentHeader struct {
	id      ExtentID
	epoch   uint64
	before  Position
	salt    uint64
	created int64
	owner   string
}

func (h *segmentHeader) encode() []byte {
	b := make([]byte, headerSize)
	le := binary.LittleEndian
	copy(b, headerMagic)
	le.PutUint32(b[8:], versionFirst)
	le.PutUint32(b[12:], headerSize)
	le.PutUint64(b[16:], uint64(h.id))
	le.PutUint64(b[24:], h.epoch)
	le.PutUint64(b[32:], uint64(h.before))
	le.PutUint64(b[40:], h.salt)
	le.PutUint64(b[48:], uint64(h.created))
	b[56] = byte(len(h.owner))
	copy(b[57:57+maxOwner], h.owner)
	le.PutUint32(b[headerUsed-4:], crc32.Checksum(b[:headerUsed-4], castagnoli))
	copy(b[headerCopy:], b[:headerUsed])
	return b
}

var errHeader = errors.New("segment header is damaged")

// decodeHeader reads the first good copy in b.
func decodeHeader(b []byte, id ExtentID) (segmentHeader, error) {
	err := errHeader
	for at := 0; at+headerUsed <= len(b); at += headerCopy {
		c := b[at : at+headerUsed]
		le := binary.LittleEndian
		if string(c[:8]) != headerMagic || le.Uint32(c[headerUsed-4:]) != crc32.Checksum(c[:headerUsed-4], castagnoli) {
			continue
		}
		if v := le.Uint32(c[8:]); v != versionFirst {
			return segmentHeader{}, fmt.Errorf("segment has format version %d, this program knows %d", v, versionFirst)
		}
		h := segmentHeader{
			id: ExtentID(le.Uint64(c[16:])), epoch: le.Uint64(c[24:]), before: Position(le.Uint64(c[32:])),
			salt: le.Uint64(c[40:]), created: int64(le.Uint64(c[48:])), owner: string(c[57 : 57+int(c[56])]),
		}
		if h.id != id || le.Uint32(c[12:]) != headerSize {
			err = fmt.Errorf("%w: it is of segment %d", errHeader, h.id)
			continue
		}
		return h, nil
	}
	return segmentHeader{}, err
}

func readHeader(f vfs.File, id ExtentID) (segmentHeader, error) {
	b := make([]byte, headerSize)
	n, err := f.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return segmentHeader{}, err
	}
	return decodeHeader(b[:n], id)
}

const (
	suffixSegment = ".seg"
	suffixMaking  = ".tmp"
	suffixSpare   = ".spare"
	suffixDamaged = ".damaged"
	lockName      = "LOCK"
)

func activeName(id ExtentID) string { return fmt.Sprintf("%016x%s", uint64(id), suffixSegment) }
func sealedName(id ExtentID, end int64) string {
	return fmt.Sprintf("%016x-%08x%s", uint64(id), end, suffixSegment)
}
func makingName(id ExtentID) string { return fmt.Sprintf("%016x%s", uint64(id), suffixMaking) }
func spareName(id ExtentID) string  { return fmt.Sprintf("%016x%s", uint64(id), suffixSpare) }

// parseSegmentName undoes activeName and sealedName. end is 0 for an unsealed segment.
func parseSegmentName(name string) (id ExtentID, end int64, ok bool) {
	rest, ok := strings.CutSuffix(name, suffixSegment)
	if !ok {
		return 0, 0, false
	}
	number, last, sealed := strings.Cut(rest, "-")
	n, ok := parseHex(number, 16)
	if !ok || n == 0 || n >= 1<<32 {
		return 0, 0, false
	}
	if !sealed {
		return ExtentID(n), 0, true
	}
	e, ok := parseHex(last, 8)
	if !ok || e < headerSize {
		return 0, 0, false
	}
	return ExtentID(n), int64(e), true
}

func parseHex(s string, digits int) (uint64, bool) {
	if len(s) != digits || strings.ToLower(s) != s || s[0] == '+' {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 16, 64)
	return n, err == nil
}
