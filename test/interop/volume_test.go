//go:build interop

package interop

import (
	"fmt"
	"slices"
	"testing"
)

// testRecipients sends one message to 1,000 people, of whom Postfix takes 300 at a time.
func (s *site) testRecipients(t *testing.T) {
	const n = 1000
	to := make([]string, n)
	for i := range to {
		to[i] = fmt.Sprintf("many-%d@box.example", i)
	}
	m := letter("dots")
	s.smtplib(t, outgoing{from: "many@app.example", to: to, text: m.text})
	for _, one := range to {
		got, _ := s.box.one(t, one)
		if sameBytes(t, got, m.text); t.Failed() {
			return
		}
	}
}

// testLarge sends 20 MB to every place in one transaction.
func (s *site) testLarge(t *testing.T) {
	text := large(20 << 20)
	places := slices.DeleteFunc(s.places(), func(p place) bool { return p.domain == "mute.example" })
	var to []string
	for _, p := range places {
		to = append(to, "large@"+p.domain)
	}
	s.smtplib(t, outgoing{from: "large@app.example", to: to, text: text})
	for i, p := range places {
		t.Run(p.domain, func(t *testing.T) { s.expect(t, p, to[i], text) })
	}
}

// testSums holds, after all dialogs, that every recipient taken has one outcome.
func (s *site) testSums(t *testing.T) {
	var stats struct{ Accepted, Delivered, Bounced, Expired, Suppressed, Cancelled, Queued int }
	s.godwit.command(t, &stats, "spool", "stats")
	if sum := stats.Delivered + stats.Bounced + stats.Expired + stats.Suppressed + stats.Cancelled; sum != stats.Accepted ||
		stats.Queued != 0 || stats.Accepted < 1000 {
		t.Errorf("the outcomes do not add up: %+v", stats)
	}
}
