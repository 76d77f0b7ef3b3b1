package spool

import (
	"errors"
	"fmt"
	"math/bits"
	"time"
)

// restAfter is for how many times Options.Checkpoint nothing was written when the index is at rest.
const restAfter = 4

// restIndex lets the index give back memory that it took for its work, if it is at rest and the disk is not nearly full.
func (s *Spool) restIndex() error {
	s.turn.Lock()
	defer s.turn.Unlock()
	s.mu.Lock()
	err, busy := s.mu.err, s.mu.dirty.n > 0 || s.mu.done != s.committed
	s.mu.Unlock()
	if err != nil || busy || time.Since(s.written) < restAfter*s.opts.Checkpoint || s.journal.Room(0) != nil {
		return err
	}
	if err := s.index.rest(s.opts.Checkpoint / 20); err != nil {
		return s.indexError(err)
	}
	return nil
}

// resting is what is left to do for an index that nothing is written to.
type resting struct {
	seen int64           // flushes that are dealt with
	left int             // flushes to ask for
	done <-chan struct{} // closed when the last one that was asked for is made; nil: none
}

// rest is called while nothing is to be written. After work that filled tables in memory it has Pebble write them out, and
// goes on asking until Pebble has let go of all but two. Those that it is done with are garbage no sooner, though it counts
// them no more: its queue is cut at the front, and the array below keeps what was there until there is no more room in it.
// rest waits at most for wait, and goes on where it was the next time.
func (x *index) rest(wait time.Duration) error {
	timeout := time.After(wait)
	for r := &x.resting; ; {
		if r.done != nil {
			select {
			case <-r.done:
				r.done, r.seen = nil, x.flushes.Load()
			case <-timeout:
				return nil
			}
		}
		if n := x.flushes.Load(); n != r.seen {
			r.seen, r.left = n, x.queueRoom()
		}
		if r.left == 0 {
			return nil
		}
		r.left--
		var err error
		r.done, err = x.db.AsyncFlush()
		if err = errors.Join(err, x.err()); err != nil {
			return fmt.Errorf("spool: writing out the index: %w", err)
		}
	}
}

// queueRoom returns for how many tables the array below Pebble's queue has room at most. The first tables after it was opened
// are smaller, each half as large as the next, so that there are more of them.
func (x *index) queueRoom() int {
	const first = 256 << 10
	most := maxTables + bits.Len64((x.memtable-1)/first)
	return 1 << bits.Len(uint(most-1)) // as append makes it
}
