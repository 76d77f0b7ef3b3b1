package main

import (
	"bytes"
	"fmt"
	"math"
)

// The figure: one panel for each row, both axes logarithmic. A grey line shows what would grow exactly as its input.
const (
	panelWidth, panelHeight = 340, 250
	marginLeft, marginTop   = 62, 44
	plotWidth, plotHeight   = panelWidth - marginLeft - 16, panelHeight - marginTop - 44
	panelsInLine            = 2
)

// series is one line of a panel.
type series struct {
	name, colour string
	value        func(*point) float64
}

var drawn = []series{
	{"CPU µs a message", "#b3261e", func(p *point) float64 { return p.perMessage() }},
	{"messages/s", "#1f5fa8", (*point).rate},
	{"resident MiB", "#3b7d3b", func(p *point) float64 { return float64(p.rss) / (1 << 20) }},
}

// drawing is the figure as SVG.
func drawing(rows []*row) []byte {
	var b bytes.Buffer
	lines := (len(rows) + panelsInLine - 1) / panelsInLine
	width, height := panelsInLine*panelWidth, lines*panelHeight+30
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" `+
		`font-family="sans-serif" font-size="11">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", width, height)
	for i, s := range drawn {
		fmt.Fprintf(&b, `<rect x="%d" y="10" width="12" height="4" fill="%s"/><text x="%d" y="16">%s</text>`+"\n",
			20+i*150, s.colour, 38+i*150, s.name)
	}
	fmt.Fprintf(&b, `<line x1="%d" y1="12" x2="%d" y2="12" stroke="#999999" stroke-dasharray="4 3"/>`+
		`<text x="%d" y="16">as its input</text>`+"\n", 470, 490, 496)
	for i, r := range rows {
		panel(&b, r, i%panelsInLine*panelWidth, 30+i/panelsInLine*panelHeight)
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// axis maps values to places on a logarithmic scale of whole decades.
type axis struct {
	low, high int // exponents of ten
	length    float64
}

func newAxis(least, most, length float64) axis {
	a := axis{low: int(math.Floor(math.Log10(least))), high: int(math.Ceil(math.Log10(most))), length: length}
	a.high = max(a.high, a.low+1)
	return a
}

func (a axis) place(v float64) float64 {
	v = min(max(math.Log10(v), float64(a.low)), float64(a.high))
	return (v - float64(a.low)) / float64(a.high-a.low) * a.length
}

// positive is where a value of zero stands: at the begin of a logarithmic axis.
func positive(v, least float64) float64 { return max(v, least) }

func panel(b *bytes.Buffer, r *row, left, top int) {
	leastX, mostX := math.Inf(1), 0.0
	leastY, mostY := math.Inf(1), 0.0
	for i := range r.points {
		p := &r.points[i]
		if p.x > 0 {
			leastX = min(leastX, p.x)
		}
		mostX = max(mostX, p.x)
		for _, s := range drawn {
			leastY, mostY = min(leastY, s.value(p)), max(mostY, s.value(p))
		}
	}
	if math.IsInf(leastX, 1) || leastY <= 0 {
		return
	}
	if r.points[0].x == 0 {
		leastX /= 10
	}
	x, y := newAxis(leastX, mostX, plotWidth), newAxis(leastY, mostY, plotHeight)
	at := func(v, w float64) (float64, float64) {
		return float64(left+marginLeft) + x.place(positive(v, leastX)), float64(top+marginTop+plotHeight) - y.place(w)
	}
	fmt.Fprintf(b, `<text x="%d" y="%d" font-size="13" font-weight="bold">%s</text>`+"\n", left+marginLeft, top+marginTop-14,
		r.title)
	for e := y.low; e <= y.high; e++ {
		x0, y0 := at(leastX, math.Pow10(e))
		fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#dddddd"/>`+
			`<text x="%.1f" y="%.1f" text-anchor="end">%s</text>`+"\n", x0, y0, x0+plotWidth, y0, x0-6, y0+4, decade(e))
	}
	for e := x.low; e <= x.high; e++ {
		x0, y0 := at(math.Pow10(e), math.Pow10(y.low))
		fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#dddddd"/>`+
			`<text x="%.1f" y="%.1f" text-anchor="middle">%s</text>`+"\n", x0, y0, x0, y0-plotHeight, x0, y0+15, decade(e))
	}
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="middle">%s</text>`+"\n", left+marginLeft+plotWidth/2,
		top+marginTop+plotHeight+32, r.input)
	asInput(b, r, at, math.Pow10(y.high))
	for _, s := range drawn {
		line(b, r, s, at)
	}
}

// asInput draws what the cost would be if it grew as its input does from the first point on, up to limit.
func asInput(b *bytes.Buffer, r *row, at func(v, w float64) (float64, float64), limit float64) {
	first := &r.points[0]
	if first.x == 0 && len(r.points) > 1 {
		first = &r.points[1]
	}
	last := r.points[len(r.points)-1].x
	end := min(last, first.x*limit/first.perMessage())
	x0, y0 := at(first.x, first.perMessage())
	x1, y1 := at(end, first.perMessage()*end/first.x)
	fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#999999" stroke-dasharray="4 3"/>`+"\n",
		x0, y0, x1, y1)
}

func line(b *bytes.Buffer, r *row, s series, at func(v, w float64) (float64, float64)) {
	fmt.Fprintf(b, `<polyline fill="none" stroke="%s" stroke-width="2" points="`, s.colour)
	for i := range r.points {
		px, py := at(r.points[i].x, s.value(&r.points[i]))
		fmt.Fprintf(b, "%.1f,%.1f ", px, py)
	}
	b.WriteString("\"/>\n")
	for i := range r.points {
		px, py := at(r.points[i].x, s.value(&r.points[i]))
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="2.5" fill="%s"/>`+"\n", px, py, s.colour)
	}
}

// decade writes a power of ten as people do.
func decade(e int) string {
	switch {
	case e >= 9:
		return fmt.Sprintf("%.0f G", math.Pow10(e-9))
	case e >= 6:
		return fmt.Sprintf("%.0f M", math.Pow10(e-6))
	case e >= 3:
		return fmt.Sprintf("%.0f k", math.Pow10(e-3))
	case e >= 0:
		return fmt.Sprintf("%.0f", math.Pow10(e))
	}
	return fmt.Sprintf("%g", math.Pow10(e))
}
