package spool

import (
	"context"
	"time"
)

// Run makes checkpoints, gives back space, and returns when ctx is done, after a last checkpoint, or when the journal
// or the index failed, with that error. The journal must run until Run has returned. Entries that are claimed when
// ctx ends should have been returned or settled: those that are not rest after the next start, as after a crash.
func (s *Spool) Run(ctx context.Context) error {
	tick := time.NewTicker(s.opts.Checkpoint)
	defer tick.Stop()
	inspected := -1
	for last := time.Now(); ; last = time.Now() {
		var err error
		if inspected, err = s.inspect(ctx, inspected); err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return s.lastCheckpoint()
		case <-s.failed:
			return s.Err()
		case <-s.journal.Failed():
			return s.fail(s.journal.Err())
		case <-tick.C:
		case <-s.kick:
			// Not one after the other: what is claimed stays in memory however often one looks.
			select {
			case <-time.After(s.opts.Checkpoint/20 - time.Since(last)):
			case <-ctx.Done():
			}
		}
		if err := s.Checkpoint(); err != nil {
			return err
		}
		if err := s.reclaim(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		if err := s.restIndex(); err != nil {
			return err
		}
	}
}

// lastCheckpoint leaves an index that needs no replay.
func (s *Spool) lastCheckpoint() error {
	if err := s.Checkpoint(); err != nil {
		return err
	}
	s.turn.Lock()
	defer s.turn.Unlock()
	return s.syncIndex()
}

// Close gives back the index. Run must have returned. What was not checkpointed is replayed at the next start.
func (s *Spool) Close() error {
	s.mu.Lock()
	if s.mu.err == nil {
		s.mu.err = ErrClosed
		close(s.failed)
		s.makeRoom()
	}
	s.mu.Unlock()
	s.turn.Lock()
	defer s.turn.Unlock()
	s.gate.Lock()
	defer s.gate.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	return s.index.close()
}

// checkpointSoon asks Run for a checkpoint before its time.
func (s *Spool) checkpointSoon() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// writeChunk is how many entries are encoded, or looked at, while mu is held; a message is encoded whole.
const writeChunk = 128

// Checkpoint writes to the index what changed since the last one, as one batch with the watermark, and drops from
// memory what nobody works on. The batch is not synced: a crash leaves the index as some checkpoint wrote it, at
// least the last that was synced. It contains only what is durable in the journal.
func (s *Spool) Checkpoint() error {
	s.turn.Lock()
	defer s.turn.Unlock()
	return s.checkpoint()
}

// between is called by whoever holds turn for long, at times when a checkpoint may be made. It makes one that is due:
// what waits for it takes memory.
func (s *Spool) between() error {
	since := time.Since(s.checkpointed)
	if since < s.opts.Checkpoint/20 {
		return nil
	}
	s.mu.Lock()
	due := since >= s.opts.Checkpoint || s.mu.room != nil || s.mu.dirty.n >= s.opts.OverlayEntries
	s.mu.Unlock()
	if !due {
		return nil
	}
	return s.checkpoint()
}

// checkpoint is Checkpoint with turn held.
func (s *Spool) checkpoint() error {
	began := time.Now()
	defer func() { s.checkpointed = time.Now() }()
	s.mu.Lock()
	err, h, left := s.mu.err, header{owner: s.journal.Owner(), watermark: s.mu.done, totals: s.mu.durable}, s.mu.dirty.n
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if left > 0 || h.watermark != s.committed {
		if err := s.write(&h, left); err != nil {
			return err
		}
	} else {
		s.evict(0)
	}
	s.metrics.checkpointed(time.Since(began), left)
	return nil
}

// write writes the first n dirty messages and the header, in batches of bounded size. A message is written whole; the
// header comes last, so that a crash in between leaves messages that are newer than the watermark, over which the
// journal is replayed as always. turn is held.
func (s *Spool) write(h *header, n int) error {
	for last := false; !last; {
		var err error
		if n, err = s.writeBatch(h, n); err != nil {
			return err
		}
		last = n == 0
	}
	s.committed, s.written = h.watermark, time.Now()
	return nil
}

