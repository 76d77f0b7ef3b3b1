package auth

import (
	"net/netip"
)

// Bans returns the bans in force, those that end last first.
func (d *Directory) Bans() []Ban {
	list := d.guard.list()
	for i := range list {
		list[i].Tenant = d.tenantOf(list[i].Login)
	}
	return list
}

func (d *Directory) tenantOf(login string) string {
	if e := d.state.login(login); login != "" && e != nil {
		if c := e.current.Load(); c != nil {
			return c.Tenant
		}
	}
	return ""
}

// BanQuery says which bans to lift. Fields are joined by and; All or one of the others is needed.
type BanQuery struct {
	Address netip.Addr // bans of this address or of its network
	Login   string
	Tenant  string // bans of logins of this tenant
	All     bool
}

// ClearBans lifts bans, and forgets the failures that led or would lead to them. It returns what it lifted. Errors:
// *InputError.
func (d *Directory) ClearBans(q BanQuery) ([]Ban, error) {
	if q == (BanQuery{}) {
		return nil, invalid("address", "say which bans: an address, a login, a tenant, or all")
	}
	var addr netip.Prefix
	if q.Address.IsValid() {
		addr = network(q.Address)
	}
	login := loginForm(q.Login)
	// Tenants are asked first: the state and the budgets have locks of their own.
	of := make(map[string]bool)
	if q.Tenant != "" {
		for _, c := range d.Credentials(CredentialQuery{Tenant: q.Tenant}) {
			of[c.Login] = true
		}
	}
	return d.guard.clear(func(b Ban) bool {
		return (!addr.IsValid() || b.Address == addr) && (login == "" || b.Login == login) && (q.Tenant == "" || of[b.Login])
	}), nil
}
