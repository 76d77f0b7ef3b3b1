package queue

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/internal/store"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

// table is a spool without a disk that checks how it is used: nobody may settle or return what is not claimed, nor
// claim what is not due.
type table struct {
	slow atomic.Bool           // bodies are not read before the server stops
	busy atomic.Pointer[error] // why bodies cannot be read

	t    *testing.T
	sink spool.Sink

	mu      sync.Mutex
	entries map[*spool.Entry]bool // not final
	final   map[spool.Outcome]int
	wishes  map[*spool.Entry]func()

	unreported map[*spool.Message][]*spool.Entry
	told       []string // reports, whole
	untold     int      // times that nobody was to be told
	claims     int
	n          uint64
	claimErr   error
}

func newTable(t *testing.T) *table {
	return &table{t: t, entries: make(map[*spool.Entry]bool), final: make(map[spool.Outcome]int),
		wishes: make(map[*spool.Entry]func()), unreported: make(map[*spool.Message][]*spool.Entry)}
}

// message makes a message of tenant with one recipient at each domain.
func (f *table) message(tenant string, domains ...string) *spool.Message {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n++
	now := time.Now()
	m := &spool.Message{Tenant: tenant, Received: now, Expires: now.Add(72 * time.Hour), Size: 1000}
	binary.BigEndian.PutUint64(m.ID[:8], uint64(now.UnixMilli())<<16)
	binary.BigEndian.PutUint32(m.ID[8:], uint32(f.n))
	m.From.Path = smtp.Path{Local: "sender", Domain: "example.org"}
	for i, d := range domains {
		m.Recipients = append(m.Recipients, smtp.Recipient{Path: smtp.Path{Local: fmt.Sprint("user", i), Domain: d}})
		m.Queues = append(m.Queues, spool.QueueKey{Tenant: tenant, Domain: d})
	}
	return m
}

// accept takes m and hands it to the sink.
func (f *table) accept(m *spool.Message) []*spool.Entry {
	f.mu.Lock()
	var entries []*spool.Entry
	for i := range m.Recipients {
		e := &spool.Entry{Message: m, Index: i, State: spool.Claimed}
		f.entries[e] = true
		entries = append(entries, e)
	}
	f.mu.Unlock()
	f.sink.Fresh(m, slices.Clone(entries))
	return entries
}

// put takes m as one that was accepted earlier and is due at.
func (f *table) put(m *spool.Message, at time.Time) {
	f.mu.Lock()
	for i := range m.Recipients {
		f.entries[&spool.Entry{Message: m, Index: i, State: spool.Waiting, Due: at}] = true
	}
	f.mu.Unlock()
}

func (f *table) left() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.entries)
}

// outcomes returns how many entries became final, by outcome.
func (f *table) outcomes() map[spool.Outcome]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.final)
}

// reports returns what senders were told.
func (f *table) reports() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.told)
}

func (f *table) BodyNow(ctx context.Context, m *spool.Message) (*smtp.Body, error) {
	return f.Body(ctx, m)
}

