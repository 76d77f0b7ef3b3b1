package smtp

import (
	"errors"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Errors of [DomainToASCII].
var (
	errDomainSyntax = errors.New("not a domain name")
	errDomainLong   = errors.New("domain name is too long")
	errDomainIDNA   = errors.New("not a valid internationalised domain name")
)

// labels converts without mapping: the only change made to a name is folding of case. A name that IDNA would have to
// map (full-width letters, ideographic dots, decomposed accents) is refused rather than guessed (RFC 5891, 4.2).
var labels = idna.New(idna.ValidateForRegistration(), idna.StrictDomainName(false))

// DomainToASCII returns the one spelling of a domain that keys and lookups use: lower case, A-labels, no trailing dot.
// An address literal is returned in lower case but for its tag: "[IPv6:2001:db8::1]". A domain that already has this
// form is returned as it is, without allocation.
func DomainToASCII(domain string) (string, error) {
	if strings.HasPrefix(domain, "[") {
		a, ok := LiteralAddr(domain)
		switch {
		case !ok:
			return "", errDomainSyntax
		case a.Is6():
			return "[IPv6:" + a.String() + "]", nil
		}
		return domain, nil
	}
	domain = strings.TrimSuffix(domain, ".")
	lower, puny := true, false
	for i := range len(domain) {
		switch c := domain[i]; {
		case 'A' <= c && c <= 'Z':
			lower = false
		case c >= utf8.RuneSelf:
			puny = true
		}
	}
	if puny && !utf8.ValidString(domain) {
		return "", errDomainIDNA
	}
	if !lower || puny {
		domain = strings.ToLower(domain)
	}
	if puny || strings.HasPrefix(domain, "xn--") || strings.Contains(domain, ".xn--") {
		return internationalToASCII(domain)
	}
	return domain, checkASCIIDomain(domain)
}

// internationalToASCII converts a name that has U-labels or A-labels. An A-label must come back unchanged from its
// U-label: one that hides ASCII or capitals has two spellings (RFC 5891, 5.4).
func internationalToASCII(domain string) (string, error) {
	if len(domain) > 4*maxDomain {
		return "", errDomainLong
	}
	for label := range strings.SplitSeq(domain, ".") {
		if !strings.HasPrefix(label, "xn--") {
			continue
		}
		u, err := labels.ToUnicode(label)
		if err != nil || isASCII(u) || strings.ToLower(u) != u {
			return "", errDomainIDNA
		}
		if back, err := labels.ToASCII(u); err != nil || back != label {
			return "", errDomainIDNA
		}
	}
	ascii, err := labels.ToASCII(domain)
	if err != nil || !isASCII(ascii) {
		return "", errDomainIDNA
	}
	return ascii, checkASCIIDomain(ascii)
}

// checkASCIIDomain holds a lower-case name to letters, digits, hyphens (RFC 5321, 4.1.2) and the underscore, which the
// rules forbid and real names have.
func checkASCIIDomain(s string) error {
	if len(s) > maxDomain {
		return errDomainLong
	}
	label := 0
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '_':
			label++
		case c == '-' && label > 0:
			label++
		case c == '.' && label > 0 && s[i-1] != '-':
			label = 0
		default:
			return errDomainSyntax
		}
		if label > maxLabel {
			return errDomainLong
		}
	}
	if label == 0 || s[len(s)-1] == '-' {
		return errDomainSyntax
	}
	return nil
}
