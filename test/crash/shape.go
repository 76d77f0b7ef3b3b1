package crash

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"
)

// Sizes of what is submitted, in octets and recipients. The server's limit is messageLimit.
const (
	smallest     = 1 << 10
	largest      = 200 << 10
	messageLimit = 256 << 10
	mostTo       = 50
)

// fate is how a submission is meant to end.
type fate uint8

const (
	finish   fate = iota
	reset         // RSET after RCPT
	breakOff      // the connection is closed within the content
	forget        // RSET after a chunk that was not the last
	oversize      // larger than the server's limit
	loop          // more Received fields than the server takes
)

// plan is all choices about one submission, made before its first octet leaves.
type plan struct {
	submission
	fate      fate
	chunks    int // 0: DATA
	pipelined bool
	bad       []string // recipients that RCPT must refuse
	content   []byte
	left      time.Time     // when its last octet had left
	waited    time.Duration // from then to the final reply
}

// text is what all bodies are cut from.
type text struct {
	octets []byte
	lines  []int // where its lines begin, in the first third
}

func newText(src rand.Source) *text {
	t := new(text)
	r := rand.New(src)
	for len(t.octets) < 3*messageLimit {
		if len(t.octets) < messageLimit {
			t.lines = append(t.lines, len(t.octets))
		}
		t.octets = appendLine(t.octets, r)
	}
	return t
}

// appendLine appends a line of the kinds that break careless servers: dots, octets above 127, empty, nearly too long.
func appendLine(p []byte, r *rand.Rand) []byte {
	n := r.IntN(90)
	switch r.IntN(20) {
	case 0:
		p = append(p, '.')
	case 1:
		p = append(p, ".."...)
	case 2:
		n = 0
	case 3:
		n = 990
	}
	low, span := 32, 95
	if r.IntN(8) == 0 {
		low, span = 160, 96
	}
	for range n {
		p = append(p, byte(low+r.IntN(span)))
	}
	return append(p, '\r', '\n')
}

// shaper makes plans. It is used by one goroutine.
type shaper struct {
	rand *rand.Rand
	name string
	next int
	text *text

	largest int  // octets of a message
	plain   bool // nothing is to be refused or broken off
	sites   []string
}

// sites are the domains that recipients have, by how often.
var sites = []string{
	"quick.example", "quick.example", "quick.example", "slow.example", "slow.example", "moody.example", "moody.example",
	"users.example", "small.example", "lmtp.example",
}

func (s *shaper) plan() *plan {
	p := &plan{submission: submission{Token: fmt.Sprintf("%s.%d@%s", s.name, s.next, homeDomain)}}
	s.next++
	switch n := s.rand.IntN(100); {
	case s.plain:
	case n < 3:
		p.fate = reset
	case n < 7:
		p.fate = breakOff
	case n < 9:
		p.fate = forget
	case n < 11:
		p.fate = oversize
	case n < 13:
		p.fate = loop
	}
	p.pipelined = s.rand.IntN(2) == 0
	if s.rand.IntN(2) == 0 || p.fate == forget {
		p.chunks = 1 + s.rand.IntN(4)
	}
	p.Doomed = p.fate == oversize || p.fate == loop
	p.Silent = s.rand.IntN(10) == 0
	p.To = s.recipients()
	if !s.plain && s.rand.IntN(20) == 0 {
		p.bad = []string{"someone@bad..example"}
	}
	p.content = s.content(p)
	p.Size = len(p.content)
	sum := sha256.Sum256(p.content)
	p.Hash = hex.EncodeToString(sum[:])
	p.Mode = p.words()
	return p
}

func (s *shaper) recipients() []string {
	n := 1
	switch s.rand.IntN(20) {
	case 0, 1, 2, 3, 4:
		n = 2 + s.rand.IntN(4)
	case 5:
		n = 1 + s.rand.IntN(mostTo)
	}
	to := make([]string, n)
	for i := range to {
		site := s.sites[s.rand.IntN(len(s.sites))]
		who := "user"
		if site == "users.example" && s.rand.IntN(2) == 0 {
			who = "nobody"
		}
		to[i] = fmt.Sprintf("%s%d@%s", who, i, site)
	}
	return to
}

// content makes the message. Its first line tells the sinks where it begins below trace headers.
func (s *shaper) content(p *plan) []byte {
	size := int(smallest * math.Pow(float64(s.largest)/smallest, s.rand.Float64()))
	if p.fate == oversize {
		size = messageLimit + 1 + s.rand.IntN(smallest)
	}
	b := make([]byte, 0, size+2048)
	b = fmt.Appendf(b, "Message-ID: <%s>\r\nFrom: Crash <%s>\r\nSubject: %s\r\n", p.Token, sender, p.Token)
	if p.fate == loop {
		for i := range 60 {
			b = fmt.Appendf(b, "Received: from hop%d.example by hop%d.example; Thu, 1 Jan 2026 00:00:00 +0000\r\n", i, i+1)
		}
	}
	b = append(b, "\r\n"...)
	if size <= len(b) {
		return b
	}
	from := s.text.lines[s.rand.IntN(len(s.text.lines))]
	b = append(b, s.text.octets[from:from+size-len(b)]...)
	b = bytes.TrimSuffix(b, []byte("\r"))
	if !bytes.HasSuffix(b, []byte("\r\n")) {
		b = append(b, "\r\n"...)
	}
	return b
}

// words describe the plan for people who read the ledger.
func (p *plan) words() string {
	words := []string{[...]string{"finish", "reset", "break off", "forget", "oversize", "loop"}[p.fate]}
	if p.chunks > 0 {
		words = append(words, fmt.Sprintf("BDAT in %d", p.chunks))
	} else {
		words = append(words, "DATA")
	}
	if p.pipelined {
		words = append(words, "pipelined")
	}
	return strings.Join(words, ", ")
}
