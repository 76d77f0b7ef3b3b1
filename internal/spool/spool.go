package spool

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

// Spool is the table of entries. All methods may be called from many goroutines.
//
// Locks, in the order they are taken: turn (checkpoint, reclaim), gate, order, mu. No I/O under order or mu.
type Spool struct {
	opts    Options
	journal journal.Journal
	index   *index
	metrics *metrics
	sink    atomic.Pointer[Sink]
	ops     sync.Pool     // of *op
	lent    sync.Pool     // of *[]Change: room for lentChanges, clean
	kick    chan struct{} // asks Run for a checkpoint
	failed  chan struct{} // closed when mu.err is set
	scans   chan struct{} // one token for each claim that reads the index

	// turn is held by whoever writes the index or removes extents.
	turn sync.Mutex
	// gate is held for reading from the moment the index is read until the message is in the overlay, and for writing
	// while messages leave the overlay, so that nobody takes a stale state for the current one.
	gate sync.RWMutex
	// closed says that the index is not to be read any more; guarded by gate.
	closed bool
	// evictions counts the times that messages left the overlay for the index; guarded by gate.
	evictions uint64
	// order is held while a change is made in memory and handed to the journal, so that the journal tells changes of
	// one entry in the order they were made.
	order sync.Mutex

	mu struct {
		sync.Mutex
		live     bool // counting; false while the journal is replayed
		msgs     map[message.ID]*msg
		queues   map[QueueKey]*queue
		spare    []*queue // empty ones, to be used again
		dirty    msgList  // the index does not have their state
		clean    msgList  // the index has it
		resident int      // entries in the overlay
		weight   int      // the same by the memory that they take

		waiting, claimed, held int

		demand struct { // entries claimed, since then and in the interval before
			since           time.Time
			claimed, before int
		}
		unreported idQueue // messages with final entries to be reported
		bodyBytes  int64   // in memory

		totals  totals           // as memory says
		durable totals           // as the journal says up to done
		done    journal.Position // the last record known to be durable; all before it are reflected

		begun, finished uint64 // changes handed to the journal, and those that it answered
		answered        *sync.Cond
		accepting       int64         // octets of bodies whose acceptance is under way
		room            chan struct{} // closed when accepting or resident shrank; nil: nobody waits

		extents map[journal.ExtentID]*extent
		views   []*View

		ageFloor int64 // no key of the index's age order is earlier
		rand     *rand.Rand
		err      error
	}

	quarantine quarantine

	checkpointed time.Time // when the last checkpoint ended; guarded by turn
	written      time.Time // when one last wrote something; guarded by turn

	committed journal.Position // watermark of the last checkpoint; guarded by turn
	synced    journal.Position // watermark that is on stable storage; guarded by turn
}

// SetSink says who takes fresh messages and wants to know of due times; once, before the first Accept. What is due
// already is told by Queues.
func (s *Spool) SetSink(k Sink) { s.sink.Store(&k) }

// Err returns why the spool takes and gives nothing any more, nil while it works. Failed is closed when that happens.
func (s *Spool) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.err
}

// Failed is closed when the journal or the index failed.
func (s *Spool) Failed() <-chan struct{} { return s.failed }

// fail stops everything: nothing is accepted, claimed or settled any more. What is in flight stays in flight for the
// rest of this process, so that nothing is delivered twice.
func (s *Spool) fail(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failLocked(err)
}

func (s *Spool) failLocked(err error) error {
	if s.mu.err == nil {
		s.mu.err = fmt.Errorf("%w: %w", ErrFailed, err)
		close(s.failed)
		s.makeRoom()
		s.mu.answered.Broadcast()
		s.opts.Logger.Error("the spool failed; deliveries stop", "error", err)
	}
	return s.mu.err
}

func (s *Spool) makeRoom() {
	if s.mu.room != nil {
		close(s.mu.room)
		s.mu.room = nil
	}
}

