package journal

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

// How old an answer about the disk's free space may be: while there is room, and while a refused batch asks again.
const (
	spaceAge     = time.Second
	spaceFullAge = 100 * time.Millisecond
	spaceOctets  = 8 << 20 // written since the answer
)

// space watches the free space of the journal's disk. A write that finds no space is the end of the journal, and with
// it of the deliveries that would free some; so bodies are refused while the last of it is left for the records that
// let mail out.
type space struct {
	asked atomic.Int64 // Unix nanoseconds
	full  atomic.Bool
	roomy atomic.Bool // enough to allocate ahead and to keep spares
}

// look asks the file system. One that cannot say has room.
func (l *Log) look() {
	l.space.asked.Store(time.Now().UnixNano())
	usage, err := l.fs.GetDiskUsage(l.options.Dir)
	free := int64(min(usage.AvailBytes, 1<<62))
	l.space.roomy.Store(err != nil || l.options.MinFree == 0 || free >= l.options.MinFree+4*l.options.SegmentSize)
	full := err == nil && free < l.options.MinFree
	if was := l.space.full.Swap(full); was == full {
		return
	}
	if full {
		l.metrics.full.Set(1)
		l.logger.Error("disk of the journal is nearly full: no mail is accepted", slog.Int64("free", free),
			slog.Int64("wanted", l.options.MinFree))
		l.dropSpares()
		return
	}
	l.metrics.full.Set(0)
	l.logger.Info("disk of the journal has room again", slog.Int64("free", free))
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
	now := time.Now().UnixNano()
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
	return l.Room()
}

// Room implements [Journal]. It costs nothing while there is room.
func (l *Log) Room() error {
	if !l.space.full.Load() {
		return nil
	}
	l.lookIfOld(spaceFullAge)
	if !l.space.full.Load() {
		return nil
	}
	return fmt.Errorf("%w: less than %d octets are free", ErrFull, l.options.MinFree)
}

func (b *Batch) hasBody() bool {
	for i := range b.Records {
		if b.Records[i].Body != nil {
			return true
		}
	}
	return false
}
