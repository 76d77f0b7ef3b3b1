package daemon_test

import (
	"testing"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/delivery"
	"github.com/godwit-mta/godwit/internal/submission/auth"
)

// TestTenantDemandsTLS: a tenant's word keeps its mail out of clear text from the next attempt on, be it said at run time or in
// the configuration.
func TestTenantDemandsTLS(t *testing.T) {
	t.Parallel()
	for _, word := range auth.TLSWords() {
		if l, err := delivery.ParseLevel(word); err != nil || l == delivery.LevelUnset || l > delivery.LevelVerified {
			t.Errorf("tls %q is level %v to delivery: %v", word, l, err)
		}
	}
	d := newDoorWorld(t, nil) // whose host has no TLS
	change := func(tenant, word string) error {
		_, err := d.Client().UpdateTenant(t.Context(), tenant, api.TenantChange{TLS: &word})
		return err
	}
	waits := func(tenant string) {
		t.Helper()
		d.Until("mail of "+tenant+" waits for TLS", func() bool {
			for _, e := range d.Events() {
				if e.Tenant == tenant && e.Type == event.Deferred && e.Reason == event.TLSRequired {
					return true
				}
			}
			return false
		})
	}
	if err := change("default", "encrypted"); err != nil {
		t.Fatal(err)
	}
	d.Submit("a@any.example", "Subject: run time\r\n\r\nhi\r\n", "you@ok.test")
	waits("default")

	if err := change("shop", "encrypted"); err == nil {
		t.Error("a tenant of the configuration is changed at run time")
	}
	if err := d.reload(func(c *config.Config) { c.Tenants[0].TLS = "encrypted" }); err != nil {
		t.Fatal(err)
	}
	if err := send(d.dial("submission"), "a@shop.example", "From: a@shop.example"); err != nil {
		t.Fatal(err)
	}
	waits("shop")
	if got := d.Received(); len(got) != 0 {
		t.Errorf("%d messages arrived in the clear", len(got))
	}

	if err := change("default", "default"); err != nil {
		t.Fatal(err)
	}
	if err := d.reload(func(c *config.Config) { c.Tenants[0].TLS = config.DefaultTLS }); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Client().Act(t.Context(), api.Action{Verb: api.Retry, Selection: api.Selection{All: true}}); err != nil {
		t.Fatal(err)
	}
	d.WaitEmpty()
	if got := d.Received(); len(got) != 2 {
		t.Errorf("%d messages arrived", len(got))
	}
}
