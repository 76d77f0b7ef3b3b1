package daemon

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/internal/audit"
	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/httpapi"
	"github.com/godwit-mta/godwit/internal/submission/auth"
	"github.com/godwit-mta/godwit/smtp/sasl"
)

// callers finds out who has an API key.
type callers struct{ directory *auth.Directory }

// Caller implements [httpapi.Keys]. A key without a role may look at its tenant if it has the scope to read.
func (c callers) Caller(ctx context.Context, key string, client netip.Addr) (httpapi.Caller, error) {
	id, err := c.directory.Key(ctx, key, auth.Client{Addr: client, Listener: "http"}, auth.ScopeRead, auth.ScopeAdmin)
	if errors.Is(err, sasl.ErrFailed) {
		return httpapi.Caller{}, httpapi.ErrNoCaller
	}
	if errors.Is(err, sasl.ErrTemporary) {
		return httpapi.Caller{}, httpapi.ErrBusy
	}
	if err != nil {
		return httpapi.Caller{}, err
	}
	out := httpapi.Caller{Actor: "credential " + id.Credential, Role: httpapi.Role(cmp.Or(id.Role, auth.Viewer)), Tenant: id.Tenant}
	if !id.May(auth.ScopeAdmin) {
		out.Role = httpapi.Viewer
	}
	if id.AllTenants {
		out.Tenant = ""
	} else if out.Tenant == "" {
		return httpapi.Caller{}, httpapi.ErrNoCaller // never more than its tenant by having none
	}
	return out, nil
}

// publicHandler is what the HTTP address serves: monitoring, and the administrators' interface for those with a key if the file says
// so.
func (d *Daemon) publicHandler(cfg *config.Config, r *running) http.Handler {
	monitoring := httpapi.Public(&health{d: d}, d.metrics, d.log)
	if !cfg.HTTP.API {
		return monitoring
	}
	o := d.adminOptions(r)
	o.Keys = callers{r.door.directory}
	mux := http.NewServeMux()
	mux.Handle("/v1/", httpapi.New(o))
	mux.Handle("/", monitoring)
	return mux
}

// banned puts an automatic ban on record.
func (d *Daemon) banned(ctx context.Context, b auth.Ban) {
	target := b.Login
	if b.Address.IsValid() {
		target = strings.TrimSpace(b.Login + " " + b.Address.String())
	}
	err := d.audit.Append(ctx, audit.Act{
		Actor: "godwit", Source: "failed logins", Action: "ban.set", Target: target,
		After: struct {
			Kind  auth.BanKind `json:"kind"`
			Until time.Time    `json:"until"`
			Count int          `json:"count"`
		}{b.Kind, b.Until, b.Count},
	})
	if err != nil {
		d.log.WarnContext(ctx, "a ban is not on record", "error", err)
	}
}
