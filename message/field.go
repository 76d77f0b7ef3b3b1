package message

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	foldAt      = 78  // where lines are folded if they can be (RFC 5322, 2.1.1)
	lineMax     = 998 // what no line may exceed (RFC 5322, 2.1.1)
	wordMax     = 75  // one encoded word (RFC 2047, 2)
	wordLineMax = 76  // a line that holds one (RFC 2047, 2)
)

// Errors of [AppendField]. They are wrapped with the field's name.
var (
	ErrFieldName    = errors.New("not a field name")
	ErrFieldControl = errors.New("the value has a control character")
	ErrFieldUTF8    = errors.New("the value is not UTF-8")
	ErrFieldLong    = errors.New("the value has a word too long for a line")
)

// AppendField appends "name: value CRLF" to dst. A value that is not all ASCII is taken as text and becomes encoded
// words (RFC 2047, 2); ASCII stays as it is, so a structured value must be made by [FormatAddresses] or the like. Lines
// are folded at spaces to 78 octets where that is possible.
//
// Nothing that could begin another line gets through: control characters, line and paragraph separators and broken
// UTF-8 are errors, and dst comes back as it was.
func AppendField(dst []byte, name, value string) ([]byte, error) {
	fail := func(err error) ([]byte, error) { return dst, fmt.Errorf("message: field %q: %w", bound(name, 64), err) }
	if !isFieldName(name) {
		return fail(ErrFieldName)
	}
	if err := checkText(value); err != nil {
		return fail(err)
	}
	value = strings.Trim(value, " \t")
	out := append(append(dst, name...), ':')
	col := len(name) + 1
	if !isASCII(value) {
		value = encodeText(value, col+1)
	}
	if out = appendFolded(out, value, col); out == nil {
		return fail(ErrFieldLong)
	}
	return append(out, '\r', '\n'), nil
}

func isFieldName(name string) bool {
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c >= 0x7f || c == ':' {
			return false
		}
	}
	return name != "" && len(name) <= 76
}

// checkText refuses what may not stand in a header field or in text that gets into one.
func checkText(s string) error {
	if !utf8.ValidString(s) {
		return ErrFieldUTF8
	}
	for _, c := range s {
		switch {
		case c == '\t':
		case c < ' ', 0x7f <= c && c < 0xa0, c == '\u2028', c == '\u2029':
			return ErrFieldControl
		}
	}
	return nil
}

// appendFolded appends " value" with line ends before spaces, col being the octets already in the line. It returns nil
// if a word does not fit a line.
func appendFolded(dst []byte, value string, col int) []byte {
	for value != "" {
		// A word with the spaces before it stays together, so no line is ever blank.
		start := 0
		for start < len(value) && (value[start] == ' ' || value[start] == '\t') {
			start++
		}
		end := start
		for end < len(value) && value[end] != ' ' && value[end] != '\t' {
			end++
		}
		word := value[:end]
		value = value[end:]
		if start == 0 {
			word = " " + word // only the first has none
		}
		switch {
		case len(word) > lineMax:
			return nil
		case col+len(word) > foldAt && col > 1 && !(start == 0 && col+len(word) <= foldAt+10):
			// The word right after the colon may stick out a little: some readers dislike a first line without value.
			dst = append(dst, '\r', '\n')
			col = 0
		}
		dst = append(dst, word...)
		col += len(word)
	}
	return dst
}

// encodeText turns text into encoded words with single spaces between them, the first of which begins in column col.
func encodeText(s string, col int) string {
	// Of the two encodings the shorter one, in doubt the one that people can read.
	b64 := sizeQ(s) > base64.StdEncoding.EncodedLen(len(s))+8
	var out strings.Builder
	for s != "" {
		room := min(wordMax, max(wordLineMax-col, 30)) - len("=?utf-8?q??=")
		n := fitting(s, room, b64)
		if out.Len() > 0 {
			out.WriteByte(' ')
		}
		writeWord(&out, s[:n], b64)
		s, col = s[n:], 1
	}
	return out.String()
}

// fitting returns how many octets of s, whole characters, one encoded word has room for. The room is enough for any
// character.
func fitting(s string, room int, b64 bool) int {
	n, size := 0, 0
	for n < len(s) {
		_, width := utf8.DecodeRuneInString(s[n:])
		if b64 {
			size = base64.StdEncoding.EncodedLen(n + width)
		} else {
			size += sizeQ(s[n : n+width])
		}
		if size > room {
			break
		}
		n += width
	}
	return n
}

// sizeQ returns what s takes in the Q encoding.
func sizeQ(s string) int {
	size := 0
	for i := range len(s) {
		if isPlainQ(s[i]) {
			size++
		} else {
			size += 3
		}
	}
	return size
}

// isPlainQ reports the octets that stand for themselves even within a phrase (RFC 2047, 5, rule 3), and the space,
// which becomes "_".
func isPlainQ(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return strings.IndexByte("!*+-/ ", c) >= 0
}

func writeWord(out *strings.Builder, s string, b64 bool) {
	if b64 {
		out.WriteString("=?utf-8?b?")
		out.WriteString(base64.StdEncoding.EncodeToString([]byte(s)))
		out.WriteString("?=")
		return
	}
	const hex = "0123456789ABCDEF"
	out.WriteString("=?utf-8?q?")
	for i := range len(s) {
		switch c := s[i]; {
		case c == ' ':
			out.WriteByte('_')
		case isPlainQ(c):
			out.WriteByte(c)
		default:
			out.WriteByte('=')
			out.WriteByte(hex[c>>4])
			out.WriteByte(hex[c&15])
		}
	}
	out.WriteString("?=")
}

const dateLayout = "Mon, 02 Jan 2006 15:04:05 -0700"

// FormatDate returns t as a Date field has it (RFC 5322, 3.3), in t's own zone.
func FormatDate(t time.Time) string { return t.Format(dateLayout) }

// AppendDate appends t as [FormatDate] writes it.
func AppendDate(dst []byte, t time.Time) []byte { return t.AppendFormat(dst, dateLayout) }

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// bound cuts text from outside for use in an error.
func bound(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "..."
}
