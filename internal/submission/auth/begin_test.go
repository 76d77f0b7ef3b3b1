package auth_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godwit-mta/godwit/internal/submission/auth"
	"github.com/godwit-mta/godwit/smtp/sasl"
)

func TestMechanisms(t *testing.T) {
	t.Parallel()
	plain := newWorld(t)
	tokens := newWorld(t, func(o *auth.Options) { o.Issuers = []auth.Issuer{{Name: "corp", Verifier: tokens{}}} })
	clear := auth.Client{Addr: netip.MustParseAddr("192.0.2.1")}
	tls13 := from("192.0.2.1")
	tls13.TLS = &tls.ConnectionState{Version: tls.VersionTLS13}
	cert := from("192.0.2.1")
	cert.TLS = &tls.ConnectionState{Version: tls.VersionTLS12, VerifiedChains: [][]*x509.Certificate{{{}}}}
	unverified := from("192.0.2.1")
	unverified.TLS = &tls.ConnectionState{Version: tls.VersionTLS12, PeerCertificates: []*x509.Certificate{{}}}
	for _, c := range []struct {
		name   string
		w      *world
		client auth.Client
		policy auth.Policy
		want   string
	}{
		{"clear", plain, clear, auth.Policy{}, ""},
		{"clear and allowed", plain, clear, auth.Policy{InsecureAuth: true}, "SCRAM-SHA-256 PLAIN LOGIN"},
		{"TLS 1.2", plain, from("192.0.2.1"), auth.Policy{}, "SCRAM-SHA-256 PLAIN LOGIN"},
		{"TLS 1.3", plain, tls13, auth.Policy{}, "SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN"},
		{"certificate", plain, cert, auth.Policy{}, "EXTERNAL SCRAM-SHA-256 PLAIN LOGIN"},
		{"certificate that nobody vouches for", plain, unverified, auth.Policy{}, "SCRAM-SHA-256 PLAIN LOGIN"},
		{"tokens", tokens, from("192.0.2.1"), auth.Policy{}, "SCRAM-SHA-256 PLAIN LOGIN OAUTHBEARER XOAUTH2"},
		{"chosen", tokens, tls13, auth.Policy{Mechanisms: []string{"PLAIN", "XOAUTH2", "EXTERNAL"}}, "PLAIN XOAUTH2"},
	} {
		if got := strings.Join(c.w.Mechanisms(c.client, c.policy), " "); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	for mechanism, want := range map[string]int{"PLAIN": 538, "GSSAPI": 538, "": 538} {
		if _, r := plain.Begin(t.Context(), mechanism, clear, auth.Policy{}, nil); r.Code != want {
			t.Errorf("%s in the clear: %v", mechanism, r)
		}
	}
	for _, mechanism := range []string{"GSSAPI", "", "EXTERNAL", "SCRAM-SHA-256-PLUS", "OAUTHBEARER", "CRAM-MD5"} {
		if _, r := plain.Begin(t.Context(), mechanism, from("192.0.2.1"), auth.Policy{}, nil); r.Code != 504 {
			t.Errorf("%s: %v", mechanism, r)
		}
	}
}

// TestChannelBinding: SCRAM-SHA-256-PLUS over a real TLS connection.
func TestChannelBinding(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	secret := w.create(app("app1")).Secret.Reveal()
	here, there := net.Pipe()
	certificate, roots := selfSigned(t)
	server := tls.Server(here, &tls.Config{Certificates: []tls.Certificate{certificate}})
	client := tls.Client(there, &tls.Config{RootCAs: roots, ServerName: "mta1.example.com"})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := client.HandshakeContext(t.Context()); err != nil {
			t.Error(err)
		}
	})
	if err := server.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	defer here.Close()
	defer there.Close()
	ours, theirs := server.ConnectionState(), client.ConnectionState()
	c := auth.Client{Addr: netip.MustParseAddr("192.0.2.1"), TLS: &ours}
	if _, _, err := w.login(c, sasl.ScramSHA256Client("app1", secret, sasl.TLSExporter(&theirs))); err != nil {
		t.Error(err)
	}
	bad := sasl.TLSExporter(&theirs)
	bad.Data = slices.Clone(bad.Data)
	bad.Data[0] ^= 1
	if _, _, err := w.login(c, sasl.ScramSHA256Client("app1", secret, bad)); err == nil {
		t.Error("bound to another connection, and let in")
	}
	if _, _, err := w.login(c, sasl.ScramSHA256Client("app1", secret, nil)); err != nil {
		t.Errorf("a client that knows no binding: %v", err)
	}
}

