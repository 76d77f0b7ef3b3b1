package limits

import (
	"math"
	"math/bits"
	"time"
)

// Hash returns what a recipient is counted by. Its domain is in the form of queues; the local part's case is of no account,
// so that nobody counts twice by spelling.
func Hash(local, domain string) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211
	h := uint64(offset)
	for i := range len(local) {
		c := local[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		h = (h ^ uint64(c)) * prime
	}
	h = (h ^ '@') * prime
	for i := range len(domain) {
		h = (h ^ uint64(domain[i])) * prime
	}
	// FNV's low bits are good and its high ones are not; this spreads them (MurmurHash3's finalizer).
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

const (
	exactMost    = 1024 // hashes kept one by one
	sketchBits   = 12
	sketchSize   = 1 << sketchBits // registers: an error of 1.6 %
	sketchParts  = 6 + 1           // of a sixth of the span, with the one that runs
	sketchFactor = 0.7213 / (1 + 1.079/sketchSize)
)

// uniques counts different hashes over one span: one by one while they are few, then by a HyperLogLog sketch for each sixth of the
// span (Flajolet et al., 2007).
type uniques struct {
	last   int64            // part of the span, in sixths
	exact  map[uint64]int64 // hash to the part that it was last seen in
	sketch *sketch
}

// sketch has the registers of each part, and the joined ones with what an estimate is made of, so that it costs nothing to
// ask.
type sketch struct {
	parts  [sketchParts][sketchSize]uint8
	joined [sketchSize]uint8
	sum    float64 // of 2^-register over joined
	zero   int     // registers of joined that are zero
}

// sixth is how long the part of a span is, in nanoseconds.
func sixth(p Span) int64 { return int64(width[p]) * (parts[p] - 1) / (sketchParts - 1) }

func sixthOf(p Span, now time.Time) int64 {
	return now.UnixNano() / sixth(p)
}

func (u *uniques) move(part int64) {
	if part <= u.last {
		return
	}
	before := u.last
	u.last = part
	for h, seen := range u.exact {
		if seen <= part-sketchParts {
			delete(u.exact, h)
		}
	}
	if u.sketch == nil {
		return
	}
	for i := max(before+1, part-sketchParts+1); i <= part; i++ {
		u.sketch.parts[i%sketchParts] = [sketchSize]uint8{}
	}
	u.sketch.join()
	if part-before >= sketchParts || u.sketch.estimate() < exactMost/4 {
		u.sketch = nil // few again: from here on one by one
	}
}

// count returns how many there are, and how many of the hashes are not among them.
func (u *uniques) count(hashes []uint64) (have, fresh int64) {
	if u.sketch != nil {
		return u.sketch.estimate(), 0
	}
	for i, h := range hashes {
		if _, known := u.exact[h]; !known && !contains(hashes[:min(i, 64)], h) {
			fresh++
		}
	}
	return int64(len(u.exact)), fresh
}

func contains(list []uint64, h uint64) bool {
	for _, x := range list {
		if x == h {
			return true
		}
	}
	return false
}

func (u *uniques) add(hashes []uint64) {
	for _, h := range hashes {
		if u.sketch == nil && len(u.exact) >= exactMost {
			if _, known := u.exact[h]; !known {
				u.toSketch()
			}
		}
		if u.sketch != nil {
			u.sketch.mark(h, u.last)
			continue
		}
		if u.exact == nil {
			u.exact = make(map[uint64]int64)
		}
		u.exact[h] = u.last
	}
}

func (u *uniques) toSketch() {
	u.sketch = &sketch{sum: sketchSize, zero: sketchSize}
	for h, seen := range u.exact {
		u.sketch.mark(h, seen)
	}
	u.exact = nil
}

func (s *sketch) mark(h uint64, part int64) {
	i := h >> (64 - sketchBits)
	rank := uint8(bits.LeadingZeros64(h<<sketchBits|1<<(sketchBits-1)) + 1)
	s.parts[part%sketchParts][i] = max(s.parts[part%sketchParts][i], rank)
	s.raise(i, rank)
}

func (s *sketch) raise(i uint64, rank uint8) {
	old := s.joined[i]
	if rank <= old {
		return
	}
	if old == 0 {
		s.zero--
	}
	s.joined[i] = rank
	s.sum += math.Ldexp(1, -int(rank)) - math.Ldexp(1, -int(old))
}

// join makes the joined registers anew when parts have gone.
func (s *sketch) join() {
	s.joined, s.sum, s.zero = [sketchSize]uint8{}, sketchSize, sketchSize
	for p := range s.parts {
		for i, rank := range s.parts[p] {
			s.raise(uint64(i), rank)
		}
	}
}

func (s *sketch) estimate() int64 {
	n := sketchFactor * sketchSize * sketchSize / s.sum
	if n <= 2.5*sketchSize && s.zero > 0 {
		n = sketchSize * math.Log(float64(sketchSize)/float64(s.zero))
	}
	return int64(math.Round(n))
}

// room returns when at least one will be forgotten.
func (u *uniques) room(p Span) time.Time {
	oldest := u.last
	for _, seen := range u.exact {
		oldest = min(oldest, seen)
	}
	if u.sketch != nil {
		oldest = u.last - sketchParts + 1
	}
	return time.Unix(0, (oldest+sketchParts)*sixth(p))
}
