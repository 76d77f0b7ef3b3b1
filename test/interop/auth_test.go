//go:build interop

package interop

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// door is a server that clients log in to, and what they need for it.
type door struct {
	*godwit
	dir      string
	password string
	starttls int
	implicit int
	short    bool
}

// TestClients runs every block of docs/manual/clients.md against the real server: what an administrator copies works, with each
// mechanism that the client knows, over both forms of TLS. Each must hand in one message, by the mechanism that it names.
func TestClients(t *testing.T) {
	d := openDoor(t)
	text, err := os.ReadFile("../../docs/manual/clients.md")
	if err != nil {
		t.Fatal(err)
	}
	files, blocks := blocksOf(t, string(text))
	for _, b := range withTwins(t, blocks) {
		t.Run(b.name, func(t *testing.T) {
			if d.short && b.client != "swaks" && b.client != "smtplib" {
				t.Skip("needs " + b.client + " and more time than CI has: make interop runs it, make interop-ci runs swaks and smtplib")
			}
			if b.client == "openssl" || b.client == "smtplib" {
				need(t, map[string]string{"openssl": "openssl", "smtplib": "python3"}[b.client])
			}
			d.run(t, b, files)
		})
	}
	if len(blocks) < 24 {
		t.Errorf("only %d blocks were found", len(blocks))
	}
}

// block is a piece of the manual that can be run.
type block struct{ name, client, tls, mechanism, language, text string }

// forms are the words that differ between the two forms of TLS in a client's settings: with STARTTLS, and from the first octet.
var forms = map[string][][2]string{
	"swaks":      {{"--port 587 --tls ", "--port 465 --tls-on-connect "}},
	"curl":       {{"--ssl-reqd --cacert", "--cacert"}, {"smtp://mail.example.com:587", "smtps://mail.example.com:465"}},
	"openssl":    {{"-starttls smtp -connect mail.example.com:587", "-connect mail.example.com:465"}},
	"msmtp":      {{"--file=msmtprc --port=587 --tls-starttls=on", "--file=msmtprc --port=465 --tls-starttls=off"}},
	"nodemailer": {{"port: 587, requireTLS: true", "port: 465, secure: true"}},
}

var (
	smtplibPlain = regexp.MustCompile(`(?s)smtplib\.SMTP\("mail.example.com", 587, timeout=30\)(.*?)\n    server\.starttls\(context=([^\n]*)\)\n`)
	smtplibTLS   = regexp.MustCompile(`smtplib\.SMTP_SSL\("mail.example.com", 465, context=(.*), timeout=30\) as server:\n`)
)

// withTwins adds to each block the same over the other form of TLS.
func withTwins(t *testing.T, blocks []block) []block {
	t.Helper()
	var all []block
	for _, b := range blocks {
		twin := b
		from, to := 0, 1
		twin.tls = "TLS"
		if b.tls == "TLS" {
			from, to, twin.tls = 1, 0, "STARTTLS"
		}
		twin.name = strings.Join([]string{b.client, twin.tls, b.mechanism, "twin"}, "-")
		if b.client == "msmtp" {
			twin.text = strings.Replace(b.text, "--file=msmtprc", forms["msmtp"][0][to], 1)
		} else {
			for _, f := range forms[b.client] {
				twin.text = strings.Replace(twin.text, f[from], f[to], 1)
			}
		}
		if b.client == "smtplib" {
			twin.text = smtplibPlain.ReplaceAllString(b.text, `smtplib.SMTP_SSL("mail.example.com", 465, context=$2, timeout=30)$1`+"\n")
			if from == 1 {
				twin.text = smtplibTLS.ReplaceAllString(b.text, `smtplib.SMTP("mail.example.com", 587, timeout=30) as server:`+
					"\n    server.starttls(context=$1)\n")
			}
		}
		if twin.text == b.text {
			t.Errorf("%s has no other form", b.name)
		}
		all = append(all, b, twin)
	}
	return all
}

var blockPattern = regexp.MustCompile("(?s)<!-- (run|file): ([^>]*) -->\n```([a-z]*)\n(.*?)```")

func blocksOf(t *testing.T, text string) (files map[string]string, blocks []block) {
	t.Helper()
	files = make(map[string]string)
	for _, m := range blockPattern.FindAllStringSubmatch(text, -1) {
		if m[1] == "file" {
			files[m[2]] = m[4]
			continue
		}
		words := strings.Fields(m[2])
		if len(words) != 3 {
			t.Fatalf("%q is not client, TLS form and mechanism", m[2])
		}
		blocks = append(blocks, block{strings.Join(words, "-"), words[0], words[1], words[2], m[3], m[4]})
	}
	if strings.Count(text, "```") != 2*(len(blocks)+len(files)) {
		t.Error("the manual has a block that is not run")
	}
	return files, blocks
}

