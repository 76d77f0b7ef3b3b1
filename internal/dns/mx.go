package dns

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	wire "github.com/miekg/dns"
)

// MX is where a domain wants its mail.
type MX struct {
	// Hosts are to be tried in this order: by preference, in random order among equals (RFC 5321, 5.1). The slice is
	// the caller's.
	Hosts []Host
	// Implicit says that there is no MX record and the domain's own address serves (RFC 5321, 5.1).
	Implicit bool
	// Authentic says that a trusted resolver validated the answer with DNSSEC, an answer "no MX record" too.
	Authentic bool
	// Site names the set of hosts: equal for two domains exactly if their mail goes to the same hosts.
	Site string
	// Name is the domain's own name, at the end of its aliases.
	Name string
}

// Host is one MX record.
type Host struct {
	Name       string // lower case, A-labels, no final dot
	Preference uint16 // lower ones first
}

// LookupMX finds the hosts that take mail for domain, at most [Options.MaxHosts] of them. A final dot and upper case in
// domain are of no matter; U-labels are turned to A-labels. The error is an [*Error] of the kind NXDomain, NoAddress
// (neither MX nor address), NullMX, NoUsableHost (no MX record names a host), Malformed, Loop or Temporary.
func (r *Resolver) LookupMX(ctx context.Context, domain string) (MX, error) {
	a, name, bad := r.lookupName(ctx, domain, wire.TypeMX)
	switch {
	case bad != nil:
		return MX{}, bad
	case a == nil:
		return MX{}, interrupted(ctx, name, "MX")
	case a.err != nil && a.err.Kind == NoRecord:
		return r.implicitMX(ctx, name, a)
	case a.err != nil:
		return MX{}, a.err
	}
	hosts := make([]Host, len(a.hosts))
	copy(hosts, a.hosts)
	for i := 0; i < len(hosts); {
		j := i + 1
		for j < len(hosts) && hosts[j].Preference == hosts[i].Preference {
			j++
		}
		shuffle(r, hosts[i:j])
		i = j
	}
	return MX{Hosts: hosts[:min(len(hosts), r.o.MaxHosts)], Authentic: a.authentic, Site: a.site, Name: a.name}, nil
}

// implicitMX serves a domain without MX record, which must have an address then.
func (r *Resolver) implicitMX(ctx context.Context, name string, a *answer) (MX, error) {
	v4, v6 := r.bothFamilies(ctx, a.name)
	if v4 == nil || v6 == nil {
		return MX{}, interrupted(ctx, name, "MX")
	}
	if err := noAddress(a.name, v4, v6); err != nil {
		if err.Kind == NoAddress || err.Kind == NXDomain { // RFC 8020 aside, servers say NXDOMAIN for one type only
			err = &Error{Kind: NoAddress, Name: name, Type: "MX", Server: err.Server}
		}
		return MX{}, err
	}
	return MX{Hosts: []Host{{Name: a.name}}, Implicit: true, Authentic: a.authentic, Site: a.name, Name: a.name}, nil
}

// Site returns the site of domain if the cache knows it, and sends nothing. The domain is to be in lower case without
// final dot.
func (r *Resolver) Site(domain string) (string, bool) {
	a := r.cache.get(key{domain, wire.TypeMX}, time.Now())
	switch {
	case a == nil:
		return "", false
	case a.err == nil:
		return a.site, true
	case a.err.Kind == NoRecord:
		return a.name, true
	}
	return "", false
}

// finishMX turns the records as received into hosts: null MX told apart, what is no host left out, doubles joined,
// sorted, counted.
func (rep *reply) finishMX() {
	all := rep.hosts
	rep.hosts = nil
	var refused []string
	null := false
	for _, h := range all {
		switch why := notHostName(h.Name); {
		case h.Name == "":
			null = true
		case why != "":
			refused = append(refused, cut(h.Name, 64)+" ("+why+")")
		case isLocalhost(h.Name):
			refused = append(refused, cut(h.Name, 64)+" (the sender's own machine)")
		default:
			rep.hosts = append(rep.hosts, h)
		}
	}
	switch {
	case len(rep.hosts) > 0: // a null MX beside others is no null MX (RFC 7505, 3)
	case null && len(refused) == 0:
		rep.err = &Error{Kind: NullMX}
		return
	default:
		if null {
			refused = append(refused, "the null name")
		}
		rep.err = &Error{Kind: NoUsableHost, Detail: strings.Join(refused[:min(len(refused), 3)], ", ")}
		return
	}
	slices.SortFunc(rep.hosts, func(a, b Host) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.Preference, b.Preference))
	})
	rep.hosts = slices.CompactFunc(rep.hosts, func(a, b Host) bool { return a.Name == b.Name })
	rep.site = siteName(rep.hosts)
	slices.SortStableFunc(rep.hosts, func(a, b Host) int { return cmp.Compare(a.Preference, b.Preference) })
	rep.hosts = slices.Clip(rep.hosts[:min(len(rep.hosts), maxHosts)])
}

// maxSite bounds the length of a site's name.
const maxSite = 255

// siteName joins the names of hosts, sorted, by commas. What gets too long ends in a digest of the whole.
func siteName(sorted []Host) string {
	names := make([]string, len(sorted))
	for i, h := range sorted {
		names[i] = h.Name
	}
	all := strings.Join(names, ",")
	if len(all) <= maxSite {
		return all
	}
	digest := sha256.Sum256([]byte(all))
	tail := "~" + hex.EncodeToString(digest[:8])
	head := all[:maxSite-len(tail)]
	if i := strings.LastIndexByte(head, ','); i > 0 {
		head = head[:i+1]
	}
	return head + tail
}
