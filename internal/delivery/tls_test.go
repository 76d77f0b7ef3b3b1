//go:debug x509negativeserial=1

package delivery

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// quick shortens the time limits that lead on from a host that hangs.
func quick(o *Options) { o.Timeouts.TLS = 300 * time.Millisecond }

// way says over what a delivered message came.
func way(sink *smtptest.Sink) string {
	all := sink.Messages()
	if len(all) == 0 {
		return "nothing"
	}
	if s := all[len(all)-1].TLS; s != "" {
		return "TLS"
	}
	return "clear"
}

// TestLegacy is T-LEGACY and the opportunistic half of T-7: mail gets through to every kind of peer in one attempt, and the
// second message need not find out again.
func TestLegacy(t *testing.T) {
	t.Parallel()
	peers, err := smtptest.LegacyPeers("mx1.example.test")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range peers {
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			w, sinks := newWorldOf(t, oneZone, quick, p.Options, mx{"127.0.0.2", &p.Script})
			want := "TLS"
			if p.Clear {
				want = "clear"
			}
			for i := range 2 {
				v := w.deliver(fmt.Sprintf("u%d@example.test", i))
				expect(t, v, delivers)
				awaitReceived(t, sinks[0], i+1)
				if got := way(sinks[0]); got != want {
					t.Errorf("message %d came over %s, want %s", i+1, got, want)
				}
				if words := v.Attempt.Results[0].TLS; (words != "") != (want == "TLS") || want == "TLS" && !strings.HasSuffix(words, " unverified") {
					t.Errorf("the result says %q", words)
				}
				w.drop("") // so that the next message needs a session of its own
			}
			n := sinks[0].Counters().Connections
			if n > 4 {
				t.Errorf("%d connections for two messages", n)
			}
			t.Logf("over %s, %d connections for two messages: %s", want, n, sinks[0].Messages()[0].TLS)
		})
	}
}
