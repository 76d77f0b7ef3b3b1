package config

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// ParseServer reads the address of a name server: an IP address, with a port if it is not 53.
func ParseServer(s string) (netip.AddrPort, error) {
	if addr, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return netip.AddrPortFrom(addr, 53), nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil || ap.Port() == 0 {
		return netip.AddrPort{}, fmt.Errorf("%q is not an IP address with an optional port", s)
	}
	return ap, nil
}

// ParseHost reads a host of a route: a name or an IP address, with a port if it is not defaultPort. An IPv6 address
// with a port stands in brackets. The name is returned without brackets.
func ParseHost(s string, defaultPort int) (host string, port int, err error) {
	if addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")); err == nil {
		return addr.String(), defaultPort, nil
	}
	host, port = s, defaultPort
	if strings.Contains(s, ":") {
		h, p, err := net.SplitHostPort(s)
		if err != nil {
			return "", 0, err
		}
		if port, err = strconv.Atoi(p); err != nil || port < 1 || port > 65535 {
			return "", 0, fmt.Errorf("%q is not a port", p)
		}
		host = h
	}
	if _, err := netip.ParseAddr(host); err != nil && (len(host) > 255 || !hostPattern.MatchString(host)) {
		return "", 0, fmt.Errorf("%q is neither a name nor an address", host)
	}
	return host, port, nil
}
