package smtpclient_test

import (
	"strings"
	"testing"

	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/smtpclient"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// TestR5: bodies of dots arrive as they are, whatever way they go, and the session goes on.
func TestR5(t *testing.T) {
	t.Parallel()
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			p := loopback(t, smtptest.Script{})
			c := p.open(t, way.o)
			var all []*smtpclient.Transaction
			for i, body := range []string{
				".\r\n", "..\r\n", "...\r\n", strings.Repeat(".\r\n", 5000), strings.Repeat("..\r\n.\r\n", 5000),
				"\r\n.\r\n\r\n", "Subject: x\r\n\r\n.\r\n.\r\nQUIT\r\n", strings.Repeat(".", 900) + "\r\n",
			} {
				tx := message(strings.Repeat("d", i+1), 1, body)
				if err := c.Send(t.Context(), tx); err != nil {
					t.Fatalf("body %d: %v", i, err)
				}
				all = append(all, tx)
			}
			p.judge(t, all...)
		})
	}
}

// TestR12: an enhanced code is that of its own reply, and none is left over from an earlier one.
func TestR12(t *testing.T) {
	t.Parallel()
	p := loopback(t, smtptest.Script{Rules: []smtptest.Rule{
		{At: smtptest.AtRcpt, From: 3, Reply: "550 No"},
		{At: smtptest.AtRcpt, From: 2, Reply: "550-5.1.1 Nobody\n5.1.1 at all"},
		{At: smtptest.AtRcpt, Reply: "450 4.2.2 Full"},
	}})
	c := p.open(t, smtpclient.Options{})
	tx := message("r", 3, letter)
	_ = c.Send(t.Context(), tx) // all are refused
	want := []smtp.EnhancedCode{{Class: 4, Subject: 2, Detail: 2}, {Class: 5, Subject: 1, Detail: 1}, {}}
	for i, r := range tx.Result.Recipients {
		if r.Reply.Enhanced != want[i] {
			t.Errorf("recipient %d: %+v, want %v", i, r.Reply, want[i])
		}
	}
}
