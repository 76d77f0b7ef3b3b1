package smtpserver

import (
	"fmt"
	"strings"
	"testing"
)

// TestBdatWithoutRecipient is B-1: the octets of a chunk that has no place are read over, whatever they say.
func TestBdatWithoutRecipient(t *testing.T) {
	t.Parallel()
	b := refusing()
	c := dial(t, newTestServer(t, b, nil))
	chunk := fmt.Sprintf("BDAT %d LAST\r\n%s", len(smuggled), smuggled)
	c.send(chunk)
	c.want("503 5.5.1")
	c.hello()
	c.send(chunk + "NOOP\r\n")
	c.want("503 5.5.1", "250")
	c.do("MAIL FROM:<a@example.org> => 250")
	c.send(chunk)
	c.want("503 5.5.1")
	c.do("MAIL FROM:<a@example.org> => 250", "RCPT TO:<refused@example.net> => 550")
	c.send(chunk)
	c.want("554 5.5.1")
	c.quit()
	if n := len(b.messages()); n != 0 {
		t.Errorf("%d messages", n)
	}
}

// TestBdatArguments is B-2: when the number of octets cannot be read the frame is lost, and the session with it.
func TestBdatArguments(t *testing.T) {
	t.Parallel()
	for _, arg := range []string{
		"", " -1", " 1e3", " 0x10", " 10 LASTT", " 99999999999999999999", " LAST", " 1 LAST x", " 1\x00", "\t1",
	} {
		for _, inTransaction := range []bool{false, true} {
			b := &backend{}
			c := dial(t, newTestServer(t, b, nil))
			c.hello()
			if inTransaction {
				c.envelope()
			}
			c.send("BDAT" + arg + "\r\n")
			if strings.HasPrefix(arg, "\t") {
				c.want("500") // no BDAT at all
				continue
			}
			c.want("501 5.5.4")
			if rest := c.wantEnd(); rest != "" {
				t.Errorf("BDAT%s: then %q", arg, rest)
			}
		}
	}
}

// TestBdatTooLarge is B-3: a chunk beyond the limit is read over, and so are those behind it until RSET.
func TestBdatTooLarge(t *testing.T) {
	t.Parallel()
	b := &backend{}
	c := dial(t, newTestServer(t, b, func(o *Options) { o.Limits.MessageBytes = 64 << 10 }))
	c.hello()
	for _, first := range []string{"\r\n" + lines(900, 70), "\r\n" + lines(1000, 70)} {
		c.envelope()
		c.send(fmt.Sprintf("BDAT %d\r\n%s", len(first), first))
		if len(first) < 64<<10 {
			c.want("250")
			c.send(fmt.Sprintf("BDAT %d\r\n%s", len(first), first))
		}
		c.want("552 5.3.4")
		c.send(fmt.Sprintf("BDAT %d\r\n%s", len(smuggled), smuggled))
		c.want("503")
		c.do("MAIL FROM:<a@example.org> => 503", "RSET => 250")
	}
	c.envelope()
	c.send("BDAT 3 LAST\r\nx\r\n")
	c.want("250")
	c.quit()
	if n := len(b.messages()); n != 1 {
		t.Errorf("%d messages", n)
	}
}

// TestBdatBetweenChunks is B-4.
func TestBdatBetweenChunks(t *testing.T) {
	t.Parallel()
	b := &backend{}
	c := dial(t, newTestServer(t, b, nil))
	c.hello()
	c.envelope()
	c.send("BDAT 3\r\na\r\n")
	c.want("250")
	c.do("NOOP => 250", "MAIL FROM:<x@example.org> => 503", "RCPT TO:<x@example.net> => 503", "VRFY x => 252")
	c.send("BDAT 3 LAST\r\nb\r\n")
	c.want("250")
	c.envelope()
	c.send("BDAT 3\r\nc\r\n")
	c.want("250")
	c.do("RSET => 250")
	c.send("BDAT 3 LAST\r\nd\r\n")
	c.want("503")
	c.envelope()
	c.send("BDAT 3\r\nc\r\n")
	c.want("250")
	c.do("DATA => 503") // RFC 3030, 2: the transaction is lost
	c.send("BDAT 3 LAST\r\nd\r\n")
	c.want("503")
	c.envelope()
	c.send("BDAT 3\r\ne\r\n")
	c.want("250")
	c.do("QUIT => 221")
	c.wantEnd()
	if m := b.messages(); len(m) != 1 || m[0].body != "a\r\nb\r\n" {
		t.Errorf("%+v", m)
	}
}

