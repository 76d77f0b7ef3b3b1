package spool

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/godwit-mta/godwit/message"
)

// matcher is a filter with its lists as sets.
type matcher struct {
	Filter
	messages map[message.ID]bool
	entries  map[EntryID]bool
}

func newMatcher(f Filter) *matcher {
	m := &matcher{Filter: f}
	if len(f.Messages) > 0 {
		m.messages = make(map[message.ID]bool, len(f.Messages))
		for _, id := range f.Messages {
			m.messages[id] = true
		}
	}
	if len(f.Entries) > 0 {
		m.entries = make(map[EntryID]bool, len(f.Entries))
		for _, id := range f.Entries {
			m.entries[id] = true
		}
	}
	return m
}

// matches reports whether a filter selects an entry.
func (f *matcher) matches(e *Entry) bool {
	m, q := e.Message, e.Queue()
	switch {
	case len(f.States) == 0 && e.State == Final, len(f.States) > 0 && !slices.Contains(f.States, e.State):
	case f.Queue != QueueKey{} && f.Queue != q:
	case f.Tenant != "" && f.Tenant != q.Tenant:
	case f.Stream != "" && f.Stream != m.Stream:
	case f.Domain != "" && f.Domain != q.Domain:
	case f.Sender != nil && (f.Sender.Local != m.From.Local || !strings.EqualFold(f.Sender.Domain, m.From.Domain)):
	case f.messages != nil && !f.messages[m.ID]:
	case f.entries != nil && !f.entries[e.ID()]:
	default:
		return true
	}
	return false
}

// byQueue reports whether the filter is best answered queue by queue.
func (f *Filter) byQueue() bool { return f.Queue != QueueKey{} || f.Tenant != "" || f.Domain != "" }

func (f *Filter) takesQueue(k QueueKey) bool {
	return (f.Queue == QueueKey{} || f.Queue == k) && (f.Tenant == "" || f.Tenant == k.Tenant) &&
		(f.Domain == "" || f.Domain == k.Domain)
}

// candidate is an entry, or all entries of a message, that a filter may select.
type candidate struct {
	id    message.ID
	index int // -1: all
}

// candidates gives what a filter may select, as of now: each message that is there at the beginning and the end comes
// once, queue by queue in the order of state and due time if the filter names queues, in the order of ids otherwise.
// after is where to go on.
func (s *Spool) candidates(ctx context.Context, f *Filter, after EntryID) iter.Seq2[candidate, error] {
	switch {
	case len(f.Entries) > 0 || len(f.Messages) > 0:
		return f.named(after)
	case f.byQueue():
		return s.queued(ctx, f, after)
	}
	return s.everything(ctx, after)
}

// named gives what the filter itself names, in the order of ids.
func (f *Filter) named(after EntryID) iter.Seq2[candidate, error] {
	var all []candidate
	for _, e := range f.Entries {
		all = append(all, candidate{e.Message, e.Index})
	}
	if len(f.Entries) == 0 { // with both, matches does the rest
		for _, id := range f.Messages {
			all = append(all, candidate{id, -1})
		}
	}
	slices.SortFunc(all, func(a, b candidate) int {
		return EntryID{a.id, a.index}.Compare(EntryID{b.id, b.index})
	})
	all = slices.Compact(all)
	return func(yield func(candidate, error) bool) {
		for _, c := range all {
			if c.id.Compare(after.Message) < 0 || c.id == after.Message && c.index >= 0 && c.index <= after.Index {
				continue
			}
			if !yield(c, nil) {
				return
			}
		}
	}
}

// everything gives all messages in the order of ids.
func (s *Spool) everything(ctx context.Context, after EntryID) iter.Seq2[candidate, error] {
	return func(yield func(candidate, error) bool) {
		memory := make(map[message.ID]bool)
		var keys [][]byte
		it, err := s.cut(func() {
			for id := range s.mu.msgs {
				memory[id] = true
				if id.Compare(after.Message) >= 0 {
					keys = append(keys, messageKey(nil, id))
				}
			}
		})
		if err != nil {
			yield(candidate{}, err)
			return
		}
		defer it.Close()
		slices.SortFunc(keys, bytes.Compare)
		start, end := messageKey(nil, after.Message), []byte{keyMessage + 1}
		s.merge(ctx, it, start, end, keys, func(k []byte, fromIndex bool) (c candidate, skip bool) {
			if len(k) != 1+len(c.id) {
				return c, true // an entry's
			}
			c.index = -1
			copy(c.id[:], k[1:])
			return c, fromIndex && memory[c.id]
		}, yield)
	}
}

