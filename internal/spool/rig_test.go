package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a spool over a journal that runs, with a sink that remembers.
type rig struct {
	testing.TB
	fs      vfs.FS
	journal *journal.Log
	spool   *Spool
	ids     *message.IDs
	stop    context.CancelFunc
	ran     chan error
	opts    Options
	segment int64

	mu    sync.Mutex
	fresh map[EntryID]*Entry
	dues  map[QueueKey]time.Time
}

func (r *rig) Fresh(_ *Message, entries []*Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range entries {
		r.fresh[e.ID()] = e
	}
}

func (r *rig) Due(key QueueKey, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dues[key] = at
}

// newRig opens a spool in memory; change may set options.
func newRig(t testing.TB, fs vfs.FS, change func(*rig)) *rig {
	r := &rig{TB: t, fs: fs, ids: message.NewIDs(nil), segment: 1 << 20}
	r.opts = Options{
		Dir: "/spool", FS: fs, IndexMemtable: 256 << 10, IndexCache: 1 << 20,
		Fatal: func(err error) { t.Errorf("fatal: %v", err) },
	}
	if change != nil {
		change(r)
	}
	r.open()
	t.Cleanup(func() {
		if r.spool != nil {
			r.close()
		}
	})
	return r
}

func (r *rig) open() {
	r.Helper()
	if err := r.tryOpen(); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) tryOpen() (err error) {
	r.fresh, r.dues = make(map[EntryID]*Entry), make(map[QueueKey]time.Time)
	r.journal, err = journal.Open(journal.Options{Dir: "/journal", FS: r.fs, SegmentSize: r.segment, Owner: "test",
		LazyDelay: 100 * time.Microsecond, Spares: -1})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	r.stop, r.ran = stop, make(chan error, 1)
	go func() { r.ran <- r.journal.Run(ctx) }()
	o := r.opts
	o.Journal = r.journal
	r.spool, err = Open(context.Background(), o)
	if err != nil {
		return errors.Join(err, r.closeJournal())
	}
	r.spool.SetSink(r)
	return nil
}

func (r *rig) closeJournal() error {
	r.stop()
	err := <-r.ran
	return errors.Join(err, r.journal.Close())
}

// close ends the process as a crash would, but for what the journal has been given.
func (r *rig) close() {
	r.Helper()
	if err := r.closeJournal(); err != nil {
		r.Error(err)
	}
	if err := r.spool.Close(); err != nil {
		r.Error(err)
	}
	r.spool = nil
}

func (r *rig) reopen() {
	r.Helper()
	r.close()
	r.open()
}

func (r *rig) checkpoint() {
	r.Helper()
	if err := r.spool.Checkpoint(); err != nil {
		r.Error(err)
	}
}

// message makes one with recipients u0@domain, u1@domain...
func (r *rig) message(domains ...string) *Message {
	m := &Message{
		ID: r.ids.New(time.Now()), Tenant: "t", Stream: "s", Received: time.Now(), Expires: time.Now().Add(72 * time.Hour),
		Session: "abc", Client: "192.0.2.7", From: smtp.Sender{Path: smtp.Path{Local: "from", Domain: "sender.example"}},
	}
	for i, d := range domains {
		m.Recipients = append(m.Recipients, smtp.Recipient{Path: smtp.Path{Local: fmt.Sprintf("u%d", i), Domain: d}})
		m.Queues = append(m.Queues, QueueKey{"t", d})
	}
	return m
}

func bodyFor(m *Message) []byte {
	return fmt.Appendf(nil, "Subject: %s\r\n\r\n%s\r\n", m.ID, bytes.Repeat([]byte("x"), 200))
}

func (r *rig) accept(m *Message) *Message {
	r.Helper()
	body := smtp.BodyOf(bodyFor(m))
	defer body.Release()
	m.Size = body.Size()
	if err := r.spool.Accept(context.Background(), m, body); err != nil {
		r.Fatalf("Accept: %v", err)
	}
	return m
}

// taken returns the fresh entries of a message.
func (r *rig) taken(m *Message) []*Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	var es []*Entry
	for i := range m.Recipients {
		if e := r.fresh[EntryID{m.ID, i}]; e != nil {
			es = append(es, e)
		}
	}
	return es
}