func TestCertificates(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for login, name := range map[string]string{
		"edge": "Edge1.Example.com", "mail": "relay@Bücher.example", "spiffe": "spiffe://example.com/app", "ip": "192.0.2.9",
	} {
		n := app(login)
		n.Kind, n.Name = auth.Certificate, name
		if made := w.create(n); !made.Secret.IsZero() {
			t.Errorf("%s has a secret", login)
		}
	}
	u, err := url.Parse("spiffe://example.com/app")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		cert    x509.Certificate
		authzid string
		want    string
	}{
		{"DNS name", x509.Certificate{DNSNames: []string{"other.example", "EDGE1.example.com"}}, "", "edge"},
		{"asked for by name", x509.Certificate{DNSNames: []string{"edge1.example.com"}}, "edge", "edge"},
		{"e-mail", x509.Certificate{EmailAddresses: []string{"relay@xn--bcher-kva.example"}}, "", "mail"},
		{"URI", x509.Certificate{URIs: []*url.URL{u}}, "", "spiffe"},
		{"address", x509.Certificate{IPAddresses: []net.IP{net.ParseIP("192.0.2.9")}}, "", "ip"},
		{"the second of two", x509.Certificate{DNSNames: []string{"edge1.example.com"}, URIs: []*url.URL{u}}, "spiffe", "spiffe"},
		{"as another", x509.Certificate{DNSNames: []string{"edge1.example.com"}}, "mail", ""},
		{"unknown", x509.Certificate{DNSNames: []string{"edge2.example.com"}}, "", ""},
		{"wildcard", x509.Certificate{DNSNames: []string{"*.example.com"}}, "", ""},
		{"common name", func() x509.Certificate {
			var c x509.Certificate
			c.Subject.CommonName = "edge1.example.com"
			return c
		}(), "", ""},
	} {
		client := from("192.0.2.1")
		client.TLS.VerifiedChains = [][]*x509.Certificate{{&c.cert}}
		id, _, err := w.login(client, sasl.ExternalClient(c.authzid))
		switch {
		case c.want == "" && !errors.Is(err, sasl.ErrFailed):
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err != nil || id.Login != c.want || id.Mechanism != "EXTERNAL"):
			t.Errorf("%s: %v, %v", c.name, id, err)
		}
	}
}

// tokens is an issuer whose tokens are their subjects.
type tokens struct{}

func (tokens) Verify(_ context.Context, token string) (string, error) {
	switch {
	case token == "away":
		return "", errors.New("the issuer does not answer")
	case strings.HasPrefix(token, "sub-"):
		return token[len("sub-"):], nil
	}
	return "", auth.ErrToken
}

func TestTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *auth.Options) { o.Issuers = []auth.Issuer{{Name: "corp", Verifier: tokens{}}} })
	n := app("robot@example.com")
	n.Kind, n.Issuer, n.Subject = auth.OAuth, "corp", "1234"
	w.create(n)
	n = app("named")
	n.Kind, n.Issuer = auth.OAuth, "corp" // the subject is the login
	w.create(n)
	w.create(app("password"))
	for _, c := range []struct {
		user, token string
		want        string
		err         error
	}{
		{"", "sub-1234", "robot@example.com", nil},
		{"robot@example.com", "sub-1234", "robot@example.com", nil},
		{"1234", "sub-1234", "robot@example.com", nil},
		{"", "sub-named", "named", nil},
		{"named", "sub-1234", "", sasl.ErrFailed},
		{"", "sub-nobody", "", sasl.ErrFailed},
		{"", "sub-password", "", sasl.ErrFailed},
		{"", "forged", "", sasl.ErrFailed},
		{"", "away", "", sasl.ErrTemporary},
	} {
		for _, client := range []sasl.Client{sasl.OAuthBearerClient(c.user, c.token), sasl.XOAuth2Client(c.user, c.token)} {
			if c.user == "" && client != nil {
				if name, _, _ := client.Start(); name == sasl.NameXOAuth2 {
					continue // it needs a name
				}
			}
			w.clearAll()
			id, _, err := w.login(from("192.0.2.1"), client)
			if !errors.Is(err, c.err) || err == nil && id.Login != c.want {
				t.Errorf("%q %q: %v, %v", c.user, c.token, id, err)
			}
		}
	}
}

func (w *world) clearAll() {
	w.t.Helper()
	if _, err := w.ClearBans(auth.BanQuery{All: true}); err != nil {
		w.t.Fatal(err)
	}
}

func small(o *auth.Options) {
	o.Budgets = auth.Budgets{
		Address: auth.Budget{Failures: 5, Window: time.Hour, Ban: time.Hour, Longest: time.Hour},
		Account: auth.Budget{Failures: 10, Window: time.Hour, Ban: time.Hour, Longest: time.Hour},
		Home:    auth.Budget{Failures: 8, Window: time.Hour, Ban: time.Hour, Longest: time.Hour},
	}
}

// TestGuessing walks the road of an attacker, for each mechanism with a password and for keys.
func TestGuessing(t *testing.T) {
	t.Parallel()
	wrong := map[string]func(login string) sasl.Client{
		"PLAIN": func(login string) sasl.Client { return sasl.PlainClient("", login, "wrong password") },
		"LOGIN": func(login string) sasl.Client { return sasl.LoginClient(login, "wrong password") },
		"SCRAM": func(login string) sasl.Client { return sasl.ScramSHA256Client(login, "wrong password", nil) },
		"key":   func(login string) sasl.Client { return sasl.PlainClient("", login, "gw_abcdef_wrongwrongwrong") },
	}
	for name, guess := range wrong {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, small)
			secret := w.create(app("app1")).Secret.Reveal()
			right := sasl.PlainClient("", "app1", secret)
			// From one address: after the budget nothing is looked at any more, not even the right password.
			for n := range 5 {
				if _, r, err := w.login(from("192.0.2.1"), guess("app1")); !errors.Is(err, sasl.ErrFailed) {
					t.Fatalf("guess %d: %v, %v", n, err, r)
				}
			}
			if _, r, err := w.login(from("192.0.2.1"), right); r.Code != 421 {
				t.Errorf("%v, %v", r, err)
			}
			if _, r, _ := w.login(from("192.0.2.1"), guess("other")); r.Code != 421 {
				t.Errorf("another name: %v", r)
			}
			// Elsewhere the account is open until its own budget is used up.
			if _, _, err := w.login(from("198.51.100.1"), right); err != nil {
				t.Fatal(err)
			}
			for i := range 5 {
				if _, _, err := w.login(from(fmt.Sprintf("203.0.113.%d", i+1)), guess("app1")); !errors.Is(err, sasl.ErrFailed) {
					t.Fatalf("guess from address %d: %v", i, err)
				}
			}
			if _, _, err := w.login(from("203.0.113.99"), right); !errors.Is(err, sasl.ErrTemporary) {
				t.Errorf("account over its budget: %v", err)
			}
			// Where it is at home it comes in all the same, and there its failures are its own.
			if _, _, err := w.login(from("198.51.100.1"), right); err != nil {
				t.Errorf("at home: %v", err)
			}
			bans := w.Bans()
			if len(bans) != 2 {
				t.Errorf("%+v", bans)
			}
			if _, err := w.ClearBans(auth.BanQuery{Login: "app1"}); err != nil {
				t.Fatal(err)
			}
			if _, _, err := w.login(from("203.0.113.99"), right); err != nil {
				t.Errorf("after the ban was lifted: %v", err)
			}
		})
	}
}

