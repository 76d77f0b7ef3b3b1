package auth_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"testing"
	"time"

	"github.com/godwit-mta/godwit/internal/store"
	"github.com/godwit-mta/godwit/internal/submission/auth"
	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/sasl"
)

// TestProofsAreLookedAtAgain: Run finds out that a proof is gone.
func TestProofsAreLookedAtAgain(t *testing.T) {
	t.Parallel()
	zone, edit := withZones(t, "")
	w := newWorld(t, edit, func(o *auth.Options) { o.RecheckInterval = 24 * time.Millisecond })
	_, ch := w.claim("shop.example")
	if err := zone.Set(ch.Name + `. TXT "` + ch.Text + `"`); err != nil {
		t.Fatal(err)
	}
	w.verify("shop.example")
	if err := zone.Set(""); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	var d auth.Domain
	for range 5000 {
		var err error
		if d, err = w.Domain("shop.example", "default"); err != nil {
			t.Fatal(err)
		}
		if !d.Missing.IsZero() {
			break
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if d.Missing.IsZero() || d.State != auth.Proven || !w.Owns("default", "shop.example") {
		t.Errorf("%+v", d)
	}
}

// TestRunEndsWithTheStore: a Directory that cannot follow its store says so.
func TestRunEndsWithTheStore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := &failing{Store: w.store}
	w.open(func(o *auth.Options) { o.Store = s })
	if err := w.Run(t.Context()); !errors.Is(err, store.ErrFailed) {
		t.Errorf("%v", err)
	}
}

// failing is a store that takes nothing and tells nothing any more.
type failing struct{ store.Store }

func (f *failing) Watch(context.Context, string) iter.Seq2[store.Change, error] {
	return func(yield func(store.Change, error) bool) { yield(store.Change{}, store.ErrFailed) }
}

// TestManyAtOnce: logins, questions and changes at the same time; each change holds when its call has returned.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			login := fmt.Sprint("app", i)
			for range 10 {
				n := app(login)
				n.Tenant, n.Senders, n.Assign = "default", []string{login + ".example"}, true
				made, err := w.CreateCredential(ctx, n)
				if err != nil {
					t.Error(err)
					return
				}
				client := from(fmt.Sprintf("192.0.2.%d", i+1))
				id, _, err := w.login(client, sasl.PlainClient("", login, made.Secret.Reveal()))
				if err != nil {
					t.Error(err)
					return
				}
				if err := id.MaySend(ctx, smtp.Path{Local: "a", Domain: login + ".example"}); err != nil {
					t.Error(err)
				}
				if _, err := w.RotateCredential(ctx, login, "", time.Hour); err != nil {
					t.Error(err)
				}
				if err := id.Valid(); err != nil {
					t.Errorf("while the old secret is kept: %v", err)
				}
				w.Credentials(auth.CredentialQuery{})
				w.Tenants()
				w.Bans()
				if _, err := w.RevokeCredential(ctx, login); err != nil {
					t.Error(err)
				}
				if !errors.Is(id.Valid(), auth.ErrRevoked) {
					t.Error("valid after it was revoked")
				}
			}
		})
	}
	wg.Wait()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if n := len(w.Credentials(auth.CredentialQuery{})); n != 0 {
		t.Errorf("%d credentials are left", n)
	}
}

// TestTwoServersMakeOneName: who is second is told so, whoever it asked.
func TestTwoServersMakeOneName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.Directory
	w.open() // does not follow, so it does not know
	n := app("app1")
	n.Tenant = "default"
	if _, err := first.CreateCredential(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	if _, err := w.CreateCredential(t.Context(), n); !errors.Is(err, auth.ErrExists) {
		t.Errorf("%v", err)
	}
}
