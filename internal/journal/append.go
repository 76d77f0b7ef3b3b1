package journal

import (
	"context"
	"fmt"
	"hash/crc32"
	"math"
	"sync"
)

// batchState is what the engine keeps in a batch between hand-over and verdict.
type batchState struct {
	wait    chan struct{} // one slot, made at first use and kept for reuse
	err     error
	bytes   int64
	scratch int  // octets of it that the committer gathers: headers and small metas
	written bool // the waiter is content when the bytes are written
	waiting bool // somebody waits on wait; Done is not called
	roll    bool // seal the current segment instead of writing
}

// pending is what has been handed over and not yet taken by the committer.
type pending struct {
	sync.Mutex
	batches []*Batch
	bytes   int64     // handed over and not yet written
	urgent  bool      // one of batches does not want to wait
	refuse  error     // set: nothing is taken any more
	failure error     // ErrFailed and why
	closed  bool      // Close was called
	room    broadcast // bytes have become less, or refuse was set
}

// Append implements [Journal].
func (l *Log) Append(ctx context.Context, b *Batch) error {
	return l.append(ctx, b, false)
}

// AppendWritten implements [Journal].
func (l *Log) AppendWritten(ctx context.Context, b *Batch) error {
	return l.append(ctx, b, true)
}

func (l *Log) append(ctx context.Context, b *Batch, written bool) error {
	s := batchState{wait: b.state.wait, written: written, waiting: true}
	if s.wait == nil {
		s.wait = make(chan struct{}, 1)
	}
	b.state = s
	if err := l.admit(b); err != nil {
		return err
	}
	if err := b.prepare(l.sealer()); err != nil {
		return err
	}
	if err := l.enqueue(ctx, b, l.ifRoom); err != nil {
		b.unretain()
		return err
	}
	<-s.wait
	return b.state.err
}

// Submit implements [Journal].
func (l *Log) Submit(b *Batch) {
	b.state = batchState{wait: b.state.wait}
	// A batch that cannot be written gets its verdict in its turn, from the committer like all.
	b.state.err = b.prepare(l.sealer())
	if err := l.enqueue(context.Background(), b, l.always); err != nil {
		l.refuse(b, err)
	}
}

// refuse tells b's verdict when there is no committer any more; not from Submit itself, whose caller may hold what
// Done needs.
func (l *Log) refuse(b *Batch, err error) {
	l.queue.Lock()
	closed := l.queue.closed
	if !closed {
		l.late.Go(func() { l.abandon(b, err) })
	}
	l.queue.Unlock()
	if closed {
		l.abandon(b, err)
	}
}

// Roll implements [Journal].
func (l *Log) Roll(ctx context.Context) error {
	b := &Batch{state: batchState{wait: make(chan struct{}, 1), waiting: true, roll: true}}
	if err := l.enqueue(ctx, b, l.ifRoom); err != nil {
		return err
	}
	<-b.state.wait
	return b.state.err
}

// prepare checks b, seals it with s unless that is nil, sums it, and takes a reference to each body.
func (b *Batch) prepare(s Sealer) error {
	if len(b.Records) == 0 {
		return nil
	}
	if len(b.Records) > MaxRecords {
		return fmt.Errorf("%w: %d records, at most %d", ErrTooLarge, len(b.Records), MaxRecords)
	}
	if err := b.check(s != nil); err != nil {
		return err
	}
	size, scratch := int64(0), 0
	for i := range b.Records {
		r := &b.Records[i]
		r.Position = 0
		r.wire.set(r, s)
		n := len(r.wire.meta)
		size += recordHeaderSize + int64(n) + int64(r.wire.bodySize)
		scratch += recordHeaderSize
		if n <= maxGathered {
			scratch += n
		}
	}
	b.state.bytes, b.state.scratch = size, scratch
	return nil
}

// check holds b to the limits, with room for what sealing adds.
func (b *Batch) check(sealed bool) error {
	size := int64(0)
	for i := range b.Records {
		r := &b.Records[i]
		r.Position = 0
		meta, body := int64(len(r.Meta)), int64(0)
		if r.Body != nil {
			body = r.Body.Size()
		}
		if sealed {
			meta += sealedMore
			body += sealedMore + body/512
		}
		if meta > MaxMeta {
			return fmt.Errorf("%w: meta of %d octets, at most %d", ErrTooLarge, meta, MaxMeta)
		}
		if body > math.MaxUint32 {
			return fmt.Errorf("%w: body of %d octets", ErrTooLarge, body)
		}
		size += recordHeaderSize + meta + body
	}
	if size > MaxBatch {
		return fmt.Errorf("%w: %d octets, at most %d", ErrTooLarge, size, MaxBatch)
	}
	return nil
}

// sum counts and sums what is to be written.
func (w *wire) sum() {
	w.metaSum, w.bodySum, w.bodySize = crc32.Checksum(w.meta, castagnoli), 0, 0
	if w.body != nil {
		w.bodySum, w.bodySize = bodySum(w.body), uint32(w.body.Size())
	}
}

func (b *Batch) unretain() {
	for i := range b.Records {
		b.Records[i].wire.release()
	}
}

// ifRoom and always say whether a batch may join what is pending now.
func (l *Log) ifRoom(b *Batch) bool {
	// A batch larger than all the room goes alone.
	return l.queue.bytes == 0 || l.queue.bytes+b.state.bytes <= l.options.PendingBytes
}

func (l *Log) always(*Batch) bool { return true }

// enqueue hands b to the committer as soon as it may join what is pending. ctx bounds the wait for that.
func (l *Log) enqueue(ctx context.Context, b *Batch, may func(*Batch) bool) error {
	if l.options.ReadOnly {
		return ErrReadOnly
	}
	q := &l.queue
	q.Lock()
	for {
		if q.refuse != nil {
			q.Unlock()
			return q.refuse
		}
		if may(b) {
			break
		}
		room := q.room.wait()
		q.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return fmt.Errorf("waiting for room in the journal: %w", context.Cause(ctx))
		}
		q.Lock()
	}
	q.batches = append(q.batches, b)
	q.bytes += b.state.bytes
	first := len(q.batches) == 1
	urgent := !b.Lazy || b.state.roll || b.state.written
	q.urgent = q.urgent || urgent
	q.Unlock()
	// The committer looks at the first lazy batch only to set its timer.
	if urgent || first {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
	return nil
}

// take moves what is pending to dst, if any of it is urgent or all is set. waiting says that lazy batches were left.
func (q *pending) take(dst []*Batch, all bool) (work []*Batch, waiting bool) {
	q.Lock()
	defer q.Unlock()
	if !q.urgent && !all {
		return dst[:0], len(q.batches) > 0
	}
	work, q.batches = q.batches, dst[:0]
	q.urgent = false
	return work, false
}

// takeLast takes all and refuses what comes later.
func (q *pending) takeLast(dst []*Batch) []*Batch {
	q.Lock()
	defer q.Unlock()
	if q.refuse == nil {
		q.refuse = ErrClosed
	}
	work := q.batches
	q.batches, q.urgent = dst[:0], false
	q.room.notify()
	return work
}

func (q *pending) takeAll() []*Batch { return q.takeLast(nil) }

// wrote gives room back.
func (q *pending) wrote(n int64) {
	q.Lock()
	defer q.Unlock()
	q.bytes -= n
	q.room.notify()
}

// shut says whether this call is the first.
func (q *pending) shut() bool {
	q.Lock()
	defer q.Unlock()
	first := !q.closed
	q.closed = true
	return first
}
