package smtpserver

import (
	"bytes"
	"context"
	"log/slog"
	"strconv"
	"strings"
	"testing"

	"github.com/godwit-mta/godwit/smtp"
)

func TestOneMessage(t *testing.T) {
	t.Parallel()
	b := &backend{}
	c := dial(t, newTestServer(t, b, nil))
	c.hello()
	c.envelope()
	c.do("DATA => 354")
	c.send("Subject: x\r\n\r\n..dots\r\n.\r\n")
	c.want("250 2.0.0 queued")
	c.quit()
	m := b.messages()
	if len(m) != 1 || m[0].body != "Subject: x\r\n\r\n.dots\r\n" || m[0].flag != "." {
		t.Fatalf("%+v", m)
	}
}

// TestRefusedGroups: what pipelining sends behind a MAIL that was refused is answered, and is no reason to end the
// session.
func TestRefusedGroups(t *testing.T) {
	t.Parallel()
	b := &backend{onMail: func(from *smtp.Sender) smtp.Reply {
		if from.Local == "refused" {
			return say(550, 7, 1, "no")
		}
		return smtp.Reply{}
	}}
	c := dial(t, newTestServer(t, b, func(o *Options) { o.Logger = nil }))
	c.hello()
	for range 30 {
		go c.send("MAIL FROM:<refused@example.org>\r\n" + strings.Repeat("RCPT TO:<b@example.net>\r\n", 100) + "DATA\r\n")
		c.want("550")
		for range 101 {
			c.want("503")
		}
	}
	c.envelope()
	c.do("DATA => 354")
	c.send(".\r\n")
	c.want("250")
	c.quit()
}

// TestRefusedDataForm: DATA may be refused for its form alone; its message is not taken for commands either.
func TestRefusedDataForm(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"DATA x", "DATA \x00", "DATA \xff"} {
		b := &backend{}
		c := dial(t, newTestServer(t, b, nil))
		c.hello()
		c.envelope()
		c.send(line + "\r\n" + smuggled + ".\r\n")
		c.want("50")
		if rest := c.wantEnd(); rest != "" || len(b.messages()) != 0 {
			t.Errorf("%q: then %q, %d messages", line, rest, len(b.messages()))
		}
	}
}

// TestHangUp is R-4: where nobody knows whether a message was kept, no reply says so.
func TestHangUp(t *testing.T) {
	t.Parallel()
	b := &backend{onData: func(context.Context, *smtp.Envelope, *smtp.Body) smtp.Reply { return HangUp() }}
	c := dial(t, newTestServer(t, b, nil))
	c.hello()
	c.envelope()
	c.send("DATA\r\n")
	c.want("354")
	c.send("Subject: x\r\n\r\nhi\r\n.\r\nNOOP\r\n")
	if rest := c.wantEnd(); rest != "" {
		t.Errorf("said %q", rest)
	}
}

// TestTranscript: the level below debug shows what was said, but nothing of a message.
func TestTranscript(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	s := newTestServer(t, &backend{}, func(o *Options) {
		o.Logger = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: LevelTranscript}))
	})
	c := dial(t, s)
	c.hello()
	c.envelope()
	c.do("DATA => 354")
	c.send("Subject: secret\r\n\r\nsecret\r\n.\r\n")
	c.want("250")
	c.envelope()
	c.send("BDAT 8 LAST\r\nsecret\r\n")
	c.want("250")
	c.quit()
	<-c.done
	text := log.String()
	for _, want := range []string{
		"EHLO client.example", "220 mx.example.org ESMTP", "PIPELINING", "MAIL FROM:", "354 End data", "BDAT 8 LAST", "221 2.0.0",
		`"from":"ready","to":"mail"`, `"cause":"quit"`, `"messages":2`,
	} {
		if !strings.Contains(text, strings.NewReplacer("<", `\u003c`, ">", `\u003e`).Replace(want)) {
			t.Errorf("the log lacks %q", want)
		}
	}
	if strings.Contains(text, "secret") {
		t.Errorf("the log shows a message: %s", text)
	}
}

// panicky is a backend session that fails when it is closed.
type panicky struct{ acceptAll }

func (panicky) NewSession(context.Context, *Peer) (Session, smtp.Reply) {
	return panicky{}, smtp.Reply{}
}
func (panicky) Close() { panic("on purpose") }

func TestPanicOnClose(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, panicky{}, nil)
	c := dial(t, s)
	c.quit()
	<-c.done
	if s.Sessions() != 0 || counted(t, s.metrics.panics) != 1 {
		t.Errorf("%d sessions, %v panics", s.Sessions(), counted(t, s.metrics.panics))
	}
}

func TestSmallCommands(t *testing.T) {
	t.Parallel()
	c := dial(t, newTestServer(t, &backend{}, nil))
	c.do("HELP => 214 2.0.0", "NOOP x y => 250 2.0.0", "VRFY => 501 5.5.4", "VRFY a => 252 2.0.0", "EXPN a => 502 5.5.1",
		"RSET x => 501 5.5.4", "QUIT x => 501 5.5.4", "HELO x => 250 mx.example.org", "MAIL FROM:<a@example.org> => 250",
		"DATA x => 501 5.5.4", "HELO x => 250", "RCPT TO:<b@example.net> => 503", "MAIL FROM:<a@example.org> => 250",
		"MAIL FROM:<a@example.org> => 503", "RCPT <b@example.net> => 501")
	c.quit()
}

// TestNormalizedChunks: clients without CRLF are helped over BDAT too, and what lies in their last octets is not lost.
func TestNormalizedChunks(t *testing.T) {
	t.Parallel()
	b := &backend{}
	c := dial(t, newTestServer(t, b, func(o *Options) { o.Normalize = true }))
	c.hello()
	for chunk, want := range map[string]string{
		"a\nb\n": "a\r\nb\r\n", "a\rb": "ab\r\n", "a\r": "a\r\n", "a\n\r": "a\r\n", ".\n..\r\n": ".\r\n..\r\n",
		strings.Repeat("x\n", 9000): strings.Repeat("x\r\n", 9000),
	} {
		b.mu.messages = nil
		c.envelope()
		c.send("BDAT " + strconv.Itoa(len(chunk)) + " LAST\r\n" + chunk)
		c.want("250")
		if m := b.messages(); len(m) != 1 || m[0].body != want {
			t.Errorf("%.20q: %d messages, body %.40q", chunk, len(m), m[0].body)
		}
	}
	c.quit()
}
