package spool

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

var (
	seedFlag = flag.Uint64("spool.seed", 0, "run this seed of the crash campaign alone, and say what happens")
	runsFlag = flag.Int("spool.runs", 0, "runs of the crash campaign; 0: the usual number")
)

// The crash campaign makes random changes through the whole interface, cuts the power or kills the process at a random write or sync, in the
// middle of whatever is going on, and compares what a new start finds with a model. Everything that was acknowledged must be there, everything
// else must be as before or as after the change.
func TestCrashCampaign(t *testing.T) {
	t.Parallel()
	if *seedFlag != 0 {
		if err := campaign(*seedFlag, t.Logf); err != nil {
			t.Fatalf("seed %d: %v", *seedFlag, err)
		}
		return
	}
	runs := 1200
	if testing.Short() {
		runs = 300
	}
	if *runsFlag > 0 {
		runs = *runsFlag
	}
	seeds := make(chan uint64)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) + 1 {
		wg.Go(func() {
			for seed := range seeds {
				if err := campaign(seed, func(string, ...any) {}); err != nil {
					t.Errorf("seed %d: %v (repeat with -spool.seed=%d)", seed, err, seed)
				}
			}
		})
	}
	base := uint64(time.Now().UnixNano())
	for i := range runs {
		if t.Failed() {
			break
		}
		seeds <- base + uint64(i)
	}
	close(seeds)
	wg.Wait()
}

// belief is what the model thinks of an entry at some time.
type belief struct {
	state       State // 0: not accepted
	outcome     Outcome
	reported    bool
	due         int64 // waiting
	attempts    int
	interrupted int
	hold        string
	wish        Wish
	delay       bool
}

// step is a belief from an operation on.
type step struct {
	op int
	belief
}

// trial is one run of the campaign: several lives of one spool.
type trial struct {
	rng     *rand.Rand
	logf    func(string, ...any)
	ids     *message.IDs
	fs      *vfs.MemFS
	keep    int // percent of unsynced data that survives
	sink    trialSink
	spool   *Spool
	log     *journal.Log
	stopped func() error

	msgs    []*Message
	history map[EntryID][]step // oldest first; the first is from op 0

	mu    sync.Mutex
	begun int // operations
	acked int // all up to this one are durable
	cut   int // file system operations until the clone
	cutAt int // what cut was
	clone *vfs.MemFS
	from  int // acked at the clone
	until int // begun at the clone

	verified bool // this life has looked at what it found

	inject   bool // the file system fails at the cut, instead of a crash
	sticky   bool // and from then on
	injected bool // it did
}

type trialSink struct {
	mu    sync.Mutex
	fresh []*Entry
}

func (k *trialSink) Fresh(_ *Message, es []*Entry) {
	k.mu.Lock()
	k.fresh = append(k.fresh, es...)
	k.mu.Unlock()
}
func (k *trialSink) Due(QueueKey, time.Time) {}

func campaign(seed uint64, logf func(string, ...any)) error {
	t := &trial{
		rng: rand.New(rand.NewPCG(seed, 1)), logf: logf, ids: message.NewIDs(nil), fs: vfs.NewCrashableMem(),
		history: make(map[EntryID][]step),
	}
	for range 2 + t.rng.IntN(3) {
		if err := t.life(); err != nil {
			return err
		}
	}
	t.cut = -1
	if err := t.open(); err != nil {
		return err
	}
	return errors.Join(t.verify(), t.close())
}