// queued gives the entries of the queues that the filter selects.
func (s *Spool) queued(ctx context.Context, f *Filter, after EntryID) iter.Seq2[candidate, error] {
	return func(yield func(candidate, error) bool) {
		start, err := s.placeInQueue(after)
		if err != nil {
			yield(candidate{}, err)
			return
		}
		memory := make(map[message.ID]bool)
		var keys [][]byte
		var queues [][]byte // prefixes
		it, err := s.cut(func() {
			for k := range s.mu.queues {
				if f.takesQueue(k) {
					queues = append(queues, queuePrefix(nil, k))
				}
			}
			for id, m := range s.mu.msgs {
				memory[id] = true
				for i := range m.entries {
					e := &m.entries[i]
					if e.State != Final && f.takesQueue(e.Entry.Queue()) {
						keys = append(keys, queueKeyOf(nil, e.Entry.Queue(), e.State, e.point()))
					}
				}
			}
		})
		if err != nil {
			yield(candidate{}, err)
			return
		}
		defer it.Close()
		slices.SortFunc(keys, bytes.Compare)
		slices.SortFunc(queues, bytes.Compare)
		for _, prefix := range queues {
			from, end := prefix, append(slices.Clone(prefix[:len(prefix)-1]), 1) // 0 ends the name
			if bytes.Compare(start, end) >= 0 {
				continue
			}
			if bytes.Compare(start, from) > 0 {
				from = append(slices.Clone(start), 0)
			}
			lo, _ := slices.BinarySearchFunc(keys, from, bytes.Compare)
			hi, _ := slices.BinarySearchFunc(keys, end, bytes.Compare)
			more := s.merge(ctx, it, from, end, keys[lo:max(lo, hi)], func(k []byte, fromIndex bool) (candidate, bool) {
				_, _, p, ok := readQueueKey(k)
				return candidate{p.id, int(p.index)}, !ok || fromIndex && memory[p.id]
			}, yield)
			if !more {
				return
			}
		}
	}
}

// placeInQueue returns the key of an entry in the order of its queue; nil for the zero value.
func (s *Spool) placeInQueue(id EntryID) ([]byte, error) {
	if id == (EntryID{}) {
		return nil, nil
	}
	m, err := s.view(id.Message)
	if err != nil {
		return nil, fmt.Errorf("going on after %s: %w", id, err)
	}
	e := m.find(id.Index)
	if e == nil || e.State == Final {
		return nil, fmt.Errorf("going on after %s: %w", id, ErrNotFound)
	}
	return queueKeyOf(nil, e.Entry.Queue(), e.State, e.point()), nil
}

// cut makes an iterator over the index such that every message is seen by snapshot, which is called with mu held, or
// by the iterator.
func (s *Spool) cut(snapshot func()) (*pebble.Iterator, error) {
	if err := s.hold(); err != nil {
		return nil, err
	}
	defer s.gate.RUnlock()
	s.mu.Lock()
	snapshot()
	s.mu.Unlock()
	it, err := s.index.db.NewIter(nil)
	if err != nil {
		return nil, s.indexError(err)
	}
	return it, nil
}

// merge yields what stands in the index between from and end and in keys, in order. It reports whether to go on.
func (s *Spool) merge(ctx context.Context, it *pebble.Iterator, from, end []byte, keys [][]byte,
	read func(k []byte, fromIndex bool) (candidate, bool), yield func(candidate, error) bool) bool {
	valid := it.SeekGE(from)
	for n := 0; ; n++ {
		if n%256 == 0 && ctx.Err() != nil {
			yield(candidate{}, context.Cause(ctx))
			return false
		}
		valid = valid && bytes.Compare(it.Key(), end) < 0
		var c candidate
		var skip bool
		switch {
		case len(keys) > 0 && (!valid || bytes.Compare(keys[0], it.Key()) <= 0):
			c, skip = read(keys[0], false)
			keys = keys[1:]
		case valid:
			c, skip = read(it.Key(), true)
			valid = it.Next()
		default:
			if err := it.Error(); err != nil {
				yield(candidate{}, s.indexError(err))
				return false
			}
			return true
		}
		if !skip && !yield(c, nil) {
			return false
		}
	}
}

// view returns a copy of a message and its entries as they are now, from memory or from the index.
func (s *Spool) view(id message.ID) (*msg, error) {
	v := viewer{spool: s}
	defer v.close()
	return v.view(id)
}

