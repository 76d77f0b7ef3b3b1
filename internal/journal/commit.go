package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// maxGathered is the size up to which a meta is copied next to its header: cheaper than one more element in the vector.
const maxGathered = 16 << 10

// writer is what the committer knows about the segment being written.
type writer struct {
	file  vfs.File
	seg   *segment
	salt  uint64
	off   int64 // where the next write goes
	dirty bool  // written since the last sync

	work     []*Batch // of this round
	staged   []*Batch // in vector, not yet written
	unsynced []*Batch // written or refused, verdict at the next sync

	scratch []byte   // headers and small metas of what is staged
	vector  [][]byte // what is staged, for one write
	open    int      // begin in scratch of what is not yet in vector
	size    int64    // octets staged
	sys     vectorWriter
}

// Run implements [Journal]. It is the committer: the only goroutine that writes segments.
func (l *Log) Run(ctx context.Context) error {
	if !l.ran.CompareAndSwap(false, true) {
		return errors.New("journal: Run may be called once")
	}
	if l.options.ReadOnly {
		<-ctx.Done()
		return nil
	}
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	armed := false
	for {
		due, last := false, false
		select {
		case <-l.wake:
		case <-timer.C:
			due, armed = true, false
		case <-ctx.Done():
			due, last = true, true
		}
		w := &l.writer
		waiting := false
		if last {
			w.work = l.queue.takeLast(w.work)
		} else {
			w.work, waiting = l.queue.take(w.work, due)
		}
		if err := l.round(due); err != nil {
			return l.fail(err)
		}
		if last {
			return nil
		}
		switch waiting = waiting || w.dirty || len(w.unsynced) > 0; {
		case waiting && !armed:
			timer.Reset(l.options.LazyDelay)
			armed = true
		case !waiting && armed:
			timer.Stop()
			armed = false
		}
	}
}

// round writes writer.work and syncs once if any of it wants that, or sync is set; more often only at the end of a
// segment.
//
// A crash during the round leaves any prefix of its batches, none of which has been acknowledged.
func (l *Log) round(sync bool) error {
	w := &l.writer
	for i, b := range w.work {
		if err := l.place(b); err != nil {
			w.staged = append(w.staged, w.work[i:]...)
			return err
		}
		w.work[i] = nil
		sync = sync || (!b.Lazy && !b.state.written) || b.state.err != nil
	}
	if err := l.write(); err != nil {
		return err
	}
	if sync {
		return l.sync()
	}
	return nil
}

// place stages b, after a roll if the segment is full. After an error b itself has not been placed.
func (l *Log) place(b *Batch) error {
	w := &l.writer
	switch s := &b.state; {
	case s.err != nil || s.roll:
		if s.roll {
			if err := l.roll(); err != nil {
				return err
			}
		}
		// In its turn: what was handed over before must be told before.
		if err := l.write(); err != nil {
			return err
		}
		w.unsynced = append(w.unsynced, b)
		return nil
	case w.off+w.size+s.bytes > l.options.SegmentSize && w.off+w.size > headerSize:
		if err := l.roll(); err != nil {
			return err
		}
	}
	l.stage(b)
	return nil
}

// stage assigns positions to the records of b and puts them into the vector. Meta and body are not copied but for
// small metas.
func (l *Log) stage(b *Batch) {
	w := &l.writer
	if need := len(w.scratch) + b.state.scratch; need > cap(w.scratch) {
		// What is in the vector keeps the old array.
		w.gather()
		w.scratch, w.open = make([]byte, 0, max(2*cap(w.scratch), b.state.scratch, 16<<10)), 0
	}
	durable := l.End()
	for i := range b.Records {
		r := &b.Records[i]
		r.Position = position(w.seg.id, w.off+w.size)
		h := recordHeader{
			kind: r.Kind, flags: r.wire.flags, index: uint32(i), count: uint32(len(b.Records)),
			metaSize: uint32(len(r.wire.meta)), bodySize: r.wire.bodySize, durable: durable, metaSum: r.wire.metaSum,
			bodySum: r.wire.bodySum,
		}
		at := len(w.scratch)
		w.scratch = w.scratch[:at+recordHeaderSize]
		h.encode(w.scratch[at:], w.salt, r.Position)
		if len(r.wire.meta) <= maxGathered {
			w.scratch = append(w.scratch, r.wire.meta...)
		} else {
			w.gather()
			w.vector = append(w.vector, r.wire.meta)
		}
		if r.wire.bodySize > 0 {
			w.gather()
			w.vector = r.wire.body.AppendPieces(w.vector)
		}
		w.size += h.size()
	}
	w.staged = append(w.staged, b)
}

