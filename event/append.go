package event

import (
	"strconv"
	"time"
	"unicode/utf8"
)

// AppendJSON appends the event's JSON form to dst, without a line end, and allocates only if dst must grow. The result
// is what encoding/json would write, octet for octet: control characters, '<', '>', '&', U+2028 and U+2029 are escaped
// and invalid UTF-8 is replaced, so that a line stays a line and may stand in a page.
func (e *Event) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"time":`...)
	dst = appendTime(dst, e.Time)
	dst = append(dst, `,"id":`...)
	dst = appendString(dst, e.ID)
	dst = append(dst, `,"type":"`...)
	dst = append(append(dst, e.Type.String()...), '"')

	dst = appendField(dst, `,"message":`, e.Message)
	dst = appendField(dst, `,"entry":`, e.Entry)
	dst = appendField(dst, `,"recipient":`, e.Recipient)
	dst = appendField(dst, `,"sender":`, e.Sender)
	dst = appendField(dst, `,"tenant":`, e.Tenant)
	dst = appendField(dst, `,"stream":`, e.Stream)
	dst = appendField(dst, `,"queue":`, e.Queue)
	dst = appendField(dst, `,"message_id":`, e.MessageID)
	dst = appendField(dst, `,"header_from":`, e.HeaderFrom)

	dst = appendField(dst, `,"session":`, e.Session)
	dst = appendField(dst, `,"listener":`, e.Listener)
	dst = appendField(dst, `,"client":`, e.Client)
	dst = appendField(dst, `,"hello":`, e.Hello)
	dst = appendField(dst, `,"protocol":`, e.Protocol)
	dst = appendNumber(dst, `,"size":`, e.Size)
	dst = appendNumber(dst, `,"recipients":`, int64(e.Recipients))
	dst = appendField(dst, `,"auth":`, e.Auth)

	dst = appendNumber(dst, `,"attempt":`, int64(e.Attempt))
	if e.Reason != 0 {
		dst = append(dst, `,"reason":"`...)
		dst = append(append(dst, e.Reason.String()...), '"')
	}
	if e.Class != 0 {
		dst = append(dst, `,"class":"`...)
		dst = append(append(dst, e.Class.String()...), '"')
	}
	dst = appendField(dst, `,"explanation":`, e.Explanation)
	if e.Reply != (Reply{}) {
		dst = append(dst, `,"reply":{"code":`...)
		dst = strconv.AppendInt(dst, int64(e.Reply.Code), 10)
		dst = appendField(dst, `,"enhanced":`, e.Reply.Enhanced)
		dst = appendField(dst, `,"text":`, e.Reply.Text)
		dst = append(dst, '}')
	}
	dst = appendField(dst, `,"phase":`, e.Phase)
	dst = appendField(dst, `,"mx":`, e.MX)
	dst = appendField(dst, `,"address":`, e.Address)
	dst = appendField(dst, `,"site":`, e.Site)
	dst = appendField(dst, `,"source":`, e.Source)
	dst = appendField(dst, `,"tls":`, e.TLS)
	if e.Reused {
		dst = append(dst, `,"reused":true`...)
	}

	if e.Timings != (Timings{}) {
		dst = append(dst, `,"timings_ms":`...)
		dst = e.Timings.append(dst)
	}
	if !e.NextAttempt.IsZero() {
		dst = append(dst, `,"next_attempt":`...)
		dst = appendTime(dst, e.NextAttempt)
	}
	return append(dst, '}')
}

func (t *Timings) append(dst []byte) []byte {
	dst = append(dst, '{')
	begin := len(dst)
	phase := func(name string, m Millis) {
		if m == 0 {
			return
		}
		if len(dst) > begin {
			dst = append(dst, ',')
		}
		dst = appendMillis(append(dst, name...), m)
	}
	phase(`"dns":`, t.DNS)
	phase(`"connect":`, t.Connect)
	phase(`"greeting":`, t.Greeting)
	phase(`"mail":`, t.Mail)
	phase(`"data":`, t.Data)
	phase(`"final":`, t.Final)
	phase(`"total":`, t.Total)
	return append(dst, '}')
}

