package auth_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/godwit-mta/godwit/internal/store"
	"github.com/godwit-mta/godwit/internal/submission/auth"
	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/sasl"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cheap is a cost of hashing that tests can bear.
var cheap = auth.Cost{MemoryKiB: 64, Passes: 1, Lanes: 1}

type world struct {
	t     *testing.T
	store *store.DB
	*auth.Directory
}

func newWorld(t *testing.T, edit ...func(*auth.Options)) *world {
	t.Helper()
	s, err := store.Open(store.Options{Dir: "store", FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &world{t: t, store: s}
	w.open(edit...)
	return w
}

// open makes a Directory over the same store, as after a restart.
func (w *world) open(edit ...func(*auth.Options)) {
	w.t.Helper()
	o := auth.Options{Store: w.store, Hostname: "mta1.example.com", Cost: cheap, ScramIterations: 4096}
	for _, e := range edit {
		e(&o)
	}
	var err error
	if w.Directory, err = auth.New(o); err != nil {
		w.t.Fatal(err)
	}
}

// newBench makes a Directory for a benchmark.
func newBench(b *testing.B, edit func(*auth.Options)) *auth.Directory {
	b.Helper()
	s, err := store.Open(store.Options{Dir: "store", FS: vfs.NewMem()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	o := auth.Options{Store: s, Hostname: "mta1.example.com"}
	edit(&o)
	d, err := auth.New(o)
	if err != nil {
		b.Fatal(err)
	}
	return d
}

func (w *world) create(n auth.NewCredential) auth.Created {
	w.t.Helper()
	if n.Tenant == "" {
		n.Tenant = auth.DefaultTenant
	}
	c, err := w.CreateCredential(w.t.Context(), n)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func app(login string) auth.NewCredential {
	return auth.NewCredential{Credential: auth.Credential{Login: login}}
}

func from(addr string) auth.Client {
	return auth.Client{Addr: netip.MustParseAddr(addr), TLS: &tls.ConnectionState{Version: tls.VersionTLS12}}
}

// login runs an exchange to its end.
func (w *world) login(c auth.Client, client sasl.Client) (*auth.Identity, smtp.Reply, error) {
	w.t.Helper()
	return w.exchange(w.t.Context(), c, auth.Policy{}, client)
}

func (w *world) exchange(ctx context.Context, c auth.Client, p auth.Policy, client sasl.Client) (*auth.Identity, smtp.Reply, error) {
	w.t.Helper()
	mechanism, response, err := client.Start()
	if err != nil {
		w.t.Fatal(err)
	}
	var got *auth.Identity
	server, refused := w.Begin(ctx, mechanism, c, p, func(i *auth.Identity) { got = i })
	if !refused.IsZero() {
		return nil, refused, errors.New("refused at once")
	}
	for range 10 {
		challenge, done, err := server.Next(ctx, response)
		switch {
		case err != nil && got != nil:
			w.t.Fatal("an identity for an exchange that failed")
		case err != nil:
			return nil, smtp.Reply{}, err
		case done && got == nil:
			w.t.Fatal("no identity after success")
		case done:
			return got, smtp.Reply{}, nil
		}
		if response, err = client.Next(challenge); err != nil {
			return nil, smtp.Reply{}, err
		}
		if response == nil {
			response = []byte{}
		}
	}
	w.t.Fatal("the exchange does not end")
	return nil, smtp.Reply{}, nil
}

func TestPasswordLetsIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	made := w.create(app("app1"))
	secret := made.Secret.Reveal()
	if len(secret) < 32 {
		t.Fatalf("a generated password of %d characters", len(secret))
	}
	for name, client := range map[string]sasl.Client{
		"PLAIN":         sasl.PlainClient("", "app1", secret),
		"own authzid":   sasl.PlainClient("app1", "app1", secret),
		"capitals":      sasl.PlainClient("", "APP1", secret),
		"LOGIN":         sasl.LoginClient("app1", secret),
		"SCRAM-SHA-256": sasl.ScramSHA256Client("app1", secret, nil),
	} {
		id, _, err := w.login(from("192.0.2.1"), client)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if id.Login != "app1" || id.Tenant != "default" || id.Credential != made.Credential.ID || id.Valid() != nil {
			t.Errorf("%s: %+v, %v", name, id, id.Valid())
		}
	}
	for name, client := range map[string]sasl.Client{
		"wrong":         sasl.PlainClient("", "app1", secret+"x"),
		"shorter":       sasl.PlainClient("", "app1", secret[:8]),
		"unknown":       sasl.PlainClient("", "app2", secret),
		"for another":   sasl.PlainClient("root", "app1", secret),
		"SCRAM-SHA-256": sasl.ScramSHA256Client("app1", "wrong "+secret, nil),
		"SCRAM unknown": sasl.ScramSHA256Client("app2", secret, nil),
	} {
		if _, _, err := w.login(from("192.0.2.1"), client); !errors.Is(err, sasl.ErrFailed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSecretsAreNotKeptInTheClear(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	password := w.create(app("app1")).Secret.Reveal()
	n := app("key1")
	n.Kind = auth.Key
	key := w.create(n).Secret.Reveal()
	if !strings.HasPrefix(key, "gw_") {
		t.Errorf("key %q", key)
	}
	for kv, err := range w.store.Scan(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []string{password, key} {
			if strings.Contains(string(kv.Value), s) || strings.Contains(string(kv.Value), s[len(s)-16:]) {
				t.Errorf("%s holds a secret", kv.Key)
			}
		}
	}
	id, err := w.Key(t.Context(), key, from("192.0.2.1"), auth.ScopeAPI)
	if err != nil || id.Login != "key1" {
		t.Fatal(id, err)
	}
	for _, login := range []string{"key1", "apikey"} {
		if _, _, err := w.login(from("192.0.2.1"), sasl.PlainClient("", login, key)); err != nil {
			t.Errorf("%s: %v", login, err)
		}
	}
	if _, _, err := w.login(from("192.0.2.1"), sasl.PlainClient("", "app1", key)); !errors.Is(err, sasl.ErrFailed) {
		t.Errorf("the key under another name: %v", err)
	}
}

func prefixes(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, s := range list {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}
