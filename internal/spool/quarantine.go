package spool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/message"
)

// ErrUnreadable says that a message's bytes are not what was accepted, or are gone. It will not get better.
var ErrUnreadable = errors.New("the message cannot be read")

// unreadable reports whether an error of the journal says that a record is lost, not that reading failed for now.
func unreadable(err error) bool {
	return errors.Is(err, journal.ErrDamaged) || errors.Is(err, journal.ErrRemoved) || errors.Is(err, journal.ErrNoRecord)
}

// quarantinePrefix begins the reason of a hold that damage is the cause of.
const quarantinePrefix = "quarantined: "

// maxQuarantined bounds the messages that are remembered as quarantined; all others are held just the same.
const maxQuarantined = 10_000

// quarantine is what damage did to the mail.
type quarantine struct {
	sync.Mutex
	ids     map[message.ID]struct{}
	counted time.Time // when ids was last looked through
	n       int       // of ids, those that were still here then
	lost    []journal.ExtentID
}

func (q *quarantine) add(id message.ID) (news bool) {
	q.Lock()
	defer q.Unlock()
	if _, known := q.ids[id]; known {
		return false
	}
	if q.ids == nil {
		q.ids = make(map[message.ID]struct{})
	}
	if len(q.ids) < maxQuarantined {
		q.ids[id] = struct{}{}
	}
	q.counted = time.Time{}
	return true
}

func (q *quarantine) has(id message.ID) bool {
	q.Lock()
	defer q.Unlock()
	_, ok := q.ids[id]
	return ok
}

// Quarantine gives claims of a message that cannot be read back, untried and held: the message keeps its place for an
// operator to decide, and what waits behind it goes on. It does not wait.
func (s *Spool) Quarantine(entries []*Entry, why error) {
	if len(entries) == 0 {
		return
	}
	s.tellQuarantined(entries[0].Message, why)
	s.ReturnHeld(entries, quarantineReason(why))
}

func quarantineReason(why error) string {
	text := quarantinePrefix + why.Error()
	return text[:min(len(text), maxIndexText)]
}

func (s *Spool) tellQuarantined(m *Message, why error) {
	if s.quarantine.add(m.ID) {
		s.opts.Logger.Error("a message cannot be read and is held; bounce or cancel it when nothing can be done",
			"message", m.ID, "tenant", m.Tenant, "sender", m.From.Path.String(), "recipients", len(m.Recipients), "error", why)
	}
}

// Damage is what is known to be wrong with the journal.
type Damage struct {
	Stretches   int                // that are not what was written, and are kept
	Extents     []journal.ExtentID // that they lie in
	Lost        []journal.ExtentID // that held mail and are gone
	Quarantined int                // messages that are held since they cannot be read
	Stay        []journal.ExtentID // that hold no mail and cannot be removed
}

// Damage returns what is known to be wrong with the journal, and how many messages it touches.
func (s *Spool) Damage() Damage {
	var d Damage
	for _, found := range s.journal.Damage() {
		d.Stretches++
		if !slices.Contains(d.Extents, found.Extent) {
			d.Extents = append(d.Extents, found.Extent)
		}
	}
	s.mu.Lock()
	for id, x := range s.mu.extents {
		if !x.stays.IsZero() && !x.removed {
			d.Stay = append(d.Stay, id)
		}
	}
	s.mu.Unlock()
	slices.Sort(d.Stay)
	d.Quarantined, d.Lost = s.quarantined()
	return d
}

// countAgain is how old the number of quarantined messages may be: each costs a look into the index.
const countAgain = 10 * time.Second

