package tagsig

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
)

// MaxTags bounds the tags of a list. All that are defined are fewer than half of it.
const MaxTags = 50

// ErrTags says that a list of tags cannot be read.
var ErrTags = errors.New("not a list of tags")

// Tag is one name=value of a list.
type Tag struct {
	Name  string
	Value []byte // without the white space around it; what is inside is kept
	// Begin and End are where all between "=" and ";" lies in the list, white space included.
	Begin, End int
}

// Tags is a list of tags (RFC 6376, 3.2).
type Tags []Tag

// ParseTags reads a list. Its values stay slices of p. A name that stands there twice makes the list invalid.
func ParseTags(p []byte) (Tags, error) {
	list := make(Tags, 0, 12)
	for at := 0; at < len(p); {
		end := len(p)
		if i := bytes.IndexByte(p[at:], ';'); i >= 0 {
			end = at + i
		}
		part := p[at:end]
		eq := bytes.IndexByte(part, '=')
		if len(bytes.Trim(part, blanks)) == 0 && end == len(p) && len(list) > 0 {
			break // after the last ";"
		}
		if eq < 0 {
			return nil, fmt.Errorf("%w: no \"=\" in part %d", ErrTags, len(list)+1)
		}
		t := Tag{Name: string(bytes.Trim(part[:eq], blanks)), Value: bytes.Trim(part[eq+1:], blanks), Begin: at + eq + 1, End: end}
		if !isTagName(t.Name) || slices.ContainsFunc(t.Value, isControl) {
			return nil, fmt.Errorf("%w: part %d has an invalid octet", ErrTags, len(list)+1)
		}
		if _, twice := list.Get(t.Name); twice {
			return nil, fmt.Errorf("%w: %s= stands there twice", ErrTags, t.Name)
		}
		if len(list) == MaxTags {
			return nil, fmt.Errorf("%w: more than %d", ErrTags, MaxTags)
		}
		list = append(list, t)
		at = end + 1
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%w: it is empty", ErrTags)
	}
	return list, nil
}

const blanks = " \t\r\n"

func isControl(c byte) bool {
	return c < ' ' && c != '\t' && c != '\r' && c != '\n' || c == 0x7f
}

func isTagName(s string) bool {
	for i := range len(s) {
		switch c := s[i] | 0x20; {
		case 'a' <= c && c <= 'z':
		case i > 0 && ('0' <= s[i] && s[i] <= '9' || s[i] == '_'):
		default:
			return false
		}
	}
	return s != ""
}

// Get returns the tag of a name; names are told apart by case.
func (l Tags) Get(name string) (Tag, bool) {
	for _, t := range l {
		if t.Name == name {
			return t, true
		}
	}
	return Tag{}, false
}

// Text returns a value as text, empty if there is no such tag.
func (l Tags) Text(name string) string {
	t, _ := l.Get(name)
	return string(t.Value)
}

// Number returns a value that is a number of at most 18 digits, and -1 if there is no such tag.
func (l Tags) Number(name string) (int64, error) {
	t, ok := l.Get(name)
	if !ok {
		return -1, nil
	}
	n, err := strconv.ParseUint(string(t.Value), 10, 60)
	if err != nil || len(t.Value) > 18 {
		return -1, fmt.Errorf("%s= is no number", name)
	}
	return int64(n), nil
}

// Packed returns a value with all white space taken out, as base64 is read.
func (l Tags) Packed(name string) ([]byte, bool) {
	t, ok := l.Get(name)
	if !ok {
		return nil, false
	}
	out := make([]byte, 0, len(t.Value))
	for _, c := range t.Value {
		if c > ' ' {
			out = append(out, c)
		}
	}
	return out, true
}

// Words gives the parts of a value between colons, without white space around them.
func (l Tags) Words(name string) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		t, ok := l.Get(name)
		if !ok {
			return
		}
		for w := range bytes.SplitSeq(t.Value, []byte{':'}) {
			if !yield(bytes.Trim(w, blanks)) {
				return
			}
		}
	}
}

// Has reports whether a value has the word between its colons.
func (l Tags) Has(name, word string) bool {
	for w := range l.Words(name) {
		if string(w) == word {
			return true
		}
	}
	return false
}
