package limits

import "time"

// parts is how many parts a span is counted in, the one that runs included, and width how long each is: a whole span lies
// before the one that runs, so that the window is never shorter than the span.
var (
	parts = [spans]int64{6 + 1, 12 + 1, 24 + 1}
	width = [spans]time.Duration{10 * time.Second, 5 * time.Minute, time.Hour}
)

// partOf returns the number of the part that a time lies in, from the epoch on.
func partOf(p Span, now time.Time) int64 { return now.UnixNano() / int64(width[p]) }

// window counts one subject over one span. The zero value has counted nothing.
type window struct {
	last  int64   // part that count[last%n] is of
	count []int64 // of the parts last-n+1 .. last
}

// move lets the window end with a part. A clock that went back changes nothing: what is counted stays counted.
func (w *window) move(p Span, part int64) {
	n := parts[p]
	if w.count == nil {
		w.count = make([]int64, n)
		w.last = part
		return
	}
	if part <= w.last {
		return
	}
	for i := max(w.last+1, part-n+1); i <= part; i++ {
		w.count[i%n] = 0
	}
	w.last = part
}

func (w *window) sum() int64 {
	var sum int64
	for _, n := range w.count {
		sum += n
	}
	return sum
}

func (w *window) add(p Span, n int64) { w.count[w.last%parts[p]] += n }

// undo takes back what was added in a part, if the window has not moved past it.
func (w *window) undo(p Span, part, n int64) {
	if part > w.last-parts[p] && part <= w.last {
		w.count[part%parts[p]] = max(w.count[part%parts[p]]-n, 0)
	}
}

// room returns when n more will fit below a limit, as the time at which enough parts have been left behind.
func (w *window) room(p Span, n, most int64) time.Time {
	excess := w.sum() + n - most
	for i := w.last - parts[p] + 1; i <= w.last; i++ {
		if i >= 0 {
			excess -= w.count[i%parts[p]]
		}
		if excess <= 0 {
			return time.Unix(0, (i+parts[p])*int64(width[p]))
		}
	}
	return time.Unix(0, (w.last+parts[p])*int64(width[p])) // more at once than the limit allows at all
}
