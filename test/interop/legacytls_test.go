//go:build interop

package interop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// TestLegacyTLS is T-LEGACY with what Go's own TLS cannot be: hosts whose TLS is made by OpenSSL, as old or as weak as it
// goes. Mail gets through to each of them in one attempt.
func TestLegacyTLS(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("needs openssl; scripts/interop installs it")
	}
	dir := t.TempDir()
	binary := buildGodwit(t, dir)
	rsa2048 := opensslKey(t, dir, "rsa:2048")
	peers := []struct {
		name, keys string
		args       []string
		want       string // words that the event's TLS begins with; "": it went in the clear
	}{
		{"rsa512", opensslKey(t, dir, "rsa:512"), []string{"-cipher", "ALL:@SECLEVEL=0"}, ""},
		{"sha1sig", rsa2048, []string{"-tls1_2", "-sigalgs", "RSA+SHA1", "-cipher", "ECDHE-RSA-AES128-SHA:@SECLEVEL=0"}, ""},
		{"sha1kex", rsa2048, []string{"-tls1_2", "-sigalgs", "RSA+SHA1", "-cipher", "AES128-SHA:@SECLEVEL=0"}, ""},
		{"tls1", rsa2048, []string{"-tls1", "-cipher", "ALL:@SECLEVEL=0"}, "TLSv1 "},
		{"tls11", rsa2048, []string{"-tls1_1", "-cipher", "ALL:@SECLEVEL=0"}, "TLSv1.1 "},
		{"kex", rsa2048, []string{"-tls1_2", "-cipher", "AES256-SHA:@SECLEVEL=0"}, "TLSv1.2 TLS_RSA_WITH_AES_256_CBC_SHA"},
		{"dhe", rsa2048, []string{"-tls1_2", "-cipher", "DHE-RSA-AES128-SHA:@SECLEVEL=0"}, ""},
		{"anonymous", rsa2048, []string{"-tls1_2", "-cipher", "aNULL:@SECLEVEL=0"}, ""},
		{"p521", rsa2048, []string{"-groups", "P-521"}, "TLSv1.3 "},
		{"plain", rsa2048, nil, "TLSv1.3 "},
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	relay := free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	config := "hostname: godwit.example\nlog: {format: json}\ndata_dir: " + filepath.Join(dir, "data") + "\nlisteners:\n" +
		"  - {name: relay, address: \"" + relay + "\", tls: off, auth: off, trusted_networks: [127.0.0.0/8]}\nroutes:\n"
	for _, p := range peers {
		address := opensslSink(t, p.keys, p.args)
		config += fmt.Sprintf("  - {domains: [%s.example], hosts: [%q]}\n", p.name, address)
	}
	startGodwit(t, dir, binary, config)
	for _, p := range peers {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			to := "u@" + p.name + ".example"
			if out, err := exec.Command(binary, "send", "--to", to, "--from", "a@app.example", "--server", relay, "--text", "hi").CombinedOutput(); err != nil {
				t.Fatalf("godwit send: %v\n%s", err, out)
			}
			var e *event.Event
			for end := time.Now().Add(30 * time.Second); e == nil && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
				e = outcomeOf(t, filepath.Join(dir, "data", "events"), to)
			}
			switch {
			case e == nil:
				t.Fatal("no outcome within 30 s")
			case e.Type != event.Delivered || e.Attempt > 1:
				t.Fatalf("%s in attempt %d: %s", e.Type, e.Attempt, e.Explanation)
			case p.want == "" && e.TLS != "", !strings.HasPrefix(e.TLS, p.want):
				t.Errorf("it went over %q, want %q", e.TLS, p.want)
			}
			t.Logf("over %q", e.TLS)
		})
	}
}

// outcomeOf returns the first event that says what became of a recipient, nil if there is none yet.
func outcomeOf(t *testing.T, dir, to string) *event.Event {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			e, err := event.ParseLine([]byte(line))
			if err != nil {
				continue // the last line is being written
			}
			if e.Recipient == to && (e.Type == event.Delivered || e.Type == event.Deferred || e.Type == event.Bounced) {
				return e
			}
		}
	}
	return nil
}

// opensslKey makes a key and a certificate by openssl and returns their file without its ending.
func opensslKey(t *testing.T, dir, algorithm string) string {
	t.Helper()
	base := filepath.Join(dir, strings.ReplaceAll(algorithm, ":", ""))
	cmd := exec.Command("openssl", "req", "-x509", "-newkey", algorithm, "-nodes", "-days", "1", "-subj", "/CN=old.example",
		"-keyout", base+".key", "-out", base+".pem")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("openssl req: %v\n%s", err, out)
	}
	return base
}

// opensslSink is a sink whose TLS is made by one openssl s_server for each connection.
func opensslSink(t *testing.T, keys string, args []string) (address string) {
	t.Helper()
	sink, err := smtptest.NewSink(smtptest.SinkOptions{Handshake: func(nc net.Conn) (net.Conn, error) { return opensslConn(nc, keys, args) }})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- sink.Run(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// opensslConn hands the octets of nc to openssl and returns what is inside.
func opensslConn(nc net.Conn, keys string, args []string) (net.Conn, error) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := free.Addr().String()
	if err := free.Close(); err != nil {
		return nil, err
	}
	cmd := exec.Command("openssl", append([]string{"s_server", "-quiet", "-naccept", "1", "-accept", address,
		"-cert", keys + ".pem", "-key", keys + ".key"}, args...)...)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var inner net.Conn
	for range 2000 {
		if inner, err = net.Dial("tcp", address); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		return nil, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	_ = nc.SetDeadline(time.Time{})
	go func() {
		_, _ = io.Copy(inner, nc)
		_ = inner.Close()
		_ = in.Close()
	}()
	go func() {
		_, _ = io.Copy(nc, inner)
		_ = nc.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	return &stdioConn{Conn: nc, in: in, out: out}, nil
}

// stdioConn is the clear side of an openssl s_server.
type stdioConn struct {
	net.Conn
	in  io.WriteCloser
	out io.Reader
}

func (c *stdioConn) Read(p []byte) (int, error)  { return c.out.Read(p) }
func (c *stdioConn) Write(p []byte) (int, error) { return c.in.Write(p) }
func (c *stdioConn) Close() error                { return errors.Join(c.in.Close(), c.Conn.Close()) }
