package smtp

import (
	"strconv"
	"strings"
)

// EnhancedCode is an enhanced mail system status code (RFC 3463, 2), such as 5.1.1. The zero value means none was
// given.
type EnhancedCode struct {
	Class, Subject, Detail uint16
}

// IsZero reports whether no code is present.
func (c EnhancedCode) IsZero() bool { return c == EnhancedCode{} }

// String returns the dotted form, or the empty string for the zero value.
func (c EnhancedCode) String() string {
	if c.IsZero() {
		return ""
	}
	return string(c.AppendTo(nil))
}

// AppendTo appends the dotted form to dst.
func (c EnhancedCode) AppendTo(dst []byte) []byte {
	dst = strconv.AppendUint(dst, uint64(c.Class), 10)
	dst = append(dst, '.')
	dst = strconv.AppendUint(dst, uint64(c.Subject), 10)
	dst = append(dst, '.')
	return strconv.AppendUint(dst, uint64(c.Detail), 10)
}

// Reply is one SMTP reply (RFC 5321, 4.2). Text holds the words without codes; lines are separated by '\n'.
// The zero value is no reply at all.
type Reply struct {
	Code     int // 200 to 599
	Enhanced EnhancedCode
	Text     string
}

// Class returns the first digit of the code, which alone decides what a client does next (RFC 5321, 4.2.1); 0 for no
// reply.
func (r Reply) Class() int { return r.Code / 100 }

// IsZero reports whether there is no reply.
func (r Reply) IsZero() bool { return r.Code == 0 }

// Positive reports a 2yz reply.
func (r Reply) Positive() bool { return r.Class() == 2 }

// Temporary reports a 4yz reply.
func (r Reply) Temporary() bool { return r.Class() == 4 }

// Permanent reports a 5yz reply.
func (r Reply) Permanent() bool { return r.Class() == 5 }

// String returns the reply on one line, as logs show it: "550 5.1.1 no such user".
func (r Reply) String() string {
	if r.IsZero() {
		return ""
	}
	b := strconv.AppendInt(nil, int64(r.Code), 10)
	if !r.Enhanced.IsZero() {
		b = r.Enhanced.AppendTo(append(b, ' '))
	}
	if r.Text != "" {
		b = append(append(b, ' '), strings.ReplaceAll(r.Text, "\n", " / ")...)
	}
	return string(b)
}

// AppendTo appends the wire form, every line with its code and CRLF, repeating the enhanced code on each line
// (RFC 2034, 4). It allocates only if dst must grow.
func (r Reply) AppendTo(dst []byte) []byte {
	text := r.Text
	for {
		line, rest, more := strings.Cut(text, "\n")
		dst = strconv.AppendInt(dst, int64(r.Code), 10)
		if more {
			dst = append(dst, '-')
		} else {
			dst = append(dst, ' ')
		}
		if !r.Enhanced.IsZero() {
			dst = append(r.Enhanced.AppendTo(dst), ' ')
		}
		dst = append(append(dst, line...), '\r', '\n')
		if !more {
			return dst
		}
		text = rest
	}
}
