package config

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

// Show writes the effective configuration as YAML that [Parse] reads back to the same values, each line with the origin
// of its value as a comment.
func (c *Config) Show(w io.Writer) error {
	type line struct{ text, origin string }
	var (
		lines []line
		open  []string // groups that are open, outermost first
		width int
	)
	add := func(text, origin string) {
		lines = append(lines, line{text, origin})
		if origin != "" {
			width = max(width, len(text))
		}
	}
	for _, v := range c.Values() {
		path := strings.Split(strings.ReplaceAll(v.Key, "[", ".["), ".")
		groups, name := path[:len(path)-1], path[len(path)-1]
		same := 0
		for same < len(groups) && same < len(open) && groups[same] == open[same] {
			same++
		}
		item := ""
		for depth := same; depth < len(groups); depth++ {
			if g := groups[depth]; g[0] == '[' {
				item = "- " // the first key of a list element stands behind its dash
				continue
			}
			add(strings.Repeat("  ", depth)+item+groups[depth]+":", "")
			item = ""
		}
		open = groups
		indent := strings.Repeat("  ", len(groups))
		if item != "" {
			indent = indent[:len(indent)-2] + item
		}
		add(indent+name+": "+v.Value, v.Origin)
	}
	width = min(width, 60)
	var b bytes.Buffer
	for _, l := range lines {
		if l.origin == "" {
			fmt.Fprintln(&b, l.text)
			continue
		}
		fmt.Fprintf(&b, "%-*s  # %s\n", width, l.text, l.origin)
	}
	_, err := w.Write(b.Bytes())
	return err
}
