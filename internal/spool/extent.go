package spool

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
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
	removed   bool
	stays     time.Time // when the file system refused to remove it; zero: it did not
	indexed   int       // the same as the index counts
	inIndex   int64
	changed   bool // the index does not have its counts
	strangers map[message.ID]origin
	carried   bool // what it says of strangers was written again, so that it may go
	unsure    bool // strangers may lack some, which reading the extent would tell
	crowded   bool // strangers lacks some since there were too many
}

// origin says where the journal may bring a message from at a replay.
type origin struct {
	birth journal.ExtentID // of its accepted record
	moved bool             // younger extents may have it too
}

// maxStrangers bounds the memory for messages that live elsewhere. An extent with more is read before it is removed.
const maxStrangers = 4096

// View is somebody who reads the journal by position, such as the event log. Extents stay until every view is past
// them.
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

func (s *Spool) extentAt(p journal.Position) *extent { return s.extentOf(s.journal.ExtentOf(p)) }

func (s *Spool) extentOf(id journal.ExtentID) *extent {
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

// note remembers that the record at p is about a message that was born in another extent. If p's extent went before
// that one, a replay from the first record would bring the message back without knowing what the record said. mu is
// held.
func (s *Spool) note(m *msg, p journal.Position) {
	if s.journal.ExtentOf(p) == m.birth {
		return
	}
	s.extentAt(p).note(m.ID, origin{birth: m.birth, moved: m.copied || s.journal.ExtentOf(m.pos) != m.birth})
}

func (x *extent) note(id message.ID, from origin) {
	switch {
	case x.unsure || x.crowded:
	case len(x.strangers) >= maxStrangers:
		x.strangers, x.crowded = nil, true
	default:
		if x.strangers == nil {
			x.strangers = make(map[message.ID]origin)
		}
		from.moved = from.moved || x.strangers[id].moved
		x.strangers[id] = from
	}
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
		if x.removed && x.indexed == 0 {
			delete(s.mu.extents, id)
		}
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
			return fmt.Errorf("%w: the count of an extent", errDamaged)
		}
		each(journal.ExtentID(binary.BigEndian.Uint64(it.Key()[1:])), int(n), bytes)
	}
	return it.Error()
}

// reclaim removes extents that nobody needs, and makes others removable when too much of the journal is dead.
func (s *Spool) reclaim(ctx context.Context) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	var rest []journal.Extent // sealed, and nobody has to read them
	var waste int64
	there := s.journal.Extents()
	for i := 0; i < len(there); {
		if err := s.between(); err != nil {
			return err
		}
		e := there[i]
		live, bytes := s.extentState(e.ID)
		if !e.Sealed || !s.passed(e.End) {
			i++
			continue
		}
		if live == 0 {
			free, err := s.carryFree(ctx, e, there[:i])
			if err != nil {
				return err
			}
			gone := false
			if free && !s.refused(e.ID) {
				if gone, err = s.removeExtent(ctx, e); err != nil {
					return err
				}
			}
			if gone { // only then may younger ones go that tell how its messages ended
				there = slices.Delete(there, i, i+1)
				continue
			}
		}
		rest = append(rest, e)
		waste += max(e.Bytes-bytes, 0)
		i++
	}
	if s.journal.Room(0) != nil {
		return s.squeeze(ctx, waste, rest, there)
	}
	if s.opts.Waste < 0 {
		return nil
	}
	return s.compact(ctx, waste, s.opts.Waste, rest)
}

// squeezeBytes is how much is copied forward in a round while the disk is nearly full: it comes out of the reserve, and
// gives back at least three times as much.
const squeezeBytes = 8 << 20

