package auth_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/godwit-mta/godwit/internal/store"
	"github.com/godwit-mta/godwit/internal/submission/auth"
	"github.com/godwit-mta/godwit/internal/submission/limits"
	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/sasl"
)

// in makes a credential and comes in by it.
func (w *world) in(n auth.NewCredential) (*auth.Identity, auth.Created) {
	w.t.Helper()
	made := w.create(n)
	id, _, err := w.login(from("192.0.2.1"), sasl.PlainClient("", made.Credential.Login, made.Secret.Reveal()))
	if err != nil {
		w.t.Fatal(err)
	}
	return id, made
}

// TestRevocationReachesOpenSessions: whatever ends a credential ends what came in by it, at once.
func TestRevocationReachesOpenSessions(t *testing.T) {
	t.Parallel()
	yes, no, past := true, false, time.Now().Add(-time.Hour)
	for _, c := range []struct {
		name string
		act  func(w *world, name string) error
		undo func(w *world, name string) error
		want error
	}{
		{"revoke", func(w *world, name string) error {
			_, err := w.RevokeCredential(t.Context(), name)
			return err
		}, nil, auth.ErrRevoked},
		{"rotate", func(w *world, name string) error {
			_, err := w.RotateCredential(t.Context(), name, "", 0)
			return err
		}, nil, auth.ErrRevoked},
		{"rotate and keep", func(w *world, name string) error {
			_, err := w.RotateCredential(t.Context(), name, "", time.Hour)
			return err
		}, nil, nil},
		{"rotate twice", func(w *world, name string) error {
			_, err := w.RotateCredential(t.Context(), name, "", time.Hour)
			_, err2 := w.RotateCredential(t.Context(), name, "", time.Hour)
			return errors.Join(err, err2)
		}, nil, auth.ErrRevoked},
		{"disable", func(w *world, name string) error {
			_, _, err := w.UpdateCredential(t.Context(), name, auth.CredentialChange{Disabled: &yes})
			return err
		}, func(w *world, name string) error {
			_, _, err := w.UpdateCredential(t.Context(), name, auth.CredentialChange{Disabled: &no})
			return err
		}, auth.ErrDisabled},
		{"expire", func(w *world, name string) error {
			_, _, err := w.UpdateCredential(t.Context(), name, auth.CredentialChange{Expires: &past})
			return err
		}, func(w *world, name string) error {
			_, _, err := w.UpdateCredential(t.Context(), name, auth.CredentialChange{Expires: &time.Time{}})
			return err
		}, auth.ErrExpired},
		{"disable the tenant", func(w *world, _ string) error {
			_, _, err := w.UpdateTenant(t.Context(), "default", auth.TenantChange{Disabled: &yes})
			return err
		}, func(w *world, _ string) error {
			_, _, err := w.UpdateTenant(t.Context(), "default", auth.TenantChange{Disabled: &no})
			return err
		}, auth.ErrTenantDisabled},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			n := app("app1")
			n.Senders, n.Assign = []string{"example.com"}, true
			id, made := w.in(n)
			mail := smtp.Path{Local: "a", Domain: "example.com"}
			if err := id.MaySend(t.Context(), mail); err != nil {
				t.Fatal(err)
			}
			if err := c.act(w, "app1"); err != nil {
				t.Fatal(err)
			}
			if err := id.Valid(); !errors.Is(err, c.want) {
				t.Errorf("valid: %v, want %v", err, c.want)
			}
			if err := id.MaySend(t.Context(), mail); !errors.Is(err, c.want) {
				t.Errorf("may send: %v, want %v", err, c.want)
			}
			if id.May(auth.ScopeSMTP) != (c.want == nil) {
				t.Error("the scope stays")
			}
			_, _, err := w.login(from("192.0.2.1"), sasl.PlainClient("", "app1", made.Secret.Reveal()))
			if (err == nil) != (c.want == nil) || err != nil && !errors.Is(err, sasl.ErrFailed) {
				t.Errorf("coming in again by the same secret: %v", err)
			}
			if c.undo == nil {
				return
			}
			if err := c.undo(w, "app1"); err != nil {
				t.Fatal(err)
			}
			if err := id.Valid(); err != nil {
				t.Errorf("after undoing: %v", err)
			}
		})
	}
}

