package spf

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// macro is one "%{...}" taken apart (RFC 7208, 7.1).
type macro struct {
	letter     byte // lower case
	escape     bool // it stood there in upper case
	keep       int  // labels from the right; 0: all
	reverse    bool
	delimiters string
}

var errMacro = errors.New("a macro that cannot be read")

// parseMacro reads what is between the braces.
func parseMacro(s string, explaining bool) (macro, error) {
	m := macro{delimiters: "."}
	if s == "" {
		return m, errMacro
	}
	m.letter = s[0] | 0x20
	m.escape = s[0] != m.letter
	letters := "slodiphv"
	if explaining {
		letters += "crt"
	}
	if !isAlpha(s[0]) || strings.IndexByte(letters, m.letter) < 0 {
		return m, errMacro
	}
	s = s[1:]
	n := 0
	for n < len(s) && '0' <= s[n] && s[n] <= '9' {
		n++
	}
	if n > 0 {
		k, err := strconv.Atoi(s[:n])
		if err != nil || k == 0 {
			return m, errMacro
		}
		m.keep = min(k, 128)
	}
	s = s[n:]
	if s != "" && s[0]|0x20 == 'r' {
		m.reverse, s = true, s[1:]
	}
	if strings.Trim(s, ".-+,/_=") != "" {
		return m, errMacro
	}
	if s != "" {
		m.delimiters = s
	}
	return m, nil
}

// walkMacros gives the text and the macros of a macro-string in turn.
func walkMacros(s string, explaining bool, text func(string), expand func(macro) error) error {
	for s != "" {
		i := strings.IndexByte(s, '%')
		if i < 0 {
			i = len(s)
		}
		for _, c := range []byte(s[:i]) {
			if c < ' ' || c == ' ' && !explaining || c >= 0x7f {
				return errors.New("an octet that is not printable ASCII")
			}
		}
		text(s[:i])
		if s = s[i:]; s == "" {
			return nil
		}
		if len(s) < 2 {
			return errMacro
		}
		switch s[1] {
		case '%':
			text("%")
		case '_':
			text(" ")
		case '-':
			text("%20")
		case '{':
			end := strings.IndexByte(s, '}')
			if end < 0 {
				return errMacro
			}
			m, err := parseMacro(s[2:end], explaining)
			if err != nil {
				return err
			}
			if err := expand(m); err != nil {
				return err
			}
			s = s[end+1:]
			continue
		default:
			return errMacro
		}
		s = s[2:]
	}
	return nil
}

func checkMacros(s string, explaining bool) error {
	return walkMacros(s, explaining, func(string) {}, func(macro) error { return nil })
}

// maxExpanded bounds the text that macros become, before it is cut to what it is for.
const maxExpanded = 16 << 10

// expand replaces the macros of a text that was checked.
func (e *evaluation) expand(ctx context.Context, s, domain string, explaining bool) (string, error) {
	var b strings.Builder
	err := walkMacros(s, explaining, func(t string) { b.WriteString(t) }, func(m macro) error {
		b.WriteString(m.apply(e.value(ctx, m.letter, domain)))
		if b.Len() > maxExpanded {
			return errors.New("macros that become too long")
		}
		return nil
	})
	return b.String(), err
}

// target expands a domain-spec to a name to ask for: names that are too long lose labels at the left (RFC 7208, 7.3).
func (e *evaluation) target(ctx context.Context, spec, domain string) (string, error) {
	if spec == "" {
		return domain, nil
	}
	name, err := e.expand(ctx, spec, domain, false)
	if err != nil {
		return "", fmt.Errorf("%w: %w in %q", errRecord, err, printable(spec, maxTerm))
	}
	name = strings.TrimSuffix(name, ".")
	for len(name) > 253 {
		_, rest, ok := strings.Cut(name, ".")
		if !ok {
			break
		}
		name = rest
	}
	return name, nil
}

// value is what a letter stands for (RFC 7208, 7.2).
func (e *evaluation) value(ctx context.Context, letter byte, domain string) string {
	switch letter {
	case 's':
		return e.local + "@" + e.senderDomain
	case 'l':
		return e.local
	case 'o':
		return e.senderDomain
	case 'd':
		return domain
	case 'i':
		return dotted(e.client)
	case 'p':
		return e.validatedName(ctx, domain)
	case 'v':
		if e.client.Is4() {
			return "in-addr"
		}
		return "ip6"
	case 'h':
		return e.helo
	case 'c':
		return e.client.String()
	case 'r':
		return e.o.Receiver
	default: // 't'
		return strconv.FormatInt(time.Now().Unix(), 10)
	}
}

// dotted writes an address for macros: IPv6 as single digits.
func dotted(a netip.Addr) string {
	if a.Is4() {
		return a.String()
	}
	const digits = "0123456789ABCDEF"
	var b []byte
	for i, octet := range a.As16() {
		if i > 0 {
			b = append(b, '.')
		}
		b = append(b, digits[octet>>4], '.', digits[octet&15])
	}
	return string(b)
}

func (m macro) apply(s string) string {
	parts := strings.FieldsFunc(s, func(c rune) bool { return c < 0x80 && strings.IndexByte(m.delimiters, byte(c)) >= 0 })
	if m.delimiters == "." && !m.reverse && m.keep == 0 {
		parts = []string{s}
	}
	if m.reverse {
		slices.Reverse(parts)
	}
	if m.keep > 0 && m.keep < len(parts) {
		parts = parts[len(parts)-m.keep:]
	}
	s = strings.Join(parts, ".")
	if !m.escape {
		return s
	}
	var b strings.Builder
	for _, c := range []byte(s) {
		if isAlnum(c) || strings.IndexByte("-._~", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
