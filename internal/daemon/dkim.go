package daemon

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/dnspublish"
	"github.com/godwit-mta/godwit/internal/keyring"
	"github.com/godwit-mta/godwit/mailauth/dkim"
)

// keyringSettings is what the file says of keys.
func keyringSettings(cfg *config.Config) keyring.Settings {
	c := &cfg.DKIM
	s := keyring.Settings{
		Operator: c.Operator, Required: c.Required, Unchecked: !c.RequireRecord, Expire: c.Expire, Bits: c.RSABits,
		RotateEvery: c.RotateEvery, RetireAfter: cfg.RecordsStay(), Settle: c.ActivateAfter,
	}
	for _, a := range c.Algorithms {
		switch a {
		case "rsa":
			s.Algorithms = append(s.Algorithms, keyring.RSA)
		case "ed25519":
			s.Algorithms = append(s.Algorithms, keyring.Ed25519)
		}
	}
	for i := range c.Keys {
		k := &c.Keys[i]
		s.Static = append(s.Static, keyring.StaticKey{
			Domain: k.Domain, Selector: k.Selector, Tenant: k.Tenant, File: k.File, Command: k.Command, Public: k.PublicKey, Timeout: k.Timeout,
		})
	}
	return s
}

// signedFields is what the file says of header fields.
func signedFields(cfg *config.Config) dkim.Options {
	c := &cfg.DKIM
	return dkim.Options{
		Headers: append(dkim.DefaultHeaders(), c.Headers...), Oversign: append(dkim.DefaultOversign(), c.Oversign...),
	}
}

// publisher makes what writes records into DNS; nil if nothing does.
func publisher(cfg *config.Config) (keyring.Publisher, error) {
	c := &cfg.DKIM.Publish
	if !c.Enabled() {
		return nil, nil
	}
	secret, err := c.Secret()
	if err != nil {
		return nil, err
	}
	a := dnspublish.Access{Provider: c.Provider, Secret: secret, KeyName: c.KeyName, KeyAlgorithm: c.KeyAlgorithm}
	if c.Server != "" {
		at, err := config.ParseServer(c.Server)
		if err != nil {
			return nil, fmt.Errorf("dkim.publish.server %q: %w", c.Server, err)
		}
		a.Server = at.String()
	}
	p, err := dnspublish.New(dnspublish.Options{Access: a, Zones: c.Zones, TTL: c.TTL})
	if err != nil {
		return nil, fmt.Errorf("dkim.publish: %w", err)
	}
	return p, nil
}

// recordServers are the name servers besides dns.servers where key records are looked for: those of the file, and the one that
// they are written to.
func recordServers(cfg *config.Config) []string {
	list := slices.Clone(cfg.DKIM.CheckAt)
	if p := &cfg.DKIM.Publish; p.Provider == "rfc2136" && p.Server != "" {
		list = append(list, p.Server)
	}
	return list
}

// prepare has keys looked at that nobody has looked at yet, so that the first message is signed too. Mail does not wait for it
// longer than a moment.
func (s *signatures) prepare(ctx context.Context) {
	const patience = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s.ring.Prepare(ctx)
}

// dkimFindings tells what is wrong with keys.
func (r *running) dkimFindings() []api.Finding {
	var list []api.Finding
	for _, f := range r.door.signs.ring.Findings() {
		list = append(list, api.Finding{
			Subject: "dkim", Name: f.Selector + "._domainkey." + f.Domain, Problem: f.Problem, Advice: f.Advice, Since: timeOrNil(f.Since), Grave: f.Grave,
		})
	}
	return list
}