// TestNewOwnerOfAName: a revoked name that is given away again is somebody else.
func TestNewOwnerOfAName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id, made := w.in(app("app1"))
	if _, err := w.RevokeCredential(t.Context(), made.Credential.ID); err != nil {
		t.Fatal(err)
	}
	again := w.create(app("app1"))
	if id.Valid() == nil || again.Credential.ID == made.Credential.ID {
		t.Error("the old session belongs to the new owner")
	}
	if _, _, err := w.login(from("192.0.2.1"), sasl.PlainClient("", "app1", made.Secret.Reveal())); !errors.Is(err, sasl.ErrFailed) {
		t.Errorf("the old password: %v", err)
	}
}

func TestMaySend(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *auth.Options) {
		o.Configured = []auth.ConfiguredTenant{{ID: "file", Domains: []string{"file.example", "*.below.example"}}}
	})
	if _, err := w.CreateTenant(t.Context(), auth.Tenant{ID: "other"}); err != nil {
		t.Fatal(err)
	}
	for _, d := range []struct {
		name, tenant string
		exact        bool
	}{
		{"example.com", "default", false}, {"Bücher.example", "default", false}, {"exact.example", "default", true},
		{"other.example", "other", false}, {"sub.example.com", "other", false}, {"shop.default.example", "default", false},
	} {
		if _, err := w.AddDomain(t.Context(), d.name, d.tenant, d.exact, true); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.AddDomain(t.Context(), "pending.example", "default", false, false); err != nil {
		t.Fatal(err)
	}
	all, _ := w.in(app("all"))
	some := app("some")
	some.Senders = []string{"News@example.com", "@shop.default.example", "xn--bcher-kva.example"}
	restricted, _ := w.in(some)
	reports := app("reports")
	reports.NullSender = true
	null, _ := w.in(reports)
	file := app("file1")
	file.Tenant = "file"
	configured, _ := w.in(file)
	for _, c := range []struct {
		who  *auth.Identity
		path smtp.Path
		want auth.SenderReason
	}{
		{all, smtp.Path{Local: "a", Domain: "example.com"}, ""},
		{all, smtp.Path{Local: "a", Domain: "EXAMPLE.com"}, ""},
		{all, smtp.Path{Local: "a", Domain: "example.com."}, ""},
		{all, smtp.Path{Local: "a", Domain: "mail.sub.example.com"}, ""},
		{all, smtp.Path{Local: "a@other.example", Domain: "example.com"}, ""}, // a local part like any other
		{all, smtp.Path{Local: "a", Domain: "bücher.example"}, ""},
		{all, smtp.Path{Local: "a", Domain: "BÜCHER.example"}, ""},
		{all, smtp.Path{Local: "a", Domain: "xn--bcher-kva.example"}, ""},
		{all, smtp.Path{Local: "a", Domain: "XN--BCHER-KVA.example"}, ""},
		{all, smtp.Path{Local: "a", Domain: "exact.example"}, ""},
		{all, smtp.Path{Local: "a", Domain: "sub.exact.example"}, auth.SenderForeign},
		{all, smtp.Path{Local: "a", Domain: "other.example"}, auth.SenderForeign},
		{all, smtp.Path{Local: "a", Domain: "pending.example"}, auth.SenderForeign},
		{all, smtp.Path{Local: "a", Domain: "notexample.com"}, auth.SenderForeign},
		{all, smtp.Path{Local: "a", Domain: "example.com.evil.example"}, auth.SenderForeign},
		{all, smtp.Path{Local: "a", Domain: "com"}, auth.SenderForeign},
		{all, smtp.Path{Local: "a", Domain: "default.example"}, auth.SenderForeign},
		{all, smtp.Path{Local: "a", Domain: "file.example"}, auth.SenderForeign},
		{all, smtp.Path{Local: "a", Domain: "[192.0.2.1]"}, auth.SenderMalformed},
		{all, smtp.Path{Local: "a", Domain: ""}, auth.SenderMalformed},
		{all, smtp.Path{Local: "", Domain: "example.com"}, auth.SenderMalformed},
		{all, smtp.Path{Local: "a", Domain: "exam\x00ple.com"}, auth.SenderMalformed},
		{all, smtp.Path{Local: "a", Domain: "example。com"}, auth.SenderMalformed}, // not mapped: refused
		{all, smtp.Path{Local: "a", Domain: "ｅxample.com"}, auth.SenderMalformed},
		{all, smtp.Path{}, auth.SenderNull},
		{null, smtp.Path{}, ""},
		{restricted, smtp.Path{Local: "news", Domain: "example.com"}, ""},
		{restricted, smtp.Path{Local: "NEWS", Domain: "Example.COM"}, ""},
		{restricted, smtp.Path{Local: "news", Domain: "sub.example.com"}, auth.SenderRestricted},
		{restricted, smtp.Path{Local: "boss", Domain: "example.com"}, auth.SenderRestricted},
		{restricted, smtp.Path{Local: "a", Domain: "shop.default.example"}, ""},
		{restricted, smtp.Path{Local: "a", Domain: "x.shop.default.example"}, ""},
		{restricted, smtp.Path{Local: "a", Domain: "BÜCHER.example"}, ""},
		{restricted, smtp.Path{Local: "a", Domain: "exact.example"}, auth.SenderRestricted},
		{restricted, smtp.Path{Local: "a", Domain: "other.example"}, auth.SenderForeign},
		{configured, smtp.Path{Local: "a", Domain: "file.example"}, ""},
		{configured, smtp.Path{Local: "a", Domain: "x.file.example"}, auth.SenderForeign},
		{configured, smtp.Path{Local: "a", Domain: "x.below.example"}, ""},
		{configured, smtp.Path{Local: "a", Domain: "below.example"}, auth.SenderForeign},
		{configured, smtp.Path{Local: "a", Domain: "example.com"}, auth.SenderForeign},
	} {
		err := c.who.MaySend(t.Context(), c.path)
		var sender *auth.SenderError
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s as %v: %v", c.who.Login, c.path, err)
		case c.want != "" && (!errors.As(err, &sender) || sender.Reason != c.want || sender.Error() == ""):
			t.Errorf("%s as %v: %v, want %s", c.who.Login, c.path, err, c.want)
		}
	}
	// What the file says no more is the tenant's no more.
	if err := w.SetConfigured(nil); err != nil {
		t.Fatal(err)
	}
	if err := configured.MaySend(t.Context(), smtp.Path{Local: "a", Domain: "file.example"}); !errors.Is(err, auth.ErrTenantDisabled) {
		t.Errorf("%v", err)
	}
}

