package smtpserver

import (
	"bytes"
	"net"
	"strings"
	"testing"
)

// farConn is a client of a network that is trusted.
type farConn struct{ scriptConn }

func (*farConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, 7), Port: 4000} }

// FuzzAuth plays logins, XCLIENT and XFORWARD, once as they are and once in pieces: where the network cuts must make no
// difference, and nobody is logged in but with the password.
func FuzzAuth(f *testing.F) {
	for _, s := range []string{
		"EHLO x\r\nAUTH PLAIN " + b64(plainJoe) + "\r\nAUTH PLAIN\r\nEHLO x\r\nMAIL FROM:<a@b.example> AUTH=x\r\nQUIT\r\n",
		"EHLO x\r\nAUTH LOGIN\r\n" + b64("joe") + "\r\n" + b64("secret") + "\r\nNOOP\r\n",
		"EHLO x\r\nAUTH PLAIN\r\n*\r\nAUTH PLAIN =\r\nAUTH PLAIN ====\r\nAUTH OAUTHBEARER bix9\r\n",
		"EHLO x\r\nAUTH OAUTHBEARER " + b64("n,,\x01auth=Bearer goodtoken\x01\x01") + "\r\n",
		"EHLO x\r\nAUTH PLAIN " + strings.Repeat("A", 5000) + "\r\nNOOP\r\n",
		"EHLO x\r\nAUTH PLAIN\r\n" + strings.Repeat("A", 13000) + "\r\nNOOP\r\n",
		"EHLO x\r\nXCLIENT ADDR=192.0.2.1 LOGIN=a+2Bb\r\nEHLO x\r\nXFORWARD NAME=x\r\nSTARTTLS\r\nAUTH\r\n",
		"XCLIENT ADDR=IPV6:2001:db8::1 PORT=25 NAME=[UNAVAILABLE]\r\nAUTH PLAIN x\r\n", "PROXY TCP4 1.1.1.1 2.2.2.2 1 1\r\n",
	} {
		f.Add([]byte(s), []byte{0, 5, 31, 2, 0, 0, 0, 7})
		f.Add([]byte(s), bytes.Repeat([]byte{3}, 300))
	}
	f.Fuzz(func(t *testing.T, script, cuts []byte) {
		if len(script) > 32<<10 {
			return
		}
		play := func(cuts []byte) (string, []Peer) {
			login := &loginBackend{backend: &backend{}, mechanisms: func(*Peer) []string { return []string{"PLAIN", "LOGIN", "OAUTHBEARER"} }}
			s, err := New(Options{Hostname: "mx.example.org", Backend: login, XClient: networks("10.0.0.0/8"), Limits: Limits{CommandLine: 512}})
			if err != nil {
				t.Fatal(err)
			}
			c := &farConn{}
			cutter(string(script), cuts, func(p []byte) bool {
				c.pieces = append(c.pieces, p)
				return true
			})
			s.ServeConn(t.Context(), c)
			if n := counted(t, s.metrics.panics); n != 0 {
				t.Fatalf("%q: the session panicked", script)
			}
			if s.Sessions() != 0 || len(s.gate.mu.clients) != 0 {
				t.Fatalf("%q: %d sessions, %v", script, s.Sessions(), s.gate.mu.clients)
			}
			var peers []Peer
			for _, p := range login.mu.peers {
				peers = append(peers, *p)
			}
			return c.said.String(), peers
		}
		whole, peers := play(nil)
		parts, _ := play(cuts)
		if whole != parts && !strings.Contains(whole+parts, "354") {
			t.Fatalf("%q cut %v:\n%q\n%q", script, cuts, whole, parts)
		}
		for line := range strings.SplitSeq(strings.TrimSuffix(whole, "\r\n"), "\r\n") {
			if !replyLine.MatchString(line) {
				t.Fatalf("%q: reply line %q", script, line)
			}
		}
		for _, p := range peers {
			if p.Authenticated != "" && !bytes.Contains(script, []byte("235")) && !strings.Contains(whole, "235 2.7.0") {
				t.Fatalf("%q: logged in without a word", script)
			}
			if strings.ContainsFunc(p.XClientLogin, isControl) || len(p.XClientLogin) > 255 {
				t.Fatalf("%q: login %q", script, p.XClientLogin)
			}
		}
	})
}
