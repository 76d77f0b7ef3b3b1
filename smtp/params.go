package smtp

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits of the DSN parameters as they stand on the wire (RFC 3461, 4.2 and 4.4) and of AUTH (RFC 4954, 5).
const (
	maxEnvelopeID = 100
	maxOriginal   = 500
	maxAuthParam  = 500
)

// ParseMail parses what follows "MAIL FROM:": a reverse-path and its parameters (RFC 5321, 4.1.1.2): SIZE, BODY,
// SMTPUTF8, REQUIRETLS, RET, ENVID and AUTH. REQUIRETLS is for sessions over TLS alone (RFC 8689, 2), which the caller
// checks. Whether AUTH may be believed is for the caller to say (RFC 4954, 5).
// An error is a [*ParseError].
func ParseMail(s string) (Sender, error) {
	path, rest, err := ParseReversePath(s, PathOptions{UTF8: true})
	if err != nil {
		return Sender{}, err
	}
	from := Sender{Path: path}
	if rest != "" {
		if err := from.parseParameters(rest); err != nil {
			return Sender{}, err
		}
	}
	if !from.UTF8 && !path.IsASCII() {
		return Sender{}, faultNotASCII.asError(EnhancedCode{})
	}
	return from, nil
}

// ParseRcpt parses what follows "RCPT TO:": a forward-path and its parameters (RFC 5321, 4.1.1.3): NOTIFY and ORCPT. An
// error is a
// [*ParseError].
func ParseRcpt(s string, o PathOptions) (Recipient, error) {
	path, rest, err := ParseForwardPath(s, o)
	if err != nil {
		return Recipient{}, err
	}
	to := Recipient{Path: path}
	if rest != "" {
		if err := to.parseParameters(rest, o); err != nil {
			return Recipient{}, err
		}
	}
	return to, nil
}

// parameter is the bit of a parameter in the set of those already seen.
type parameter uint16

const (
	paramSize parameter = 1 << iota
	paramBody
	paramUTF8
	paramReturn
	paramEnvelopeID
	paramAuth
	paramNotify
	paramOriginal
	paramRequireTLS
)

// nextParameter cuts the first parameter off s. A keyword without '=' has hasValue false. An empty keyword means there
// is none left.
func nextParameter(s string) (keyword, value string, hasValue bool, rest string) {
	s = strings.TrimLeft(s, " ")
	word, rest, _ := strings.Cut(s, " ")
	keyword, value, hasValue = strings.Cut(word, "=")
	return keyword, value, hasValue, rest
}

var (
	errUnknownParameter = &ParseError{
		Code: 555, Enhanced: EnhancedCode{5, 5, 4}, Text: "Parameter not recognized or not implemented",
	}
	errTwice = parameterError("A parameter occurs twice")
	errValue = parameterError("Bad parameter value")
)

func (s *Sender) parseParameters(rest string) error {
	var seen parameter
	for {
		keyword, value, hasValue, more := nextParameter(rest)
		if keyword == "" && !hasValue {
			return nil
		}
		var p parameter
		var ok bool
		switch {
		case strings.EqualFold(keyword, "SIZE"):
			p = paramSize
			s.Size, ok = parseSize(value)
		case strings.EqualFold(keyword, "BODY"):
			p = paramBody
			s.Body, ok = parseBodyType(value)
		case strings.EqualFold(keyword, "SMTPUTF8"):
			p = paramUTF8
			s.UTF8, ok = true, !hasValue
		case strings.EqualFold(keyword, "REQUIRETLS"):
			p = paramRequireTLS
			s.RequireTLS, ok = true, !hasValue
		case strings.EqualFold(keyword, "RET"):
			p = paramReturn
			s.Return, ok = parseReturn(value)
		case strings.EqualFold(keyword, "ENVID"):
			p = paramEnvelopeID
			s.EnvelopeID, ok = parseEnvelopeID(value)
		case strings.EqualFold(keyword, "AUTH"):
			p = paramAuth
			s.Auth, ok = parseAuthParam(value)
		default:
			return errUnknownParameter
		}
		if seen&p != 0 {
			return errTwice
		}
		if !ok {
			return errValue
		}
		seen |= p
		rest = more
	}
}