// viewer looks at one message after the other as it is now. It looks at the index through one reader for as long as
// that tells the truth about what is not in memory: until messages leave the overlay. It is used by one goroutine.
type viewer struct {
	spool     *Spool
	reader    *messageReader
	evictions uint64 // when reader was made
	seen      uint64 // evictions at the last look
	read      *msg   // what the last look found in the index; nil: in memory, or nothing
}

func (v *viewer) close() {
	if v.reader != nil {
		_ = v.reader.close() // what it could tell, it told with what was read
		v.reader = nil
	}
}

// view is Spool.view.
func (v *viewer) view(id message.ID) (*msg, error) {
	s := v.spool
	if err := s.hold(); err != nil {
		return nil, err
	}
	defer s.gate.RUnlock() // nothing leaves the overlay meanwhile
	v.seen, v.read = s.evictions, nil
	s.mu.Lock()
	if m := s.mu.msgs[id]; m != nil {
		c := &msg{Message: m.Message, entries: slices.Clone(m.entries), pos: m.pos, left: m.left, claimed: m.claimed,
			reports: m.reports, failedAt: m.failedAt}
		s.mu.Unlock()
		if c.left == 0 {
			return nil, ErrNotFound
		}
		return c, nil
	}
	s.mu.Unlock()
	if v.reader == nil || v.evictions != s.evictions {
		v.close()
		var err error
		if v.reader, err = s.index.reader(); err != nil {
			return nil, s.indexError(err)
		}
		v.reader.inRow = true
		v.evictions = s.evictions
	}
	m, err := v.reader.fetch(id)
	switch {
	case err != nil:
		return nil, s.indexError(err)
	case m == nil || len(m.entries) == 0:
		return nil, ErrNotFound
	}
	v.read = m
	return m, nil
}

// Message returns a message and copies of its entries: those that are not final, and final ones that were not
// reported yet. ErrNotFound: it is not here, or not any more.
func (s *Spool) Message(_ context.Context, id message.ID) (*Message, []*Entry, error) {
	m, err := s.view(id)
	if err != nil {
		return nil, nil, err
	}
	entries := make([]*Entry, 0, len(m.entries))
	for i := range m.entries {
		if e := &m.entries[i]; !e.gone {
			entries = append(entries, e.copyOf())
		}
	}
	return m.Message, entries, nil
}

// Entries gives copies of the entries that a filter selects, each as it is when it is given, up to limit; 0: all. If
// the filter names a queue, tenant or domain they come queue by queue, waiting ones by due time, then claimed, then
// held ones; otherwise by id. after, if not zero, is the last entry of the page before; if it has gone from its queue
// meanwhile, the error is ErrNotFound.
func (s *Spool) Entries(ctx context.Context, f Filter, limit int, after EntryID) iter.Seq2[*Entry, error] {
	return func(yield func(*Entry, error) bool) {
		n := 0
		for e, err := range s.selected(ctx, newMatcher(f), after) {
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(e, nil) {
				return
			}
			if n++; n == limit {
				return
			}
		}
	}
}

// selected gives copies of all entries that match.
func (s *Spool) selected(ctx context.Context, f *matcher, after EntryID) iter.Seq2[*Entry, error] {
	return func(yield func(*Entry, error) bool) {
		v := viewer{spool: s}
		defer v.close()
		for e, err := range v.selected(ctx, f, after) {
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(e.copyOf(), nil) {
				return
			}
		}
	}
}

// selected gives all entries that match, as parts of views of their messages.
func (v *viewer) selected(ctx context.Context, f *matcher, after EntryID) iter.Seq2[*entry, error] {
	return func(yield func(*entry, error) bool) {
		var m *msg // neighbours are often of one message
		for c, err := range v.spool.candidates(ctx, &f.Filter, after) {
			if err != nil {
				yield(nil, err)
				return
			}
			if m == nil || m.ID != c.id {
				m, err = v.view(c.id)
				if err == ErrNotFound {
					m = nil
					continue
				}
				if err != nil {
					yield(nil, err)
					return
				}
			}
			for i := range m.entries {
				e := &m.entries[i]
				if e.gone || c.index >= 0 && e.Index != c.index || c.index < 0 && c.id == after.Message && e.Index <= after.Index {
					continue
				}
				if f.matches(&e.Entry) && !yield(e, nil) {
					return
				}
			}
		}
	}
}
