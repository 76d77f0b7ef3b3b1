//go:build interop

package interop

import (
	"bytes"
	"fmt"
	"strings"
)

// sample is a message that servers are known to damage.
type sample struct {
	name  string
	text  []byte // in wire form
	eight bool   // octets above 127 in the body
	utf8  bool   // UTF-8 in the header, which needs SMTPUTF8 (RFC 6531)
	raw   bool   // only smtplib sends it as it is
}

// mailOptions are the parameters of MAIL that a client has to give for it.
func (s *sample) mailOptions() []string {
	switch {
	case s.utf8:
		return []string{"SMTPUTF8", "BODY=8BITMIME"} // SMTPUTF8 needs 8BITMIME beside it (RFC 6531, 3.6)
	case s.eight:
		return []string{"BODY=8BITMIME"}
	}
	return nil
}

const header = "From: Application <app@app.example>\r\nTo: Somebody <somebody@box.example>\r\n" +
	"Date: Sat, 21 Nov 2026 12:00:00 +0000\r\nMessage-ID: <sample@app.example>\r\nMIME-Version: 1.0\r\n"

func samples() []sample {
	text := func(fields, body string) []byte { return []byte(header + fields + "\r\n" + body) }
	return []sample{
		{name: "plain", text: text("Subject: plain\r\n", "Hello.\r\n")},
		{name: "dots", text: text("Subject: dots\r\n", ".\r\n..\r\n...\r\n.x\r\n. \r\n\r\n.\r\n.\r\n\r\nend\r\n")},
		{name: "last-dot", text: text("Subject: dot at the end\r\n", "one\r\n.\r\n"), raw: true},
		{name: "8bit", eight: true, text: text("Subject: 8bit\r\nContent-Type: text/plain; charset=utf-8\r\n"+
			"Content-Transfer-Encoding: 8bit\r\n", "Grüße, 你好, привет.\r\n\xe9t\xe9 in Latin-1\r\n")},
		{name: "octets", eight: true, raw: true, text: text("Subject: octets\r\nContent-Type: application/octet-stream\r\n"+
			"Content-Transfer-Encoding: 8bit\r\n", octets())},
		{name: "utf8-header", eight: true, utf8: true, text: text("Subject: Grüße aus 北京\r\nContent-Type: text/plain; charset=utf-8\r\n"+
			"Content-Transfer-Encoding: 8bit\r\n", "Ünïcödé\r\n")},
		{name: "long-lines", text: text("Subject: long lines\r\nX-Long: "+strings.Repeat("h", 998-len("X-Long: "))+"\r\n",
			strings.Repeat("b", 998)+"\r\n."+strings.Repeat("d", 997)+"\r\nend\r\n")},
		{name: "longer-lines", raw: true, text: text("Subject: lines beyond the limit\r\n", // RFC 5322, 2.1.1; real mail has them
			strings.Repeat("l", 4000)+"\r\n"+strings.Repeat("m", 2048)+"\r\nend\r\n")},
		{name: "long-header", text: text("Subject: 60 KB of header\r\n"+manyFields(60<<10), "body\r\n")},
		{name: "spaces", text: text("Subject:  spaces \t \r\nX-Empty:\r\nX-Blank: \r\nX-Folded: a\r\n\tb\r\n  c\r\n",
			" \r\n\t\r\ntrailing  \r\n\t \r\n\r\n\r\n")},
		{name: "empty-body", text: text("Subject: nothing\r\n", ""), raw: true},
		{name: "no-final-crlf", text: text("Subject: no end\r\n", "the last line has no end"), raw: true},
		{name: "from-lines", text: text("Subject: From\r\n", "From here on\r\n>From there\r\nFrom app@app.example Sat Nov 21 12:00:00 2026\r\n")},
	}
}

// letter returns the sample of a name.
func letter(name string) sample {
	for _, m := range samples() {
		if m.name == name {
			return m
		}
	}
	panic("there is no sample " + name)
}

// arrived is what must reach the mailbox: a last line without an end gets one from the client.
func (s *sample) arrived() []byte {
	if bytes.HasSuffix(s.text, []byte("\r\n")) {
		return s.text
	}
	return append(bytes.Clone(s.text), "\r\n"...)
}

// octets is lines that hold all octets that 8BITMIME allows (RFC 6152, 2), in several orders and line lengths.
func octets() string {
	var b strings.Builder
	for shift := range 8 {
		for c := 1; c < 256; c++ {
			if v := byte(c*(2*shift+1)%255 + 1); v != '\r' && v != '\n' {
				b.WriteByte(v)
			}
			if c%(31+shift) == 0 {
				b.WriteString("\r\n")
			}
		}
		b.WriteString("\r\n")
	}
	return b.String()
}

func manyFields(size int) string {
	var b strings.Builder
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, "X-Field-%d: %s\r\n", i, strings.Repeat("v", i*37%900))
		if i%10 == 0 {
			fmt.Fprintf(&b, "X-Folded-%d:%s\r\n", i, strings.Repeat("\r\n\tfolded value of some length", 40))
		}
	}
	return b.String()
}

// large is a message of about size octets in lines of all lengths, of which some begin with dots.
func large(size int) []byte {
	var b bytes.Buffer
	b.Grow(size + 2000)
	b.WriteString(header + "Subject: large\r\n\r\n")
	line := strings.Repeat("0123456789abcdefghijklmnopqrstuvwxyz", 28)[:998]
	for i := 0; b.Len() < size; i++ {
		if i%13 == 0 {
			b.WriteByte('.')
		}
		b.WriteString(line[:i*7919%998])
		b.WriteString("\r\n")
	}
	return b.Bytes()
}