// life opens the spool, checks what it finds, changes things, and leaves the file system as a crash does.
func (t *trial) life() error {
	t.keep = []int{0, 50, 100}[t.rng.IntN(3)]
	t.clone, t.verified = nil, false
	t.cut = 1 + t.rng.IntN(160)
	t.cutAt = t.cut
	t.inject, t.sticky, t.injected = t.rng.IntN(4) == 0, t.rng.IntN(2) == 0, false
	if t.rng.IntN(8) == 0 {
		if err := errors.Join(t.fs.RemoveAll("/spool"), syncDir(t.fs, "/")); err != nil {
			return err
		}
		t.logf("index lost")
	}
	opened := t.open()
	if opened != nil && !t.hurt() {
		return opened
	}
	var err error
	if opened == nil {
		err = t.work()
	}
	if err != nil && t.hurt() {
		t.logf("after a fault: %v", err)
		err = t.stays()
	}
	t.mu.Lock()
	if t.clone == nil {
		t.cutNow()
	}
	t.cut = -1
	t.mu.Unlock()
	if opened == nil {
		if e := t.close(); err == nil && e != nil && !t.hurt() {
			err = e
		}
	}
	if err == nil && t.rng.IntN(12) == 0 {
		err = errors.Join(t.check(t.fs), t.check(t.clone))
	}
	t.fs = t.clone
	t.logf("crash: %d%% kept, operations %d to %d", t.keep, t.from, t.until)
	return err
}

func (t *trial) work() error {
	t.mu.Lock()
	dead := t.clone != nil
	t.mu.Unlock()
	if dead {
		return nil // it crashed while it was opening
	}
	if err := t.verify(); err != nil {
		return err
	}
	for range 40 {
		t.mu.Lock()
		dead := t.clone != nil
		t.mu.Unlock()
		if dead {
			return nil
		}
		if err := t.operate(); err != nil {
			return err
		}
		if t.rng.IntN(8) == 0 {
			if err := errors.Join(t.spool.settled(), t.verifyExtents()); err != nil {
				return err
			}
		}
	}
	return nil
}

// stays checks that a spool that failed gives nothing away and takes nothing any more.
func (t *trial) stays() error {
	if t.spool.Err() == nil {
		return nil
	}
	m := t.newMessage()
	t.msgs = t.msgs[:len(t.msgs)-1]
	body := smtp.BodyOf(bodyFor(m))
	defer body.Release()
	if err := t.spool.Accept(context.Background(), m, body); !errors.Is(err, ErrFailed) {
		return fmt.Errorf("a failed spool took a message: %v", err)
	}
	for _, d := range trialDomains {
		es, err := t.spool.Claim(context.Background(), QueueKey{"t", d}, time.Now().Add(24*time.Hour), 10, nil)
		if !errors.Is(err, ErrFailed) || es != nil {
			return fmt.Errorf("a failed spool gave %d entries: %v", len(es), err)
		}
	}
	return nil
}

// operation is told of each operation of the file system, before it.
func (t *trial) operation(op errorfs.Op) error {
	switch op.Kind {
	case errorfs.OpFileWrite, errorfs.OpFileWriteAt, errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo,
		errorfs.OpCreate, errorfs.OpRename, errorfs.OpRemove, errorfs.OpReuseForWrite:
	default:
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cut < 0 || t.clone != nil {
		return nil
	}
	if t.inject {
		return t.fault(op)
	}
	if t.cut--; t.cut == 0 {
		t.cutNow()
	}
	return nil
}

// fault fails an operation. The index's log and manifest are spared: when they fail the process ends, which TestIndexFailureEndsProcess
// shows.
func (t *trial) fault(op errorfs.Op) error {
	isJournal := strings.HasPrefix(op.Path, "/journal")
	if !isJournal && !strings.HasSuffix(op.Path, ".sst") {
		return nil
	}
	if t.injected && t.sticky && isJournal {
		return errorfs.ErrInjected
	}
	if t.cut--; t.cut == 0 {
		t.injected = true
		return errorfs.ErrInjected
	}
	return nil
}

func (t *trial) hurt() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.injected
}

// cutNow takes what a crash leaves. mu is held, so that acknowledgements come wholly before or after.
func (t *trial) cutNow() {
	from := t.acked
	t.clone = t.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: t.keep, RNG: rand.New(rand.NewPCG(t.rng2(), 2))})
	if t.verified { // otherwise what the life before left is yet to be looked at
		t.from, t.until = from, t.begun
	}
}

// rng2 may be used from any goroutine.
func (t *trial) rng2() uint64 { return uint64(t.cutAt)*7919 + uint64(t.begun) }

