package spool

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/message"
)

// extent is what the spool knows of an extent of the journal.
type extent struct {
	live      int   // messages whose body is here and that are needed
	bytes     int64 // octets of these
	indexed   int   // the same as the index counts
	inIndex   int64
	changed   bool // the index does not have its counts
	strangers map[message.ID]bool
	unsure    bool // strangers may lack some, which reading the extent would tell
	crowded   bool // strangers lacks some since there were too many
}

// maxStrangers bounds the memory for messages that live elsewhere. An extent with more is read before it is removed.
const maxStrangers = 4096

// View is somebody who reads the journal by position, such as the event log. Extents stay until every view is past them.
type View struct {
	spool *Spool
	name  string
	at    journal.Position // guarded by spool.mu
}

// RegisterView adds a view. Until it advances nothing is removed.
func (s *Spool) RegisterView(name string) *View {
	v := &View{spool: s, name: name}
	s.mu.Lock()
	s.mu.views = append(s.mu.views, v)
	s.mu.Unlock()
	return v
}

// Advance says that the view needs nothing below p any more, even after a crash.
func (v *View) Advance(p journal.Position) {
	v.spool.mu.Lock()
	v.at = max(v.at, p)
	v.spool.mu.Unlock()
}

// Close takes the view away: it holds nothing back any more.
func (v *View) Close() {
	v.spool.mu.Lock()
	v.spool.mu.views = slices.DeleteFunc(v.spool.mu.views, func(o *View) bool { return o == v })
	v.spool.mu.Unlock()
}

func (s *Spool) extentAt(p journal.Position) *extent {
	id := s.journal.ExtentOf(p)
	x := s.mu.extents[id]
	if x == nil {
		x = new(extent)
		s.mu.extents[id] = x
	}
	return x
}

// house counts a message where its body is. mu is held.
func (s *Spool) house(m *msg) {
	x := s.extentAt(m.pos)
	x.live++
	x.bytes += m.Size
}

func (s *Spool) unhouse(m *msg) {
	x := s.extentAt(m.pos)
	x.live--
	x.bytes -= m.Size
}

// relocate notes that the body of a message has a new place. mu is held.
func (s *Spool) relocate(m *msg, p journal.Position) {
	if m.left == 0 {
		return // it leaves from where it was
	}
	s.unhouse(m)
	m.pos = p
	s.house(m)
	s.touch(m)
}

// note remembers that the record at p is about a message that lives on, maybe elsewhere: before p's extent goes, what the record
// said must stand somewhere else. mu is held.
func (s *Spool) note(m *msg, p journal.Position) {
	if s.journal.ExtentOf(p) == s.journal.ExtentOf(m.pos) {
		return
	}
	x := s.extentAt(p)
	if x.unsure {
		return
	}
	if len(x.strangers) >= maxStrangers {
		x.strangers, x.unsure = nil, true
		return
	}
	if x.strangers == nil {
		x.strangers = make(map[message.ID]bool)
	}
	x.strangers[m.ID] = true
}

// countIndexed keeps count of where the bodies of the index's messages are. turn and mu are held.
func (s *Spool) countIndexed(m *msg) {
	if m.inIndex {
		if m.left > 0 && m.indexPos == m.pos {
			return
		}
		x := s.extentAt(m.indexPos)
		x.indexed--
		x.inIndex -= m.Size
		x.changed = true
	}
	if m.left > 0 {
		x := s.extentAt(m.pos)
		x.indexed++
		x.inIndex += m.Size
		x.changed = true
	}
}

