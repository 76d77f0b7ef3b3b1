package daemon

import (
	"fmt"
	"os"
	"strings"

	"github.com/godwit-mta/godwit/internal/certs"
	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/dnspublish"
	"github.com/godwit-mta/godwit/internal/store"
)

// acme is what the file says of certificates by ACME; nil if it asks for none.
func acme(cfg *config.Config, s store.Store) (*certs.ACME, error) {
	c := &cfg.TLS.ACME
	if len(c.Domains) == 0 {
		return nil, nil
	}
	a := &certs.ACME{
		Domains: c.Domains, Email: c.Email, Directory: c.Directory, Roots: c.CA, Challenge: c.Challenge, Listen: c.Listen, Store: s,
		DNS: dnspublish.Access{Provider: c.DNSProvider, Server: c.DNSServer, KeyName: c.DNSKeyName, KeyAlgorithm: c.DNSKeyAlgorithm},
	}
	if c.Challenge == "tls-alpn-01" && c.Listen == config.Default().TLS.ACME.Listen { // the port of the other challenge
		a.Listen = ""
	}
	if c.DNSSecretFile != "" {
		secret, err := os.ReadFile(c.DNSSecretFile)
		if err != nil {
			return nil, fmt.Errorf("tls.acme.dns_secret_file: %w", err)
		}
		a.DNS.Secret = strings.TrimSpace(string(secret))
	}
	return a, nil
}
