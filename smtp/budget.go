package smtp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// ErrNoMemory says that a body may not be read back now, since the budget is used up.
var ErrNoMemory = errors.New("no memory for the message now")

// Budget bounds the memory of all bodies in flight, whoever holds them. A body counts with the pieces it is made of,
// from the first octet to the last [Body.Release], however many share it. All methods may be called from any
// goroutine; those of a nil Budget bound nothing.
//
// Bodies come from two sides. Those being received ([Budget.NewBody]) are refused when there is no room: the client
// sends them again. Those read back for delivery ([Budget.Claim]) wait for room. Neither side gets more than three
// quarters, so that each has some however slow the other is. One body may always be received, and one large and one
// small be read back, even beyond the limit, so that no size is impossible and delivery never stands still; the limit
// can be passed by that much, and by a piece for each body being received. Small bodies have a line of their own, so
// that they do not wait behind large ones.
type Budget struct {
	limit    int64
	received atomic.Int64 // octets
	read     atomic.Int64
	waiting  atomic.Int64 // claims in line
	mu       struct {
		sync.Mutex
		lines [2]line
	}
}

// line is the claims of one kind of bodies, large or small.
type line struct {
	waiting []*claimant
	octets  int64 // of claims that were granted
}

type claimant struct {
	size    int64
	granted chan struct{}
}

const (
	large = 0
	small = 1
)

// smallBody is the memory of a body up to which it stands in the line of small ones.
const smallBody = smallPiece + 4*largePiece

// NewBudget returns a budget of limit octets.
func NewBudget(limit int64) *Budget { return &Budget{limit: limit} }

// Limit returns the octets that the budget allows.
func (b *Budget) Limit() int64 {
	if b == nil {
		return 0
	}
	return b.limit
}

// Usage returns the octets of bodies that were received and of those read back, and how many claims wait.
func (b *Budget) Usage() (received, read int64, waiting int) {
	if b == nil {
		return 0, 0, 0
	}
	return b.received.Load(), b.read.Load(), int(b.waiting.Load())
}

// NewBody returns an empty body that counts as received while it is filled and kept.
func (b *Budget) NewBody() *Body {
	body := NewBody()
	body.budget = b
	return body
}

// Room reports whether a body of size octets could be received now.
func (b *Budget) Room(size int64) bool { return b == nil || b.fits(memoryOf(size)) }

// fits reports whether more octets could be received.
func (b *Budget) fits(more int64) bool {
	received := b.received.Load()
	return received == 0 || b.within(received+more)
}

func (b *Budget) within(received int64) bool {
	return received <= b.limit-b.limit/4 && received+b.read.Load() <= b.limit
}

// Claim waits until a body of size octets may be read back. The claim must be given to the body, or released. The
// error is that of ctx.
func (b *Budget) Claim(ctx context.Context, size int64) (Claim, error) {
	if c, ok := b.TryClaim(size); ok {
		return c, nil
	}
	n := memoryOf(size)
	w := &claimant{size: n, granted: make(chan struct{})}
	b.mu.Lock()
	l := &b.mu.lines[kindOf(n)]
	l.waiting = append(l.waiting, w)
	b.waiting.Add(1)
	b.grantLocked() // what was given back a moment ago did not know of us
	b.mu.Unlock()
	select {
	case <-w.granted:
		return Claim{budget: b, octets: n}, nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	i := slices.Index(l.waiting, w)
	if i >= 0 {
		l.waiting = slices.Delete(l.waiting, i, i+1)
		b.waiting.Add(-1)
		b.grantLocked() // those behind it may be smaller
	}
	b.mu.Unlock()
	if i < 0 {
		Claim{budget: b, octets: n}.Release()
	}
	return Claim{}, fmt.Errorf("waiting for memory: %w", context.Cause(ctx))
}

// TryClaim is Claim for who does not wait. It does not overtake those who do.
func (b *Budget) TryClaim(size int64) (Claim, bool) {
	n := memoryOf(size)
	if b == nil {
		return Claim{}, true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.mu.lines[kindOf(n)].waiting) > 0 || !b.admitsLocked(n) {
		return Claim{}, false
	}
	b.takeLocked(n)
	return Claim{budget: b, octets: n}, true
}

// Insist is Claim for what must not wait and happens one at a time, such as moving a message within the journal.
func (b *Budget) Insist(size int64) Claim {
	if b == nil {
		return Claim{}
	}
	n := memoryOf(size)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.takeLocked(n)
	return Claim{budget: b, octets: n}
}

// kindOf says in which line a body stands.
func kindOf(n int64) int {
	if n <= smallBody {
		return small
	}
	return large
}

// admitsLocked reports whether a body of n octets may be read back now.
func (b *Budget) admitsLocked(n int64) bool {
	kind, limit := kindOf(n), b.limit
	l := &b.mu.lines[kind]
	read := b.read.Load()
	switch {
	case l.octets == 0:
		return true
	case read+n > limit-limit/4 || read+b.received.Load()+n > limit:
		return false
	case kind == small && len(b.mu.lines[large].waiting) > 0:
		// Else a stream of small ones could keep large ones out for ever.
		return l.octets+n <= limit/8
	}
	return true
}

func (b *Budget) takeLocked(n int64) {
	b.mu.lines[kindOf(n)].octets += n
	b.read.Add(n)
}

// grantLocked lets those go on for whom there is room, in the order they came.
func (b *Budget) grantLocked() {
	for kind := range b.mu.lines {
		l := &b.mu.lines[kind]
		for len(l.waiting) > 0 && b.admitsLocked(l.waiting[0].size) {
			w := l.waiting[0]
			l.waiting = slices.Delete(l.waiting, 0, 1)
			b.waiting.Add(-1)
			b.takeLocked(w.size)
			close(w.granted)
		}
	}
}

// take counts n more octets of a body being received, which had some before, and reports whether they fit.
func (b *Budget) take(n, had int64) bool {
	received := b.received.Add(n)
	return received == had+n || b.within(received)
}

// give takes octets of a body that was received back.
func (b *Budget) give(n int64) {
	b.received.Add(-n)
	if b.waiting.Load() > 0 {
		b.mu.Lock()
		b.grantLocked()
		b.mu.Unlock()
	}
}

// Claim is the right to read one body back. The zero value is that of a nil Budget.
type Claim struct {
	budget *Budget
	octets int64
}

// Give hands the claim to the body that was read, whose last Release gives it back.
func (c Claim) Give(to *Body) { to.claim = c }

// Release gives the claim back if no body got it.
func (c Claim) Release() {
	b := c.budget
	if b == nil {
		return
	}
	b.mu.Lock()
	b.mu.lines[kindOf(c.octets)].octets -= c.octets
	b.read.Add(-c.octets)
	b.grantLocked()
	b.mu.Unlock()
}

// memoryOf returns the octets of the pieces that a body of size octets is made of.
func memoryOf(size int64) int64 {
	if size <= smallPiece {
		return smallPiece
	}
	return smallPiece + (size-smallPiece+largePiece-1)/largePiece*largePiece
}
