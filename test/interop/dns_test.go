//go:build interop

package interop

import (
	"testing"

	"github.com/godwit-mta/godwit/api"
)

// testDNS follows what unbound answers about domains of all kinds.
func (s *site) testDNS(t *testing.T) {
	m := letter("plain")
	for _, domain := range []string{"second.example", "alias.example", "plain.example", "xn--mnchen-3ya.example"} {
		t.Run(domain, func(t *testing.T) {
			t.Parallel()
			s.smtplib(t, outgoing{from: "dns@app.example", to: []string{"dns@" + domain}, text: m.text})
			s.expect(t, s.places()[0], "dns@"+domain, m.text)
		})
	}
	for domain, status := range map[string]string{
		"nomail.example":  "5.1.10", // RFC 7505, 4.1
		"nowhere.example": "5.1.2",
	} {
		t.Run(domain, func(t *testing.T) {
			t.Parallel()
			from := "dns-" + domain + "@app.example"
			s.smtplib(t, outgoing{from: from, to: []string{"dns@" + domain}, text: m.text})
			r := s.report(t, from)
			r.recipient(t, 0, "failed", status, "dns@"+domain)
		})
	}
	for domain, why := range map[string]string{
		"refused.example": "unbound answers REFUSED, which is no answer about the domain",
		"silent.example":  "unbound does not answer",
	} {
		t.Run(domain, func(t *testing.T) {
			t.Parallel()
			s.smtplib(t, outgoing{from: "dns@app.example", to: []string{"dns@" + domain}, text: m.text})
			entry := s.waiting(t, domain)
			if entry.LastReason != "dns_temporary" {
				t.Errorf("%s, and it waits for the reason %q", why, entry.LastReason)
			}
			var res api.ActionResult
			if s.godwit.command(t, &res, "queue", "cancel", domain); res.Changed != 1 {
				t.Errorf("cancel changed %d entries", res.Changed)
			}
		})
	}
}
