package journal

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// inventory is what the directory holds.
type inventory struct {
	segments []*segment
	scrap    []string // to be deleted
	spares   []ExtentID
	last     ExtentID // highest number ever seen
}

func (l *Log) open() error {
	if l.options.ReadOnly {
		return l.openReadOnly()
	}
	if err := makeDir(l.fs, l.options.Dir); err != nil {
		return err
	}
	var err error
	if l.lock, err = l.fs.Lock(l.path(lockName)); err != nil {
		if errors.Is(err, os.ErrPermission) || errors.Is(err, os.ErrNotExist) {
			return err
		}
		return fmt.Errorf("%w: %w", ErrLocked, err)
	}
	if l.dir, err = l.fs.OpenDir(l.options.Dir); err != nil {
		return err
	}
	inv, err := l.takeInventory()
	if err != nil {
		return err
	}
	if err := l.claim(inv.segments); err != nil {
		return err
	}
	for _, name := range inv.scrap {
		if err := l.fs.Remove(l.path(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("removing %s: %w", name, err)
		}
	}
	l.spares.ids = inv.spares
	l.findBallast()
	l.loadDamage(inv.segments)
	l.look()
	empty, err := l.recover(inv.segments)
	if err != nil {
		return err
	}
	return l.begin(inv.last+1, empty)
}

// openReadOnly sees what is there. A running server may roll and remove meanwhile, so names may have to be read again.
func (l *Log) openReadOnly() error {
	const tries = 10
	for try := 1; ; try++ {
		inv, err := l.takeInventory()
		if err != nil {
			return err
		}
		if err = l.claim(inv.segments); err == nil {
			_, err = l.recover(inv.segments)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, os.ErrNotExist) || try == tries {
			return err
		}
		l.segs.list = nil
	}
	if n := len(l.segs.list); n > 0 {
		s := l.segs.list[n-1]
		l.end.Store(uint64(position(s.id, s.end)))
	}
	l.loadDamage(l.segs.list)
	return nil
}

func (l *Log) takeInventory() (inventory, error) {
	names, err := l.fs.List(l.options.Dir)
	if err != nil {
		return inventory{}, err
	}
	slices.Sort(names)
	var inv inventory
	for _, name := range names {
		id, end, ok := parseSegmentName(name)
		if !ok {
			number, suffix, _ := strings.Cut(name, ".")
			number, _, _ = strings.Cut(number, "-")
			n, hex := parseHex(number, 16)
			if hex {
				inv.last = max(inv.last, ExtentID(n))
			}
			switch "." + suffix {
			case suffixMaking:
				inv.scrap = append(inv.scrap, name)
			case suffixSpare:
				// A spare may hold mail from before encryption was turned on.
				if hex && len(inv.spares) < l.options.Spares && l.sealer() == nil {
					inv.spares = append(inv.spares, ExtentID(n))
				} else {
					inv.scrap = append(inv.scrap, name)
				}
			}
			continue
		}
		inv.last = max(inv.last, id)
		inv.segments = append(inv.segments, &segment{id: id, name: name, end: end, sealed: end > 0})
	}
	slices.SortFunc(inv.segments, func(a, b *segment) int {
		// Of two names of one segment the sealed one counts: the file system was between the names when it stopped.
		return cmp.Or(cmp.Compare(a.id, b.id), cmp.Compare(b.end, a.end))
	})
	kept := inv.segments[:0]
	for _, s := range inv.segments {
		if n := len(kept); n > 0 && kept[n-1].id == s.id {
			inv.scrap = append(inv.scrap, s.name)
			continue
		}
		kept = append(kept, s)
	}
	inv.segments = kept
	return inv, nil
}

// claim compares owner and epoch with those of the newest segment and decides on this reign's.
func (l *Log) claim(segments []*segment) error {
	l.owner, l.epoch = l.options.Owner, max(l.options.Epoch, 1)
	for _, s := range slices.Backward(segments) {
		h, err := l.headerOf(s)
		if errors.Is(err, errHeader) {
			continue
		}
		if err != nil {
			return err
		}
		if l.options.Owner == "" {
			l.owner = h.owner
		} else if h.owner != l.options.Owner {
			return fmt.Errorf("%w: %q, not %q", ErrOwner, h.owner, l.options.Owner)
		}
		if l.options.Epoch == 0 || l.options.ReadOnly {
			l.epoch = h.epoch
		} else if l.options.Epoch < h.epoch {
			return fmt.Errorf("%w: %d, ours is %d", ErrFenced, h.epoch, l.options.Epoch)
		}
		return nil
	}
	return nil
}

func (l *Log) headerOf(s *segment) (segmentHeader, error) {
	f, err := l.fs.Open(l.path(s.name))
	if err != nil {
		return segmentHeader{}, err
	}
	h, err := readHeader(f, s.id)
	if err != nil {
		err = fmt.Errorf("reading header of segment %d: %w", s.id, err)
	}
	return h, errors.Join(err, f.Close())
}

// recover finds the end of each unsealed segment, normally the last, and seals it. Sealed ones are only looked at for
// their size. Those without records are not taken into the list but returned.
func (l *Log) recover(segments []*segment) (empty []*segment, err error) {
	for i, s := range segments {
		if s.sealed {
			if err := l.checkSize(s); err != nil {
				return nil, err
			}
		} else {
			var before Position
			if i+1 < len(segments) {
				h, err := l.headerOf(segments[i+1])
				if err != nil && !errors.Is(err, errHeader) {
					return nil, err
				}
				before = h.before
			}
			if err := l.recoverSegment(s, before); err != nil {
				return nil, fmt.Errorf("recovering segment %d: %w", s.id, err)
			}
		}
		if s.end <= headerSize && !s.damaged.Load() {
			empty = append(empty, s)
			continue
		}
		l.segs.list = append(l.segs.list, s)
	}
	return empty, nil
}

func (l *Log) checkSize(s *segment) error {
	info, err := l.fs.Stat(l.path(s.name))
	if err != nil {
		return err
	}
	if info.Size() < s.end {
		l.noteDamage(s, max(info.Size(), headerSize), s.end, "file is too short")
	}
	return nil
}

// recoverSegment finds where the records of an unsealed segment end and seals it there. before, from the next
// segment's header, is that end if the crash fell between the making of the next and the sealing of this.
//
// What was found is synced first: after a mere kill it may be in the page cache only, and from here on it counts as
// durable.
func (l *Log) recoverSegment(s *segment, before Position) (err error) {
	f, err := l.openUnsealed(s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	// The limit of a position: 32 bits.
	size := min(info.Size(), 1<<32-1)
	header, err := readHeader(f, s.id)
	var end int64
	switch {
	case errors.Is(err, errHeader):
		end = max(size, headerSize)
		l.noteDamage(s, headerSize, end, err.Error())
	case err != nil:
		return err
	case before.extent() == s.id && before.offset() >= headerSize:
		end = before.offset()
		if size < end {
			l.noteDamage(s, max(size, headerSize), end, "file is too short")
		}
	default:
		scan := scanner{log: l, seg: s}
		scan.window.reset(f, s.id, header.salt, size)
		if end, err = scan.run(); err != nil {
			return err
		}
		l.logger.Info("journal segment recovered", slog.Uint64("segment", uint64(s.id)), slog.Int64("octets", end),
			slog.Int64("records", scan.records), slog.Int64("unused", size-end))
	}
	if l.options.ReadOnly {
		if l.isGone(s) {
			return fmt.Errorf("it was removed meanwhile: %w", os.ErrNotExist)
		}
		s.end, s.sealed = end, true
		return nil
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if end == headerSize {
		s.end = end
		return nil
	}
	if l.direct {
		truncate(f, size) // only what is allocated behind the file: a torn tail stays for people to look at
	}
	return l.seal(s, end)
}

func (l *Log) openUnsealed(s *segment) (vfs.File, error) {
	if l.options.ReadOnly {
		return l.fs.Open(l.path(s.name))
	}
	return l.fs.OpenReadWrite(l.path(s.name), vfs.WriteCategoryUnspecified)
}

// begin makes the segment that this reign writes to. With its header the epoch is durable: a lower one is fenced from
// here on.
func (l *Log) begin(id ExtentID, empty []*segment) error {
	file, salt, err := l.makeSegment(id, l.lastEnd())
	if err != nil {
		return err
	}
	l.writer.file, l.writer.salt, l.writer.off = file, salt, headerSize
	if err := l.syncDir(); err != nil {
		return err
	}
	// After the new one is durable, so that no number is ever used twice.
	for _, s := range empty {
		if err := l.fs.Remove(l.path(s.name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("removing empty segment %d: %w", s.id, err)
		}
	}
	s := &segment{id: id, name: activeName(id)}
	l.writer.seg = s
	l.begun = id
	l.segs.list = append(l.segs.list, s)
	l.metrics.segments.Set(float64(len(l.segs.list)))
	l.end.Store(uint64(position(id, headerSize)))
	return nil
}

func (l *Log) lastEnd() Position {
	if n := len(l.segs.list); n > 0 {
		return position(l.segs.list[n-1].id, l.segs.list[n-1].end)
	}
	return 0
}

// makeDir makes dir and those above it, one by one, each durable before the next. A crash leaves some of them, empty.
// What exists already may have been made by an Open that failed before it could sync, so its name is synced again.
func makeDir(fs vfs.FS, dir string) error {
	missing := []string{}
	existing := dir
	for ; ; existing = fs.PathDir(existing) {
		_, err := fs.Stat(existing)
		if err == nil || fs.PathDir(existing) == existing {
			break
		}
		if !errors.Is(err, os.ErrNotExist) {
			return err
		}
		missing = append(missing, existing)
	}
	// Whoever may not look into the directory above did not make this one.
	if err := syncDir(fs, fs.PathDir(existing)); err != nil && !errors.Is(err, os.ErrPermission) {
		return err
	}
	for _, d := range slices.Backward(missing) {
		if err := fs.MkdirAll(d, 0o700); err != nil {
			return err
		}
		if err := syncDir(fs, fs.PathDir(d)); err != nil {
			return err
		}
	}
	return nil
}

func syncDir(fs vfs.FS, name string) error {
	d, err := fs.OpenDir(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