// TestBdatContent is B-5: dots are no dots, cuts may fall anywhere, stray CR and LF are refused, and a last line
// without CRLF gets one.
func TestBdatContent(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		chunks []string
		want   string // body, or a reply if it begins with 5
		flag   string
	}{
		{"empty", []string{""}, "", ""},
		{"dots", []string{"a\r\n.\r\n..b\r\n"}, "a\r\n.\r\n..b\r\n", "."},
		{"cut inside CRLF", []string{"a\r", "\nb\r", "\n"}, "a\r\nb\r\n", ""},
		{"cut inside CRLF, empty last", []string{"a\r", "\n", ""}, "a\r\n", ""},
		{"no CRLF at the end", []string{"a\r\nb"}, "a\r\nb\r\n", ""},
		{"8 bit", []string{"gr\xc3", "\xbc\r\n"}, "gr\xc3\xbc\r\n", "8"},
		{"bare LF", []string{"a\nb\r\n"}, "554 5.6.0", ""},
		{"bare CR at the end", []string{"a\r"}, "554 5.6.0", ""},
		{"bare CR by cut", []string{"a\r", "b\r\n"}, "554 5.6.0", ""},
		{"NUL", []string{"a\x00\r\n"}, "554 5.6.0", ""}, // Z-8
	}
	b := &backend{}
	c := dial(t, newTestServer(t, b, nil))
	c.hello()
	for _, tt := range tests {
		before := len(b.messages())
		c.envelope()
		for i, chunk := range tt.chunks {
			if i < len(tt.chunks)-1 {
				c.send(fmt.Sprintf("BDAT %d\r\n%s", len(chunk), chunk))
				c.want("250")
				continue
			}
			c.send(fmt.Sprintf("BDAT %d LAST\r\n%s", len(chunk), chunk))
		}
		got := c.reply()
		if strings.HasPrefix(tt.want, "5") {
			if !strings.HasPrefix(got, tt.want) || len(b.messages()) != before {
				t.Errorf("%s: reply %q", tt.name, got)
			}
			continue
		}
		m := b.messages()[before:]
		if !strings.HasPrefix(got, "250") || len(m) != 1 || m[0].body != tt.want || m[0].flag != tt.flag {
			t.Errorf("%s: reply %q, %+v", tt.name, got, m)
		}
	}
	c.quit()
}

// TestBdatTinyChunks is B-6: chunks of one octet cost no memory each, and cannot go on for ever.
func TestBdatTinyChunks(t *testing.T) {
	t.Parallel()
	b := &backend{}
	s := newTestServer(t, b, func(o *Options) { o.Logger = nil })
	c := dial(t, s)
	c.hello()
	c.envelope()
	const n = maxChunks + 100
	go func() {
		group := []byte(strings.Repeat("BDAT 1\r\nx", 1000))
		for range n/1000 + 1 {
			if _, err := c.conn.Write(group); err != nil {
				return
			}
		}
	}()
	replies := map[string]int{}
	for {
		r := c.reply()
		replies[r[:3]]++
		if r[:3] == "421" {
			break
		}
		if got := held(s); got > 2*maxChunks {
			t.Fatalf("%d octets are held", got)
		}
	}
	if replies["250"] != maxChunks || replies["554"] != 1 {
		t.Errorf("replies %v", replies)
	}
	if n := len(b.messages()); n != 0 {
		t.Errorf("%d messages", n)
	}
}

// TestBdatBodyTypes is B-7: BINARYMIME is not offered, so neither is a body of that type taken.
func TestBdatBodyTypes(t *testing.T) {
	t.Parallel()
	c := dial(t, newTestServer(t, &backend{}, nil))
	c.hello()
	c.do("MAIL FROM:<a@example.org> BODY=BINARYMIME => 501", "RCPT TO:<b@example.net> => 503", "DATA => 503")
	c.quit()
}

// TestBdatDisconnect is B-8: nothing of a message whose connection is lost is kept, and its memory comes back.
func TestBdatDisconnect(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"BDAT 1000 LAST\r\nabc", "BDAT 3\r\nx\r\n", "BDAT 3 LA",
		"DATA\r\nabc\r\n", "DATA\r\nabc\r\n.", "DATA\r\nabc\r\n.\r",
	} {
		b := &backend{}
		s := newTestServer(t, b, nil)
		c := dial(t, s)
		c.hello()
		c.envelope()
		c.send(text)
		_ = c.conn.Close()
		<-c.done
		if n := len(b.messages()); n != 0 || held(s) != 0 || b.mu.closes != 1 || s.Sessions() != 0 {
			t.Errorf("%q: %d messages, %d octets held, %d sessions closed", text, n, held(s), b.mu.closes)
		}
	}
}

// TestBdatPipelinedAfterFailure is B-9: chunks that were on their way are read over one by one; the last frees the
// session for the next transaction.
func TestBdatPipelinedAfterFailure(t *testing.T) {
	t.Parallel()
	b := &backend{}
	c := dial(t, newTestServer(t, b, nil))
	c.hello()
	big := strings.Repeat("0123456789abcdef\r\n", 100)
	group := "MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nBDAT 4\r\nx\ny\n"
	for range 100 { // more than bad commands are allowed: they are none
		group += fmt.Sprintf("BDAT %d\r\n%s", len(big), big)
	}
	group += "BDAT 3 LAST\r\nx\r\nMAIL FROM:<c@example.org>\r\nRCPT TO:<d@example.net>\r\nBDAT 3 LAST\r\ny\r\nQUIT\r\n"
	go c.send(group)
	c.want("250", "250", "554")
	for range 101 {
		c.want("503")
	}
	c.want("250", "250", "250", "221")
	c.wantEnd()
	if m := b.messages(); len(m) != 1 || m[0].body != "y\r\n" || m[0].env.From.Local != "c" {
		t.Errorf("%+v", m)
	}
}

// TestBdatAfterDataError is R-8: a BDAT that failed leaves nothing that DATA could stumble over.
func TestBdatAfterDataError(t *testing.T) {
	t.Parallel()
	c := dial(t, newTestServer(t, &backend{}, nil))
	c.hello()
	c.envelope()
	c.send("BDAT 3 LAST\r\nx\ny")
	c.want("554")
	c.do("DATA => 503", "RCPT TO:<b@example.net> => 503")
	c.envelope()
	c.send("BDAT 3\r\nx\ny")
	c.want("554")
	c.do("DATA => 503", "RSET => 250", "DATA => 503")
	c.quit()
}