// writeBatch writes up to n dirty messages, and returns how many are left. With the last comes the header.
func (s *Spool) writeBatch(h *header, n int) (left int, err error) {
	w := &indexWriter{batch: s.index.db.NewBatch()}
	defer w.batch.Close()
	var ages int64
	for n > 0 && !s.index.fills(w.batch) {
		k, err := s.writeSome(w, n, &ages)
		if err != nil {
			return n, s.indexError(err)
		}
		if n -= k; k == 0 {
			n = 0 // they became final meanwhile
		}
	}
	// The index must not know of anything that the journal may lose.
	if err := s.settled(); err != nil {
		return n, err
	}
	if err := s.writeExtents(w); err != nil {
		return n, s.indexError(err)
	}
	if n == 0 {
		w.key, w.value = append(w.key[:0], keyHeader), appendHeader(w.value[:0], h)
		if err := w.set(); err != nil {
			return n, s.indexError(err)
		}
	}
	if err := s.index.commit(w.batch); err != nil {
		return n, s.indexError(err)
	}
	s.evict(ages)
	return n, nil
}

// writeSome adds some of up to n dirty messages to a batch, and returns how many; 0: there are none any more.
func (s *Spool) writeSome(w *indexWriter, n int, ages *int64) (k int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n = min(n, s.mu.dirty.n)
	for entries := 0; k < n && entries < writeChunk; k++ {
		m := s.mu.dirty.first
		entries += len(m.entries)
		if err := s.writeMessage(w, m, ages); err != nil {
			return k, err
		}
	}
	return k, nil
}

// writeMessage adds a message to a checkpoint and takes it for clean. turn and mu are held. Should the checkpoint
// fail, the spool has failed.
func (s *Spool) writeMessage(w *indexWriter, m *msg, ages *int64) error {
	if err := w.message(m); err != nil {
		return err
	}
	s.countIndexed(m)
	for i := range m.entries {
		e := &m.entries[i]
		if !e.changed {
			continue
		}
		e.changed = false
		e.key = e.wantedKey()
		if a := e.key.age; a != 0 && (*ages == 0 || a < *ages) {
			*ages = a
		}
	}
	if m.left > 0 {
		m.inIndex, m.indexPos, m.indexDue = true, m.pos, m.reports > 0
	} // else its keys are there until the commit: it must not leave the overlay before
	m.dirty = false
	m.unlink()
	s.mu.clean.push(m)
	return nil
}

// evict drops clean messages that nobody works on from the overlay; ages is the earliest key that was added to the
// age order, 0: none. turn is held.
func (s *Spool) evict(ages int64) {
	s.gate.Lock()
	defer s.gate.Unlock()
	s.evictions++
	s.mu.Lock()
	defer s.mu.Unlock()
	if ages != 0 {
		s.mu.ageFloor = min(s.mu.ageFloor, ages)
	}
	now := time.Now()
	keep := s.demand(now)
	for n := s.mu.clean.n; n > 0 && s.mu.clean.first != nil; n-- {
		m := s.mu.clean.first
		wanted := keep > 0 && m.due(micros(now))
		if wanted {
			keep--
		}
		if (m.claimed == 0 || !s.mu.live) && m.pending == 0 && !wanted {
			s.leave(m)
		} else { // behind those that were not looked at: whatever happens to the list meanwhile, each of them has its turn
			m.unlink()
			s.mu.clean.push(m)
		}
		if n%writeChunk == 0 {
			s.mu.Unlock()
			s.mu.Lock()
		}
	}
	s.makeRoom()
}

// demand returns how many messages that are due are worth keeping in memory, since they are likely to be claimed before
// long: about as many as were claimed of late. mu is held.
func (s *Spool) demand(now time.Time) int {
	d := &s.mu.demand
	if now.Sub(d.since) >= s.opts.Checkpoint {
		d.before, d.claimed, d.since = d.claimed, 0, now
	}
	if full := overlayHard * s.opts.OverlayEntries; s.mu.weight >= full/4*3 || s.mu.resident-s.mu.claimed >= full/2 {
		return 0 // others wait for room, or soon will
	}
	return min(2*(d.before+d.claimed), s.opts.OverlayEntries/4)
}

// due reports whether an entry waits that is due.
func (m *msg) due(now int64) bool {
	for i := range m.entries {
		if e := &m.entries[i]; e.heap >= 0 && e.due <= now {
			return true
		}
	}
	return false
}

// syncIndex puts the last checkpoint on stable storage. turn is held.
func (s *Spool) syncIndex() error {
	if s.synced == s.committed {
		return nil
	}
	if err := s.index.sync(); err != nil {
		return s.indexError(err)
	}
	s.synced = s.committed
	return nil
}
