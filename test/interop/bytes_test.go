//go:build interop

package interop

import (
	"bytes"
	"strings"
	"testing"
)

// place is where mail can go, and how it is looked at there.
type place struct {
	domain string
	box    *mailbox
	utf8   bool // takes SMTPUTF8
	hops   int  // Received fields
}

func (s *site) places() []place {
	p := []place{{"box.example", s.box, true, 2}, {"mute.example", s.box, true, 2}} // the first takes BDAT, the other only DATA
	if !s.short {
		p = append(p, place{"exim.example", s.exim, true, 2}, place{"dovecot.example", s.dovecot, false, 2})
	}
	return p
}

// testBytes sends each sample to each place.
func (s *site) testBytes(t *testing.T) {
	for _, p := range s.places() {
		t.Run(p.domain, func(t *testing.T) {
			for _, m := range samples() {
				if m.utf8 && !p.utf8 {
					continue
				}
				t.Run(m.name, func(t *testing.T) {
					t.Parallel()
					to := "bytes-" + m.name + "@" + p.domain
					s.smtplib(t, outgoing{from: "bytes@app.example", to: []string{to}, text: m.text, mail: m.mailOptions()})
					s.expect(t, p, to, m.arrived())
				})
			}
		})
	}
	t.Run("utf8-address", func(t *testing.T) {
		t.Parallel()
		m := letter("utf8-header")
		to := "bytes-jürgen@münchen.example"
		s.smtplib(t, outgoing{from: "zoë@app.example", to: []string{to}, text: m.text, mail: m.mailOptions()})
		arrived := s.expect(t, s.places()[0], to, m.text)
		if got := arrived.traced("return-path"); len(got) != 1 || got[0] != "<zoë@app.example>" {
			t.Errorf("the envelope sender that arrived is %q", got)
		}
	})
}

// expect waits for a message and compares it.
func (s *site) expect(t *testing.T, p place, to string, want []byte) mail {
	t.Helper()
	got, m := p.box.one(t, to)
	sameBytes(t, got, want)
	received := m.traced("received")
	if len(received) != p.hops || !strings.Contains(received[len(received)-1], "by godwit.example with ") {
		t.Errorf("the Received fields are not one of godwit's and those of the way after it: %q", received)
	}
	return m
}

// testClients sends, with each client, the samples that its own rules leave as they are.
func (s *site) testClients(t *testing.T) {
	for _, c := range s.clients() {
		if s.short && c.name != "swaks" && c.name != "smtplib" {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			for _, m := range samples() {
				if m.raw || m.utf8 && c.name != "smtplib" {
					continue
				}
				t.Run(m.name, func(t *testing.T) {
					t.Parallel()
					to := c.name + "-" + m.name + "@box.example"
					o := outgoing{from: c.name + "@app.example", to: []string{to}, text: m.text, mail: m.mailOptions()}
					c.send(t, o)
					s.expect(t, s.places()[0], to, m.arrived())
				})
			}
			t.Run("two-recipients", func(t *testing.T) {
				t.Parallel()
				m := letter("plain")
				to := []string{c.name + "-a@box.example", c.name + "-b@real.example"}
				c.send(t, outgoing{from: c.name + "@app.example", to: to, text: m.text})
				for _, one := range to {
					s.expect(t, s.places()[0], one, m.text)
				}
			})
		})
	}
}

// testSource has smtp-source of Postfix send over many sessions at once.
func (s *site) testSource(t *testing.T) {
	need(t, "smtp-source")
	const n = 200
	run(t, nil, "smtp-source", "-s", "10", "-m", "200", "-l", "5000", "-M", "source.example",
		"-f", "source@app.example", "-t", "source@box.example", s.at(atGodwit))
	bodies, _ := s.box.receive(t, "source@box.example", n)
	ids := make(map[string]bool)
	for _, b := range bodies {
		head, body, _ := bytes.Cut(b, []byte("\r\n\r\n"))
		for line := range strings.SplitSeq(string(head), "\r\n") {
			if strings.HasPrefix(line, "Message-Id:") {
				ids[line] = true
			}
		}
		if _, first, _ := bytes.Cut(bodies[0], []byte("\r\n\r\n")); !bytes.Equal(body, first) {
			t.Fatal("the same body arrived in two ways")
		}
	}
	if len(ids) != n {
		t.Errorf("%d different messages arrived, %d were sent", len(ids), n)
	}
}