func (f *table) Body(ctx context.Context, _ *spool.Message) (*smtp.Body, error) {
	if f.slow.Load() {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	if err := f.busy.Load(); err != nil {
		return nil, *err
	}
	return smtp.BodyOf([]byte("Subject: test\r\n\r\nhello\r\n")), nil
}

func (f *table) Claim(_ context.Context, key spool.QueueKey, now time.Time, limit int,
	next func(*spool.Entry) time.Time) ([]*spool.Entry, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.claimErr != nil {
		return nil, f.claimErr
	}
	f.claims++
	var due []*spool.Entry
	for e := range f.entries {
		if e.Queue() == key && e.State == spool.Waiting && !e.Due.After(now) {
			due = append(due, e)
		}
	}
	slices.SortFunc(due, func(a, b *spool.Entry) int {
		if c := a.Due.Compare(b.Due); c != 0 {
			return c
		}
		return a.ID().Compare(b.ID())
	})
	due = due[:min(len(due), limit)]
	for _, e := range due {
		e.State = spool.Claimed
		e.Due = next(e)
		if !e.Due.After(now) && now.Before(e.Message.Expires) {
			f.t.Errorf("claim of %v leaves it due at %v, now %v", e.ID(), e.Due, now)
		}
	}
	return due, nil
}

func (f *table) Return(entries []*spool.Entry) {
	f.mu.Lock()
	keys := make(map[spool.QueueKey]bool)
	now := time.Now()
	for _, e := range entries {
		f.claimed(e, "returned")
		if !f.granted(e) {
			e.State, e.Due = spool.Waiting, now
			keys[e.Queue()] = true
		}
	}
	f.mu.Unlock()
	for k := range keys {
		f.sink.Due(k, now)
	}
}

func (f *table) claimed(e *spool.Entry, what string) {
	if e.State != spool.Claimed || !f.entries[e] {
		f.t.Errorf("%v is %s while %v", e.ID(), what, e.State)
	}
}

func (f *table) Settle(a *spool.Attempt, done func(error)) {
	f.mu.Lock()
	var due []*spool.Entry
	for i, e := range a.Entries {
		f.claimed(e, "settled")
		r := a.Results[i]
		e.Last, e.LastAttempt = r, time.Now()
		if !a.Started.IsZero() && r.Outcome != spool.None {
			e.Attempts++
		}
		switch {
		case r.Outcome.Final():
			e.State = spool.Final
			f.end(e)
		case f.granted(e):
		case r.Outcome == spool.Deferred:
			e.State, e.Due = spool.Waiting, r.NextDue
			due = append(due, e)
		default:
			e.State, e.Due = spool.Waiting, time.Now()
			due = append(due, e)
		}
	}
	f.mu.Unlock()
	for _, e := range due {
		f.sink.Due(e.Queue(), e.Due)
	}
	go done(nil)
}

func (f *table) Queue(key spool.QueueKey) (spool.QueueStat, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stat(key)
}

func (f *table) stat(key spool.QueueKey) (s spool.QueueStat, ok bool) {
	s.Key = key
	for e := range f.entries {
		if e.Queue() != key {
			continue
		}
		ok = true
		switch e.State {
		case spool.Waiting:
			s.Waiting++
			if s.NextDue.IsZero() || e.Due.Before(s.NextDue) {
				s.NextDue = e.Due
			}
		case spool.Claimed:
			s.Claimed++
		case spool.Held:
			s.Held++
		}
	}
	return s, ok
}

func (f *table) Queues() []spool.QueueStat {
	f.mu.Lock()
	defer f.mu.Unlock()
	seen := make(map[spool.QueueKey]bool)
	var all []spool.QueueStat
	for e := range f.entries {
		if k := e.Queue(); !seen[k] {
			seen[k] = true
			s, _ := f.stat(k)
			all = append(all, s)
		}
	}
	return all
}

func (f *table) Quarantine(entries []*spool.Entry, why error) { f.ReturnHeld(entries, why.Error()) }

func (f *table) ReturnHeld(entries []*spool.Entry, reason string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range entries {
		f.claimed(e, "held")
		e.State, e.HoldReason = spool.Held, reason
	}
}

// change does what an operator wants with the entries that f selects, as the real spool does.
func (f *table) change(filter spool.Filter, do func(e *spool.Entry) bool) (n int, err error) {
	f.mu.Lock()
	due := make(map[spool.QueueKey]time.Time)
	for e := range f.entries {
		if !selects(&filter, e) || !do(e) {
			continue
		}
		n++
		if e.State == spool.Waiting {
			due[e.Queue()] = e.Due
		}
		f.end(e)
	}
	f.mu.Unlock()
	for key, at := range due {
		f.sink.Due(key, at)
	}
	return n, nil
}

func (f *table) end(e *spool.Entry) {
	if e.State == spool.Final {
		f.final[e.Last.Outcome]++
		delete(f.entries, e)
		n := e.Recipient().Notify
		failed := e.Last.Outcome == spool.Bounced || e.Last.Outcome == spool.Expired
		success := e.Last.Outcome == spool.Delivered && !e.Last.RemoteDSN
		if !e.Message.From.IsNull() && (failed && n.Failure() || success && n.Success()) {
			f.unreported[e.Message] = append(f.unreported[e.Message], e)
		}
	}
}

func selects(f *spool.Filter, e *spool.Entry) bool {
	return (f.Tenant == "" || f.Tenant == e.Queue().Tenant) && (f.Domain == "" || f.Domain == e.Queue().Domain) &&
		(len(f.Entries) == 0 || slices.Contains(f.Entries, e.ID())) &&
		(len(f.Messages) == 0 || slices.Contains(f.Messages, e.Message.ID)) &&
		(len(f.States) == 0 || slices.Contains(f.States, e.State)) &&
		(f.Sender == nil || *f.Sender == e.Message.From.Path)
}

func (f *table) Hold(_ context.Context, filter spool.Filter, reason string) (int, error) {
	return f.change(filter, func(e *spool.Entry) bool {
		switch e.State {
		case spool.Waiting:
			e.State, e.HoldReason = spool.Held, reason
		case spool.Claimed:
			f.wishes[e] = func() { e.State, e.HoldReason = spool.Held, reason }
		default:
			return false
		}
		return true
	})
}

func (f *table) Release(_ context.Context, filter spool.Filter) (int, error) {
	return f.change(filter, func(e *spool.Entry) bool {
		if e.State != spool.Held {
			return false
		}
		e.State, e.HoldReason, e.Due = spool.Waiting, "", time.Now()
		return true
	})
}

func (f *table) Reschedule(_ context.Context, filter spool.Filter, due time.Time) (int, error) {
	return f.change(filter, func(e *spool.Entry) bool {
		e.Due = due
		return e.State == spool.Waiting
	})
}

func (f *table) Finish(_ context.Context, filter spool.Filter, r spool.Result) (int, error) {
	return f.change(filter, func(e *spool.Entry) bool {
		r := r
		if r.Reply.IsZero() {
			r.Reply, r.Host = e.Last.Reply, e.Last.Host
		}
		switch {
		case e.State == spool.Waiting || e.State == spool.Held && r.Outcome != spool.Expired:
			e.State, e.Last = spool.Final, r
		case e.State == spool.Claimed && r.Outcome != spool.Expired:
			f.wishes[e] = func() { e.State, e.Last = spool.Final, r }
		default:
			return false
		}
		return true
	})
}

// granted makes the wish for e come true, if there is one.
func (f *table) granted(e *spool.Entry) bool {
	wish := f.wishes[e]
	if wish == nil {
		return false
	}
	delete(f.wishes, e)
	wish()
	f.end(e)
	return true
}

func (f *table) Entries(_ context.Context, filter spool.Filter, limit int,
	_ spool.EntryID) iter.Seq2[*spool.Entry, error] {
	return func(yield func(*spool.Entry, error) bool) {
		for i, e := range f.copies(filter) {
			if limit > 0 && i == limit || !yield(e, nil) {
				return
			}
		}
	}
}

func (f *table) copies(filter spool.Filter) (all []*spool.Entry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for e := range f.entries {
		if selects(&filter, e) {
			c := *e
			all = append(all, &c)
		}
	}
	slices.SortFunc(all, func(a, b *spool.Entry) int { return a.ID().Compare(b.ID()) })
	return all
}

func (f *table) Message(_ context.Context, id message.ID) (*spool.Message, []*spool.Entry, error) {
	all := f.copies(spool.Filter{Messages: []message.ID{id}})
	if len(all) == 0 {
		return nil, nil, spool.ErrNotFound
	}
	return all[0].Message, all, nil
}

func (f *table) Aging(now time.Time, limit int) []*spool.Entry {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []*spool.Entry
	for e := range f.entries {
		m, n := e.Message, e.Recipient().Notify
		notice := !m.DelayNotice.IsZero() && !now.Before(m.DelayNotice) && !e.DelayReported && !m.From.IsNull() &&
			(n == 0 || n.Delay())
		if len(all) < limit && e.State == spool.Waiting && (notice || tooOld(m, now)) {
			c := *e
			all = append(all, &c)
		}
	}
	return all
}

func (f *table) Unreported(_ time.Time, limit int) ([]spool.Report, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []spool.Report
	for m, entries := range f.unreported {
		flying := false
		for e := range f.entries {
			flying = flying || e.Message == m && e.State == spool.Claimed
		}
		if !flying && len(all) < limit {
			all = append(all, spool.Report{Message: m, Entries: slices.Clone(entries)})
		}
	}
	return all, nil
}

func (f *table) AcceptReport(_ context.Context, dsn *spool.Message, body *smtp.Body, about *spool.Message,
	indices []int) error {
	f.mu.Lock()
	if len(f.unreported[about]) == 0 {
		f.mu.Unlock()
		return spool.ErrStale
	}
	f.unreported[about] = slices.DeleteFunc(f.unreported[about], func(e *spool.Entry) bool {
		return slices.Contains(indices, e.Index)
	})
	if len(f.unreported[about]) == 0 {
		delete(f.unreported, about)
	}
	f.mu.Unlock()
	f.reported(dsn, body)
	return nil
}

func (f *table) AcceptDelayNotice(_ context.Context, dsn *spool.Message, body *smtp.Body, about *spool.Message,
	indices []int) error {
	f.mu.Lock()
	for e := range f.entries {
		if e.Message == about && slices.Contains(indices, e.Index) {
			if e.DelayReported {
				f.t.Errorf("the delay of %v is reported twice", e.ID())
			}
			e.DelayReported = true
		}
	}
	f.mu.Unlock()
	f.reported(dsn, body)
	return nil
}

// reported keeps what a sender is told, and delivers it like any mail.
func (f *table) reported(dsn *spool.Message, body *smtp.Body) {
	if dsn == nil {
		f.mu.Lock()
		f.untold++
		f.mu.Unlock()
		return
	}
	var text strings.Builder
	io.Copy(&text, body.Reader())
	f.mu.Lock()
	f.told = append(f.told, text.String())
	f.mu.Unlock()
	f.accept(dsn)
}

// memory is a store without a disk. Only what the scheduler uses is there.
type memory struct {
	store.Store
	mu   sync.Mutex
	keys map[string][]byte
	put  chan store.Change // what somebody else changes
}

func (m *memory) Scan(_ context.Context, prefix string) iter.Seq2[store.KV, error] {
	return func(yield func(store.KV, error) bool) {
		m.mu.Lock()
		keys := maps.Clone(m.keys)
		m.mu.Unlock()
		for k, v := range keys {
			if strings.HasPrefix(k, prefix) && !yield(store.KV{Key: k, Value: v}, nil) {
				return
			}
		}
	}
}

func (m *memory) Apply(_ context.Context, b *store.Batch) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for op := range b.Operations() {
		if op.Delete {
			delete(m.keys, op.Key)
		} else {
			m.keys[op.Key] = op.Value
		}
	}
	return 1, nil
}

