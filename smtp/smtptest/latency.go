package smtptest

import (
	"math/bits"
	"time"
)

// histogram counts durations in buckets whose width is at most 1/64 of their value, from a microsecond up:
// percentiles within 1.6 %, in memory that does not follow the number of messages.
type histogram struct {
	buckets [64 * 32]uint64
	n       uint64
	longest time.Duration
}

const subBuckets = 64

func (h *histogram) add(d time.Duration) {
	h.buckets[bucketOf(d)]++
	h.n++
	h.longest = max(h.longest, d)
}

func (h *histogram) merge(o *histogram) {
	for i, n := range o.buckets {
		h.buckets[i] += n
	}
	h.n += o.n
	h.longest = max(h.longest, o.longest)
}

// bucketOf numbers the buckets: below 64 us one each, then 64 for each doubling.
func bucketOf(d time.Duration) int {
	us := uint64(max(0, d) / time.Microsecond)
	if us < subBuckets {
		return int(us)
	}
	shift := bits.Len64(us) - bits.Len(subBuckets)
	return min((shift+1)*subBuckets+int(us>>shift)-subBuckets, len(histogram{}.buckets)-1)
}

// upperEdge returns the end of a bucket.
func upperEdge(i int) time.Duration {
	if i < subBuckets {
		return time.Duration(i+1) * time.Microsecond
	}
	shift := i/subBuckets - 1
	return time.Duration(uint64(i%subBuckets+subBuckets+1)<<shift) * time.Microsecond
}

// latencies returns the percentiles.
func (h *histogram) latencies() Latencies {
	return Latencies{
		P50: milliseconds(h.quantile(0.50)), P95: milliseconds(h.quantile(0.95)),
		P99: milliseconds(h.quantile(0.99)), Max: milliseconds(h.longest),
	}
}

// quantile returns a duration that q of all do not exceed, 0 if there are none.
func (h *histogram) quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := max(1, uint64(q*float64(h.n)+0.5))
	var seen uint64
	for i, n := range h.buckets {
		if seen += n; seen >= rank && i < len(h.buckets)-1 {
			return min(upperEdge(i), h.longest)
		}
	}
	return h.longest
}
