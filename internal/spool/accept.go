package spool

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/smtp"
)

// Accept takes responsibility for a message. It returns nil when the message is on stable storage, and has then
// handed it to the sink, claimed for its first attempt. m belongs to the spool from then on; body is retained if it
// is kept in memory.
//
// On an error nothing of the message will ever be sent by this process; if it is [ErrUncertain] the journal may have it
// all the same, and then it is sent after a restart: the client must be told neither yes nor no. While the disk is
// nearly full the error is [journal.ErrFull]. ctx bounds only the wait for room. A crash before Accept returns leaves
// the whole message or nothing; after it returned nil, the whole message.
func (s *Spool) Accept(ctx context.Context, m *Message, body *smtp.Body) error {
	if err := m.check(body); err != nil {
		return err
	}
	if err := s.admit(ctx, m, body.Size()); err != nil {
		return err
	}
	if err := s.Room(); err != nil {
		s.giveRoom(max(body.Size(), 1))
		return fmt.Errorf("accepting a message: %w", err)
	}
	o := s.begin()
	o.record(KindAccepted, m.Received).Message = m
	o.delta.accepted = uint64(len(m.Recipients))
	om := newMsg(m)
	o.accept, o.body, o.size, o.waited = om, body, max(body.Size(), 1), true
	o.encode()
	if len(o.meta) > maxEnvelope {
		s.giveRoom(o.size)
		s.end(o)
		return errors.New("spool: a message with too large an envelope")
	}
	s.journal.Submit(&o.batch)
	if err := s.wait(o); errors.Is(err, ErrFailed) {
		return fmt.Errorf("accepting a message: %w: %w", ErrUncertain, err)
	} else if err != nil {
		return fmt.Errorf("accepting a message: %w", err)
	}
	s.fresh(om)
	return nil
}

// MaxRecipients is how many recipients a message may have, so that its envelope and the state of all its entries fit
// one record.
const MaxRecipients = 16384

// maxEnvelope bounds an envelope as it is written, in octets.
const maxEnvelope = journal.MaxMeta / 2

// check refuses what could not be written or found again.
func (m *Message) check(body *smtp.Body) error {
	var why string
	switch {
	case body == nil:
		why = "no body"
	case m.ID.IsZero():
		why = "no id"
	case len(m.Recipients) == 0:
		why = "no recipients"
	case len(m.Recipients) > MaxRecipients:
		why = "too many recipients"
	case body.Size() > journal.MaxBatch/2:
		why = "too large a body"
	case len(m.Queues) != len(m.Recipients):
		why = "not one queue for each recipient"
	}
	for _, q := range m.Queues {
		if q.Domain == "" || strings.IndexByte(q.Tenant, 0) >= 0 || strings.IndexByte(q.Domain, 0) >= 0 ||
			len(q.Tenant) > maxText || len(q.Domain) > maxText {
			why = "a queue without a proper name"
		}
	}
	if why != "" {
		return errors.New("spool: a message with " + why)
	}
	return nil
}

// admit waits until there is room for a message of size octets.
func (s *Spool) admit(ctx context.Context, m *Message, size int64) error {
	size = max(size, 1)
	for {
		s.mu.Lock()
		if err := s.mu.err; err != nil {
			s.mu.Unlock()
			return err
		}
		if s.mu.msgs[m.ID] != nil {
			s.mu.Unlock()
			return ErrExists
		}
		if !s.full() && (s.mu.accepting == 0 || s.mu.accepting+size <= s.opts.PendingBytes) {
			s.mu.accepting += size
			s.mu.Unlock()
			return nil
		}
		room := s.roomSoon()
		s.mu.Unlock()
		if err := s.awaitRoom(ctx, room); err != nil {
			return err
		}
	}
}

// Room returns [journal.ErrFull] while Accept would.
func (s *Spool) Room() error { return s.journal.Room(s.underWay()) }

// underWay returns the octets of bodies whose acceptance is under way.
func (s *Spool) underWay() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.accepting
}

// full reports whether the overlay takes nothing more before a checkpoint. mu is held.
func (s *Spool) full() bool { return s.mu.weight >= overlayHard*s.opts.OverlayEntries }