func (s *Spool) quarantined() (int, []journal.ExtentID) {
	q := &s.quarantine
	q.Lock()
	if len(q.ids) == 0 || time.Since(q.counted) < countAgain {
		defer q.Unlock()
		return q.n, slices.Clone(q.lost)
	}
	q.counted = time.Now()
	ids := make([]message.ID, 0, len(q.ids))
	for id := range q.ids {
		ids = append(ids, id)
	}
	q.Unlock()
	var over []message.ID
	for _, id := range ids {
		if _, err := s.view(id); errors.Is(err, ErrNotFound) {
			over = append(over, id)
		}
	}
	q.Lock()
	defer q.Unlock()
	for _, id := range over {
		delete(q.ids, id)
	}
	q.n = len(q.ids)
	return q.n, slices.Clone(q.lost)
}

// inspect looks for messages in what is newly known to be damaged, or gone, and quarantines those that cannot be read,
// so that they are named at once and not when their time comes. seen is how much damage was known before; it returns
// how much is known now.
func (s *Spool) inspect(ctx context.Context, seen int) (int, error) {
	found := s.journal.Damage()
	lost := s.lostExtents(seen < 0)
	fresh := found[min(max(seen, 0), len(found)):]
	if len(fresh) == 0 && len(lost) == 0 {
		return len(found), nil
	}
	s.quarantine.Lock()
	s.quarantine.lost = append(s.quarantine.lost, lost...)
	s.quarantine.Unlock()
	if len(lost) > 0 {
		s.opts.Logger.Error("segments of the journal that held mail are gone", "segments", lost)
	}
	touched := func(m *msg) bool {
		if slices.Contains(lost, s.journal.ExtentOf(m.pos)) {
			return true
		}
		return slices.ContainsFunc(fresh, func(d journal.Damage) bool {
			// Damage may begin within the record.
			return s.journal.ExtentOf(m.pos) == d.Extent && m.pos < d.To && int64(d.From) < int64(m.pos)+m.Size+maxEnvelope
		})
	}
	ids, err := s.messagesWhere(touched)
	if err != nil {
		return seen, err
	}
	for _, id := range ids {
		if ctx.Err() != nil {
			return seen, nil
		}
		m, err := s.view(id)
		if err != nil || !slices.ContainsFunc(m.entries, func(e entry) bool { return e.State != Final }) {
			continue // over meanwhile, or only to be reported, which goes without the message
		}
		claim := s.opts.Memory.Insist(m.Size)
		body, err := s.readBody(ctx, m.Message, m.pos)
		claim.Release()
		if err == nil {
			body.Release()
			continue
		}
		if !unreadable(err) {
			continue
		}
		s.tellQuarantined(m.Message, err)
		if _, err := s.Hold(ctx, Filter{Messages: []message.ID{id}}, quarantineReason(err)); err != nil {
			return seen, err
		}
	}
	return len(found), nil
}

// lostExtents returns the extents that hold mail according to the index and that the journal does not have.
func (s *Spool) lostExtents(look bool) []journal.ExtentID {
	if !look {
		return nil
	}
	there := s.journal.Extents()
	s.mu.Lock()
	defer s.mu.Unlock()
	var lost []journal.ExtentID
	for id, x := range s.mu.extents {
		if x.live > 0 && !slices.ContainsFunc(there, func(e journal.Extent) bool { return e.ID == id }) {
			lost = append(lost, id)
		}
	}
	slices.Sort(lost)
	return lost
}

// messagesWhere returns the messages here for which a condition holds. It reads the whole index: for rare occasions.
func (s *Spool) messagesWhere(holds func(*msg) bool) ([]message.ID, error) {
	if err := s.hold(); err != nil {
		return nil, err
	}
	defer s.gate.RUnlock()
	known := make(map[message.ID]bool)
	var ids []message.ID
	s.mu.Lock()
	for id, m := range s.mu.msgs {
		known[id] = true
		if m.left > 0 && holds(m) {
			ids = append(ids, id)
		}
	}
	s.mu.Unlock()
	err := s.index.each(func(m *msg) error {
		if !known[m.ID] && holds(m) {
			ids = append(ids, m.ID)
		}
		return nil
	})
	if err != nil {
		return nil, s.indexError(fmt.Errorf("looking for damaged messages: %w", err))
	}
	return ids, nil
}
