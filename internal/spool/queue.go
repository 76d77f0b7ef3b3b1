package spool

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"slices"
	"time"

	"github.com/godwit-mta/godwit/message"
)

// queue is the summary of one queue that stays in memory, and the order of those of its entries that are in the
// overlay.
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
var lastPoint = duePoint{
	due: 1<<63 - 1, index: 1<<32 - 1, id: message.ID(bytes.Repeat([]byte{0xff}, len(message.ID{}))),
}

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

// ages counts the entries of a queue by the minute they came, so that the oldest is known without looking at any.
// There are at most maxAgeSteps steps: when there would be more, those that are close together for their age become
// one. Steps are aligned intervals of 1, 2, 4, 8, ... minutes, none overlaps another, so that what was counted in one
// finds it again.
type ages struct{ steps []ageStep }

type ageStep struct {
	start uint32 // minutes since 1970, a multiple of 1<<level
	level uint8
	n     uint32
}

func (a ageStep) has(m uint32) bool { return m>>a.level == a.start>>a.level }

const maxAgeSteps = 48

func minute(id message.ID) uint32 { return uint32(id.Time().Unix() / 60) }

func (a *ages) add(id message.ID) {
	m := minute(id)
	i := a.find(m)
	if i < 0 || !a.steps[i].has(m) {
		i++
		a.steps = slices.Insert(a.steps, i, ageStep{start: m})
		a.steps[i].n = 1
		if len(a.steps) > maxAgeSteps {
			a.merge()
		}
		return
	}
	a.steps[i].n++
}

func (a *ages) drop(id message.ID) {
	m := minute(id)
	i := a.find(m)
	if i < 0 || !a.steps[i].has(m) {
		return
	}
	if a.steps[i].n--; a.steps[i].n == 0 {
		a.steps = slices.Delete(a.steps, i, i+1)
	}
}

// find returns the last step that begins at m or before, -1 if none does. Most come to the end.
func (a *ages) find(m uint32) int {
	for i := len(a.steps) - 1; i >= 0; i-- {
		if a.steps[i].start <= m {
			return i
		}
	}
	return -1
}

// merge makes one step of two neighbours, those whose joint interval is shortest for its age, and of all others in
// that interval.
func (a *ages) merge() {
	last := a.steps[len(a.steps)-1]
	now := float64(last.start) + float64(uint32(1)<<last.level)
	best, at, level := 0.0, -1, uint8(0)
	for i := range len(a.steps) - 1 {
		x, y := a.steps[i], a.steps[i+1]
		l := max(x.level, y.level, uint8(bits.Len32(x.start^y.start)))
		start := x.start >> l << l
		if r := float64(uint64(1)<<l) / (now - float64(start)); at < 0 || r < best {
			best, at, level = r, i, l
		}
	}
	start := a.steps[at].start >> level << level
	joint := ageStep{start: start, level: level}
	from := at
	for from > 0 && a.steps[from-1].start >= start {
		from--
	}
	to := from
	for to < len(a.steps) && a.steps[to].start>>level == start>>level {
		joint.n += a.steps[to].n
		to++
	}
	a.steps = slices.Replace(a.steps, from, to, joint)
}

func (a *ages) oldest() time.Time {
	if len(a.steps) == 0 {
		return time.Time{}
	}
	return time.Unix(int64(a.steps[0].start)*60, 0).UTC()
}
