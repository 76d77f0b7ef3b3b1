package httpapi

import (
	"context"
	"errors"
	"net/http"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/internal/keyring"
)

// dkimRoutes are the lines of the table for keys that sign mail. Callers bound to a tenant have to do with the keys of that tenant
// alone; those without a tenant are the operator's.
func (h *handler) dkimRoutes() []route {
	if h.dkim == nil {
		return nil
	}
	return []route{
		{"GET /v1/dkim", Viewer, true, h.dkimKeys},
		{"GET /v1/dkim/{domain}/{selector}", Viewer, true, h.dkimKey},
		{"POST /v1/dkim", Admin, true, h.createDKIM},
		{"POST /v1/dkim/import", Admin, true, h.importDKIM},
		{"POST /v1/dkim/{domain}/rotation", Admin, true, h.rotateDKIM},
		{"POST /v1/dkim/{domain}/check", Operator, true, h.checkDKIM},
		{"POST /v1/dkim/{domain}/publication", Admin, true, h.publishDKIM},
		{"POST /v1/dkim/{domain}/{selector}/activation", Admin, true, h.activateDKIM},
		{"POST /v1/dkim/{domain}/{selector}/retirement", Admin, true, h.retireDKIM},
		{"POST /v1/dkim/{domain}/{selector}/revocation", Admin, true, h.revokeDKIM},
	}
}

// keyRefusal turns an error of the keyring into a problem.
func keyRefusal(domain, selector string, err error) error {
	var input *keyring.InputError
	name := selector
	if name == "" {
		name = "of " + domain
	} else {
		name += " of " + domain
	}
	switch {
	case err == nil:
		return nil
	case errors.As(err, &input):
		return fieldProblem(input.Field, "%s", input.Text)
	case errors.Is(err, keyring.ErrNotFound):
		return noSuch("DKIM key", name)
	case errors.Is(err, keyring.ErrExists):
		return problem(http.StatusConflict, "%s has DKIM keys already: \"godwit dkim list %s\" shows them, and \"godwit dkim rotate %s\" replaces them",
			domain, domain, domain)
	case errors.Is(err, keyring.ErrChanged):
		return problem(http.StatusConflict, "DKIM key %s was changed by somebody else at this moment: look at it and try again", name)
	}
	return err
}

// mine reports whether a caller may have to do with a key.
func (c *call) mine(k *keyring.Key) bool { return c.Caller.Tenant == "" || c.Caller.Tenant == k.Tenant }

func (h *handler) dkimKeys(c *call) (any, error) {
	v := c.URL.Query()
	tenant, err := c.tenant(v.Get("tenant"))
	if err != nil {
		return nil, err
	}
	list, err := h.dkim.List(v.Get("domain"), func(k *keyring.Key) bool { return c.mine(k) && (tenant == "" || k.Tenant == tenant) })
	return apiKeys(list), keyRefusal(v.Get("domain"), "", err)
}

// theKey finds the key that a request names.
func (h *handler) theKey(c *call) (keyring.Key, error) {
	domain, selector := c.PathValue("domain"), c.PathValue("selector")
	k, err := h.dkim.Show(domain, selector)
	if err == nil && !c.mine(&k) {
		err = keyring.ErrNotFound
	}
	return k, keyRefusal(domain, selector, err)
}

func (h *handler) dkimKey(c *call) (any, error) {
	k, err := h.theKey(c)
	if err != nil {
		return nil, err
	}
	return apiKey(&k), nil
}

// mayHaveKeys says why a tenant may not have keys of a domain.
func (h *handler) mayHaveKeys(c *call, tenant, domain string) error {
	if tenant == "" || h.directory == nil {
		return nil
	}
	if _, err := h.directory.Tenant(tenant); err != nil {
		return fieldProblem("tenant", "there is no tenant %q: make it with \"godwit tenant create %s\"", tenant, tenant)
	}
	if !h.directory.Owns(tenant, domain) {
		return fieldProblem("domain", "domain %s is not tenant %s's: prove it with \"godwit domain add %s --tenant %s\"", domain, tenant, domain, tenant)
	}
	return nil
}

