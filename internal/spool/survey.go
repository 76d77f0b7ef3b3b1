package spool

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/message"
)

// readExtents makes the table of extents with the counts of the index.
func (s *Spool) readExtents() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.journal.Extents() {
		s.mu.extents[e.ID] = &extent{unsure: true}
	}
	err := s.index.extents(func(id journal.ExtentID, n int, bytes int64) {
		x := s.mu.extents[id]
		if x == nil {
			x = new(extent)
			s.mu.extents[id] = x
		}
		x.indexed, x.inIndex = n, bytes
	})
	if err != nil {
		return fmt.Errorf("spool: reading the index: %w", err)
	}
	return nil
}

// survey makes the summaries of queues and extents, from the overlay and one walk over the index, and returns what is
// claimed.
func (s *Spool) survey() ([]EntryID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.live = true
	var claimed []EntryID
	for _, x := range s.mu.extents {
		x.live, x.bytes = x.indexed, x.inIndex
	}
	for _, m := range s.mu.msgs {
		if m.inIndex {
			x := s.extentAt(m.indexPos)
			x.live--
			x.bytes -= m.Size
		}
		if m.left > 0 {
			s.house(m)
		}
		for i := range m.entries {
			e := &m.entries[i]
			if e.State == Final {
				continue
			}
			e.queue = s.queueOf(e.Entry.Queue())
			s.count(e, 1)
			e.queue.ages.add(m.ID)
			switch e.State {
			case Waiting:
				e.queue.push(e)
			case Claimed:
				claimed = append(claimed, EntryID{m.ID, e.Index})
			}
		}
		if m.reports > 0 {
			s.mu.unreported.add(m.ID, m.failedAt)
		}
	}
	found, err := s.surveyQueues()
	if err == nil {
		err = s.surveyReports()
	}
	if err != nil {
		return nil, fmt.Errorf("spool: reading the index: %w", err)
	}
	return append(claimed, found...), nil
}

func (s *Spool) surveyQueues() (claimed []EntryID, err error) {
	it, err := s.index.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyQueue}, UpperBound: []byte{keyQueue + 1}})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	var prefix []byte // of q's keys
	var q *queue
	for ok := it.First(); ok; ok = it.Next() {
		k := it.Key()
		head := len(k) - pointSize - 1
		if head < 0 {
			return nil, fmt.Errorf("%w: a key of the queues", errDamaged)
		}
		p, _ := readPoint(k[head+1:])
		if s.mu.msgs[p.id] != nil {
			continue
		}
		if q == nil || string(k[:head]) != string(prefix) {
			key, _, _, ok := readQueueKey(k)
			if !ok {
				return nil, fmt.Errorf("%w: a key of the queues", errDamaged)
			}
			q, prefix = s.queueOf(key), append(prefix[:0], k[:head]...)
		}
		switch State(k[head]) {
		case Waiting:
			q.waiting++
			s.mu.waiting++
			q.lower(p)
		case Claimed:
			q.claimed++
			s.mu.claimed++
			claimed = append(claimed, p.entry())
		case Held:
			q.held++
			s.mu.held++
		}
		q.ages.add(p.id)
	}
	return claimed, it.Error()
}

func (s *Spool) surveyReports() error {
	it, err := s.index.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyReport}, UpperBound: []byte{keyReport + 1}})
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		var id message.ID
		if copy(id[:], it.Key()[1:]) != len(id) {
			return fmt.Errorf("%w: a key of the reports", errDamaged)
		}
		v, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		d := decoder{s: string(v)}
		if s.mu.msgs[id] == nil {
			s.mu.unreported.add(id, d.int())
		}
	}
	return it.Error()
}

// rebase makes the counters add up after a rebuild: records of entries that came to their end long ago went with
// their extents.
func (s *Spool) rebase() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range []*totals{&s.mu.totals, &s.mu.durable} {
		t.accepted = t.settled() + uint64(s.mu.waiting+s.mu.claimed+s.mu.held)
	}
}
