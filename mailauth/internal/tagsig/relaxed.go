package tagsig

import "io"

// RelaxedBody makes a body canonical the relaxed way (RFC 6376, 3.4.4) on its way into a hash: blanks within a line
// become one space, those at its end go, and so do empty lines at the end of the body. It may be fed in pieces that are cut
// anywhere.
type RelaxedBody struct {
	hash  io.Writer
	n     int  // octets in out
	lines int  // line ends not yet written: they may be the last ones
	blank bool // blanks not yet written: they may end the line
	cr    bool // a CR whose LF is yet to come
	some  bool // anything was written
	bad   bool // a CR or LF stood alone
	out   [4096]byte
}

// Reset begins a body, which goes into h.
func (c *RelaxedBody) Reset(h io.Writer) {
	c.hash, c.n, c.lines = h, 0, 0
	c.blank, c.cr, c.some, c.bad = false, false, false, false
}

// plain says which octets stand for themselves.
func plain(b byte) bool { return b > ' ' || b != ' ' && b != '\t' && b != '\r' && b != '\n' }

// Bad reports whether a CR or LF stood alone: such a body has no canonical form.
func (c *RelaxedBody) Bad() bool { return c.bad }

// Feed takes the next piece of the body.
func (c *RelaxedBody) Feed(p []byte) {
	for i := 0; i < len(p); {
		b := p[i]
		if c.cr {
			c.cr = false
			if b != '\n' {
				c.bad = true
				return
			}
			c.blank = false
			c.lines++
			i++
			continue
		}
		switch b {
		case '\r':
			c.cr = true
			i++
		case '\n':
			c.bad = true
			return
		case ' ', '\t':
			c.blank = true
			i++
		default:
			end := i + textEnd(p[i:])
			c.flushPending()
			c.text(p[i:end])
			i = end
		}
	}
}

// textEnd returns how much of p, which begins with text, stands for itself: words with single spaces between them.
func textEnd(p []byte) int {
	i := 1
	for i < len(p) {
		switch b := p[i]; {
		case b > ' ':
			i++
		case b == ' ' && i+1 < len(p) && p[i+1] > ' ':
			i += 2
		case plain(b):
			i++
		default:
			return i
		}
	}
	return i
}

// flushPending writes the line ends and the blank that turned out not to be last.
func (c *RelaxedBody) flushPending() {
	c.some = true
	for ; c.lines > 0; c.lines-- {
		c.octet('\r')
		c.octet('\n')
	}
	if c.blank {
		c.blank = false
		c.octet(' ')
	}
}

func (c *RelaxedBody) octet(b byte) {
	if c.n == len(c.out) {
		c.flush()
	}
	c.out[c.n] = b
	c.n++
}

func (c *RelaxedBody) text(p []byte) {
	for len(p) > 0 {
		if c.n == len(c.out) {
			c.flush()
		}
		k := copy(c.out[c.n:], p)
		c.n += k
		p = p[k:]
	}
}

func (c *RelaxedBody) flush() {
	_, _ = c.hash.Write(c.out[:c.n]) // never fails
	c.n = 0
}

// End finishes the body: what has text ends with one line end, what has none is empty.
func (c *RelaxedBody) End() {
	if c.cr {
		c.bad = true
	}
	if c.some {
		c.octet('\r')
		c.octet('\n')
	}
	c.flush()
}

// AppendRelaxedField appends a header field made canonical the relaxed way (RFC 6376, 3.4.2), without its line end.
func AppendRelaxedField(dst, name, value []byte) []byte {
	for _, b := range name {
		if 'A' <= b && b <= 'Z' {
			b += 'a' - 'A'
		}
		dst = append(dst, b)
	}
	dst = append(dst, ':')
	return appendRelaxed(dst, value)
}

// appendRelaxed appends a value unfolded, its blanks become single spaces, without those around it.
func appendRelaxed(dst, value []byte) []byte {
	begin := len(dst)
	blank := false
	for _, b := range value {
		if !plain(b) {
			blank = true
			continue
		}
		if blank && len(dst) > begin {
			dst = append(dst, ' ')
		}
		blank = false
		dst = append(dst, b)
	}
	return dst
}
