package dsn

import (
	"strings"
	"unicode/utf8"

	"github.com/godwit-mta/godwit/smtp"
)

// clean returns text from outside in one line, fit for a field: control characters and broken UTF-8 become "?", line
// ends and tabs a space, and so does what is not ASCII unless utf is set become "?". It keeps at most limit octets.
func clean(s string, limit int, utf bool) string {
	var out strings.Builder
	for i, c := range s {
		if out.Len() >= limit {
			break
		}
		switch {
		case c == '\n', c == '\r', c == '\t', c == '\u2028', c == '\u2029':
			out.WriteByte(' ')
		case c < ' ', 0x7f <= c && c < 0xa0, isBidi(c):
			out.WriteByte('?')
		case c == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			out.WriteByte('?')
		case c >= 0x80 && (!utf || out.Len()+utf8.RuneLen(c) > limit):
			out.WriteByte('?')
		default:
			out.WriteRune(c)
		}
	}
	return strings.TrimSpace(out.String())
}

// isBidi reports characters that change the direction of text and so can make a line read as another one.
func isBidi(c rune) bool {
	return '\u200e' <= c && c <= '\u200f' || '\u202a' <= c && c <= '\u202e' || '\u2066' <= c && c <= '\u2069'
}

// replyLines returns a reply as "550 5.1.1 words", line by line, cleaned and bounded.
func replyLines(r smtp.Reply, utf bool) []string {
	if r.IsZero() {
		return nil
	}
	head := smtp.Reply{Code: r.Code, Enhanced: r.Enhanced}.String()
	var lines []string
	total := 0
	for line := range strings.SplitSeq(r.Text, "\n") {
		line = clean(line, min(maxReplyLine, maxReply-total), utf)
		if total += len(line); line != "" {
			lines = append(lines, line)
		}
		if total >= maxReply {
			break
		}
	}
	if len(lines) == 0 {
		return []string{head}
	}
	lines[0] = head + " " + lines[0]
	return lines
}

// fold appends "prefix: words" with line ends before spaces, so that lines have at most 72 octets where words allow.
func fold(dst []byte, prefix, indent, text string) []byte {
	dst = append(dst, prefix...)
	col := len(prefix)
	first := true
	for word := range strings.FieldsSeq(text) {
		switch {
		case first:
		case col+1+len(word) > 72:
			dst = append(append(dst, '\r', '\n'), indent...)
			col = len(indent)
		default:
			dst = append(dst, ' ')
			col++
		}
		for col+len(word) > 900 { // a word that no line can hold
			n := 900 - col
			for n > 0 && !utf8.RuneStart(word[n]) {
				n--
			}
			dst = append(append(append(dst, word[:n]...), '\r', '\n'), indent...)
			word, col = word[n:], len(indent)
		}
		dst = append(dst, word...)
		col += len(word)
		first = false
	}
	return append(dst, '\r', '\n')
}

func isASCII[T string | []byte](s T) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