func (m *memory) Watch(ctx context.Context, _ string) iter.Seq2[store.Change, error] {
	return func(yield func(store.Change, error) bool) {
		for {
			select {
			case c := <-m.put:
				if !yield(c, nil) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

// deliver is a Deliverer made of a function; sites maps domains to sites.
type deliver struct {
	f     func(ctx context.Context, j *Job) Verdict
	sites map[string]string
}

func (d *deliver) Deliver(ctx context.Context, j *Job) Verdict { return d.f(ctx, j) }
func (d *deliver) Site(domain string) (string, bool)           { s, ok := d.sites[domain]; return s, ok }

// all returns a verdict with the same result for all entries of j.
func all(j *Job, r spool.Result) Verdict {
	a := &spool.Attempt{Message: j.Message, Entries: j.Entries, Results: make([]spool.Result, len(j.Entries)),
		Started: time.Now(), Ended: time.Now()}
	for i := range a.Results {
		a.Results[i] = r
	}
	return Verdict{Attempt: a}
}

func delivered(j *Job) Verdict {
	return all(j, spool.Result{Outcome: spool.Delivered, Reason: event.OK})
}

func greylisted(j *Job) Verdict {
	return all(j, spool.Result{
		Outcome: spool.Deferred, Reason: event.Greylisted, Host: "mx1.example.com",
		Reply: smtp.Reply{Code: 451, Enhanced: smtp.EnhancedCode{Class: 4, Subject: 7, Detail: 1}, Text: "Greylisted"},
	})
}

func unreachable(j *Job) Verdict {
	v := all(j, spool.Result{
		Outcome: spool.Deferred, Reason: event.ConnectionRefused, Host: "mx1.example.com",
		Explanation: "connection refused by mx1.example.com [192.0.2.1]:25",
	})
	v.Destination = true
	return v
}

// bench is a scheduler over a table, running in the bubble of a synctest.
type bench struct {
	*table
	s    *Scheduler
	stop func() // ends Run and waits for it
}

func start(t *testing.T, o Options, f func(ctx context.Context, j *Job) Verdict) *bench {
	t.Helper()
	b := &bench{table: newTable(t)}
	b.prepare(t, o, &deliver{f: f})
	b.run()
	return b
}

func (b *bench) prepare(t *testing.T, o Options, d Deliverer) {
	t.Helper()
	o.Spool, o.Deliverer, o.Hostname, o.IDs = b.table, d, "mta.example.org", message.NewIDs(nil)
	if o.Store == nil {
		o.Store = &memory{keys: make(map[string][]byte), put: make(chan store.Change)}
	}
	if o.Rand == nil {
		o.Rand = rand.NewPCG(1, 2)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	b.s, b.sink = s, s
}

func (b *bench) run() {
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan error, 1)
	go func() { done <- b.s.Run(ctx) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("Run: %v", err)
		}
		b.s.mu.Lock()
		defer b.s.mu.Unlock()
		if b.s.mu.active != 0 || b.s.mu.entries != 0 || b.s.mu.bytes != 0 || len(b.s.mu.siblings) != 0 ||
			b.s.mu.claiming != 0 ||
			len(b.s.mu.workers) != 0 {
			b.t.Errorf("left behind: %d slots, %d entries, %d bytes, %d siblings, %d workers",
				b.s.mu.active, b.s.mu.entries, b.s.mu.bytes, len(b.s.mu.siblings), len(b.s.mu.workers))
		}
	})
}
