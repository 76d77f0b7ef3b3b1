package delivery

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/godwit-mta/godwit/smtp"
)

// Protocol is what is spoken to the hosts of a route.
type Protocol uint8

const (
	SMTP Protocol = iota // RFC 5321
	LMTP                 // RFC 2033
)

// String returns "smtp" or "lmtp".
func (p Protocol) String() string {
	if p == LMTP {
		return "lmtp"
	}
	return "smtp"
}

// Route is the operator's override of MX routing.
type Route struct {
	// Domains that it applies to: "example.org", "*.example.org" (everything below, not itself), "*" (everything), or an
	// address literal such as "[192.0.2.1]". The most specific pattern of all routes decides.
	Domains []string
	// Hosts in the order they are tried: "10.0.0.5:25", "[2001:db8::1]:25", "relay.example:587", "relay.example". A name
	// is looked up as a host, not as a mail domain. The port is 25 for SMTP and 24 for LMTP if left out. The address
	// policy does not apply to them.
	Hosts    []string
	Protocol Protocol
	TLS      RouteTLS // what is demanded of the hosts
}

// routeHost is one host of a route.
type routeHost struct {
	name string
	addr netip.Addr // valid if name is an address
	port uint16
}

// route is a Route made ready.
type route struct {
	site  string
	hosts []routeHost
	lmtp  bool
	tls   RouteTLS
	keys  [levels]string // of sessions, by the level that holds
}

// routes finds the route of a domain. It is immutable.
type routes struct {
	exact map[string]*route // domains and literals
	below map[string]*route // "*.example.org" under "example.org"
	all   *route
}

// ErrRoute is what [New] and [Deliverer.SetRoutes] return for a route that cannot be; the text says which and why.
var ErrRoute = errors.New("delivery: route")

// newRoutes checks routes and builds their table.
func newRoutes(list []Route) (*routes, error) {
	t := &routes{exact: make(map[string]*route), below: make(map[string]*route)}
	for i := range list {
		r, err := newRoute(&list[i])
		if err != nil {
			return nil, fmt.Errorf("%w %d: %w", ErrRoute, i+1, err)
		}
		if len(list[i].Domains) == 0 {
			return nil, fmt.Errorf("%w %d: no domains", ErrRoute, i+1)
		}
		for _, pattern := range list[i].Domains {
			if err := t.add(pattern, r); err != nil {
				return nil, fmt.Errorf("%w %d: domain %q: %w", ErrRoute, i+1, pattern, err)
			}
		}
	}
	return t, nil
}

func newRoute(from *Route) (*route, error) {
	if len(from.Hosts) == 0 {
		return nil, errors.New("no hosts")
	}
	if err := from.TLS.check(); err != nil {
		return nil, err
	}
	r := &route{lmtp: from.Protocol == LMTP, tls: from.TLS}
	for l := range levels {
		r.keys[l] = strings.TrimSpace(levelKeys[l] + " " + from.TLS.key())
	}
	names := make([]string, 0, len(from.Hosts))
	for _, h := range from.Hosts {
		host, err := parseRouteHost(h, r.lmtp)
		if err != nil {
			return nil, fmt.Errorf("host %q: %w", h, err)
		}
		r.hosts = append(r.hosts, host)
		names = append(names, host.String())
	}
	r.site = from.Protocol.String() + "://" + strings.Join(names, ",")
	return r, nil
}

func (h routeHost) String() string {
	if h.addr.IsValid() {
		return netip.AddrPortFrom(h.addr, h.port).String()
	}
	return h.name + ":" + strconv.Itoa(int(h.port))
}

func parseRouteHost(s string, lmtp bool) (routeHost, error) {
	h := routeHost{port: 25}
	if lmtp {
		h.port = 24
	}
	name := s
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil { // no port, colons and all
		h.name, h.addr = a.String(), a
		return h, nil
	}
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		port, err := strconv.ParseUint(s[i+1:], 10, 16)
		if err != nil || port == 0 {
			return routeHost{}, fmt.Errorf("%q is no port", s[i+1:])
		}
		name, h.port = s[:i], uint16(port)
	}
	if a, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		h.name, h.addr = a.String(), a
		return h, nil
	}
	if strings.EqualFold(strings.TrimSuffix(name, "."), "localhost") {
		h.name = "localhost" // no DNS server is asked for it (RFC 6761, 6.3)
		return h, nil
	}
	ascii, err := smtp.DomainToASCII(name)
	if err != nil {
		return routeHost{}, err
	}
	if strings.HasPrefix(ascii, "[") {
		return routeHost{}, errors.New("not an address")
	}
	h.name = ascii
	return h, nil
}

func (t *routes) add(pattern string, r *route) error {
	table, name := t.exact, pattern
	switch {
	case pattern == "*":
		if t.all != nil {
			return errors.New("occurs twice")
		}
		t.all = r
		return nil
	case strings.HasPrefix(pattern, "*."):
		table, name = t.below, pattern[2:]
	}
	domain, err := smtp.DomainToASCII(name)
	if err != nil {
		return err
	}
	if strings.Contains(domain, "*") {
		return errors.New("a star stands alone or for the labels before the first dot")
	}
	if table[domain] != nil {
		return errors.New("occurs twice")
	}
	table[domain] = r
	return nil
}

// find returns the route for a domain in lower case, or nil if its MX records decide. It allocates nothing.
func (t *routes) find(domain string) *route {
	if r := t.exact[domain]; r != nil {
		return r
	}
	if len(t.below) > 0 && !strings.HasPrefix(domain, "[") {
		rest := domain
		for {
			_, after, ok := strings.Cut(rest, ".")
			if !ok {
				break
			}
			if r := t.below[after]; r != nil {
				return r
			}
			rest = after
		}
	}
	return t.all
}
