package fetch_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/godwit-mta/godwit/internal/dns"
	"github.com/godwit-mta/godwit/internal/fetch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// names is a resolver with addresses per name, each answer taken in turn, the last one for good.
type names struct {
	answers map[string][][]netip.Addr
	asked   atomic.Int32
}

func (n *names) LookupAddrs(_ context.Context, host string) (dns.Addrs, error) {
	list, ok := n.answers[host]
	if !ok {
		return dns.Addrs{}, &dns.Error{Kind: dns.NXDomain, Name: host, Type: "address"}
	}
	i := min(int(n.asked.Add(1)), len(list)) - 1
	return dns.Addrs{IPs: list[i]}, nil
}

func at(ips ...string) [][]netip.Addr {
	var out []netip.Addr
	for _, ip := range ips {
		out = append(out, netip.MustParseAddr(ip))
	}
	return [][]netip.Addr{out}
}

// site is an HTTPS server on loopback for example.com, reached by a client that may go to loopback.
func site(t *testing.T, h http.HandlerFunc, change func(*fetch.Options)) (*fetch.Client, string) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = nil
	s.StartTLS()
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	port := s.Listener.Addr().(*net.TCPAddr).Port
	o := fetch.Options{
		Resolver:        &names{answers: map[string][][]netip.Addr{"example.com": at("127.0.0.1"), "other.test": at("127.0.0.1")}},
		AllowedNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Ports:           []uint16{443, uint16(port)}, RootCAs: roots, Timeout: 5 * time.Second,
	}
	if change != nil {
		change(&o)
	}
	c, err := fetch.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c, fmt.Sprintf("https://example.com:%d", port)
}

func kind(t *testing.T, err error) fetch.Kind {
	t.Helper()
	var e *fetch.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v is no *fetch.Error", err)
	}
	if e.Detail == "" || strings.Contains(e.Detail, "secret") {
		t.Errorf("detail %q", e.Detail)
	}
	return e.Kind
}

func TestGet(t *testing.T) {
	t.Parallel()
	c, url := site(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "" {
			t.Error("asks for a compressed answer")
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		io.WriteString(w, "version: STSv1\n")
	}, nil)
	body, contentType, err := c.Get(t.Context(), url+"/x")
	if err != nil || string(body) != "version: STSv1\n" || contentType != "text/plain; charset=utf-8" {
		t.Fatalf("%q %q %v", body, contentType, err)
	}
}

func TestPost(t *testing.T) {
	t.Parallel()
	c, url := site(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/no" || r.Method != "POST" || string(body) != "report" || r.Header.Get("Content-Type") != "application/tlsrpt+gzip" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		w.WriteHeader(http.StatusCreated)
	}, nil)
	if err := c.Post(t.Context(), url+"/yes", "application/tlsrpt+gzip", []byte("report")); err != nil {
		t.Fatal(err)
	}
	err := c.Post(t.Context(), url+"/no", "application/tlsrpt+gzip", []byte("report"))
	if kind(t, err) != fetch.Status {
		t.Fatal(err)
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	t.Parallel()
	var beyond atomic.Int32
	var self string
	c, url := site(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/redirect":
			http.Redirect(w, r, self+"/beyond", http.StatusFound)
		case "/beyond":
			beyond.Add(1)
		case "/missing":
			w.WriteHeader(http.StatusNotFound)
		case "/created":
			w.WriteHeader(http.StatusCreated)
		case "/large":
			w.Write(make([]byte, 64<<10+1))
		case "/fits":
			w.Write(make([]byte, 64<<10))
		case "/endless":
			for {
				if _, err := w.Write(make([]byte, 1<<10)); err != nil {
					return
				}
			}
		case "/slow":
			<-r.Context().Done()
		case "/header":
			w.Header().Set("X", strings.Repeat("x", 64<<10))
		case "/short":
			w.Header().Set("Content-Length", "100")
			w.Write([]byte("x"))
		}
	}, func(o *fetch.Options) { o.Timeout = 500 * time.Millisecond })
	self = url
	for _, tc := range []struct {
		path string
		want fetch.Kind
	}{
		{"/redirect", fetch.Redirect}, {"/missing", fetch.Status}, {"/created", fetch.Status}, {"/large", fetch.TooLarge},
		{"/endless", fetch.TooLarge}, {"/slow", fetch.Timeout}, {"/header", fetch.Broken}, {"/short", fetch.Broken},
	} {
		if _, _, err := c.Get(t.Context(), url+tc.path); kind(t, err) != tc.want {
			t.Errorf("%s: %v, want %v", tc.path, err, tc.want)
		}
	}
	if body, _, err := c.Get(t.Context(), url+"/fits"); err != nil || len(body) != 64<<10 {
		t.Errorf("a body of the limit: %d %v", len(body), err)
	}
	if beyond.Load() != 0 {
		t.Error("a redirect was followed")
	}
}

