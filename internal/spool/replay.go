package spool

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/message"
)

// replay applies what the journal has beyond the index, and returns how many records that were.
func (s *Spool) replay(ctx context.Context, h header) (int, error) {
	r, err := s.journal.NewReader(h.watermark)
	if err != nil {
		return 0, fmt.Errorf("spool: replaying the journal: %w", err)
	}
	defer r.Close()
	var rec Record
	for n := 0; ; {
		e, err := r.Next(ctx, false)
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, fmt.Errorf("spool: replaying the journal: %w", err)
		}
		if e.Position <= h.watermark && h.watermark != 0 {
			continue
		}
		switch err := rec.Decode(e.Kind, e.Meta); {
		case errors.Is(err, ErrVersion):
			return n, fmt.Errorf("spool: replaying the journal: %w", err)
		case err != nil:
			s.opts.Logger.Error("a record of the journal cannot be read and is passed over", "error", err)
			continue
		}
		if err := s.reapply(&rec, &e, &h); err != nil {
			return n, err
		}
		n++
	}
}

// reapply does again what a record says. Nothing else is running.
func (s *Spool) reapply(rec *Record, e *journal.Entry, from *header) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []message.ID
	if rec.Message != nil {
		ids = append(ids, rec.Message.ID)
	}
	for i := range rec.Changes {
		if id := rec.Changes[i].Message.ID; len(ids) == 0 || ids[len(ids)-1] != id {
			ids = append(ids, id)
		}
	}
	if err := s.recall(ids); err != nil {
		return err
	}
	switch rec.Kind {
	case KindAccepted:
		s.restart(rec.Message, e.Position)
	case KindMoved:
		m := s.mu.msgs[rec.Message.ID]
		if m == nil {
			m = s.restart(rec.Message, e.Position)
		}
		m.pos = e.Position
		s.touch(m)
		m.restore(rec.Changes)
	case KindCarried:
		for i := 0; i < len(rec.Changes); {
			n := 1
			for i+n < len(rec.Changes) && rec.Changes[i+n].Message == rec.Changes[i].Message {
				n++
			}
			if m := s.mu.msgs[rec.Changes[i].Message.ID]; m != nil {
				s.touch(m)
				m.restore(rec.Changes[i : i+n])
			}
			i += n
		}
	default:
		s.apply(rec, nil)
	}
	s.mu.totals.count(rec)
	s.mu.durable.count(rec)
	s.mu.done = e.Position
	for _, id := range ids {
		if m := s.mu.msgs[id]; m != nil && m.left == 0 && !m.inIndex {
			s.leave(m)
		}
	}
	if s.mu.resident < s.opts.OverlayEntries {
		return nil
	}
	h := header{owner: s.journal.Owner(), watermark: s.mu.done, totals: s.mu.durable, rebuild: from.rebuild}
	n := s.mu.dirty.n
	s.mu.Unlock()
	defer s.mu.Lock()
	return s.write(&h, n)
}

// recall puts messages into the overlay that only the index has. mu is held.
func (s *Spool) recall(ids []message.ID) error {
	if s.committed == 0 {
		return nil // the index is empty
	}
	var missing []message.ID
	for _, id := range ids {
		if s.mu.msgs[id] == nil {
			missing = append(missing, id)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	r, err := s.index.reader()
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	defer r.close()
	for _, id := range missing {
		if s.mu.msgs[id] != nil {
			continue // named twice
		}
		m, err := r.fetch(id)
		if err != nil {
			return fmt.Errorf("spool: %w", err)
		}
		if m != nil {
			s.enter(m, true)
		}
	}
	return nil
}

// restart puts a message into the overlay as it was when it was accepted, over what a newer index says of it.
func (s *Spool) restart(whole *Message, pos journal.Position) *msg {
	m := newMsg(whole)
	m.pos, m.birth, m.dirty = pos, s.journal.ExtentOf(pos), true
	if old := s.mu.msgs[whole.ID]; old != nil {
		m.inIndex, m.indexPos, m.indexDue = old.inIndex, old.indexPos, old.indexDue
		for i := range old.entries {
			m.entries[old.entries[i].Index].key = old.entries[i].key
		}
		s.leave(old)
	}
	s.enter(m, false)
	return m
}
