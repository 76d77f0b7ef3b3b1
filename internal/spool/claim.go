package spool

import (
	"context"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/godwit-mta/godwit/message"
)

// maxScans bounds the claims that read the index at once.
const maxScans = 16

// Claim gives the caller up to limit entries of a queue that are due, oldest due first; entries of one message stay
// together when they are due together, for which there may be more than limit, unless that is 1. Each must be
// settled or returned. next, if not nil, says when an entry would
// be due again if the caller vanished; it is called with locks held and must call nothing of the spool.
//
// The claim is handed to the operating system before Claim returns. After a kill the entries are found claimed and
// rest for a while; after a power cut they may be found waiting as before.
func (s *Spool) Claim(ctx context.Context, key QueueKey, now time.Time, limit int, next func(*Entry) time.Time) (
	[]*Entry, error) {
	if limit <= 0 {
		return nil, nil
	}
	// More at once would be no faster, and each holds some hundred KiB meanwhile.
	s.scans <- struct{}{}
	err := s.lockDue(key, micros(now), limit)
	<-s.scans
	if err != nil {
		return nil, err
	}
	o := s.begin()
	o.record(KindClaimed, now)
	if q := s.mu.queues[key]; q != nil {
		o.take(q, micros(now), limit)
	}
	if len(o.changes) == 0 {
		s.unload()
		s.end(o)
		return nil, nil
	}
	s.mu.demand.claimed += len(o.changes)
	entries := make([]*Entry, len(o.changes))
	for i := range o.changes {
		c := &o.changes[i]
		if next != nil {
			c.Due = next(&c.entry.Entry)
		}
		entries[i] = &c.entry.Entry
	}
	s.perform(o)
	s.unload()
	o.encode()
	if err := s.journal.AppendWritten(ctx, &o.batch); err != nil {
		// Nobody was given the entries. They stay claimed: if the record was written they were not tried, if not
		// neither.
		return nil, s.fail(fmt.Errorf("claiming: %w", err))
	}
	s.mu.Lock()
	for i := range o.changes {
		s.note(o.changes[i].entry.msg, o.batch.Records[0].Position)
	}
	s.mu.Unlock()
	s.end(o)
	return entries, nil
}

// take collects due entries and takes them out of the heap. Once one entry of a message is claimed all of the message
// stays in memory: taking the others by and by would read it from the index as many times.
func (o *op) take(q *queue, now int64, limit int) {
	var last *msg
	for len(o.changes) < limit && len(q.heap) > 0 && q.heap[0].due <= now {
		e := q.heap[0]
		q.remove(e)
		o.change(e)
		if e.msg == last || len(e.msg.entries) == 1 {
			continue
		}
		last = e.msg
		o.expect(last.left)
		for i := range last.entries {
			other := &last.entries[i]
			if limit > 1 && other.heap >= 0 && other.queue == q && other.due <= now {
				q.remove(other)
				o.change(other)
			}
		}
	}
}

// lockDue sees to it that the first limit due entries of a queue are in the overlay, and returns with gate, order and
// mu held.
func (s *Spool) lockDue(key QueueKey, now int64, limit int) error {
	if err := s.hold(); err != nil {
		return err
	}
	fetched, floor, err := s.scanDue(key, now, limit)
	if err != nil {
		s.gate.RUnlock()
		return err
	}
	s.lockWith(fetched)
	// All keys before floor belong to messages that are in the overlay now. Nothing leaves it while gate is held.
	if q := s.mu.queues[key]; q != nil && floor.compare(q.floor) > 0 {
		q.floor = floor
	}
	return nil
}

// scanDue reads due messages that only the index knows, and says how far it looked. gate is held for reading.
func (s *Spool) scanDue(key QueueKey, now int64, limit int) (fetched []*msg, floor duePoint, err error) {
	s.mu.Lock()
	q := s.mu.queues[key]
	if err = s.mu.err; err != nil || q == nil || q.inIndex() == 0 || q.floor.due > now {
		s.mu.Unlock()
		return nil, floor, err
	}
	from := q.floor
	want := limit - q.dueBefore(from, limit)
	s.mu.Unlock()
	if want <= 0 {
		return nil, floor, nil
	}
	ids, floor, err := s.dueKeys(key, from, now, want)
	if err != nil {
		return nil, floor, s.indexError(err)
	}
	fetched, err = s.read(ids)
	return fetched, floor, err
}

