package smtp

import (
	"net/netip"
	"strings"
	"unicode/utf8"
)

// Limits of RFC 5321, 4.5.3.1.1 to 4.5.3.1.3, in octets. A path counts with its angle brackets. maxDomain is the
// 255 octets of a name on the DNS wire, written as text.
const (
	maxLocal  = 64
	maxDomain = 253
	maxLabel  = 63
	maxPath   = 256
)

// PathOptions widen the grammar of a path.
type PathOptions struct {
	UTF8 bool // octets above 127 may occur, as valid UTF-8 (RFC 6531, 3.3)
}

// ParseReversePath parses the path of MAIL (RFC 5321, 4.1.1.2). s begins with '<'. rest is what follows the '>': empty,
// or a space and the parameters. A source route is dropped (RFC 5321, appendix C). The returned strings share memory
// with s unless a quoted local part had to be decoded. An error is a [*ParseError].
func ParseReversePath(s string, o PathOptions) (p Path, rest string, err error) {
	if strings.HasPrefix(s, "<>") && isRest(s[2:]) {
		return Path{}, s[2:], nil
	}
	p, rest, f := parsePath(s, o)
	return p, rest, f.asError(EnhancedCode{5, 1, 7})
}

// ParseForwardPath parses the path of RCPT (RFC 5321, 4.1.1.3) in the same way. <Postmaster>, in any case, is allowed
// without a domain; the null path is not.
func ParseForwardPath(s string, o PathOptions) (p Path, rest string, err error) {
	const postmaster = "<postmaster>"
	if len(s) >= len(postmaster) && strings.EqualFold(s[:len(postmaster)], postmaster) && isRest(s[len(postmaster):]) {
		return Path{Local: s[1 : len(postmaster)-1]}, s[len(postmaster):], nil
	}
	p, rest, f := parsePath(s, o)
	return p, rest, f.asError(EnhancedCode{5, 1, 3})
}

// ParseMailbox parses a mailbox without angle brackets, as people write it; UTF-8 is allowed. An error is a
// [*ParseError].
func ParseMailbox(s string) (Path, error) {
	p, n, f := parseMailbox(s)
	switch {
	case f != faultNone:
	case n != len(s):
		f = faultDomain
	case len(s)+2 > maxPath:
		f = faultPathLong
	}
	if f != faultNone {
		return Path{}, f.asError(EnhancedCode{5, 1, 3})
	}
	return p, nil
}

// IsASCII reports that no octet is above 127, so that the path may travel without SMTPUTF8.
func (p Path) IsASCII() bool { return isASCII(p.Local) && isASCII(p.Domain) }

// NeedsUTF8 reports a local part that cannot be written without SMTPUTF8 (RFC 6531). A domain can: see [DomainToASCII].
func (p Path) NeedsUTF8() bool { return !isASCII(p.Local) }

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// fault is what is wrong with a path.
type fault uint8

const (
	faultNone fault = iota
	faultBrackets
	faultRoute
	faultLocal
	faultLocalLong
	faultDomain
	faultDomainLong
	faultLiteral
	faultPathLong
	faultUTF8
	faultRune
	faultNotASCII
	faultNull
)

var faultText = [...]string{
	faultBrackets:   "Syntax: a path must stand in angle brackets",
	faultRoute:      "Bad source route",
	faultLocal:      "Bad local part of address",
	faultLocalLong:  "Local part of address is too long",
	faultDomain:     "Bad domain of address",
	faultDomainLong: "Domain of address is too long",
	faultLiteral:    "Bad address literal",
	faultPathLong:   "Address is too long",
	faultUTF8:       "Address is not valid UTF-8",
	faultRune:       "Address has a character that is not allowed",
	faultNotASCII:   "Non-ASCII address needs SMTPUTF8",
	faultNull:       "Null path is not allowed here",
}

