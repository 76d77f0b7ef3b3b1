package spool

import (
	"context"
	"time"

	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/message"
)

// compact brings the dead octets of the journal down to allowed, oldest extents first: dead ones are removed
// after what they say of older messages was carried forward; those with few live octets are emptied, as far as the
// rate allows. Since the oldest are emptied first, hardly anything needs to be carried. turn is held.
func (s *Spool) compact(ctx context.Context, waste, allowed int64, extents []journal.Extent) error {
	budget := int64(float64(s.opts.MoveRate) * s.opts.Checkpoint.Seconds())
	if allowed == 0 {
		budget = min(budget, squeezeBytes)
	}
	for _, e := range extents {
		if waste <= allowed || ctx.Err() != nil {
			return nil
		}
		if err := s.between(); err != nil {
			return err
		}
		live, bytes := s.extentState(e.ID)
		switch {
		case live == 0 && s.refused(e.ID):
		case live == 0:
			if err := s.carry(ctx, e); err != nil {
				return err
			}
			if _, err := s.removeExtent(ctx, e); err != nil {
				return err
			}
			waste -= e.Bytes
		case bytes < e.Bytes/4 && budget > 0:
			used, err := s.empty(ctx, e, budget)
			if err != nil {
				return err
			}
			budget -= used
			waste -= e.Bytes // it goes in the next round
		}
	}
	return nil
}

// empty copies living messages out of an extent until budget octets are used up, and returns how many were. The
// extent is removed in a later round, when the copies are durable and the index is past them. After a crash each
// message is in its old place or in both.
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
		if err == nil {
			err = s.between()
		}
		if err != nil {
			return used, err
		}
		used += n
	}
	return used, s.settled()
}

// move copies one message forward if its body still is at pos, and returns its size.
func (s *Spool) move(ctx context.Context, id message.ID, pos journal.Position) (int64, error) {
	if s.quarantine.has(id) {
		return 0, nil // its extent stays
	}
	m, err := s.view(id)
	if err == ErrNotFound || err == nil && m.pos != pos {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	claim := s.opts.Memory.Insist(m.Size)
	rec, err := s.journal.Read(ctx, pos)
	if err != nil || rec.Body == nil {
		claim.Release()
		s.opts.Logger.Error("a message cannot be copied forward; its extent stays", "message", id, "error", err)
		return 0, nil
	}
	claim.Give(rec.Body)
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
	o.body, o.moved, m.copied = rec.Body, m, true
	o.record(KindMoved, time.Now()).Message = m.Message
	o.wholeOf(m)
	s.submit(o)
	s.gate.RUnlock()
	s.metrics.moved(m.Size)
	return m.Size, nil
}
