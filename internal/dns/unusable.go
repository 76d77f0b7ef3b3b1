package dns

import "net/netip"

// block is a part of the address space with the reason why no mail host on the internet has an address in it.
type block struct {
	prefix netip.Prefix
	reason string
}

// The IANA special-purpose address registries (RFC 6890).
var special4 = [...]block{
	{netip.MustParsePrefix("0.0.0.0/8"), "this network (0.0.0.0/8)"},
	{netip.MustParsePrefix("10.0.0.0/8"), "private network (10.0.0.0/8)"},
	{netip.MustParsePrefix("100.64.0.0/10"), "carrier-grade NAT (100.64.0.0/10)"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback (127.0.0.0/8)"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local (169.254.0.0/16)"},
	{netip.MustParsePrefix("172.16.0.0/12"), "private network (172.16.0.0/12)"},
	{netip.MustParsePrefix("192.0.0.0/24"), "protocol assignments (192.0.0.0/24)"},
	{netip.MustParsePrefix("192.0.2.0/24"), "documentation (192.0.2.0/24)"},
	{netip.MustParsePrefix("192.88.99.0/24"), "6to4 relay anycast (192.88.99.0/24)"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private network (192.168.0.0/16)"},
	{netip.MustParsePrefix("198.18.0.0/15"), "benchmarking (198.18.0.0/15)"},
	{netip.MustParsePrefix("198.51.100.0/24"), "documentation (198.51.100.0/24)"},
	{netip.MustParsePrefix("203.0.113.0/24"), "documentation (203.0.113.0/24)"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast (224.0.0.0/4)"},
	{netip.MustParsePrefix("255.255.255.255/32"), "broadcast (255.255.255.255)"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved (240.0.0.0/4)"},
}

var special6 = [...]block{
	{netip.MustParsePrefix("::/128"), "unspecified address (::)"},
	{netip.MustParsePrefix("::1/128"), "loopback (::1)"},
	{netip.MustParsePrefix("::ffff:0:0/96"), "IPv4-mapped address (::ffff:0:0/96)"},
	{netip.MustParsePrefix("64:ff9b:1::/48"), "local NAT64 (64:ff9b:1::/48)"},
	{netip.MustParsePrefix("100::/64"), "discard only (100::/64)"},
	{netip.MustParsePrefix("2001::/23"), "protocol assignments (2001::/23)"},
	{netip.MustParsePrefix("2001:db8::/32"), "documentation (2001:db8::/32)"},
	{netip.MustParsePrefix("3fff::/20"), "documentation (3fff::/20)"},
	{netip.MustParsePrefix("5f00::/16"), "segment routing (5f00::/16)"},
	{netip.MustParsePrefix("fc00::/7"), "unique local address (fc00::/7)"},
	{netip.MustParsePrefix("fe80::/10"), "link-local (fe80::/10)"},
	{netip.MustParsePrefix("fec0::/10"), "site-local (fec0::/10)"},
	{netip.MustParsePrefix("ff00::/8"), "multicast (ff00::/8)"},
}

var (
	nat64  = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052, 2.1
	sixTo4 = netip.MustParsePrefix("2002::/16")    // RFC 3056, 2
	global = netip.MustParsePrefix("2000::/3")     // all the unicast space given out so far
)

// Unusable reports whether no public mail host can have the address, and why. It keeps a domain's owner from pointing
// this server at its own neighbours by way of MX records. An IPv4 address written inside an IPv6 one is judged as the
// IPv4 address; IPv4-mapped addresses are refused as such, so an address taken from a socket must be unmapped first.
func Unusable(a netip.Addr) (reason string, bad bool) {
	switch {
	case !a.IsValid():
		return "not an address", true
	case a.Zone() != "":
		return "address with a zone", true
	}
	blocks := special6[:]
	if a.Is4() {
		blocks = special4[:]
	}
	for i := range blocks {
		if blocks[i].prefix.Contains(a) {
			return blocks[i].reason, true
		}
	}
	if a.Is4() {
		return "", false
	}
	p := a.As16()
	switch {
	case nat64.Contains(a):
		if reason, bad = Unusable(netip.AddrFrom4([4]byte(p[12:16]))); bad {
			return "NAT64 of " + reason, true
		}
	case sixTo4.Contains(a):
		if reason, bad = Unusable(netip.AddrFrom4([4]byte(p[2:6]))); bad {
			return "6to4 of " + reason, true
		}
	case !global.Contains(a):
		return "not in the global unicast space (2000::/3)", true
	}
	return "", false
}