func (f fault) asError(enhanced EnhancedCode) error {
	switch f {
	case faultNone:
		return nil
	case faultNotASCII: // RFC 6531, 3.5
		return &ParseError{Code: 553, Enhanced: EnhancedCode{5, 6, 7}, Text: faultText[f]}
	}
	return &ParseError{Code: 501, Enhanced: enhanced, Text: faultText[f]}
}

// parsePath parses "<" [source-route ":"] mailbox ">".
func parsePath(s string, o PathOptions) (p Path, rest string, f fault) {
	switch {
	case s == "" || s[0] != '<':
		return Path{}, "", faultBrackets
	case strings.HasPrefix(s, "<>"):
		return Path{}, "", faultNull
	}
	at := 1
	if len(s) > 1 && s[1] == '@' {
		n, f := skipSourceRoute(s[1:])
		if f != faultNone {
			return Path{}, "", f
		}
		at += n
	}
	p, n, f := parseMailbox(s[at:])
	if f != faultNone {
		return Path{}, "", f
	}
	switch at += n; {
	case at == len(s):
		return Path{}, "", faultBrackets
	case s[at] != '>':
		return Path{}, "", faultDomain
	case n+len("<>") > maxPath:
		return Path{}, "", faultPathLong
	}
	switch rest = s[at+1:]; {
	case !isRest(rest):
		return Path{}, "", faultBrackets
	case !o.UTF8 && !p.IsASCII():
		return Path{}, "", faultNotASCII
	}
	return p, rest, faultNone
}

// isRest reports what may follow a path: nothing, or a space and parameters.
func isRest(s string) bool { return s == "" || s[0] == ' ' }

// skipSourceRoute returns the length of "@a,@b:" at the begin of s. Routes are accepted and ignored (RFC 5321,
// 4.1.1.3).
func skipSourceRoute(s string) (int, fault) {
	at := 0
	for {
		if at == len(s) || s[at] != '@' {
			return 0, faultRoute
		}
		at++
		n, f := scanDomain(s[at:])
		if f != faultNone {
			return 0, faultRoute
		}
		if at += n; at == len(s) {
			return 0, faultRoute
		}
		at++
		switch s[at-1] {
		case ':':
			return at, faultNone
		case ',':
		default:
			return 0, faultRoute
		}
	}
}

// parseMailbox parses local-part "@" domain at the begin of s and returns how many octets it takes.
func parseMailbox(s string) (p Path, n int, f fault) {
	if s == "" {
		return Path{}, 0, faultLocal
	}
	if s[0] == '"' {
		p.Local, n, f = parseQuoted(s)
	} else {
		n, f = scanDotString(s)
		p.Local = s[:n]
	}
	switch {
	case f != faultNone:
		return Path{}, 0, f
	case len(p.Local) > maxLocal:
		return Path{}, 0, faultLocalLong
	case n == len(s) || s[n] != '@':
		return Path{}, 0, faultLocal
	}
	if f = checkRunes(p.Local); f != faultNone {
		return Path{}, 0, f
	}
	n++
	k, f := scanDomain(s[n:])
	if f != faultNone {
		return Path{}, 0, f
	}
	p.Domain = s[n : n+k]
	return p, n + k, faultNone
}

// scanDotString returns the length of a dot-string (RFC 5321, 4.1.2).
func scanDotString(s string) (int, fault) {
	dot := true // a dot may not begin, end or follow another
	i := 0
	for ; i < len(s); i++ {
		c := s[i]
		if c == '.' {
			if dot {
				return i, faultLocal
			}
			dot = true
			continue
		}
		if !isAtext(c) {
			break
		}
		dot = false
	}
	if dot {
		return i, faultLocal
	}
	return i, faultNone
}

