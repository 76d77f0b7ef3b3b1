package dns

import "fmt"

// Kind says why a lookup gave nothing. The set is closed.
type Kind uint8

const (
	Temporary    Kind = iota + 1 // no answer, or SERVFAIL, REFUSED, nonsense: says nothing about the name; 4.4.3
	Loop                         // aliases lead in a circle or too far; somebody's mistake, so temporary; 4.4.3
	NXDomain                     // the name does not exist; 5.1.2
	NoRecord                     // the name exists and has no record of the type
	NoAddress                    // the name exists, but neither it nor an MX record leads to an address; 5.1.2
	NullMX                       // the domain says that it takes no mail (RFC 7505); 556 5.1.10
	NoUsableHost                 // MX records exist and each names something that is no host on the internet; 5.4.4
	Malformed                    // what was asked for is no domain name; 5.1.2
)

var kindNames = [...]string{
	Temporary: "temporary", Loop: "loop", NXDomain: "nxdomain", NoRecord: "no_record", NoAddress: "no_address",
	NullMX: "null_mx", NoUsableHost: "no_usable_host", Malformed: "malformed",
}

// String returns the stable snake-case name.
func (k Kind) String() string {
	if int(k) < len(kindNames) && k > 0 {
		return kindNames[k]
	}
	return "unknown"
}

// Kinds lists all kinds.
func Kinds() []Kind {
	return []Kind{Temporary, Loop, NXDomain, NoRecord, NoAddress, NullMX, NoUsableHost, Malformed}
}

// Error is what every lookup returns when it fails. Several callers may get the same Error: it is not to be changed.
type Error struct {
	Kind   Kind
	Name   string // what was asked for, lower case, without final dot
	Type   string // "MX", "A", "AAAA", "TXT"; "address" for A and AAAA together
	Server string // the server that said so, without the usual port; empty if none did
	Detail string // what happened, as a part of a sentence: "answered SERVFAIL"

	cause error // a context's error
}

// Error returns [Error.Explain] with the package in front.
func (e *Error) Error() string { return "dns: " + e.Explain() }

// Unwrap returns the context's error if the lookup ended because its context did.
func (e *Error) Unwrap() error { return e.cause }

// Temporary reports whether asking later can help. What is not temporary is the domain's own word.
func (e *Error) Temporary() bool { return e.Kind == Temporary || e.Kind == Loop }

// Explain returns one plain sentence for an operator, without a final period.
func (e *Error) Explain() string {
	switch e.Kind {
	case NXDomain:
		if e.Detail != "" {
			return fmt.Sprintf("%s is %s, which does not exist", e.Name, e.Detail)
		}
		return fmt.Sprintf("the domain name %s does not exist", e.Name)
	case NoRecord:
		return fmt.Sprintf("%s has no %s record", e.Name, e.Type)
	case NoAddress:
		if e.Type == "MX" {
			return fmt.Sprintf("%s has neither an MX record nor an address", e.Name)
		}
		return fmt.Sprintf("the host %s has no address", e.Name)
	case NullMX:
		return fmt.Sprintf("%s takes no mail: it publishes a null MX record", e.Name)
	case NoUsableHost:
		return fmt.Sprintf("no MX record of %s names a usable host: %s", e.Name, e.Detail)
	case Malformed:
		return fmt.Sprintf("%q is not a domain name: %s", e.Name, e.Detail)
	case Loop:
		return fmt.Sprintf("the aliases (CNAME) of %s lead nowhere: %s", e.Name, e.Detail)
	}
	if e.Server == "" {
		return fmt.Sprintf("the lookup of %s %s failed: %s", e.Type, e.Name, e.Detail)
	}
	return fmt.Sprintf("DNS server %s %s for %s %s", e.Server, e.Detail, e.Type, e.Name)
}