func (t *trial) open() error {
	fs := errorfs.Wrap(t.fs, errorfs.InjectorFunc(t.operation))
	log, err := journal.Open(journal.Options{Dir: "/journal", FS: fs, SegmentSize: 16 << 10, Owner: "test",
		LazyDelay: 100 * time.Microsecond, Spares: -1})
	if err != nil {
		return err
	}
	t.log = log
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- log.Run(ctx) }()
	t.stopped = func() error {
		stop()
		return errors.Join(<-ran, log.Close())
	}
	waste := int64(-1)
	if t.rng.IntN(2) == 0 {
		waste = 1 << 10
	}
	t.sink.fresh = nil
	t.spool, err = Open(context.Background(), Options{
		Dir: "/spool", FS: fs, Journal: log, Waste: waste, OverlayEntries: 8 + t.rng.IntN(60), IndexMemtable: 64 << 10, IndexCache: 1 << 10,
		Fatal: func(error) {}, Logger: slog.New(slog.NewTextHandler(logWriter(t.logf), &slog.HandlerOptions{Level: slog.LevelInfo})), Interrupted: []time.Duration{time.Second, time.Minute},
	})
	if err != nil {
		return errors.Join(fmt.Errorf("Open: %w", err), t.stopped())
	}
	t.spool.SetSink(&t.sink)
	return nil
}

// logWriter is where the program's own log goes.
type logWriter func(string, ...any)

func (w logWriter) Write(p []byte) (int, error) {
	w("%s", p)
	return len(p), nil
}

func (t *trial) close() error { return errors.Join(t.stopped(), t.spool.Close()) }

// believe notes what the model thinks of an entry after operation op.
func (t *trial) believe(op int, id EntryID, b belief) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.history[id] = append(t.history[id], step{op, b})
}

func (t *trial) now(id EntryID) belief {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.history[id]
	if len(h) == 0 {
		return belief{}
	}
	return h[len(h)-1].belief
}

func (t *trial) start() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.begun++
	return t.begun
}

// ack notes that an operation, and so all before it, is durable.
func (t *trial) ack(op int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.acked = max(t.acked, op)
}

// fits reports whether what a start found of an entry is what b looks like after a crash.
func (b belief) fits(e *Entry) bool {
	wantsReport := b.outcome == Bounced || b.outcome == Expired
	switch {
	case b.state == 0 || b.state == Final && (!wantsReport || b.reported):
		return e == nil
	case b.state == Claimed && b.wish == WishFinish:
		return e == nil // cancelled
	case e == nil:
		return false
	case b.state == Final:
		return e.State == Final && e.Last.Outcome == b.outcome
	case b.delay != e.DelayReported || b.attempts != e.Attempts:
		return false
	case b.state == Claimed && b.wish == WishHold || b.state == Held:
		return e.State == Held && e.HoldReason == b.hold
	case b.state == Claimed:
		return e.State == Waiting && e.Interrupted == b.interrupted+1 && e.Due.After(time.Now())
	}
	return e.State == Waiting && (micros(e.Due) == b.due || b.due < 0) && e.Interrupted == b.interrupted
}

// verify compares what a start found with the model, then makes what was found the model.
func (t *trial) verify() error {
	found := make(map[EntryID]*Entry)
	for e, err := range t.spool.Entries(context.Background(), Filter{States: States()}, 0, EntryID{}) {
		if err != nil {
			return err
		}
		found[e.ID()] = e
	}
	history := make(map[EntryID][]step)
	for id, h := range t.history {
		var may []belief
		for _, s := range h {
			if s.op <= t.from {
				may = may[:0]
			}
			if s.op <= t.until {
				may = append(may, s.belief)
			}
		}
		if h[0].op > t.from {
			may = append(may, belief{})
		}
		e := found[id]
		i := slices.IndexFunc(may, func(b belief) bool { return b.fits(e) })
		if i < 0 {
			return fmt.Errorf("entry %s was found as %+v, want one of %+v", id, e, may)
		}
		delete(found, id)
		if e == nil {
			history[id] = []step{{0, belief{state: Final, reported: true}}}
			continue
		}
		history[id] = []step{{0, belief{
			state: e.State, outcome: e.Last.Outcome, due: micros(e.Due), attempts: e.Attempts, interrupted: e.Interrupted,
			hold: e.HoldReason, wish: e.Wish, delay: e.DelayReported, reported: may[i].reported,
		}}}
	}
	for id, e := range found {
		return fmt.Errorf("entry %s came from nowhere: %+v", id, e)
	}
	t.mu.Lock()
	t.history, t.begun, t.acked, t.from, t.until, t.verified = history, 0, 0, 0, 0, t.clone == nil
	t.mu.Unlock()
	return errors.Join(t.verifyExtents(), t.verifySums(), t.verifyBodies(), t.verifyRecords())
}