// parseAuthParam decodes the value of AUTH: a mailbox in xtext, or "<>". Octets that end lines or strings are refused.
func parseAuthParam(value string) (string, bool) {
	if value == "" || len(value) > maxAuthParam {
		return "", false
	}
	who, err := ParseXtext(value)
	if err != nil || !utf8.ValidString(who) || strings.ContainsFunc(who, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", false
	}
	return who, true
}

func (r *Recipient) parseParameters(rest string, o PathOptions) error {
	var seen parameter
	for {
		keyword, value, hasValue, more := nextParameter(rest)
		if keyword == "" && !hasValue {
			return nil
		}
		var p parameter
		var ok bool
		switch {
		case strings.EqualFold(keyword, "NOTIFY"):
			p = paramNotify
			r.Notify, ok = parseNotify(value)
		case strings.EqualFold(keyword, "ORCPT"):
			p = paramOriginal
			r.Original, ok = parseOriginal(value, o)
		default:
			return errUnknownParameter
		}
		if seen&p != 0 {
			return errTwice
		}
		if !ok {
			return errValue
		}
		seen |= p
		rest = more
	}
}

// parseSize parses size-value, 1 to 20 digits (RFC 1870, 4). What no disk holds is an error of syntax.
func parseSize(v string) (int64, bool) {
	if v == "" || len(v) > 20 || v[0] < '0' || v[0] > '9' {
		return 0, false
	}
	n, err := strconv.ParseInt(v, 10, 64)
	return n, err == nil
}

func parseBodyType(v string) (BodyType, bool) {
	switch {
	case strings.EqualFold(v, "7BIT"):
		return Body7Bit, true
	case strings.EqualFold(v, "8BITMIME"):
		return Body8BitMIME, true
	}
	return 0, false
}

func parseReturn(v string) (Return, bool) {
	switch {
	case strings.EqualFold(v, "FULL"):
		return ReturnFull, true
	case strings.EqualFold(v, "HDRS"):
		return ReturnHeaders, true
	}
	return 0, false
}

// parseEnvelopeID decodes ENVID; what it encodes must be printable, space included (RFC 3461, 4.4).
func parseEnvelopeID(v string) (string, bool) {
	if v == "" || len(v) > maxEnvelopeID {
		return "", false
	}
	id, err := ParseXtext(v)
	return id, err == nil && isPrintableASCII(id)
}

func isPrintableASCII(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

func parseNotify(v string) (Notify, bool) {
	if strings.EqualFold(v, "NEVER") {
		return NotifyNever, true
	}
	var n Notify
	for word := range strings.SplitSeq(v, ",") {
		switch {
		case strings.EqualFold(word, "SUCCESS"):
			n |= NotifySuccess
		case strings.EqualFold(word, "FAILURE"):
			n |= NotifyFailure
		case strings.EqualFold(word, "DELAY"):
			n |= NotifyDelay
		default:
			return 0, false
		}
	}
	return n, true
}

// parseOriginal decodes ORCPT: addr-type ";" xtext (RFC 3461, 4.2), or "utf-8;" and RFC 6533's encodings, whose plain
// form is only for SMTPUTF8. Controls must not come out: the address ends in headers of reports.
func parseOriginal(v string, o PathOptions) (OriginalRecipient, bool) {
	kind, text, ok := strings.Cut(v, ";")
	if !ok || len(v) > maxOriginal || text == "" || !isAtom(kind) {
		return OriginalRecipient{}, false
	}
	kind = strings.ToLower(kind)
	if kind != "utf-8" {
		address, err := ParseXtext(text)
		return OriginalRecipient{Type: kind, Address: address}, err == nil && isPrintableASCII(address)
	}
	if !o.UTF8 && !isASCII(text) {
		return OriginalRecipient{}, false
	}
	address, err := parseUTF8Xtext(text)
	if err != nil || !isPrintable(address) {
		return OriginalRecipient{}, false
	}
	return OriginalRecipient{Type: kind, Address: address}, true
}

func isPrintable(s string) bool {
	for _, r := range s {
		if r < ' ' || 0x7f <= r && r < 0xa0 || r == utf8.RuneError || r == 0x2028 || r == 0x2029 {
			return false
		}
	}
	return true
}

func isAtom(s string) bool {
	for i := range len(s) {
		if !isAtext(s[i]) || s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return s != ""
}
