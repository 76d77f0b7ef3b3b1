package dnstest

import (
	"crypto"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	wire "github.com/miekg/dns"
)

// Signed is a zone with DNSSEC, for a validating resolver of others: this package's server does not serve it.
type Signed struct {
	Text   string // the zone as master file, with DNSKEY, RRSIG and NSEC records
	Anchor string // the DS record of its key, as a resolver takes it for a trust anchor
}

// Sign signs the zone in text with a key made for it, ECDSA P-256 (RFC 6605). Origin is the zone's name; text needs its SOA
// and NS records, and delegates nothing. Signatures hold until the given time, and from an hour before it or now, whichever is
// earlier.
func Sign(origin, text string, until time.Time) (*Signed, error) {
	z, err := parseZones(text)
	if err != nil {
		return nil, err
	}
	origin = canonical(origin)
	key := &wire.DNSKEY{
		Hdr:   wire.RR_Header{Name: origin, Rrtype: wire.TypeDNSKEY, Class: wire.ClassINET, Ttl: defaultTTL},
		Flags: wire.ZONE | wire.SEP, Protocol: 3, Algorithm: wire.ECDSAP256SHA256,
	}
	private, err := key.Generate(256)
	if err != nil {
		return nil, fmt.Errorf("dnstest: making a key: %w", err)
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("dnstest: a key of the type %T cannot sign", private)
	}
	z.records[origin] = append(z.records[origin], key)

	names := slices.SortedFunc(maps.Keys(z.records), order)
	for i, name := range names {
		if !wire.IsSubDomain(origin, name) {
			return nil, fmt.Errorf("dnstest: %s is not in %s", name, origin)
		}
		nsec := &wire.NSEC{
			Hdr:        wire.RR_Header{Name: name, Rrtype: wire.TypeNSEC, Class: wire.ClassINET, Ttl: defaultTTL},
			NextDomain: names[(i+1)%len(names)], TypeBitMap: []uint16{wire.TypeRRSIG, wire.TypeNSEC},
		}
		for _, rr := range z.records[name] {
			if name != origin && rr.Header().Rrtype == wire.TypeNS {
				return nil, fmt.Errorf("dnstest: %s is delegated, which is not done here", name)
			}
			nsec.TypeBitMap = append(nsec.TypeBitMap, rr.Header().Rrtype)
		}
		slices.Sort(nsec.TypeBitMap)
		nsec.TypeBitMap = slices.Compact(nsec.TypeBitMap)
		z.records[name] = append(z.records[name], nsec)
	}

	var out strings.Builder
	begin := time.Now().Add(-time.Hour)
	if t := until.Add(-time.Hour); t.Before(begin) {
		begin = t
	}
	for _, name := range names {
		sets := make(map[uint16][]wire.RR)
		for _, rr := range z.records[name] {
			sets[rr.Header().Rrtype] = append(sets[rr.Header().Rrtype], rr)
			fmt.Fprintln(&out, rr)
		}
		for _, typ := range slices.Sorted(maps.Keys(sets)) {
			sig := &wire.RRSIG{
				Hdr:       wire.RR_Header{Ttl: sets[typ][0].Header().Ttl},
				Algorithm: key.Algorithm, SignerName: origin, KeyTag: key.KeyTag(),
				Inception: uint32(begin.Unix()), Expiration: uint32(until.Unix()),
			}
			if err := sig.Sign(signer, sets[typ]); err != nil {
				return nil, fmt.Errorf("dnstest: signing %s of %s: %w", wire.TypeToString[typ], name, err)
			}
			fmt.Fprintln(&out, sig)
		}
	}
	return &Signed{Text: out.String(), Anchor: key.ToDS(wire.SHA256).String()}, nil
}

// order compares names as DNSSEC does: label by label from the right (RFC 4034, 6.1).
func order(a, b string) int {
	la, lb := wire.SplitDomainName(a), wire.SplitDomainName(b)
	slices.Reverse(la)
	slices.Reverse(lb)
	return slices.Compare(la, lb)
}
