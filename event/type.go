package event

import "fmt"

// Type says what happened. The zero value is no type at all and is never written.
type Type uint8

const (
	_           Type = iota
	Accepted         // a message is on stable storage and the client was told so
	Attempted        // an attempt over a path ended; what it did to each entry follows as an event of its own
	Delivered        // the remote took responsibility for an entry; final
	Deferred         // an attempt failed for now; a next one is due
	Bounced          // an entry failed for good; final
	Expired          // an entry grew older than its maximum age; final
	Held             // an operator or a rule stopped an entry
	Released         // a held entry goes on
	Rescheduled      // the next attempt of an entry was moved
	Cancelled        // an operator took an entry out without a report; final
	Suppressed       // an entry was not sent since its recipient must not be mailed; final
	Refused          // a client's message, sender or recipient was not accepted
	Reported         // the sender was told, by a message of ours, what became of entries

	ReportReceived // a report of others, on TLS or DMARC, was taken in
)

var typeNames = [...]string{
	Accepted:    "accepted",
	Attempted:   "attempted",
	Delivered:   "delivered",
	Deferred:    "deferred",
	Bounced:     "bounced",
	Expired:     "expired",
	Held:        "held",
	Released:    "released",
	Rescheduled: "rescheduled",
	Cancelled:   "cancelled",
	Suppressed:  "suppressed",
	Refused:     "refused",
	Reported:    "reported",

	ReportReceived: "report_received",
}

var typeTexts = [...]string{
	Accepted:    "The message is on stable storage and the client was told so.",
	Attempted:   "An attempt to deliver ended.",
	Delivered:   "The remote server took responsibility for the recipient.",
	Deferred:    "An attempt failed for now and will be repeated.",
	Bounced:     "Delivery failed for good.",
	Expired:     "The message grew too old before it could be delivered.",
	Held:        "Delivery was stopped until it is released.",
	Released:    "Delivery goes on after a hold.",
	Rescheduled: "The next attempt was moved.",
	Cancelled:   "The recipient was taken out of the queue by an operator.",
	Suppressed:  "The recipient is on a list of those who must not be mailed.",
	Refused:     "A client's message or recipient was not accepted.",
	Reported:    "The sender was sent a report.",

	ReportReceived: "A report of others, on TLS or DMARC, was taken in.",
}

// Types returns all types in their order of declaration.
func Types() []Type {
	all := make([]Type, 0, len(typeNames)-1)
	for t := Accepted; int(t) < len(typeNames); t++ {
		all = append(all, t)
	}
	return all
}

// String returns the stable snake_case name, empty for the zero value.
func (t Type) String() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return ""
}

// Explain returns one sentence for people, empty for the zero value.
func (t Type) Explain() string {
	if int(t) < len(typeTexts) {
		return typeTexts[t]
	}
	return ""
}

// Final reports whether nothing happens to the entry afterwards. Each entry has exactly one final event.
func (t Type) Final() bool {
	switch t {
	case Delivered, Bounced, Expired, Cancelled, Suppressed:
		return true
	}
	return false
}

// ParseType returns the type with this name.
func ParseType(name string) (Type, error) {
	for t := Accepted; int(t) < len(typeNames); t++ {
		if typeNames[t] == name {
			return t, nil
		}
	}
	return 0, fmt.Errorf("event: no type %q", name)
}

// MarshalText implements [encoding.TextMarshaler].
func (t Type) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler]. Empty text gives the zero value.
func (t *Type) UnmarshalText(text []byte) (err error) {
	if len(text) == 0 {
		*t = 0
		return nil
	}
	*t, err = ParseType(string(text))
	return err
}