// run puts the test's names into a block and runs it in a directory of its own.
func (d *door) run(t *testing.T, b block, files map[string]string) {
	login := map[string]string{"OAUTHBEARER": "robot", "XOAUTH2": "robot", "EXTERNAL": "edge"}[b.mechanism]
	if login == "" {
		login = "app"
	}
	names := strings.NewReplacer("PASSWORD", d.password, "mail.example.com", "localhost")
	user := regexp.MustCompile(`\bapp\b`)
	ports := regexp.MustCompile(`\b(587|465)\b`)
	fill := func(text string) string {
		text = user.ReplaceAllString(names.Replace(text), login)
		return ports.ReplaceAllStringFunc(text, func(s string) string {
			if s == "465" {
				return strconv.Itoa(d.implicit)
			}
			return strconv.Itoa(d.starttls)
		})
	}
	dir := t.TempDir()
	for _, name := range []string{"ca.pem", "client.pem", "client.key", "token", "message.txt"} {
		content, err := os.ReadFile(filepath.Join(d.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		writeSecret(t, filepath.Join(dir, name), string(content))
	}
	for name, text := range files {
		writeSecret(t, filepath.Join(dir, name), fill(text))
	}
	argv := []string{"env", "-C", dir}
	switch b.language {
	case "sh":
		argv = append(argv, "bash", "-euo", "pipefail", "-c", fill(b.text))
	case "python":
		argv = append(argv, "python3", "-c", fill(b.text))
	case "js":
		modules := filepath.Join(unpacked(t), "npm", "node_modules")
		if _, err := os.Stat(filepath.Join(modules, "nodemailer")); err != nil {
			lack(t, "nodemailer")
		}
		argv = append(argv, "NODE_PATH="+modules, "node", "-e", fill(b.text))
	default:
		t.Fatalf("nobody runs %s", b.language)
	}
	if b.client != "openssl" && b.client != "smtplib" && b.client != "nodemailer" {
		need(t, b.client)
	}
	if b.client == "swaks" {
		if _, err := try(t, nil, "perl", "-MNet::SSLeay", "-e1"); err != nil {
			lack(t, "Net::SSLeay for swaks")
		}
	}
	before, logins := d.accepted(t), d.logins(t, b.mechanism)
	out, err := try(t, nil, argv...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if n := d.accepted(t) - before; n != 1 {
		t.Errorf("%d messages were accepted\n%s", n, out)
	}
	if d.logins(t, b.mechanism) == logins {
		t.Errorf("nobody logged in by %s\n%s", b.mechanism, out)
	}
}

func (d *door) accepted(t *testing.T) int {
	t.Helper()
	var s struct {
		Accepted int `json:"accepted"`
	}
	d.command(t, &s, "spool", "stats")
	return s.Accepted
}

// logins returns the counters of those by a mechanism that succeeded.
func (d *door) logins(t *testing.T, mechanism string) string {
	t.Helper()
	out := run(t, nil, "curl", "-s", fmt.Sprintf("http://%s/metrics", d.http(t)))
	counters := ""
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "godwit_auth_attempts_total{") && strings.Contains(line, `"`+mechanism+`"`) &&
			(strings.Contains(line, `"ok"`) || strings.Contains(line, `"ok_cached"`)) {
			counters += line
		}
	}
	return counters
}

func (d *door) http(t *testing.T) string {
	t.Helper()
	for _, line := range strings.Split(readFile(t, d.log), "\n") {
		var ready struct {
			Msg  string `json:"msg"`
			HTTP string `json:"http"`
		}
		if json.Unmarshal([]byte(line), &ready) == nil && ready.Msg == "ready" {
			return ready.HTTP
		}
	}
	t.Fatal("the server does not say where it answers HTTP")
	return ""
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func writeSecret(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// openDoor starts a server with a certificate, an issuer of tokens and a credential of each kind, by the commands that
// an administrator would use.
func openDoor(t *testing.T) *door {
	t.Helper()
	need(t, "curl")
	dir, err := os.MkdirTemp("", "gwa") // the path of the admin socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &door{dir: dir, starttls: freePort(t), implicit: freePort(t), short: os.Getenv("INTEROP_SHORT") == "1"}
	binary := buildGodwit(t, dir)
	run(t, nil, binary, "cert", "self-signed", "localhost", "127.0.0.1",
		"--certificate", filepath.Join(dir, "ca.pem"), "--key", filepath.Join(dir, "key.pem"))
	writeAuthority(t, dir)
	issuer := startIssuer(t, dir)
	config := fmt.Sprintf(`hostname: godwit.example
data_dir: %[1]s/data
log: {format: json}
http: {address: "127.0.0.1:0"}
tls: {certificates: [{name: main, certificate: %[1]s/ca.pem, key: %[1]s/key.pem}]}
listeners:
  - {name: submission, address: "127.0.0.1:%[2]d", tls: starttls, auth: required, client_certificates: optional, client_ca: %[1]s/clients.pem}
  - {name: submissions, address: "127.0.0.1:%[3]d", tls: implicit, auth: required, client_certificates: optional, client_ca: %[1]s/clients.pem}
auth: {oauth: [{name: corp, issuer: %[4]q, audience: godwit, ca: %[1]s/issuer.pem}]}
routes: [{domains: ["*"], hosts: ["127.0.0.1:1"]}]
`, dir, d.starttls, d.implicit, issuer)
	d.godwit = startGodwit(t, dir, binary, config)
	var made struct {
		Secret string `json:"secret"`
	}
	d.command(t, &made, "credential", "create", "--name", "app", "--domain", "example.com")
	d.password = made.Secret
	d.command(t, &made, "credential", "create", "--name", "robot", "--kind", "oauth", "--issuer", "corp", "--subject", "robot@corp.example")
	d.command(t, &made, "credential", "create", "--name", "edge", "--kind", "certificate", "--certificate-name", "edge.example.com")
	writeSecret(t, filepath.Join(dir, "message.txt"), "From: news@example.com\nTo: you@example.net\nSubject: Hello\n\nIt works.\n")
	return d
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// writeAuthority makes clients.pem, and client.pem with client.key that it has signed.
func writeAuthority(t *testing.T, dir string) {
	t.Helper()
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "clients"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	client := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "edge"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"edge.example.com"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	key, clientKey := newKey(t), newKey(t)
	for _, c := range []struct {
		file     string
		template *x509.Certificate
		public   *ecdsa.PublicKey
	}{{"clients.pem", authority, &key.PublicKey}, {"client.pem", client, &clientKey.PublicKey}} {
		der, err := x509.CreateCertificate(rand.Reader, c.template, authority, c.public, key)
		if err != nil {
			t.Fatal(err)
		}
		writePEM(t, filepath.Join(dir, c.file), "CERTIFICATE", der)
	}
	der, err := x509.MarshalPKCS8PrivateKey(clientKey)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, filepath.Join(dir, "client.key"), "PRIVATE KEY", der)
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func writePEM(t *testing.T, name, kind string, der []byte) {
	t.Helper()
	writeSecret(t, name, string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
}

// startIssuer runs an OpenID provider and writes issuer.pem, by which it is trusted, and a token of robot@corp.example.
func startIssuer(t *testing.T, dir string) string {
	t.Helper()
	key := newKey(t)
	encode := base64.RawURLEncoding.EncodeToString
	answer := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(v); err != nil {
			t.Error(err)
		}
	}
	mux := http.NewServeMux()
	s := httptest.NewUnstartedServer(mux)
	s.TLS = &tls.Config{}
	s.StartTLS()
	t.Cleanup(s.Close)
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{
			"issuer": s.URL, "jwks_uri": s.URL + "/keys", "authorization_endpoint": s.URL + "/a", "token_endpoint": s.URL + "/t",
			"id_token_signing_alg_values_supported": []string{"ES256"}, "subject_types_supported": []string{"public"},
			"response_types_supported": []string{"code"},
		})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		point, err := key.PublicKey.ECDH()
		if err != nil {
			t.Error(err)
			return
		}
		p := point.Bytes() // 4, x, y
		answer(w, map[string]any{"keys": []any{map[string]string{
			"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "1", "x": encode(p[1:33]), "y": encode(p[33:]),
		}}})
	})
	writePEM(t, filepath.Join(dir, "issuer.pem"), "CERTIFICATE", s.Certificate().Raw)
	claims, err := json.Marshal(map[string]any{
		"iss": s.URL, "aud": "godwit", "sub": "1", "email": "robot@corp.example",
		"iat": time.Now().Add(-time.Minute).Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	})
	if err != nil {
		t.Fatal(err)
	}
	token := encode([]byte(`{"alg":"ES256","kid":"1","typ":"JWT"}`)) + "." + encode(claims)
	sum := sha256.Sum256([]byte(token))
	r, sig, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	raw := make([]byte, 64)
	r.FillBytes(raw[:32])
	sig.FillBytes(raw[32:])
	writeSecret(t, filepath.Join(dir, "token"), token+"."+encode(raw)+"\n")
	return s.URL
}
