package journal

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/godwit-mta/godwit/smtp"
)

var readBuffers = sync.Pool{New: func() any { return new([smallRead]byte) }}

// Read implements [Journal].
func (l *Log) Read(ctx context.Context, p Position) (Record, error) {
	if ctx.Err() != nil {
		return Record{}, context.Cause(ctx)
	}
	l.segs.RLock()
	var s *segment
	var limit int64
	if i := l.searchLocked(p.extent()); i < len(l.segs.list) && l.segs.list[i].id == p.extent() {
		s = l.segs.list[i]
		limit = l.limitLocked(s)
	}
	l.segs.RUnlock()
	switch {
	case p >= l.End() || p.extent() == 0 || p.offset() < headerSize || s != nil && p.offset() >= limit:
		return Record{}, fmt.Errorf("reading %#x: %w", uint64(p), ErrNoRecord)
	case s == nil:
		return Record{}, fmt.Errorf("reading %#x: %w", uint64(p), ErrRemoved)
	}
	f, err := l.acquire(s)
	if errors.Is(err, errHeader) {
		l.noteDamage(s, headerSize, limit, err.Error())
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err != nil {
		return Record{}, fmt.Errorf("reading %#x: %w", uint64(p), err)
	}
	r, err := l.readRecord(f, s, p, limit)
	if err != nil && l.isGone(s) {
		err = ErrRemoved // its blocks may belong to another segment by now
	}
	if err != nil {
		err = fmt.Errorf("reading %#x: %w", uint64(p), err)
	}
	if err := errors.Join(err, l.files.release(f)); err != nil {
		if r.Body != nil {
			r.Body.Release()
		}
		return Record{}, err
	}
	return r, nil
}

func (l *Log) readRecord(f *readFile, s *segment, p Position, limit int64) (Record, error) {
	buf := readBuffers.Get().(*[smallRead]byte)
	defer readBuffers.Put(buf)
	off := p.offset()
	got, err := f.ReadAt(buf[:min(smallRead, limit-off)], off)
	if err != nil && err != io.EOF {
		return Record{}, err
	}
	have := buf[:got]
	var h recordHeader
	if !h.decode(have, f.salt, p) || off+h.size() > limit {
		return Record{}, fmt.Errorf("%w: no valid header", ErrDamaged)
	}
	damaged := func(what string) error {
		l.noteDamage(s, off, off+h.size(), what)
		return fmt.Errorf("%w: %s", ErrDamaged, what)
	}
	r := Record{Kind: h.kind, Position: p}
	at := off + recordHeaderSize
	have = have[recordHeaderSize:]
	// fill takes what the first read has got and reads the rest to where it belongs.
	fill := func(dst []byte) error {
		n := copy(dst, have)
		have = have[n:]
		at += int64(n)
		if n < len(dst) {
			m, err := f.ReadAt(dst[n:], at)
			if m < len(dst)-n {
				return err
			}
			at += int64(m)
		}
		return nil
	}
	if h.metaSize > 0 {
		r.Meta = make([]byte, h.metaSize)
		if err := fill(r.Meta); err != nil {
			return r, endIsDamage(err, damaged)
		}
	}
	if crc32.Checksum(r.Meta, castagnoli) != h.metaSum {
		return r, damaged("checksum of the meta")
	}
	sealed := h.flags&flagSealed != 0
	if h.flags&flagBody == 0 {
		return r, l.clear(&r, sealed, damaged)
	}
	r.Body = smtp.NewBody()
	r.Body.EightBit, r.Body.DotLine = h.flags&flagEightBit != 0, h.flags&flagDotLine != 0
	var sum uint32
	for rest := int(h.bodySize); rest > 0; {
		free := r.Body.Free()
		n := min(len(free), rest)
		if err := fill(free[:n]); err != nil {
			return r, endIsDamage(err, damaged)
		}
		sum = crc32.Update(sum, castagnoli, free[:n])
		r.Body.Extend(n)
		rest -= n
	}
	if sum != h.bodySum {
		return r, damaged("checksum of the body")
	}
	return r, l.clear(&r, sealed, damaged)
}

// clear opens a record that is sealed.
func (l *Log) clear(r *Record, sealed bool, damaged func(string) error) error {
	if !sealed {
		return nil
	}
	what, err := l.unseal(r)
	if what != "" {
		err = damaged(what)
	}
	return err
}

// endIsDamage: a file that ends before its records do has lost something. Other errors may pass.
func endIsDamage(err error, damaged func(string) error) error {
	if err == io.EOF {
		return damaged("file is too short")
	}
	return err
}
