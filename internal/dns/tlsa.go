package dns

import (
	"context"
	"encoding/binary"
	"encoding/hex"

	wire "github.com/miekg/dns"
)

// TLSA is the TLSA records of a name.
type TLSA struct {
	Records   []TLSARecord // Shared: not to be changed
	Authentic bool         // validated with DNSSEC by a trusted resolver, each alias on the way too
}

// TLSARecord is one TLSA record (RFC 6698, 2.1).
type TLSARecord struct {
	Usage, Selector, Matching uint8
	Data                      []byte
	Malformed                 bool // the record is too short for its fixed fields, which are 0 then
}

// LookupTLSA finds the TLSA records of name, such as "_25._tcp.mx.example.com", at most 64. The error is an [*Error] of
// the kind NXDomain, NoRecord, Malformed, Loop or Temporary. Temporary covers what a validating resolver found to be
// forged (it answers SERVFAIL), which must not be taken for "there is none" (RFC 7672, 2.1.2).
func (r *Resolver) LookupTLSA(ctx context.Context, name string) (TLSA, error) {
	a, name, bad := r.lookupName(ctx, name, wire.TypeTLSA)
	switch {
	case bad != nil:
		return TLSA{}, bad
	case a == nil:
		return TLSA{}, interrupted(ctx, name, "TLSA")
	case a.err != nil:
		return TLSA{Authentic: a.authentic}, a.err
	}
	return TLSA{Records: a.tlsa, Authentic: a.authentic}, nil
}

// CNAME is the alias at a name, one step of it.
type CNAME struct {
	Target    string // lower case, A-labels, no final dot
	Authentic bool   // the record itself was validated with DNSSEC by a trusted resolver, whatever it leads to
}

// LookupCNAME finds the alias at name without following it. It tells whether that one record is authentic, where the
// other lookups tell of the whole way (RFC 7672, 2.2.2). The error is an [*Error] of the kind NXDomain, NoRecord,
// Malformed, Loop or Temporary.
func (r *Resolver) LookupCNAME(ctx context.Context, name string) (CNAME, error) {
	a, name, bad := r.lookupName(ctx, name, wire.TypeCNAME)
	switch {
	case bad != nil:
		return CNAME{}, bad
	case a == nil:
		return CNAME{}, interrupted(ctx, name, "CNAME")
	case a.err != nil:
		return CNAME{Authentic: a.authentic}, a.err
	}
	return CNAME{Target: a.name, Authentic: a.authentic}, nil
}

// shortTLSA is the type under which records go that are shorter than the fixed fields of a TLSA record. The library
// cannot read those and would refuse the whole message, where only the record is of no use. The number is of the range
// for private use (RFC 6895, 3.1).
const shortTLSA = 65399

// shieldTLSA renames short TLSA records in the answers of packet p, in place.
func shieldTLSA(p []byte) {
	if len(p) < 12 {
		return
	}
	off := 12
	for range binary.BigEndian.Uint16(p[4:]) {
		if off = skipName(p, off) + 4; off > len(p) {
			return
		}
	}
	for range binary.BigEndian.Uint16(p[6:]) {
		off = skipName(p, off)
		if off+10 > len(p) {
			return
		}
		size := int(binary.BigEndian.Uint16(p[off+8:]))
		if binary.BigEndian.Uint16(p[off:]) == wire.TypeTLSA && size < 3 {
			binary.BigEndian.PutUint16(p[off:], shortTLSA)
		}
		off += 10 + size
	}
}

// skipName returns where the name at off ends; beyond p if it does not.
func skipName(p []byte, off int) int {
	for off < len(p) {
		switch n := int(p[off]); {
		case n == 0:
			return off + 1
		case n >= 0xc0: // a pointer ends it
			return off + 2
		default:
			off += 1 + n
		}
	}
	return len(p) + 1
}

func readTLSA(rr *wire.TLSA) TLSARecord {
	data, err := hex.DecodeString(rr.Certificate)
	if err != nil || rr.Hdr.Rdlength < 3 {
		return TLSARecord{Malformed: true}
	}
	return TLSARecord{Usage: rr.Usage, Selector: rr.Selector, Matching: rr.MatchingType, Data: data}
}
