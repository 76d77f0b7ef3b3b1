package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// progress draws a bar on one line of a terminal; where there is no terminal it draws nothing.
type progress struct {
	w     *os.File
	label string
	total int
	begun time.Time

	mu   sync.Mutex
	last time.Time
	wide int
}

func (a *app) newProgress(label string, total int) *progress {
	p := &progress{label: label, total: total, begun: time.Now()}
	if f, ok := a.err.(*os.File); ok && !a.json && term.IsTerminal(int(f.Fd())) {
		p.w = f
	}
	return p
}

// part draws how much of a total that was not known before is done. It is for one goroutine.
func (p *progress) part(done, total int64) {
	if p.w == nil {
		return
	}
	p.mu.Lock()
	p.total = int(total)
	p.mu.Unlock()
	p.set(int(done), "")
}

// set draws the state, with a note or else the rate, if the last drawing is old enough. It may be called by many
// goroutines.
func (p *progress) set(done int, note string) {
	if p.w == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if now.Sub(p.last) < 100*time.Millisecond && done < p.total {
		return
	}
	p.last = now
	if note == "" {
		note = fmt.Sprintf("%.0f/s", float64(done)/max(now.Sub(p.begun).Seconds(), 0.001))
	}
	const cells = 24
	full := cells * min(done, p.total) / max(p.total, 1)
	line := fmt.Sprintf("%-10s [%s%s] %d/%d  %s", p.label, strings.Repeat("#", full), strings.Repeat(".", cells-full),
		done, p.total, note)
	// A line that is as wide as the terminal would leave its end behind on a line of its own.
	if columns, _, err := term.GetSize(int(p.w.Fd())); err == nil && columns > 1 {
		line = line[:min(len(line), columns-1)]
	}
	pad := max(p.wide-len(line), 0)
	p.wide = len(line)
	fmt.Fprintf(p.w, "\r%s%s", line, strings.Repeat(" ", pad))
}

// end leaves the line.
func (p *progress) end() {
	if p.w != nil && p.wide > 0 {
		fmt.Fprintln(p.w)
	}
}

// columns is how wide the terminal is that the answer goes to; 0 if it goes to none.
func (a *app) columns() int {
	f, ok := a.out.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0
	}
	columns, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return columns
}
