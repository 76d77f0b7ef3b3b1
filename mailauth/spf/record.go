package spf

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// MaxRecord is the octets of a record that are read; longer ones are errors. The DNS cannot carry much more.
const MaxRecord = 8 << 10

// maxTerms bounds the terms of a record.
const maxTerms = 500

// errRecord says that a record is not as RFC 7208, 12, wants it.
var errRecord = errors.New("spf: the record cannot be read")

// term is one mechanism with its qualifier.
type term struct {
	text    string // as it stands
	result  Status // if it matches
	kind    string // "a", "mx"...
	domain  string // domain-spec, macros not expanded; empty: the current domain
	network netip.Prefix
	bits    [2]int // prefix lengths for IPv4 and IPv6
}

// record is a policy taken apart.
type record struct {
	terms         []term
	redirect, exp string
	// hasRedirect: it may not be given and empty.
	hasRedirect bool
}

// isRecord reports whether a TXT record is a policy at all (RFC 7208, 4.5).
func isRecord(txt string) bool {
	const v = "v=spf1"
	return len(txt) >= len(v) && strings.EqualFold(txt[:len(v)], v) && (len(txt) == len(v) || txt[len(v)] == ' ')
}

// parseRecord reads a record that isRecord.
func parseRecord(txt string) (*record, error) {
	if len(txt) > MaxRecord {
		return nil, fmt.Errorf("%w: it has more than %d octets", errRecord, MaxRecord)
	}
	r := new(record)
	seen := make(map[string]bool)
	for t := range strings.SplitSeq(txt[len("v=spf1"):], " ") {
		if t == "" {
			continue
		}
		if len(r.terms) == maxTerms {
			return nil, fmt.Errorf("%w: more than %d terms", errRecord, maxTerms)
		}
		if name, value, ok := cutModifier(t); ok {
			if err := r.modifier(strings.ToLower(name), value, seen); err != nil {
				return nil, fmt.Errorf("%w: %w in %q", errRecord, err, printable(t, maxTerm))
			}
			continue
		}
		m, err := parseTerm(t)
		if err != nil {
			return nil, fmt.Errorf("%w: %w in %q", errRecord, err, printable(t, maxTerm))
		}
		r.terms = append(r.terms, m)
	}
	return r, nil
}

// cutModifier cuts name=value; a ":" or "/" before the "=" makes it a mechanism (RFC 7208, 4.6.1).
func cutModifier(t string) (name, value string, ok bool) {
	i := strings.IndexByte(t, '=')
	if i <= 0 || !isAlpha(t[0]) {
		return "", "", false
	}
	for _, c := range []byte(t[:i]) {
		if !isAlnum(c) && c != '-' && c != '_' && c != '.' {
			return "", "", false
		}
	}
	return t[:i], t[i+1:], true
}

func (r *record) modifier(name, value string, seen map[string]bool) error {
	switch name {
	case "redirect", "exp":
		if seen[name] {
			return errors.New("a modifier that stands there twice")
		}
		seen[name] = true
		if err := checkDomainSpec(value); err != nil {
			return err
		}
		if name == "exp" {
			r.exp = value
		} else {
			r.redirect, r.hasRedirect = value, true
		}
		return nil
	default:
		return checkMacros(value, false)
	}
}

// withBits takes prefix lengths off the end: "/24", "//64" or both.
var withBits = regexp.MustCompile(`^(.*?)(?:/(0|[1-9][0-9]?))?(?://(0|[1-9][0-9]{0,2}))?$`)

func parseTerm(t string) (term, error) {
	m := term{text: t, result: Pass, bits: [2]int{32, 128}}
	switch t[0] {
	case '+':
		t = t[1:]
	case '-':
		m.result, t = Fail, t[1:]
	case '~':
		m.result, t = SoftFail, t[1:]
	case '?':
		m.result, t = Neutral, t[1:]
	}
	name, arg := t, ""
	if i := strings.IndexAny(t, ":/"); i >= 0 {
		name, arg = t[:i], t[i:]
	}
	m.kind = strings.ToLower(name)
	switch m.kind {
	case "all":
		if arg != "" {
			return m, errors.New("all takes nothing")
		}
		return m, nil
	case "a", "mx":
		parts := withBits.FindStringSubmatch(arg)
		for i, s := range parts[2:] {
			if s == "" {
				continue
			}
			n, err := strconv.Atoi(s)
			if err != nil || n > m.bits[i] {
				return m, errors.New("a prefix that is too long")
			}
			m.bits[i] = n
		}
		arg = parts[1]
		if arg == "" {
			return m, nil
		}
	case "ptr":
		if arg == "" {
			return m, nil
		}
	case "include", "exists":
	case "ip4", "ip6":
		if !strings.HasPrefix(arg, ":") {
			return m, errors.New("no address")
		}
		var err error
		m.network, err = parseNetwork(arg[1:], m.kind == "ip4")
		return m, err
	default:
		return m, errors.New("an unknown mechanism")
	}
	if !strings.HasPrefix(arg, ":") {
		return m, errors.New("no domain")
	}
	m.domain = arg[1:]
	return m, checkDomainSpec(m.domain)
}

func parseNetwork(s string, v4 bool) (netip.Prefix, error) {
	host, length, has := strings.Cut(s, "/")
	a, err := netip.ParseAddr(host)
	if err != nil || a.Is4() != v4 || a.Zone() != "" {
		return netip.Prefix{}, errors.New("an address that cannot be read")
	}
	bits := a.BitLen()
	if has {
		n, err := strconv.ParseUint(length, 10, 8)
		if err != nil || int(n) > bits || len(length) > 1 && length[0] == '0' {
			return netip.Prefix{}, errors.New("a prefix that cannot be read")
		}
		bits = int(n)
	}
	return a.Prefix(bits)
}

func isAlpha(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
func isAlnum(c byte) bool { return isAlpha(c) || '0' <= c && c <= '9' }

// checkDomainSpec checks a domain-spec: it ends with a macro or a name at the top that is not a number (RFC 7208, 7.1).
func checkDomainSpec(s string) error {
	if err := checkMacros(s, false); err != nil {
		return err
	}
	if strings.HasSuffix(s, "}") { // which nothing but the end of a macro is, or text; checkMacros tells them apart
		if i := strings.LastIndex(s, "%{"); i >= 0 && !strings.Contains(s[i:len(s)-1], "}") {
			return nil
		}
	}
	if n := len(s); n >= 2 && s[n-2] == '%' && (s[n-1] == '%' || s[n-1] == '_' || s[n-1] == '-') && oddPercents(s[:n-1]) {
		return nil
	}
	s = strings.TrimSuffix(s, ".")
	dot := strings.LastIndexByte(s, '.')
	if dot < 0 || !isTopLabel(s[dot+1:]) {
		return errors.New("a domain that ends in no name")
	}
	return nil
}

// oddPercents reports whether the "%" that ends s begins a macro, and is not itself escaped.
func oddPercents(s string) bool { return (len(s)-len(strings.TrimRight(s, "%")))%2 == 1 }

func isTopLabel(s string) bool {
	alpha := false
	for i := range len(s) {
		switch c := s[i]; {
		case isAlpha(c):
			alpha = true
		case '0' <= c && c <= '9':
		case c == '-' && 0 < i && i < len(s)-1:
			alpha = true // "1-2" is a name
		default:
			return false
		}
	}
	return alpha
}