func delivered() Result {
	return Result{Outcome: Delivered, Reason: event.OK, Reply: smtp.Reply{Code: 250, Text: "ok"}, Host: "mx"}
}
func bounced() Result {
	return Result{Outcome: Bounced, Reason: event.RemoteRefused, Reply: smtp.Reply{Code: 550, Text: "no"}, Host: "mx"}
}
func deferred(due time.Time) Result {
	return Result{
		Outcome: Deferred, Reason: event.RemoteDeferred, Reply: smtp.Reply{Code: 451, Text: "later"}, NextDue: due,
	}
}

// settle settles entries of one message, all with one result, and waits until that is durable.
func (r *rig) settle(es []*Entry, result Result) {
	r.Helper()
	a := &Attempt{Message: es[0].Message, Entries: es, Started: time.Now(), Ended: time.Now()}
	for range es {
		a.Results = append(a.Results, result)
	}
	done := make(chan error, 1)
	r.spool.Settle(a, func(err error) { done <- err })
	if err := <-done; err != nil {
		r.Fatalf("Settle: %v", err)
	}
}

func (r *rig) claim(domain string, now time.Time, limit int) []*Entry {
	r.Helper()
	es, err := r.spool.Claim(context.Background(), QueueKey{"t", domain}, now, limit, nil)
	if err != nil {
		r.Fatalf("Claim: %v", err)
	}
	return es
}

func (r *rig) entries(f Filter) map[EntryID]*Entry {
	r.Helper()
	got := make(map[EntryID]*Entry)
	for e, err := range r.spool.Entries(context.Background(), f, 0, EntryID{}) {
		if err != nil {
			r.Fatalf("Entries: %v", err)
		}
		if got[e.ID()] != nil {
			r.Errorf("entry %s was listed twice", e.ID())
		}
		got[e.ID()] = e
	}
	return got
}

func (r *rig) one(f Filter) *Entry {
	r.Helper()
	got := r.entries(f)
	if len(got) != 1 {
		r.Fatalf("%d entries, want 1: %v", len(got), slices.Collect(maps.Keys(got)))
	}
	for _, e := range got {
		return e
	}
	return nil
}

// sums checks the identity and that summaries agree with entries.
func (r *rig) sums() Stats {
	r.Helper()
	st := r.spool.Stats()
	if st.Accepted != st.Settled()+uint64(st.Queued()) {
		r.Errorf("accepted %d, settled %d, queued %d", st.Accepted, st.Settled(), st.Queued())
	}
	count := make(map[State]int)
	queues := make(map[QueueKey]QueueStat)
	for _, e := range r.entries(Filter{}) {
		count[e.State]++
		q := queues[e.Queue()]
		switch e.State {
		case Waiting:
			q.Waiting++
			if q.NextDue.IsZero() || e.Due.Before(q.NextDue) {
				q.NextDue = e.Due
			}
		case Claimed:
			q.Claimed++
		case Held:
			q.Held++
		}
		if at := e.Message.ID.Time(); q.Oldest.IsZero() || at.Before(q.Oldest) {
			q.Oldest = at
		}
		queues[e.Queue()] = q
	}
	if count[Waiting] != st.Waiting || count[Claimed] != st.Claimed || count[Held] != st.Held {
		r.Errorf("entries %v, stats %+v", count, st)
	}
	if len(queues) != st.Queues {
		r.Errorf("%d queues, stats say %d", len(queues), st.Queues)
	}
	for _, got := range r.spool.Queues() {
		want := queues[got.Key]
		if got.Waiting != want.Waiting || got.Claimed != want.Claimed || got.Held != want.Held {
			r.Errorf("queue %s is %+v, want %+v", got.Key, got, want)
		}
		if got.NextDue.IsZero() != (want.Waiting == 0) || got.NextDue.After(want.NextDue) {
			r.Errorf("queue %s is due at %v, want %v", got.Key, got.NextDue, want.NextDue)
		}
		if got.Oldest.After(want.Oldest) {
			r.Errorf("queue %s: oldest %v, want %v", got.Key, got.Oldest, want.Oldest)
		}
	}
	return st
}

var discard = slog.New(slog.DiscardHandler)