// dueKeys walks a queue's order in the index from a point on and returns the messages of up to want entries that are
// due and not in the overlay, and the point before which it has seen all.
func (s *Spool) dueKeys(key QueueKey, from duePoint, now int64, want int) (
	ids []message.ID, floor duePoint, err error) {
	it, err := s.index.db.NewIter(&pebble.IterOptions{
		LowerBound: queueKeyOf(nil, key, Waiting, from),
		UpperBound: append(queuePrefix(nil, key), byte(Waiting)+1),
	})
	if err != nil {
		return nil, floor, err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		k := it.Key()
		p, valid := readPoint(k[max(len(k)-pointSize, 0):])
		if !valid {
			return nil, floor, fmt.Errorf("%w: a key of queue %s", errDamaged, key)
		}
		if p.due > now || want == 0 {
			return ids, p, nil
		}
		s.mu.Lock()
		known := s.mu.msgs[p.id] != nil
		s.mu.Unlock()
		if !known {
			if len(ids) == 0 || ids[len(ids)-1] != p.id {
				ids = append(ids, p.id)
			}
			want--
		}
	}
	return ids, lastPoint, it.Error()
}

// dueBefore counts the entries of the heap that come before p, up to limit.
func (q *queue) dueBefore(p duePoint, limit int) int {
	n := 0
	var walk func(i int)
	walk = func(i int) {
		if i >= len(q.heap) || n >= limit || q.heap[i].point().compare(p) >= 0 {
			return
		}
		n++
		walk(2*i + 1)
		walk(2*i + 2)
	}
	walk(0)
	return n
}

// Return gives claims back untried: the entries wait and are due now, or held or final if that was wished for
// meanwhile. It does not wait. Entries that are not claimed are passed over.
func (s *Spool) Return(entries []*Entry) {
	now := time.Now()
	s.giveBack(entries, now, func(o *op, es []*entry) {
		o.back(es, now)
	})
}

// ReturnHeld gives claims back untried and held, for a queue on which a hold was laid before its mail came. It does
// not wait.
func (s *Spool) ReturnHeld(entries []*Entry, reason string) {
	now := time.Now()
	s.giveBack(entries, now, func(o *op, es []*entry) {
		o.record(KindHeld, now)
		for _, e := range es {
			o.change(e).HoldReason = reason
		}
	})
}

func (s *Spool) giveBack(entries []*Entry, now time.Time, fill func(*op, []*entry)) {
	for len(entries) > 0 {
		n := min(len(entries), maxChunk)
		o := s.begin()
		o.batch.Lazy = true
		s.order.Lock()
		s.mu.Lock()
		es := s.claimedOf(entries[:n])
		entries = entries[n:]
		if len(es) == 0 || s.mu.err != nil {
			for _, e := range es {
				e.taken = false
			}
			s.mu.Unlock()
			s.order.Unlock()
			s.end(o)
			continue
		}
		o.expect(len(es))
		fill(o, es)
		s.tell(s.submit(o))
	}
}

// maxChunk bounds the entries of one change, and so how long locks are held.
const maxChunk = 512

// claimedOf takes those of entries that are claimed, each once. mu is held.
func (s *Spool) claimedOf(entries []*Entry) []*entry {
	es := make([]*entry, 0, len(entries))
	for _, given := range entries {
		if e := s.claimedEntry(nil, given); e != nil {
			es = append(es, e)
		}
	}
	return es
}

// back writes what becomes of claimed entries that were not tried.
func (o *op) back(es []*entry, now time.Time) {
	for _, wish := range [...]Wish{NoWish, WishHold, WishFinish} {
		begun := false
		for _, e := range es {
			if e.Wish != wish {
				continue
			}
			if !begun {
				begun = true
				o.record([...]kind{NoWish: KindReturned, WishHold: KindHeld, WishFinish: KindSettled}[wish], now)
			}
			o.grant(o.change(e), now)
		}
	}
}

// grant fills a change of an entry that leaves its claim by its wish.
func (o *op) grant(c *Change, now time.Time) {
	switch e := c.entry; e.Wish {
	case WishHold:
		c.HoldReason = e.HoldReason
	case WishFinish:
		c.Result, c.Attempts = *e.wish, e.Attempts
	default:
		c.Due = now
	}
}
