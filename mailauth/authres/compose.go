package authres

import (
	"errors"
	"fmt"
	"strings"
)

// FieldName is the name of the field.
const FieldName = "Authentication-Results"

// Bounds on a field, so that hostile messages do not make it grow.
const (
	MaxResults = 50
	MaxValue   = 320 // octets of a value, a reason or a comment; longer ones are cut
	maxLine    = 78
)

// Result is what one method found (RFC 8601, 2.2).
type Result struct {
	Method     string // "dkim", "spf", "dmarc", "arc", "iprev", "auth"
	Value      string // "pass", "fail", ...
	Reason     string // why, in words; may be empty
	Comment    string // for people; may be empty
	Properties []Property
}

// Property is what a result is about: "smtp.mailfrom=ann@example.com".
type Property struct {
	Type  string // "smtp", "header", "body" or "policy"
	Name  string
	Value string // of any text: it is quoted where it needs that
}

// ErrWord says that a method, a result or the name of a property is no word.
var ErrWord = errors.New("authres: not a word")

// Append appends a field with its line end. id is the name of who found it out, our authserv-id; without results, the field says
// "none". Values, reasons and comments may be of any text: what is not printable ASCII is replaced, and nothing in them can
// begin another result or field.
func Append(dst []byte, id string, results []Result) ([]byte, error) {
	begin := len(dst)
	w := writer{dst: append(dst, FieldName+":"...), column: len(FieldName) + 1}
	list, err := render(id, results)
	if err != nil {
		return dst[:begin], err
	}
	for _, part := range list {
		w.word(part)
	}
	return append(w.dst, "\r\n"...), nil
}

// Value returns what Append would write after the colon, in one line: what ARC-Authentication-Results says, too (RFC 8617, 4.1.1).
func Value(id string, results []Result) (string, error) {
	list, err := render(id, results)
	return strings.Join(list, " "), err
}

// render returns the words of a field: it may be folded between any two.
func render(id string, results []Result) ([]string, error) {
	if !isID(id) {
		return nil, fmt.Errorf("%w: authserv-id %q", ErrWord, id)
	}
	if len(results) > MaxResults {
		return nil, fmt.Errorf("authres: %d results, %d are the most", len(results), MaxResults)
	}
	out := []string{id + ";"}
	if len(results) == 0 {
		return append(out, "none"), nil
	}
	for i, r := range results {
		if !isWord(r.Method) || !isWord(r.Value) {
			return nil, fmt.Errorf("%w: %q=%q", ErrWord, r.Method, r.Value)
		}
		out = append(out, r.Method+"="+r.Value)
		if r.Comment != "" {
			out = append(out, "("+harmless(r.Comment, `()\`)+")")
		}
		if r.Reason != "" {
			out = append(out, "reason="+quote(harmless(r.Reason, "")))
		}
		for _, p := range r.Properties {
			if !isWord(p.Type) || !isWord(p.Name) {
				return nil, fmt.Errorf("%w: %q.%q", ErrWord, p.Type, p.Name)
			}
			out = append(out, p.Type+"."+p.Name+"="+propertyValue(harmless(p.Value, "")))
		}
		if i < len(results)-1 {
			out[len(out)-1] += ";"
		}
	}
	return out, nil
}

// isID reports whether a name can stand at the begin of a field without quoting.
func isID(s string) bool {
	for _, c := range []byte(s) {
		if !isToken(c) {
			return false
		}
	}
	return 0 < len(s) && len(s) <= 253
}

// isWord reports whether s is a Keyword: letters, digits and hyphens (RFC 8601, 2.2).
func isWord(s string) bool {
	for i, c := range []byte(s) {
		if !isAlnum(c) && (c != '-' && c != '_' || i == 0 || i == len(s)-1) {
			return false
		}
	}
	return 0 < len(s) && len(s) <= 63
}

func isAlnum(c byte) bool {
	return 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9'
}

// isToken reports whether an octet may stand in a token of MIME (RFC 2045, 5.1).
func isToken(c byte) bool { return c > ' ' && c < 0x7f && strings.IndexByte(`()<>@,;:\"/[]?=`, c) < 0 }

// harmless cuts a text and replaces what is not printable ASCII, and the octets that are not wanted.
func harmless(s, unwanted string) string {
	b := []byte(s[:min(len(s), MaxValue)])
	for i, c := range b {
		if c < ' ' || c >= 0x7f || strings.IndexByte(unwanted, c) >= 0 {
			b[i] = '?'
		}
	}
	return string(b)
}

// propertyValue returns a value as it is if it is a token, or a mailbox of tokens, otherwise quoted.
func propertyValue(s string) string {
	local, domain, mailbox := strings.Cut(s, "@")
	plain := isID(domain) && (local == "" || isID(local))
	if isID(s) || mailbox && plain {
		return s
	}
	return quote(s)
}

func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range []byte(s) {
		if c == '"' || c == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	b.WriteByte('"')
	return b.String()
}

// writer puts words into lines.
type writer struct {
	dst    []byte
	column int
}

func (w *writer) word(s string) {
	if w.column+1+len(s) > maxLine {
		w.dst = append(w.dst, "\r\n\t"...)
		w.column = 8
	} else {
		w.dst = append(w.dst, ' ')
		w.column++
	}
	w.dst = append(w.dst, s...)
	w.column += len(s)
}
