package spool

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/message"
)

// Names in Options.Dir.
const (
	indexDir    = "index"
	rebuildMark = "index.rebuild" // the index was found damaged: make a new one
)

// Open opens the spool and returns when it is as the journal says: it reads the index, replays what the journal has
// beyond it, and notes in the journal, durably, that attempts were interrupted that had no outcome. A missing or
// unreadable index is rebuilt. It starts nothing. A crash during Open leaves the journal as it was, with some of
// those notes.
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
			err = s.addsUp()
		}
		if err == nil {
			err = s.interrupt(claimed)
		}
		if err == nil {
			err = s.metrics.register(s, o.Registerer)
		}
		if err == nil {
			st := s.Stats()
			o.Logger.Info("the spool is open", "waiting", st.Waiting, "held", st.Held, "queues", st.Queues,
				"interrupted", len(claimed), "replayed", records, "watermark", fmt.Sprintf("%#x", uint64(h.watermark)),
				"took", time.Since(began).Round(time.Millisecond))
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
	s := &Spool{opts: o, journal: o.Journal, kick: make(chan struct{}, 1), failed: make(chan struct{}),
		scans: make(chan struct{}, maxScans)}
	s.mu.answered = sync.NewCond(&s.mu)
	s.mu.msgs = make(map[message.ID]*msg)
	s.mu.queues = make(map[QueueKey]*queue)
	s.mu.extents = make(map[journal.ExtentID]*extent)
	s.mu.rand = rand.New(o.Rand)
	s.metrics = newMetrics()
	return s
}

// rebuild makes memory what index and journal say, and returns which entries are claimed and how many records it
// replayed.
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

// addsUp checks that the index has as many entries as its own counts say. Pebble goes on without tables that a damaged
// manifest no longer names; their entries would be missing, and nobody would know.
func (s *Spool) addsUp() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	want, have := int64(s.mu.totals.accepted)-int64(s.mu.totals.settled()), s.mu.waiting+s.mu.claimed+s.mu.held
	if want != int64(have) {
		return fmt.Errorf("%w: it has %d entries, and by its counts there are %d", errDamaged, have, want)
	}
	return nil
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
