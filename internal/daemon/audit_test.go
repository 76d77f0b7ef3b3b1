package daemon_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/daemon/daemontest"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// TestRecord is G-AUDIT for the whole server: every act of every kind is on record, in order, with actor and source, over a
// restart, and the chain verifies; a store of yesterday does not.
func TestRecord(t *testing.T) {
	t.Parallel()
	outside := filepath.Join(t.TempDir(), "audit.anchor")
	var reload *config.Config
	w := daemontest.New(t, daemontest.Options{
		Zones:  restZones,
		Load:   func() (*config.Config, error) { return reload, nil },
		Config: func(c *config.Config) { c.Audit.Anchor = outside; c.HTTP.API = true },
	})
	w.Host("127.0.2.2", smtptest.Script{Rules: []smtptest.Rule{{At: smtptest.AtRcpt, Reply: "450 4.2.1 later"}}})
	w.Start()
	c, ctx := w.Client(), t.Context()
	var problem *api.Problem
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	w.Submit("me@app.test", "Subject: x\r\n\r\nhi\r\n", "you@busy.test")
	for _, verb := range []api.Verb{api.Hold, api.Release, api.Retry, api.Cancel} {
		_, err := c.Act(ctx, api.Action{Verb: verb, Selection: api.Selection{Queue: "busy.test"}, Reason: "because"})
		check(err)
	}
	if _, err := c.Act(ctx, api.Action{Verb: api.Hold, Selection: api.Selection{Message: "nonsense"}}); !errors.As(err, &problem) {
		t.Errorf("a bad selection: %v", err)
	}
	next := *w.Config()
	next.Delivery.ConnectionsPerQueue = 7
	reload = &next
	_, err := c.Reload(ctx)
	check(err)
	_, err = c.CreateTenant(ctx, api.NewTenant{ID: "shop"})
	check(err)
	_, err = c.AddDomain(ctx, api.NewDomain{Name: "shop.test", Tenant: "shop", Assigned: true})
	check(err)
	made, err := c.CreateCredential(ctx, api.NewCredential{Tenant: "shop", Login: "ops", Kind: "key",
		Scopes: []string{"read", "admin"}, Role: "admin"})
	check(err)
	_, err = c.RotateCredential(ctx, made.Credential.ID, api.Rotation{})
	check(err)
	if _, err := c.RotateKeys(ctx); !errors.As(err, &problem) || problem.Status != http.StatusConflict {
		t.Errorf("nothing is encrypted: %v", err)
	}
	w.Stop()
	w.Start()
	c = w.Client()

	list, err := c.Audit(ctx, api.AuditQuery{Limit: 1000})
	check(err)
	var got []string
	for i := range list.Records {
		r := &list.Records[i]
		if r.Of == 0 {
			got = append(got, r.Action+" "+r.Target)
		}
		if r.Actor == "" || r.Actor == "unknown" || r.Source == "" || r.Index != uint64(i+1) {
			t.Errorf("%+v", r)
		}
	}
	text := strings.Join(got, "\n")
	for _, want := range []string{"server.start godwit.test", "queue.hold busy.test", "queue.release busy.test", "queue.retry busy.test",
		"queue.cancel busy.test", "queue.hold nonsense", "config.reload", "tenant.create shop", "domain.add shop.test",
		"credential.create", "credential.rotate", "key.rotate", "server.stop godwit.test"} {
		if !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, want) }) {
			t.Errorf("no record of %q in\n%s", want, text)
		}
	}
	if i := slices.IndexFunc(list.Records, func(r api.AuditRecord) bool { return r.Action == "config.reload" && r.Of > 0 }); i < 0 ||
		!strings.Contains(string(list.Records[i].After), "delivery.connections_per_queue") {
		t.Error("the reload does not tell what changed")
	}
	some, err := c.Audit(ctx, api.AuditQuery{Action: "queue", Limit: 2})
	check(err)
	if len(some.Records) != 2 || !some.More {
		t.Errorf("a page: %+v", some)
	}
	rep, err := c.VerifyAudit(ctx)
	check(err)
	if rep.Problem != "" || rep.Last != uint64(len(list.Records)) || rep.Anchored != rep.Last || rep.Advice != "" {
		t.Errorf("%+v of %d", rep, len(list.Records))
	}

	// The whole directory is put back to this moment, after more has happened.
	w.Stop()
	store := files(t, filepath.Join(w.Dir, "store"))
	w.Start()
	_, err = w.Client().CreateTenant(ctx, api.NewTenant{ID: "later"})
	check(err)
	w.Stop()
	if err := os.RemoveAll(filepath.Join(w.Dir, "store")); err != nil {
		t.Fatal(err)
	}
	for name, content := range store {
		path := filepath.Join(w.Dir, "store", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	w.Start()
	if found, err := w.Client().Findings(ctx); err != nil || !slices.ContainsFunc(found.Findings, func(f api.Finding) bool { return f.Subject == "audit" }) {
		t.Errorf("no finding: %+v, %v", found, err)
	}
	after, err := w.Client().VerifyAudit(ctx)
	check(err)
	if after.Bad != rep.Last+2 { // behind the stop that follows the report
		t.Errorf("a store that was put back: %+v, want bad index %d", after, rep.Last+2)
	}
}

// TestKeysOverHTTP: what a key may see and do ends with its tenant, its role, and its life, at once.
func TestKeysOverHTTP(t *testing.T) {
	t.Parallel()
	w := daemontest.New(t, daemontest.Options{Zones: restZones, Config: func(c *config.Config) { c.HTTP.API = true }})
	w.Host("127.0.2.2", smtptest.Script{Rules: []smtptest.Rule{{At: smtptest.AtRcpt, Reply: "450 4.2.1 later"}}})
	w.Start()
	w.Submit("me@app.test", "Subject: x\r\n\r\nhi\r\n", "you@busy.test") // of the tenant default
	admin, ctx := w.Client(), t.Context()
	if _, err := admin.CreateTenant(ctx, api.NewTenant{ID: "shop"}); err != nil {
		t.Fatal(err)
	}
	client := func(n api.NewCredential) (*api.Client, string) {
		t.Helper()
		n.Kind = "key"
		made, err := admin.CreateCredential(ctx, n)
		if err != nil {
			t.Fatal(err)
		}
		c := api.NewKeyClient("http://"+w.HTTP(), made.Secret)
		t.Cleanup(c.Close)
		return c, made.Credential.ID
	}
	status := func(err error) int {
		var p *api.Problem
		if err == nil {
			return http.StatusOK
		}
		if !errors.As(err, &p) {
			t.Fatal(err)
		}
		return p.Status
	}
	all := []string{"read", "admin"}
	chief, chiefID := client(api.NewCredential{Tenant: "default", Login: "chief", Scopes: all, Role: "admin", AllTenants: true})
	shop, _ := client(api.NewCredential{Tenant: "shop", Login: "shop-admin", Scopes: all, Role: "admin"})
	viewer, _ := client(api.NewCredential{Tenant: "default", Login: "looker", Scopes: []string{"read"}, Role: "viewer"})
	sender, _ := client(api.NewCredential{Tenant: "default", Login: "sender", Scopes: []string{"smtp"}})
	nobody := api.NewKeyClient("http://"+w.HTTP(), "gw_none_0000")
	defer nobody.Close()

	everything := api.Action{Verb: api.Retry, Selection: api.Selection{All: true}}
	for _, c := range []struct {
		name                       string
		client                     *api.Client
		queues, act, reload, audit int
		entries                    int
	}{
		{"shop", shop, 200, 200, 404, 404, 0},
		{"viewer", viewer, 200, 403, 404, 404, 1},
		{"sender", sender, 401, 401, 401, 401, 0},
		{"nobody", nobody, 401, 401, 401, 401, 0},
		{"chief", chief, 200, 200, 409, 200, 1}, // this server has no file to reload
	} {
		list, err := c.client.Queues(ctx, api.QueueQuery{})
		_, acting := c.client.Act(ctx, everything)
		_, reloading := c.client.Reload(ctx)
		_, auditing := c.client.Audit(ctx, api.AuditQuery{})
		got := []int{status(err), status(acting), status(reloading), status(auditing), list.Entries}
		if want := []int{c.queues, c.act, c.reload, c.audit, c.entries}; !slices.Equal(got, want) {
			t.Errorf("%s: queues, act, reload, audit, entries: %v, want %v", c.name, got, want)
		}
	}
	if _, err := admin.RevokeCredential(ctx, chiefID); err != nil {
		t.Fatal(err)
	}
	if _, err := chief.Status(ctx); status(err) != http.StatusUnauthorized {
		t.Errorf("revoked: %v", err)
	}
}
