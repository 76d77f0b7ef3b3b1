package tagsig

import (
	"bytes"
	"io"
)

// SimpleBody makes a body canonical the simple way (RFC 6376, 3.4.3) on its way into a hash: empty lines at its end go, and
// it ends with a line end. It may be fed in pieces that are cut anywhere.
type SimpleBody struct {
	hash  io.Writer
	lines int  // line ends not yet written: they may be the last ones
	cr    bool // a CR whose LF is yet to come
	bad   bool // a CR or LF stood alone
}

// Reset begins a body, which goes into h.
func (c *SimpleBody) Reset(h io.Writer) { *c = SimpleBody{hash: h} }

// Bad reports whether a CR or LF stood alone: such a body has no canonical form here, since relays repair it in different ways.
func (c *SimpleBody) Bad() bool { return c.bad }

// lineEnds is what empty lines are written from.
const lineEnds = "\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n"

// Feed takes the next piece of the body.
func (c *SimpleBody) Feed(p []byte) {
	for len(p) > 0 && !c.bad {
		if c.cr {
			if p[0] != '\n' {
				c.bad = true
				return
			}
			c.cr = false
			c.lines++
			p = p[1:]
			continue
		}
		switch p[0] {
		case '\r':
			c.cr = true
			p = p[1:]
		case '\n':
			c.bad = true
		default:
			n := textLines(p)
			c.flushLines()
			_, _ = c.hash.Write(p[:n]) // never fails
			p = p[n:]
		}
	}
}

// textLines returns how much of p, which begins with text, can be written as it stands: lines with text in them up to the
// last one's end, which is left.
func textLines(p []byte) int {
	done := 0
	for at := 0; ; {
		i := bytes.IndexByte(p[at:], '\n')
		line := p[at:]
		if i >= 0 {
			line = p[at : at+i]
		}
		cr := bytes.IndexByte(line, '\r')
		if i < 0 || cr != len(line)-1 { // the last line, or one with a bare CR or LF, which Feed finds
			if cr < 0 {
				cr = len(line)
			}
			if cr > 0 {
				return at + cr
			}
			return done
		}
		if cr > 0 {
			done = at + cr
		} else {
			return done
		}
		at += i + 1
	}
}

func (c *SimpleBody) flushLines() {
	for c.lines > 0 {
		n := min(c.lines, len(lineEnds)/2)
		_, _ = io.WriteString(c.hash, lineEnds[:2*n])
		c.lines -= n
	}
}

// End finishes the body.
func (c *SimpleBody) End() {
	if c.cr {
		c.bad = true
	}
	_, _ = io.WriteString(c.hash, "\r\n")
}

// Window passes on the first octets of what is written to it, and counts all.
type Window struct {
	Hash  io.Writer
	Limit int64 // negative: none
	Size  int64 // octets written so far
}

// Write never fails.
func (w *Window) Write(p []byte) (int, error) {
	part := p
	if w.Limit >= 0 {
		part = p[:min(int64(len(p)), max(0, w.Limit-w.Size))]
	}
	w.Size += int64(len(p))
	if len(part) > 0 {
		_, _ = w.Hash.Write(part)
	}
	return len(p), nil
}
