package message

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
)

// Bounds on a header block. What is larger is not mail that any other server would take.
const (
	MaxHeaderBytes  = 1 << 20
	MaxHeaderFields = 10_000
)

// ErrHeaderTooLarge says that a header block exceeds [MaxHeaderBytes] or [MaxHeaderFields].
var ErrHeaderTooLarge = errors.New("message: header too large")

// HeaderError says that a line of a header block is no field. The header can be read all the same, and the line is
// among its fields, with an empty name; but servers disagree on what such a block means, so it should not be signed.
type HeaderError struct {
	Offset int    // of the first such line, from the message's begin
	Reason string // what is wrong with it
}

func (e *HeaderError) Error() string {
	return fmt.Sprintf("message: header line at octet %d: %s", e.Offset, e.Reason)
}

// Header is a view over the header block of a message: it holds no copy, and is valid as long as the bytes are. The
// zero value is an empty header. Its methods may be used concurrently.
type Header struct {
	block  []byte // the fields, without the empty line
	len    int
	whole  bool
	fields int
}

// Field is one header field, folded lines included, as slices of the message.
type Field struct {
	Name   []byte // without the white space that may stand before the colon; empty for a line that is no field
	Value  []byte // after the colon, without the white space around it; folds inside are kept, see [AppendUnfolded]
	Raw    []byte // all of it, its line ends included
	Offset int    // of Raw, from the message's begin
}

// ParseHeader finds the header block at the begin of p, the bytes of a message. Lines may end with CRLF or LF. The
// block ends with the first empty line or with p, see [Header.Complete].
//
// The error is [ErrHeaderTooLarge], and then the header is empty, or a [*HeaderError], and then it can be used.
func ParseHeader(p []byte) (Header, error) {
	var h Header
	var bad *HeaderError
	for h.len < len(p) {
		line := p[h.len:]
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			line = line[:i+1]
		}
		if isEmptyLine(line) {
			h.block, h.whole = p[:h.len], true
			h.len += len(line)
			break
		}
		if line[0] != ' ' && line[0] != '\t' {
			h.fields++
			if bad == nil && nameEnd(line) == 0 {
				bad = &HeaderError{Offset: h.len, Reason: "it has no field name and colon"}
			}
		} else if h.len == 0 {
			h.fields++
			bad = &HeaderError{Reason: "the first line continues nothing"}
		}
		h.len += len(line)
		if h.len > MaxHeaderBytes || h.fields > MaxHeaderFields {
			return Header{}, ErrHeaderTooLarge
		}
	}
	if !h.whole {
		h.block = p[:h.len]
	}
	if bad != nil {
		return h, bad
	}
	return h, nil
}

// JoinHeader returns the bytes of the header block of a message that lies in pieces: a part of the first piece if the
// block lies in there, as is usual, and otherwise a copy. It gives up with [ErrHeaderTooLarge] after [MaxHeaderBytes].
func JoinHeader(pieces [][]byte) ([]byte, error) {
	if len(pieces) == 0 {
		return nil, nil
	}
	joined := pieces[0]
	for i := 1; ; i++ {
		if n := headerEnd(joined); n >= 0 {
			return joined[:n], nil
		}
		switch {
		case len(joined) > MaxHeaderBytes:
			return nil, ErrHeaderTooLarge
		case i == len(pieces):
			return joined, nil
		case i == 1:
			joined = bytes.Clone(joined)
		}
		joined = append(joined, pieces[i]...)
	}
}

// headerEnd returns the octets of a header block with its empty line, or -1 if there is no empty line in p.
func headerEnd(p []byte) int {
	for at := 0; at < len(p); {
		i := bytes.IndexByte(p[at:], '\n')
		if i < 0 {
			return -1
		}
		if isEmptyLine(p[at : at+i+1]) {
			return at + i + 1
		}
		at += i + 1
	}
	return -1
}

func isEmptyLine(line []byte) bool {
	return line[0] == '\n' || len(line) == 2 && line[0] == '\r' && line[1] == '\n'
}

// nameEnd returns the length of the field name that a line begins with, 0 if it begins with none (RFC 5322, 2.2 and
// 4.5).
func nameEnd(line []byte) int {
	n := 0
	for n < len(line) && line[n] > ' ' && line[n] < 0x7f && line[n] != ':' {
		n++
	}
	end := n
	for end < len(line) && (line[end] == ' ' || line[end] == '\t') {
		end++
	}
	if end == len(line) || line[end] != ':' {
		return 0
	}
	return n
}

// Len returns the octets of the block, the empty line after it included: where the body begins.
func (h Header) Len() int { return h.len }

// Complete reports whether an empty line ended the block. If not, p ended within the header, or the message has no
// body.
func (h Header) Complete() bool { return h.whole }

// Bytes returns the fields as they stand, without the empty line.
func (h Header) Bytes() []byte { return h.block }

// Fields gives all fields in their order. It allocates nothing.
func (h Header) Fields() iter.Seq[Field] {
	return func(yield func(Field) bool) {
		for at := 0; at < len(h.block); {
			f := fieldAt(h.block, at)
			if !yield(f) {
				return
			}
			at += len(f.Raw)
		}
	}
}

// fieldAt returns the field that begins at the given place, with all its lines.
func fieldAt(block []byte, at int) Field {
	end := at
	for {
		i := bytes.IndexByte(block[end:], '\n')
		if i < 0 {
			end = len(block)
			break
		}
		end += i + 1
		if end == len(block) || block[end] != ' ' && block[end] != '\t' {
			break
		}
	}
	f := Field{Raw: block[at:end:end], Offset: at}
	f.Value = f.Raw
	if n := nameEnd(f.Raw); n > 0 {
		f.Name = f.Raw[:n:n]
		f.Value = f.Raw[n:]
		f.Value = f.Value[bytes.IndexByte(f.Value, ':')+1:]
	}
	f.Value = trimSpace(f.Value)
	return f
}

func trimSpace(p []byte) []byte {
	for len(p) > 0 && isSpace(p[0]) {
		p = p[1:]
	}
	for len(p) > 0 && isSpace(p[len(p)-1]) {
		p = p[:len(p)-1]
	}
	return p
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// Is reports whether the field has the name, in any case.
func (f Field) Is(name string) bool {
	if len(f.Name) != len(name) {
		return false
	}
	for i, c := range f.Name {
		if lower(c) != lower(name[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// Get returns the value of the first field of the name, in any case.
func (h Header) Get(name string) (value []byte, ok bool) {
	for at := 0; at < len(h.block); {
		f := fieldAt(h.block, at)
		if f.Is(name) {
			return f.Value, true
		}
		at += len(f.Raw)
	}
	return nil, false
}

// All gives the fields of the name, in any case, in their order.
func (h Header) All(name string) iter.Seq[Field] {
	return func(yield func(Field) bool) {
		for f := range h.Fields() {
			if f.Is(name) && !yield(f) {
				return
			}
		}
	}
}

// Count returns how many fields have the name, in any case.
func (h Header) Count(name string) int {
	n := 0
	for at := 0; at < len(h.block); {
		f := fieldAt(h.block, at)
		if f.Is(name) {
			n++
		}
		at += len(f.Raw)
	}
	return n
}

// AppendUnfolded appends a field's value to dst with its line ends taken out (RFC 5322, 2.2.3).
func AppendUnfolded(dst, value []byte) []byte {
	for {
		i := bytes.IndexByte(value, '\n')
		if i < 0 {
			return append(dst, value...)
		}
		end := i
		if end > 0 && value[end-1] == '\r' {
			end--
		}
		dst = append(dst, value[:end]...)
		value = value[i+1:]
	}
}
