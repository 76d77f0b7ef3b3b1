package smtpserver

import "bytes"

// normalizer makes clean wire form of what clients send that do not know CRLF: bare LF becomes CRLF and bare CR is
// dropped. It stands between the connection and the scanner, so that only clean lines are counted and kept.
//
// The end of data is decided here, on the octets as they came (RFC 5321, 4.1.1.4). Only for it a line that is a lone
// dot is written; every other dot that comes to stand at the start of a line is written doubled, and the scanner takes
// it back to one. Dots of transparency are removed after both kinds of line end, since clients that end lines with LF
// stuff their lines all the same.
type normalizer struct {
	place place // lineStart follows LF of either kind, the other places are as for the scanner
	loose bool  // the line began after a bare LF, or had a bare CR behind its dot: a lone dot does not end the data
	begun bool  // octets of this line have been written
}

// next converts what it can of src and writes at most len(dst) octets, which must be at least 8, to dst. It stops
// behind the end of data, so that nothing behind it is touched. stuffed is false for BDAT, where dots mean nothing.
func (z *normalizer) next(dst, src []byte, stuffed bool) (wrote, read int, done bool) {
	line := func(loose bool) {
		wrote += copy(dst[wrote:], "\r\n")
		z.place, z.loose, z.begun = lineStart, loose, false
		read++
	}
	dot := func() {
		wrote += copy(dst[wrote:], "..")
		z.begun = true
	}
	for read < len(src) && wrote+4 <= len(dst) {
		b := src[read]
		switch z.place {
		case lineStart:
			if b == '.' && stuffed {
				z.place = afterDot
				read++
				continue
			}
			z.place = inLine
		case afterDot:
			if b == '\r' {
				z.place = afterDotCR
				read++
				continue
			}
			z.place = inLine
			if b == '\n' {
				dot()
			}
		case afterDotCR:
			switch {
			case b != '\n':
				z.place, z.loose = afterDot, true
				continue
			case !z.loose:
				return wrote + copy(dst[wrote:], ".\r\n"), read + 1, true
			}
			dot()
			line(false)
			continue
		case afterCR:
			if b == '\n' {
				line(false)
				continue
			}
			z.place = inLine
		}
		switch {
		case b == '\r':
			z.place = afterCR
			read++
		case b == '\n':
			line(true)
		case b == '.' && stuffed && !z.begun:
			dot()
			read++
		default:
			n := bytes.IndexAny(src[read:], "\r\n")
			if n < 0 {
				n = len(src) - read
			}
			n = copy(dst[wrote:], src[read:read+n])
			wrote += n
			read += n
			z.begun = true
		}
	}
	return wrote, read, false
}