// TestUnknownNamesAreBannedAlike: the budget of a name tells nothing about whether it exists.
func TestUnknownNamesAreBannedAlike(t *testing.T) {
	t.Parallel()
	w := newWorld(t, small)
	w.create(app("app1"))
	answers := func(login string, net int) (list []string) {
		for i := range 14 {
			_, r, err := w.login(from(fmt.Sprintf("203.0.%d.%d", net, i+1)), sasl.PlainClient("", login, "wrong password"))
			list = append(list, fmt.Sprint(r, err))
		}
		return list
	}
	if a, b := answers("app1", 1), answers("nobody", 2); !slices.Equal(a, b) {
		t.Errorf("%q\n%q", a, b)
	}
}

// TestHomesSurviveARestart: what is known of usual addresses is written now and then and at the end.
func TestHomesSurviveARestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, small)
	made := w.create(app("app1"))
	right := func() sasl.Client { return sasl.PlainClient("", "app1", made.Secret.Reveal()) }
	if _, _, err := w.login(from("2001:db8:1:2::9"), right()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	first := w.Directory
	go func() { ended <- first.Run(ctx) }()
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	w.open(small)
	if u := w.Use(made.Credential.ID); u.Last.IsZero() || u.Addr.String() != "2001:db8:1:2::/64" {
		t.Errorf("%+v", u)
	}
	for i := range 30 { // an attacker exhausts address and account
		_, _, _ = w.login(from(fmt.Sprintf("203.0.113.%d", i+1)), sasl.PlainClient("", "app1", "wrong password"))
		_, _, _ = w.login(from("2001:db8:1:2::666"), sasl.PlainClient("", "other", "wrong password"))
	}
	if _, r, err := w.login(from("2001:db8:1:2::10"), right()); err != nil {
		t.Errorf("locked out of its home: %v, %v", r, err)
	}
	if _, r, _ := w.login(from("2001:db8:1:3::10"), right()); r.Code == 0 && len(w.Bans()) < 2 {
		t.Error("nothing was banned")
	}
}

// TestBansAreTold: once, with who it was, and never with what somebody who does not exist was called.
func TestBansAreTold(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var told []auth.Ban
	w := newWorld(t, small, func(o *auth.Options) {
		o.Banned = func(_ context.Context, b auth.Ban) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, b)
		}
	})
	w.create(app("app1"))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	for i := range 10 {
		for _, login := range []string{"app1", "my-secret-password"} {
			_, _, _ = w.login(from(fmt.Sprintf("203.0.113.%d", i+1)), sasl.PlainClient("", login, "wrong password"))
		}
	}
	for range 20_000 {
		mu.Lock()
		n := len(told)
		mu.Unlock()
		if n >= 2 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if len(told) != 2 || told[0].Login != "app1" || told[0].Tenant != "default" || told[1].Login != "" || told[1].Kind != auth.BanAccount {
		t.Errorf("%+v", told)
	}
}

// TestFloodWaitsForItself: beyond its few hashers and their queue an attempt is answered at once.
func TestFloodWaitsForItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *auth.Options) {
		o.Hashers, o.HashQueue, o.HashWait = 1, 4, 50*time.Millisecond
		o.Cost = auth.Cost{MemoryKiB: 4 << 10, Passes: 2, Lanes: 1}
	})
	w.create(app("app1"))
	var mu sync.Mutex
	count := make(map[bool]int)
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			_, _, err := w.login(from(fmt.Sprintf("203.0.113.%d", i+1)), sasl.PlainClient("", fmt.Sprint("name", i), "wrong password"))
			mu.Lock()
			defer mu.Unlock()
			count[errors.Is(err, sasl.ErrTemporary)]++
		})
	}
	wg.Wait()
	if count[true] == 0 || count[false] == 0 {
		t.Errorf("%d were answered 454, %d were checked", count[true], count[false])
	}
}
