package dns

import (
	"fmt"
	"net/netip"

	wire "github.com/miekg/dns"
)

// Bounds on what is kept of one answer; the rest is as if it were not there.
const (
	maxHosts = 64
	maxAddrs = 16
	maxTexts = 64
	maxTLSA  = 64
)

// reply is what one message says to one question.
type reply struct {
	answer        // without expiry; its err has only kind and detail
	server string // who said it
	links  int    // aliases passed
	onward bool   // the aliases lead out of the message: name is to be asked for
	ttl    uint32 // least of the records used
	soa    *wire.SOA
}

// readReply takes from m the aliases that begin at the name asked for, and the records at their end. All other records
// are left alone, so that an answer says nothing about other names.
func readReply(m *wire.Msg, k key) (*reply, *failure) {
	if m.Rcode != wire.RcodeSuccess && m.Rcode != wire.RcodeNameError {
		code, ok := wire.RcodeToString[m.Rcode]
		if !ok {
			code = fmt.Sprintf("error %d", m.Rcode)
		}
		return nil, &failure{outcome: outcomeRcode, detail: "answered " + code}
	}
	rep := &reply{answer: answer{name: k.name, authentic: m.AuthenticatedData}, ttl: 1<<31 - 1}
	for rep.links <= maxAliases && k.typ != wire.TypeCNAME {
		target, ttl, ok := alias(m.Answer, rep.name)
		if !ok {
			break
		}
		if notHostName(target) != "" && (k.typ != wire.TypePTR || !isMacroName(target)) { // RFC 2317, 4, has such names
			return nil, &failure{outcome: outcomeMalformed, detail: "sent an alias to what is no host name"}
		}
		rep.name = target
		rep.links++
		rep.lowerTTL(ttl)
	}
	if rep.links > maxAliases {
		return rep, nil
	}

	found := 0
	for _, rr := range m.Answer {
		h := rr.Header()
		if h.Rrtype != k.typ && (k.typ != wire.TypeTLSA || h.Rrtype != shortTLSA) || h.Class != wire.ClassINET || !sameName(h.Name, rep.name) {
			continue
		}
		if !rep.take(rr) {
			return nil, &failure{outcome: outcomeMalformed, detail: "sent a malformed record"}
		}
		found++
		rep.lowerTTL(h.Ttl)
	}
	if found > 0 {
		if k.typ == wire.TypeMX {
			rep.finishMX()
		}
		return rep, nil
	}
	return rep.nothing(m)
}

// nothing tells the ways apart in which a message can hold no records (RFC 2308, 2).
func (rep *reply) nothing(m *wire.Msg) (*reply, *failure) {
	delegation := false
	for _, rr := range m.Ns {
		switch rr := rr.(type) {
		case *wire.SOA:
			rep.soa = rr
		case *wire.NS:
			delegation = true
		}
	}
	switch {
	case m.Rcode == wire.RcodeNameError:
		rep.err = &Error{Kind: NXDomain}
	case rep.soa == nil && rep.links > 0:
		rep.onward = true // the server did not follow the alias to its end
	case rep.soa == nil && delegation && !m.Authoritative:
		return nil, &failure{outcome: outcomeReferral, detail: "does not resolve for this machine"}
	default:
		rep.err = &Error{Kind: NoRecord}
	}
	return rep, nil
}

func alias(records []wire.RR, name string) (target string, ttl uint32, ok bool) {
	for _, rr := range records {
		if c, is := rr.(*wire.CNAME); is && c.Hdr.Class == wire.ClassINET && sameName(c.Hdr.Name, name) {
			return fromWire(c.Target), c.Hdr.Ttl, true
		}
	}
	return "", 0, false
}

func (rep *reply) lowerTTL(ttl uint32) {
	if ttl > 1<<31-1 { // RFC 2181, 8
		ttl = 0
	}
	rep.ttl = min(rep.ttl, ttl)
}

// take adds one record; false means that it is broken.
func (rep *reply) take(rr wire.RR) bool {
	switch rr := rr.(type) {
	case *wire.MX:
		if rr.Mx == "" {
			return false
		}
		rep.hosts = append(rep.hosts, Host{Name: fromWire(rr.Mx), Preference: rr.Preference})
	case *wire.A:
		ip, ok := netip.AddrFromSlice(rr.A)
		if !ok {
			return false
		}
		if len(rep.addrs) < maxAddrs {
			rep.addrs = append(rep.addrs, ip.Unmap())
		}
	case *wire.AAAA:
		ip, ok := netip.AddrFromSlice(rr.AAAA)
		if !ok || ip.Is4() {
			return false
		}
		if len(rep.addrs) < maxAddrs { // an IPv4-mapped one stays so, to be refused
			rep.addrs = append(rep.addrs, ip)
		}
	case *wire.PTR:
		if len(rep.texts) < maxTexts {
			rep.texts = append(rep.texts, fromWire(rr.Ptr))
		}
	case *wire.TXT:
		if len(rep.texts) < maxTexts {
			rep.texts = append(rep.texts, plainText(rr.Txt))
		}
	case *wire.CNAME:
		if rep.name = fromWire(rr.Target); notHostName(rep.name) != "" {
			return false
		}
	case *wire.TLSA:
		if len(rep.tlsa) < maxTLSA {
			rep.tlsa = append(rep.tlsa, readTLSA(rr))
		}
	case *wire.RFC3597: // see shieldTLSA
		if len(rep.tlsa) < maxTLSA {
			rep.tlsa = append(rep.tlsa, TLSARecord{Malformed: true})
		}
	default:
		return false
	}
	return true
}

// plainText joins the strings of a TXT record (RFC 7208, 3.3) and undoes the escapes that the library adds.
func plainText(parts []string) string {
	var out []byte
	for _, s := range parts {
		for i := 0; i < len(s); i++ {
			c := s[i]
			if c == '\\' && i+1 < len(s) {
				if n, ok := decimal(s[i+1:]); ok {
					c = n
					i += 3
				} else {
					i++
					c = s[i]
				}
			}
			out = append(out, c)
		}
	}
	return string(out)
}

// decimal reads three digits.
func decimal(s string) (byte, bool) {
	if len(s) < 3 {
		return 0, false
	}
	n := 0
	for _, c := range []byte(s[:3]) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return byte(n), n < 256
}
