package spool

import (
	"sort"

	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

// msg is a message in the overlay. A message that is here is here with all of its entries, and what the index says of
// it does not count. Guarded by Spool.mu, but for Message, which never changes.
type msg struct {
	*Message
	entries []entry // those that are not gone, or were not when it was loaded, by index
	pos     journal.Position
	birth   journal.ExtentID // of the accepted record
	copied  bool             // a moved record may be elsewhere, wherever pos is
	given   []*Entry         // all entries, for the sink, until it has them
	body    *smtp.Body       // nil: only in the journal

	claimed  int   // entries somebody delivers
	left     int   // entries that are not gone
	reports  int   // entries that are final and to be reported
	failedAt int64 // when the first of these became final, in microseconds
	pending  int   // records under way to the journal

	inIndex  bool             // the index has it
	indexPos journal.Position // as the index has it
	indexDue bool             // the index has it as to be reported

	dirty      bool // the index does not have its state
	list       *msgList
	prev, next *msg
}

// entry is one entry of a msg.
type entry struct {
	Entry
	msg     *msg
	queue   *queue  // while it is not final
	due     int64   // Entry.Due in microseconds
	heap    int     // place in queue.heap, -1: none
	gone    bool    // final, and nothing is to be reported
	report  bool    // final, and the sender is to be told
	changed bool    // the index does not have its state
	taken   bool    // a change of it is being put together
	wish    *Result // of WishFinish; nil otherwise, nearly always

	key indexKey // what the index holds of it
}

func (e *entry) point() duePoint {
	return duePoint{due: e.due, id: e.msg.ID, index: uint32(e.Index)}
}

// weight returns what m counts in the overlay.
func (m *msg) weight() int { return (len(m.entries) + Share - 1) / Share }

func (m *msg) find(index int) *entry {
	if index < len(m.entries) && m.entries[index].Index == index { // none is missing, the usual case
		return &m.entries[index]
	}
	i := sort.Search(len(m.entries), func(i int) bool { return m.entries[i].Index >= index })
	if i < len(m.entries) && m.entries[i].Index == index {
		return &m.entries[i]
	}
	return nil
}

// newMsg makes the overlay's form of a message that was just accepted.
func newMsg(m *Message) *msg {
	var om *msg
	if len(m.Recipients) == 1 {
		block := new(struct { // one allocation for the usual case
			msg   msg
			entry [1]entry
			given [1]*Entry
		})
		om, block.msg.entries, block.msg.given = &block.msg, block.entry[:], block.given[:]
	} else {
		om = &msg{entries: make([]entry, len(m.Recipients)), given: make([]*Entry, len(m.Recipients))}
	}
	om.Message = m
	om.left, om.claimed = len(om.entries), len(om.entries)
	received := round(m.Received)
	for i := range om.entries {
		e := &om.entries[i]
		e.Message, e.Index, e.State, e.Due = m, i, Claimed, received
		e.msg, e.due, e.heap, e.changed = om, micros(received), -1, true
		om.given[i] = &e.Entry
	}
	return om
}

// copyOf returns what may leave the lock.
func (e *entry) copyOf() *Entry {
	c := e.Entry
	return &c
}

// wantsReport reports whether the sender is to be told that e is final: of a failure unless NOTIFY forbids, of a
// success if NOTIFY asks and the remote does not tell (RFC 3461, 4.1 and 5.2); never of what had a null sender (RFC
// 5321, 4.5.5).
func (e *entry) wantsReport() bool {
	if e.Message.From.IsNull() {
		return false
	}
	switch n := e.Recipient().Notify; e.Last.Outcome {
	case Bounced, Expired:
		return n.Failure()
	case Delivered:
		return n.Success() && !e.Last.RemoteDSN
	}
	return false
}

// age returns when a waiting entry needs attention for its age, in microseconds; 0: never.
func (e *entry) age() int64 {
	m := e.Message
	due := micros(m.Expires)
	n := e.Recipient().Notify
	if !e.DelayReported && !m.DelayNotice.IsZero() && !m.From.IsNull() && (n == 0 || n.Delay()) {
		if notice := micros(m.DelayNotice); due == 0 || notice < due {
			return notice
		}
	}
	return due
}

// msgList is a list through the messages themselves.
type msgList struct {
	first, last *msg
	n           int
}

func (l *msgList) push(m *msg) {
	m.list, m.prev, m.next = l, l.last, nil
	if l.last == nil {
		l.first = m
	} else {
		l.last.next = m
	}
	l.last = m
	l.n++
}

func (m *msg) unlink() {
	l := m.list
	if l == nil {
		return
	}
	if m.prev == nil {
		l.first = m.next
	} else {
		m.prev.next = m.next
	}
	if m.next == nil {
		l.last = m.prev
	} else {
		m.next.prev = m.prev
	}
	l.n--
	m.list, m.prev, m.next = nil, nil, nil
}

// dueNotice is what the sink is to be told after the locks are released.
type dueNotice struct {
	key QueueKey
	at  int64
}

// touch notes that m must be written to the index.
func (s *Spool) touch(m *msg) {
	if m.dirty {
		return
	}
	m.dirty = true
	m.unlink()
	s.mu.dirty.push(m)
}

// queueOf returns the queue of an entry, made if needed.
func (s *Spool) queueOf(key QueueKey) *queue {
	q := s.mu.queues[key]
	if q == nil {
		if n := len(s.mu.spare); n > 0 {
			q, s.mu.spare = s.mu.spare[n-1], s.mu.spare[:n-1]
		} else {
			q = new(queue)
		}
		q.key, q.floor = key, lastPoint
		s.mu.queues[key] = q
	}
	return q
}

// maxSpare is how many empty queues are kept to be used again.
const maxSpare = 256

func (s *Spool) dropQueue(q *queue) {
	delete(s.mu.queues, q.key)
	if len(s.mu.spare) < maxSpare && cap(q.heap) <= 16 {
		*q = queue{heap: q.heap[:0], ages: ages{steps: q.ages.steps[:0]}}
		s.mu.spare = append(s.mu.spare, q)
	}
}

// enter takes a message into the overlay. Its entries count in their queues already if counted says so.
func (s *Spool) enter(m *msg, counted bool) {
	s.mu.msgs[m.ID] = m
	s.mu.resident += len(m.entries)
	s.mu.weight += m.weight()
	if m.dirty {
		s.mu.dirty.push(m)
	} else {
		s.mu.clean.push(m)
	}
	if !s.mu.live {
		return
	}
	for i := range m.entries {
		e := &m.entries[i]
		if e.State == Final {
			continue
		}
		e.queue = s.queueOf(e.Queue())
		if !counted {
			s.count(e, 1)
			e.queue.ages.add(m.ID)
		}
		if e.State == Waiting {
			e.queue.push(e)
		}
	}
	if m.reports > 0 && !counted {
		s.mu.unreported.add(m.ID, m.failedAt)
	}
}

// leave takes a message out of the overlay; what the index has of it counts again.
func (s *Spool) leave(m *msg) {
	if s.mu.msgs[m.ID] == m {
		delete(s.mu.msgs, m.ID)
	}
	s.mu.resident -= len(m.entries)
	s.mu.weight -= m.weight()
	m.unlink()
	s.dropBody(m)
	if !s.mu.live {
		return
	}
	for i := range m.entries {
		if e := &m.entries[i]; e.heap >= 0 {
			e.queue.remove(e)
			e.queue.lower(e.point())
		}
	}
}

func (s *Spool) dropBody(m *msg) {
	if m.body != nil {
		s.mu.bodyBytes -= m.body.Memory()
		m.body.Release()
		m.body = nil
	}
}

func (s *Spool) count(e *entry, n int) {
	switch e.State {
	case Waiting:
		e.queue.waiting += n
		s.mu.waiting += n
	case Claimed:
		e.queue.claimed += n
		s.mu.claimed += n
	case Held:
		e.queue.held += n
		s.mu.held += n
	}
}

// full sets an entry to a state that a moved or carried record, or the index, tells whole.
func (e *entry) full(c *Change) {
	e.State, e.Due, e.due = c.State, c.Due, micros(c.Due)
	e.Attempts, e.LastAttempt, e.Last = c.Attempts, c.LastAttempt, c.Result
	e.HoldReason, e.DelayReported, e.Interrupted = c.HoldReason, c.DelayReported, c.Interrupted
	e.setWish(c)
	e.heap = -1
}

// setWish takes over the wish of a change.
func (e *entry) setWish(c *Change) {
	e.Wish, e.wish = c.Wish, nil
	if c.Wish == WishFinish {
		r := c.WishResult
		e.wish = &r
	}
}

// whole returns the state of an entry for a moved or carried record or the index.
func (e *entry) whole() Change {
	c := Change{
		Message: e.Message, Index: e.Index, State: e.State, Due: e.Due, Attempts: e.Attempts, LastAttempt: e.LastAttempt,
		Result: e.Last, HoldReason: e.HoldReason, Interrupted: e.Interrupted, DelayReported: e.DelayReported,
		Wish: e.Wish,
	}
	if e.wish != nil {
		c.WishResult = *e.wish
	}
	return c
}

// recount computes what the entries' states imply.
func (m *msg) recount() {
	m.claimed, m.left, m.reports = 0, 0, 0
	for i := range m.entries {
		e := &m.entries[i]
		if e.gone {
			continue
		}
		m.left++
		switch e.State {
		case Claimed:
			m.claimed++
		case Final:
			e.report = true
			m.reports++
		}
	}
}

// restore replaces the states of m's entries by those of a carried or moved record; entries it does not tell of are
// gone. Only in a replay.
func (m *msg) restore(changes []Change) {
	told := make(map[int]*Change, len(changes))
	for i := range changes {
		if changes[i].State != 0 { // not a tomb
			told[changes[i].Index] = &changes[i]
		}
	}
	for i := range m.entries {
		e := &m.entries[i]
		e.changed = true
		if c := told[e.Index]; c != nil {
			e.full(c)
			e.report = false // recount says
		} else {
			e.State, e.gone, e.report = Final, true, false
		}
	}
	m.recount()
	if m.reports > 0 && m.failedAt == 0 {
		for i := range m.entries {
			if e := &m.entries[i]; e.report {
				m.failedAt = micros(e.LastAttempt)
				break
			}
		}
	}
}

// ids of messages, in the order they were added, each with a time.
type idQueue struct {
	at    map[message.ID]int64
	order []message.ID // some may have left
}

func (q *idQueue) add(id message.ID, at int64) {
	if q.at == nil {
		q.at = make(map[message.ID]int64)
	}
	if _, ok := q.at[id]; ok {
		q.at[id] = at
		return
	}
	q.at[id] = at
	q.order = append(q.order, id)
}

func (q *idQueue) drop(id message.ID) {
	delete(q.at, id)
	if len(q.order) > 64 && len(q.order) > 2*len(q.at) {
		kept := q.order[:0]
		for _, id := range q.order {
			if _, ok := q.at[id]; ok {
				kept = append(kept, id)
			}
		}
		q.order = kept
	}
}
