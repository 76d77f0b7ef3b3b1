package certs

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/godwit-mta/godwit/internal/dnspublish"
	"github.com/godwit-mta/godwit/internal/store"
)

func TestACMEOptions(t *testing.T) {
	t.Parallel()
	db := openStore(t)
	for _, tt := range []struct {
		name   string
		change func(a *ACME)
		ok     bool
	}{
		{"usual", func(*ACME) {}, true},
		{"tls-alpn-01", func(a *ACME) { a.Challenge = "tls-alpn-01" }, true},
		{"U-label", func(a *ACME) { a.Domains = []string{"mx.bücher.example"} }, true},
		{"cloudflare", func(a *ACME) { a.Challenge, a.DNS = "dns-01", dnspublish.Access{Provider: "cloudflare", Secret: "x"} }, true},
		{"wildcard", func(a *ACME) {
			a.Challenge, a.Domains = "dns-01", []string{"*.example.org"}
			a.DNS = dnspublish.Access{Provider: "rfc2136", Server: "127.0.0.1:53", KeyName: "k", Secret: "x"}
		}, true},
		{"no store", func(a *ACME) { a.Store = nil }, false},
		{"no domains", func(a *ACME) { a.Domains = nil }, false},
		{"no host", func(a *ACME) { a.Domains = []string{"a b"} }, false},
		{"wildcard over HTTP", func(a *ACME) { a.Domains = []string{"*.example.org"} }, false},
		{"unknown challenge", func(a *ACME) { a.Challenge = "dns-02" }, false},
		{"no port", func(a *ACME) { a.Listen = "127.0.0.1" }, false},
		{"port 0", func(a *ACME) { a.Listen = "127.0.0.1:0" }, false},
		{"no roots", func(a *ACME) { a.Roots = "/none" }, false},
		{"no provider", func(a *ACME) { a.Challenge = "dns-01" }, false},
		{"no key", func(a *ACME) {
			a.Challenge, a.DNS = "dns-01", dnspublish.Access{Provider: "rfc2136", Server: "127.0.0.1:53"}
		}, false},
		{"no token", func(a *ACME) { a.Challenge, a.DNS = "dns-01", dnspublish.Access{Provider: "cloudflare"} }, false},
	} {
		o := ACME{Domains: []string{"mx.example.org"}, Store: db}
		tt.change(&o)
		m, err := New(Options{ACME: &o})
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
		if err != nil {
			continue
		}
		if _, err := m.Config(ServerOptions{Listener: "a"}); err != nil { // the certificate comes later
			t.Errorf("%s: %v", tt.name, err)
		}
		if len(m.Findings()) != 0 || m.acme.issuer().CA != letsEncrypt {
			t.Errorf("%s: %+v", tt.name, m.Findings())
		}
	}
}

func openStore(t *testing.T) store.Store {
	t.Helper()
	db, err := store.Open(store.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func TestACMEStorage(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newStorage(openStore(t))
	for _, key := range []string{"certificates/ca/a/a.crt", "certificates/ca/a/a.key", "certificates/ca/ab/ab.crt", "acme/ca/users/x.json"} {
		if err := s.Store(ctx, key, []byte("value of "+key)); err != nil {
			t.Fatal(err)
		}
	}
	if v, err := s.Load(ctx, "certificates/ca/a/a.crt"); err != nil || string(v) != "value of certificates/ca/a/a.crt" {
		t.Errorf("%q %v", v, err)
	}
	for _, none := range []string{"certificates/ca/a", "none", ""} {
		if _, err := s.Load(ctx, none); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v", none, err)
		}
	}
	for key, want := range map[string]bool{"certificates/ca/a/a.crt": true, "certificates/ca": true, "certificates/ca/": true, "certificates/c": false, "none": false} {
		if s.Exists(ctx, key) != want {
			t.Errorf("exists %q", key)
		}
	}
	if i, err := s.Stat(ctx, "certificates/ca/a/a.key"); err != nil || !i.IsTerminal || i.Size != 32 || time.Since(i.Modified) > time.Minute {
		t.Errorf("%+v %v", i, err)
	}
	if i, err := s.Stat(ctx, "certificates/ca"); err != nil || i.IsTerminal {
		t.Errorf("%+v %v", i, err)
	}
	for _, tt := range []struct {
		path      string
		recursive bool
		want      string
	}{
		{"certificates", false, "certificates/ca"},
		{"certificates/ca", false, "certificates/ca/a certificates/ca/ab"},
		{"certificates/ca/a", true, "certificates/ca/a/a.crt certificates/ca/a/a.key"},
		{"certificates/", true, "certificates/ca certificates/ca/a certificates/ca/a/a.crt certificates/ca/a/a.key certificates/ca/ab certificates/ca/ab/ab.crt"},
		{"", false, "acme certificates"},
	} {
		list, err := s.List(ctx, tt.path, tt.recursive)
		if got := strings.Join(slices.Sorted(slices.Values(list)), " "); got != tt.want || err != nil {
			t.Errorf("%q: %q %v", tt.path, got, err)
		}
	}
	if _, err := s.List(ctx, "none", true); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if err := errors.Join(s.Delete(ctx, "certificates/ca/a"), s.Delete(ctx, "none")); err != nil {
		t.Fatal(err)
	}
	if s.Exists(ctx, "certificates/ca/a/a.key") || !s.Exists(ctx, "certificates/ca/ab/ab.crt") {
		t.Error("deleted too little or too much")
	}
}

func TestACMELocks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		s := newStorage(nil)
		if err := errors.Join(s.Lock(ctx, "a"), s.Lock(ctx, "b")); err != nil {
			t.Fatal(err)
		}
		held := 0
		for range 3 {
			go func() {
				if s.Lock(ctx, "a") == nil {
					held++
				}
			}()
		}
		for i := range 3 {
			if synctest.Wait(); held != i {
				t.Fatalf("%d hold it, want %d", held, i)
			}
			if err := s.Unlock(ctx, "a"); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if err := s.Lock(short, "b"); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if s.Unlock(ctx, "c") == nil {
			t.Error("what is not locked")
		}
		synctest.Wait()
	})
}

func TestZapToSlog(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := zap.New(&zapCore{log: slog.New(slog.NewTextHandler(&out, nil))})
	log.Debug("too much")
	log.Info("a story")
	log.With(zap.String("identifier", "mx.example.org")).Error("it failed", zap.Int("attempt", 2))
	got := out.String()
	if strings.Count(got, "\n") != 1 || !strings.Contains(got, `level=WARN msg="it failed" part=acme`) || !strings.Contains(got, "attempt=2") ||
		!strings.Contains(got, "identifier=mx.example.org") {
		t.Error(got)
	}
}