// hold takes gate for reading, unless the spool is closed.
func (s *Spool) hold() error {
	s.gate.RLock()
	if s.closed {
		s.gate.RUnlock()
		return ErrClosed
	}
	return nil
}

// op is one change on its way through memory and the journal.
type op struct {
	spool   *Spool
	batch   journal.Batch
	records []Record
	changes []Change // of all records
	meta    []byte
	ends    []int // of each record's part of meta
	msgs    []*msg
	tombs   []tomb
	notices []dueNotice
	delta   totals

	counted bool       // in mu.begun
	accept  *msg       // to be taken in when durable
	body    *smtp.Body // of the accepted or moved record, lent by the caller
	size    int64      // in mu.accepting
	moved   *msg       // whose body is elsewhere when durable
	waited  bool       // somebody reads verdict
	verdict chan error // room for one
	done    func(error)
}

// begin returns an empty op.
func (s *Spool) begin() *op {
	o, _ := s.ops.Get().(*op)
	if o == nil {
		o = &op{spool: s, verdict: make(chan error, 1)}
		o.batch.Done = func(_ *journal.Batch, err error) { s.answer(o, err) }
	}
	return o
}

// What an op may hold and still be used again. There are as many as delivery has workers, and what they hold keeps the
// messages in memory that they were about. Room for more changes is lent, and given back clean.
const (
	keptMeta    = 64 << 10
	keptChanges = 64
	lentChanges = 1024
)

// end gives an op back to the pool. What records and changes refer to stays reachable until they are used again:
// little, and cheaper than clearing them each time.
func (s *Spool) end(o *op) {
	clear(o.msgs)
	clear(o.batch.Records)
	if cap(o.changes) == lentChanges {
		clear(o.changes)
		given := o.changes[:0]
		s.lent.Put(&given)
		o.changes = nil
	}
	o.records, o.changes, o.msgs = o.records[:0], o.changes[:0], o.msgs[:0]
	o.batch.Records, o.batch.Lazy = o.batch.Records[:0], false
	o.meta, o.ends, o.tombs, o.notices = o.meta[:0], o.ends[:0], o.tombs[:0], o.notices[:0]
	o.delta, o.counted, o.accept, o.body, o.size, o.moved, o.waited, o.done = totals{}, false, nil, nil, 0, nil, false, nil
	if cap(o.meta) > keptMeta || cap(o.changes) > keptChanges {
		return // made for something unusual
	}
	s.ops.Put(o)
}

// record begins a record; changes are appended by change until the next record.
func (o *op) record(kind journal.Kind, at time.Time) *Record {
	o.records = append(o.records, Record{Kind: kind, Time: at})
	return &o.records[len(o.records)-1]
}

// expect makes room for n changes more. Changes are large: growing by and by would copy them again and again.
func (o *op) expect(n int) {
	if len(o.changes) > 0 || n <= keptChanges || n > lentChanges {
		o.changes = slices.Grow(o.changes, n)
		return
	}
	if lent, ok := o.spool.lent.Get().(*[]Change); ok {
		o.changes = *lent
		return
	}
	o.changes = make([]Change, 0, lentChanges)
}

// change adds a change of e to the last record.
func (o *op) change(e *entry) *Change {
	r := &o.records[len(o.records)-1]
	// Records' Changes lie one behind the other in o.changes; perform sets them, since appending may move them.
	o.changes = append(o.changes, Change{
		Message: e.Message, Index: e.Index, Recipient: e.Recipient().Path, Queue: e.Entry.Queue(), entry: e,
	})
	r.partialCount++
	return &o.changes[len(o.changes)-1]
}

// perform makes the change in memory. mu is held.
func (s *Spool) perform(o *op) {
	s.lay(o)
	var now totals
	for i := range o.records {
		r := &o.records[i]
		o.delta.count(r)
		if r.Kind == KindAccepted {
			continue // when it is durable
		}
		s.apply(r, &o.notices)
		now.count(r)
	}
	s.mu.totals.add(&now)
}

