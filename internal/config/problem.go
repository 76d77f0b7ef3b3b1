package config

import (
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing wrong with a configuration file.
type Problem struct {
	File   string `json:"file"`
	Line   int    `json:"line"`          // from 1; 0 if the problem is with the file as a whole
	Column int    `json:"column"`        // from 1, in characters
	Key    string `json:"key,omitempty"` // "listeners[0].address"; empty for the file as a whole
	What   string `json:"what"`          // what is wrong
	Advice string `json:"advice"`        // what to write instead
}

// Error returns the problem on one line: "godwit.yaml:3:5: listeners[0].adress: unknown key; did you mean address?".
func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	b.WriteString(": ")
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	b.WriteString(p.What)
	if p.Advice != "" {
		b.WriteString("; " + p.Advice)
	}
	return b.String()
}

// Problems is every thing found wrong with one file, in the order of the file. It is the error that [Load] and [Parse]
// return when the file could be read but must not be used.
type Problems []Problem

// Error returns one line for each problem.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives the problems to errors.As one by one.
func (p Problems) Unwrap() []error {
	errs := make([]error, len(p))
	for i := range p {
		errs[i] = p[i]
	}
	return errs
}

func (p Problems) sort() {
	slices.SortStableFunc(p, func(a, b Problem) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		if a.Column != b.Column {
			return a.Column - b.Column
		}
		return strings.Compare(a.Key, b.Key)
	})
}