// check has a closed or crashed spool looked through.
func (t *trial) check(fs vfs.FS) error {
	if _, err := fs.Stat("/journal"); err != nil {
		return nil // it crashed before there was one
	}
	r, err := Check(context.Background(), CheckOptions{JournalDir: "/journal", Dir: "/spool", FS: fs})
	if err != nil {
		return err
	}
	// Pebble may lose the way to its manifest when directory entries survive a crash in another order than they were made. Then
	// the index is rebuilt.
	if !r.OK() && !(r.Index == "unreadable" && len(r.Problems) == 1) {
		return fmt.Errorf("the check found %v", r.Problems)
	}
	return nil
}

// verifyExtents compares the counts of extents with where messages are.
func (t *trial) verifyExtents() error {
	live := make(map[journal.ExtentID]int)
	for _, m := range t.msgs {
		if v, err := t.spool.view(m.ID); err == nil {
			live[t.log.ExtentOf(v.pos)]++
		}
	}
	t.spool.mu.Lock()
	defer t.spool.mu.Unlock()
	for id, x := range t.spool.mu.extents {
		if x.live != live[id] {
			return fmt.Errorf("extent %d counts %d messages, has %d", id, x.live, live[id])
		}
	}
	return nil
}

func (t *trial) verifySums() error {
	st := t.spool.Stats()
	if st.Accepted != st.Settled()+uint64(st.Queued()) {
		return fmt.Errorf("the sums are wrong: %+v", st)
	}
	count := make(map[State]int)
	queues := make(map[QueueKey]int)
	for id, h := range t.history {
		b := h[0]
		count[b.state]++
		if b.state != Final {
			queues[QueueKey{"t", t.domainOf(id)}]++
		}
	}
	if st.Waiting != count[Waiting] || st.Claimed != 0 || st.Held != count[Held] || st.Queues != len(queues) {
		return fmt.Errorf("stats %+v, entries %v, queues %v", st, count, queues)
	}
	for _, q := range t.spool.Queues() {
		if q.Total() != queues[q.Key] {
			return fmt.Errorf("queue %+v has %d entries", q, queues[q.Key])
		}
	}
	return nil
}

func (t *trial) domainOf(id EntryID) string {
	for _, m := range t.msgs {
		if m.ID == id.Message {
			return m.Queues[id.Index].Domain
		}
	}
	return ""
}

func (t *trial) verifyBodies() error {
	for _, m := range t.msgs {
		live := false
		for i := range m.Recipients {
			b := t.now(EntryID{m.ID, i})
			live = live || b.state != 0 && !(b.state == Final && b.reported)
		}
		if !live {
			continue
		}
		body, err := t.spool.Body(context.Background(), m)
		if err != nil {
			return fmt.Errorf("the body of %s: %w", m.ID, err)
		}
		got, err := io.ReadAll(body.Reader())
		body.Release()
		if err != nil || string(got) != string(bodyFor(m)) {
			return fmt.Errorf("the body of %s is %q", m.ID, got)
		}
	}
	return nil
}

// verifyRecords checks that no entry has two final records.
func (t *trial) verifyRecords() error {
	r, err := t.log.NewReader(0)
	if err != nil {
		return err
	}
	defer r.Close()
	final := make(map[EntryID]bool)
	var rec Record
	for {
		e, err := r.Next(context.Background(), false)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := rec.Decode(e.Kind, e.Meta); err != nil {
			return err
		}
		for i := range rec.Changes {
			c := &rec.Changes[i]
			if (rec.Kind == KindAttempted || rec.Kind == KindSettled) && c.Result.Outcome.Final() {
				if final[c.ID()] {
					return fmt.Errorf("entry %s has two final records", c.ID())
				}
				final[c.ID()] = true
			}
		}
	}
}

