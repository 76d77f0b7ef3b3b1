package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// reader walks over the segments of a Log. It holds one file at a time.
type reader struct {
	log    *Log
	at     Position // where to go on
	seg    *segment // that at lies in; nil before the first
	file   *readFile
	sealed bool
	window window
	recent follower
	clear  []byte // meta of the last entry, if it was sealed
	closed bool
}

// NewReader implements [Journal].
func (l *Log) NewReader(from Position) (Reader, error) {
	if from > l.End() {
		return nil, fmt.Errorf("reading from %#x: %w", uint64(from), ErrNoRecord)
	}
	if from.offset() < headerSize {
		from = position(from.extent(), headerSize)
	}
	l.recent.wanted.Store(true)
	return &reader{log: l, at: from}, nil
}

// Next implements [Reader].
func (r *reader) Next(ctx context.Context, wait bool) (Entry, error) {
	for {
		if r.closed {
			return Entry{}, ErrClosed
		}
		if ctx.Err() != nil {
			return Entry{}, context.Cause(ctx)
		}
		if r.seg != nil && r.seg.removed.Load() {
			return Entry{}, r.skipRemoved()
		}
		if r.seg != nil && r.at.offset() < r.window.limit {
			e, ok, err := r.step()
			if ok || err != nil {
				return e, err
			}
			continue
		}
		var grown <-chan struct{}
		if wait {
			grown = r.log.grown.wait()
		}
		moved, err := r.advance()
		if err != nil {
			return Entry{}, err
		}
		if moved {
			continue
		}
		if !wait {
			return Entry{}, io.EOF
		}
		select {
		case <-grown:
		case <-ctx.Done():
		case <-r.log.failed:
			return Entry{}, r.log.Err()
		case <-r.log.closed:
			return Entry{}, ErrClosed
		}
	}
}

// skipRemoved leaves a segment that was removed. It returns ErrRemoved.
func (r *reader) skipRemoved() error {
	at := r.at
	r.at = position(r.seg.id+1, headerSize)
	return errors.Join(fmt.Errorf("reading from %#x: %w", uint64(at), ErrRemoved), r.leave())
}

// advance sees whether the segment has grown, or goes to the next one.
func (r *reader) advance() (moved bool, err error) {
	l := r.log
	l.segs.RLock()
	if r.seg != nil && !r.sealed {
		r.sealed = r.seg.sealed
		limit := l.limitLocked(r.seg)
		moved = limit > r.window.limit
		r.window.limit = limit
	}
	if moved || r.seg != nil && !r.sealed {
		l.segs.RUnlock()
		return moved, nil
	}
	want := r.at.extent()
	if r.seg != nil {
		want++
	}
	i := l.searchLocked(want)
	if i == len(l.segs.list) {
		l.segs.RUnlock()
		return false, nil
	}
	s, limit := l.segs.list[i], l.limitLocked(l.segs.list[i])
	sealed := s.sealed
	l.segs.RUnlock()
	return true, r.enter(s, limit, sealed)
}

func (r *reader) enter(s *segment, limit int64, sealed bool) error {
	if err := r.leave(); err != nil {
		return err
	}
	if r.at.extent() != s.id {
		r.at = position(s.id, headerSize)
	}
	file, err := r.log.acquire(s)
	switch {
	case errors.Is(err, errHeader):
		r.window.reset(nil, s.id, 0, limit) // step notes it
	case errors.Is(err, ErrRemoved):
		r.seg = s // Next sees that it is
		return nil
	case err != nil:
		return fmt.Errorf("reading segment %d: %w", s.id, err)
	default:
		r.window.reset(file, s.id, file.salt, limit)
	}
	r.seg, r.file, r.sealed = s, file, sealed
	return nil
}

func (r *reader) leave() error {
	if r.file == nil {
		r.seg = nil
		return nil
	}
	file := r.file
	r.seg, r.file = nil, nil
	return r.log.files.release(file)
}

// step reads the record at r.at, or steps over damage.
func (r *reader) step() (Entry, bool, error) {
	off := r.at.offset()
	if r.file == nil {
		// Without the header's salt no record of the segment can be told.
		r.log.noteDamage(r.seg, off, r.window.limit, errHeader.Error())
		r.at = position(r.seg.id, r.window.limit)
		return Entry{}, false, nil
	}
	if e, ok := r.recent.next(&r.log.recent, r.at); ok {
		return r.give(e)
	}
	h, meta, ok, err := r.window.record(off)
	if err != nil {
		return Entry{}, false, fmt.Errorf("reading %#x: %w", uint64(r.at), err)
	}
	if !ok {
		next, err := r.window.resync(off + 1)
		if err != nil {
			return Entry{}, false, fmt.Errorf("reading behind damage at %#x: %w", uint64(r.at), err)
		}
		r.log.noteDamage(r.seg, off, next, "no valid record")
		r.at = position(r.seg.id, next)
		return Entry{}, false, nil
	}
	e := Entry{
		Position: r.at, Next: r.at + Position(h.size()), Kind: h.kind, Meta: meta,
		BodySize: int64(h.bodySize), HasBody: h.flags&flagBody != 0,
		sealed: h.flags&flagSealed != 0,
	}
	return r.give(e)
}

// give opens an entry that is sealed. One that does not open is damage, and stepped over.
func (r *reader) give(e Entry) (Entry, bool, error) {
	if e.sealed {
		var err error
		if r.clear, err = r.log.unsealEntry(&e, r.clear); errors.Is(err, ErrSealed) {
			return Entry{}, false, fmt.Errorf("reading %#x: %w", uint64(e.Position), err)
		} else if err != nil {
			r.log.noteDamage(r.seg, e.Position.offset(), e.Next.offset(), fmt.Sprintf("the meta does not open: %v", err))
			r.at = e.Next
			return Entry{}, false, nil
		}
	}
	r.at = e.Next
	return e, true, nil
}

// Close implements [Reader].
func (r *reader) Close() error {
	if r.closed {
		return nil
	}
	r.closed = true
	return r.leave()
}