// TestQuestionsOfEachMessageAllocateNothing: they are asked on the fast path.
func TestQuestionsOfEachMessageAllocateNothing(t *testing.T) { // not parallel: allocations of others would count
	w := newWorld(t)
	n := app("app1")
	n.Senders, n.Assign = []string{"example.com"}, true
	id, _ := w.in(n)
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() {
		if id.Valid() != nil || id.MaySend(ctx, smtp.Path{Local: "a", Domain: "mail.sub.example.com"}) != nil {
			t.Error("may not send")
		}
	}); n > 0 {
		t.Errorf("%v allocations for each message", n)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := app("app1")
	n.Limits = []auth.Limit{{Subject: "messages", Per: "hour", Max: 1000}, {Subject: "bytes", Per: "day", Max: -1}}
	id, _ := w.in(n)
	sets := id.Limits()
	if len(sets) != 2 || sets[0].Kind != limits.Tenant || sets[0].Name != "default" || sets[0].Source != "" ||
		sets[1].Kind != limits.Credential || sets[1].Name != "app1" || sets[1].Source != "credential app1" ||
		sets[1].Quota.Max[limits.Messages][limits.Hour] != 1000 || sets[1].Quota.Max[limits.Bytes][limits.Day] != -1 {
		t.Errorf("%+v", sets)
	}
	list := []auth.Limit{{Subject: "recipients", Per: "minute", Max: 5}}
	if _, _, err := w.UpdateTenant(t.Context(), "default", auth.TenantChange{Limits: &list}); err != nil {
		t.Fatal(err)
	}
	if sets := id.Limits(); sets[0].Quota.Max[limits.Recipients][limits.Minute] != 5 {
		t.Errorf("%+v", sets)
	}
}

