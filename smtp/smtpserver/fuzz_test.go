package smtpserver

import (
	"bytes"
	"io"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"
)

// scriptConn is a client whose octets come in given pieces, and who listens to everything.
type scriptConn struct {
	pieces [][]byte
	said   bytes.Buffer
}

func (c *scriptConn) Read(p []byte) (int, error) {
	for len(c.pieces) > 0 && len(c.pieces[0]) == 0 {
		c.pieces = c.pieces[1:]
	}
	if len(c.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.pieces[0])
	c.pieces[0] = c.pieces[0][n:]
	return n, nil
}

func (c *scriptConn) Write(p []byte) (int, error)      { return c.said.Write(p) }
func (c *scriptConn) Close() error                     { return nil }
func (c *scriptConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *scriptConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *scriptConn) SetDeadline(time.Time) error      { return nil }
func (c *scriptConn) SetReadDeadline(time.Time) error  { return nil }
func (c *scriptConn) SetWriteDeadline(time.Time) error { return nil }

var replyLine = regexp.MustCompile(`^[2-5][0-9][0-9][ -][ -~]*$`)

// stage is a server that plays scripts one after the other.
type stage struct {
	server    *Server
	backend   *backend
	unawaited float64
}

func newStage(t testing.TB, normalize bool) *stage {
	st := &stage{backend: refusing()}
	var err error
	st.server, err = New(Options{
		Hostname: "mx.example.org", Backend: st.backend, Normalize: normalize,
		Limits: Limits{CommandLine: 512, TextLine: 998, HeaderBytes: 1 << 10},
	})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// play serves one client and returns what it was told, the flaws of messages all called the same, and the messages.
// unawaited tells that the session ended for want of waiting.
func (st *stage) play(t *testing.T, script []byte, cuts []byte) (said string, messages []received, unawaited bool) {
	t.Helper()
	s, b := st.server, st.backend
	b.mu.messages, b.mu.peers, b.mu.closes = nil, nil, 0
	c := &scriptConn{}
	cutter(string(script), cuts, func(p []byte) bool {
		c.pieces = append(c.pieces, p)
		return true
	})
	s.ServeConn(t.Context(), c)
	if n := counted(t, s.metrics.panics); n != 0 {
		t.Fatalf("%q: the session panicked", script)
	}
	if held(s) != 0 || s.Sessions() != 0 || b.mu.closes != 1 {
		t.Fatalf("%q: %d octets held, %d sessions", script, held(s), s.Sessions())
	}
	said = c.said.String()
	for line := range strings.SplitSeq(strings.TrimSuffix(said, "\r\n"), "\r\n") {
		if !replyLine.MatchString(line) {
			t.Fatalf("%q: reply line %q", script, line)
		}
	}
	for _, m := range b.messages() {
		if strings.ContainsAny(strings.ReplaceAll(m.body, "\r\n", ""), "\r\n\x00") || len(m.env.Recipients) == 0 {
			t.Fatalf("%q: message %+v", script, m)
		}
	}
	for f := range flaws {
		if flaw(f) != flawNone {
			said = strings.ReplaceAll(said, string(flaws[f].reply.AppendTo(nil)), "FLAW\r\n")
		}
	}
	before := st.unawaited
	st.unawaited = counted(t, s.metrics.ends[endUnawaited])
	return said, b.messages(), st.unawaited > before
}

// FuzzSession plays what anybody might send, once as it is and once in pieces: where the network cuts must make no
// difference.
func FuzzSession(f *testing.F) {
	hello := "EHLO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\n"
	for _, s := range []string{
		hello + "DATA\r\nSubject: x\r\n\r\n..x\r\n.\r\nQUIT\r\n",
		hello + "DATA\r\nx\n.\r\n\r\n.\r\r\n.\r\nRSET\r\n" + hello + "BDAT 3\r\nx\r\nBDAT 0 LAST\r\n",
		hello + "BDAT 5\r\nx\ny\r\nBDAT 4 LAST\r\n\r\n\r\nMAIL FROM:<>\r\n",
		"HELO x\r\nMAIL FROM:<ü@x> SMTPUTF8\r\nRCPT TO:<refused@x>\r\nDATA\r\nx\r\n.\r\n",
		"\x16\x03\x01", "GET / HTTP/1.1\r\n", "NOOP " + strings.Repeat("x", 600) + "\r\nNOOP\r\n",
		"a\nb\r\n", "BDAT x\r\n",
		hello + "MAIL FROM:<a@b> SIZE=1 BODY=8BITMIME\r\nVRFY a\r\nHELP\r\nEXPN\r\nAUTH\r\nSTARTTLS\r\nNOOP\r\n\r\n",
	} {
		f.Add([]byte(s), []byte{0, 5, 31, 2, 0, 0, 0, 7}, false)
		f.Add([]byte(s), bytes.Repeat([]byte{0}, 300), true)
	}
	stages := map[bool]*stage{false: newStage(f, false), true: newStage(f, true)}
	f.Fuzz(func(t *testing.T, script, cuts []byte, normalize bool) {
		if len(script) > 8<<10 {
			return
		}
		st := stages[normalize]
		whole, first, unawaited := st.play(t, script, nil)
		parts, second, unawaited2 := st.play(t, script, cuts)
		if unawaited || unawaited2 { // the one thing that depends on what has arrived already
			short := min(len(whole), len(parts))
			if whole[:short] != parts[:short] {
				t.Fatalf("%q cut %v:\n%q\n%q", script, cuts, whole, parts)
			}
			return
		}
		if whole != parts || len(first) != len(second) {
			t.Fatalf("%q cut %v:\n%q\n%q", script, cuts, whole, parts)
		}
		for i, m := range first {
			if m.body != second[i].body || m.flag != second[i].flag {
				t.Fatalf("%q cut %v: message %d: %+v and %+v", script, cuts, i, m, second[i])
			}
		}
	})
}
