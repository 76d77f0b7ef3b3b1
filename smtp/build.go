package smtp

import "strconv"

// AppendMail appends the MAIL command with CRLF (RFC 5321, 4.1.1.2). size is the octets that will be sent, 0 if
// unknown. Parameters that x lacks are left out; whether the message may go without them is the caller's decision.
// Without SMTPUTF8 a domain goes out in A-labels.
func AppendMail(dst []byte, s Sender, size int64, x Extensions) []byte {
	utf8 := s.UTF8 && x.SMTPUTF8
	dst = append(dst, "MAIL FROM:<"...)
	dst = appendPath(dst, s.Path, utf8)
	dst = append(dst, '>')
	if x.HasSize && size > 0 {
		dst = strconv.AppendInt(append(dst, " SIZE="...), size, 10)
	}
	if x.EightBitMIME && s.Body == Body8BitMIME {
		dst = append(dst, " BODY=8BITMIME"...)
	}
	if utf8 {
		dst = append(dst, " SMTPUTF8"...)
	}
	if s.RequireTLS && x.RequireTLS {
		dst = append(dst, " REQUIRETLS"...)
	}
	if x.DSN {
		switch s.Return {
		case ReturnFull:
			dst = append(dst, " RET=FULL"...)
		case ReturnHeaders:
			dst = append(dst, " RET=HDRS"...)
		}
		if s.EnvelopeID != "" {
			dst = AppendXtext(append(dst, " ENVID="...), s.EnvelopeID)
		}
	}
	return append(dst, '\r', '\n')
}

// AppendRcpt appends the RCPT command with CRLF (RFC 5321, 4.1.1.3), under the same rules as [AppendMail].
func AppendRcpt(dst []byte, r Recipient, x Extensions) []byte {
	dst = append(dst, "RCPT TO:<"...)
	dst = appendPath(dst, r.Path, x.SMTPUTF8)
	dst = append(dst, '>')
	if x.DSN {
		if r.Notify != 0 {
			dst = appendNotify(append(dst, " NOTIFY="...), r.Notify)
		}
		if r.Original.Type != "" {
			dst = append(append(dst, " ORCPT="...), r.Original.Type...)
			dst = append(dst, ';')
			if r.Original.Type == "utf-8" {
				dst = appendUTF8Xtext(dst, r.Original.Address)
			} else {
				dst = AppendXtext(dst, r.Original.Address)
			}
		}
	}
	return append(dst, '\r', '\n')
}

// appendPath appends a path; without utf8 its domain in A-labels. A domain that has no A-labels never passed the
// parser.
func appendPath(dst []byte, p Path, utf8 bool) []byte {
	if !utf8 && !isASCII(p.Domain) {
		if ascii, err := DomainToASCII(p.Domain); err == nil {
			p.Domain = ascii
		}
	}
	if p.IsNull() {
		return dst
	}
	return p.AppendTo(dst)
}

func appendNotify(dst []byte, n Notify) []byte {
	if n&NotifyNever != 0 {
		return append(dst, "NEVER"...)
	}
	for _, w := range [...]struct {
		bit  Notify
		word string
	}{{NotifySuccess, "SUCCESS,"}, {NotifyFailure, "FAILURE,"}, {NotifyDelay, "DELAY,"}} {
		if n&w.bit != 0 {
			dst = append(dst, w.word...)
		}
	}
	return dst[:len(dst)-1]
}
