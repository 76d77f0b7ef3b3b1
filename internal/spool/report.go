package spool

import (
	"context"
	"fmt"
	"time"

	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

// reportRest is how long a failure waits for other entries of its message that are in flight, to share a report with
// them.
const reportRest = 30 * time.Second

// Unreported returns up to limit messages whose senders are to be told of final entries, those waiting longest first.
// A message is ready when none of its entries is in flight, or its first failure is older than 30 s. What it returns
// comes again until AcceptReport took it, so that nothing is forgotten over a crash.
func (s *Spool) Unreported(now time.Time, limit int) ([]Report, error) {
	var reports []Report
	for _, id := range s.unreportedIDs(micros(now), limit) {
		m, err := s.view(id)
		if err == ErrNotFound {
			continue // reported meanwhile
		}
		if err != nil {
			return nil, err
		}
		r := Report{Message: m.Message}
		for i := range m.entries {
			if e := &m.entries[i]; e.report {
				r.Entries = append(r.Entries, e.copyOf())
			}
		}
		if len(r.Entries) > 0 {
			reports = append(reports, r)
		}
	}
	return reports, nil
}

func (s *Spool) unreportedIDs(now int64, limit int) []message.ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []message.ID
	seen := make(map[message.ID]bool)
	for _, id := range s.mu.unreported.order {
		if len(ids) >= limit {
			break
		}
		at, ok := s.mu.unreported.at[id]
		if !ok || seen[id] {
			continue
		}
		if m := s.mu.msgs[id]; m != nil && m.claimed > 0 && now-at < reportRest.Microseconds() {
			continue
		}
		seen[id] = true
		ids = append(ids, id)
	}
	return ids
}

// AcceptReport takes responsibility for a report to the sender of about, as Accept does, and notes in the same breath
// that the final entries with these indices are reported. After a crash both have happened or neither. A nil dsn
// means that nobody can or must be told; body is nil then. ErrStale: one of the entries is not to be reported, or was
// by somebody else; nothing happened.
func (s *Spool) AcceptReport(ctx context.Context, dsn *Message, body *smtp.Body, about *Message, indices []int) error {
	return s.acceptReport(ctx, dsn, body, about, indices, false)
}

// AcceptDelayNotice is AcceptReport for entries that are not final: it notes that the sender was told of the delay.
// ErrStale: one of the entries is final, or its delay was reported before.
func (s *Spool) AcceptDelayNotice(ctx context.Context, dsn *Message, body *smtp.Body, about *Message,
	indices []int) error {
	return s.acceptReport(ctx, dsn, body, about, indices, true)
}

func (s *Spool) acceptReport(ctx context.Context, dsn *Message, body *smtp.Body, about *Message, indices []int,
	delay bool) error {
	now := time.Now()
	var om *msg
	var size int64
	if dsn != nil {
		if err := dsn.check(body); err != nil {
			return err
		}
		size = max(body.Size(), 1)
		if err := s.admit(ctx, dsn, size); err != nil {
			return err
		}
		if err := s.Room(); err != nil {
			s.giveRoom(size)
			return fmt.Errorf("accepting a report: %w", err)
		}
		om = newMsg(dsn)
	}
	if err := s.load([]message.ID{about.ID}); err != nil {
		s.giveRoom(size)
		return err
	}
	o := s.begin()
	o.waited, o.accept, o.body, o.size = true, om, body, size
	if dsn != nil {
		o.record(KindAccepted, dsn.Received).Message = dsn
	}
	r := o.record(KindReported, now)
	r.Delay = delay
	if dsn != nil {
		r.Report = dsn.ID
	}
	if m := s.mu.msgs[about.ID]; m == nil || len(indices) == 0 || !o.reportable(m, indices, delay) {
		for i := range o.changes {
			o.changes[i].entry.taken = false
		}
		s.unload()
		s.end(o)
		s.giveRoom(size)
		return ErrStale
	}
	notices := s.submit(o)
	s.gate.RUnlock()
	s.tell(notices)
	if err := s.wait(o); err != nil {
		return fmt.Errorf("accepting a report: %w", err)
	}
	if om != nil {
		s.fresh(om)
	}
	return nil
}

// reportable adds changes of the entries and reports whether all of them may be reported.
func (o *op) reportable(m *msg, indices []int, delay bool) bool {
	for _, i := range indices {
		e := m.find(i)
		if e == nil || e.taken || e.gone || delay && (e.State == Final || e.DelayReported) || !delay && !e.report {
			return false
		}
		e.taken = true
		o.change(e)
	}
	return true
}

func (s *Spool) giveRoom(size int64) {
	s.mu.Lock()
	s.mu.accepting -= size
	s.makeRoom()
	s.mu.Unlock()
}
