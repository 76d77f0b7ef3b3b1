package smtpserver

import (
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
