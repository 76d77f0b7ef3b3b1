package keyring

import (
	"cmp"
	"slices"
	"strings"

	"github.com/godwit-mta/godwit/mailauth/dkim"
)

// snapshot is what signs now. It does not change: another one takes its place.
type snapshot struct {
	domains  map[string][]signers
	operator []*dkim.Key
	required bool
	chosen   map[string]bool // names of the keys that sign
	instead  map[string]bool // those of them that step in for others
}

// signers are the keys of a domain that sign for a tenant.
type signers struct {
	tenant string      // empty: for each whose domain it is
	keys   []*dkim.Key // those of the operator's domain behind them
	own    int         // how many are of the domain itself; 0: none may sign now
}

// Keys returns the keys that sign now for mail of this author domain (A-labels, lower case) and this tenant (empty: the
// server's own mail): those of the domain or of the nearest one above it that has any, then those of the operator's domain.
// The error is ErrHeld or ErrNone, and only if mail must be signed. The slice is not to be changed. It takes no lock and
// allocates nothing, but for what Owners do.
func (k *Keyring) Keys(domain, tenant string) ([]*dkim.Key, error) {
	s := k.now.Load()
	held := false
	if o := k.o.Owners; tenant == "" || o == nil || o.Owns(tenant, domain) || !o.Owned(domain) {
		for name := domain; ; {
			for _, wanted := range [2]string{tenant, ""} {
				g := find(s.domains[name], wanted)
				if g != nil && k.may(tenant, name, domain) {
					if g.own > 0 {
						return g.keys, nil
					}
					held = true
				}
				if tenant == "" {
					break
				}
			}
			_, above, ok := strings.Cut(name, ".")
			if !ok || strings.IndexByte(above, '.') < 0 {
				break
			}
			name = above
		}
	}
	switch {
	case !s.required:
		return s.operator, nil
	case held:
		return nil, ErrHeld
	}
	return nil, ErrNone
}

func find(list []signers, tenant string) *signers {
	for i := range list {
		if list[i].tenant == tenant {
			return &list[i]
		}
	}
	return nil
}

// may reports whether the keys of a domain sign for a tenant whose mail is of that domain or one below it: the domain is the
// tenant's, or nobody's and so the operator's. The server's own mail is signed by the operator's keys wherever they are.
func (k *Keyring) may(tenant, name, domain string) bool {
	o := k.o.Owners
	return tenant == "" || o == nil || name == domain || o.Owns(tenant, name) || !o.Owned(name)
}

func (k *Keyring) rebuild() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.rebuildLocked()
}

// rebuildLocked chooses anew which keys sign.
func (k *Keyring) rebuildLocked() {
	s := &snapshot{
		domains: make(map[string][]signers), required: k.mu.settings.Required, chosen: make(map[string]bool), instead: make(map[string]bool),
	}
	lanes := make(map[lane][]*record)
	for _, r := range k.mu.records {
		lanes[r.lane()] = append(lanes[r.lane()], r)
	}
	type house struct{ domain, tenant string }
	houses := make(map[house][]*dkim.Key)
	for l, list := range lanes {
		candidates, wanted := choose(list, k.mu.settings.Unchecked)
		if !wanted {
			continue
		}
		h := house{l.domain, l.tenant}
		houses[h] = slices.Clip(houses[h]) // known, though perhaps without a key
		for _, r := range candidates {
			key, err := k.signerLocked(r)
			if err != nil {
				continue
			}
			houses[h] = append(houses[h], key)
			s.chosen[r.name()], s.instead[r.name()] = true, r.State != Signing
			break
		}
	}
	for _, keys := range houses {
		slices.SortFunc(keys, func(a, b *dkim.Key) int { return -strings.Compare(a.Algorithm(), b.Algorithm()) }) // RSA first
	}
	operator := house{k.mu.settings.Operator, ""}
	s.operator = houses[operator]
	for h, keys := range houses {
		g := signers{tenant: h.tenant, own: len(keys), keys: slices.Clip(keys)}
		if h != operator {
			g.keys = append(g.keys, s.operator...)
		}
		s.domains[h.domain] = append(s.domains[h.domain], g)
	}
	k.now.Store(s)
}

// choose returns the keys of a lane that may sign, the best first. wanted says that one is to sign, be it that none may. A key
// that is not meant to sign now steps in for one that is and may not.
func choose(list []*record, unchecked bool) (candidates []*record, wanted bool) {
	slices.SortFunc(list, func(a, b *record) int {
		return cmp.Or(a.rank()-b.rank(), a.index()-b.index(), b.Activated.Compare(a.Activated), b.Created.Compare(a.Created),
			strings.Compare(a.Selector, b.Selector))
	})
	var blind []*record
	for _, r := range list {
		switch {
		case r.State == Signing && !r.shown():
			wanted = true
			blind = append(blind, r)
		case r.State == Signing:
			wanted = true
			candidates = append(candidates, r)
		case (r.State == Verified || r.State == Retiring) && r.shown():
			candidates = append(candidates, r)
		}
	}
	if unchecked {
		candidates = append(candidates, blind...)
	}
	return candidates, wanted
}

// rank says in which order keys are tried: those of the configuration, those that sign, the next one, the one before.
func (r *record) rank() int {
	switch {
	case r.Static:
		return 0
	case r.State == Signing:
		return 1
	case r.State == Verified:
		return 2
	}
	return 3
}

func (r *record) index() int {
	if r.static == nil {
		return 0
	}
	return r.static.at
}

// signer is what signs with a key, or why nothing does.
type signer struct {
	key *dkim.Key
	err error
}

// signerLocked returns what signs with a key.
func (k *Keyring) signerLocked(r *record) (*dkim.Key, error) {
	id := r.identity()
	s, known := k.mu.signers[id]
	if known {
		return s.key, s.err
	}
	o := dkim.KeyOptions{Domain: r.Domain, Selector: r.Selector, Expire: k.mu.settings.Expire}
	if r.static != nil {
		o.Signer = r.static.signer
	} else if o.Signer, s.err = k.fetch(r); s.err == nil {
		o.Signer = k.primitive(o.Signer)
	}
	if s.err == nil {
		s.key, s.err = dkim.NewKey(o)
	}
	if s.err != nil {
		k.o.Logger.Error("a DKIM key cannot sign", "domain", r.Domain, "selector", r.Selector, "error", s.err)
	}
	k.mu.signers[id] = s
	return s.key, s.err
}

// identity tells keys apart, whatever becomes of their records.
func (r *record) identity() string { return r.name() + " " + string(r.Public) }
