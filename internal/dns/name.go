package dns

import (
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Bounds of names (RFC 1035, 2.3.4), counted in text without the final dot.
const (
	maxName  = 253
	maxLabel = 63
)

// normalize returns name in the form all of this package works with: lower case, A-labels, no final dot. It allocates
// only if it must change something.
func normalize(name string) (string, *Error) {
	bad := func(detail string) (string, *Error) {
		return "", &Error{Kind: Malformed, Name: cut(name, maxName), Detail: detail}
	}
	ascii := strings.TrimSuffix(name, ".")
	if !isASCII(ascii) {
		var err error
		if ascii, err = idna.Lookup.ToASCII(ascii); err != nil || !utf8.ValidString(name) {
			return bad("it has no ASCII form")
		}
	}
	ascii = lower(ascii)
	if why := notHostName(ascii); why != "" {
		return bad(why)
	}
	return ascii, nil
}

// notHostName says why name, lower case and without final dot, cannot be the name of a host or mail domain; empty if it
// can. Octets outside letters, digits, hyphen and underscore are refused: the DNS can carry them, even dots within a
// label, and they come only from mistakes and attacks.
func notHostName(name string) string {
	switch {
	case name == "":
		return "it is empty"
	case len(name) > maxName:
		return "it is too long"
	}
	label := 0
	for i := range len(name) {
		switch c := name[i]; {
		case c == '.':
			if label == 0 {
				return "it has an empty label"
			}
			label = 0
			continue
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return "it has a character that host names cannot have"
		}
		if label++; label > maxLabel {
			return "it has a label of more than 63 octets"
		}
	}
	if label == 0 {
		return "it has an empty label"
	}
	if last := name[len(name)-1]; '0' <= last && last <= '9' {
		if _, err := netip.ParseAddr(name); err == nil {
			return "it is an IP address"
		}
	}
	return ""
}

// isLocalhost reports the names that mean the own machine (RFC 6761, 6.3).
func isLocalhost(name string) bool {
	return name == "localhost" || strings.HasSuffix(name, ".localhost") || name == "localhost.localdomain"
}

// fromWire turns a name as the library gives it into our form. It may hold escapes, which notHostName refuses.
func fromWire(name string) string { return lower(strings.TrimSuffix(name, ".")) }

// sameName compares a name as the library gives it with one in our form.
func sameName(wireName, name string) bool {
	return len(wireName) == len(name)+1 && wireName[len(name)] == '.' && strings.EqualFold(wireName[:len(name)], name)
}

func lower(s string) string {
	for i := range len(s) {
		if c := s[i]; 'A' <= c && c <= 'Z' {
			return strings.ToLower(s)
		}
	}
	return s
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// cut bounds a text that came from outside.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "..."
}
