//go:build interop

package interop

import (
	"path/filepath"
	"testing"
)

// outgoing is a message as an application hands it in.
type outgoing struct {
	from string
	to   []string
	text []byte   // in wire form
	mail []string // parameters of MAIL
	rcpt []string // parameters of each RCPT
}

// swaks hands in a message with swaks.
func (s *site) swaks(t *testing.T, m outgoing) {
	t.Helper()
	need(t, "swaks")
	file := filepath.Join(t.TempDir(), "message")
	write(t, file, string(m.text))
	argv := []string{"swaks", "--server", s.inlet.host, "--port", s.inlet.port, "--helo", "swaks.example",
		"--from", m.from, "--data", "@" + file, "--silent", "2"}
	for _, to := range m.to {
		argv = append(argv, "--to", to)
	}
	run(t, nil, argv...)
}
