package smtpserver

import (
	"fmt"
	"strings"
	"testing"

	"github.com/godwit-mta/godwit/smtp"
)

// refusing is a backend that refuses the recipient "refused".
func refusing() *backend {
	return &backend{
		onRcpt: func(r *smtp.Recipient) smtp.Reply {
			if r.Local == "refused" {
				return say(550, 1, 1, "no such user")
			}
			return smtp.Reply{}
		},
	}
}

// Steps that lead to states, each with its reply.
const (
	stepHello  = "EHLO x\r\n => 250"
	stepMail   = "MAIL FROM:<a@example.org>\r\n => 250"
	stepRcpt   = "RCPT TO:<b@example.net>\r\n => 250"
	stepNoRcpt = "RCPT TO:<refused@example.net>\r\n => 550"
	stepData   = "DATA\r\n => 354"
)

// stateSetups leads to each state of the table.
var stateSetups = []struct {
	name  string
	steps []string
}{
	{"connected", nil},
	{"greeted", []string{stepHello}},
	{"mail", []string{stepHello, stepMail}},
	{"rcpt", []string{stepHello, stepMail, stepRcpt}},
	{"failed-rcpt", []string{stepHello, stepMail, stepNoRcpt}},
	{"mid-bdat", []string{stepHello, stepMail, stepRcpt, "BDAT 3\r\nx\r\n => 250"}},
	{"failed-bdat", []string{stepHello, stepMail, stepRcpt, "BDAT 3\r\nx\ny => 554"}},
	{"after-data", []string{stepHello, stepMail, stepRcpt, stepData, "Subject: x\r\n\r\n.\r\n => 250"}},
	{"after-refused-data", []string{stepHello, stepMail, stepRcpt, stepData, "x\ny\r\n.\r\n => 554"}},
}

// stateVerbs are the columns: what is sent, and the code of its reply in each of stateSetups.
var stateVerbs = []struct {
	send  string
	codes string
}{
	{"HELO x\r\n", "250 250 250 250 250 250 250 250 250"},
	{"EHLO x\r\n", "250 250 250 250 250 250 250 250 250"},
	{"STARTTLS\r\n", "502 502 502 502 502 502 502 502 502"},
	{"AUTH PLAIN AGEAYg==\r\n", "502 502 502 502 502 502 502 502 502"},
	{"MAIL FROM:<c@example.org>\r\n", "503 250 503 503 503 503 503 250 250"},
	{"RCPT TO:<d@example.net>\r\n", "503 503 250 250 250 503 503 503 503"},
	{"DATA\r\n", "503 503 503 354 554 503 503 503 503"},
	{"BDAT 3\r\nz\r\n", "503 503 503 250 554 250 503 503 503"},
	{"BDAT 0 LAST\r\n", "503 503 503 250 554 250 503 503 503"},
	{"RSET\r\n", "250 250 250 250 250 250 250 250 250"},
	{"NOOP\r\n", "250 250 250 250 250 250 250 250 250"},
	{"VRFY a\r\n", "252 252 252 252 252 252 252 252 252"},
	{"QUIT\r\n", "221 221 221 221 221 221 221 221 221"},
	{"XYZZY\r\n", "500 500 500 500 500 500 500 500 500"},
}

// TestStateTable is S-STATE: every verb in every state. Afterwards the session still answers, and the envelope is what
// it must be: empty behind any final reply to DATA or BDAT LAST, so that RCPT alone is refused.
func TestStateTable(t *testing.T) {
	t.Parallel()
	for _, verb := range stateVerbs {
		for i, setup := range stateSetups {
			name := strings.Trim(strings.TrimSpace(strings.SplitN(verb.send, "\r\n", 2)[0]), "\r\n") + "/" + setup.name
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				b := refusing()
				c := dial(t, newTestServer(t, b, nil))
				for _, step := range setup.steps {
					send, want, _ := strings.Cut(step, " => ")
					c.send(send)
					c.want(want)
				}
				code := strings.Fields(verb.codes)[i]
				before := len(b.messages())
				c.send(verb.send)
				c.want(code)
				final := strings.HasPrefix(verb.send, "DATA") || strings.Contains(verb.send, "LAST")
				switch {
				case code == "221":
					c.wantEnd()
					return
				case code == "354":
					c.send(".\r\n")
					c.want("250")
				}
				if accepted := len(b.messages()) - before; accepted != 0 && (!final || accepted > 1) {
					t.Fatalf("%d messages", accepted)
				}
				if final {
					c.do("RCPT TO:<e@example.net> => 503")
				}
				c.do("NOOP => 250", "RSET => 250", "RCPT TO:<e@example.net> => 503")
				if setup.name == "connected" && !strings.HasSuffix(verb.send[:4], "LO") {
					c.do("MAIL FROM:<f@example.org> => 503")
				}
				c.hello()
				c.envelope()
				c.do("DATA => 354")
				c.send("Subject: last\r\n\r\n.\r\n")
				c.want("250")
				last := b.messages()[len(b.messages())-1]
				if r := last.env.Recipients; len(r) != 1 || r[0].Local != "b" || last.body != "Subject: last\r\n\r\n" {
					t.Errorf("the next message is %+v", last)
				}
				c.quit()
			})
		}
	}
}