// gather puts the scratch bytes since the last call into the vector.
func (w *writer) gather() {
	if w.open < len(w.scratch) {
		w.vector = append(w.vector, w.scratch[w.open:len(w.scratch):len(w.scratch)])
		w.open = len(w.scratch)
	}
}

const keptScratch = 1 << 20

// write hands what is staged to the operating system. From here on it survives the end of the process, but no power
// cut.
func (l *Log) write() error {
	w := &l.writer
	if len(w.staged) == 0 {
		return nil
	}
	w.gather()
	if w.size > 0 {
		err := w.sys.write(w.file, l.direct, w.vector, w.off)
		if isFull(err) && l.direct && rewrites && l.Relieve() {
			err = w.sys.write(w.file, l.direct, w.vector, w.off)
		}
		if err != nil {
			return fmt.Errorf("writing segment %d: %w", w.seg.id, err)
		}
		w.dirty = true
	}
	l.metrics.bytes.Add(float64(w.size))
	l.metrics.batches.Add(float64(len(w.staged)))
	l.queue.wrote(w.size)
	w.off += w.size
	if l.space.written.Add(w.size) >= spaceOctets {
		l.look()
	} else {
		l.lookIfOld(spaceAge)
	}
	for i, b := range w.staged {
		w.staged[i] = nil
		l.metrics.records.Add(float64(len(b.Records)))
		l.recent.put(b.Records)
		b.unretain()
		if b.state.written {
			l.finish(b, nil)
		} else {
			w.unsynced = append(w.unsynced, b)
		}
	}
	w.unstage()
	return nil
}

func (w *writer) unstage() {
	w.staged = w.staged[:0]
	clear(w.vector)
	w.vector = w.vector[:0]
	w.scratch, w.open, w.size = w.scratch[:0], 0, 0
	if cap(w.scratch) > keptScratch {
		w.scratch = nil
	}
}

// sync makes durable what is written and tells all that wait for it. After a crash all of it is there.
func (l *Log) sync() error {
	w := &l.writer
	if w.dirty {
		begin := time.Now()
		if err := w.file.SyncData(); err != nil {
			return fmt.Errorf("syncing segment %d: %w", w.seg.id, err)
		}
		l.metrics.sync.Observe(time.Since(begin).Seconds())
		w.dirty = false
		l.end.Store(uint64(position(w.seg.id, w.off)))
		l.grown.notify()
	}
	for i, b := range w.unsynced {
		w.unsynced[i] = nil
		l.finish(b, nil)
	}
	w.unsynced = w.unsynced[:0]
	return nil
}

// finish tells b's verdict: err, or what was wrong with b itself. The batch belongs to its owner afterwards.
func (l *Log) finish(b *Batch, err error) {
	s := &b.state
	if s.err == nil {
		s.err = err
	}
	if s.err != nil {
		for i := range b.Records {
			b.Records[i].Position = 0
		}
	}
	switch {
	case s.waiting:
		s.wait <- struct{}{}
	case b.Done != nil:
		b.Done(b, s.err)
	}
}

// abandon finishes a batch that was not written.
func (l *Log) abandon(b *Batch, err error) {
	if b.state.err == nil {
		b.unretain()
	}
	l.finish(b, err)
}

// fail ends the journal: all that is not durable, and all that comes later, gets ErrFailed. Nothing is tried again,
// since after a failed sync the kernel may have dropped the pages and report success for the next.
func (l *Log) fail(cause error) error {
	err := fmt.Errorf("%w: %w", ErrFailed, cause)
	l.logger.Error("journal has failed: nothing more is accepted", slog.Any("error", cause))
	l.metrics.failed.Set(1)

	q := &l.queue
	q.Lock()
	q.refuse, q.failure = err, err
	left := q.batches
	q.batches = nil
	q.room.notify()
	q.Unlock()
	close(l.failed)

	w := &l.writer
	for _, b := range w.unsynced {
		l.finish(b, err)
	}
	for _, b := range slices.Concat(w.staged, left) {
		l.abandon(b, err)
	}
	w.unsynced, w.work = nil, nil
	w.unstage()
	return err
}
