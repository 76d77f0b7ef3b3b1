package spool

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/message"
)

// compact brings the dead octets of the journal down to Options.Waste: it removes dead extents after carrying forward what they say of
// messages elsewhere, then copies messages out of extents with few live octets, as far as the rate allows. turn is held.
func (s *Spool) compact(ctx context.Context, waste int64, dead, poor []journal.Extent) error {
	for _, e := range dead {
		if waste <= s.opts.Waste {
			return nil
		}
		if err := s.removeExtent(ctx, e); err != nil {
			return err
		}
		waste -= e.Bytes
	}
	slices.SortFunc(poor, func(a, b journal.Extent) int {
		_, live := s.extentState(a.ID)
		_, other := s.extentState(b.ID)
		return cmp.Compare(float64(live)/float64(a.Bytes), float64(other)/float64(b.Bytes))
	})
	budget := int64(float64(s.opts.MoveRate) * s.opts.Checkpoint.Seconds())
	for _, e := range poor {
		if waste <= s.opts.Waste || budget <= 0 || ctx.Err() != nil {
			break
		}
		used, err := s.empty(ctx, e, budget)
		if err != nil {
			return err
		}
		budget -= used
		_, live := s.extentState(e.ID)
		waste -= max(e.Bytes-live, 0)
	}
	return nil
}

// empty copies living messages out of an extent until budget octets are used up, and returns how many were. The extent is removed in
// a later round, when the copies are durable and the index is past them. After a crash each message is in its old place or in both.
func (s *Spool) empty(ctx context.Context, e journal.Extent, budget int64) (used int64, err error) {
	type place struct {
		id  message.ID
		pos journal.Position
	}
	var places []place
	err = s.readExtent(ctx, e, e.First, func(entry *journal.Entry, rec *Record) bool {
		if rec.Message != nil {
			places = append(places, place{rec.Message.ID, entry.Position})
		}
		return true
	})
	if err != nil {
		return 0, err
	}
	for _, p := range places {
		if used >= budget || ctx.Err() != nil {
			break
		}
		n, err := s.move(ctx, p.id, p.pos)
		if err != nil {
			return used, err
		}
		used += n
	}
	return used, s.settled()
}

// move copies one message forward if its body still is at pos, and returns its size.
func (s *Spool) move(ctx context.Context, id message.ID, pos journal.Position) (int64, error) {
	m, err := s.view(id)
	if err == ErrNotFound || err == nil && m.pos != pos {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	rec, err := s.journal.Read(ctx, pos)
	if err != nil || rec.Body == nil {
		s.opts.Logger.Error("a message cannot be copied forward; its extent stays", "message", id, "error", err)
		return 0, nil
	}
	defer rec.Body.Release()
	if err := s.load([]message.ID{id}); err != nil {
		return 0, err
	}
	m = s.mu.msgs[id]
	if m == nil || m.left == 0 || m.pos != pos {
		s.unload()
		return 0, nil
	}
	o := s.begin()
	o.batch.Lazy = true
	o.body, o.moved = rec.Body, m
	o.record(KindMoved, time.Now()).Message = m.Message
	o.wholeOf(m)
	s.submit(o)
	s.gate.RUnlock()
	s.metrics.moved(m.Size)
	return m.Size, nil
}
