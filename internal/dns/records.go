package dns

import (
	"context"
	"encoding/hex"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	wire "github.com/miekg/dns"
)

// This file has lookups of what stands in the DNS as it stands there, for those who check where mail comes from: no implicit
// MX, one family of addresses, names of an address.

// LookupFamily finds the addresses of a name in one family: IPv4, or IPv6 if six, at most 16, in the order of the answer. Names
// are those of hosts, and those that SPF makes of addresses (RFC 7208, 7), which have octets that hosts' names cannot. The error
// is an [*Error] of the kind NXDomain, NoRecord, Malformed, Loop or Temporary.
func (r *Resolver) LookupFamily(ctx context.Context, name string, six bool) ([]netip.Addr, error) {
	typ := wire.TypeA
	if six {
		typ = wire.TypeAAAA
	}
	a, err := r.lookupRecords(ctx, name, typ)
	if err != nil {
		return nil, err
	}
	return slices.Clone(a.addrs), nil
}

// LookupMXRecords finds the names in the MX records of a domain, at most 64, in the order of their preference; none if it has no
// such record, or a null MX. What names no host on the internet is left out. The error is an [*Error] of the kind NXDomain,
// NoRecord, NullMX, NoUsableHost, Malformed, Loop or Temporary.
func (r *Resolver) LookupMXRecords(ctx context.Context, domain string) ([]string, error) {
	a, err := r.lookupRecords(ctx, domain, wire.TypeMX)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(a.hosts))
	for i, h := range a.hosts {
		names[i] = h.Name
	}
	return names, nil
}

// LookupPTR finds the names of an address, at most 64. They are what the owner of the address says: nobody has checked them. The
// error is an [*Error] of the kind NXDomain, NoRecord, Malformed, Loop or Temporary.
func (r *Resolver) LookupPTR(ctx context.Context, addr netip.Addr) ([]string, error) {
	a, err := r.lookupRecords(ctx, reverseName(addr), wire.TypePTR)
	if err != nil {
		return nil, err
	}
	return slices.Clone(a.texts), nil
}

// lookupRecords returns an answer that has records. Its slices are shared.
func (r *Resolver) lookupRecords(ctx context.Context, name string, typ uint16) (*answer, error) {
	a, normal, bad := r.lookupName(ctx, name, typ)
	if bad != nil && bad.Kind == Malformed && isMacroName(name) {
		normal, bad = lower(strings.TrimSuffix(name, ".")), nil
		a = r.lookup(ctx, key{normal, typ})
	}
	switch {
	case bad != nil:
		return nil, bad
	case a == nil:
		return nil, interrupted(ctx, normal, wire.TypeToString[typ])
	case a.err != nil:
		return nil, a.err
	}
	return a, nil
}

// isMacroName reports names whose labels have octets that local parts have and names of hosts do not. What the library would
// write in another way is not among them, so that a name in an answer can be compared with the one asked for.
func isMacroName(name string) bool {
	name = strings.TrimSuffix(name, ".")
	if name == "" || len(name) > maxName {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > maxLabel {
			return false
		}
		for _, c := range []byte(label) {
			if c <= ' ' || c >= 0x7f || strings.IndexByte(`"$();@\`, c) >= 0 {
				return false
			}
		}
	}
	_, err := netip.ParseAddr(name)
	return err != nil
}

// reverseName returns the name that an address has in the DNS (RFC 1035, 3.5; RFC 3596, 2.5).
func reverseName(addr netip.Addr) string {
	addr = addr.Unmap().WithZone("")
	var b strings.Builder
	if addr.Is4() {
		for _, o := range slices.Backward(addr.AsSlice()) {
			b.WriteString(strconv.Itoa(int(o)))
			b.WriteByte('.')
		}
		return b.String() + "in-addr.arpa"
	}
	for _, c := range slices.Backward([]byte(hex.EncodeToString(addr.AsSlice()))) {
		b.WriteByte(c)
		b.WriteByte('.')
	}
	return b.String() + "ip6.arpa"
}