// hashes counts the passwords that were hashed.
func hashes(t *testing.T, g prometheus.Gatherer) uint64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "godwit_auth_hash_seconds" {
			return f.GetMetric()[0].GetHistogram().GetSampleCount()
		}
	}
	t.Fatal("no such metric")
	return 0
}

// TestEachFailureHashesOnce: an unknown name, a wrong password, a disabled credential and one that comes from the wrong
// network cost one hash each, give one error, and nothing else is seen of them.
func TestEachFailureHashesOnce(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	w := newWorld(t, func(o *auth.Options) { o.Registerer = reg })
	yes, past := true, time.Now().Add(-time.Hour)
	good := w.create(app("good")).Secret.Reveal()
	off := w.create(app("off")).Secret.Reveal()
	old := w.create(app("old")).Secret.Reveal()
	n := app("elsewhere")
	n.Networks = prefixes("198.51.100.0/24")
	elsewhere := w.create(n).Secret.Reveal()
	n = app("reader")
	n.Scopes = []auth.Scope{auth.ScopeRead}
	reader := w.create(n).Secret.Reveal()
	n = app("key")
	n.Kind = auth.Key
	w.create(n)
	for name, ch := range map[string]auth.CredentialChange{"off": {Disabled: &yes}, "old": {Expires: &past}} {
		if _, _, err := w.UpdateCredential(t.Context(), name, ch); err != nil {
			t.Fatal(err)
		}
	}
	for i, c := range []struct{ login, password string }{
		{"nobody", good}, {"good", off}, {"off", off}, {"off", good}, {"old", old}, {"elsewhere", elsewhere}, {"reader", reader},
		{"key", good}, {"good", strings.Repeat("x", 4000)}, {strings.Repeat("n", 200), good}, {"gööd", good},
	} {
		before := hashes(t, reg)
		// Each from an address of its own, so that no budget is exhausted.
		_, reply, err := w.login(from("203.0.113."+string(rune('1'+i%9))), sasl.PlainClient("", c.login, c.password))
		if !errors.Is(err, sasl.ErrFailed) || !reply.IsZero() || err.Error() != sasl.ErrFailed.Error() {
			t.Errorf("%.20s: %v, %v", c.login, err, reply)
		}
		if n := hashes(t, reg) - before; n != 1 {
			t.Errorf("%.20s: %d hashes", c.login, n)
		}
	}
}

// TestSuccessIsRemembered: who connects often is hashed once, until anything changes.
func TestSuccessIsRemembered(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	w := newWorld(t, func(o *auth.Options) { o.Registerer, o.CacheEntries = reg, 4 })
	secret := w.create(app("app1")).Secret.Reveal()
	in := func(password string) error {
		_, _, err := w.login(from("192.0.2.1"), sasl.PlainClient("", "app1", password))
		return err
	}
	for range 20 {
		if err := in(secret); err != nil {
			t.Fatal(err)
		}
	}
	if n := hashes(t, reg); n != 1 {
		t.Errorf("%d hashes for 20 logins", n)
	}
	if err := in(secret + "x"); !errors.Is(err, sasl.ErrFailed) {
		t.Error(err)
	}
	note := "changed"
	if _, _, err := w.UpdateCredential(t.Context(), "app1", auth.CredentialChange{Note: &note}); err != nil {
		t.Fatal(err)
	}
	before := hashes(t, reg)
	if err := in(secret); err != nil || hashes(t, reg) != before+1 {
		t.Errorf("after a change: %v, %d hashes", err, hashes(t, reg)-before)
	}
	if _, err := w.RotateCredential(t.Context(), "app1", "", 0); err != nil {
		t.Fatal(err)
	}
	if err := in(secret); !errors.Is(err, sasl.ErrFailed) {
		t.Errorf("the old password after a rotation: %v", err)
	}
}

