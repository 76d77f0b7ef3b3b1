package dns

import (
	"context"

	wire "github.com/miekg/dns"
)

// TXT is the text records of a name.
type TXT struct {
	Records   []string // the strings of each record joined; octets as received. Shared: not to be changed
	Authentic bool     // validated with DNSSEC by a trusted resolver
}

// LookupTXT finds the text records of name, at most 64. The error is an [*Error] of the kind NXDomain, NoRecord,
// Malformed, Loop or Temporary.
func (r *Resolver) LookupTXT(ctx context.Context, name string) (TXT, error) {
	a, name, bad := r.lookupName(ctx, name, wire.TypeTXT)
	switch {
	case bad != nil:
		return TXT{}, bad
	case a == nil:
		return TXT{}, interrupted(ctx, name, "TXT")
	case a.err != nil:
		return TXT{}, a.err
	}
	return TXT{Records: a.texts, Authentic: a.authentic}, nil
}
