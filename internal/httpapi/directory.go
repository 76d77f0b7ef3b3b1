package httpapi

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"time"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/internal/submission/auth"
)

// directoryRoutes are the lines of the table for tenants, domains, credentials and bans.
func (h *handler) directoryRoutes() []route {
	if h.directory == nil {
		return nil
	}
	return []route{
		{"GET /v1/tenants", Viewer, true, h.tenants},
		{"GET /v1/tenants/{tenant}", Viewer, true, h.tenant},
		{"POST /v1/tenants", Admin, false, h.createTenant},
		{"PATCH /v1/tenants/{tenant}", Admin, false, h.updateTenant},
		{"DELETE /v1/tenants/{tenant}", Admin, false, h.removeTenant},
		{"GET /v1/domains", Viewer, true, h.domains},
		{"POST /v1/domains", Admin, true, h.addDomain},
		{"POST /v1/domains/{domain}/verification", Admin, true, h.verifyDomain},
		{"DELETE /v1/domains/{domain}", Admin, true, h.removeDomain},
		{"GET /v1/credentials", Viewer, true, h.listCredentials},
		{"GET /v1/credentials/{credential}", Viewer, true, h.credential},
		{"POST /v1/credentials", Admin, true, h.createCredential},
		{"PATCH /v1/credentials/{credential}", Admin, true, h.updateCredential},
		{"POST /v1/credentials/{credential}/rotation", Admin, true, h.rotateCredential},
		{"DELETE /v1/credentials/{credential}", Admin, true, h.revokeCredential},
		{"GET /v1/bans", Viewer, true, h.bans},
		{"POST /v1/bans/clear", Operator, true, h.clearBans},
	}
}

// decode reads the body of a request, which is one JSON object with known fields. Nothing of it gets into the error but
// what the decoder says of its form.
func decode[T any](c *call) (T, error) {
	var v T
	dec := json.NewDecoder(http.MaxBytesReader(nil, c.Body, maxRequest))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		return v, problem(http.StatusBadRequest, "the request is not what is expected here: %v", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return v, problem(http.StatusBadRequest, "the request has something behind its end")
	}
	return v, nil
}

// refusal turns an error of the directory into a problem.
func refusal(what, name string, err error) error {
	var input *auth.InputError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &input):
		p := problem(http.StatusUnprocessableEntity, "%s", input.Text)
		p.Field = input.Field
		return p
	case errors.Is(err, auth.ErrNotFound):
		return noSuch(what, name)
	case errors.Is(err, auth.ErrExists):
		return problem(http.StatusConflict, "%s %s exists already", what, name)
	case errors.Is(err, auth.ErrInUse):
		return problem(http.StatusConflict, "%s %s still has credentials or domains: remove them first", what, name)
	case errors.Is(err, auth.ErrChanged):
		return problem(http.StatusConflict, "%s %s was changed by somebody else at this moment: look at it and try again", what, name)
	}
	return err
}

func noSuch(what, name string) error {
	return problem(http.StatusNotFound, "there is no %s %s", what, name)
}

func fieldProblem(field, format string, args ...any) *api.Problem {
	p := problem(http.StatusUnprocessableEntity, format, args...)
	p.Field = field
	return p
}

func (h *handler) tenants(c *call) (any, error) {
	out := api.TenantList{Tenants: []api.Tenant{}}
	for _, t := range h.directory.Tenants() {
		if c.Caller.Tenant == "" || c.Caller.Tenant == t.ID {
			out.Tenants = append(out.Tenants, h.apiTenant(t))
		}
	}
	return out, nil
}

func (h *handler) tenant(c *call) (any, error) {
	id := c.PathValue("tenant")
	t, err := h.directory.Tenant(id)
	if err != nil || c.Caller.Tenant != "" && c.Caller.Tenant != id {
		return nil, noSuch("tenant", id)
	}
	return h.apiTenant(t), nil
}

func (h *handler) createTenant(c *call) (any, error) {
	n, err := decode[api.NewTenant](c)
	if err != nil {
		return nil, err
	}
	act := c.Caller.Act("tenant.create", n.ID)
	act.After = n
	var out api.Tenant
	err = h.auditor.Do(c.Context(), act, func(ctx context.Context) (any, error) {
		t, err := h.directory.CreateTenant(ctx, auth.Tenant{ID: n.ID, Name: n.Name, Limits: authLimits(n.Limits), TLS: authTLS(n.TLS)})
		out = h.apiTenant(t)
		return nil, refusal("tenant", n.ID, err)
	})
	return out, err
}

