//go:build interop

package interop

import (
	"strings"
	"testing"
	"time"
)

// testReports has servers refuse by their own rules, and reads what comes back to the sender.
func (s *site) testReports(t *testing.T) {
	plain, eight := letter("plain"), letter("8bit")
	forbidden := []byte(strings.Replace(string(plain.text), "Subject: plain", "Subject: forbidden fruit", 1))
	over := large(smallLimit + 50_000)
	for _, c := range []struct {
		long     bool // not in CI
		name, to string
		text     []byte
		status   string
		remote   string   // that refused; empty: nobody was asked
		words    []string // the server's
	}{
		{false, "unknown-user", "unknown-one@box.example", plain.text, "5.1.1", "mx.box.example",
			[]string{"550 5.1.1", "User unknown in virtual mailbox table"}},
		{false, "header-checks", "checks@box.example", forbidden, "5.7.1", "mx.box.example",
			[]string{"550 5.7.1", "That subject is not welcome here"}},
		{false, "size-after-data", "mute@mute.example", over, "5.3.4", "mx.mute.example",
			[]string{"552 5.3.4", "message file too big"}},
		{false, "size-announced", "small@small.example", over, "5.3.4", "mx.small.example", nil},
		{false, "no-extensions", "unknown-two@old.example", plain.text, "5.1.1", "mx.old.example",
			[]string{"550", "User unknown in virtual mailbox table"}},
		{false, "no-8bitmime", "eight@old.example", eight.text, "5.6.3", "mx.old.example", nil}, // RFC 6152, 3
		{true, "exim", "unknown@exim.example", plain.text, "5.0.0", "mx.exim.example", []string{"550", "no such person here"}},
		{true, "dovecot", "un_known@dovecot.example", plain.text, "5.1.1", s.host(atDovecot), []string{"550 5.1.1", "User doesn't exist"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.long && s.short {
				t.Skip("not in the short run")
			}
			t.Parallel()
			from := "report-" + c.name + "@app.example"
			sent := time.Now()
			s.smtplib(t, outgoing{from: from, to: []string{c.to}, text: c.text,
				mail: []string{"BODY=8BITMIME", "ENVID=QQ314159+2B" + c.name, "RET=HDRS"},
				rcpt: []string{"NOTIFY=FAILURE,DELAY", "ORCPT=rfc822;Original+2B" + c.name + "@app.example"}})
			r := s.report(t, from)
			b := r.recipient(t, 0, "failed", c.status, c.to)
			has(t, r.Message, "reporting-mta", "dns;", "godwit.example")
			has(t, r.Message, "original-envelope-id", "QQ314159+"+c.name)
			has(t, b, "original-recipient", "rfc822;", "Original+"+c.name+"@app.example")
			has(t, b, "remote-mta", "dns;", c.remote)
			has(t, b, "diagnostic-code", c.words...)
			has(t, r.Header, "to", from)
			has(t, r.Header, "auto-submitted", "auto-replied")
			has(t, r.Returned, "message-id", "<sample@app.example>")
			if r.Parts[2] != "text/rfc822-headers" {
				t.Errorf("RET=HDRS, and %s came back", r.Parts[2])
			}
			for _, w := range append([]string{c.to}, c.words...) {
				if !strings.Contains(strings.Join(strings.Fields(r.Text), " "), w) {
					t.Errorf("the part for people does not say %q:\n%s", w, r.Text)
				}
			}
			if arrival, err := time.Parse(time.RFC1123Z, r.Message["arrival-date"]); err != nil || arrival.Sub(sent).Abs() > time.Minute {
				t.Errorf("arrival date %q: %v", r.Message["arrival-date"], err)
			}
		})
	}
	t.Run("shared", s.testSharedReport)
	t.Run("full", s.testFullReport)
	t.Run("never", s.testNoReport)
	t.Run("utf8", s.testUTF8Report)
}

// testSharedReport wants one report about those who failed, and mail for the others.
func (s *site) testSharedReport(t *testing.T) {
	t.Parallel()
	m := letter("plain")
	to := []string{"shared-a@box.example", "unknown-b@box.example", "shared-c@box.example", "unknown-d@box.example"}
	s.smtplib(t, outgoing{from: "report-shared@app.example", to: to, text: m.text})
	s.expect(t, s.places()[0], to[0], m.text)
	s.expect(t, s.places()[0], to[2], m.text)
	r := s.report(t, "report-shared@app.example")
	if len(r.Recipients) != 2 {
		t.Fatalf("the report is about %d recipients: %v", len(r.Recipients), r.Recipients)
	}
	r.recipient(t, 0, "failed", "5.1.1", to[1])
	r.recipient(t, 1, "failed", "5.1.1", to[3])
}

// testFullReport asks for the whole message back.
func (s *site) testFullReport(t *testing.T) {
	t.Parallel()
	m := letter("plain")
	s.smtplib(t, outgoing{from: "report-full@app.example", to: []string{"unknown-full@box.example"}, text: m.text, mail: []string{"RET=FULL"}})
	r := s.report(t, "report-full@app.example")
	if r.Parts[2] != "message/rfc822" || strings.TrimSpace(r.Body) != "Hello." {
		t.Errorf("RET=FULL, and %s came back with the body %q", r.Parts[2], r.Body)
	}
}

// testNoReport asks for none, or is none to whom one could go.
func (s *site) testNoReport(t *testing.T) {
	t.Parallel()
	m := letter("plain")
	const from = "report-never@app.example"
	s.smtplib(t, outgoing{from: from, to: []string{"unknown-never@box.example"}, text: m.text, rcpt: []string{"NOTIFY=NEVER"}})
	s.smtplib(t, outgoing{from: "", to: []string{"unknown-null@box.example"}, text: m.text})
	// What is sent after them, to the same place, comes back; by then theirs would have.
	s.smtplib(t, outgoing{from: "report-after@app.example", to: []string{"unknown-after@box.example"}, text: m.text})
	s.report(t, "report-after@app.example")
	time.Sleep(time.Second)
	if got := s.home.look(t, from); len(got) != 0 {
		t.Errorf("NOTIFY=NEVER, and a report came: %v", got)
	}
}

// testUTF8Report fails at an address that is not ASCII, so the report is in UTF-8 too (RFC 6533).
func (s *site) testUTF8Report(t *testing.T) {
	t.Parallel()
	m := letter("utf8-header")
	s.smtplib(t, outgoing{from: "report-zoë@app.example", to: []string{"unknown-jürgen@box.example"}, text: m.text, mail: m.mailOptions()})
	r := s.report(t, "report-zoë@app.example")
	b := r.recipient(t, 0, "failed", "5.1.1", "unknown-jürgen@box.example")
	has(t, b, "final-recipient", "utf-8;")
	if r.Parts[1] != "message/global-delivery-status" || r.Parts[2] != "message/global-headers" && r.Parts[2] != "message/global" {
		t.Errorf("the parts are %v", r.Parts)
	}
	t.Run("refused", func(t *testing.T) { // a host without SMTPUTF8 is never asked (RFC 6531, 3.2)
		s.smtplib(t, outgoing{from: "report-old@app.example", to: []string{"utf8@old.example"}, text: m.text, mail: m.mailOptions()})
		r := s.report(t, "report-old@app.example")
		r.recipient(t, 0, "failed", "5.6.9", "utf8@old.example") // RFC 6531, 3.5: the header needs it
	})
}