// writeExtents adds changed counts to a checkpoint. turn is held.
func (s *Spool) writeExtents(w *indexWriter) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, x := range s.mu.extents {
		if !x.changed {
			continue
		}
		x.changed = false
		w.key = extentKey(w.key[:0], id)
		var err error
		if x.indexed == 0 {
			err = w.delete()
		} else {
			w.value = appendInt(appendInt(w.value[:0], int64(x.indexed)), x.inIndex)
			err = w.set()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// extents reads the counts of the index.
func (x *index) extents(each func(id journal.ExtentID, n int, bytes int64)) error {
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyExtent}, UpperBound: []byte{keyExtent + 1}})
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		d := decoder{s: string(v)}
		n, bytes := d.int(), d.int()
		if d.err != nil || len(it.Key()) != 9 {
			return fmt.Errorf("%w: the count of an extent", pebble.ErrCorruption)
		}
		each(journal.ExtentID(binary.BigEndian.Uint64(it.Key()[1:])), int(n), bytes)
	}
	return it.Error()
}

// reclaim removes extents that nobody needs, and copies messages forward when too much of the journal is dead.
func (s *Spool) reclaim(ctx context.Context) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	var dead []journal.Extent // but for records of messages elsewhere
	var poor []journal.Extent // have few live octets
	var waste int64
	for _, e := range s.journal.Extents() {
		if !e.Sealed || !s.passed(e.End) {
			continue
		}
		live, bytes := s.extentState(e.ID)
		if live == 0 {
			sure, err := s.noStrangers(ctx, e)
			if err != nil {
				return err
			}
			if sure {
				if err := s.removeExtent(ctx, e); err != nil {
					return err
				}
				continue
			}
			dead = append(dead, e)
		} else if bytes < e.Bytes/4 {
			poor = append(poor, e)
		}
		waste += max(e.Bytes-bytes, 0)
	}
	if s.opts.Waste < 0 {
		return nil
	}
	return s.compact(ctx, waste, dead, poor)
}

// extentState says how many messages have their body in an extent, and how large they are.
func (s *Spool) extentState(id journal.ExtentID) (live int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.mu.extents[id]; x != nil {
		return x.live, x.bytes
	}
	return 0, 0
}

// noStrangers reports whether no record in a dead extent is about a message that lives on elsewhere. turn is held.
func (s *Spool) noStrangers(ctx context.Context, e journal.Extent) (bool, error) {
	s.mu.Lock()
	x := s.mu.extents[e.ID]
	if x == nil {
		s.mu.Unlock()
		return true, nil
	}
	unsure, crowded := x.unsure, x.crowded
	var ids []message.ID
	for id := range x.strangers {
		ids = append(ids, id)
	}
	s.mu.Unlock()
	if crowded {
		return false, nil
	}
	if unsure {
		var err error
		if ids, err = s.readStrangers(ctx, e); err != nil {
			return false, err
		}
	}
	// One that lives is enough to know; those found dead need not be looked up again.
	var rest map[message.ID]bool
	for i, id := range ids {
		alive, err := s.lives(id)
		if err != nil {
			return false, err
		}
		if alive {
			rest = make(map[message.ID]bool)
			for _, id := range ids[i:min(len(ids), i+maxStrangers)] {
				rest[id] = true
			}
			break
		}
	}
	s.mu.Lock()
	x.strangers, x.unsure = rest, false
	x.crowded = len(rest) == maxStrangers // may lack some
	s.mu.Unlock()
	return len(rest) == 0, nil
}

func (s *Spool) lives(id message.ID) (bool, error) {
	m, err := s.view(id)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return m != nil, err
}