// TestEnvelopeEmptyAfterFinalReply is: whatever the backend answers to the data, nothing of the envelope is
// left and the backend is not asked to reset what it has ended.
func TestEnvelopeEmptyAfterFinalReply(t *testing.T) {
	t.Parallel()
	for _, code := range []int{250, 451, 452, 550, 554} {
		for _, how := range []string{"DATA", "BDAT"} {
			b := &backend{onData: nil}
			c := dial(t, newTestServer(t, b, nil))
			b.onData = replyWith(code)
			c.hello()
			c.envelope()
			if how == "DATA" {
				c.do("DATA => 354")
				c.send("x\r\n.\r\n")
			} else {
				c.send("BDAT 3 LAST\r\nx\r\n")
			}
			c.want(fmt.Sprint(code))
			c.do("RCPT TO:<b@example.net> => 503", "DATA => 503", "BDAT 0 LAST => 503")
			c.envelope()
			c.do("RSET => 250")
			c.quit()
			b.mu.Lock()
			if b.mu.resets != 1 || b.mu.closes != 1 {
				t.Errorf("%s %d: %d resets and %d closes", how, code, b.mu.resets, b.mu.closes)
			}
			b.mu.Unlock()
		}
	}
}

// TestUnawaitedData: a client whose DATA is refused and that did not wait has its message taken for commands by nobody.
func TestUnawaitedData(t *testing.T) {
	t.Parallel()
	b := refusing()
	c := dial(t, newTestServer(t, b, nil))
	c.hello()
	c.send("MAIL FROM:<a@example.org>\r\nRCPT TO:<refused@example.net>\r\nDATA\r\n" + smuggled + ".\r\nQUIT\r\n")
	c.want("250", "550", "554")
	if rest := c.wantEnd(); rest != "" {
		t.Errorf("then %q", rest)
	}
	if n := len(b.messages()); n != 0 {
		t.Errorf("%d messages", n)
	}
}

func TestHelloNames(t *testing.T) {
	t.Parallel()
	tests := []struct{ arg, want, seen string }{
		{"client.example", "250", "client.example"},
		{"[192.0.2.1]", "250", "[192.0.2.1]"},
		{"[IPv6:2001:db8::1]", "250", "[IPv6:2001:db8::1]"},
		{"my_host", "250", "my_host"},
		{"a);x", "250", "a??x"},       // I-7
		{"a\"<b>\\", "250", "a??b??"}, // I-7
		{strings.Repeat("x", 255), "250", strings.Repeat("x", 255)},
		{strings.Repeat("x", 256), "501", ""},  // I-7
		{strings.Repeat("x", 1024), "501", ""}, // I-7
		{"a\x1b[31mb", "500", ""},              // I-7
		{"a\x00b", "500", ""},                  // Z-8
		{"a\tb", "500", ""},
		{"ü", "250", "??"},
		{"\xff", "501", ""},
		{"", "501", ""},
		{"a b", "501", ""},
	}
	for _, tt := range tests {
		for _, verb := range []string{"HELO", "EHLO"} {
			b := &backend{}
			c := dial(t, newTestServer(t, b, nil))
			c.do(verb + " " + tt.arg + " => " + tt.want)
			c.quit()
			if p := b.mu.peers[0]; p.Hello != tt.seen || tt.seen != "" && p.ESMTP != (verb == "EHLO") {
				t.Errorf("%s %q: %+v", verb, tt.arg, p)
			}
		}
	}
	p := Peer{}
	if p.Protocol(false) != "SMTP" || p.Protocol(true) != "UTF8SMTP" {
		t.Error("protocol words")
	}
	p.ESMTP = true
	if p.Protocol(false) != "ESMTP" {
		t.Error("protocol words")
	}
}

