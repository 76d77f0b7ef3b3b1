package journal

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// How old an answer about the disk's free space may be: while there is room, and while a refused batch asks again.
const (
	spaceAge     = time.Second
	spaceFullAge = 100 * time.Millisecond
	spaceOctets  = 8 << 20 // written since the answer
)

// minInodes is how many files the disk must still take: segments, tables of the index and event files are made all the
// time.
const minInodes = 128

// space watches the free space of the journal's disk. A write that finds no space is the end of the journal, and with
// it of the deliveries that would free some; so bodies are refused while the last of it, the reserve, is left for the
// records that let mail out. Half of the reserve is a file of ours, the ballast: should somebody else fill the disk
// meanwhile, it is given up, once.
type space struct {
	asked   atomic.Int64 // nanoseconds since Log.opened, which no change of the clock moves
	free    atomic.Int64 // octets, as answered then, ballast included
	written atomic.Int64 // octets since then
	full    atomic.Bool
	roomy   atomic.Bool // enough to allocate ahead and to keep spares

	ballast struct {
		sync.Mutex
		octets int64 // 0: there is none
	}
}

// InodeFS is what a file system may implement to say how many more files it takes. The operating system's is asked
// anyway.
type InodeFS interface {
	// FreeInodes returns how many files can be made in dir; ok is false if there is no such limit.
	FreeInodes(dir string) (n uint64, ok bool)
}

// look asks the file system. One that cannot say has room.
func (l *Log) look() {
	l.space.asked.Store(int64(time.Since(l.opened)))
	free, why := int64(1<<62), ""
	if usage, err := l.fs.GetDiskUsage(l.options.Dir); err == nil {
		free = int64(min(usage.AvailBytes, 1<<62)) + l.ballast()
	}
	l.space.written.Store(0)
	l.space.free.Store(free)
	wanted := l.options.MinFree
	l.space.roomy.Store(wanted == 0 || free >= wanted+4*l.options.SegmentSize)
	if l.space.full.Load() {
		wanted += wanted / 4 // not back and forth with each segment
	}
	if free < wanted {
		why = "space"
	}
	inodes, limited := l.freeInodes()
	if limited && inodes < minInodes && l.options.MinFree > 0 {
		why = "inodes"
	}
	l.setFull(why, free, inodes)
	if why == "" && free >= 2*l.options.MinFree {
		l.makeBallast()
	}
}

func (l *Log) freeInodes() (uint64, bool) {
	if fs, ok := l.fs.(InodeFS); ok {
		return fs.FreeInodes(l.options.Dir)
	}
	if l.direct {
		return freeInodes(l.options.Dir)
	}
	return 0, false
}

// setFull notes whether the disk is full, and says so once when that changes.
func (l *Log) setFull(why string, free int64, inodes uint64) {
	if full := why != ""; l.space.full.Swap(full) == full {
		return
	}
	if why != "" {
		l.metrics.full.Set(1)
		l.logger.Error("disk of the journal is nearly full: no mail is accepted until there is room", slog.String("of", why),
			slog.Int64("free", free), slog.Int64("reserve", l.options.MinFree), slog.Uint64("inodes", inodes))
		l.dropSpares()
		return
	}
	l.metrics.full.Set(0)
	l.logger.Info("disk of the journal has room again: mail is accepted", slog.Int64("free", free))
}

// dropSpares gives the spares' blocks back.
func (l *Log) dropSpares() {
	l.spares.Lock()
	ids := l.spares.ids
	l.spares.ids = nil
	l.spares.Unlock()
	for _, id := range ids {
		if err := l.fs.Remove(l.path(spareName(id))); err != nil {
			l.logger.Warn("spare journal segment stays", slog.Uint64("segment", uint64(id)), slog.Any("error", err))
		}
	}
}

// lookIfOld asks if the last answer is older than age. Of several callers one asks.
func (l *Log) lookIfOld(age time.Duration) {
	asked := l.space.asked.Load()
	now := int64(time.Since(l.opened))
	if now-asked < int64(age) || !l.space.asked.CompareAndSwap(asked, now) {
		return
	}
	l.look()
}

// admit refuses a batch with bodies when the disk is nearly full.
func (l *Log) admit(b *Batch) error {
	if !b.hasBody() {
		return nil
	}
	return l.Room(0)
}

// Room implements [Journal]. It costs nothing while there is room.
func (l *Log) Room(octets int64) error {
	if l.roomFor(octets) {
		return nil
	}
	l.lookIfOld(spaceFullAge)
	if l.roomFor(octets) {
		return nil
	}
	if free := l.space.free.Load(); free < l.options.MinFree+l.options.MinFree/4 {
		l.setFull("space", free, 0) // what is under way takes the rest
	}
	return fmt.Errorf("%w: less than %d octets or %d files are left of its disk", ErrFull, l.options.MinFree, minInodes)
}

// roomFor reports whether octets may be written and leave the reserve untouched.
func (l *Log) roomFor(octets int64) bool {
	s := &l.space
	return !s.full.Load() && (l.options.MinFree == 0 || s.free.Load()-s.written.Load()-octets >= l.options.MinFree)
}

func (b *Batch) hasBody() bool {
	for i := range b.Records {
		if b.Records[i].Body != nil {
			return true
		}
	}
	return false
}

// ballastName is the file that is given up when a write finds no space.
const ballastName = "BALLAST"

func (l *Log) ballast() int64 {
	l.space.ballast.Lock()
	defer l.space.ballast.Unlock()
	return l.space.ballast.octets
}

// findBallast learns of the ballast that an earlier process left.
func (l *Log) findBallast() {
	if info, err := l.fs.Stat(l.path(ballastName)); err == nil {
		l.space.ballast.octets = info.Size()
	}
}

// makeBallast makes the ballast if there is none. A crash leaves it, or part of it, which counts as well.
func (l *Log) makeBallast() {
	b := &l.space.ballast
	b.Lock()
	defer b.Unlock()
	octets := l.options.MinFree / 2
	if b.octets > 0 || octets == 0 || !l.direct {
		return
	}
	f, err := l.fs.Create(l.path(ballastName), vfs.WriteCategoryUnspecified)
	if err == nil {
		if err = allocate(f, octets); err == nil {
			b.octets = octets
		}
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		l.logger.Debug("no ballast is kept", slog.Any("error", err))
		_ = l.fs.Remove(l.path(ballastName))
	}
}

// Relieve gives up the ballast, for whoever found no space on the journal's disk and will try once more. It reports
// whether there was any. No mail is accepted from here on until there is room again.
func (l *Log) Relieve() bool {
	if l.options.ReadOnly {
		return false
	}
	b := &l.space.ballast
	b.Lock()
	had := b.octets
	if had > 0 {
		if err := l.fs.Remove(l.path(ballastName)); err != nil && !errors.Is(err, os.ErrNotExist) {
			l.logger.Error("the ballast cannot be given up", slog.Any("error", err))
			had = 0
		} else {
			b.octets = 0
		}
	}
	b.Unlock()
	if had > 0 {
		l.logger.Error("disk of the journal is full: the ballast is given up", slog.Int64("octets", had))
	}
	l.look()
	return had > 0
}

// isFull says whether a write found no space, which, unlike a failed sync, may be tried again: nothing was lost.
func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }
