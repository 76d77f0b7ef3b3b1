package httpapi

import (
	"context"
	"net/http"
	"net/netip"
	"time"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/internal/submission/auth"
)

func (h *handler) listCredentials(c *call) (any, error) {
	tenant, err := c.tenant(c.URL.Query().Get("tenant"))
	if err != nil {
		return nil, err
	}
	list := h.directory.Credentials(auth.CredentialQuery{Tenant: tenant})
	out := api.CredentialList{Credentials: make([]api.Credential, len(list))}
	for i := range list {
		out.Credentials[i] = h.apiCredential(&list[i])
	}
	return out, nil
}

// named finds the credential that a request names; one of another tenant is not there.
func (h *handler) named(c *call) (auth.Credential, error) {
	name := c.PathValue("credential")
	found, err := h.directory.Credential(name)
	if err == nil && c.Caller.Tenant != "" && found.Tenant != c.Caller.Tenant {
		err = auth.ErrNotFound
	}
	return found, refusal("credential", name, err)
}

func (h *handler) credential(c *call) (any, error) {
	found, err := h.named(c)
	if err != nil {
		return nil, err
	}
	return h.apiCredential(&found), nil
}

// withinReach refuses what a caller bound to a tenant must not give away.
func withinReach(c *call, allTenants, assign bool) error {
	switch {
	case c.Caller.Tenant == "":
	case allTenants:
		return problem(http.StatusForbidden, "only the operator of the server makes credentials for all tenants")
	case assign:
		return problem(http.StatusForbidden, "only the operator of the server assigns domains: prove it by DNS")
	}
	return nil
}

func (h *handler) createCredential(c *call) (any, error) {
	n, err := decode[api.NewCredential](c)
	if err != nil {
		return nil, err
	}
	if n.Tenant, err = c.tenant(n.Tenant); err != nil {
		return nil, err
	}
	if n.Tenant == "" {
		return nil, fieldProblem("tenant", "say which tenant the credential is for")
	}
	if err := withinReach(c, n.AllTenants, n.AssignDomains); err != nil {
		return nil, err
	}
	networks, err := prefixes(n.Networks)
	if err != nil {
		return nil, err
	}
	ask := auth.NewCredential{
		Credential: auth.Credential{
			Tenant: n.Tenant, Login: n.Login, Note: n.Note, Kind: auth.Kind(n.Kind), Scopes: words[auth.Scope](n.Scopes),
			Role: auth.Role(n.Role), AllTenants: n.AllTenants, Senders: n.Senders, NullSender: n.NullSender, Networks: networks,
			Limits: authLimits(n.Limits), Name: n.CertificateName, Issuer: n.Issuer, Subject: n.Subject,
		},
		Password: n.Password, Assign: n.AssignDomains,
	}
	if n.Expires != nil {
		ask.Expires = *n.Expires
	}
	act := c.Caller.Act("credential.create", n.Login)
	n.Password = ""
	act.After = n
	var out api.CredentialSecret
	err = h.auditor.Do(c.Context(), act, func(ctx context.Context) (any, error) {
		made, err := h.directory.CreateCredential(ctx, ask)
		if err != nil {
			return nil, refusal("credential", n.Login, err)
		}
		out = h.shown(made)
		return struct {
			ID       string   `json:"id"`
			Assigned []string `json:"assigned_domains,omitempty"`
		}{made.Credential.ID, made.Assigned}, nil
	})
	return out, err
}

// shown is the one answer with a secret.
func (h *handler) shown(made auth.Created) api.CredentialSecret {
	out := api.CredentialSecret{
		Credential: h.apiCredential(&made.Credential), Secret: made.Secret.Reveal(), OldUntil: timeOrNil(made.OldUntil),
		AssignedDomains: made.Assigned,
	}
	if h.submission != nil && made.Credential.Has(auth.ScopeSMTP) {
		out.Servers = h.submission()
	}
	return out
}

func (h *handler) updateCredential(c *call) (any, error) {
	ch, err := decode[api.CredentialChange](c)
	if err != nil {
		return nil, err
	}
	before, err := h.named(c)
	if err != nil {
		return nil, err
	}
	if err := withinReach(c, ch.AllTenants != nil && *ch.AllTenants, ch.AssignDomains); err != nil {
		return nil, err
	}
	if err := withinReach(c, before.AllTenants, false); err != nil {
		return nil, err
	}
	change, err := credentialChange(&ch)
	if err != nil {
		return nil, err
	}
	act := c.Caller.Act("credential.update", before.Login)
	act.Before, act.After = h.apiCredential(&before), ch
	var out api.Credential
	err = h.auditor.Do(c.Context(), act, func(ctx context.Context) (any, error) {
		_, after, err := h.directory.UpdateCredential(ctx, before.ID, change)
		out = h.apiCredential(&after)
		return nil, refusal("credential", before.Login, err)
	})
	return out, err
}

func credentialChange(ch *api.CredentialChange) (auth.CredentialChange, error) {
	out := auth.CredentialChange{
		Note: ch.Note, AllTenants: ch.AllTenants, Senders: ch.Senders, NullSender: ch.NullSender, Expires: ch.Expires,
		Disabled: ch.Disabled, Assign: ch.AssignDomains,
	}
	if ch.NeverExpires {
		if ch.Expires != nil {
			return out, fieldProblem("expires", "a credential either expires or never does")
		}
		out.Expires = &time.Time{}
	}
	if ch.Role != nil {
		role := auth.Role(*ch.Role)
		out.Role = &role
	}
	if ch.Scopes != nil {
		list := words[auth.Scope](*ch.Scopes)
		out.Scopes = &list
	}
	if ch.Limits != nil {
		list := authLimits(*ch.Limits)
		out.Limits = &list
	}
	if ch.Networks != nil {
		list, err := prefixes(*ch.Networks)
		if err != nil {
			return out, err
		}
		out.Networks = &list
	}
	return out, nil
}

func (h *handler) rotateCredential(c *call) (any, error) {
	r, err := decode[api.Rotation](c)
	if err != nil {
		return nil, err
	}
	before, err := h.named(c)
	if err != nil {
		return nil, err
	}
	if err := withinReach(c, before.AllTenants, false); err != nil {
		return nil, err
	}
	const longest = int64(365 * 24 * time.Hour / time.Second) // beyond what the directory takes, and no overflow
	keep := time.Duration(max(-1, min(r.KeepOldFor, longest))) * time.Second
	act := c.Caller.Act("credential.rotate", before.Login)
	act.After = api.Rotation{KeepOldFor: r.KeepOldFor}
	var out api.CredentialSecret
	err = h.auditor.Do(c.Context(), act, func(ctx context.Context) (any, error) {
		made, err := h.directory.RotateCredential(ctx, before.ID, r.Password, keep)
		if err == nil {
			out = h.shown(made)
		}
		return nil, refusal("credential", before.Login, err)
	})
	return out, err
}

func (h *handler) revokeCredential(c *call) (any, error) {
	before, err := h.named(c)
	if err != nil {
		return nil, err
	}
	if err := withinReach(c, before.AllTenants, false); err != nil {
		return nil, err
	}
	out := h.apiCredential(&before)
	act := c.Caller.Act("credential.revoke", before.Login)
	act.Before = out
	err = h.auditor.Do(c.Context(), act, func(ctx context.Context) (any, error) {
		_, err := h.directory.RevokeCredential(ctx, before.ID)
		return nil, refusal("credential", before.Login, err)
	})
	return out, err
}

func (h *handler) apiCredential(c *auth.Credential) api.Credential {
	out := api.Credential{
		ID: c.ID, Tenant: c.Tenant, Login: c.Login, Note: c.Note, Kind: string(c.Kind), Scopes: words[string](c.Scopes),
		Role: string(c.Role), AllTenants: c.AllTenants, Senders: c.Senders, NullSender: c.NullSender, Limits: apiLimits(c.Limits),
		CertificateName: c.Name, Issuer: c.Issuer, Subject: c.Subject, State: string(h.directory.State(c)),
		Created: c.Created, Rotated: timeOrNil(c.Rotated), Expires: timeOrNil(c.Expires),
	}
	for _, n := range c.Networks {
		out.Networks = append(out.Networks, n.String())
	}
	used := h.directory.Use(c.ID)
	out.LastUse, out.LastFrom = timeOrNil(used.Last), networkText(used.Addr)
	return out
}

// words turns a list of words of one type into one of another.
func words[To, From ~string](list []From) []To {
	out := make([]To, len(list))
	for i, w := range list {
		out[i] = To(w)
	}
	return out
}

// prefixes reads networks; an address is the network that holds it alone.
func prefixes(list []string) ([]netip.Prefix, error) {
	out := make([]netip.Prefix, 0, len(list))
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a, aerr := netip.ParseAddr(s)
			if aerr != nil || a.Zone() != "" {
				return nil, fieldProblem("networks", "%q is no network such as 192.0.2.0/24 and no address", s)
			}
			p = netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen())
		}
		out = append(out, p)
	}
	return out, nil
}
