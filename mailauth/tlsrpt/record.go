package tlsrpt

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/godwit-mta/godwit/message"
)

// ErrNoRecord says that a domain wants no reports: it has no record, or several (RFC 8460, 3).
var ErrNoRecord = errors.New("tlsrpt: no record")

// MaxDestinations is how many destinations of one record are used.
const MaxDestinations = 10

// Record is what a domain publishes at [RecordName].
type Record struct {
	Destinations []Destination // at least one
}

// Destination is one place that reports go to: an address, or a URL.
type Destination struct {
	Address string // of "mailto:", local@domain
	URL     string // of "https:"
}

// String returns the destination as it stands in a record.
func (d Destination) String() string {
	if d.Address != "" {
		return "mailto:" + d.Address
	}
	return d.URL
}

// RecordName returns the name at which the record of a domain is published.
func RecordName(domain string) string { return "_smtp._tls." + domain }

const version = "v=TLSRPTv1"

// ParseRecord reads the TXT records at [RecordName], the strings of each put together. Those that do not begin with the version are
// passed over; several that do are none. Destinations that cannot be used, and fields that are not known, are passed over too. The
// error is ErrNoRecord, or says what is wrong with the one record there is.
func ParseRecord(txts []string) (*Record, error) {
	found := ""
	for _, txt := range txts {
		rest, ok := strings.CutPrefix(txt, version)
		if !ok || rest != "" && !strings.ContainsAny(rest[:1], "; \t") {
			continue
		}
		if found != "" {
			return nil, fmt.Errorf("%w: there are several", ErrNoRecord)
		}
		found = txt
	}
	if found == "" {
		return nil, ErrNoRecord
	}
	rec := new(Record)
	fields := strings.Split(found, ";")
	if strings.TrimRight(fields[0], " \t") != version {
		return nil, fmt.Errorf("tlsrpt: %q stands behind the version", cutText(fields[0][len(version):]))
	}
	for i, field := range fields[1:] {
		field = strings.Trim(field, " \t")
		name, value, ok := strings.Cut(field, "=")
		if field == "" && i == len(fields)-2 {
			break // the last semicolon may stand there (RFC 8460, 3)
		}
		if name = strings.TrimRight(name, " \t"); !ok || !fieldName(name) {
			return nil, fmt.Errorf("tlsrpt: %q is no field", cutText(field))
		}
		if name == "rua" {
			rec.add(value)
		}
	}
	if len(rec.Destinations) == 0 {
		return nil, errors.New("tlsrpt: the record has no rua that can be used")
	}
	return rec, nil
}

// fieldName reports whether s is an ALPHA / DIGIT followed by up to 31 of these and "_", "-", "." (RFC 8460, 3).
func fieldName(s string) bool {
	for i, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case i > 0 && (c == '_' || c == '-' || c == '.'):
		default:
			return false
		}
	}
	return s != "" && len(s) <= 32
}

func (r *Record) add(list string) {
	for uri := range strings.SplitSeq(list, ",") {
		if len(r.Destinations) == MaxDestinations {
			return
		}
		if d, ok := destination(strings.Trim(uri, " \t")); ok {
			r.Destinations = append(r.Destinations, d)
		}
	}
}

const maxURI = 1000

// ParseDestination reads what [Destination.String] gives; of anything else it makes the zero Destination.
func ParseDestination(s string) Destination {
	d, _ := destination(s)
	return d
}

// destination reads one URI. What it may be is narrow, since it says where this server sends something: an https URL without
// a login, or one plain address.
func destination(s string) (Destination, bool) {
	if len(s) > maxURI {
		return Destination{}, false
	}
	u, err := url.Parse(s)
	if err != nil {
		return Destination{}, false
	}
	switch strings.ToLower(u.Scheme) {
	case "mailto":
		// What stands behind "?" would set fields of the message, which are ours to set (RFC 6068, 2).
		addr, err := url.PathUnescape(u.Opaque)
		if err != nil {
			return Destination{}, false
		}
		list, err := message.ParseAddresses(addr)
		if err != nil || len(list) != 1 || list[0].Name != "" || list[0].Domain == "" || list[0].Mailbox() != addr {
			return Destination{}, false
		}
		return Destination{Address: addr}, true
	case "https":
		if u.Hostname() == "" || u.User != nil {
			return Destination{}, false
		}
		u.Fragment = ""
		return Destination{URL: u.String()}, true
	}
	return Destination{}, false
}
