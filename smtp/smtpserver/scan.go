package smtpserver

import (
	"bytes"

	"github.com/godwit-mta/godwit/smtp"
)

// flaw is what makes the content of a message unacceptable. The first one found decides the reply.
type flaw uint8

const (
	flawNone flaw = iota
	flawBareCR
	flawBareLF
	flawNUL
	flawLine
	flawHeader
	flawSize
	flawMemory
	flawChunks
)

// flaws says for each flaw the reply at the end of the data and the word for metrics and logs.
var flaws = [...]struct {
	word  string
	reply smtp.Reply
}{
	flawNone:   {"none", smtp.Reply{}},
	flawBareCR: {"bare_cr", say(554, 6, 0, "Message has a CR without LF")},
	flawBareLF: {"bare_lf", say(554, 6, 0, "Message has an LF without CR")},
	flawNUL:    {"nul", say(554, 6, 0, "Message has a NUL octet")},
	flawLine:   {"line", say(554, 6, 0, "Message has a line that is too long")},
	flawHeader: {"header", say(552, 3, 4, "Message header is too large")},
	flawSize:   {"size", say(552, 3, 4, "Message size exceeds fixed limit")},
	flawMemory: {"memory", say(452, 3, 1, "Insufficient system storage")},
	flawChunks: {"chunks", say(554, 5, 0, "Too many chunks")},
}

// place is where in the grammar of the data a scanner stands, between two octets.
type place uint8

const (
	lineStart  place = iota // after a true CRLF, or before the first octet
	afterDot                // after a dot at the line's start, which is not kept
	afterDotCR              // after that dot and a CR: LF now ends the data; neither is kept
	inLine                  // within a line
	afterCR                 // after a CR within a line, which is kept
)

// scanner finds the end of the data, removes the dots of transparency (RFC 5321, 4.5.2) and judges the content. It is
// shown the octets as they lie in the body's own memory, in pieces cut anywhere, looks at each once with the vector
// instructions of package bytes, and moves octets only after a dot was removed. Its zero value scans BDAT chunks.
//
// The end is CRLF.CRLF; there is one state (lineStart) from which it can be reached, and one way into that state: CR
// immediately followed by LF. That is the whole defence against smuggling; it does not depend on what is done with
// stray CR and LF.
type scanner struct {
	stuffed bool // DATA: dots are doubled and a lone dot ends; otherwise BDAT
	limits  *Limits

	place     place
	pastEmpty bool  // the empty line that ends the header has been seen
	flaw      flaw  // first flaw; content is no longer kept
	line      int   // octets of the current line so far, without CR and LF
	size      int64 // octets kept
	eightBit  bool
	dotLine   bool
}

// scan examines p and compacts it in place. The first kept octets are content; they are zero once there is a flaw. done
// tells that the data ended after used octets; otherwise used is len(p).
func (c *scanner) scan(p []byte) (kept, used int, done bool) {
	r, w := 0, 0
	crs := 0 // CRs in p that belong to a CRLF, or may do so
	for r < len(p) {
		switch c.place {
		case lineStart:
			c.line = 0
			c.place = inLine
			if p[r] == '.' {
				if c.stuffed {
					c.place = afterDot
					r++
					continue
				}
				c.dotLine = true
			}
		case afterDot:
			if p[r] == '\r' {
				c.place = afterDotCR
				r++
				continue
			}
			c.dotLine = c.dotLine || p[r] == '.'
			c.place = inLine
		case afterDotCR:
			if p[r] == '\n' {
				return c.judge(p[:w], crs), r + 1, true
			}
			c.find(flawBareCR)
			c.place = inLine
		case afterCR:
			if p[r] == '\n' {
				p[w] = '\n'
				w++
				r++
				c.endLine(w)
				continue
			}
			c.find(flawBareCR)
			c.place = inLine
		}
		// Within a line: take all of it that is here.
		n := bytes.IndexByte(p[r:], '\n')
		if n < 0 {
			rest := p[r:]
			c.line += len(rest)
			if rest[len(rest)-1] == '\r' {
				c.place = afterCR
				c.line--
				crs++
			}
			w += move(p, w, r, len(p))
			r = len(p)
			break
		}
		end := r + n + 1
		if n == 0 || p[r+n-1] != '\r' {
			c.find(flawBareLF)
			c.line += n + 1
			w += move(p, w, r, end)
			r = end
			continue
		}
		c.line += n - 1
		crs++
		w += move(p, w, r, end)
		r = end
		c.endLine(w)
	}
	return c.judge(p[:w], crs), r, false
}

// move copies p[from:to] down to w and returns its length.
func move(p []byte, w, from, to int) int {
	if w != from {
		copy(p[w:], p[from:to])
	}
	return to - from
}

func (c *scanner) find(f flaw) {
	if c.flaw == flawNone {
		c.flaw = f
	}
}

// endLine notes a true CRLF, after which w octets of this piece are kept.
func (c *scanner) endLine(w int) {
	c.place = lineStart
	if c.line > c.limits.TextLine {
		c.find(flawLine)
	}
	if c.line == 0 && !c.pastEmpty {
		c.pastEmpty = true
		if c.size+int64(w) > int64(c.limits.HeaderBytes) {
			c.find(flawHeader)
		}
	}
}

// judge examines the content k of a piece, in which crs CRs are right, and returns how much of it is kept.
func (c *scanner) judge(k []byte, crs int) int {
	if c.flaw == flawNone {
		switch {
		case bytes.Count(k, []byte{'\r'}) != crs:
			c.flaw = flawBareCR
		case bytes.IndexByte(k, 0) >= 0:
			c.flaw = flawNUL
		case c.size+int64(len(k)) > c.limits.MessageBytes:
			c.flaw = flawSize
		case c.place != lineStart && c.line > c.limits.TextLine:
			c.flaw = flawLine
		case !c.pastEmpty && c.size+int64(len(k)) > int64(c.limits.HeaderBytes):
			c.flaw = flawHeader
		}
	}
	if c.flaw != flawNone {
		return 0
	}
	c.eightBit = c.eightBit || smtp.HasEightBit(k)
	c.size += int64(len(k))
	return len(k)
}

// finish tells that a message sent in chunks is over. unended means that its last line lacks CRLF.
func (c *scanner) finish() (unended bool) {
	if c.place == afterCR {
		c.find(flawBareCR)
	}
	return c.place == inLine && c.flaw == flawNone
}
