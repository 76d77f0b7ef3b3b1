package journal

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// segment is one extent. Its fields besides the atomic ones are guarded by Log.segs.
type segment struct {
	id      ExtentID
	name    string // in the directory
	end     int64  // octets that count; of the unsealed segment only Log.end tells
	sealed  bool
	removed atomic.Bool
	damaged atomic.Bool
}

// searchLocked returns the index of the first segment with at least the id. Log.segs must be held.
func (l *Log) searchLocked(id ExtentID) int {
	i, _ := slices.BinarySearchFunc(l.segs.list, id, func(s *segment, id ExtentID) int {
		switch {
		case s.id < id:
			return -1
		case s.id > id:
			return 1
		}
		return 0
	})
	return i
}

// limitLocked returns where the durable records of s end. Log.segs must be held.
func (l *Log) limitLocked(s *segment) int64 {
	if s.sealed {
		return s.end
	}
	if end := l.End(); end.extent() == s.id {
		return end.offset()
	}
	return headerSize
}

// Extents implements [Journal].
func (l *Log) Extents() []Extent {
	l.segs.RLock()
	defer l.segs.RUnlock()
	out := make([]Extent, len(l.segs.list))
	for i, s := range l.segs.list {
		limit := l.limitLocked(s)
		out[i] = Extent{
			ID: s.id, First: position(s.id, headerSize), End: position(s.id, limit), Bytes: limit - headerSize,
			Sealed: s.sealed,
		}
	}
	return out
}

// ExtentOf implements [Journal].
func (l *Log) ExtentOf(p Position) ExtentID { return p.extent() }

// readFiles are the segments open for reading: few, whatever the number of segments.
type readFiles struct {
	fs  vfs.FS
	dir string
	mu  struct {
		sync.Mutex
		open  map[ExtentID]*readFile
		clock uint64
	}
}

const maxReadFiles = 32

type readFile struct {
	vfs.File
	id   ExtentID
	salt uint64

	// Guarded by readFiles.mu.
	refs    int
	used    uint64
	dropped bool // no longer in the table; closed with the last reference
}

// acquire opens s for reading or shares what is open.
func (l *Log) acquire(s *segment) (*readFile, error) {
	f, err := l.files.acquire(s, l.nameOf)
	if err != nil && l.isGone(s) {
		return nil, ErrRemoved
	}
	return f, err
}

// nameOf returns the present name of s, which changes when s is sealed.
func (l *Log) nameOf(s *segment) (string, error) {
	if l.options.ReadOnly {
		// Another process may have sealed or removed it.
		name, err := l.findName(s.id)
		if err == nil && name == "" {
			err = os.ErrNotExist
		}
		return name, err
	}
	l.segs.RLock()
	defer l.segs.RUnlock()
	return s.name, nil
}

func (r *readFiles) acquire(s *segment, nameOf func(*segment) (string, error)) (*readFile, error) {
	r.mu.Lock()
	if f := r.mu.open[s.id]; f != nil {
		r.useLocked(f)
		r.mu.Unlock()
		return f, nil
	}
	r.mu.Unlock()

	f, err := r.openFile(s, nameOf)
	if err != nil {
		return nil, err
	}
	header, err := readHeader(f, s.id)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reading header of segment %d: %w", s.id, err), f.Close())
	}
	fresh := &readFile{File: f, id: s.id, salt: header.salt}

	r.mu.Lock()
	defer r.mu.Unlock()
	if other := r.mu.open[s.id]; other != nil {
		r.useLocked(other)
		return other, f.Close()
	}
	r.useLocked(fresh)
	if s.removed.Load() {
		fresh.dropped = true
		return fresh, nil
	}
	if r.mu.open == nil {
		r.mu.open = make(map[ExtentID]*readFile)
	}
	r.mu.open[s.id] = fresh
	return fresh, r.evictLocked()
}

func (r *readFiles) useLocked(f *readFile) {
	f.refs++
	r.mu.clock++
	f.used = r.mu.clock
}

// renameTries is how often a file is looked for under its name, a millisecond apart.
const renameTries = 20

func (r *readFiles) openFile(s *segment, nameOf func(*segment) (string, error)) (vfs.File, error) {
	name, err := nameOf(s)
	for same := 0; err == nil; {
		f, failed := r.fs.Open(r.fs.PathJoin(r.dir, name))
		if failed == nil {
			return f, nil
		}
		if !errors.Is(failed, os.ErrNotExist) || s.removed.Load() {
			return nil, failed
		}
		tried := name
		if name, err = nameOf(s); name != tried {
			continue
		}
		// It is being renamed, and the new name is about to be told.
		if same++; same == renameTries {
			return nil, failed
		}
		time.Sleep(time.Millisecond)
	}
	return nil, err
}

// evictLocked closes the file unused for longest when there are too many.
func (r *readFiles) evictLocked() error {
	if len(r.mu.open) <= maxReadFiles {
		return nil
	}
	var oldest *readFile
	for _, f := range r.mu.open {
		if f.refs == 0 && (oldest == nil || f.used < oldest.used) {
			oldest = f
		}
	}
	if oldest == nil {
		return nil
	}
	delete(r.mu.open, oldest.id)
	return oldest.Close()
}

func (r *readFiles) release(f *readFile) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	f.refs--
	if f.dropped && f.refs == 0 {
		return f.Close()
	}
	return nil
}

// drop forgets a removed segment. Who reads it keeps its file to the end.
func (r *readFiles) drop(id ExtentID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.mu.open[id]
	if f == nil {
		return nil
	}
	delete(r.mu.open, id)
	f.dropped = true
	if f.refs == 0 {
		return f.Close()
	}
	return nil
}

func (r *readFiles) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for id, f := range r.mu.open {
		delete(r.mu.open, id)
		f.dropped = true
		if f.refs == 0 {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
