package daemon_test

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/daemon/daemontest"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// memo is a log that many write to.
type memo struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (m *memo) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.b.Write(p)
}

func (m *memo) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.b.String()
}

// certificate writes a new certificate and its key, and returns the text of the key.
func certificate(t *testing.T, dir string) (cert, key, secret string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "godwit.test"}, DNSNames: []string{"godwit.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	for path, p := range map[string][]byte{cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), key: text} {
		if err := os.WriteFile(path, p, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key, strings.Split(string(text), "\n")[1]
}

// dialog sends lines and returns all replies. It goes on whatever they are.
func dialog(t *testing.T, address string, secure bool, lines ...string) (replies []string) {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, daemontest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { c.Close() }()
	r := bufio.NewReader(c)
	reply := func() string {
		if err := c.SetDeadline(time.Now().Add(daemontest.Patience)); err != nil {
			t.Fatal(err)
		}
		var all strings.Builder
		for {
			line, err := r.ReadString('\n')
			all.WriteString(line)
			if err != nil || len(line) < 4 || line[3] != '-' {
				return all.String()
			}
		}
	}
	replies = append(replies, reply())
	say := func(line string) {
		if _, err := io.WriteString(c, line+"\r\n"); err == nil {
			replies = append(replies, reply())
		}
	}
	if secure {
		say("EHLO app.test")
		say("STARTTLS")
		tc := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
		if err := tc.Handshake(); err != nil {
			t.Fatal(err)
		}
		c = tc
		r = bufio.NewReader(c)
	}
	for _, l := range lines {
		say(l)
	}
	return replies
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// TestSecrets is G-SECRET: secrets of every kind go through the whole server, with each mechanism, rightly and wrongly, and none
// of them is found in its log at the lowest level, its metrics, its profiles, its answers, its data, its mail, or its record.
func TestSecrets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key, pemLine := certificate(t, dir)
	master := keyFile(t)
	masterText, err := os.ReadFile(master)
	if err != nil {
		t.Fatal(err)
	}
	const login, password, wrong = "app@app.test", "c4n4ry-Passw0rd-q7", "c4n4ry-Wrong-w9-zz"
	secrets := map[string]string{
		"password": password, "wrong password": wrong, "key of the certificate": pemLine,
		"master key":      strings.TrimPrefix(strings.TrimSpace(string(masterText)), "gwmaster_"),
		"PLAIN":           b64("\x00" + login + "\x00" + password),
		"wrong PLAIN":     b64("\x00" + login + "\x00" + wrong),
		"LOGIN":           b64(password),
		"wrong LOGIN":     b64(wrong),
		"token":           b64("n,a=app@app.test,\x01host=x\x01auth=Bearer c4n4ry-token-4711\x01\x01"),
		"the token alone": "c4n4ry-token-4711",
	}
	var log memo
	w := daemontest.New(t, daemontest.Options{
		Log:   &log,
		Zones: "ok.test. IN MX 10 mx.ok.test.\nmx.ok.test. IN A 127.0.2.1\nno.test. IN MX 10 mx.ok.test.\napp.test. IN MX 10 mx.ok.test.\n",
		Config: func(c *config.Config) {
			c.Encryption = config.Encryption{KeyFile: master, Seal: true}
			c.TLS.Certificates = []config.Certificate{{Name: "main", Certificate: cert, Key: key}}
			c.HTTP.API = true
			front := c.Listeners[0]
			front.TrustedNetworks = nil
			front.Auth = "optional"
			open, door := front, front
			open.Name, open.InsecureAuth = "open", true
			door.Name, door.TLS, door.Certificate = "door", "starttls", "main"
			c.Listeners = append(c.Listeners, open, door)
		},
	})
	w.Host("127.0.2.1", smtptest.Script{Rules: []smtptest.Rule{{At: smtptest.AtRcpt, Match: "*@no.test", Reply: "550 5.1.1 nobody"}}})
	w.Start()
	client := w.Client()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	_, err = client.CreateCredential(ctx, api.NewCredential{
		Tenant: "default", Login: login, Password: password, Senders: []string{"app.test"}, AssignDomains: true,
	})
	must(err)
	made, err := client.CreateCredential(ctx, api.NewCredential{
		Tenant: "default", Login: "ops", Kind: "key", Scopes: []string{"smtp", "api", "read", "admin"}, Role: "admin", AllTenants: true,
	})
	must(err)
	secrets["API key"] = made.Secret
	secrets["API key as PLAIN"] = b64("\x00ops\x00" + made.Secret)
	rotated, err := client.CreateCredential(ctx, api.NewCredential{Tenant: "default", Login: "other"})
	must(err)
	secrets["made password"] = rotated.Secret
	again, err := client.RotateCredential(ctx, "other", api.Rotation{})
	must(err)
	secrets["rotated password"] = again.Secret
	for name, s := range secrets {
		if len(s) < 8 {
			t.Fatalf("%s is %q", name, s)
		}
	}

	var said []string
	for _, door := range []struct {
		name   string
		secure bool
	}{{"open", false}, {"door", true}, {"app", false}} {
		address := w.AddressOf(door.name)
		for _, lines := range [][]string{
			{"EHLO a.test", "AUTH PLAIN " + secrets["PLAIN"], "MAIL FROM:<me@app.test>", "RCPT TO:<you@no.test>", "DATA",
				"From: me@app.test\r\nSubject: x\r\n\r\nhi\r\n."},
			{"EHLO a.test", "AUTH PLAIN", secrets["PLAIN"]},
			{"EHLO a.test", "AUTH PLAIN " + secrets["wrong PLAIN"], "QUIT"},
			{"EHLO a.test", "AUTH LOGIN", b64(login), secrets["LOGIN"], "QUIT"},
			{"EHLO a.test", "AUTH LOGIN " + b64(login), secrets["wrong LOGIN"], "QUIT"},
			{"EHLO a.test", "AUTH OAUTHBEARER " + secrets["token"], "AQ==", "QUIT"},
			{"EHLO a.test", "AUTH PLAIN " + secrets["API key as PLAIN"], "QUIT"},
			{"EHLO a.test", "AUTH BOGUS " + secrets["PLAIN"], "auth  plain\t" + secrets["PLAIN"], "AUTH PLAIN " + secrets["PLAIN"] + "=x", "QUIT"},
			// A client that goes on with the password though it was refused.
			{"HELO a.test", "AUTH LOGIN", b64(login), secrets["LOGIN"], "QUIT"},
		} {
			said = append(said, dialog(t, address, door.secure, lines...)...)
		}
	}
	if all := strings.Join(said, ""); strings.Count(all, "235 2.7.0") < 4 || !strings.Contains(all, "535 5.7.8") {
		t.Errorf("the logins did not go as they should: %q", said)
	}
	w.Until("the report has arrived", func() bool { return len(w.Received()) > 0 })

	found := map[string]string{"replies": strings.Join(said, "")}
	get := func(path, key string) {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+w.HTTP()+path, nil)
		must(err)
		req.Header.Set("Authorization", "Bearer "+key)
		res, err := http.DefaultClient.Do(req)
		must(err)
		defer res.Body.Close()
		p, err := io.ReadAll(res.Body)
		must(err)
		found[path+" with "+key[:6]] = string(p)
		if key == made.Secret && res.StatusCode != http.StatusOK {
			t.Errorf("%s: %s %s", path, res.Status, p)
		}
	}
	for _, path := range []string{
		"/metrics", "/healthz", "/readyz", "/v1/status", "/v1/queues", "/v1/spool/stats", "/v1/audit?limit=1000", "/v1/audit/report",
		"/v1/keys", "/v1/credentials", "/v1/credentials/ops", "/v1/credentials/other", "/v1/tenants", "/v1/domains", "/v1/bans",
	} {
		get(path, made.Secret)
	}
	get("/v1/status", password)
	get("/v1/status", made.Secret+"x")
	var text bytes.Buffer
	must(w.Config().Show(&text))
	_, err = client.Reload(ctx)
	text.WriteString(fmt.Sprint(err))
	found["config show and errors"] = text.String()
	for _, profile := range pprof.Profiles() {
		for _, form := range []int{0, 1, 2} {
			var b bytes.Buffer
			must(profile.WriteTo(&b, form))
			found[fmt.Sprint("profile ", profile.Name(), form)] = b.String()
		}
	}
	for i, m := range w.Received() {
		found[fmt.Sprint("mail ", i)] = string(m.Body)
	}
	var events []byte
	for _, e := range w.Events() {
		events = e.AppendJSON(events)
	}
	found["events"] = string(events)
	w.Stop()
	found["log"] = log.String()
	for name, content := range files(t, w.Dir) {
		found["file "+name] = content
	}
	if !strings.Contains(found["log"], "client says") || !strings.Contains(found["log"], "AUTH") {
		t.Error("the log has no transcript")
	}
	record := found["/v1/audit?limit=1000 with "+made.Secret[:6]]
	var list api.AuditList
	must(json.Unmarshal([]byte(record), &list))
	if len(list.Records) < 4 {
		t.Errorf("record: %s", record)
	}
	for place, content := range found {
		for name, secret := range secrets {
			if i := strings.Index(content, secret); i >= 0 {
				t.Errorf("%s holds the %s: ...%q", place, name, content[max(i-80, 0):min(i+len(secret)+20, len(content))])
			}
		}
	}
}
