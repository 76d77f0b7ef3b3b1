//go:build interop

package interop

import (
	"fmt"
	"testing"
	"time"

	"github.com/godwit-mta/godwit/api"
)

// testIdle sends again when Postfix has ended the session that was kept: nobody may notice.
func (s *site) testIdle(t *testing.T) {
	m := letter("plain")
	for i := range 3 {
		to := fmt.Sprintf("idle-%d@tired.example", i)
		s.smtplib(t, outgoing{from: "idle@app.example", to: []string{to}, text: m.text})
		s.expect(t, s.places()[0], to, m.text)
		time.Sleep([]time.Duration{1500 * time.Millisecond, 990 * time.Millisecond, 0}[i]) // after its goodbye; with it
	}
	var queues api.QueueList
	s.godwit.command(t, &queues, "queue", "list")
	for _, q := range queues.Queues {
		if q.Domain == "tired.example" {
			t.Errorf("something waits: %+v", q)
		}
	}
}