// parseQuoted decodes a quoted-string (RFC 5321, 4.1.2) and returns its whole length.
func parseQuoted(s string) (local string, n int, f fault) {
	escaped := false
	end := -1
	for i := 1; i < len(s) && end < 0; i++ {
		switch c := s[i]; {
		case c == '"':
			end = i
		case c < ' ' || c == 0x7f:
			return "", 0, faultLocal
		case c == '\\':
			escaped = true
			if i++; i == len(s) || s[i] < ' ' || s[i] >= 0x7f {
				return "", 0, faultLocal
			}
		}
	}
	switch {
	case end < 0:
		return "", 0, faultLocal
	case !escaped:
		return s[1:end], end + 1, faultNone
	case end > 1+2*maxLocal:
		return "", 0, faultLocalLong
	}
	var b strings.Builder
	for i := 1; i < end; i++ {
		if s[i] == '\\' {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String(), end + 1, faultNone
}

// checkRunes holds a local part to valid UTF-8 without characters that nobody sees or that pose as syntax. The text is
// otherwise kept as it is, neither folded nor normalised: only the mailbox's own server may do that (RFC 5321, 2.4).
func checkRunes(s string) fault {
	if isASCII(s) {
		return faultNone
	}
	if !utf8.ValidString(s) {
		return faultUTF8
	}
	for _, r := range s {
		switch {
		case 0x80 <= r && r < 0xa0, // C1 controls
			r == 0xad, r == 0x61c, r == 0x180e, r == 0xfeff,
			0x200b <= r && r <= 0x200f, // zero width, marks of direction
			0x2028 <= r && r <= 0x202e, // line separators, bidirectional overrides
			0x2060 <= r && r <= 0x206f,
			0xfff9 <= r && r <= 0xfffb,
			0xfdd0 <= r && r <= 0xfdef, r&0xfffe == 0xfffe, // no characters
			0xe0000 <= r && r <= 0xe0fff, // tags
			r == 0xff20, r == 0xfe6b:     // look like '@'
			return faultRune
		}
	}
	return faultNone
}

// scanDomain returns the length of the domain or address literal at the begin of s.
func scanDomain(s string) (int, fault) {
	if s != "" && s[0] == '[' {
		return scanLiteral(s)
	}
	i, label := 0, 0
	plain := true
	for ; i < len(s); i++ {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_':
			label++
			continue
		case c == '-':
			if label == 0 {
				return i, faultDomain
			}
			if label == 3 && s[i-1] == '-' && (s[i-2]|0x20) == 'n' && (s[i-3]|0x20) == 'x' {
				plain = false
			}
			label++
			continue
		case c == '.':
			if label == 0 || s[i-1] == '-' {
				return i, faultDomain
			}
			if label > maxLabel && plain {
				return i, faultDomainLong
			}
			label = 0
			continue
		case c >= utf8.RuneSelf:
			plain = false
			label++
			continue
		}
		break
	}
	switch {
	case label == 0 || s[i-1] == '-':
		return i, faultDomain
	case plain && (i > maxDomain || label > maxLabel):
		return i, faultDomainLong
	case plain:
		return i, faultNone
	case !utf8.ValidString(s[:i]):
		return i, faultUTF8
	}
	if _, err := DomainToASCII(s[:i]); err != nil {
		return i, faultDomain
	}
	return i, faultNone
}

// scanLiteral returns the length of "[192.0.2.1]" or "[IPv6:2001:db8::1]" (RFC 5321, 4.1.3). No other tag is
// registered.
func scanLiteral(s string) (int, fault) {
	end := strings.IndexByte(s, ']')
	if end < 0 || end > len("[IPv6:]")+45 {
		return 0, faultLiteral
	}
	if _, ok := LiteralAddr(s[:end+1]); !ok {
		return 0, faultLiteral
	}
	return end + 1, faultNone
}

// LiteralAddr returns the address of a domain that is an address literal (RFC 5321, 4.1.3), and whether it is one.
func LiteralAddr(domain string) (netip.Addr, bool) {
	if len(domain) < 3 || domain[0] != '[' || domain[len(domain)-1] != ']' {
		return netip.Addr{}, false
	}
	text := domain[1 : len(domain)-1]
	const tag = "IPv6:"
	tagged := len(text) > len(tag) && strings.EqualFold(text[:len(tag)], tag)
	if tagged {
		text = text[len(tag):]
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" || a.Is6() != tagged {
		return netip.Addr{}, false
	}
	return a, true
}
