package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// The ACME library's rate limiter never ends.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.(*RingBufferRateLimiter).loop"))
}

// files writes a self-signed pair for host over whatever was there.
func files(t *testing.T, dir, name, host string, valid time.Duration) Pair {
	t.Helper()
	cert, key, err := SelfSigned([]string{host}, valid)
	if err != nil {
		t.Fatal(err)
	}
	p := Pair{Name: name, Certificate: filepath.Join(dir, name+".crt"), Key: filepath.Join(dir, name+".key")}
	put(t, p.Certificate, cert)
	put(t, p.Key, key)
	return p
}

func put(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func manager(t *testing.T, pairs ...Pair) *Manager {
	t.Helper()
	m, err := New(Options{Pairs: pairs, Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func config(t *testing.T, m *Manager, o ServerOptions) *tls.Config {
	t.Helper()
	c, err := m.Config(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// handshake lets a client and a server meet and exchange an octet each way, so that tickets arrive. It returns the
// client's view.
func handshake(t *testing.T, server, client *tls.Config) (state tls.ConnectionState, clientErr, serverErr error) {
	t.Helper()
	near, far := smtptest.Pipe()
	defer near.Close()
	defer far.Close()
	served := make(chan error, 1)
	go func() {
		s := tls.Server(far, server)
		_, err := io.CopyN(s, s, 1)
		served <- err
		if err != nil {
			_ = far.Close()
		}
	}()
	c := tls.Client(near, client)
	if _, clientErr = c.Write([]byte{'x'}); clientErr == nil {
		_, clientErr = io.ReadFull(c, make([]byte, 1))
	}
	_ = near.Close()
	return c.ConnectionState(), clientErr, <-served
}

func trusting(t *testing.T, host string, certs ...string) *tls.Config {
	t.Helper()
	pool := x509.NewCertPool()
	for _, file := range certs {
		pool.AppendCertsFromPEM(get(t, file))
	}
	return &tls.Config{ServerName: host, RootCAs: pool}
}

func mustMeet(t *testing.T, server, client *tls.Config) tls.ConnectionState {
	t.Helper()
	state, clientErr, serverErr := handshake(t, server, client)
	if clientErr != nil || serverErr != nil {
		t.Fatalf("client: %v, server: %v", clientErr, serverErr)
	}
	return state
}

func TestVersionsAndSuites(t *testing.T) {
	t.Parallel()
	p := files(t, t.TempDir(), "main", "mx.example.org", time.Hour)
	server := config(t, manager(t, p), ServerOptions{Listener: "a"})
	client := trusting(t, "mx.example.org", p.Certificate)
	if s := mustMeet(t, server, client.Clone()); s.Version != tls.VersionTLS13 || s.CurveID != tls.X25519MLKEM768 {
		t.Errorf("version %x, group %v", s.Version, s.CurveID)
	}
	old := client.Clone()
	old.MaxVersion = tls.VersionTLS12
	if s := mustMeet(t, server, old); s.Version != tls.VersionTLS12 || !strings.Contains(tls.CipherSuiteName(s.CipherSuite), "GCM") {
		t.Errorf("version %x, suite %s", s.Version, tls.CipherSuiteName(s.CipherSuite))
	}
	for _, suite := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		if aead := strings.Contains(suite.Name, "GCM") || strings.Contains(suite.Name, "CHACHA20"); aead && strings.Contains(suite.Name, "ECDHE") ||
			slices.Contains(suite.SupportedVersions, tls.VersionTLS13) {
			continue
		}
		weak := old.Clone()
		weak.CipherSuites = []uint16{suite.ID}
		if _, err, _ := handshake(t, server, weak); err == nil {
			t.Errorf("%s is spoken", suite.Name)
		}
	}
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11} {
		weak := client.Clone()
		weak.MinVersion, weak.MaxVersion = version, version
		if _, err, _ := handshake(t, server, weak); err == nil {
			t.Errorf("version %x is spoken", version)
		}
	}
}

// TestTALPACA refuses a client that wants to speak HTTP.
func TestTALPACA(t *testing.T) {
	t.Parallel()
	p := files(t, t.TempDir(), "main", "mx.example.org", time.Hour)
	server := config(t, manager(t, p), ServerOptions{Listener: "a"})
	client := trusting(t, "mx.example.org", p.Certificate)
	client.NextProtos = []string{"h2", "http/1.1"}
	if _, err, _ := handshake(t, server, client); err == nil {
		t.Error("a browser is let in")
	}
	client.NextProtos = []string{"smtp"}
	mustMeet(t, server, client)
}

// TestTTICKET: a ticket is good for the listener that gave it, for two days, and as long as the authorities of clients are
// the same.
func TestTTICKET(t *testing.T) {
	t.Parallel()
	p := files(t, t.TempDir(), "main", "mx.example.org", time.Hour)
	m := manager(t, p)
	a, b := config(t, m, ServerOptions{Listener: "a"}), config(t, m, ServerOptions{Listener: "b"})
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		client := trusting(t, "mx.example.org", p.Certificate)
		client.MaxVersion = version
		client.ClientSessionCache = tls.NewLRUClientSessionCache(10)
		if mustMeet(t, a, client).DidResume {
			t.Fatal("resumed without a ticket")
		}
		if !mustMeet(t, a, client).DidResume {
			t.Fatal("not resumed at its own listener")
		}
		if mustMeet(t, b, client).DidResume {
			t.Error("resumed at another listener")
		}
		mustMeet(t, a, client)
		for i, want := range []bool{true, false} {
			for range i + 1 {
				for _, s := range m.servers() {
					s.rotate()
				}
			}
			if got := mustMeet(t, a, client).DidResume; got != want {
				t.Errorf("after %d rotations: resumed %v", i+1, got)
			}
		}
	}
}

func TestChoice(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	one, two := files(t, dir, "one", "mx.example.org", time.Hour), files(t, dir, "two", "*.example.net", time.Hour)
	m := manager(t, one, two)
	any := config(t, m, ServerOptions{Listener: "any"})
	fixed := config(t, m, ServerOptions{Listener: "fixed", Certificate: "two"})
	name := func(server *tls.Config, host string) string {
		client := trusting(t, host)
		client.InsecureSkipVerify = true
		return mustMeet(t, server, client).PeerCertificates[0].DNSNames[0]
	}
	for _, tt := range []struct{ any, host, want string }{
		{"any", "mx.example.org", "mx.example.org"}, {"any", "mx.example.net", "*.example.net"}, {"any", "MX.EXAMPLE.NET", "*.example.net"},
		{"any", "other.example", "mx.example.org"}, {"any", "", "mx.example.org"},
		{"fixed", "mx.example.org", "*.example.net"}, {"fixed", "", "*.example.net"},
	} {
		server := any
		if tt.any == "fixed" {
			server = fixed
		}
		if got := name(server, tt.host); got != tt.want {
			t.Errorf("%s %q: %s, want %s", tt.any, tt.host, got, tt.want)
		}
	}
	if _, err := m.Config(ServerOptions{Listener: "x", Certificate: "three"}); err == nil {
		t.Error("a certificate that is not there")
	}
	if _, err := manager(t).Config(ServerOptions{Listener: "x"}); err == nil {
		t.Error("no certificate at all")
	}
}

// authority signs certificates of clients.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "clients"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func (a *authority) client(t *testing.T, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "not a name to go by"}, EmailAddresses: []string{"app@example.org"}, DNSNames: []string{"app.example.org"},
		URIs:      []*url.URL{{Scheme: "spiffe", Host: "example.org", Path: "/app"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestClientCertificates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := files(t, dir, "main", "mx.example.org", time.Hour)
	ours, theirs := newAuthority(t), newAuthority(t)
	ca := filepath.Join(dir, "ca.pem")
	put(t, ca, ours.pem)
	m := manager(t, p)
	optional := config(t, m, ServerOptions{Listener: "optional", ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: ca})
	required := config(t, m, ServerOptions{Listener: "required", ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca})
	none := config(t, m, ServerOptions{Listener: "none"})

	good := ours.client(t, nil)
	foreign := theirs.client(t, nil)
	expired := ours.client(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	server := ours.client(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	for _, tt := range []struct {
		name               string
		cert               *tls.Certificate
		optional, required bool
	}{
		{"none", nil, true, false}, {"good", &good, true, true}, {"foreign", &foreign, false, false},
		{"expired", &expired, false, false}, {"of a server", &server, false, false},
	} {
		client := trusting(t, "mx.example.org", p.Certificate)
		if tt.cert != nil { // whatever authorities the server names
			client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return tt.cert, nil }
		}
		for _, l := range []struct {
			name   string
			server *tls.Config
			want   bool
		}{{"optional", optional, tt.optional}, {"required", required, tt.required}, {"none", none, true}} {
			if _, _, err := handshake(t, l.server, client); (err == nil) != l.want {
				t.Errorf("%s at %s: %v", tt.name, l.name, err)
			}
		}
	}

	// Who comes in with a certificate is known by its names; a change of authorities ends that, tickets included.
	near, far := smtptest.Pipe()
	defer near.Close()
	client := trusting(t, "mx.example.org", p.Certificate)
	client.Certificates = []tls.Certificate{good}
	client.ClientSessionCache = tls.NewLRUClientSessionCache(10)
	go func() { _ = tls.Client(near, client.Clone()).Handshake() }()
	s := tls.Server(far, required)
	if err := s.Handshake(); err != nil {
		t.Fatal(err)
	}
	state := s.ConnectionState()
	if got := strings.Join(Identities(&state), " "); got != "app@example.org app.example.org spiffe://example.org/app" {
		t.Errorf("identities %q", got)
	}
	state.VerifiedChains = nil
	if Identities(&state) != nil || Identities(nil) != nil {
		t.Error("a certificate that nobody verified has names")
	}
	mustMeet(t, required, client)
	if !mustMeet(t, required, client).DidResume {
		t.Fatal("not resumed")
	}
	put(t, ca, theirs.pem)
	if err := m.Reload(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := handshake(t, required, client); err == nil {
		t.Error("the authority's client is let in after the authority was replaced")
	}
	put(t, ca, []byte("nothing"))
	if err := m.Reload(); err == nil || len(m.Findings()) == 0 {
		t.Error("broken authorities are not told")
	}
	client.Certificates = []tls.Certificate{foreign}
	mustMeet(t, required, client)
}

// TestReload: a pair is taken over within 10 seconds; a broken one never is.
func TestReload(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		p := files(t, dir, "main", "mx.example.org", 24*365*time.Hour)
		m := manager(t, p)
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = m.Run(ctx) })
		defer running.Wait()
		defer stop()
		now := func() string {
			c, err := m.certificate(&tls.ClientHelloInfo{}, "main")
			if err != nil {
				t.Fatal(err)
			}
			return c.Leaf.SerialNumber.String()
		}
		first := now()
		wait := func() { time.Sleep(10 * time.Second); synctest.Wait() }
		if wait(); now() != first || len(m.Findings()) != 0 {
			t.Fatalf("it changed by itself: %v", m.Findings())
		}

		other := files(t, dir, "other", "mx.example.org", time.Hour)
		key := get(t, p.Key)
		put(t, p.Key, get(t, other.Key))
		wait()
		f := m.Findings()
		if now() != first || len(f) != 1 || !strings.Contains(f[0].Problem, "old one stays") || f[0].Since.IsZero() {
			t.Fatalf("a key that does not fit: %+v", f)
		}
		put(t, p.Key, []byte("rubbish"))
		if wait(); now() != first || len(m.Findings()) != 1 {
			t.Fatal("rubbish")
		}
		if err := os.Remove(p.Key); err != nil {
			t.Fatal(err)
		}
		if wait(); now() != first || len(m.Findings()) != 1 {
			t.Fatal("no file")
		}
		put(t, p.Key, key)
		if wait(); now() != first || len(m.Findings()) != 0 {
			t.Fatalf("the old pair is back: %v", m.Findings())
		}

		expired := files(t, dir, "expired", "mx.example.org", time.Second)
		wait()
		put(t, p.Certificate, get(t, expired.Certificate))
		put(t, p.Key, get(t, expired.Key))
		if wait(); now() != first || len(m.Findings()) != 1 || m.Reload() == nil {
			t.Fatalf("an expired pair: %v", m.Findings())
		}

		files(t, dir, "main", "mx.example.org", 10*24*time.Hour)
		if wait(); now() == first {
			t.Fatal("not taken over")
		}
		if f := m.Findings(); len(f) != 1 || f[0].Problem != "certificate expires in 9 days" || f[0].Grave {
			t.Errorf("%+v", f)
		}
		second := now()
		files(t, dir, "main", "mx.example.org", 24*365*time.Hour)
		if err := m.Reload(); err != nil || now() == second || len(m.Findings()) != 0 {
			t.Errorf("reload: %v", err)
		}
		files(t, dir, "main", "mx.example.org", time.Minute)
		wait()
		if f := m.Findings(); len(f) != 1 || !f[0].Grave {
			t.Errorf("%+v", f)
		}
		time.Sleep(time.Minute)
		if f := m.Findings(); len(f) != 1 || f[0].Problem != "certificate has expired" || !f[0].Grave {
			t.Errorf("%+v", f)
		}
	})
}

func TestSetPairs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	one := files(t, dir, "one", "one.example", time.Hour)
	m := manager(t, one)
	put(t, one.Key, []byte("broken now"))
	two := files(t, dir, "two", "two.example", time.Hour)
	if err := m.SetPairs([]Pair{one, two}); err != nil {
		t.Errorf("a pair that was loaded stays: %v", err)
	}
	for _, bad := range [][]Pair{{two, two}, {{Name: "x", Certificate: one.Certificate, Key: two.Key}}, {{}}, {{Name: "x", Certificate: "/none", Key: "/none"}}} {
		if m.SetPairs(bad) == nil || len(m.pairs()) != 2 {
			t.Errorf("%v is taken", bad)
		}
	}
	if err := m.SetPairs(nil); err != nil || len(m.pairs()) != 0 {
		t.Error("none")
	}
	if _, err := m.certificate(&tls.ClientHelloInfo{}, ""); err == nil {
		t.Error("a certificate out of nothing")
	}
	for _, o := range []Options{{Poll: time.Minute}, {Pairs: []Pair{{Name: "a"}}}} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v", o)
		}
	}
}

func TestSelfSigned(t *testing.T) {
	t.Parallel()
	cert, key, err := SelfSigned([]string{"mx.bücher.example", "127.0.0.1", "::1"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p := Pair{Name: "x", Certificate: filepath.Join(dir, "tls", "cert.pem"), Key: filepath.Join(dir, "tls", "key.pem")}
	if err := WritePair(p, cert, key); err != nil {
		t.Fatal(err)
	}
	if err := WritePair(p, cert, key); err == nil {
		t.Error("a key was overwritten")
	}
	if info, err := os.Stat(p.Key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key has mode %v", info.Mode())
	}
	m := manager(t, p)
	leaf := m.pairs()[0].current.Load().Leaf
	for _, host := range []string{"mx.xn--bcher-kva.example", "127.0.0.1", "::1"} {
		if err := leaf.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	if !leaf.IPAddresses[0].Equal(net.IPv4(127, 0, 0, 1)) {
		t.Error(leaf.IPAddresses)
	}
	for _, bad := range [][]string{nil, {"a b"}, {""}} {
		if _, _, err := SelfSigned(bad, time.Hour); err == nil {
			t.Errorf("%q is a host", bad)
		}
	}
}