// some returns the entries in a state, by the model.
func (t *trial) some(states ...State) []EntryID {
	t.mu.Lock()
	defer t.mu.Unlock()
	var ids []EntryID
	for id, h := range t.history {
		if slices.Contains(states, h[len(h)-1].state) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, EntryID.Compare)
	return ids
}

var trialDomains = []string{"a.example", "b.example", "c.example"}

// operate makes one random change.
func (t *trial) operate() error {
	switch n := t.rng.IntN(100); {
	case n < 25:
		return t.accept()
	case n < 50:
		return t.settle()
	case n < 60:
		return t.claimSome()
	case n < 65:
		return t.giveBack()
	case n < 85:
		return t.byOperator()
	case n < 90:
		return t.report()
	case n < 97:
		t.logf("checkpoint")
		return t.spool.Checkpoint()
	default:
		t.logf("reclaim")
		return t.spool.reclaim(context.Background())
	}
}

func (t *trial) newMessage() *Message {
	now := time.Now()
	m := &Message{ID: t.ids.New(now), Tenant: "t", Received: now, Expires: now.Add(time.Hour), DelayNotice: now.Add(time.Minute),
		From: smtp.Sender{Path: smtp.Path{Local: "from", Domain: "sender.example"}}}
	for i := range 1 + t.rng.IntN(3) {
		d := trialDomains[t.rng.IntN(len(trialDomains))]
		m.Recipients = append(m.Recipients, smtp.Recipient{Path: smtp.Path{Local: fmt.Sprint(i), Domain: d}})
		m.Queues = append(m.Queues, QueueKey{"t", d})
	}
	m.Size = int64(len(bodyFor(m)))
	t.msgs = append(t.msgs, m)
	return m
}

func (t *trial) accept() error {
	m, op := t.newMessage(), t.start()
	body := smtp.BodyOf(bodyFor(m))
	defer body.Release()
	err := t.spool.Accept(context.Background(), m, body)
	t.logf("%d: accept %s with %d: %v", op, m.ID, len(m.Recipients), err)
	for i := range m.Recipients {
		t.believe(op, EntryID{m.ID, i}, belief{state: Claimed})
	}
	if err == nil {
		t.ack(op)
	}
	return err
}

// inHand returns claimed entries of one message.
func (t *trial) inHand() []*Entry {
	t.sink.mu.Lock()
	defer t.sink.mu.Unlock()
	if len(t.sink.fresh) == 0 {
		return nil
	}
	id := t.sink.fresh[t.rng.IntN(len(t.sink.fresh))].Message.ID
	var es, rest []*Entry
	for _, e := range t.sink.fresh {
		if e.Message.ID == id && t.rng.IntN(4) > 0 {
			es = append(es, e)
		} else {
			rest = append(rest, e)
		}
	}
	t.sink.fresh = rest
	return es
}

func (t *trial) settle() error {
	es := t.inHand()
	if len(es) == 0 {
		return nil
	}
	op := t.start()
	a := &Attempt{Message: es[0].Message, Entries: es, Started: time.Now(), Ended: time.Now()}
	var next []belief
	for _, e := range es {
		b := t.now(e.ID())
		r := []Result{delivered(), bounced(), deferred(time.Now().Add(time.Hour)), {}}[t.rng.IntN(4)]
		a.Results = append(a.Results, r)
		wish := b.wish
		b.wish = NoWish
		switch {
		case r.Outcome.Final():
			b.state, b.outcome = Final, r.Outcome
		case wish == WishFinish:
			b.state, b.outcome = Final, Cancelled
		case r.Outcome == None:
			b.state, b.due = Waiting, 0
		default:
			b.state, b.due = Waiting, micros(r.NextDue)
		}
		if r.Outcome != None {
			b.attempts++
			b.interrupted = 0
		}
		if wish == WishHold && b.state == Waiting {
			b.state = Held
		}
		if b.state != Held {
			b.hold = ""
		}
		next = append(next, b)
	}
	done := make(chan error, 1)
	t.spool.Settle(a, func(err error) {
		if err == nil {
			t.ack(op)
		}
		done <- err
	})
	for i, e := range es {
		if next[i].state == Waiting && next[i].due == 0 { // the spool knows when
			next[i].due = t.dueOf(e.ID())
		}
		t.believe(op, e.ID(), next[i])
		t.logf("%d: settle %s: %s -> %s", op, e.ID(), a.Results[i].Outcome, next[i].state)
	}
	if t.rng.IntN(3) > 0 {
		return <-done
	}
	return nil
}

