package config

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/token"

	"github.com/godwit-mta/godwit/smtp"
)

// maxSocketPath is what fits into a Unix socket address with room to spare on every system.
const maxSocketPath = 100

// hostLabel allows underscores, which stand in the names of real hosts whatever the RFCs say.
const hostLabel = `[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?`

var (
	wordPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9_-]{0,30}[a-z0-9])?$`)
	hostPattern = regexp.MustCompile(`^` + hostLabel + `(\.` + hostLabel + `)*$`)
)

// at finds the place of a key, or of the nearest group that stands in the file.
func (d *decoder) at(key string) *token.Token {
	for key != "" {
		if o, ok := d.origins[key]; ok && o.File != "" {
			return &token.Token{Position: &token.Position{Line: o.Line, Column: o.Column}}
		}
		key = key[:max(strings.LastIndexAny(key, ".["), 0)]
	}
	return nil
}

// wrong notes a value that must not be used. A key that could not even be read has its problem already.
func (d *decoder) wrong(key, what, advice string) {
	if !d.noted(key) {
		d.problem(d.at(key), key, what, advice)
	}
}

// missing notes a key that must be there, unless its group has one that nobody knows and that may be this one,
// misspelt.
func (d *decoder) missing(group, name, what, advice string) {
	if !d.doubtful[group] {
		d.wrong(join(group, name), what, advice)
	}
}

// advise notes a value that works but is likely not meant.
func (d *decoder) advise(key, what, advice string) {
	if !d.noted(key) {
		p := Problem{File: d.file, Key: key, What: what, Advice: advice}
		if at := d.at(key); at != nil {
			p.Line, p.Column = at.Position.Line, at.Position.Column
		}
		d.cfg.advice = append(d.cfg.advice, p)
	}
}

// noted reports whether there is a problem with the key, a part of it, or a group around it.
func (d *decoder) noted(key string) bool {
	return key != "" && slices.ContainsFunc(d.problems, func(p Problem) bool {
		return p.Key != "" && (within(p.Key, key) || within(key, p.Key))
	})
}

// within reports whether key is group or lies in it.
func within(key, group string) bool {
	rest, ok := strings.CutPrefix(key, group)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// validate checks each value against the others and the world. Ranges and words were checked while reading.
func (d *decoder) validate() {
	c := d.cfg
	d.checkHostname("hostname", c.Hostname)
	if c.Delivery.Hello != c.Hostname {
		d.checkHostname("delivery.hello", c.Delivery.Hello)
	}
	if c.DataDir == "" || !filepath.IsAbs(c.DataDir) {
		d.wrong("data_dir", strconv.Quote(c.DataDir)+" is not an absolute path",
			"write it from the root, such as /var/lib/godwit")
	} else if len(c.DataDir) > maxSocketPath-len("/admin.sock") {
		d.wrong("data_dir", "is too long for the admin socket in it",
			fmt.Sprintf("choose a path of at most %d octets", maxSocketPath-len("/admin.sock")))
	}
	if !filepath.IsAbs(c.Events.Dir) && c.Events.Dir != filepath.Join(c.DataDir, "events") {
		d.wrong("events.dir", strconv.Quote(c.Events.Dir)+" is not an absolute path", "write it from the root")
	}
	d.checkTLS()
	d.checkTenants()
	d.checkAuth()
	d.checkListeners()
	if c.HTTP.Address != "" {
		if ip, ok := d.checkAddress("http.address", c.HTTP.Address, "127.0.0.1:8080"); ok && !ip.IsLoopback() && !ip.IsPrivate() {
			d.advise("http.address", "metrics are readable for everyone who can reach it",
				"listen on a private address")
		} else if ok && c.HTTP.API && !ip.IsLoopback() {
			d.wrong("http.api", "would send API keys in clear over the network", "set http.address to a loopback address")
		}
	}
	d.checkKeeping()
	d.checkMemory()
	d.checkDelivery()
	d.checkRoutes()
	d.checkTransport()
	d.checkInbound()
	d.checkDKIM()
	d.checkReports()
	for i, s := range c.DNS.Servers {
		if _, err := ParseServer(s); err != nil {
			d.wrong(fmt.Sprintf("dns.servers[%d]", i), strconv.Quote(s)+" is not an IP address",
				`write an address, with a port if it is not 53: "127.0.0.1" or "[::1]:5353"`)
		}
	}
}

func (d *decoder) checkHostname(key, name string) {
	switch {
	case len(name) > 255 || !hostPattern.MatchString(name):
		d.wrong(key, strconv.Quote(name)+" is not a host name",
			"write a fully qualified name, such as mta1.example.com")
	case !strings.Contains(name, "."):
		d.advise(key, strconv.Quote(name)+" has no dot; many servers refuse mail from such a name",
			"set it to the name that the outgoing address resolves to, such as mta1.example.com")
	}
}

func (d *decoder) checkListeners() {
	c := d.cfg
	if c.Listeners == nil {
		d.missing("", "listeners", "are not given, so no mail could come in",
			`add for instance: listeners: [{name: relay, address: "127.0.0.1:2525", trusted_networks: [127.0.0.0/8]}]`)
	}
	names, addresses := make(map[string]int), make(map[string]int)
	for i := range c.Listeners {
		l := &c.Listeners[i]
		key := fmt.Sprintf("listeners[%d]", i)
		switch first, twice := names[l.Name]; {
		case l.Name == "":
			d.missing(key, "name", "is missing", "give the listener a short name, such as relay")
		case !wordPattern.MatchString(l.Name):
			d.wrong(key+".name", strconv.Quote(l.Name)+" is not a short name",
				shortName)
		case twice:
			d.wrong(key+".name", fmt.Sprintf("%q is also the name of listeners[%d]", l.Name, first),
				"give each listener its own name")
		default:
			names[l.Name] = i
		}
		var ip netip.Addr
		if l.Address == "" {
			d.missing(key, "address", "is missing", `write where to listen, such as "127.0.0.1:2525"`)
		} else if a, ok := d.checkAddress(key+".address", l.Address, "127.0.0.1:2525"); ok {
			ip = a
			if first, twice := addresses[l.Address]; twice && !strings.HasSuffix(l.Address, ":0") {
				d.wrong(key+".address", fmt.Sprintf("%s is also the address of listeners[%d]", l.Address, first),
					"give each listener its own address or port")
			}
			addresses[l.Address] = i
		}
		d.checkDoor(key, l, ip)
		for name, word := range map[string]string{"tenant": l.Tenant, "stream": l.Stream} {
			if !wordPattern.MatchString(word) {
				d.wrong(key+"."+name, strconv.Quote(word)+" is not a short name",
					shortName)
			}
		}
		if l.Limits.SessionsPerClient > l.Limits.Sessions {
			d.advise(key+".limits", fmt.Sprintf("sessions_per_client (%d) is above sessions (%d), so one client can take them all",
				l.Limits.SessionsPerClient, l.Limits.Sessions), "lower sessions_per_client")
		}
	}
}

// checkAddress checks an address to listen on.
func (d *decoder) checkAddress(key, address, example string) (netip.Addr, bool) {
	ap, err := netip.ParseAddrPort(address)
	if err == nil {
		return ap.Addr(), true
	}
	advice := fmt.Sprintf("write an IP address and a port, such as %q", example)
	host, port, splitErr := net.SplitHostPort(address)
	switch {
	case splitErr == nil && host == "":
		advice = fmt.Sprintf("write \"127.0.0.1:%s\" for this machine alone or \"[::]:%s\" for all addresses", port, port)
	case splitErr == nil && host == "localhost":
		advice = fmt.Sprintf("write \"127.0.0.1:%s\"", port)
	case splitErr != nil && net.ParseIP(address) != nil:
		advice = fmt.Sprintf("add the port, such as %q", net.JoinHostPort(address, "2525"))
	}
	d.wrong(key, strconv.Quote(address)+" is not an address to listen on", advice)
	return netip.Addr{}, false
}

func (d *decoder) checkDelivery() {
	dl := &d.cfg.Delivery
	if dl.SourceAddress != "" {
		if _, err := netip.ParseAddr(dl.SourceAddress); err != nil {
			d.wrong("delivery.source_address", strconv.Quote(dl.SourceAddress)+" is not an IP address",
				"write an address of this machine, or leave it out")
		}
	}
	if len(dl.Retry) == 0 {
		d.wrong("delivery.retry", "is empty", "write at least one pause, such as [2m, 10m, 1h]")
	}
	for i := 1; i < len(dl.Retry); i++ {
		if dl.Retry[i] < dl.Retry[i-1] {
			d.advise(fmt.Sprintf("delivery.retry[%d]", i), FormatDuration(dl.Retry[i])+" is shorter than the pause before it",
				"let the pauses grow")
		}
	}
	for name, age := range dl.MaxAge {
		if !wordPattern.MatchString(name) {
			d.wrong("delivery.max_age."+name, strconv.Quote(name)+" is not a short name", "name a stream, or default")
		}
		if len(dl.Retry) > 0 && age < dl.Retry[0] {
			d.advise("delivery.max_age."+name, FormatDuration(age)+" is over before the first retry",
				"raise it, or shorten delivery.retry")
		}
	}
	if dl.MaxAge[DefaultStream] <= dl.DelayNoticeAfter && dl.DelayNotices != "never" {
		d.advise("delivery.delay_notice_after", "is not before delivery.max_age, so no notice is ever sent",
			"lower it, or set delivery.delay_notices to never")
	}
}

func (d *decoder) checkRoutes() {
	owner := make(map[string]int)
	for i, r := range d.cfg.Routes {
		key := fmt.Sprintf("routes[%d]", i)
		if len(r.Domains) == 0 {
			d.missing(key, "domains", "is empty", `list domains, such as ["example.com", "*.example.com"] or ["*"]`)
		}
		for j, pattern := range r.Domains {
			at := fmt.Sprintf("%s.domains[%d]", key, j)
			domain, wild := strings.CutPrefix(pattern, "*.")
			if pattern != "*" {
				ascii, err := smtp.DomainToASCII(domain)
				if err != nil || !hostPattern.MatchString(ascii) {
					d.wrong(at, strconv.Quote(pattern)+" is not a domain pattern",
						`write "example.com", "*.example.com" or "*"`)
					continue
				}
				pattern = ascii
				if wild {
					pattern = "*." + ascii
				}
			}
			if first, twice := owner[pattern]; twice {
				d.wrong(at, fmt.Sprintf("%q is also in routes[%d]", pattern, first), "keep it in one route")
				continue
			}
			owner[pattern] = i
			r.Domains[j] = pattern
		}
		if len(r.Hosts) == 0 {
			d.missing(key, "hosts", "is empty", `list hosts, such as ["relay.example.com:25"]`)
		}
		for j, h := range r.Hosts {
			if _, _, err := ParseHost(h, d.cfg.Delivery.Port); err != nil {
				d.wrong(fmt.Sprintf("%s.hosts[%d]", key, j), strconv.Quote(h)+" is not a host",
					`write "relay.example.com", "relay.example.com:587", "192.0.2.1:25" or "[2001:db8::1]:25"`)
			}
		}
		if r.Protocol == "lmtp" && d.cfg.Delivery.Port == 25 {
			for j, h := range r.Hosts {
				if _, port, err := ParseHost(h, 25); err == nil && port == 25 {
					d.wrong(fmt.Sprintf("%s.hosts[%d]", key, j), "port 25 does not speak LMTP (RFC 2033, 5)",
						"name the port of the LMTP server, such as "+strconv.Quote(strings.TrimSuffix(h, ":25")+":24"))
				}
			}
		}
	}
}
