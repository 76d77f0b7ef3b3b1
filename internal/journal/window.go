package journal

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
)

// Sizes of one read. Records in a row are read in ever larger pieces; after a jump over a body only a little.
const (
	smallRead = 4 << 10
	largeRead = 128 << 10
)

// window is a segment seen through a buffer, for one goroutine.
type window struct {
	file  io.ReaderAt
	id    ExtentID
	salt  uint64
	limit int64 // octets of the file that count

	buf   []byte
	begin int64 // place of buf[0] in the file
	chunk int
}

// reset looks at another file. The buffer stays.
func (w *window) reset(file io.ReaderAt, id ExtentID, salt uint64, limit int64) {
	w.file, w.id, w.salt, w.limit = file, id, salt, limit
	w.forget()
}

// forget drops what has been read.
func (w *window) forget() {
	w.buf, w.begin, w.chunk = w.buf[:0], 0, smallRead
}

// at returns the n octets at off, valid until the next call; fewer if the limit or the file ends before. Its error is
// one of reading, never io.EOF.
func (w *window) at(off int64, n int) ([]byte, error) {
	if off >= w.begin && off+int64(n) <= w.begin+int64(len(w.buf)) {
		i := int(off - w.begin)
		return w.buf[i : i+n : i+n], nil
	}
	if off >= w.begin && off <= w.begin+int64(len(w.buf)) {
		w.chunk = min(2*w.chunk, largeRead)
	} else {
		w.chunk = smallRead
	}
	size := int(max(min(int64(max(n, w.chunk)), w.limit-off), 0))
	if cap(w.buf) < size {
		w.buf = make([]byte, size)
	}
	got, err := w.file.ReadAt(w.buf[:size], off)
	w.buf, w.begin = w.buf[:got], off
	if err != nil && err != io.EOF {
		w.forget()
		return nil, err
	}
	n = min(n, got)
	return w.buf[:n:n], nil
}

// record reads header and meta of the record at off. ok is false if there is none that is whole within the limit.
// meta is valid until the next call.
func (w *window) record(off int64) (h recordHeader, meta []byte, ok bool, err error) {
	b, err := w.at(off, recordHeaderSize)
	if err != nil || !h.decode(b, w.salt, position(w.id, off)) || off+h.size() > w.limit {
		return h, nil, false, err
	}
	meta, err = w.at(off+recordHeaderSize, int(h.metaSize))
	if err != nil || len(meta) < int(h.metaSize) || crc32.Checksum(meta, castagnoli) != h.metaSum {
		return h, nil, false, err
	}
	return h, meta, true, nil
}

// body says whether the body of the record at off is what was written.
func (w *window) body(off int64, h *recordHeader) (bool, error) {
	var sum uint32
	at, rest := off+recordHeaderSize+int64(h.metaSize), int64(h.bodySize)
	for rest > 0 {
		b, err := w.at(at, int(min(rest, largeRead)))
		if err != nil || len(b) == 0 {
			return false, err
		}
		sum = crc32.Update(sum, castagnoli, b)
		at, rest = at+int64(len(b)), rest-int64(len(b))
	}
	return sum == h.bodySum, nil
}

// resync returns the place of the first whole record at or after off, or the limit. Its header's sum covers salt and
// position, so that no other bytes pass for it.
func (w *window) resync(off int64) (int64, error) {
	magic := binary.LittleEndian.AppendUint32(nil, recordMagic)
	for off+recordHeaderSize <= w.limit {
		b, err := w.at(off, int(min(largeRead, w.limit-off)))
		if err != nil {
			return 0, err
		}
		i := bytes.Index(b, magic)
		if i < 0 {
			if len(b) < len(magic) {
				break
			}
			off += int64(len(b) - len(magic) + 1)
			continue
		}
		off += int64(i)
		_, _, ok, err := w.record(off)
		if err != nil {
			return 0, err
		}
		if ok {
			return off, nil
		}
		off++
	}
	return w.limit, nil
}
