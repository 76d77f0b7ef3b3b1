//go:build interop

package interop

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	verify "github.com/emersion/go-msgauth/dkim"

	"github.com/godwit-mta/godwit/internal/dns"
	"github.com/godwit-mta/godwit/internal/dns/dnstest"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// road is a running binary that signs for example.com, with a DNS that has its keys, and a sink that takes what it sends.
type road struct {
	records  map[string]string // name to text
	dns      netip.AddrPort
	host     string
	port     int
	received chan *smtptest.Received
}

const rsaName, edName = "r1._domainkey.example.com", "e1._domainkey.example.com"

// startRoad makes keys and starts a binary.
func startRoad(t *testing.T, binary string) *road {
	t.Helper()
	dir := t.TempDir()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, k := range map[string]any{"rsa.pem": key, "ed.pem": priv} {
		der, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		writePEM(t, filepath.Join(dir, name), "PRIVATE KEY", der)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	r := &road{
		records: map[string]string{
			rsaName: "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(der),
			edName:  "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(pub),
		},
		received: make(chan *smtptest.Received, 64),
	}
	zones := "box.example. MX 10 mx.box.example.\nmx.box.example. A 127.0.0.1\n"
	for name, text := range r.records {
		zones += fmt.Sprintf("%s. TXT %s\n", name, quotedParts(text))
	}
	r.dns = dnstest.Start(t, zones).Addr()

	sink, err := smtptest.NewSink(smtptest.SinkOptions{KeepBody: true, OnMessage: func(m *smtptest.Received) { r.received <- m }})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- sink.Run(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	inlet := free.Addr().(*net.TCPAddr)
	free.Close()
	r.host, r.port = inlet.IP.String(), inlet.Port
	startGodwit(t, dir, binary, fmt.Sprintf(`hostname: godwit.example
data_dir: %[1]s/data
log: {format: json}
listeners: [{name: app, address: "%[2]s", trusted_networks: [127.0.0.0/8]}]
dns: {servers: ["%[3]s"]}
delivery: {port: %[4]d, allowed_networks: [127.0.0.0/8]}
dkim:
  keys:
    - {domain: example.com, selector: r1, file: %[1]s/rsa.pem}
    - {domain: example.com, selector: e1, file: %[1]s/ed.pem}
`, dir, inlet, r.dns, l.Addr().(*net.TCPAddr).Port))
	return r
}

// quotedParts writes a text as the strings of a TXT record (RFC 6376, 3.6.2.2).
func quotedParts(text string) string {
	var parts []string
	for part := range slices.Chunk([]byte(text), 200) {
		parts = append(parts, `"`+string(part)+`"`)
	}
	return strings.Join(parts, " ")
}

// through sends a message through the binary and returns what the sink got.
func (r *road) through(t *testing.T, text string) []byte {
	t.Helper()
	arg, err := json.Marshal(map[string]any{
		"host": r.host, "port": r.port, "from": "ann@example.com", "to": []string{"bob@box.example"}, "mail": []string{"body=8bitmime"}, "rcpt": nil,
		"file": write(t, filepath.Join(t.TempDir(), "message"), text),
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, nil, "python3", "testdata/send.py", string(arg))
	select {
	case m := <-r.received:
		return m.Body
	case <-time.After(mailTime):
		t.Fatal("the message did not arrive")
		return nil
	}
}

// signedSamples are messages of many shapes.
func signedSamples() map[string]string {
	const head = "From: Ann <ann@example.com>\r\nTo: Bob <bob@box.example>\r\nSubject: Hello\r\nDate: Sun, 22 Nov 2026 01:02:03 +0000\r\n" +
		"Message-ID: <1@example.com>\r\n"
	return map[string]string{
		"plain":      head + "\r\nHello.\r\n",
		"no body":    head + "\r\n",
		"blank body": head + "\r\n\r\n \t\r\n\r\n",
		"dots":       head + "\r\n.\r\n..\r\n.dot\r\nend\r\n.\r\n\r\n\r\n",
		"spaces":     head + "\r\n a  b\t c \t\r\n\t\r\nend   \r\n",
		"folded": "Subject:  a very\r\n\tlong   subject \r\n that goes on \r\nfrom:ann@example.com\r\nTO:bob@box.example,\r\n carol@box.example\r\n" +
			"DATE: x\r\nMessage-Id:\r\n <2@example.com>\r\n\r\nHello.\r\n",
		"8bit": head + "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße, 日本\r\n",
		"list": head + "List-Unsubscribe: <https://example.com/u>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\nList-Id: <a.example.com>\r\n" +
			"Reply-To: r@example.com\r\nCc: c@box.example\r\n\r\nNews.\r\n",
		"two To": "To: a@box.example\r\nTo: b@box.example\r\n" + head + "\r\nHello.\r\n",
		"bare":   "From: ann@example.com\r\nTo: bob@box.example\r\n\r\nHello.\r\n",
		"long":   head + "\r\n" + strings.Repeat("The quick brown fox jumps over the lazy dog. \t\r\n\r\n", 8000),
	}
}

// tampered are messages that must not verify any more.
func tampered(msg []byte) map[string][]byte {
	head, body, _ := bytes.Cut(msg, []byte("\r\n\r\n"))
	return map[string][]byte{
		"second From":    append([]byte("From: eve@example.com\r\n"), msg...),
		"second Subject": append([]byte("Subject: Pay now\r\n"), msg...),
		"body":           slices.Concat(head, []byte("\r\n\r\nHi! "), body),
		"appended":       append(bytes.Clone(msg), "More.\r\n"...),
		"To":             bytes.Replace(msg, []byte("\nTo: "), []byte("\nTo: eve@example.net, "), 1),
	}
}

// TestSignedVerifiesElsewhere sends mail of many shapes through the real binary, of both builds, and has what arrives verified by
// go-msgauth, dkimpy, Mail::DKIM and OpenDKIM; what was changed on the way must not verify.
func TestSignedVerifiesElsewhere(t *testing.T) {
	need(t, "python3", "perl")
	if exec.Command("perl", "-MMail::DKIM::Verifier", "-MNet::DNS", "-e1").Run() != nil {
		lack(t, "libmail-dkim-perl")
	}
	t.Run("go", func(t *testing.T) { everybodyVerifies(t, buildGodwit(t, t.TempDir())) })
	t.Run("libcrypto", func(t *testing.T) {
		if os.Getenv("INTEROP_SHORT") == "1" {
			t.Skip("not in the short run")
		}
		binary := filepath.Join(t.TempDir(), "godwit-fast")
		cmd := exec.Command("go", "build", "-tags", "godwit_libcrypto", "-o", binary, "github.com/godwit-mta/godwit/cmd/godwit")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build godwit-fast: %v\n%s", err, out)
		}
		if out := run(t, nil, binary, "version"); !strings.Contains(out, "RSA signatures by libcrypto (OpenSSL 3") {
			lack(t, "OpenSSL 3")
		}
		everybodyVerifies(t, binary)
	})
}

func everybodyVerifies(t *testing.T, binary string) {
	r := startRoad(t, binary)
	resolver, err := dns.New(dns.Options{Servers: []netip.AddrPort{r.dns}})
	if err != nil {
		t.Fatal(err)
	}
	python := startDkimpy(t, &signers{dns: r.records})
	knows := run(t, nil, "perl", "testdata/maildkim.pl", "algorithms")
	mails := make(map[string][]byte)
	for name, text := range signedSamples() {
		msg := r.through(t, text)
		if n := bytes.Count(msg, []byte("DKIM-Signature: ")); n != 2 {
			t.Fatalf("%s: %d signatures:\n%s", name, n, msg)
		}
		mails[name] = msg
	}
	check := func(name string, msg []byte, want bool) {
		t.Helper()
		// What go-msgauth refuses to read it does not verify either.
		list, err := verify.VerifyWithOptions(bytes.NewReader(msg), &verify.VerifyOptions{LookupTXT: func(name string) ([]string, error) {
			txt, err := resolver.LookupTXT(t.Context(), name)
			return txt.Records, err
		}})
		if want && (err != nil || len(list) != 2) {
			t.Errorf("%s: go-msgauth found %d signatures: %v", name, len(list), err)
		}
		for _, v := range list {
			if (v.Err == nil) != want {
				t.Errorf("%s: go-msgauth: %v", name, v.Err)
			}
		}
		var passes []bool
		python.ask(question{Do: "verify", Message: msg}, &passes)
		if !slices.Equal(passes, []bool{want, want}) {
			t.Errorf("%s: dkimpy: %v", name, passes)
		}
		said := run(t, msg, "perl", "testdata/maildkim.pl", r.dns.Addr().String(), fmt.Sprint(r.dns.Port()))
		n := 0
		for line := range strings.Lines(said) {
			f := strings.Fields(line)
			if len(f) < 3 || !strings.Contains(knows, f[1]) {
				continue
			}
			if n++; (f[2] == "pass") != want {
				t.Errorf("%s: Mail::DKIM: %s", name, line)
			}
		}
		if n != len(strings.Fields(knows)) {
			t.Errorf("%s: Mail::DKIM looked at %d signatures of the algorithms %q: %q", name, n, knows, said)
		}
	}
	for name, msg := range mails {
		check(name, msg, true)
	}
	for name, msg := range tampered(mails["plain"]) {
		check("plain, "+name, msg, false)
	}
	t.Logf("Mail::DKIM knows %q", strings.Fields(knows))
	t.Run("OpenDKIM", func(t *testing.T) { openDKIMVerifies(t, r, mails) })
}

// openDKIMVerifies asks opendkim-testmsg, which takes one signature of several for an answer, about each signature alone. It
// asks the system's resolver, so it gets a network of its own, in which an unbound has the keys.
func openDKIMVerifies(t *testing.T, r *road, mails map[string][]byte) {
	need(t, "opendkim-testmsg", "unbound", "unshare", "ip")
	if os.Getuid() != 0 {
		lack(t, "a network of its own for opendkim-testmsg")
	}
	dir := t.TempDir()
	var data strings.Builder
	for name, text := range r.records {
		fmt.Fprintf(&data, "\tlocal-data: '%s. TXT %s'\n", name, quotedParts(text))
	}
	write(t, filepath.Join(dir, "unbound.conf"), fmt.Sprintf(`server:
	chroot: ""
	directory: %q
	username: ""
	pidfile: %q
	use-syslog: no
	interface: 127.0.0.1
	do-daemonize: no
	local-zone: "example.com." static
%s`, dir, filepath.Join(dir, "pid"), data.String()))
	write(t, filepath.Join(dir, "resolv.conf"), "nameserver 127.0.0.1\n")
	type expectation struct {
		name string
		pass bool
	}
	var want []expectation
	put := func(name string, msg []byte, pass bool) {
		for _, algorithm := range []string{"rsa-sha256", "ed25519-sha256"} {
			write(t, filepath.Join(dir, fmt.Sprintf("%03d.eml", len(want))), string(signedBy(msg, algorithm)))
			want = append(want, expectation{name + ", " + algorithm, pass})
		}
	}
	for name, msg := range mails {
		if slices.Contains([]string{"two To", "folded", "bare"}, name) {
			continue // it refuses headers that are not as RFC 5322 wants them, and wants a Date
		}
		put(name, msg, true)
	}
	for name, msg := range tampered(mails["plain"]) {
		put("plain, "+name, msg, false)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "sh", "testdata/opendkim.sh", dir)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != len(want) {
		t.Fatalf("%d answers to %d messages:\n%s", len(lines), len(want), out)
	}
	for i, w := range want {
		if said := strings.Fields(lines[i]); (said[1] == "0") != w.pass {
			t.Errorf("%s: OpenDKIM: %s", w.name, lines[i])
		}
	}
}

// signedBy returns a message with one of its signatures alone.
func signedBy(msg []byte, algorithm string) []byte {
	head, body, _ := bytes.Cut(msg, []byte("\r\n\r\n"))
	var out []byte
	keep := true
	for line := range bytes.SplitAfterSeq(append(head, "\r\n"...), []byte("\r\n")) {
		if len(line) > 0 && line[0] != ' ' && line[0] != '\t' {
			keep = !bytes.HasPrefix(line, []byte("DKIM-Signature:")) || bytes.Contains(line, []byte("a="+algorithm))
		}
		if keep {
			out = append(out, line...)
		}
	}
	return slices.Concat(out, []byte("\r\n"), body)
}
