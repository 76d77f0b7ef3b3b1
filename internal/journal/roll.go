package journal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// worthTruncating is the allocated rest of a sealed segment that is given back.
const worthTruncating = 1 << 20

// roll makes all that is staged durable, seals the segment and begins the next. A segment without records is kept.
//
// A crash leaves the old segment sealed or unsealed and the new one or not: Open knows each of the four cases, and
// none has lost a record, since nothing is written to the new segment before its name is durable.
func (l *Log) roll() error {
	w := &l.writer
	if err := l.write(); err != nil {
		return err
	}
	if err := l.sync(); err != nil {
		return err
	}
	if w.off == headerSize {
		return nil
	}
	old, oldFile, end := w.seg, w.file, w.off
	file, salt, err := l.makeSegment(old.id+1, l.End())
	if isFull(err) && l.Relieve() {
		file, salt, err = l.makeSegment(old.id+1, l.End())
	}
	if err != nil {
		return err
	}
	w.file = file
	if l.direct && l.options.SegmentSize-end >= worthTruncating {
		truncate(oldFile, end)
	}
	if err := oldFile.Close(); err != nil {
		return fmt.Errorf("closing segment %d: %w", old.id, err)
	}
	if err := l.seal(old, end); err != nil {
		return err
	}
	next := &segment{id: old.id + 1, name: activeName(old.id + 1)}
	w.seg, w.salt, w.off = next, salt, headerSize

	l.segs.Lock()
	l.segs.list = append(l.segs.list, next)
	l.end.Store(uint64(position(next.id, headerSize)))
	l.metrics.segments.Set(float64(len(l.segs.list)))
	l.segs.Unlock()
	l.grown.notify()
	l.logger.Debug("journal segment sealed", slog.Uint64("segment", uint64(old.id)), slog.Int64("octets", end))
	return nil
}

// makeSegment makes the file of an empty segment under its own name. The name is durable only after the directory's
// next sync. A crash leaves a file with the suffix .tmp, which Open deletes, or an empty segment.
func (l *Log) makeSegment(id ExtentID, before Position) (vfs.File, uint64, error) {
	if id >= 1<<32 {
		return nil, 0, fmt.Errorf("segment number %d is too large", id)
	}
	var salt [8]byte
	if _, err := io.ReadFull(l.options.Rand, salt[:]); err != nil {
		return nil, 0, fmt.Errorf("salt of segment %d: %w", id, err)
	}
	header := segmentHeader{
		id: id, epoch: l.epoch, before: before, salt: binary.LittleEndian.Uint64(salt[:]),
		created: time.Now().UnixNano(), owner: l.owner,
	}
	making := l.path(makingName(id))
	if err := l.reuse(making); err != nil {
		l.logger.Warn("a spare journal segment cannot be used", slog.Uint64("segment", uint64(id)), slog.Any("error", err))
	}
	f, err := l.fs.OpenReadWrite(making, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, 0, fmt.Errorf("making segment %d: %w", id, err)
	}
	// Saves the file system an allocation per sync. Where it does not work all else does.
	if l.space.roomy.Load() {
		_ = f.Preallocate(0, l.options.SegmentSize)
	}
	_, err = f.Write(header.encode()) // the file stands at its begin, and so for all writes to come
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = l.fs.Rename(making, l.path(activeName(id)))
	}
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("making segment %d: %w", id, err), f.Close())
	}
	return f, header.salt, nil
}

// reuse renames a spare to name, if there is one. The blocks hold old records; the new salt makes them void.
func (l *Log) reuse(name string) error {
	l.spares.Lock()
	n := len(l.spares.ids)
	if n == 0 {
		l.spares.Unlock()
		return nil
	}
	id := l.spares.ids[n-1]
	l.spares.ids = l.spares.ids[:n-1]
	l.spares.Unlock()
	return l.fs.Rename(l.path(spareName(id)), name)
}

