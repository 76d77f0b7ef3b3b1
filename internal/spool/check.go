package spool

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/message"
)

// CheckOptions say what to check.
type CheckOptions struct {
	JournalDir string         // the journal's directory
	Dir        string         // the spool's directory, as in Options
	FS         vfs.FS         // where both are; default: the operating system's
	Sealer     journal.Sealer // opens records that are sealed; nil: there are none
	// Scratch is a file system for an index that is made anew and compared with the one that is there, about 150
	// octets for each entry; default: memory.
	Scratch  vfs.FS
	MaxFound int                     // problems listed; default 100, the rest is counted
	Progress func(done, total int64) // octets of the journal
	Logger   *slog.Logger            // nil discards
}

// CheckReport is what a check found.
type CheckReport struct {
	Extents int   `json:"segments"`
	Records int   `json:"records"` // of the journal, all checksums verified
	Bodies  int   `json:"bodies"`  // records with a body, verified too
	Bytes   int64 `json:"bytes"`   // of the journal

	Messages int `json:"messages"` // that are here, according to the journal
	Entries  int `json:"entries"`  // of these, not final or to be reported

	// Index says what became of the index: "checked", "missing", "in use" by a running server, "unreadable". A
	// missing or unreadable index is rebuilt at the next start and no loss.
	Index string `json:"index"`

	Problems []Problem `json:"problems"`
	More     int       `json:"more_problems,omitempty"` // beyond those listed
}

// OK reports whether nothing is wrong.
func (r *CheckReport) OK() bool { return len(r.Problems) == 0 }

// Problem is one thing that is wrong.
type Problem struct {
	Where string `json:"where"` // "journal" or "index"
	What  string `json:"what"`  // position, message or entry
	Text  string `json:"text"`
}

func (p Problem) String() string { return p.Where + ": " + p.What + ": " + p.Text }

// checker is one check under way.
type checker struct {
	opts    CheckOptions
	log     *journal.Log
	report  CheckReport
	bodies  map[journal.Position]bool // all there are; whether they can be read
	scratch int                       // tells tries apart
}

func (c *checker) problem(where, what, format string, args ...any) {
	if len(c.report.Problems) >= c.opts.MaxFound {
		c.report.More++
		return
	}
	c.report.Problems = append(c.report.Problems, Problem{where, what, fmt.Sprintf(format, args...)})
}