// TestSSRF: no address that is no public host's is connected to, however it is written (W-SSRF).
func TestSSRF(t *testing.T) {
	t.Parallel()
	var dialled atomic.Int32
	n := &names{answers: map[string][][]netip.Addr{
		"loop.test": at("127.0.0.1"), "six.test": at("::1"), "mapped.test": at("::ffff:127.0.0.1"), "meta.test": at("169.254.169.254"),
		"ten.test": at("10.0.0.1", "192.168.1.1"), "nat64.test": at("64:ff9b::7f00:1"), "zero.test": at("0.0.0.0"),
	}}
	c, err := fetch.New(fetch.Options{Resolver: n, Ports: []uint16{443, 8443}, Dial: func(_ context.Context, _, a string) (net.Conn, error) {
		dialled.Add(1)
		return nil, errors.New("dialled " + a)
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{
		"https://loop.test/", "https://six.test/", "https://mapped.test/", "https://meta.test/", "https://ten.test/", "https://nat64.test/",
		"https://zero.test/", "https://127.0.0.1/", "https://[::1]/", "https://[::ffff:7f00:1]/", "https://[::ffff:127.0.0.1]/",
		"https://169.254.169.254/latest", "https://[fe80::1%25lo]/", "http://example.com/", "ftp://example.com/", "file:///etc/passwd",
		"gopher://example.com/", "https:example.com", "https:///x", "https://ok@127.0.0.1/", "https://user:secret@example.com/",
		"https://loop.test:25/", "https://loop.test:6379/", "https://loop.test:0/", "https://loop.test:99999/", "://", "https://loop.test:8443/",
		"https://example.com/" + strings.Repeat("x", 3000),
	} {
		if _, _, err := c.Get(t.Context(), url); kind(t, err) != fetch.Forbidden {
			t.Errorf("%.60s: %v", url, err)
		}
	}
	// What resolvers of old took for an address is a name here, and is none.
	for _, url := range []string{"https://2130706433/", "https://0x7f.1/", "https://017700000001/", "https://localhost./", "https://0/"} {
		if _, _, err := c.Get(t.Context(), url); kind(t, err) != fetch.Lookup && kind(t, err) != fetch.Forbidden {
			t.Errorf("%s: %v", url, err)
		}
	}
	if dialled.Load() != 0 {
		t.Errorf("%d connections", dialled.Load())
	}
}

// TestRebinding: what is dialled is what was checked, though the name changes its mind.
func TestRebinding(t *testing.T) {
	t.Parallel()
	n := &names{answers: map[string][][]netip.Addr{"flip.test": {at("8.8.8.8")[0], at("127.0.0.1")[0]}}}
	var dialled []string
	c, err := fetch.New(fetch.Options{Resolver: n, Dial: func(_ context.Context, _, a string) (net.Conn, error) {
		dialled = append(dialled, a)
		return nil, errors.New("no")
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Get(t.Context(), "https://flip.test/"); kind(t, err) != fetch.Connect {
		t.Errorf("first: %v", err)
	}
	if _, _, err := c.Get(t.Context(), "https://flip.test/"); kind(t, err) != fetch.Forbidden {
		t.Errorf("second: %v", err)
	}
	if len(dialled) != 1 || dialled[0] != "8.8.8.8:443" {
		t.Errorf("dialled %v", dialled)
	}
}

// TestNextAddress: a host with several addresses is reached at the one that answers, forbidden ones left out.
func TestNextAddress(t *testing.T) {
	t.Parallel()
	c, url := site(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }, func(o *fetch.Options) {
		o.Resolver = &names{answers: map[string][][]netip.Addr{"example.com": at("10.9.9.9", "127.1.1.1", "127.0.0.1")}}
		dial := new(net.Dialer).DialContext
		o.Dial = func(ctx context.Context, network, a string) (net.Conn, error) {
			if !strings.HasPrefix(a, "127.0.0.1:") {
				return nil, errors.New("unreachable")
			}
			return dial(ctx, network, a)
		}
	})
	if body, _, err := c.Get(t.Context(), url); err != nil || string(body) != "ok" {
		t.Errorf("%q %v", body, err)
	}
}

func TestCertificates(t *testing.T) {
	t.Parallel()
	handler := func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }
	c, url := site(t, handler, nil)
	if _, _, err := c.Get(t.Context(), strings.Replace(url, "example.com", "other.test", 1)); kind(t, err) != fetch.Certificate {
		t.Errorf("wrong name: %v", err)
	}
	c, url = site(t, handler, func(o *fetch.Options) { o.RootCAs = x509.NewCertPool() })
	if _, _, err := c.Get(t.Context(), url); kind(t, err) != fetch.Certificate {
		t.Errorf("unknown issuer: %v", err)
	}
	c, url = site(t, handler, func(o *fetch.Options) {
		o.Dial = func(context.Context, string, string) (net.Conn, error) {
			a, b := net.Pipe()
			go func() {
				go func() { _, _ = io.Copy(io.Discard, b) }()
				_, _ = io.WriteString(b, "220 this is no TLS\r\n")
			}()
			return a, nil
		}
	})
	if _, _, err := c.Get(t.Context(), url); kind(t, err) != fetch.Handshake {
		t.Errorf("no TLS: %v", err)
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.TLS = &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}
	s.Config.ErrorLog = nil
	s.StartTLS()
	defer s.Close()
	_, url := site(t, nil, nil)
	c, _ := site(t, nil, func(o *fetch.Options) {
		o.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, s.Listener.Addr().String())
		}
		var port uint16
		fmt.Sscanf(url, "https://example.com:%d", &port)
		o.Ports = append(o.Ports, port)
	})
	if _, _, err := c.Get(t.Context(), url); kind(t, err) != fetch.Handshake {
		t.Errorf("TLS 1.1: %v", err)
	}
}

// TestParallel: no more connections at once than allowed; who waits too long is told.
func TestParallel(t *testing.T) {
	t.Parallel()
	enter, leave := make(chan struct{}, 4), make(chan struct{})
	c, url := site(t, func(http.ResponseWriter, *http.Request) { enter <- struct{}{}; <-leave }, func(o *fetch.Options) { o.Parallel = 1 })
	done := make(chan error)
	go func() { _, _, err := c.Get(t.Context(), url); done <- err }()
	<-enter
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := c.Get(ctx, url); kind(t, err) != fetch.Timeout || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("second: %v", err)
	}
	close(leave)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestKinds(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, k := range fetch.Kinds() {
		if k.String() == "unknown" || seen[k.String()] {
			t.Errorf("kind %d: %s", k, k)
		}
		seen[k.String()] = true
	}
}

// FuzzURL: what is let through is HTTPS to a port that may be asked, and names a host.
func FuzzURL(f *testing.F) {
	for _, u := range []string{"https://example.com/", "https://example.com:8443/a?b#c", "https://[2001:db8::1]/", "https://user@example.com", "https://example.com:443:443/", "https://%65xample.com/", "HTTPS://EXAMPLE.COM"} {
		f.Add(u)
	}
	c, err := fetch.New(fetch.Options{Resolver: &names{}, Ports: []uint16{443, 8443}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if c.CheckURL(text) != nil {
			return
		}
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Port() != "" && u.Port() != "443" && u.Port() != "8443" && strings.TrimLeft(u.Port(), "0") != "443" && strings.TrimLeft(u.Port(), "0") != "8443" {
			t.Fatalf("%q was let through", text)
		}
	})
}
