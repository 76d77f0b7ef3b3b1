//go:build interop

package interop

import "testing"

// testSuccess asks for news of success: who passes the wish on stays silent, who cannot says "relayed" (RFC 3461, 5.2.2).
func (s *site) testSuccess(t *testing.T) {
	for _, c := range []struct {
		name, to, action string
		reporter         string // whose report it is
		long             bool
	}{
		{"postfix", "success@box.example", "delivered", "postfix.example", false},
		{"old", "success@old.example", "relayed", "godwit.example", false},
		{"exim", "success@exim.example", "relayed", "godwit.example", true},
		{"dovecot", "success@dovecot.example", "relayed", "godwit.example", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.long && s.short {
				t.Skip("not in the short run")
			}
			t.Parallel()
			from := "success-" + c.name + "@app.example"
			s.smtplib(t, outgoing{from: from, to: []string{c.to}, text: letter("plain").text,
				mail: []string{"ENVID=yes+2B" + c.name}, rcpt: []string{"NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;first@app.example"}})
			r := s.report(t, from)
			if len(r.Recipients) != 1 {
				t.Fatalf("the report is about %d recipients", len(r.Recipients))
			}
			b := r.Recipients[0]
			if b["action"] != c.action || b["status"][:2] != "2." || address(b["final-recipient"]) != c.to {
				t.Errorf("the report says %q %q about %q, want %s", b["action"], b["status"], b["final-recipient"], c.action)
			}
			has(t, r.Message, "reporting-mta", c.reporter)
			has(t, r.Message, "original-envelope-id", "yes+"+c.name)
			has(t, b, "original-recipient", "first@app.example")
		})
	}
}
