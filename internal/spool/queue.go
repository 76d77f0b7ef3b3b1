package spool

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"

	"github.com/godwit-mta/godwit/message"
)

// queue is the summary of one queue that stays in memory, and the order of those of its entries that are in the overlay.
type queue struct {
	key     QueueKey
	waiting int
	claimed int
	held    int
	heap    []*entry // Waiting entries of the overlay, a heap by due time
	floor   duePoint // no Waiting entry that only the index knows comes before
	ages    ages
}

func (q *queue) total() int { return q.waiting + q.claimed + q.held }

// inIndex returns how many Waiting entries only the index knows.
func (q *queue) inIndex() int { return q.waiting - len(q.heap) }

// nextDue returns a time not after that of the first Waiting entry, in microseconds, and whether any waits.
func (q *queue) nextDue() (int64, bool) {
	due, ok := int64(0), false
	if len(q.heap) > 0 {
		due, ok = q.heap[0].due, true
	}
	if q.inIndex() > 0 && (!ok || q.floor.due < due) {
		due, ok = q.floor.due, true
	}
	return due, ok
}

func (q *queue) stat() QueueStat {
	st := QueueStat{Key: q.key, Waiting: q.waiting, Claimed: q.claimed, Held: q.held, Oldest: q.ages.oldest()}
	if due, ok := q.nextDue(); ok {
		st.NextDue = time.UnixMicro(due).UTC()
	}
	return st
}

// lower lets the floor down to p.
func (q *queue) lower(p duePoint) {
	if p.compare(q.floor) < 0 {
		q.floor = p
	}
}

// duePoint is a place in the order of a queue.
type duePoint struct {
	due   int64 // microseconds
	id    message.ID
	index uint32
}

// lastPoint is after all others.
var lastPoint = duePoint{due: 1<<63 - 1, index: 1<<32 - 1, id: message.ID(bytes.Repeat([]byte{0xff}, len(message.ID{})))}

func (p duePoint) compare(o duePoint) int {
	switch {
	case p.due != o.due:
		if p.due < o.due {
			return -1
		}
		return 1
	case p.id != o.id:
		return bytes.Compare(p.id[:], o.id[:])
	}
	return int(int64(p.index) - int64(o.index))
}

const pointSize = 8 + len(message.ID{}) + 4

// append writes p so that octets compare like points.
func (p duePoint) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(p.due)^1<<63)
	b = append(b, p.id[:]...)
	return binary.BigEndian.AppendUint32(b, p.index)
}

func readPoint(b []byte) (p duePoint, ok bool) {
	if len(b) != pointSize {
		return p, false
	}
	p.due = int64(binary.BigEndian.Uint64(b) ^ 1<<63)
	copy(p.id[:], b[8:])
	p.index = binary.BigEndian.Uint32(b[8+len(p.id):])
	return p, true
}

func (p duePoint) entry() EntryID { return EntryID{Message: p.id, Index: int(p.index)} }

// The heap. An entry knows its place, so that it can leave from the middle.

func (q *queue) push(e *entry) {
	e.heap = len(q.heap)
	q.heap = append(q.heap, e)
	q.up(e.heap)
}

func (q *queue) remove(e *entry) {
	i, last := e.heap, len(q.heap)-1
	e.heap = -1
	moved := q.heap[last]
	q.heap[last] = nil
	q.heap = q.heap[:last]
	if i == last {
		return
	}
	q.heap[i], moved.heap = moved, i
	q.up(i)
	q.down(moved.heap)
}

func (q *queue) before(i, k int) bool {
	a, b := q.heap[i], q.heap[k]
	if a.due != b.due {
		return a.due < b.due
	}
	return a.point().compare(b.point()) < 0
}

func (q *queue) swap(i, k int) {
	q.heap[i], q.heap[k] = q.heap[k], q.heap[i]
	q.heap[i].heap, q.heap[k].heap = i, k
}

func (q *queue) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !q.before(i, parent) {
			return
		}
		q.swap(i, parent)
		i = parent
	}
}

func (q *queue) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(q.heap) {
			return
		}
		if child+1 < len(q.heap) && q.before(child+1, child) {
			child++
		}
		if !q.before(child, i) {
			return
		}
		q.swap(child, i)
		i = child
	}
}

// ages counts the entries of a queue by the minute they came, with coarser steps for the past when there are many, so that
// the oldest is known without looking at any. Steps begin at start and end where the next begins.
type ages struct{ steps []ageStep }

type ageStep struct {
	start uint32 // minutes since 1970
	n     uint32
}

const maxAgeSteps = 48

func minute(id message.ID) uint32 { return uint32(id.Time().Unix() / 60) }

func (a *ages) add(id message.ID) {
	m := minute(id)
	i := a.find(m)
	if i < 0 || a.steps[i].start != m && i == len(a.steps)-1 {
		a.steps = slices.Insert(a.steps, i+1, ageStep{start: m})
		i++
		if len(a.steps) > maxAgeSteps {
			i = a.merge(i)
		}
	}
	a.steps[i].n++
}

func (a *ages) drop(id message.ID) {
	i := a.find(minute(id))
	if i < 0 || a.steps[i].n == 0 {
		return
	}
	a.steps[i].n--
	// Only steps at the begin go: what was counted in a step must find it again.
	empty := 0
	for empty < len(a.steps) && a.steps[empty].n == 0 {
		empty++
	}
	if empty > 0 {
		a.steps = slices.Delete(a.steps, 0, empty)
	}
}

// find returns the last step that begins at m or before, -1 if none does.
func (a *ages) find(m uint32) int {
	for i := len(a.steps) - 1; i >= 0; i-- {
		if a.steps[i].start <= m {
			return i
		}
	}
	return -1
}

// merge joins the two neighbours whose joint span is smallest for their age, and returns where step i went. The newest two
// stay apart.
func (a *ages) merge(i int) int {
	now := a.steps[len(a.steps)-1].start + 1
	best, at := 2.0, 0
	for k := 0; k+2 < len(a.steps); k++ {
		if r := float64(a.steps[k+1].start-a.steps[k].start) / float64(now-a.steps[k].start); r < best {
			best, at = r, k
		}
	}
	a.steps[at].n += a.steps[at+1].n
	a.steps = slices.Delete(a.steps, at+1, at+2)
	if i > at {
		i--
	}
	return i
}

func (a *ages) oldest() time.Time {
	if len(a.steps) == 0 {
		return time.Time{}
	}
	return time.Unix(int64(a.steps[0].start)*60, 0).UTC()
}