func appendField(dst []byte, name, value string) []byte {
	if value == "" {
		return dst
	}
	return appendString(append(dst, name...), value)
}

func appendNumber(dst []byte, name string, value int64) []byte {
	if value == 0 {
		return dst
	}
	return strconv.AppendInt(append(dst, name...), value, 10)
}

// appendMillis writes microseconds as a decimal fraction by hand: floats would show digits nobody measured.
func appendMillis(dst []byte, m Millis) []byte {
	us := time.Duration(m).Microseconds()
	if us < 0 {
		dst = append(dst, '-')
		us = -us
	}
	dst = strconv.AppendInt(dst, us/1000, 10)
	frac := us % 1000
	if frac == 0 {
		return dst
	}
	dst = append(dst, '.', byte('0'+frac/100))
	if frac %= 100; frac != 0 {
		dst = append(dst, byte('0'+frac/10))
		if frac %= 10; frac != 0 {
			dst = append(dst, byte('0'+frac))
		}
	}
	return dst
}

// appendTime writes t in TimeLayout. Years beyond four digits, which RFC 3339 cannot express, are written as the
// nearest that it can.
func appendTime(dst []byte, t time.Time) []byte {
	t = t.UTC()
	switch y := t.Year(); {
	case y < 0:
		return append(dst, `"0000-01-01T00:00:00.000Z"`...)
	case y > 9999:
		return append(dst, `"9999-12-31T23:59:59.999Z"`...)
	}
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	dst = append(dst, '"')
	dst = appendDigits(dst, year, 4)
	dst = appendDigits(append(dst, '-'), int(month), 2)
	dst = appendDigits(append(dst, '-'), day, 2)
	dst = appendDigits(append(dst, 'T'), hour, 2)
	dst = appendDigits(append(dst, ':'), minute, 2)
	dst = appendDigits(append(dst, ':'), second, 2)
	dst = appendDigits(append(dst, '.'), t.Nanosecond()/1e6, 3)
	return append(dst, 'Z', '"')
}

func appendDigits(dst []byte, n, width int) []byte {
	for range width {
		dst = append(dst, '0')
	}
	for i := len(dst) - 1; n > 0; i-- {
		dst[i] = byte('0' + n%10)
		n /= 10
	}
	return dst
}

const hexDigits = "0123456789abcdef"

// plain tells the octets that stand for themselves within a JSON string.
var plain = func() (table [256]bool) {
	for c := range 0x80 {
		table[c] = c >= 0x20 && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
	}
	return table
}()

// plainWord reports whether all octets of v are plain. The two pairs that differ in one bit, < and >, " and &, are
// looked for at once.
func plainWord(v uint64) bool {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	zeroIn := func(x uint64) uint64 { return (x - ones) & ^x }
	odd := v | // above 127
		(v-0x20*ones)&^v | // control characters
		zeroIn(v|0x02*ones^0x3e*ones) | zeroIn(v|0x04*ones^0x26*ones) | zeroIn(v^0x5c*ones)
	return odd&high == 0
}

func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	begin := 0 // of the run of octets not yet written
	for i := 0; i < len(s); {
		for len(s)-i >= 8 && plainWord(octets(s[i:i+8])) {
			i += 8
		}
		if i == len(s) {
			break
		}
		c := s[i]
		if plain[c] {
			i++
			continue
		}
		if c < utf8.RuneSelf {
			dst = append(dst, s[begin:i]...)
			dst = appendEscape(dst, c)
			i++
			begin = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			dst = append(append(dst, s[begin:i]...), `\ufffd`...)
			begin = i + 1
		case r == '\u2028' || r == '\u2029': // line ends to JavaScript
			dst = append(append(dst, s[begin:i]...), `\u202`...)
			dst = append(dst, hexDigits[r&0xf])
			begin = i + size
		}
		i += size
	}
	return append(append(dst, s[begin:]...), '"')
}

// octets returns the octets of s, eight, as one number.
func octets(s string) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

func appendEscape(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\b':
		return append(dst, '\\', 'b')
	case '\f':
		return append(dst, '\\', 'f')
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	return append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xf])
}
