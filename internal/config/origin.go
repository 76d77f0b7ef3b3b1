package config

import (
	"cmp"
	"strconv"
)

// Origin says where an effective value comes from.
type Origin struct {
	File   string // empty unless the value stands in a file
	Line   int
	Column int
	Word   string // "default", "machine", or the key that the value is inherited from; empty for a value of a file
}

// String returns "file:line", or the word: "default", "machine", "limits.sessions".
func (o Origin) String() string {
	if o.File == "" {
		return cmp.Or(o.Word, "default")
	}
	return o.File + ":" + strconv.Itoa(o.Line)
}

// source remembers where the keys of a configuration stand.
type source struct {
	file    string
	origins map[string]Origin
	advice  Problems
}

// Origin returns where the value of a key comes from. Keys are written as in messages: "delivery.port",
// "listeners[0].address".
func (s *source) Origin(key string) Origin { return s.origins[key] }

// File returns the name of the file that was read; empty for [Default].
func (s *source) File() string { return s.file }

// Advice returns what works but is likely not meant, in the order of the file. It never hinders a start.
func (s *source) Advice() Problems { return s.advice }