func TestExtensionsOffered(t *testing.T) {
	t.Parallel()
	c := dial(t, newTestServer(t, &backend{}, func(o *Options) { o.Limits.MessageBytes = 123456 }))
	c.send("EHLO x\r\n")
	words := strings.ReplaceAll(strings.ReplaceAll(c.reply(), "250-", ""), "250 ", "")
	x := smtp.ParseExtensions(words)
	if !x.Pipelining || !x.EightBitMIME || !x.SMTPUTF8 || !x.DSN || !x.EnhancedCodes || !x.Chunking ||
		x.Size != 123456 || x.RcptMax != 1000 || x.StartTLS || len(x.Auth) > 0 ||
		!strings.HasPrefix(words, "mx.example.org\n") {
		t.Errorf("%q gives %+v", words, x)
	}
	c.quit()
}

// TestAddresses holds what the session does with addresses; the grammar has its own tests in package smtp.
func TestAddresses(t *testing.T) {
	t.Parallel()
	b := &backend{}
	c := dial(t, newTestServer(t, b, nil))
	c.hello()
	c.do(
		"MAIL FROM:<ü@example.org> => 553 5.6.7", // U-1
		"RCPT TO:<b@example.net> => 503",         // U-3: no state was left
		"DATA => 503",
		"MAIL FROM:<a\xff@example.org> => 501",   // R-23, U-4
		"MAIL FROM:<a@example.org> SIZE=1 SIZE=1 => 501 5.5.4",
		"MAIL FROM:<a@example.org> FOO=1 => 555 5.5.4",
		"MAIL <a@example.org> => 501 5.5.4",
		"MAIL FROM:a@example.org => 501 5.1.7",
		"MAIL FROM:<a@example.org> => 250",
		"RCPT TO:<ü@example.net> => 553 5.6.7", // U-1: this transaction has no SMTPUTF8
		"RCPT TO:<> => 501 5.1.3",
		"RCPT TO:<b@example.net> NOTIFY=NEVER,SUCCESS => 501 5.5.4",  // I-5
		"RCPT TO:<b@example.net> ORCPT=rfc822;a+0D+0Ab => 501 5.5.4", // I-5
		"RCPT TO:<Bob.O'Hara@Example.net> NOTIFY=DELAY ORCPT=rfc822;x+2By@example.net => 250",
		"RCPT TO:<@relay.example:c@example.net> => 250",
		"DATA => 354",
	)
	c.send("\r\n.\r\n")
	c.want("250")
	c.do("MAIL FROM:<ü@bücher.example> SMTPUTF8 BODY=8BITMIME RET=HDRS ENVID=a+3Db => 250",
		"RCPT TO:<ö@example.net> => 250")
	c.do("DATA => 354")
	c.send("grüße\r\n.\r\n")
	c.want("250")
	c.quit()
	m := b.messages()
	if len(m) != 2 {
		t.Fatalf("%d messages", len(m))
	}
	r := m[0].env.Recipients
	bob, carol := smtp.Path{Local: "Bob.O'Hara", Domain: "Example.net"}, smtp.Path{Local: "c", Domain: "example.net"}
	if len(r) != 2 || r[0].Path != bob || r[0].Notify != smtp.NotifyDelay || // the case is kept
		r[0].Original.Address != "x+y@example.net" || r[1].Path != carol {
		t.Errorf("%+v", r)
	}
	from := m[1].env.From
	if from.Local != "ü" || !from.UTF8 || from.Body != smtp.Body8BitMIME || from.Return != smtp.ReturnHeaders ||
		from.EnvelopeID != "a=b" || m[1].flag != "8" {
		t.Errorf("%+v %q", from, m[1].flag)
	}
}

// TestManyRecipients keeps each where the backend was shown it, and its words from being overwritten by the next.
func TestManyRecipients(t *testing.T) {
	t.Parallel()
	b := refusing()
	c := dial(t, newTestServer(t, b, func(o *Options) { o.Logger = nil }))
	c.hello()
	c.do("MAIL FROM:<a@example.org> => 250")
	for i := range 300 {
		c.do(fmt.Sprintf("RCPT TO:<u%d@%s.example> => 250", i, strings.Repeat("d", i%60+1)))
		if i%7 == 0 {
			c.do("RCPT TO:<refused@example.net> => 550")
		}
	}
	c.do("DATA => 354")
	c.send(".\r\n")
	c.want("250")
	c.quit()
	m := b.messages()[0]
	if len(m.env.Recipients) != 300 || m.env.From.Local != "a" {
		t.Fatalf("%d recipients of %v", len(m.env.Recipients), m.env.From)
	}
	for i, r := range m.env.Recipients {
		if r.Local != fmt.Sprintf("u%d", i) || r.Domain != strings.Repeat("d", i%60+1)+".example" {
			t.Errorf("recipient %d is %v", i, r)
		}
	}
}
