package main

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// count writes a number with its noun.
func count[N int | int64 | uint64](n N, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// roughAge is age for what the server knows to a minute only.
func roughAge(t *time.Time, now time.Time) string {
	if t != nil && !t.IsZero() && now.Sub(*t) < time.Minute {
		return "<1m"
	}
	return age(t, now)
}

func age(t *time.Time, now time.Time) string {
	if t == nil || t.IsZero() {
		return "-"
	}
	return short(now.Sub(*t))
}

func until(t *time.Time, now time.Time) string {
	if t == nil || t.IsZero() {
		return "-"
	}
	if d := t.Sub(now); d >= time.Second {
		return "in " + short(d)
	}
	return "now"
}

// short writes a duration with the two units that matter: 3d4h, 2h5m, 1m10s, 4s.
func short(d time.Duration) string {
	d = max(d, 0).Truncate(time.Second)
	day := 24 * time.Hour
	switch {
	case d >= day:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

func size(n int64) string {
	switch {
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 10<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return count(n, "byte", "bytes")
}

func times(n int) string {
	switch n {
	case 1:
		return "once"
	case 2:
		return "twice"
	}
	return fmt.Sprintf("%d times", n)
}

func orWord(s, word string) string {
	if strings.TrimSpace(s) == "" {
		return word
	}
	return s
}

// sender names an envelope sender.
func sender(s string) string {
	if s == "" || s == "<>" {
		return "<> (a report)"
	}
	return s
}

// wrap cuts text between words into lines of about so many columns; a longer word has a line of its own.
func wrap(text string, columns int) []string {
	var lines []string
	for _, w := range strings.Fields(text) {
		last := len(lines) - 1
		if last < 0 || utf8.RuneCountInString(lines[last])+1+utf8.RuneCountInString(w) > columns {
			lines = append(lines, w)
			continue
		}
		lines[last] += " " + w
	}
	return lines
}

// cell is one field of a table; right says that it is a number.
type cell struct {
	text  string
	right bool
}

func word(s string) cell { return cell{text: s} }

func number[N int | int64 | uint64](n N) cell { return cell{text: fmt.Sprint(n), right: true} }

// Columns are as wide as their widest cell, but not wider than this: longer cells stick out. And a last column that is
// wrapped has room for some words, however narrow the terminal is.
const (
	widestColumn = 36
	narrowest    = 30
)

// table lines cells up, two blanks between columns. The last column is as long as it is, or wrapped so that lines have
// no more than so many columns; 0 is for no limit.
func table(rows [][]cell, columns int) string {
	var wide []int
	for _, row := range rows {
		for i, c := range row {
			if i == len(wide) {
				wide = append(wide, 0)
			}
			wide[i] = max(wide[i], min(utf8.RuneCountInString(c.text), widestColumn))
		}
	}
	before := 0
	for _, n := range wide[:len(wide)-1] {
		before += n + 2
	}
	var b strings.Builder
	for _, row := range rows {
		var line strings.Builder
		for i, c := range row {
			text, more := c.text, []string(nil)
			if i == len(wide)-1 && columns > 0 && c.text != "" {
				more = wrap(c.text, max(columns-before, narrowest))
				text, more = more[0], more[1:]
			}
			pad := ""
			if c.right || i < len(row)-1 {
				pad = strings.Repeat(" ", max(wide[i]-utf8.RuneCountInString(text), 0))
			}
			if i > 0 {
				line.WriteString("  ")
			}
			if c.right {
				text = pad + text
			} else {
				text += pad
			}
			line.WriteString(text)
			for _, m := range more {
				line.WriteString("\n" + strings.Repeat(" ", before) + m)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return b.String()
}
