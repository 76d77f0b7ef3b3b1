package main

import (
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

func sample() *row {
	r := &row{title: "Depth", input: depthInput}
	for i, cpu := range []time.Duration{100, 120, 1000, 30_000} {
		p := point{x: []float64{0, 10, 100, 1000}[i]}
		p.messages, p.elapsed, p.cpu, p.rss = 1000, time.Second, cpu*time.Millisecond, 50<<20
		r.points = append(r.points, p)
	}
	return r
}

func TestSteep(t *testing.T) {
	t.Parallel()
	r := sample()
	if got := r.steep(); !slices.Equal(got, []int{3}) {
		t.Errorf("steep at %v, want only the last: its cost grew 30 times, its input ten times", got)
	}
	r.points[2].rss = 900 << 20
	if got := r.steep(); !slices.Equal(got, []int{2, 3}) {
		t.Errorf("steep at %v, want 2 for its memory, too", got)
	}
}

func TestMarkdown(t *testing.T) {
	t.Parallel()
	text := sample().markdown()
	for _, want := range []string{"| 1,000 | 1,000 | 30000 | 300.00 **faster than its input** | 50 MiB | 0.0 s |", "| 0 |"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestGrouped(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{0: "0", 1.25: "1.2", 10: "10", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := grouped(v); got != want {
			t.Errorf("%v became %q, want %q", v, got, want)
		}
	}
}

// The figure is XML, has a line for each series, and nothing stands outside of it.
func TestDrawing(t *testing.T) {
	t.Parallel()
	figure := drawing([]*row{sample(), sample(), sample()})
	lines := 0
	for d := xml.NewDecoder(strings.NewReader(string(figure))); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "polyline" {
			lines++
		}
	}
	if lines != 3*len(drawn) {
		t.Errorf("%d lines, want %d", lines, 3*len(drawn))
	}
	for _, word := range []string{"NaN", "Inf", "=\"-"} {
		if strings.Contains(string(figure), word) {
			t.Errorf("the figure has %s", word)
		}
	}
}
