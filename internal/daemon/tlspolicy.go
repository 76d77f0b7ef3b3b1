package daemon

import (
	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/dns"
)

// trusted says whose word is believed that an answer was validated. What /etc/resolv.conf names on this machine may be a
// plain forwarder, which passes on the bit of whoever it asks: only a server that the operator has named counts.
func trusted(cfg *config.Config) dns.Trust {
	switch {
	case cfg.DNS.DNSSEC == "all":
		return dns.TrustAll
	case cfg.DNS.DNSSEC == "none", len(cfg.DNS.Servers) == 0:
		return dns.TrustNone
	}
	return dns.TrustLoopback
}
