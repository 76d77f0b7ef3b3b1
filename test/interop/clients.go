//go:build interop

package interop

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
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

func (m *outgoing) file(t *testing.T) string {
	t.Helper()
	return write(t, filepath.Join(t.TempDir(), "message"), string(m.text))
}

// client hands in a message; MAIL and RCPT get their parameters from the clients that can give any.
type client struct {
	name string
	send func(*testing.T, outgoing)
}

func (s *site) clients() []client {
	return []client{
		{"swaks", s.swaks}, {"smtplib", s.smtplib}, {"msmtp", s.msmtp}, {"curl", s.curl}, {"nodemailer", s.nodemailer},
	}
}

// swaks, <https://jetmore.org/john/code/swaks/>. It adds the end of the last line itself.
func (s *site) swaks(t *testing.T, m outgoing) {
	t.Helper()
	need(t, "swaks")
	m.text = bytes.TrimSuffix(m.text, []byte("\r\n"))
	argv := []string{"swaks", "--server", s.inlet.host, "--port", s.inlet.port, "--helo", "swaks.example",
		"--from", m.from, "--to", strings.Join(m.to, ","), "--data", "@" + m.file(t), "--silent", "2"}
	run(t, nil, argv...)
}

// smtplib is Python's, which sends the bytes and the parameters that it is given.
func (s *site) smtplib(t *testing.T, m outgoing) {
	t.Helper()
	s.script(t, m, nil, "python3", "testdata/send.py")
}

func (s *site) nodemailer(t *testing.T, m outgoing) {
	t.Helper()
	need(t, "node")
	modules := filepath.Join(unpacked(t), "npm", "node_modules")
	if _, err := os.Stat(filepath.Join(modules, "nodemailer")); err != nil {
		lack(t, "nodemailer")
	}
	s.script(t, m, []string{"env", "NODE_PATH=" + modules}, "node", "testdata/send.js")
}

// script runs one that takes a message as JSON.
func (s *site) script(t *testing.T, m outgoing, before []string, argv ...string) {
	t.Helper()
	arg, err := json.Marshal(map[string]any{
		"host": s.inlet.host, "port": s.port, "from": m.from, "to": m.to, "file": m.file(t), "mail": m.mail, "rcpt": m.rcpt,
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, nil, append(append(before, argv...), string(arg))...)
}

// msmtp takes mail with LF, as sendmail does.
func (s *site) msmtp(t *testing.T, m outgoing) {
	t.Helper()
	need(t, "msmtp")
	argv := []string{"msmtp", "--file=/dev/null", "--host=" + s.inlet.host, "--port=" + s.inlet.port, "--domain=msmtp.example",
		"--from=" + m.from, "--auth=off", "--tls=off", "--set-from-header=off", "--set-date-header=off",
		"--undisclosed-recipients=off", "--remove-bcc-headers=off", "--"}
	run(t, bytes.ReplaceAll(m.text, []byte("\r\n"), []byte("\n")), append(argv, m.to...)...)
}

func (s *site) curl(t *testing.T, m outgoing) {
	t.Helper()
	need(t, "curl")
	argv := []string{"curl", "--silent", "--show-error", "--url", fmt.Sprintf("smtp://%s/curl.example", s.at(atGodwit)),
		"--mail-from", m.from, "--upload-file", m.file(t)}
	for _, to := range m.to {
		argv = append(argv, "--mail-rcpt", to)
	}
	run(t, nil, argv...)
}