// roomSoon returns a channel that is closed when something has become less. mu is held.
func (s *Spool) roomSoon() <-chan struct{} {
	if s.mu.room == nil {
		s.mu.room = make(chan struct{})
	}
	if s.full() {
		s.checkpointSoon()
	}
	return s.mu.room
}

func (s *Spool) awaitRoom(ctx context.Context, room <-chan struct{}) error {
	select {
	case <-room:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("spool: waiting for room: %w", context.Cause(ctx))
	}
}

// takeIn puts a message that is durable now into the overlay. mu is held.
func (s *Spool) takeIn(o *op) {
	m, rec := o.accept, &o.batch.Records[0]
	m.pos, m.birth = rec.Position, s.journal.ExtentOf(rec.Position)
	m.dirty = true
	s.enter(m, false)
	s.house(m)
	s.mu.totals.accepted += uint64(len(m.entries))
	if n := rec.Body.Memory(); s.mu.bodyBytes+n <= s.opts.MemoryBudget {
		m.body = rec.Body.Retain()
		s.mu.bodyBytes += n
	}
	if s.mu.dirty.n >= s.opts.OverlayEntries {
		s.checkpointSoon()
	}
}

// fresh hands a message over for its first attempt.
func (s *Spool) fresh(m *msg) {
	entries := m.given
	m.given = nil
	if k := s.sink.Load(); k != nil && s.Err() == nil {
		(*k).Fresh(m.Message, entries)
		return
	}
	s.Return(entries)
}

// Body returns the bytes of a message, retained for the caller, from memory or from the journal, for which it waits
// until Options.Memory has room. It fails with [ErrUnreadable] if the journal's record is damaged, or with [ErrNotFound]
// if the message is over.
func (s *Spool) Body(ctx context.Context, m *Message) (*smtp.Body, error) {
	return s.body(ctx, m, func() (smtp.Claim, error) { return s.opts.Memory.Claim(ctx, m.Size) })
}

// BodyNow is Body for who does not wait: while there is no room it fails with [smtp.ErrNoMemory].
func (s *Spool) BodyNow(ctx context.Context, m *Message) (*smtp.Body, error) {
	return s.body(ctx, m, func() (smtp.Claim, error) {
		c, ok := s.opts.Memory.TryClaim(m.Size)
		if !ok {
			return c, smtp.ErrNoMemory
		}
		return c, nil
	})
}

// body reads a message back with the right to its memory, which it asks for if the message is not there already.
func (s *Spool) body(ctx context.Context, m *Message, claim func() (smtp.Claim, error)) (*smtp.Body, error) {
	pos, body, err := s.whereIs(m)
	if err != nil || body != nil {
		return body, err
	}
	c, err := claim()
	if err == nil {
		if body, err = s.readBody(ctx, m, pos); err == nil {
			c.Give(body)
			return body, nil
		}
		c.Release()
	}
	if unreadable(err) {
		err = fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	return nil, fmt.Errorf("spool: reading message %s: %w", m.ID, err)
}

// readBody reads the body at pos, or where it moved to meanwhile.
func (s *Spool) readBody(ctx context.Context, m *Message, pos journal.Position) (*smtp.Body, error) {
	for {
		rec, err := s.journal.Read(ctx, pos)
		if err == nil && rec.Body == nil {
			err = fmt.Errorf("%w: no body at its place", journal.ErrDamaged)
		}
		if err == nil || !errors.Is(err, journal.ErrRemoved) {
			return rec.Body, err
		}
		now, body, gone := s.whereIs(m)
		if body != nil {
			body.Release() // it never comes back into memory
		}
		if gone != nil {
			return nil, gone
		}
		if now == pos {
			return nil, err
		}
		pos = now
	}
}

// whereIs returns the body of a message if it is in memory, otherwise its place in the journal.
func (s *Spool) whereIs(m *Message) (journal.Position, *smtp.Body, error) {
	s.mu.Lock()
	if om := s.mu.msgs[m.ID]; om != nil {
		defer s.mu.Unlock()
		if om.body != nil {
			return 0, om.body.Retain(), nil
		}
		return om.pos, nil, nil
	}
	s.mu.Unlock()
	fetched, err := s.fetch(m.ID)
	if err != nil {
		return 0, nil, err
	}
	return fetched.pos, nil, nil
}
