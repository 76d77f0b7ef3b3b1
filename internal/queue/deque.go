package queue

// deque is a first-in first-out ring that also finds what it holds by number: Push numbers its values upwards without
// a gap, and At finds the value of a number until it is popped. The zero value is empty.
type deque[T any] struct {
	buf  []T    // length is zero or a power of two
	head uint64 // number of the oldest value
	tail uint64 // number of the next value
}

const dequeKeep = 64 // slots an empty deque keeps by itself

func (d *deque[T]) Len() int { return int(d.tail - d.head) }

// Push adds v and returns its number.
func (d *deque[T]) Push(v T) uint64 {
	if d.Len() == len(d.buf) {
		d.grow()
	}
	n := d.tail
	d.buf[n&uint64(len(d.buf)-1)] = v
	d.tail++
	return n
}

func (d *deque[T]) grow() {
	buf := make([]T, max(8, 2*len(d.buf)))
	for n := d.head; n != d.tail; n++ {
		buf[n&uint64(len(buf)-1)] = d.buf[n&uint64(len(d.buf)-1)]
	}
	d.buf = buf
}

// Pop takes the oldest value out.
func (d *deque[T]) Pop() (v T, ok bool) {
	if d.head == d.tail {
		return v, false
	}
	slot := &d.buf[d.head&uint64(len(d.buf)-1)]
	v = *slot
	var zero T
	*slot = zero
	d.head++
	if d.head == d.tail && len(d.buf) > dequeKeep {
		d.buf = nil
	}
	return v, true
}

// At returns the place of value n, or nil if it is not in the deque. The pointer is good until the next Push or Pop.
func (d *deque[T]) At(n uint64) *T {
	if n-d.head >= d.tail-d.head {
		return nil
	}
	return &d.buf[n&uint64(len(d.buf)-1)]
}

// Shrink gives back the memory of an empty deque.
func (d *deque[T]) Shrink() {
	if d.head == d.tail {
		d.buf = nil
	}
}
