package daemon

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/dns"
	"github.com/godwit-mta/godwit/internal/submission/auth"
	"github.com/godwit-mta/godwit/internal/submission/auth/bearer"
)

// newDirectory opens tenants, domains and credentials.
func (d *Daemon) newDirectory(cfg *config.Config) (*auth.Directory, error) {
	issuers, err := tokenIssuers(cfg)
	if err != nil {
		return nil, err
	}
	resolver, err := newProofResolver(d, cfg)
	if err != nil {
		return nil, err
	}
	return auth.New(auth.Options{
		Store: d.store, Resolver: resolver, Hostname: cfg.Hostname, Configured: configuredTenants(cfg), Issuers: issuers,
		Banned: d.banned, Logger: d.log, Registerer: d.metrics,
	})
}

// newProofResolver makes the resolver that looks for proofs of domains. It keeps answers for a second only: people correct a
// record and ask again. It has no metrics: the other one has the names.
func newProofResolver(d *Daemon, cfg *config.Config) (*dns.Resolver, error) {
	var servers []netip.AddrPort
	for _, s := range cfg.DNS.Servers {
		a, err := config.ParseServer(s)
		if err != nil {
			return nil, fmt.Errorf("dns server %q: %w", s, err)
		}
		servers = append(servers, a)
	}
	r, err := dns.New(dns.Options{
		Servers: servers, Timeout: cfg.DNS.Timeout, Logger: d.log, Concurrency: 8, CacheEntries: 64,
		MaxTTL: time.Second, MaxNegativeTTL: time.Second, FailureTTL: time.Second,
	})
	if err != nil {
		return nil, fmt.Errorf("resolver for proofs of domains: %w", err)
	}
	return r, nil
}

// tokenIssuers makes what checks the tokens of each issuer. Secrets and certificates are read now; it asks nobody.
func tokenIssuers(cfg *config.Config) ([]auth.Issuer, error) {
	list := make([]auth.Issuer, 0, len(cfg.Auth.OAuth))
	for i := range cfg.Auth.OAuth {
		c := &cfg.Auth.OAuth[i]
		o := bearer.Options{
			Issuer: c.Issuer, Audience: c.Audience, Claim: c.LoginClaim, Keys: c.JWKS, Introspection: c.Introspection, ClientID: c.ClientID,
		}
		if c.ClientSecretFile != "" {
			p, err := os.ReadFile(c.ClientSecretFile)
			if err != nil {
				return nil, fmt.Errorf("auth.oauth %s: client_secret_file: %w", c.Name, err)
			}
			o.ClientSecret = strings.TrimSpace(string(p))
		}
		if c.CA != "" {
			p, err := os.ReadFile(c.CA)
			if err != nil {
				return nil, fmt.Errorf("auth.oauth %s: ca: %w", c.Name, err)
			}
			if o.Roots = x509.NewCertPool(); !o.Roots.AppendCertsFromPEM(p) {
				return nil, fmt.Errorf("auth.oauth %s: ca: %s holds no certificate (PEM)", c.Name, c.CA)
			}
		}
		v, err := bearer.New(o)
		if err != nil {
			return nil, fmt.Errorf("auth.oauth %s: %w", c.Name, err)
		}
		list = append(list, auth.Issuer{Name: c.Name, Verifier: v})
	}
	return list, nil
}
