package dns

import (
	"context"

	wire "github.com/miekg/dns"
)

// LookupAlias finds the name at the end of the aliases (CNAME records) that begin at name, whether there is anything or
// not; empty if name is no alias. The error is an [*Error] of the kind NXDomain (of name itself), Malformed, Loop or
// Temporary.
func (r *Resolver) LookupAlias(ctx context.Context, name string) (string, error) {
	a, name, bad := r.lookupName(ctx, name, wire.TypeTXT) // the aliases of a name are those of each type
	switch {
	case bad != nil:
		return "", bad
	case a == nil:
		return "", interrupted(ctx, name, "TXT")
	case a.name != name && a.name != "" && (a.err == nil || !a.err.Temporary()):
		return a.name, nil
	case a.err != nil && a.err.Kind != NoRecord:
		return "", a.err
	}
	return "", nil
}
