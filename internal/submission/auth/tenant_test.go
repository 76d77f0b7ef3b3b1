package auth_test

import (
	"errors"
	"testing"

	"github.com/godwit-mta/godwit/internal/submission/auth"
)

// TestTenantDemandsTLS: the word of a record counts until the configuration file has one, and again when it has none any more.
func TestTenantDemandsTLS(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	says := func(want string) {
		t.Helper()
		if got, err := w.Tenant("shop"); err != nil || got.TLS != want {
			t.Errorf("tls %q, %v; want %q", got.TLS, err, want)
		}
	}
	refused := func(err error) {
		t.Helper()
		var input *auth.InputError
		if !errors.As(err, &input) {
			t.Errorf("not refused: %v", err)
		}
	}
	_, err := w.CreateTenant(t.Context(), auth.Tenant{ID: "shop", TLS: "pinned"})
	refused(err)
	if _, err := w.CreateTenant(t.Context(), auth.Tenant{ID: "shop", Name: "The shop", TLS: "encrypted"}); err != nil {
		t.Fatal(err)
	}
	says("encrypted")
	update := func(word string) error {
		_, _, err := w.UpdateTenant(t.Context(), "shop", auth.TenantChange{TLS: &word})
		return err
	}
	refused(update("tls1.3"))
	if err := update("verified"); err != nil {
		t.Error(err)
	}
	says("verified")
	w.open() // as after a restart
	says("verified")

	if err := w.SetConfigured([]auth.ConfiguredTenant{{ID: "shop", Name: "File", TLS: "encrypted"}}); err != nil {
		t.Fatal(err)
	}
	says("encrypted")
	refused(update("none"))
	disabled := true
	if _, _, err := w.UpdateTenant(t.Context(), "shop", auth.TenantChange{Disabled: &disabled}); err != nil {
		t.Error(err)
	}
	says("encrypted")
	if err := w.SetConfigured(nil); err != nil {
		t.Fatal(err)
	}
	says("verified")
	if got, _ := w.Tenant("shop"); got.Name != "The shop" || !got.Disabled {
		t.Errorf("without the file: %+v", got)
	}
}