// squeeze is compact when every segment counts: it allows no waste, and the segment that is written to is sealed when
// it holds little else. turn is held.
func (s *Spool) squeeze(ctx context.Context, waste int64, rest, there []journal.Extent) error {
	if n := len(there); n > 0 && !there[n-1].Sealed {
		e := there[n-1]
		if _, bytes := s.extentState(e.ID); e.Bytes-bytes >= squeezeBytes && bytes < e.Bytes/4 {
			if err := s.journal.Roll(ctx); err != nil {
				return err
			}
		}
	}
	return s.compact(ctx, waste, 0, rest)
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

// carryFree reports whether a dead extent may be removed just so: no older extent brings a message that this one has
// records of. turn is held.
func (s *Spool) carryFree(ctx context.Context, e journal.Extent, older []journal.Extent) (bool, error) {
	s.mu.Lock()
	x := s.mu.extents[e.ID]
	unsure := x != nil && x.unsure
	s.mu.Unlock()
	if x == nil || len(older) == 0 {
		return true, nil
	}
	if unsure {
		ids, err := s.readStrangers(ctx, e)
		if err != nil {
			return false, err
		}
		s.mu.Lock()
		x.unsure = false
		for _, id := range ids {
			x.note(id, origin{moved: true})
		}
		s.mu.Unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if x.carried {
		return true, nil
	}
	if x.crowded {
		return false, nil
	}
	for id, from := range x.strangers {
		if from.exists(older) {
			return false, nil
		}
		delete(x.strangers, id) // extents do not come back
	}
	return true, nil
}

// exists reports whether one of the extents, all older than that with the record, may bring the message.
func (o origin) exists(older []journal.Extent) bool {
	for _, e := range older {
		if e.ID == o.birth || o.moved && e.ID > o.birth {
			return true
		}
	}
	return false
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

// removeExtent removes an extent without living bodies that needs no carrying, or was carried, and reports whether it
// is gone. If the file system refuses, the extent stays for another round. turn is held. The index is synced first: a
// crash right after must not need the extent's records.
func (s *Spool) removeExtent(ctx context.Context, e journal.Extent) (gone bool, err error) {
	if s.synced < e.End {
		if err := s.syncIndex(); err != nil {
			return false, err
		}
	}
	err = s.journal.Remove(ctx, e.ID)
	switch {
	case err == nil:
	case errors.Is(err, journal.ErrStays):
		s.stays(e.ID, err)
		return false, nil
	case ctx.Err() != nil:
		return false, nil
	default: // it is not known whether the extent would be back after a power cut
		return false, s.fail(err)
	}
	s.mu.Lock()
	if x := s.mu.extents[e.ID]; x != nil {
		x.removed = true // it goes when the index does not count it any more
		x.stays = time.Time{}
	}
	s.mu.Unlock()
	s.metrics.removed(e.Bytes)
	return true, nil
}

// removeAgain is how long an extent rests that the file system refused to remove.
const removeAgain = time.Minute

// refused reports whether the file system refused to remove the extent a moment ago.
func (s *Spool) refused(id journal.ExtentID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.mu.extents[id]
	return x != nil && time.Since(x.stays) < removeAgain
}

// stays notes that an extent could not be removed. Nothing depends on it but space: what its messages came to is
// recorded elsewhere.
func (s *Spool) stays(id journal.ExtentID, err error) {
	s.mu.Lock()
	x := s.mu.extents[id]
	if x == nil {
		x = new(extent)
		s.mu.extents[id] = x
	}
	first := x.stays.IsZero()
	x.stays = time.Now()
	s.mu.Unlock()
	if first {
		s.opts.Logger.Error("an extent of the journal cannot be removed; it takes space and is tried again from time to time",
			"extent", id, "error", err)
	}
}

// carry writes the state of messages that an older extent brings and that have records in e, so that e can be removed
// and the index can still be rebuilt from the journal alone; on return that is durable. A crash in between leaves the
// extent, and at worst a useless copy of states. turn is held.
func (s *Spool) carry(ctx context.Context, e journal.Extent) error {
	s.mu.Lock()
	carried := s.extentOf(e.ID).carried
	s.mu.Unlock()
	if carried {
		return nil // but it could not be removed
	}
	if err := s.rewrite(ctx, e); err != nil {
		return err
	}
	// Messages that were not carried since they are over must be so durably.
	if err := s.settled(); err != nil {
		return err
	}
	s.mu.Lock()
	s.extentOf(e.ID).carried = true
	s.mu.Unlock()
	return nil
}

func (s *Spool) rewrite(ctx context.Context, e journal.Extent) error {
	found, err := s.strangersOf(ctx, e)
	if err != nil {
		return err
	}
	for ids := slices.SortedFunc(maps.Keys(found), message.ID.Compare); len(ids) > 0; {
		if err := s.between(); err != nil {
			return err
		}
		n := min(len(ids), maxChunk)
		if err := s.load(ids[:n]); err != nil {
			return err
		}
		o := s.begin()
		o.waited = true
		o.record(KindCarried, time.Now())
		for _, id := range ids[:n] {
			switch m := s.mu.msgs[id]; {
			case m == nil || m.left == 0:
				// It may have been moved since what is remembered of it here.
				o.tomb(id, origin{birth: found[id].birth, moved: true})
			case s.journal.ExtentOf(m.pos) < e.ID:
				o.wholeOf(m)
			} // else its moved record told all since
			if ids = ids[1:]; len(o.changes) >= maxChunk {
				break
			}
		}
		if len(o.changes) == 0 {
			s.unload()
			s.end(o)
			continue
		}
		s.metrics.carried(n)
		s.submit(o)
		s.gate.RUnlock()
		if err := s.wait(o); err != nil {
			return err
		}
	}
	return nil
}

// tomb is what remains of a message that is over while an older extent could bring it back.
type tomb struct {
	id   message.ID
	from origin
}

// tomb adds to a carried record that all entries of a message are gone.
func (o *op) tomb(id message.ID, from origin) {
	o.changes = append(o.changes, Change{Message: &Message{ID: id}})
	o.records[len(o.records)-1].partialCount++
	o.tombs = append(o.tombs, tomb{id, from})
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

// strangersOf returns the messages that records in an extent are about and that were not born there.
func (s *Spool) strangersOf(ctx context.Context, e journal.Extent) (map[message.ID]origin, error) {
	s.mu.Lock()
	x := s.mu.extents[e.ID]
	if x == nil {
		s.mu.Unlock()
		return nil, nil
	}
	found := maps.Clone(x.strangers)
	read := x.unsure || x.crowded
	s.mu.Unlock()
	if !read {
		return found, nil
	}
	ids, err := s.readStrangers(ctx, e)
	found = make(map[message.ID]origin, len(ids))
	for _, id := range ids {
		found[id] = origin{moved: true}
	}
	return found, err
}

// readStrangers reads an extent to find what strangersOf could not remember.
func (s *Spool) readStrangers(ctx context.Context, e journal.Extent) ([]message.ID, error) {
	found := make(map[message.ID]bool)
	born := make(map[message.ID]bool)
	err := s.readExtent(ctx, e, e.First, func(entry *journal.Entry, rec *Record) bool {
		if entry.Kind == KindAccepted {
			born[rec.Message.ID] = true
		}
		for i := range rec.Changes {
			found[rec.Changes[i].Message.ID] = true
		}
		return true
	})
	maps.DeleteFunc(found, func(id message.ID, _ bool) bool { return born[id] })
	return slices.SortedFunc(maps.Keys(found), message.ID.Compare), err
}

// readExtent gives the records of an extent from a position on. Records that cannot be read are passed over: they say
// nothing at the next start either.
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
