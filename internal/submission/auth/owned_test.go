package auth_test

import (
	"testing"

	"github.com/godwit-mta/godwit/internal/submission/auth"
)

// TestOwned: a domain is owned while some tenant may send from it. A claim that nobody has proven owns nothing.
func TestOwned(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *auth.Options) {
		o.Configured = []auth.ConfiguredTenant{{ID: "shop", Domains: []string{"shop.example", "*.in.shop.example"}}}
	})
	w.claim("claimed.example")
	proven := "default"
	if _, err := w.AddDomain(t.Context(), "proven.example", proven, false, true); err != nil {
		t.Fatal(err)
	}
	for domain, tenant := range map[string]string{
		"shop.example": "shop", "a.in.shop.example": "shop", "b.a.in.shop.example": "shop", "x.shop.example": "", "in.shop.example": "",
		"hop.example": "", "example": "", "": "", "claimed.example": "", "proven.example": proven, "x.proven.example": proven,
	} {
		if got := w.Owned(domain); got != (tenant != "") || got && !w.Owns(tenant, domain) {
			t.Errorf("%q: owned %v, want by %q", domain, got, tenant)
		}
	}
}
