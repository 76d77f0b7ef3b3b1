package auth

// Owns reports whether a domain, in A-labels, or one that it is below is the tenant's: proven or assigned. It looks at memory
// only.
func (d *Directory) Owns(tenant, domain string) bool { return d.state.owns(tenant, domain) }