// Check verifies the data of a server, running or not, and changes nothing: it reads every record of the journal with
// its body, makes a new index from the journal in Scratch, and, unless a server has it open, compares the index that
// is there with it, entry by entry. The error says that the check itself could not be made; what it found wrong is in
// the report.
func Check(ctx context.Context, o CheckOptions) (*CheckReport, error) {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Scratch == nil {
		o.Scratch = vfs.NewMem()
	}
	if o.MaxFound == 0 {
		o.MaxFound = 100
	}
	if o.Progress == nil {
		o.Progress = func(int64, int64) {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	// A running server removes extents under our feet; then what was read so far is worth nothing.
	for try := 0; ; try++ {
		c := &checker{opts: o, scratch: try, bodies: make(map[journal.Position]bool)}
		err := c.run(ctx)
		if err == nil {
			return &c.report, nil
		}
		if !errors.Is(err, journal.ErrRemoved) || try == 4 {
			return nil, fmt.Errorf("spool: checking: %w", err)
		}
	}
}

func (c *checker) run(ctx context.Context) error {
	log, err := journal.Open(journal.Options{Dir: c.opts.JournalDir, FS: c.opts.FS, Sealer: c.opts.Sealer, ReadOnly: true})
	if err != nil {
		return err
	}
	c.log = log
	return errors.Join(c.check(ctx), log.Close())
}

func (c *checker) check(ctx context.Context) error {
	if err := c.records(ctx); err != nil {
		return err
	}
	copied, err := c.copyIndex()
	if err != nil {
		return err
	}
	fresh, why, err := c.restore(ctx, "fresh")
	if err = errors.Join(why, err); err != nil {
		return err
	}
	err = c.homes(fresh)
	if err == nil && copied {
		err = c.compareIndex(ctx, fresh)
	}
	for _, d := range c.log.Damage() {
		c.problem("journal", fmt.Sprintf("extent %d, %#x to %#x", d.Extent, uint64(d.From), uint64(d.To)), "%s", d.Reason)
	}
	return errors.Join(err, fresh.Close())
}

// records reads everything that the journal has.
func (c *checker) records(ctx context.Context) error {
	var total int64
	for _, e := range c.log.Extents() {
		c.report.Extents++
		total += e.Bytes
	}
	c.report.Bytes = total
	r, err := c.log.NewReader(0)
	if err != nil {
		return err
	}
	defer r.Close()
	final := make(map[EntryID]bool)
	var rec Record
	var done int64
	for {
		e, err := r.Next(ctx, false)
		if errors.Is(err, io.EOF) {
			c.opts.Progress(total, total)
			return nil
		}
		if err != nil {
			return err
		}
		at := fmt.Sprintf("position %#x", uint64(e.Position))
		c.report.Records++
		done += int64(len(e.Meta)) + e.BodySize
		if c.report.Records%1000 == 0 {
			c.opts.Progress(min(done, total), total)
		}
		if err := rec.Decode(e.Kind, e.Meta); err != nil {
			c.problem("journal", at, "%v", err)
			continue
		}
		c.finals(&rec, at, final)
		if !e.HasBody {
			if rec.Message != nil {
				c.problem("journal", at, "message %s has no body", rec.Message.ID)
			}
			continue
		}
		c.report.Bodies++
		if err := c.body(ctx, e.Position, at, rec.Message); err != nil {
			return err
		}
	}
}

// finals looks for entries that came to an end twice.
func (c *checker) finals(rec *Record, at string, final map[EntryID]bool) {
	if rec.Kind != KindAttempted && rec.Kind != KindSettled {
		return
	}
	for i := range rec.Changes {
		ch := &rec.Changes[i]
		if !ch.Result.Outcome.Final() {
			continue
		}
		if final[ch.ID()] {
			c.problem("journal", at, "entry %s is %s, but it was final before", ch.ID(), ch.Result.Outcome)
		}
		final[ch.ID()] = true
	}
}

func (c *checker) body(ctx context.Context, p journal.Position, at string, m *Message) error {
	r, err := c.log.Read(ctx, p)
	if errors.Is(err, journal.ErrDamaged) {
		what := at
		if m != nil {
			what = "message " + m.ID.String()
		}
		c.problem("journal", what, "%v", err)
		c.bodies[p] = false
		return nil
	}
	if err != nil {
		return err
	}
	defer r.Body.Release()
	c.bodies[p] = true
	if m != nil && m.Size != r.Body.Size() {
		c.problem("journal", "message "+m.ID.String(), "the body has %d octets, the envelope says %d", r.Body.Size(), m.Size)
	}
	return nil
}

// restore replays the journal into an index in scratch, from what is in its directory. why says that this cannot be
// used.
func (c *checker) restore(ctx context.Context, name string) (s *Spool, why, err error) {
	o, err := Options{Dir: c.dir(name), FS: c.opts.Scratch, Journal: c.log, Logger: c.opts.Logger}.filled()
	if err != nil {
		return nil, nil, err
	}
	s = newSpool(o)
	h, why, err := s.tryIndex(o.FS.PathJoin(o.Dir, indexDir))
	if why != nil || err != nil {
		return nil, why, err
	}
	_, _, err = s.rebuild(ctx, h)
	if err == nil {
		err = s.Checkpoint()
	}
	if err != nil {
		err = errors.Join(err, s.index.close())
		if damaged(err) {
			return nil, err, nil
		}
	}
	return s, nil, err
}

func (c *checker) dir(name string) string { return fmt.Sprintf("/%s-%d", name, c.scratch) }

// homes checks that every message that is here has its body.
func (c *checker) homes(s *Spool) error {
	return s.index.each(func(m *msg) error {
		c.report.Messages++
		c.report.Entries += len(m.entries)
		if _, there := c.bodies[m.pos]; !there {
			c.problem("journal", "message "+m.ID.String(), "its body is gone")
		}
		return nil
	})
}

// copyIndex copies the index to scratch, if there is one and nobody has it open.
func (c *checker) copyIndex() (bool, error) {
	fs, from := c.opts.FS, c.opts.FS.PathJoin(c.opts.Dir, indexDir)
	names, err := fs.List(from)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(names) == 0 {
		c.report.Index = "missing"
		return false, nil
	}
	if err != nil {
		return false, err
	}
	lock, err := pebble.LockDirectory(from, fs)
	if err != nil {
		c.report.Index = "in use"
		return false, nil
	}
	to := c.opts.Scratch.PathJoin(c.dir("copy"), indexDir)
	err = c.opts.Scratch.MkdirAll(to, 0o700)
	for _, name := range names {
		if name != "LOCK" && err == nil {
			err = copyFile(fs, fs.PathJoin(from, name), c.opts.Scratch, c.opts.Scratch.PathJoin(to, name))
		}
	}
	return err == nil, errors.Join(err, lock.Close())
}

func copyFile(from vfs.FS, src string, to vfs.FS, dst string) (err error) {
	in, err := from.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := to.Create(dst, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// compareIndex brings the copy of the index up to date from the journal and compares it with a new one.
func (c *checker) compareIndex(ctx context.Context, fresh *Spool) error {
	old, why, err := c.restore(ctx, "copy")
	if err != nil {
		return err
	}
	if why == nil {
		c.report.Index = "checked"
		err = c.compare(fresh, old)
		if err == nil {
			err = c.orders(old)
		}
		if damaged(err) {
			why, err = err, nil
		}
		err = errors.Join(err, old.Close())
	}
	if why != nil {
		c.report.Index = "unreadable"
		c.problem("index", c.opts.Dir, "%v", why)
	}
	return err
}

// compare goes through the messages of both indexes.
func (c *checker) compare(fresh, old *Spool) error {
	has, err := old.index.reader()
	if err != nil {
		return err
	}
	defer has.close()
	err = fresh.index.each(func(m *msg) error {
		other, err := has.fetch(m.ID)
		if err != nil {
			return err
		}
		if other == nil {
			c.problem("index", "message "+m.ID.String(), "it is not in the index")
			return nil
		}
		if other.pos != m.pos {
			c.problem("index", "message "+m.ID.String(), "its body is at %#x, not at %#x", uint64(m.pos), uint64(other.pos))
		}
		if !bytes.Equal(appendMessage(nil, m.Message), appendMessage(nil, other.Message)) {
			c.problem("index", "message "+m.ID.String(), "the envelope differs from the accepted one")
		}
		c.compareEntries(m, other)
		return nil
	})
	if err != nil {
		return err
	}
	should, err := fresh.index.reader()
	if err != nil {
		return err
	}
	defer should.close()
	return old.index.each(func(m *msg) error {
		other, err := should.fetch(m.ID)
		if err == nil && other == nil {
			c.problem("index", "message "+m.ID.String(), "the journal does not know of it, or it is over")
		}
		return err
	})
}

func (c *checker) compareEntries(want, got *msg) {
	for i := range want.entries {
		e := &want.entries[i]
		o := got.find(e.Index)
		if o == nil {
			c.problem("index", e.ID().String(), "it is not in the index; it is %s", e.State)
			continue
		}
		w, g := e.whole(), o.whole()
		if w.State == Waiting && g.State == Claimed {
			continue // the claim was lost in a power cut, which does no harm
		}
		a, b := appendChange(nil, &w, hasAll, nil, maxIndexText), appendChange(nil, &g, hasAll, nil, maxIndexText)
		if !bytes.Equal(a, b) {
			c.problem("index", e.ID().String(), "it is %s and due at %v there, %s and due at %v in the journal", o.State, o.Due,
				e.State, e.Due)
		}
	}
	for i := range got.entries {
		if e := &got.entries[i]; want.find(e.Index) == nil {
			c.problem("index", e.ID().String(), "it is final, but the index has it as %s", e.State)
		}
	}
}

// orders checks that the orders by queue, age and report have each entry in its place and nothing else.
func (c *checker) orders(s *Spool) error {
	want := make(map[byte]int)
	present := func(what string, key []byte) error {
		want[key[0]]++
		_, closer, err := s.index.db.Get(key)
		if errors.Is(err, pebble.ErrNotFound) {
			c.problem("index", what, "it is missing in an order of the index (%c)", key[0])
			return nil
		}
		if err != nil {
			return err
		}
		return closer.Close()
	}
	err := s.index.each(func(m *msg) error {
		var err error
		for i := range m.entries {
			e := &m.entries[i]
			k := e.wantedKey()
			if k.state != Final {
				err = errors.Join(err, present(e.ID().String(), queueKeyOf(nil, e.Entry.Queue(), k.state, e.point())))
			}
			if k.age != 0 {
				err = errors.Join(err, present(e.ID().String(), ageKey(nil, k.age, m.ID, e.Index)))
			}
		}
		if m.reports > 0 {
			err = errors.Join(err, present(m.ID.String(), reportKey(nil, m.ID)))
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, prefix := range []byte{keyQueue, keyAge, keyReport} {
		n, err := s.index.keys(prefix)
		if err != nil {
			return err
		}
		if n != want[prefix] {
			c.problem("index", fmt.Sprintf("order %c", prefix), "it has %d keys, want %d", n, want[prefix])
		}
	}
	return nil
}

// keys counts the keys with a prefix.
func (x *index) keys(prefix byte) (n int, err error) {
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: []byte{prefix}, UpperBound: []byte{prefix + 1}})
	if err != nil {
		return 0, err
	}
	for ok := it.First(); ok; ok = it.Next() {
		n++
	}
	return n, errors.Join(it.Error(), it.Close())
}

// each gives all messages in the order of ids.
func (x *index) each(do func(*msg) error) error {
	r, err := x.reader()
	if err != nil {
		return err
	}
	defer r.close()
	for ok := r.iter.First(); ok; {
		var id message.ID
		k := r.iter.Key()
		if copy(id[:], k[1:]) != len(id) || len(k) != 1+len(id) {
			what := binary.BigEndian.Uint32(append(make([]byte, 4), k[max(len(k)-4, 0):]...))
			return fmt.Errorf("%w: entry %s.%d without a message", errDamaged, id, what)
		}
		m, err := r.current(id)
		if err != nil {
			return err
		}
		if err := do(m); err != nil {
			return err
		}
		if ok = r.iter.Valid(); ok && len(m.entries) > 0 {
			last := entryKey(nil, id, m.entries[len(m.entries)-1].Index)
			if bytes.Equal(r.iter.Key(), last) {
				ok = r.iter.Next()
			}
		}
	}
	return r.iter.Error()
}