func (h *handler) updateTenant(c *call) (any, error) {
	id := c.PathValue("tenant")
	ch, err := decode[api.TenantChange](c)
	if err != nil {
		return nil, err
	}
	before, err := h.directory.Tenant(id)
	if err != nil {
		return nil, refusal("tenant", id, err)
	}
	change := auth.TenantChange{Name: ch.Name, Disabled: ch.Disabled}
	if ch.Limits != nil {
		list := authLimits(*ch.Limits)
		change.Limits = &list
	}
	if ch.TLS != nil {
		word := authTLS(*ch.TLS)
		change.TLS = &word
	}
	act := c.Caller.Act("tenant.update", id)
	act.Before, act.After = h.apiTenant(before), ch
	var out api.Tenant
	err = h.auditor.Do(c.Context(), act, func(ctx context.Context) (any, error) {
		_, t, err := h.directory.UpdateTenant(ctx, id, change)
		out = h.apiTenant(t)
		return nil, refusal("tenant", id, err)
	})
	return out, err
}

func (h *handler) removeTenant(c *call) (any, error) {
	id := c.PathValue("tenant")
	t, err := h.directory.Tenant(id)
	if err != nil {
		return nil, refusal("tenant", id, err)
	}
	out := h.apiTenant(t)
	act := c.Caller.Act("tenant.remove", id)
	act.Before = out
	err = h.auditor.Do(c.Context(), act, func(ctx context.Context) (any, error) {
		_, err := h.directory.RemoveTenant(ctx, id)
		return nil, refusal("tenant", id, err)
	})
	return out, err
}

// defaultTLS is the word of who demands nothing of the TLS of his mail.
const defaultTLS = "default"

func authTLS(word string) string {
	if word == defaultTLS {
		return ""
	}
	return word
}

func (h *handler) apiTenant(t auth.Tenant) api.Tenant {
	out := api.Tenant{
		ID: t.ID, Name: t.Name, Disabled: t.Disabled, Configured: h.directory.Configured(t.ID), Limits: apiLimits(t.Limits),
		TLS: cmp.Or(t.TLS, defaultTLS), Created: timeOrNil(t.Created), Credentials: len(h.directory.Credentials(auth.CredentialQuery{Tenant: t.ID})),
		Domains: len(h.directory.AssignedByConfiguration(t.ID)),
	}
	for _, d := range h.directory.Domains(t.ID) {
		if d.Usable() {
			out.Domains++
		}
	}
	return out
}

func (h *handler) domains(c *call) (any, error) {
	tenant, err := c.tenant(c.URL.Query().Get("tenant"))
	if err != nil {
		return nil, err
	}
	out := api.DomainList{Domains: []api.Domain{}}
	for _, d := range h.directory.Domains(tenant) {
		out.Domains = append(out.Domains, h.apiDomain(d))
	}
	for _, pair := range h.directory.AssignedByConfiguration(tenant) {
		out.Domains = append(out.Domains, api.Domain{
			Name: pair[0], Tenant: pair[1], State: string(auth.Assigned), Source: "configuration", Usable: true, Exact: pair[0][0] != '*',
		})
	}
	return out, nil
}

func (h *handler) addDomain(c *call) (any, error) {
	n, err := decode[api.NewDomain](c)
	if err != nil {
		return nil, err
	}
	if n.Tenant, err = c.tenant(n.Tenant); err != nil {
		return nil, err
	}
	switch {
	case n.Tenant == "":
		return nil, fieldProblem("tenant", "say which tenant the domain is for")
	case n.Assigned && c.Caller.Tenant != "":
		return nil, problem(http.StatusForbidden, "only the operator of the server assigns domains: prove it by DNS")
	}
	act := c.Caller.Act("domain.add", n.Name)
	act.After = n
	var out api.Domain
	err = h.auditor.Do(c.Context(), act, func(ctx context.Context) (any, error) {
		d, err := h.directory.AddDomain(ctx, n.Name, n.Tenant, n.Exact, n.Assigned)
		if errors.Is(err, auth.ErrExists) && d.State == auth.Pending {
			err = nil // asking again for what is to be put into DNS
		}
		out = h.apiDomain(d)
		return nil, refusal("domain", n.Name, err)
	})
	return out, err
}

// claim finds the claim that a request names.
func (h *handler) claim(c *call) (auth.Domain, error) {
	tenant, err := c.tenant(c.URL.Query().Get("tenant"))
	if err != nil {
		return auth.Domain{}, err
	}
	name := c.PathValue("domain")
	if tenant == "" {
		return auth.Domain{}, fieldProblem("tenant", "say which tenant's domain is meant")
	}
	d, err := h.directory.Domain(name, tenant)
	return d, refusal("domain", name, err)
}