func (t *trial) dueOf(id EntryID) int64 {
	_, es, err := t.spool.Message(context.Background(), id.Message)
	if err != nil {
		return -1
	}
	for _, e := range es {
		if e.Index == id.Index {
			return micros(e.Due)
		}
	}
	return -1
}

func (t *trial) claimSome() error {
	op := t.start()
	key := QueueKey{"t", trialDomains[t.rng.IntN(len(trialDomains))]}
	es, err := t.spool.Claim(context.Background(), key, time.Now().Add(24*time.Hour), 1+t.rng.IntN(4), nil)
	if err != nil {
		for _, id := range t.some(Waiting) {
			if b := t.now(id); t.domainOf(id) == key.Domain {
				b.state = Claimed
				t.believe(op, id, b)
			}
		}
		return err
	}
	last := int64(0)
	for _, e := range es {
		b := t.now(e.ID())
		if b.state != Waiting {
			return fmt.Errorf("claimed %s, which is %s", e.ID(), b.state)
		}
		if len(e.Message.Recipients) == 1 { // others may come early with their siblings
			if b.due < last {
				return fmt.Errorf("claimed %s out of order", e.ID())
			}
			last = b.due
		}
		b.state = Claimed
		t.believe(op, e.ID(), b)
		t.logf("%d: claim %s", op, e.ID())
	}
	if len(es) == 0 {
		for _, id := range t.some(Waiting) {
			if t.domainOf(id) == key.Domain {
				return fmt.Errorf("did not get %s", id)
			}
		}
	}
	t.sink.mu.Lock()
	t.sink.fresh = append(t.sink.fresh, es...)
	t.sink.mu.Unlock()
	if t.keep == 100 && len(es) > 0 { // a kill loses nothing that was written
		t.ack(op)
	}
	return nil
}

func (t *trial) giveBack() error {
	es := t.inHand()
	if len(es) == 0 {
		return nil
	}
	op := t.start()
	t.spool.Return(es)
	for _, e := range es {
		b := t.now(e.ID())
		switch b.wish {
		case WishHold:
			b.state = Held
		case WishFinish:
			b.state, b.outcome = Final, Cancelled
		default:
			b.state, b.due = Waiting, t.dueOf(e.ID())
		}
		b.wish = NoWish
		t.believe(op, e.ID(), b)
		t.logf("%d: return %s: %s", op, e.ID(), b.state)
	}
	return nil
}