// TestRotationWithOverlap: for a while both secrets let in.
func TestRotationWithOverlap(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, kind := range []auth.Kind{auth.Password, auth.Key} {
		n := app("app-" + string(kind))
		n.Kind = kind
		first := w.create(n).Secret.Reveal()
		second, err := w.RotateCredential(t.Context(), n.Login, "", time.Hour)
		if err != nil || second.OldUntil.IsZero() {
			t.Fatal(second, err)
		}
		for _, s := range []string{first, second.Secret.Reveal()} {
			if _, _, err := w.login(from("192.0.2.1"), sasl.PlainClient("", n.Login, s)); err != nil {
				t.Errorf("%s: %v", kind, err)
			}
		}
	}
	for _, keep := range []time.Duration{-1, 91 * 24 * time.Hour} {
		if _, err := w.RotateCredential(t.Context(), "app-key", "", keep); err == nil {
			t.Errorf("kept for %v", keep)
		}
	}
}

// TestOthersChangesAreFollowed: two servers over one store.
func TestOthersChangesAreFollowed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	made := w.create(app("early"))
	first := w.Directory
	w.open()
	second := w.Directory
	// What happens before it follows is not lost either.
	if _, err := first.RevokeCredential(t.Context(), "early"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- second.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	until := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("never: %s", what)
			}
		}
	}
	until("revoked before", func() bool { _, err := second.Credential("early"); return errors.Is(err, auth.ErrNotFound) })
	n := app("late")
	n.Tenant, n.Senders, n.Assign = "default", []string{"example.com"}, true
	late, err := first.CreateCredential(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	until("created", func() bool { _, err := second.Credential("late"); return err == nil })
	until("its domain", func() bool { return second.Owns("default", "x.example.com") })
	var id *auth.Identity
	until("comes in", func() bool {
		id, _, err = w.login(from("192.0.2.1"), sasl.PlainClient("", "late", late.Secret.Reveal()))
		return err == nil
	})
	if _, err := first.RevokeCredential(t.Context(), "late"); err != nil {
		t.Fatal(err)
	}
	until("revoked", func() bool { return errors.Is(id.Valid(), auth.ErrRevoked) })
	_ = made
}

// TestDamagedRecordLetsNobodyIn: what cannot be read counts as absent.
func TestDamagedRecordLetsNobodyIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	made := w.create(app("app1"))
	key := "credential/" + made.Credential.ID
	kv, err := w.store.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	for _, damage := range []string{
		"", "{", "null", strings.Replace(string(kv.Value), `"id":"`, `"id":"x`, 1), strings.Replace(string(kv.Value), "$argon2id", "$argon2x", 1),
	} {
		var b store.Batch
		b.Put(key, []byte(damage))
		if _, err := w.store.Apply(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		w.open()
		if _, _, err := w.login(from("192.0.2.1"), sasl.PlainClient("", "app1", made.Secret.Reveal())); !errors.Is(err, sasl.ErrFailed) {
			t.Errorf("%.20q: %v", damage, err)
		}
	}
}

// TestScramSaltOfNobody: who asks for the salt of a name learns nothing, today and after a restart.
func TestScramSaltOfNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(app("app1"))
	first := func(login string) string {
		server, _ := w.Begin(t.Context(), "SCRAM-SHA-256", from("192.0.2.1"), auth.Policy{}, nil)
		challenge, done, err := server.Next(t.Context(), []byte("n,,n="+login+",r=abcdefghijklmnop"))
		if err != nil || done {
			t.Fatal(err)
		}
		_, rest, ok := strings.Cut(string(challenge), ",s=")
		if !ok {
			t.Fatalf("%q", challenge)
		}
		return rest
	}
	nobody, other, real := first("nobody"), first("other"), first("app1")
	if nobody == other || nobody != first("nobody") || nobody != first("NOBODY") || real != first("app1") {
		t.Error("the salt tells something")
	}
	if len(nobody) != len(real) || nobody[strings.Index(nobody, ",i="):] != real[strings.Index(real, ",i="):] {
		t.Errorf("%q and %q", nobody, real)
	}
	yes := true
	if _, _, err := w.UpdateCredential(t.Context(), "app1", auth.CredentialChange{Disabled: &yes}); err != nil {
		t.Fatal(err)
	}
	w.open()
	if first("nobody") != nobody || first("app1") != real {
		t.Error("a restart, or disabling, changes the salt")
	}
}
