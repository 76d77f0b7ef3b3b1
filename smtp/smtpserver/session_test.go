package smtpserver

import "testing"

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
