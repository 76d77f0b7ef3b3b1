package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// point is what one value of a row's input cost.
type point struct {
	x float64
	measured
	startup time.Duration
}

// unit says what a row's cost is given for.
type unit uint8

const (
	flat   unit = iota // the message: the input is around it
	linear             // the message too, but it is expected to grow with the input
)

// row is one input and what it costs.
type row struct {
	title, input string
	per          unit
	points       []point
}

// slack is how much faster than its input a cost may seem to grow before it counts: measuring is not exact.
const slack = 1.25

// steep returns the points at which the cost of a message or the memory has grown faster than the input since the point
// before.
func (r *row) steep() (found []int) {
	for i := 1; i < len(r.points); i++ {
		a, b := &r.points[i-1], &r.points[i]
		if a.x == 0 {
			continue
		}
		input := b.x / a.x * slack
		if b.perMessage()/a.perMessage() > input || float64(b.rss)/float64(a.rss) > input {
			found = append(found, i)
		}
	}
	return found
}

// markdown is the row as a table.
func (r *row) markdown() string {
	var b strings.Builder
	deep := r.input == depthInput
	fmt.Fprintf(&b, "### %s\n\n| %s | messages/s | CPU µs a message | times the first | resident at most |",
		r.title, r.input)
	if deep {
		b.WriteString(" ready after |")
	}
	b.WriteString("\n|--:|--:|--:|--:|--:|")
	if deep {
		b.WriteString("--:|")
	}
	b.WriteByte('\n')
	steep := map[int]bool{}
	for _, i := range r.steep() {
		steep[i] = true
	}
	for i := range r.points {
		p := &r.points[i]
		mark := ""
		if steep[i] {
			mark = " **faster than its input**"
		}
		fmt.Fprintf(&b, "| %s | %s | %.0f | %.2f%s | %d MiB |", grouped(p.x), grouped(p.rate()), p.perMessage(),
			p.perMessage()/r.points[0].perMessage(), mark, p.rss>>20)
		if deep {
			fmt.Fprintf(&b, " %.1f s |", p.startup.Seconds())
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// grouped writes a number with commas between thousands, and with digits behind the point only if it is small.
func grouped(v float64) string {
	if v < 10 && v != float64(int(v)) {
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	s := strconv.FormatFloat(v, 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
