package dsn

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/godwit-mta/godwit/smtp"
)

// typed returns an address with its type: "rfc822; ann@example.org". One with UTF-8 gets the type utf-8, and in 7-bit
// parts the escapes of RFC 6533, 3 (utf-8-addr-xtext).
func typed(kind, address string, utf bool) string {
	if kind == "" {
		kind = "rfc822"
	}
	if !isASCII(address) && kind == "rfc822" {
		kind = "utf-8"
	}
	kind = clean(kind, 40, false)
	if kind != "utf-8" {
		return kind + "; " + clean(address, 500, false)
	}
	address = clean(address, 1000, true)
	if !utf {
		address = escapeUTF8(address)
	}
	return "utf-8; " + address
}

func escapeUTF8(s string) string {
	var out strings.Builder
	for _, c := range s {
		if c > '~' || c <= ' ' || c == '\\' || c == '+' || c == '=' {
			fmt.Fprintf(&out, `\x{%02X}`, c)
		} else {
			out.WriteRune(c)
		}
	}
	return out.String()
}

// unescapeUTF8 undoes escapeUTF8; what is no escape stays as it is.
func unescapeUTF8(s string) string {
	var out strings.Builder
	for {
		before, rest, ok := strings.Cut(s, `\x{`)
		out.WriteString(before)
		if !ok {
			return out.String()
		}
		hex, after, closed := strings.Cut(rest, "}")
		n, err := strconv.ParseUint(hex, 16, 32)
		if !closed || err != nil || n > utf8.MaxRune || !utf8.ValidRune(rune(n)) {
			out.WriteString(`\x{`)
			s = rest
			continue
		}
		out.WriteRune(rune(n))
		s = after
	}
}

// parseTyped splits "type; address".
func parseTyped(value string) smtp.OriginalRecipient {
	kind, address, ok := strings.Cut(value, ";")
	if !ok {
		return smtp.OriginalRecipient{Type: "rfc822", Address: clean(value, 1000, true)}
	}
	kind = strings.ToLower(clean(kind, 40, false))
	address = strings.TrimSpace(address)
	if kind == "utf-8" {
		address = unescapeUTF8(address)
	}
	return smtp.OriginalRecipient{Type: kind, Address: clean(address, 1000, true)}
}

// parsePath reads a mailbox as it stands in a report, which may have angle brackets though it should not. What is no
// mailbox becomes a path without domain, so that nothing is lost.
func parsePath(s string) smtp.Path {
	s = strings.TrimSpace(s)
	if strings.HasPrefix(s, "<") && strings.HasSuffix(s, ">") {
		s = s[1 : len(s)-1]
	}
	at := strings.LastIndexByte(s, '@')
	if at < 1 {
		return smtp.Path{Local: unquote(s)}
	}
	return smtp.Path{Local: unquote(s[:at]), Domain: s[at+1:]}
}

// unquote undoes a quoted local part.
func unquote(s string) string {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return s
	}
	var out strings.Builder
	inner := s[1 : len(s)-1]
	for i := 0; i < len(inner); i++ {
		if inner[i] == '\\' && i+1 < len(inner) {
			i++
		}
		out.WriteByte(inner[i])
	}
	return out.String()
}
