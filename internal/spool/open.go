package spool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/message"
)

// Names in Options.Dir.
const (
	indexDir    = "index"
	rebuildMark = "index.rebuild" // the index was found damaged: make a new one
)

// Open opens the spool and returns when it is as the journal says: it reads the index, replays what the journal has beyond it, and notes
// in the journal, durably, that attempts were interrupted that had no outcome. A missing or unreadable index is rebuilt. It
// starts nothing. A crash during Open leaves the journal as it was, with some of those notes.
func Open(ctx context.Context, o Options) (*Spool, error) {
	o, err := o.filled()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	for try := 0; ; try++ {
		s := newSpool(o)
		h, err := s.openIndex()
		if err != nil {
			return nil, err
		}
		claimed, records, err := s.rebuild(ctx, h)
		if err == nil {
			err = s.interrupt(claimed)
		}
		if err == nil {
			err = s.metrics.register(s, o.Registerer)
		}
		if err == nil {
			st := s.Stats()
			o.Logger.Info("the spool is open", "waiting", st.Waiting, "held", st.Held, "queues", st.Queues,
				"interrupted", len(claimed), "replayed", records, "took", time.Since(began).Round(time.Millisecond))
			return s, nil
		}
		err = errors.Join(err, s.index.close())
		if !damaged(err) || try > 0 {
			return nil, err
		}
		if e := markRebuild(o.FS, o.Dir); e != nil {
			return nil, errors.Join(err, e)
		}
		o.Logger.Error("the spool's index is damaged; rebuilding it from the journal", "error", err)
	}
}

func newSpool(o Options) *Spool {
	s := &Spool{opts: o, journal: o.Journal, kick: make(chan struct{}, 1), failed: make(chan struct{})}
	s.mu.answered = sync.NewCond(&s.mu)
	s.mu.msgs = make(map[message.ID]*msg)
	s.mu.queues = make(map[QueueKey]*queue)
	s.mu.extents = make(map[journal.ExtentID]*extent)
	s.mu.rand = rand.New(o.Rand)
	s.metrics = newMetrics()
	return s
}

// rebuild makes memory what index and journal say, and returns which entries are claimed and how many records it replayed.
func (s *Spool) rebuild(ctx context.Context, h header) (claimed []EntryID, records int, err error) {
	h.rebuild = h.rebuild || h.watermark == 0
	s.committed = h.watermark
	s.mu.done, s.mu.totals, s.mu.durable = h.watermark, h.totals, h.totals
	if err := s.readExtents(); err != nil {
		return nil, 0, err
	}
	if records, err = s.replay(ctx, h); err != nil {
		return nil, 0, err
	}
	if claimed, err = s.survey(); err != nil {
		return nil, 0, err
	}
	if h.rebuild {
		s.rebase()
	}
	return claimed, records, nil
}

// openIndex opens the index, or a new one if there is none or it cannot be used.
func (s *Spool) openIndex() (header, error) {
	o := &s.opts
	dir := o.FS.PathJoin(o.Dir, indexDir)
	err := o.FS.MkdirAll(o.Dir, 0o750)
	if err == nil {
		err = syncDir(o.FS, o.FS.PathDir(o.Dir))
	}
	if err != nil {
		return header{}, fmt.Errorf("spool: %w", err)
	}
	_, err = o.FS.Stat(o.FS.PathJoin(o.Dir, rebuildMark))
	rebuild := err == nil
	for try := 0; ; try++ {
		if rebuild {
			// Synced, or a power cut could bring back an index that is too old for the journal by then.
			if err := errors.Join(o.FS.RemoveAll(dir), syncDir(o.FS, o.Dir)); err != nil {
				return header{}, fmt.Errorf("spool: throwing away the index: %w", err)
			}
		}
		h, why, err := s.tryIndex(dir)
		if err != nil {
			return header{}, err
		}
		if why == nil {
			if rebuild {
				err = clearRebuild(o.FS, o.Dir)
			}
			if err != nil {
				return header{}, errors.Join(err, s.index.close())
			}
			return h, nil
		}
		if try > 0 {
			return header{}, why
		}
		rebuild = true
		o.Logger.Error("the spool's index cannot be used; rebuilding it from the journal", "error", why)
	}
}