// seal writes the end of s, all of which is durable, into its name, and makes names durable.
//
// A crash leaves the old name or the new one. With the old one Open finds the same end again.
func (l *Log) seal(s *segment, end int64) error {
	name := sealedName(s.id, end)
	if err := l.fs.Rename(l.path(activeName(s.id)), l.path(name)); err != nil {
		return fmt.Errorf("sealing segment %d: %w", s.id, err)
	}
	l.segs.Lock()
	s.name = name // for readers, at once
	l.segs.Unlock()
	if err := l.syncDir(); err != nil {
		return err
	}
	l.segs.Lock()
	s.end, s.sealed = end, true
	l.segs.Unlock()
	return nil
}

// syncDir makes names durable: of files made, renamed and removed.
func (l *Log) syncDir() error {
	l.dirSync.Lock()
	defer l.dirSync.Unlock()
	if err := l.dir.Sync(); err != nil {
		return fmt.Errorf("syncing journal directory: %w", err)
	}
	return nil
}

// sealAtClose seals the segment if it has records. Its allocated rest is given back.
func (l *Log) sealAtClose() error {
	w := &l.writer
	if w.off == headerSize || w.dirty {
		return nil
	}
	if l.direct {
		truncate(w.file, w.off)
	}
	file := w.file
	w.file = nil
	if err := file.Close(); err != nil {
		return fmt.Errorf("closing segment %d: %w", w.seg.id, err)
	}
	return l.seal(w.seg, w.off)
}

// Remove implements [Journal]. An extent with known damage is renamed instead, out of the journal but not off the
// disk, for people to look at.
//
// A crash leaves the extent whole or gone. Readers that stand in it get ErrRemoved.
func (l *Log) Remove(ctx context.Context, id ExtentID) error {
	if l.options.ReadOnly {
		return ErrReadOnly
	}
	l.remove.Lock()
	defer l.remove.Unlock()
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	l.segs.RLock()
	i := l.searchLocked(id)
	if i == len(l.segs.list) || l.segs.list[i].id != id {
		l.segs.RUnlock()
		return nil
	}
	s := l.segs.list[i]
	name, end, sealed := s.name, s.end, s.sealed
	l.segs.RUnlock()
	if !sealed {
		return fmt.Errorf("removing segment %d: %w", id, ErrInUse)
	}

	// From here on no new reader opens the file by its name.
	s.removed.Store(true)
	spare, err := l.removeFile(s, name, end)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.removed.Store(false)
		return fmt.Errorf("removing segment %d: %w: %w", id, ErrStays, err)
	}
	l.segs.Lock()
	i = l.searchLocked(id)
	// The list is copied, since a roll may have appended to the same array.
	l.segs.list = append(append(make([]*segment, 0, len(l.segs.list)), l.segs.list[:i]...), l.segs.list[i+1:]...)
	l.metrics.segments.Set(float64(len(l.segs.list)))
	l.segs.Unlock()
	if err := errors.Join(l.files.drop(id), l.syncDir()); err != nil {
		return fmt.Errorf("removing segment %d: %w", id, err)
	}
	// Only now: the next user's rename must not overtake this one.
	if spare {
		l.spares.Lock()
		l.spares.ids = append(l.spares.ids, id)
		l.spares.Unlock()
	}
	return nil
}

func (l *Log) removeFile(s *segment, name string, end int64) (spare bool, err error) {
	if s.damaged.Load() {
		kept := name[:len(name)-len(suffixSegment)] + suffixDamaged
		l.logger.Warn("damaged journal segment is put aside", slog.String("file", kept))
		return false, l.fs.Rename(l.path(name), l.path(kept))
	}
	l.spares.Lock()
	room := len(l.spares.ids) < l.options.Spares && l.space.roomy.Load()
	l.spares.Unlock()
	// A short segment has few blocks to offer.
	if l.sealer() != nil && s.id < l.begun {
		room = false // it may hold clear records, which would lie in the rest of a new segment
	}
	if room && end >= l.options.SegmentSize/2 && end <= 2*l.options.SegmentSize {
		return true, l.fs.Rename(l.path(name), l.path(spareName(s.id)))
	}
	return false, l.fs.Remove(l.path(name))
}
