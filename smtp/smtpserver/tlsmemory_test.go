//go:build !race

// The race detector keeps memory of its own for each octet.

package smtpserver

import (
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"testing"
)

// TestIdleTLSSessions measures what a session holds while it waits in TLS: fresh, after a small message, and after one
// that came in records of the greatest size. The client's side is dropped and only its socket kept.
func TestIdleTLSSessions(t *testing.T) {
	const n = 200
	for _, tt := range []struct {
		name string
		body int
	}{{"greeted", 0}, {"after 1 KB", 1 << 10}, {"after 300 KB", 300 << 10}} {
		s, err := New(Options{Hostname: "mx.example.org", Backend: acceptAll{}, TLS: serverTLS(t)})
		if err != nil {
			t.Fatal(err)
		}
		address, stop := serve(t, s)
		config := clientTLS(t)
		body := "\r\n" + strings.Repeat(strings.Repeat("x", 76)+"\r\n", tt.body/78)
		before := heap()
		var conns []net.Conn
		buf := make([]byte, 4<<10)
		for range n {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, conn)
			readReplies(t, conn, buf, 1)
			write(t, conn, []byte("EHLO client.example\r\n"))
			readReplies(t, conn, buf, 1)
			write(t, conn, []byte("STARTTLS\r\n"))
			readReplies(t, conn, buf, 1)
			secure := tls.Client(conn, config)
			write(t, secure, []byte("EHLO client.example\r\n"))
			readReplies(t, secure, buf, 1)
			if tt.body > 0 {
				write(t, secure, fmt.Appendf(nil, "MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nBDAT %d LAST\r\n", len(body)))
				write(t, secure, []byte(body))
				readReplies(t, secure, buf, 3)
			}
		}
		each := (heap() - before) / n
		t.Logf("%s: %d octets for each idle session in TLS, stacks included", tt.name, each)
		if each > 64<<10 {
			t.Errorf("%s: an idle session in TLS holds %d octets", tt.name, each)
		}
		for _, c := range conns {
			_ = c.Close()
		}
		stop()
	}
}