// tryIndex opens the index. why says that it is not usable but may be rebuilt; err that nothing can be done about it.
func (s *Spool) tryIndex(dir string) (h header, why, err error) {
	o := &s.opts
	if err := errors.Join(o.FS.MkdirAll(dir, 0o750), syncDir(o.FS, o.Dir)); err != nil {
		return h, nil, fmt.Errorf("spool: %w", err)
	}
	x, err := openIndex(indexOptions{
		dir: dir, fs: o.FS, memtable: uint64(o.IndexMemtable), cache: o.IndexCache, logger: o.Logger, fatal: o.Fatal,
		damaged: func() {
			if err := markRebuild(o.FS, o.Dir); err != nil {
				o.Logger.Error("the rebuild of the index could not be arranged", "error", err)
			}
		},
	})
	if err != nil {
		for _, e := range []error{os.ErrPermission, syscall.ENOSPC, syscall.EMFILE, syscall.ENFILE, errIndexLocked} {
			if errors.Is(err, e) {
				return h, nil, err
			}
		}
		return h, err, nil
	}
	h, found, err := x.header()
	switch {
	case err != nil:
		why = err
	case found && h.owner != s.journal.Owner():
		why = fmt.Errorf("it belongs to the journal of %q", h.owner)
	case h.watermark != 0 && h.watermark >= s.journal.End():
		why = errors.New("it is ahead of the journal")
	case !found && !x.empty():
		why = errors.New("it was written by another version")
	default:
		s.index = x
		return h, nil, nil
	}
	return header{}, why, x.close()
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (x *index) empty() bool {
	it, err := x.db.NewIter(nil)
	if err != nil {
		return false
	}
	defer it.Close()
	return !it.First() && it.Error() == nil
}

// markRebuild asks the next start for a new index. It need not survive a power cut: the damage will be found again.
func markRebuild(fs vfs.FS, dir string) error {
	f, err := fs.Create(fs.PathJoin(dir, rebuildMark), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	return f.Close()
}

func clearRebuild(fs vfs.FS, dir string) error {
	err := fs.Remove(fs.PathJoin(dir, rebuildMark))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// replay applies what the journal has beyond the index, and returns how many records that were.
func (s *Spool) replay(ctx context.Context, h header) (int, error) {
	r, err := s.journal.NewReader(h.watermark)
	if err != nil {
		return 0, fmt.Errorf("spool: replaying the journal: %w", err)
	}
	defer r.Close()
	var rec Record
	for n := 0; ; {
		e, err := r.Next(ctx, false)
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, fmt.Errorf("spool: replaying the journal: %w", err)
		}
		if e.Position <= h.watermark && h.watermark != 0 {
			continue
		}
		switch err := rec.Decode(e.Kind, e.Meta); {
		case errors.Is(err, ErrVersion):
			return n, fmt.Errorf("spool: replaying the journal: %w", err)
		case err != nil:
			s.opts.Logger.Error("a record of the journal cannot be read and is passed over", "error", err)
			continue
		}
		if err := s.reapply(&rec, &e, &h); err != nil {
			return n, err
		}
		n++
	}
}

// reapply does again what a record says. Nothing else is running.
func (s *Spool) reapply(rec *Record, e *journal.Entry, from *header) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []message.ID
	if rec.Message != nil {
		ids = append(ids, rec.Message.ID)
	}
	for i := range rec.Changes {
		if id := rec.Changes[i].Message.ID; len(ids) == 0 || ids[len(ids)-1] != id {
			ids = append(ids, id)
		}
	}
	if err := s.recall(ids); err != nil {
		return err
	}
	switch rec.Kind {
	case KindAccepted:
		s.restart(rec.Message, e.Position)
	case KindMoved:
		m := s.mu.msgs[rec.Message.ID]
		if m == nil {
			m = s.restart(rec.Message, e.Position)
		}
		m.pos = e.Position
		s.touch(m)
		m.restore(rec.Changes)
	case KindCarried:
		for i := 0; i < len(rec.Changes); {
			n := 1
			for i+n < len(rec.Changes) && rec.Changes[i+n].Message == rec.Changes[i].Message {
				n++
			}
			if m := s.mu.msgs[rec.Changes[i].Message.ID]; m != nil {
				s.touch(m)
				m.restore(rec.Changes[i : i+n])
			}
			i += n
		}
	default:
		s.apply(rec, nil)
	}
	s.mu.totals.count(rec)
	s.mu.durable.count(rec)
	s.mu.done = e.Position
	for _, id := range ids {
		if m := s.mu.msgs[id]; m != nil && m.left == 0 && !m.inIndex {
			s.leave(m)
		}
	}
	if s.mu.resident < s.opts.OverlayEntries {
		return nil
	}
	h := header{owner: s.journal.Owner(), watermark: s.mu.done, totals: s.mu.durable, rebuild: from.rebuild}
	n := s.mu.dirty.n
	s.mu.Unlock()
	defer s.mu.Lock()
	return s.write(&h, n)
}

// recall puts messages into the overlay that only the index has. mu is held.
func (s *Spool) recall(ids []message.ID) error {
	if s.committed == 0 {
		return nil // the index is empty
	}
	var missing []message.ID
	for _, id := range ids {
		if s.mu.msgs[id] == nil {
			missing = append(missing, id)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	r, err := s.index.reader()
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	defer r.close()
	for _, id := range missing {
		m, err := r.fetch(id)
		if err != nil {
			return fmt.Errorf("spool: %w", err)
		}
		if m != nil {
			s.enter(m, true)
		}
	}
	return nil
}

// restart puts a message into the overlay as it was when it was accepted, over what a newer index says of it.
func (s *Spool) restart(whole *Message, pos journal.Position) *msg {
	m := newMsg(whole)
	m.pos, m.birth, m.dirty = pos, s.journal.ExtentOf(pos), true
	if old := s.mu.msgs[whole.ID]; old != nil {
		m.inIndex, m.indexPos, m.indexDue = old.inIndex, old.indexPos, old.indexDue
		for i := range old.entries {
			m.entries[old.entries[i].Index].key = old.entries[i].key
		}
		s.leave(old)
	}
	s.enter(m, false)
	return m
}

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

// survey makes the summaries of queues and extents, from the overlay and one walk over the index, and returns what is claimed.
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

// rebase makes the counters add up after a rebuild: records of entries that came to their end long ago went with their extents.
func (s *Spool) rebase() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range []*totals{&s.mu.totals, &s.mu.durable} {
		t.accepted = t.settled() + uint64(s.mu.waiting+s.mu.claimed+s.mu.held)
	}
}

// interrupt makes entries wait that were claimed when the process died, and notes so in the journal.
func (s *Spool) interrupt(claimed []EntryID) error {
	for len(claimed) > 0 {
		n := min(len(claimed), maxChunk)
		ids := make([]message.ID, n)
		for i := range ids {
			ids[i] = claimed[i].Message
		}
		if err := s.load(ids); err != nil {
			return err
		}
		now := time.Now()
		o := s.begin()
		o.waited = true
		o.record(KindInterrupted, now)
		for _, id := range claimed[:n] {
			m := s.mu.msgs[id.Message]
			if m == nil {
				continue
			}
			if e := m.find(id.Index); e != nil && e.State == Claimed {
				c := o.change(e)
				c.State, c.Attempts, c.Interrupted = Waiting, e.Attempts, e.Interrupted+1
				c.Due = now.Add(s.rest(c.Interrupted))
			}
		}
		claimed = claimed[n:]
		if len(o.changes) == 0 {
			s.unload()
			s.end(o)
			continue
		}
		s.metrics.interruptions(len(o.changes))
		s.wishes(o, len(o.changes), now)
		s.submit(o)
		s.gate.RUnlock()
		if err := s.wait(o); err != nil {
			return fmt.Errorf("noting interrupted attempts: %w", err)
		}
	}
	return nil
}

// rest returns how long an entry rests after its n-th interruption in a row. mu is held.
func (s *Spool) rest(n int) time.Duration {
	d := s.opts.Interrupted[min(n, len(s.opts.Interrupted))-1]
	return d + time.Duration(s.mu.rand.Int64N(int64(d)/5+1))
}