// askedTenant is the tenant that new keys are for: the caller's own, or the one that the request names.
func (h *handler) askedTenant(c *call, asked, domain string) (string, error) {
	tenant, err := c.tenant(asked)
	if err != nil {
		return "", err
	}
	name, err := keyring.DomainName(domain)
	if err != nil {
		return "", keyRefusal(domain, "", err)
	}
	return tenant, h.mayHaveKeys(c, tenant, name)
}

func (h *handler) createDKIM(c *call) (any, error) {
	n, err := decode[api.NewDKIMKeys](c)
	if err != nil {
		return nil, err
	}
	if n.Tenant, err = h.askedTenant(c, n.Tenant, n.Domain); err != nil {
		return nil, err
	}
	ask := keyring.NewKeys{Domain: n.Domain, Tenant: n.Tenant, Selector: n.Selector}
	for _, a := range n.Algorithms {
		ask.Algorithms = append(ask.Algorithms, keyring.Algorithm(a))
	}
	act := c.Caller.Act("dkim.create", n.Domain)
	act.After = n
	var out api.DKIMKeyList
	err = h.auditor.Do(c.Context(), act, func(ctx context.Context) (any, error) {
		list, err := h.dkim.Create(ctx, ask)
		out = apiKeys(list)
		return out, keyRefusal(n.Domain, "", err)
	})
	return out, err
}

func (h *handler) importDKIM(c *call) (any, error) {
	n, err := decode[api.ImportedDKIMKey](c)
	if err != nil {
		return nil, err
	}
	if n.Tenant, err = h.askedTenant(c, n.Tenant, n.Domain); err != nil {
		return nil, err
	}
	act := c.Caller.Act("dkim.import", n.Domain)
	act.After = struct {
		Domain   string `json:"domain"`
		Selector string `json:"selector"`
		Tenant   string `json:"tenant,omitempty"`
	}{n.Domain, n.Selector, n.Tenant}
	var out api.DKIMKey
	err = h.auditor.Do(c.Context(), act, func(ctx context.Context) (any, error) {
		k, err := h.dkim.Import(ctx, keyring.Imported{Domain: n.Domain, Selector: n.Selector, Tenant: n.Tenant, Private: []byte(n.PrivateKey)})
		if err != nil {
			return nil, keyRefusal(n.Domain, n.Selector, err)
		}
		out = apiKey(&k)
		return out, nil
	})
	return out, err
}

func (h *handler) rotateDKIM(c *call) (any, error) {
	domain := c.PathValue("domain")
	tenant, err := c.tenant(c.URL.Query().Get("tenant"))
	if err != nil {
		return nil, err
	}
	act := c.Caller.Act("dkim.rotate", domain)
	act.After = struct {
		Tenant string `json:"tenant,omitempty"`
	}{tenant}
	var out api.DKIMKeyList
	err = h.auditor.Do(c.Context(), act, func(ctx context.Context) (any, error) {
		list, err := h.dkim.Rotate(ctx, domain, tenant)
		if errors.Is(err, keyring.ErrNotFound) {
			return nil, problem(http.StatusNotFound, "%s has no key that signs and that the server keeps: make one with \"godwit dkim create %s\"",
				domain, domain)
		}
		out = apiKeys(list)
		return out, keyRefusal(domain, "", err)
	})
	return out, err
}

// chosen returns the keys that a request about a domain means: all of the caller's, or one.
func (h *handler) chosen(c *call) (domain string, selectors []string, err error) {
	domain = c.PathValue("domain")
	choice, err := decode[api.DKIMChoice](c)
	if err != nil {
		return domain, nil, err
	}
	list, err := h.dkim.List(domain, func(k *keyring.Key) bool {
		return c.mine(k) && (choice.Selector == "" || choice.Selector == k.Selector)
	})
	if err == nil && len(list) == 0 {
		err = keyring.ErrNotFound
	}
	for i := range list {
		selectors = append(selectors, list[i].Selector)
	}
	return domain, selectors, keyRefusal(domain, choice.Selector, err)
}