func (h *handler) verifyDomain(c *call) (any, error) {
	d, err := h.claim(c)
	if err != nil {
		return nil, err
	}
	act := c.Caller.Act("domain.verify", d.Name)
	act.Before = h.apiDomain(d)
	var out api.Domain
	err = h.auditor.Do(c.Context(), act, func(ctx context.Context) (any, error) {
		d, err := h.directory.VerifyDomain(ctx, d.Name, d.Tenant)
		out = h.apiDomain(d)
		return out, refusal("domain", d.Name, err)
	})
	return out, err
}

func (h *handler) removeDomain(c *call) (any, error) {
	d, err := h.claim(c)
	if err != nil {
		return nil, err
	}
	out := h.apiDomain(d)
	act := c.Caller.Act("domain.remove", d.Name)
	act.Before = out
	err = h.auditor.Do(c.Context(), act, func(ctx context.Context) (any, error) {
		_, err := h.directory.RemoveDomain(ctx, d.Name, d.Tenant)
		return nil, refusal("domain", d.Name, err)
	})
	return out, err
}

func (h *handler) apiDomain(d auth.Domain) api.Domain {
	out := api.Domain{
		Name: d.Name, Tenant: d.Tenant, State: string(d.State), Source: "dns", Exact: d.Exact, Usable: d.Usable(),
		Created: timeOrNil(d.Created), Proven: timeOrNil(d.Proven), Checked: timeOrNil(d.Checked), Missing: timeOrNil(d.Missing),
		Problem: d.Problem,
	}
	if d.State == auth.Assigned {
		out.Source = "operator"
	}
	if ch, ok := h.directory.Challenge(&d); ok && d.State != auth.Expired {
		out.Challenge = &api.Challenge{Name: ch.Name, Text: ch.Text, Alias: ch.Alias, Until: ch.Until}
	}
	return out
}

func (h *handler) bans(c *call) (any, error) {
	out := api.BanList{Bans: []api.Ban{}}
	for _, b := range h.directory.Bans() {
		if c.Caller.Tenant == "" || c.Caller.Tenant == b.Tenant {
			out.Bans = append(out.Bans, apiBan(b))
		}
	}
	return out, nil
}

func (h *handler) clearBans(c *call) (any, error) {
	s, err := decode[api.BanSelection](c)
	if err != nil {
		return nil, err
	}
	q := auth.BanQuery{Login: s.Login, Tenant: c.Caller.Tenant, All: s.All}
	if s.Address != "" {
		if q.Address, err = netip.ParseAddr(s.Address); err != nil {
			p, perr := netip.ParsePrefix(s.Address) // as a list of bans shows IPv6 networks
			if perr != nil {
				return nil, fieldProblem("address", "%q is no address", s.Address)
			}
			q.Address = p.Addr()
		}
	}
	if s == (api.BanSelection{}) {
		return nil, fieldProblem("address", "say which bans: an address, a login, or all")
	}
	target := "all"
	switch {
	case s.Address != "":
		target = s.Address
	case s.Login != "":
		target = s.Login
	}
	act := c.Caller.Act("ban.clear", target)
	act.After = s
	out := api.BanList{Bans: []api.Ban{}}
	err = h.auditor.Do(c.Context(), act, func(context.Context) (any, error) {
		lifted, err := h.directory.ClearBans(q)
		for _, b := range lifted {
			out.Bans = append(out.Bans, apiBan(b))
		}
		return out, refusal("ban", target, err)
	})
	return out, err
}

func apiBan(b auth.Ban) api.Ban {
	out := api.Ban{Kind: string(b.Kind), Login: b.Login, Tenant: b.Tenant, Since: b.Since, Until: b.Until, Failures: b.Failures, Count: b.Count}
	out.Address = networkText(b.Address)
	return out
}

func networkText(p netip.Prefix) string {
	switch {
	case !p.IsValid():
		return ""
	case p.IsSingleIP():
		return p.Addr().String()
	}
	return p.String()
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func authLimits(list []api.Limit) []auth.Limit {
	out := make([]auth.Limit, len(list))
	for i, l := range list {
		out[i] = auth.Limit(l)
	}
	return out
}

func apiLimits(list []auth.Limit) []api.Limit {
	out := make([]api.Limit, len(list))
	for i, l := range list {
		out[i] = api.Limit(l)
	}
	return out
}
