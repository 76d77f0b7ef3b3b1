package dnstest

import (
	"fmt"
	"strings"

	wire "github.com/miekg/dns"
)

const (
	defaultTTL = 60
	maxChain   = 16 // aliases followed in one answer; a circle goes round so often
)

// zones is all the records there are, by owner in lower case with final dot.
type zones struct {
	records map[string][]wire.RR
	inner   map[string]bool // names that exist only because something is below them
}

func parseZones(text string) (*zones, error) {
	z := &zones{records: make(map[string][]wire.RR), inner: make(map[string]bool)}
	parser := wire.NewZoneParser(strings.NewReader(trimLines(text)), ".", "zones")
	parser.SetDefaultTTL(defaultTTL)
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		owner := canonical(rr.Header().Name)
		z.records[owner] = append(z.records[owner], rr)
		for up := parent(owner); up != "."; up = parent(up) {
			z.inner[up] = true
		}
	}
	if err := parser.Err(); err != nil {
		return nil, fmt.Errorf("dnstest: reading zones: %w", err)
	}
	return z, nil
}

// trimLines takes indentation away, which a Go literal has and a master file reads as "the same owner as before".
func trimLines(text string) string {
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimLeft(l, " \t")
	}
	return strings.Join(lines, "\n")
}

// canonical returns a name in lower case with final dot.
func canonical(name string) string { return strings.ToLower(wire.Fqdn(name)) }

// parent returns the name without its first label; the root has itself.
func parent(name string) string {
	if i, end := wire.NextLabel(name, 0); !end {
		return name[i:]
	}
	return "."
}

// at returns the records of name, those of a wildcard under the given name if need be (RFC 4592), and whether the name
// exists.
func (z *zones) at(name string) ([]wire.RR, bool) {
	if rrs, ok := z.records[name]; ok {
		return rrs, true
	}
	if z.inner[name] {
		return nil, true
	}
	for up := parent(name); ; up = parent(up) {
		wildcard := "*." + up
		if up == "." {
			wildcard = "*."
		}
		if rrs, ok := z.records[wildcard]; ok {
			own := make([]wire.RR, len(rrs))
			for i, rr := range rrs {
				own[i] = wire.Copy(rr)
				own[i].Header().Name = name
			}
			return own, true
		}
		if _, ok := z.records[up]; ok || z.inner[up] || up == "." {
			return nil, false // the closest name that exists has no wildcard
		}
	}
}

// soa returns the SOA record above name, or one made up for the root.
func (z *zones) soa(name string) wire.RR {
	for ; ; name = parent(name) {
		for _, rr := range z.records[name] {
			if rr.Header().Rrtype == wire.TypeSOA {
				return rr
			}
		}
		if name == "." {
			return &wire.SOA{
				Hdr: wire.RR_Header{Name: ".", Rrtype: wire.TypeSOA, Class: wire.ClassINET, Ttl: defaultTTL},
				Ns:  "ns.invalid.", Mbox: "hostmaster.invalid.",
				Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: defaultTTL,
			}
		}
	}
}

// resolve fills m with what a recursive resolver says to its question.
func (z *zones) resolve(m *wire.Msg) {
	q := m.Question[0]
	name := q.Name // as asked, so that the first owner keeps its case
	for range maxChain {
		rrs, exists := z.at(canonical(name))
		if !exists {
			m.Rcode = wire.RcodeNameError
			break
		}
		var alias *wire.CNAME
		found := false
		for _, rr := range rrs {
			if c, ok := rr.(*wire.CNAME); ok {
				alias = c
			}
			if rr.Header().Rrtype == q.Qtype {
				m.Answer = append(m.Answer, named(rr, name))
				found = true
			}
		}
		if found {
			return
		}
		if alias == nil {
			break
		}
		m.Answer = append(m.Answer, named(alias, name))
		name = alias.Target
	}
	m.Ns = append(m.Ns, z.soa(canonical(name)))
}

func named(rr wire.RR, name string) wire.RR {
	rr = wire.Copy(rr)
	rr.Header().Name = name
	return rr
}
