package smtpserver

import "testing"

// TestRequireTLS: REQUIRETLS is for sessions over TLS (RFC 8689, 2 and 4.1).
func TestRequireTLS(t *testing.T) {
	t.Parallel()
	b := &backend{}
	c := dialBuffered(t, newTestServer(t, b, withTLS(t)))
	c.want("220")
	if c.offers().RequireTLS {
		t.Error("offered in the clear")
	}
	c.do("MAIL FROM:<a@example.org> REQUIRETLS => 555 5.5.4", "MAIL FROM:<a@example.org> => 250", "RSET => 250")
	c.startTLS()
	if !c.offers().RequireTLS {
		t.Error("not offered over TLS")
	}
	c.do("MAIL FROM:<a@example.org> REQUIRETLS=yes => 501", "MAIL FROM:<a@example.org> REQUIRETLS REQUIRETLS => 501",
		"MAIL FROM:<a@example.org> requiretls => 250", "RCPT TO:<b@example.net> => 250", "DATA => 354", ". => 250",
		"MAIL FROM:<a@example.org> => 250", "RCPT TO:<b@example.net> => 250", "DATA => 354", ". => 250")
	c.quit()
	b.mu.Lock()
	defer b.mu.Unlock()
	got := b.mu.messages
	if len(got) != 2 || !got[0].env.From.RequireTLS || got[1].env.From.RequireTLS {
		t.Errorf("the backend got %+v", got)
	}
}
