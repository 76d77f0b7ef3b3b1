package spool

import (
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// Aging returns copies of up to limit waiting entries whose age needs attention, longest overdue first: they are to
// expire (Message.Expires has passed), or their sender is to be told of the delay (Message.DelayNotice has). They
// come again until that is done. It sees what the last checkpoint wrote, so an entry comes up to an interval later.
// Claimed entries are for their claimant to judge; held ones do not age. If the index cannot be read it returns
// nothing and the spool has failed.
func (s *Spool) Aging(now time.Time, limit int) []*Entry {
	points, err := s.overdue(micros(now), limit)
	if err != nil {
		if !errors.Is(err, ErrClosed) {
			s.indexError(err)
		}
		return nil
	}
	var entries []*Entry
	for _, p := range points {
		m, err := s.view(p.id)
		if err != nil {
			continue
		}
		e := m.find(int(p.index))
		if e == nil || e.State != Waiting {
			continue
		}
		if age := e.age(); age != 0 && age <= micros(now) {
			entries = append(entries, e.copyOf())
		}
	}
	return entries
}

// overdue reads the age order up to now. Entries that are not waiting any more, according to memory, do not count for
// limit.
func (s *Spool) overdue(now int64, limit int) ([]duePoint, error) {
	if err := s.hold(); err != nil { // so that the floor is not lowered unseen
		return nil, err
	}
	defer s.gate.RUnlock()
	s.mu.Lock()
	from := s.mu.ageFloor
	s.mu.Unlock()
	if from > now {
		return nil, nil
	}
	it, err := s.index.db.NewIter(&pebble.IterOptions{
		LowerBound: duePoint{due: from}.append([]byte{keyAge}),
		UpperBound: duePoint{due: now + 1}.append([]byte{keyAge}),
	})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	var points []duePoint
	first := true
	for ok := it.First(); ok && len(points) < limit; ok = it.Next() {
		p, valid := readPoint(it.Key()[1:])
		if !valid {
			return nil, fmt.Errorf("%w: a key of the age order", errDamaged)
		}
		if first {
			s.raiseAgeFloor(p.due)
			first = false
		}
		if s.stillWaits(p) {
			points = append(points, p)
		}
	}
	if first && it.Error() == nil {
		s.raiseAgeFloor(now + 1)
	}
	return points, it.Error()
}

func (s *Spool) stillWaits(p duePoint) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.mu.msgs[p.id]
	if m == nil {
		return true
	}
	e := m.find(int(p.index))
	return e != nil && e.State == Waiting
}

// raiseAgeFloor notes that the index has no key of the age order before at. Only checkpoints add keys, and they hold
// gate when they lower the floor.
func (s *Spool) raiseAgeFloor(at int64) {
	s.mu.Lock()
	s.mu.ageFloor = max(s.mu.ageFloor, at)
	s.mu.Unlock()
}
