package spool

import (
	"errors"
	"fmt"
	"slices"

	"github.com/godwit-mta/godwit/message"
)

// indexError notes that the index cannot be read or written, and arranges that it is rebuilt from the journal if it
// is damaged.
func (s *Spool) indexError(err error) error {
	if damaged(err) {
		if e := markRebuild(s.opts.FS, s.opts.Dir); e != nil {
			err = errors.Join(err, e)
		}
	}
	return s.fail(fmt.Errorf("index: %w", err))
}

// fetch reads a message for looking at it: from the index, not into the overlay. ErrNotFound if it is not there.
func (s *Spool) fetch(id message.ID) (*msg, error) {
	if err := s.hold(); err != nil {
		return nil, err
	}
	defer s.gate.RUnlock()
	r, err := s.index.reader()
	if err != nil {
		return nil, s.indexError(err)
	}
	defer r.close()
	m, err := r.fetch(id)
	if err != nil {
		return nil, s.indexError(err)
	}
	if m == nil || len(m.entries) == 0 {
		return nil, ErrNotFound
	}
	return m, nil
}

// load reads those messages into the overlay that are not there. Messages that do not exist any more are passed over.
// Without an error it returns with gate (for reading), order and mu held, so that the caller finds everything in
// memory: submit gives back order and mu, unload all three.
func (s *Spool) load(ids []message.ID) error {
	if err := s.hold(); err != nil {
		return err
	}
	fetched, err := s.read(ids)
	if err != nil {
		s.gate.RUnlock()
		return err
	}
	s.lockWith(fetched)
	return nil
}

// lockWith takes order and mu and puts fetched messages into the overlay, unless they came there meanwhile.
func (s *Spool) lockWith(fetched []*msg) {
	s.order.Lock()
	s.mu.Lock()
	for _, m := range fetched {
		if s.mu.msgs[m.ID] == nil {
			s.enter(m, true)
		}
	}
}

func (s *Spool) unload() {
	s.mu.Unlock()
	s.order.Unlock()
	s.gate.RUnlock()
}

// read fetches from the index those messages that are not in the overlay. gate is held for reading.
func (s *Spool) read(ids []message.ID) ([]*msg, error) {
	missing := make([]message.ID, 0, len(ids))
	s.mu.Lock()
	err := s.mu.err
	for i, id := range ids {
		if s.mu.msgs[id] == nil && (i == 0 || id != ids[i-1]) { // most of the repeated ones; the rest after sorting
			missing = append(missing, id)
		}
	}
	s.mu.Unlock()
	if err != nil || len(missing) == 0 {
		return nil, err
	}
	slices.SortFunc(missing, message.ID.Compare)
	missing = slices.Compact(missing)
	r, err := s.index.reader()
	if err != nil {
		return nil, s.indexError(err)
	}
	defer r.close()
	fetched := make([]*msg, 0, len(missing))
	for _, id := range missing {
		m, err := r.fetch(id)
		if err != nil {
			return nil, s.indexError(err)
		}
		if m != nil && len(m.entries) > 0 {
			fetched = append(fetched, m)
		}
	}
	return fetched, nil
}
