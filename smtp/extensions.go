package smtp

import (
	"strconv"
	"strings"
)

// Extensions is what a server offered in its reply to EHLO (RFC 5321, 4.1.1.1).
type Extensions struct {
	Pipelining    bool     // RFC 2920
	EightBitMIME  bool     // RFC 6152
	SMTPUTF8      bool     // RFC 6531
	DSN           bool     // RFC 3461
	EnhancedCodes bool     // RFC 2034
	Chunking      bool     // RFC 3030
	StartTLS      bool     // RFC 3207
	RequireTLS    bool     // RFC 8689
	HasSize       bool     // RFC 1870
	Size          int64    // octets, 0 if no fixed limit was told
	RcptMax       int      // LIMITS RCPTMAX (RFC 9422), recipients of a transaction, 0 if not told
	MailMax       int      // LIMITS MAILMAX (RFC 9422), transactions of a session, 0 if not told
	Auth          []string // mechanisms, upper case (RFC 4954)
}

// ParseExtensions reads the text of a reply to EHLO: the greeting line, then one keyword a line. Unknown keywords and
// broken values are skipped: a peer's boast that cannot be read is an extension not offered.
func ParseExtensions(replyText string) Extensions {
	var x Extensions
	_, rest, _ := strings.Cut(replyText, "\n")
	for rest != "" {
		var line string
		line, rest, _ = strings.Cut(rest, "\n")
		keyword, values, _ := strings.Cut(strings.TrimSpace(line), " ")
		x.add(keyword, strings.TrimSpace(values))
	}
	return x
}

func (x *Extensions) add(keyword, values string) {
	switch {
	case strings.EqualFold(keyword, "PIPELINING"):
		x.Pipelining = true
	case strings.EqualFold(keyword, "8BITMIME"):
		x.EightBitMIME = true
	case strings.EqualFold(keyword, "SMTPUTF8"):
		x.SMTPUTF8 = true
	case strings.EqualFold(keyword, "DSN"):
		x.DSN = true
	case strings.EqualFold(keyword, "ENHANCEDSTATUSCODES"):
		x.EnhancedCodes = true
	case strings.EqualFold(keyword, "CHUNKING"):
		x.Chunking = true
	case strings.EqualFold(keyword, "STARTTLS"):
		x.StartTLS = true
	case strings.EqualFold(keyword, "REQUIRETLS"):
		x.RequireTLS = true
	case strings.EqualFold(keyword, "SIZE"):
		x.HasSize = true
		x.Size, _ = parseSize(values)
	case strings.EqualFold(keyword, "LIMITS"):
		x.addLimits(values)
	case strings.EqualFold(keyword, "AUTH"):
		const most = 32
		for mechanism := range strings.FieldsSeq(values) {
			if len(x.Auth) < most {
				x.Auth = append(x.Auth, strings.ToUpper(mechanism))
			}
		}
	}
}

func (x *Extensions) addLimits(values string) {
	for limit := range strings.FieldsSeq(values) {
		name, value, _ := strings.Cut(limit, "=")
		n, err := strconv.ParseUint(value, 10, 31)
		if err != nil || n == 0 {
			continue
		}
		switch {
		case strings.EqualFold(name, "RCPTMAX"):
			x.RcptMax = int(n)
		case strings.EqualFold(name, "MAILMAX"):
			x.MailMax = int(n)
		}
	}
}
