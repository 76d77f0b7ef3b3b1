//go:build interop

package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/godwit-mta/godwit/internal/dnspublish"
	"github.com/godwit-mta/godwit/internal/store"
)

// pebble is the ACME server of Let's Encrypt's own tests, installed from the module proxy into a directory of the test.
const pebble = "github.com/letsencrypt/pebble/v2/cmd/pebble@v2.10.1"

const (
	tsigName   = "update.test."
	tsigSecret = "c2VjcmV0IG9mIHRoZSB1cGRhdGVzIG9mIHRlc3Q="
)

// zone answers 127.0.0.1 for every name below test., and takes updates of TXT records (RFC 2136).
type zone struct {
	mu  sync.Mutex
	txt map[string][]dns.RR
}

func (z *zone) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	z.mu.Lock()
	defer z.mu.Unlock()
	m := new(dns.Msg)
	m.SetReply(r)
	m.Authoritative = true
	defer func() { _ = w.WriteMsg(m) }()
	if r.Opcode == dns.OpcodeUpdate {
		if r.IsTsig() == nil || w.TsigStatus() != nil {
			m.Rcode = dns.RcodeNotAuth
			return
		}
		for _, rr := range r.Ns {
			name := strings.ToLower(rr.Header().Name)
			if rr.Header().Class == dns.ClassINET {
				z.txt[name] = append(z.txt[name], rr)
			} else {
				delete(z.txt, name)
			}
		}
		m.SetTsig(tsigName, dns.HmacSHA256, 300, time.Now().Unix())
		return
	}
	q := r.Question[0]
	name := strings.ToLower(q.Name)
	soa, _ := dns.NewRR("test. 60 IN SOA ns.test. admin.test. 1 60 60 60 60")
	switch q.Qtype {
	case dns.TypeSOA:
		if name == "test." {
			m.Answer = append(m.Answer, soa)
			return
		}
	case dns.TypeNS:
		rr, _ := dns.NewRR("test. 60 IN NS ns.test.")
		if name == "test." {
			m.Answer = append(m.Answer, rr)
			return
		}
	case dns.TypeA:
		rr, _ := dns.NewRR(q.Name + " 60 IN A 127.0.0.1")
		m.Answer = append(m.Answer, rr)
		return
	case dns.TypeTXT:
		m.Answer = append(m.Answer, z.txt[name]...)
	}
	m.Ns = append(m.Ns, soa)
}

func serveZone(t *testing.T) string {
	t.Helper()
	z := &zone{txt: make(map[string][]dns.RR)}
	pc, l := listenBoth(t)
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait) // after the servers were told
	for _, s := range []*dns.Server{{PacketConn: pc}, {Listener: l}} {
		s.Handler, s.TsigSecret = z, map[string]string{tsigName: tsigSecret}
		s.MsgAcceptFunc = func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		wg.Go(func() { _ = s.ActivateAndServe() })
		<-started
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return pc.LocalAddr().String()
}

// listenBoth takes one port for UDP and TCP, which others may have half of.
func listenBoth(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for try := 0; ; try++ {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		pc, err := net.ListenPacket("udp", l.Addr().String())
		if err == nil {
			return pc, l
		}
		if _ = l.Close(); try == 20 {
			t.Fatal(err)
		}
	}
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

// authority runs pebble and returns its directory, the file that its HTTPS is checked with, and its root.
func startPebble(t *testing.T, dnsServer string, httpPort, tlsPort int) (directory, roots string, root *x509.CertPool) {
	t.Helper()
	bin := t.TempDir()
	install := exec.Command("go", "install", pebble)
	install.Dir = bin
	install.Env = append(os.Environ(), "GOBIN="+bin, "GOFLAGS=-mod=mod")
	if out, err := install.CombinedOutput(); err != nil {
		t.Skipf("needs Go's module proxy for the ACME server pebble; make interop runs it where there is one: %v\n%s", err, out)
	}
	dir := t.TempDir()
	cert, key, err := SelfSigned([]string{"127.0.0.1"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	https := Pair{Certificate: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	if err := WritePair(https, cert, key); err != nil {
		t.Fatal(err)
	}
	acmePort, managePort := freePort(t), freePort(t)
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": fmt.Sprintf("127.0.0.1:%d", acmePort), "managementListenAddress": fmt.Sprintf("127.0.0.1:%d", managePort),
		"certificate": https.Certificate, "privateKey": https.Key, "httpPort": httpPort, "tlsPort": tlsPort,
	}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "pebble.json")
	put(t, file, config)
	var log bytes.Buffer
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "pebble"), "-config", file, "-dnsserver", dnsServer)
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1")
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("pebble: %s", log.String())
		}
	})
	pool, err := loadPool(https.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	for range 100 {
		resp, err := client.Get(fmt.Sprintf("https://127.0.0.1:%d/roots/0", managePort))
		if err != nil {
			time.Sleep(100 * time.Millisecond)
			continue
		}
		data, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		root = x509.NewCertPool()
		if err != nil || !root.AppendCertsFromPEM(data) {
			t.Fatalf("no root: %v", err)
		}
		return fmt.Sprintf("https://127.0.0.1:%d/dir", acmePort), https.Certificate, root
	}
	t.Fatal("pebble does not answer")
	return "", "", nil
}