// lay gives each record its part of the changes.
func (s *Spool) lay(o *op) {
	rest := o.changes
	for i := range o.records {
		r := &o.records[i]
		r.Changes, rest = rest[:r.partialCount:r.partialCount], rest[r.partialCount:]
	}
}

// encode fills the batch from the records.
func (o *op) encode() {
	for i := range o.records {
		o.meta = appendRecord(o.meta, &o.records[i])
		o.ends = append(o.ends, len(o.meta))
	}
	start := 0
	for i, end := range o.ends {
		r := journal.Record{Kind: o.records[i].Kind, Meta: o.meta[start:end]}
		if r.Kind == KindAccepted || r.Kind == KindMoved {
			r.Body = o.body
		}
		o.batch.Records = append(o.batch.Records, r)
		start = end
	}
}

// submit makes the change in memory and hands it to the journal. order and mu are held; both are released. It returns
// what the sink is to be told. If o.waited is not set, o must not be used any more.
func (s *Spool) submit(o *op) []dueNotice {
	s.perform(o)
	s.mu.begun++
	o.counted = true
	for i := range o.changes {
		e := o.changes[i].entry
		if e == nil {
			continue // of a tomb
		}
		if m := e.msg; len(o.msgs) == 0 || o.msgs[len(o.msgs)-1] != m {
			m.pending++
			o.msgs = append(o.msgs, m)
		}
	}
	s.mu.Unlock()
	o.encode()
	notices := o.notices
	if len(notices) > 0 {
		o.notices = nil
	}
	s.journal.Submit(&o.batch)
	s.order.Unlock()
	return notices
}

// wait returns the verdict of an op that is waited for, and ends it.
func (s *Spool) wait(o *op) error {
	err := <-o.verdict
	s.end(o)
	return err
}

// answer is told the journal's verdict, in the order of submission, by the journal's committer.
func (s *Spool) answer(o *op, err error) {
	s.mu.Lock()
	if o.counted {
		s.mu.finished++
		s.mu.answered.Broadcast()
	}
	if o.size > 0 {
		s.mu.accepting -= o.size
		s.makeRoom()
	}
	switch {
	case err == nil:
		s.durable(o)
	case o.counted || errors.Is(err, journal.ErrFailed):
		// Memory is ahead of the journal, or the journal is gone.
		err = s.failLocked(err)
	}
	s.mu.Unlock()
	if o.done != nil {
		o.done(err)
	}
	if o.waited {
		o.verdict <- err
	} else {
		s.end(o)
	}
}

// durable does what had to wait until a change was on stable storage. mu is held.
func (s *Spool) durable(o *op) {
	if o.accept != nil {
		s.takeIn(o)
	}
	last := o.batch.Records[len(o.batch.Records)-1].Position
	s.mu.done = max(s.mu.done, last)
	s.mu.durable.add(&o.delta)
	if o.moved != nil {
		s.relocate(o.moved, o.batch.Records[0].Position)
	}
	for _, m := range o.msgs {
		s.note(m, last)
		if m.pending--; m.left == 0 && m.pending == 0 {
			s.release(m)
		}
	}
	for _, t := range o.tombs {
		s.extentAt(last).note(t.id, t.from)
	}
}

// release lets go of a message whose entries are all gone, durably.
func (s *Spool) release(m *msg) {
	s.unhouse(m)
	if !m.inIndex {
		s.leave(m)
	}
}

// tell passes on due times. No locks are held.
func (s *Spool) tell(notices []dueNotice) {
	if len(notices) == 0 {
		return
	}
	k := s.sink.Load()
	if k == nil {
		return
	}
	for i, n := range notices {
		if i+1 < len(notices) && notices[i+1].key == n.key {
			continue // a later one of the same queue is earlier still
		}
		(*k).Due(n.key, time.UnixMicro(n.at).UTC())
	}
}

// settled waits until everything that was changed in memory so far is durable. The journal always answers.
func (s *Spool) settled() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	target := s.mu.begun
	for s.mu.finished < target && s.mu.err == nil {
		s.mu.answered.Wait()
	}
	return s.mu.err
}