// passed reports whether the index and all views are past p for good. turn is held.
func (s *Spool) passed(p journal.Position) bool {
	if s.committed < p {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.mu.views {
		if v.at < p {
			return false
		}
	}
	return true
}

// removeExtent removes an extent without living bodies. turn is held. The index is synced first: a crash right after must not need
// the extent's records. The state of messages that have records in it but live elsewhere is carried forward first, so that the index can
// still be rebuilt from the journal alone. A crash in between leaves the extent, and at worst a useless copy of states.
func (s *Spool) removeExtent(ctx context.Context, e journal.Extent) error {
	if s.synced < e.End {
		if err := s.syncIndex(); err != nil {
			return err
		}
	}
	if err := s.carry(ctx, e); err != nil {
		return err
	}
	if err := s.journal.Remove(ctx, e.ID); err != nil {
		if s.journal.Err() != nil {
			return s.fail(err)
		}
		s.opts.Logger.Warn("an extent of the journal could not be removed", "extent", e.ID, "error", err)
		return nil
	}
	s.mu.Lock()
	delete(s.mu.extents, e.ID)
	s.mu.Unlock()
	s.metrics.removed(e.Bytes)
	return nil
}

// carry writes the state of living messages that have records in an extent but their body elsewhere. turn is held.
func (s *Spool) carry(ctx context.Context, e journal.Extent) error {
	ids, err := s.strangersOf(ctx, e)
	if err != nil {
		return err
	}
	for chunk := range slices.Chunk(ids, 128) {
		if err := s.load(chunk); err != nil {
			return err
		}
		o := s.begin()
		o.waited = true
		now := time.Now()
		o.record(KindCarried, now)
		for _, id := range chunk {
			if m := s.mu.msgs[id]; m != nil && m.left > 0 && s.journal.ExtentOf(m.pos) != e.ID {
				o.wholeOf(m)
			}
		}
		if len(o.changes) == 0 {
			s.unload()
			s.end(o)
			continue
		}
		s.submit(o)
		s.gate.RUnlock()
		if err := s.wait(o); err != nil {
			return err
		}
		s.metrics.carried(len(chunk))
	}
	return nil
}

// wholeOf adds the states of all of a message's entries that are not gone to a moved or carried record.
func (o *op) wholeOf(m *msg) {
	for i := range m.entries {
		e := &m.entries[i]
		if e.gone {
			continue
		}
		w := e.whole()
		w.entry = e
		o.changes = append(o.changes, w)
		o.records[len(o.records)-1].partialCount++
	}
}

// strangersOf returns the messages that records in an extent are about and whose body may be elsewhere.
func (s *Spool) strangersOf(ctx context.Context, e journal.Extent) ([]message.ID, error) {
	s.mu.Lock()
	x := s.mu.extents[e.ID]
	if x == nil {
		s.mu.Unlock()
		return nil, nil
	}
	ids := make([]message.ID, 0, len(x.strangers))
	for id := range x.strangers {
		ids = append(ids, id)
	}
	read := x.unsure || x.crowded
	s.mu.Unlock()
	if read {
		return s.readStrangers(ctx, e)
	}
	return ids, nil
}

// readStrangers returns the messages that records in an extent change.
func (s *Spool) readStrangers(ctx context.Context, e journal.Extent) ([]message.ID, error) {
	found := make(map[message.ID]bool)
	err := s.readExtent(ctx, e, e.First, func(entry *journal.Entry, rec *Record) bool {
		for i := range rec.Changes {
			found[rec.Changes[i].Message.ID] = true
		}
		return true
	})
	ids := make([]message.ID, 0, len(found))
	for id := range found {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, message.ID.Compare)
	return ids, err
}

// readExtent gives the records of an extent from a position on. Records that cannot be read are passed over: they say nothing at
// the next start either.
func (s *Spool) readExtent(ctx context.Context, e journal.Extent, from journal.Position,
	each func(*journal.Entry, *Record) bool) error {
	r, err := s.journal.NewReader(from)
	if err != nil {
		return fmt.Errorf("spool: reading an extent: %w", err)
	}
	defer r.Close()
	var rec Record
	for {
		entry, err := r.Next(ctx, false)
		if errors.Is(err, io.EOF) || err == nil && entry.Position >= e.End {
			return nil
		}
		if err != nil {
			return fmt.Errorf("spool: reading an extent: %w", err)
		}
		if rec.Decode(entry.Kind, entry.Meta) == nil && !each(&entry, &rec) {
			return nil
		}
	}
}
