package smtp

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"
)

var errXtext = errors.New("not xtext")

const upperHex = "0123456789ABCDEF"

// AppendXtext appends s as xtext (RFC 3461, 4): octets outside '!' to '~', and '+' and '=', become "+XX".
func AppendXtext(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '+' || c == '=' {
			dst = append(dst, '+', upperHex[c>>4], upperHex[c&15])
			continue
		}
		dst = append(dst, s[i])
	}
	return dst
}

// ParseXtext decodes xtext (RFC 3461, 4). Only the two upper case hexadecimal digits of the grammar are accepted after
// '+'. Any octet may come out, CR, LF and NUL included: who uses the text as a line of its own must refuse those.
func ParseXtext(s string) (string, error) {
	plus := -1
	for i := range len(s) {
		switch c := s[i]; {
		case c <= ' ' || c >= 0x7f || c == '=':
			return "", errXtext
		case c == '+' && plus < 0:
			plus = i
		}
	}
	if plus < 0 {
		return s, nil
	}
	out := append(make([]byte, 0, len(s)), s[:plus]...)
	for i := plus; i < len(s); i++ {
		if s[i] != '+' {
			out = append(out, s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", errXtext
		}
		hi, lo := strings.IndexByte(upperHex, s[i+1]), strings.IndexByte(upperHex, s[i+2])
		if hi < 0 || lo < 0 {
			return "", errXtext
		}
		out = append(out, byte(hi<<4|lo))
		i += 2
	}
	return string(out), nil
}

// appendUTF8Xtext appends s as utf-8-addr-xtext (RFC 6533, 3): pure ASCII, valid with and without SMTPUTF8.
func appendUTF8Xtext(dst []byte, s string) []byte {
	for _, r := range s {
		if r <= ' ' || r >= 0x7f || r == '+' || r == '=' || r == '\\' {
			dst = append(dst, '\\', 'x', '{')
			if r < 0x10 {
				dst = append(dst, '0')
			}
			for _, c := range strconv.AppendInt(make([]byte, 0, 8), int64(r), 16) {
				if c >= 'a' {
					c -= 'a' - 'A'
				}
				dst = append(dst, c)
			}
			dst = append(dst, '}')
			continue
		}
		dst = append(dst, byte(r))
	}
	return dst
}

// parseUTF8Xtext decodes utf-8-addr-xtext or utf-8-addr-unitext (RFC 6533, 3).
func parseUTF8Xtext(s string) (string, error) {
	if !utf8.ValidString(s) {
		return "", errXtext
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c <= ' ' || c == 0x7f || c == '+' || c == '=':
			return "", errXtext
		case c != '\\':
			b.WriteByte(c)
			i++
			continue
		}
		if !strings.HasPrefix(s[i:], `\x{`) {
			return "", errXtext
		}
		digits, _, ok := strings.Cut(s[i+3:], "}")
		if !ok || len(digits) < 2 || len(digits) > 6 {
			return "", errXtext
		}
		r, ok := parseHexPoint(digits)
		if !ok {
			return "", errXtext
		}
		b.WriteRune(r)
		i += len(`\x{}`) + len(digits)
	}
	return b.String(), nil
}

func parseHexPoint(digits string) (rune, bool) {
	var r rune
	for i := range len(digits) {
		d := strings.IndexByte(upperHex, digits[i])
		if d < 0 {
			return 0, false
		}
		r = r<<4 | rune(d)
	}
	return r, utf8.ValidRune(r)
}
