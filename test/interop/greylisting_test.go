//go:build interop

package interop

import (
	"strings"
	"testing"
	"time"

	"github.com/godwit-mta/godwit/api"
)

// testGreylisting is turned away at first, and let in when the operator says "retry".
func (s *site) testGreylisting(t *testing.T) {
	m := letter("plain")
	const from, to = "grey@app.example", "grey@grey.example"
	s.smtplib(t, outgoing{from: from, to: []string{to}, text: m.text})
	entry := s.waiting(t, "grey.example")
	if !strings.Contains(entry.LastReply, "450 4.7.1") || !strings.Contains(entry.LastReply, "Greylisted, come again later") {
		t.Errorf("the queue shows the reply %q, which is not Postfix's", entry.LastReply)
	}
	if entry.Attempts != 1 || entry.NextAttempt == nil || time.Until(*entry.NextAttempt) < time.Minute {
		t.Errorf("after the first attempt the queue shows %d attempts and the next at %v", entry.Attempts, entry.NextAttempt)
	}
	if entry.LastHost != "mx.grey.example" {
		t.Errorf("the queue shows the host %q", entry.LastHost)
	}
	var res api.ActionResult
	if s.godwit.command(t, &res, "queue", "retry", "grey.example"); res.Changed != 1 {
		t.Errorf("retry changed %d entries", res.Changed)
	}
	s.expect(t, s.places()[0], to, m.text)
	if n := s.grey.visits(from, to); n != 2 {
		t.Errorf("Postfix was asked %d times, not twice", n)
	}
}

// waiting waits until the one entry of a queue has failed for now, and returns it.
func (s *site) waiting(t *testing.T, domain string) api.Entry {
	t.Helper()
	for deadline := time.Now().Add(mailTime); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		var queues []api.QueueDetail
		// An error is the answer while there is no such queue.
		if err := s.godwit.ask(t, &queues, "queue", "show", domain); err == nil && len(queues) == 1 && len(queues[0].Entries) == 1 && queues[0].Entries[0].Attempts > 0 &&
			queues[0].Entries[0].State == "waiting" {
			return queues[0].Entries[0]
		}
	}
	t.Fatalf("nothing waits for %s after %v", domain, mailTime)
	return api.Entry{}
}
