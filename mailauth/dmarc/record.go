package dmarc

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Policy is what a domain asks receivers to do with mail that fails.
type Policy string

// The policies (RFC 9989, 4.7).
const (
	PolicyNone       Policy = "none"
	PolicyQuarantine Policy = "quarantine"
	PolicyReject     Policy = "reject"
)

// relaxed returns the next lower policy, which a domain that tests asks for (RFC 9989, 4.7, t=).
func (p Policy) relaxed() Policy {
	if p == PolicyReject {
		return PolicyQuarantine
	}
	return PolicyNone
}

// PSD says whether a record's domain is a public suffix (RFC 9989, 4.7, psd=).
type PSD byte

// The values of psd=.
const (
	PSDUnknown PSD = 'u'
	PSDYes     PSD = 'y'
	PSDNo      PSD = 'n'
)

// MaxRecord is the octets of a record that are read; longer ones are no records.
const MaxRecord = 4 << 10

// maxURIs bounds the addresses for reports of one kind.
const maxURIs = 10

// Record is a policy record (RFC 9989, 4.7).
type Record struct {
	Policy      Policy // p=
	Subdomains  Policy // sp=, of domains below; Policy if the record does not say
	NonExistent Policy // np=, of domains below that do not exist; Subdomains if the record does not say
	StrictDKIM  bool   // adkim=s
	StrictSPF   bool   // aspf=s
	PSD         PSD    // psd=
	Testing     bool   // t=y: nobody should do more than one step less
	Aggregate   []URI  // rua=
	Failure     []URI  // ruf=
	Options     string // fo=
	// Silent says that it has no policy that can be read and no address for reports: then DMARC does not apply, and the record
	// tells no more than that it is there (RFC 9989, 4.10.1).
	Silent bool
}

// URI is where reports go.
type URI struct {
	Text string // "mailto:..." or another scheme, as it stands without the size
	Max  int64  // octets of a report, from "!10m"; 0: any
}

// errNoRecord says that a TXT record is none of DMARC.
var errNoRecord = errors.New("dmarc: not a DMARC record")

// ParseRecord reads a TXT record. Tags that are not known are passed over, and so are values of known tags that are not (RFC 9989,
// 4.8); a record without a policy that names an address for reports asks for none.
func ParseRecord(txt string) (*Record, error) {
	if len(txt) > MaxRecord {
		return nil, fmt.Errorf("%w: longer than %d octets", errNoRecord, MaxRecord)
	}
	if !isRecord(txt) {
		return nil, errNoRecord
	}
	_, rest, _ := strings.Cut(txt, ";")
	r := &Record{PSD: PSDUnknown, Options: "0"}
	seen := make(map[string]bool)
	odd := false // a policy cannot be read
	for part := range strings.SplitSeq(rest, ";") {
		name, value, ok := cutTag(part)
		if !ok || seen[name] {
			if ok {
				return nil, fmt.Errorf("%w: %s= stands there twice", errNoRecord, name)
			}
			continue
		}
		seen[name] = true
		r.set(name, value)
		switch name {
		case "p", "sp", "np":
			odd = odd || policyOf(strings.ToLower(value)) == ""
		}
	}
	if odd || r.Policy == "" {
		r.Policy, r.Subdomains, r.NonExistent = PolicyNone, "", ""
		r.Silent = len(r.Aggregate) == 0
	}
	if r.Subdomains == "" {
		r.Subdomains = r.Policy
	}
	if r.NonExistent == "" {
		r.NonExistent = r.Subdomains
	}
	return r, nil
}

// isRecord reports a text that begins as records do (RFC 9989, 4.10).
func isRecord(txt string) bool {
	first, _, _ := strings.Cut(txt, ";")
	name, value, ok := cutTag(first)
	return ok && name == "v" && value == "DMARC1" // in this case exactly, and first
}

func cutTag(s string) (name, value string, ok bool) {
	name, value, ok = strings.Cut(s, "=")
	return strings.ToLower(strings.Trim(name, " \t")), strings.Trim(value, " \t"), ok
}

func (r *Record) set(name, value string) {
	word := strings.ToLower(value)
	switch name {
	case "p":
		r.Policy = policyOf(word)
	case "sp":
		r.Subdomains = policyOf(word)
	case "np":
		r.NonExistent = policyOf(word)
	case "adkim":
		r.StrictDKIM = word == "s"
	case "aspf":
		r.StrictSPF = word == "s"
	case "t":
		r.Testing = word == "y"
	case "psd":
		if word == "y" || word == "n" {
			r.PSD = PSD(word[0])
		}
	case "rua":
		r.Aggregate = uris(value)
	case "ruf":
		r.Failure = uris(value)
	case "fo":
		r.Options = word
	}
}

func policyOf(word string) Policy {
	switch p := Policy(word); p {
	case PolicyNone, PolicyQuarantine, PolicyReject:
		return p
	}
	return ""
}

// uris reads a list of addresses; those that cannot be read, or could break out of where they are written, are left out.
func uris(list string) []URI {
	var out []URI
	for s := range strings.SplitSeq(list, ",") {
		u := URI{Text: strings.Trim(s, " \t")}
		if i := strings.LastIndexByte(u.Text, '!'); i >= 0 {
			n, ok := size(u.Text[i+1:])
			if !ok {
				continue
			}
			u.Text, u.Max = u.Text[:i], n
		}
		scheme, rest, ok := strings.Cut(u.Text, ":")
		odd := func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '<' || r == '>' || r == '"' }
		if !ok || scheme == "" || rest == "" || strings.ContainsFunc(u.Text, odd) {
			continue
		}
		if out = append(out, u); len(out) == maxURIs {
			break
		}
	}
	return out
}

func size(s string) (int64, bool) {
	unit := int64(1)
	if s != "" {
		if i := strings.IndexByte("kmgt", s[len(s)-1]|0x20); i >= 0 {
			unit, s = 1<<(10*(i+1)), s[:len(s)-1]
		}
	}
	n, err := strconv.ParseUint(s, 10, 32)
	return int64(n) * unit, err == nil
}