// forEach does something to each key that a request means, on record.
func (h *handler) forEach(c *call, action string, do func(ctx context.Context, domain, selector string) ([]keyring.Key, error)) (any, error) {
	domain, selectors, err := h.chosen(c)
	if err != nil {
		return nil, err
	}
	act := c.Caller.Act(action, domain)
	act.After = api.DKIMChoice{}
	if len(selectors) == 1 {
		act.After = api.DKIMChoice{Selector: selectors[0]}
	}
	out := api.DKIMKeyList{Keys: []api.DKIMKey{}}
	err = h.auditor.Do(c.Context(), act, func(ctx context.Context) (any, error) {
		for _, s := range selectors {
			list, err := do(ctx, domain, s)
			if errors.Is(err, keyring.ErrNotFound) {
				continue // its end came meanwhile
			}
			if err != nil {
				return nil, publishRefusal(domain, s, err)
			}
			out.Keys = append(out.Keys, apiKeys(list).Keys...)
		}
		return nil, nil
	})
	return out, err
}

// publishRefusal tells what a name server said, which the operator has to know.
func publishRefusal(domain, selector string, err error) error {
	var failed *keyring.PublishError
	if errors.As(err, &failed) {
		return problem(http.StatusBadGateway, "the record could not be published: %s", failed.Text)
	}
	return keyRefusal(domain, selector, err)
}

func (h *handler) checkDKIM(c *call) (any, error) { return h.forEach(c, "dkim.check", h.dkim.Check) }

func (h *handler) publishDKIM(c *call) (any, error) {
	return h.forEach(c, "dkim.publish", h.dkim.Publish)
}

// changeDKIM does something to the key that a request names, on record.
func (h *handler) changeDKIM(c *call, action string, after any, do func(ctx context.Context, domain, selector string) (keyring.Key, error)) (any, error) {
	k, err := h.theKey(c)
	if err != nil {
		return nil, err
	}
	act := c.Caller.Act(action, k.Domain)
	act.Before, act.After = apiKey(&k), after
	var out api.DKIMKey
	err = h.auditor.Do(c.Context(), act, func(ctx context.Context) (any, error) {
		changed, err := do(ctx, k.Domain, k.Selector)
		if err != nil {
			return nil, keyRefusal(k.Domain, k.Selector, err)
		}
		out = apiKey(&changed)
		return out, nil
	})
	return out, err
}

func (h *handler) activateDKIM(c *call) (any, error) {
	f, err := decode[api.DKIMForce](c)
	if err != nil {
		return nil, err
	}
	return h.changeDKIM(c, "dkim.activate", f, func(ctx context.Context, domain, selector string) (keyring.Key, error) {
		return h.dkim.Activate(ctx, domain, selector, f.Force)
	})
}

func (h *handler) retireDKIM(c *call) (any, error) {
	f, err := decode[api.DKIMForce](c)
	if err != nil {
		return nil, err
	}
	return h.changeDKIM(c, "dkim.retire", f, func(ctx context.Context, domain, selector string) (keyring.Key, error) {
		return h.dkim.Retire(ctx, domain, selector, f.Force)
	})
}

func (h *handler) revokeDKIM(c *call) (any, error) {
	return h.changeDKIM(c, "dkim.revoke", nil, h.dkim.Revoke)
}

func apiKeys(list []keyring.Key) api.DKIMKeyList {
	out := api.DKIMKeyList{Keys: make([]api.DKIMKey, 0, len(list))}
	for i := range list {
		out.Keys = append(out.Keys, apiKey(&list[i]))
	}
	return out
}

func apiKey(k *keyring.Key) api.DKIMKey {
	out := api.DKIMKey{
		Domain: k.Domain, Selector: k.Selector, Tenant: k.Tenant, Algorithm: string(k.Algorithm), Bits: k.Bits, State: string(k.State),
		Place: k.Place, Signs: k.Signs, Instead: k.Instead,
		Created: timeOrNil(k.Created), Published: timeOrNil(k.Published), Verified: timeOrNil(k.Verified), Activated: timeOrNil(k.Activated),
		Retired: timeOrNil(k.Retired), Revoked: timeOrNil(k.Revoked), Checked: timeOrNil(k.Checked), Good: timeOrNil(k.Good),
		Problem: k.Problem, PublishError: k.PublishError,
		Record: api.DKIMRecord{Name: k.Record.Name, Text: k.Record.Text},
		Task:   api.DKIMTask{Act: string(k.Task.Act), Until: timeOrNil(k.Task.Until), Automatic: k.Task.Automatic},
	}
	if k.Record.Text != "" {
		out.Record.Strings, out.Record.Zone = k.Record.Strings(), k.Record.Zone()
	}
	return out
}