func (t *trial) byOperator() error {
	ids := t.some(Waiting, Claimed, Held)
	if len(ids) == 0 {
		return nil
	}
	id := ids[t.rng.IntN(len(ids))]
	f := []Filter{{Entries: []EntryID{id}}, {Messages: []message.ID{id.Message}}, {Domain: t.domainOf(id)}, {Tenant: "t",
		States: []State{t.now(id).state}}}[t.rng.IntN(4)]
	var chosen []EntryID
	for _, o := range ids {
		b := t.now(o)
		if (f.Domain == "" || f.Domain == t.domainOf(o)) && (len(f.Entries) == 0 || f.Entries[0] == o) &&
			(len(f.Messages) == 0 || f.Messages[0] == o.Message) && (len(f.States) == 0 || f.States[0] == b.state) {
			chosen = append(chosen, o)
		}
	}
	ctx, op := context.Background(), t.start()
	due := time.Now().Add(time.Duration(1+t.rng.IntN(7200)) * time.Second)
	reason := fmt.Sprintf("reason %d", op)
	var n int
	var err error
	verb := t.rng.IntN(5)
	switch verb {
	case 0:
		n, err = t.spool.Hold(ctx, f, reason)
	case 1:
		n, err = t.spool.Release(ctx, f)
	case 2:
		n, err = t.spool.Reschedule(ctx, f, due)
	case 3:
		n, err = t.spool.Finish(ctx, f, Result{Outcome: Cancelled, Reason: event.Operator})
	case 4:
		n, err = t.spool.Finish(ctx, f, Result{Outcome: Expired, Reason: event.Aged})
	}
	want := 0
	for _, o := range chosen {
		b := t.now(o)
		was := b
		switch {
		case verb == 0 && b.state == Waiting:
			b.state, b.hold = Held, reason
		case verb == 0 && b.state == Claimed && b.wish == NoWish:
			b.wish, b.hold = WishHold, reason
		case verb == 1 && b.state == Held:
			b.state, b.hold, b.due = Waiting, "", t.dueOf(o)
		case verb == 1 && b.state == Claimed && b.wish == WishHold:
			b.wish, b.hold = NoWish, ""
		case verb == 2 && b.state == Waiting:
			b.due = micros(due)
		case verb == 3 && b.state == Claimed && b.wish != WishFinish:
			b.wish, b.hold = WishFinish, ""
		case verb == 3 && (b.state == Waiting || b.state == Held):
			b.state, b.outcome = Final, Cancelled
		case verb == 4 && b.state == Waiting:
			b.state, b.outcome = Final, Expired
		default:
			continue
		}
		want++
		t.believe(op, o, b)
		t.logf("%d: verb %d: %s: %+v -> %+v", op, verb, o, was, b)
	}
	if err != nil {
		return err
	}
	if n != want {
		return fmt.Errorf("verb %d with %+v changed %d entries, want %d", verb, f, n, want)
	}
	if n > 0 {
		t.ack(op)
	}
	return nil
}

func (t *trial) report() error {
	if t.rng.IntN(3) == 0 {
		return t.delayNotice()
	}
	reports, err := t.spool.Unreported(time.Now().Add(time.Minute), 1+t.rng.IntN(2))
	for _, r := range reports {
		op := t.start()
		var indices []int
		for _, e := range r.Entries {
			indices = append(indices, e.Index)
		}
		err := t.acceptReport(op, r.Message, indices, t.spool.AcceptReport)
		for _, e := range r.Entries {
			b := t.now(e.ID())
			b.reported = true
			t.believe(op, e.ID(), b)
			t.logf("%d: report %s", op, e.ID())
		}
		if err != nil {
			return err
		}
		t.ack(op)
	}
	return err
}

func (t *trial) acceptReport(op int, about *Message, indices []int,
	accept func(context.Context, *Message, *smtp.Body, *Message, []int) error) error {
	if t.rng.IntN(3) == 0 {
		return accept(context.Background(), nil, nil, about, indices)
	}
	dsn := t.newMessage()
	dsn.From, dsn.Report = smtp.Sender{}, true
	body := smtp.BodyOf(bodyFor(dsn))
	defer body.Release()
	err := accept(context.Background(), dsn, body, about, indices)
	// A report has a null sender, so that nothing of it is ever reported.
	for i := range dsn.Recipients {
		t.believe(op, EntryID{dsn.ID, i}, belief{state: Claimed, reported: true})
	}
	return err
}

func (t *trial) delayNotice() error {
	for _, id := range t.some(Waiting, Held) {
		b := t.now(id)
		if b.delay {
			continue
		}
		op := t.start()
		i := slices.IndexFunc(t.msgs, func(m *Message) bool { return m.ID == id.Message })
		err := t.acceptReport(op, t.msgs[i], []int{id.Index}, t.spool.AcceptDelayNotice)
		b.delay = true
		t.believe(op, id, b)
		if err != nil {
			return err
		}
		t.ack(op)
		t.logf("%d: delay notice %s", op, id)
		return nil
	}
	return nil
}