// TestACME gets certificates from a real authority by each kind of challenge, and keeps them over a restart.
func TestACME(t *testing.T) {
	dnsServer := serveZone(t)
	httpPort, tlsPort := freePort(t), freePort(t)
	directory, roots, root := startPebble(t, dnsServer, httpPort, tlsPort)
	for _, tt := range []struct {
		challenge string
		domains   []string
		listen    int
		server    string // that the client asks for
	}{
		{"http-01", []string{"mx1.test", "mx2.test"}, httpPort, "mx2.test"},
		{"tls-alpn-01", []string{"mx3.test"}, tlsPort, "mx3.test"},
		{"dns-01", []string{"*.wild.test"}, 0, "any.wild.test"},
	} {
		t.Run(tt.challenge, func(t *testing.T) {
			db, err := store.Open(store.Options{Dir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			o := ACME{
				Domains: tt.domains, Email: "admin@mx1.test", Directory: directory, Roots: roots, Challenge: tt.challenge,
				Listen: fmt.Sprintf("127.0.0.1:%d", max(tt.listen, 1)), Store: db,
				DNS: dnspublish.Access{Provider: "rfc2136", Server: dnsServer, KeyName: tsigName, Secret: tsigSecret},
			}
			first := obtain(t, o, tt.server, root)
			if again := obtain(t, o, tt.server, root); again != first {
				t.Errorf("after a restart another certificate is in use: %s, was %s", again, first)
			}
		})
	}
	t.Run("no answer", func(t *testing.T) { // nothing listens where the authority looks
		db, err := store.Open(store.Options{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		m := running(t, ACME{
			Domains: []string{"mx9.test"}, Directory: directory, Roots: roots, Challenge: "http-01",
			Listen: fmt.Sprintf("127.0.0.1:%d", freePort(t)), Store: db,
		})
		for range 300 {
			if f := m.Findings(); len(f) == 1 && f[0].Certificate == "mx9.test" && f[0].Grave {
				t.Log(f[0].Problem)
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
		t.Errorf("findings: %+v", m.Findings())
	})
}

func running(t *testing.T, o ACME) *Manager {
	t.Helper()
	m, err := New(Options{ACME: &o})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = m.Run(ctx) })
	t.Cleanup(func() { stop(); wg.Wait() })
	return m
}

// obtain runs a manager until it has all certificates, meets a client, and returns the number of the one it showed.
func obtain(t *testing.T, o ACME, host string, root *x509.CertPool) (number string) {
	t.Helper()
	m, err := New(Options{ACME: &o})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = m.Run(ctx) })
	defer wg.Wait()
	defer stop()
	began := time.Now()
	for len(m.acme.certificates()) < len(o.Domains) {
		if time.Since(began) > 90*time.Second {
			t.Fatalf("no certificate: %+v", m.Findings())
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Logf("%s: %v", o.Challenge, time.Since(began).Round(100*time.Millisecond))
	state := mustMeet(t, config(t, m, ServerOptions{Listener: "a"}), &tls.Config{ServerName: host, RootCAs: root})
	if f := m.Findings(); len(f) > 0 {
		t.Errorf("findings: %+v", f)
	}
	m.measure()
	return state.PeerCertificates[0].SerialNumber.String()
}
