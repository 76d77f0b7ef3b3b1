package authres

import (
	"errors"
	"strings"

	"github.com/godwit-mta/godwit/message"
)

// ErrField says that a field's value begins with no authserv-id.
var ErrField = errors.New("authres: the field cannot be read")

// maxComments bounds how deep comments may lie in each other.
const maxComments = 20

// ID returns the authserv-id that a field's value begins with, without quotes and comments (RFC 8601, 2.2).
func ID(value []byte) (string, error) {
	p, err := skip(value)
	if err != nil || len(p) == 0 {
		return "", ErrField
	}
	var id string
	if p[0] == '"' {
		id, p, err = quoted(p)
	} else {
		n := 0
		for n < len(p) && (isToken(p[n]) || p[n] >= 0x80) {
			n++
		}
		id, p = string(p[:n]), p[n:]
	}
	if err != nil || id == "" {
		return "", ErrField
	}
	// What follows is white space, a comment, a version or the ";": anything else would be a part of some other name.
	if len(p) > 0 && strings.IndexByte(" \t\r\n(;", p[0]) < 0 {
		return "", ErrField
	}
	return id, nil
}

// skip passes over white space and comments.
func skip(p []byte) ([]byte, error) {
	depth := 0
	for i := 0; i < len(p); i++ {
		switch c := p[i]; {
		case c == '(':
			if depth++; depth > maxComments {
				return nil, ErrField
			}
		case depth > 0 && c == ')':
			depth--
		case depth > 0 && c == '\\':
			i++
		case depth > 0 || c == ' ' || c == '\t' || c == '\r' || c == '\n':
		default:
			return p[i:], nil
		}
	}
	if depth > 0 {
		return nil, ErrField
	}
	return nil, nil
}

// quoted reads a quoted string, folds inside it taken out.
func quoted(p []byte) (string, []byte, error) {
	var b strings.Builder
	for i := 1; i < len(p); i++ {
		switch c := p[i]; c {
		case '"':
			return b.String(), p[i+1:], nil
		case '\r', '\n':
		case '\\':
			if i++; i < len(p) {
				b.WriteByte(p[i])
			}
		default:
			b.WriteByte(c)
		}
	}
	return "", nil, ErrField
}

// Forged returns the fields of a header that came from outside and bear one of our names: those of which Claims says so.
func Forged(h message.Header, ids ...string) []message.Field {
	var out []message.Field
	for f := range h.All(FieldName) {
		if Claims(f.Value, ids...) {
			out = append(out, f)
		}
	}
	return out
}

// Claims reports whether the value of a field bears one of our names. A value that cannot be read does if our name stands
// anywhere in it, since somebody behind us may read it with more patience. Names are compared in any case, without a dot at
// their end, and without the octets that cannot stand in one.
func Claims(value []byte, ids ...string) bool {
	id, err := ID(value)
	id = strings.TrimSuffix(id, ".")
	var text string
	for _, ours := range ids {
		ours = strings.ToLower(strings.TrimSuffix(ours, "."))
		if ours == "" {
			continue
		}
		if text == "" {
			text = strings.ToLower(string(message.AppendUnfolded(nil, value)))
		}
		if err == nil && strings.EqualFold(id, ours) || err != nil && strings.Contains(text, ours) || begins(squeezed(text), ours) {
			return true
		}
	}
	return false
}

// begins reports whether a text begins with a name that ends there.
func begins(text, name string) bool {
	rest, ok := strings.CutPrefix(text, name)
	rest = strings.TrimPrefix(rest, ".")
	return ok && (rest == "" || !isAlnum(rest[0]) && rest[0] != '-' && rest[0] != '_')
}

// squeezed returns what stands before the first ";" that no comment and no quotes hold, without comments, quotes, white space and
// what is no text: the name as a careless reader may put it together.
func squeezed(s string) string {
	var b strings.Builder
	depth, inQuotes := 0, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\':
			if i++; i < len(s) && depth == 0 && isToken(s[i]) {
				b.WriteByte(s[i])
			}
		case depth > 0 && c == ')':
			depth--
		case c == '(' && !inQuotes:
			depth++
		case depth > 0:
		case c == '"':
			inQuotes = !inQuotes
		case c == ';' && !inQuotes:
			return b.String()
		case isToken(c) || c == '/' || c == '=':
			b.WriteByte(c)
		}
	}
	return b.String()
}
