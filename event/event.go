package event

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Event is one fact. A field that does not apply has its zero value and is left out of the JSON form, but for time, id
// and type, which every event has. Text fields may hold any bytes: invalid UTF-8 is written as U+FFFD.
type Event struct {
	Time time.Time `json:"time"` // when it happened; written in UTC to the millisecond
	ID   string    `json:"id"`   // identity; the same when told again
	Type Type      `json:"type"`

	// What it happened to.
	Message    string `json:"message,omitempty"`     // id of the message
	Entry      string `json:"entry,omitempty"`       // id of the entry: message id, dot, number of the recipient
	Recipient  string `json:"recipient,omitempty"`   // forward-path without brackets
	Sender     string `json:"sender,omitempty"`      // reverse-path without brackets; "<>" is the null path
	Tenant     string `json:"tenant,omitempty"`      // owner
	Stream     string `json:"stream,omitempty"`      // lane of the tenant
	Queue      string `json:"queue,omitempty"`       // destination domain
	MessageID  string `json:"message_id,omitempty"`  // Message-ID header field
	HeaderFrom string `json:"header_from,omitempty"` // address of the From header field

	// Where it came from.
	Session    string `json:"session,omitempty"`    // id of the SMTP session or HTTP request that brought it
	Listener   string `json:"listener,omitempty"`   // name of the listener
	Client     string `json:"client,omitempty"`     // address and port of the client
	Hello      string `json:"hello,omitempty"`      // what the client called itself
	Protocol   string `json:"protocol,omitempty"`   // ESMTP, ESMTPA, HTTP, ...
	Size       int64  `json:"size,omitempty"`       // octets of the message
	Recipients int    `json:"recipients,omitempty"` // how many the message has
	Auth       string `json:"auth,omitempty"`       // what was found of who mail from outside is from: "spf=pass dkim=pass(example.org) dmarc=pass"

	// What became of it.
	Attempt     int    `json:"attempt,omitempty"`     // number of this attempt for the entry, from 1
	Reason      Reason `json:"reason,omitzero"`       // why it happened
	Class       Class  `json:"class,omitzero"`        // what a failure meant
	Explanation string `json:"explanation,omitempty"` // the same for people
	Reply       Reply  `json:"reply,omitzero"`        // what the remote said, or for refused events what we said
	Phase       string `json:"phase,omitempty"`       // phase of the SMTP session that decided
	MX          string `json:"mx,omitempty"`          // name of the remote host
	Address     string `json:"address,omitempty"`     // its address and port
	Site        string `json:"site,omitempty"`        // the site it belongs to
	Source      string `json:"source,omitempty"`      // what it left from
	TLS         string `json:"tls,omitempty"`         // how the session was encrypted
	Reused      bool   `json:"reused,omitempty"`      // whether a kept connection carried it

	Timings     Timings   `json:"timings_ms,omitzero"`
	NextAttempt time.Time `json:"next_attempt,omitzero"` // when the entry is due again
}

// Reply is an SMTP reply within an event.
type Reply struct {
	Code     int    `json:"code"`
	Enhanced string `json:"enhanced,omitempty"` // RFC 3463 code, such as "5.1.1"
	Text     string `json:"text,omitempty"`     // words of the reply, lines separated by '\n'
}

// Timings says how long each phase of an attempt took. A phase that did not take place has zero.
type Timings struct {
	DNS      Millis `json:"dns,omitempty"`
	Connect  Millis `json:"connect,omitempty"`
	Greeting Millis `json:"greeting,omitempty"` // banner and EHLO
	Mail     Millis `json:"mail,omitempty"`     // MAIL and RCPT
	Data     Millis `json:"data,omitempty"`     // DATA or BDAT and the bytes
	Final    Millis `json:"final,omitempty"`    // from the last byte to the final reply
	Total    Millis `json:"total,omitempty"`
}

// Millis is a duration whose JSON form is a number of milliseconds with up to three decimals; what is finer is cut off.
type Millis time.Duration

// MarshalJSON implements [json.Marshaler].
func (m Millis) MarshalJSON() ([]byte, error) { return appendMillis(nil, m), nil }

// UnmarshalJSON implements [json.Unmarshaler].
func (m *Millis) UnmarshalJSON(p []byte) error {
	var ms float64
	if err := json.Unmarshal(p, &ms); err != nil {
		return fmt.Errorf("event: a duration in milliseconds: %w", err)
	}
	const limit = float64(1<<63-1) / float64(time.Millisecond)
	if ms >= limit || ms <= -limit {
		return fmt.Errorf("event: a duration of %v milliseconds is out of range", ms)
	}
	// Halfway rounding keeps what was written by MarshalJSON exactly.
	us := ms * 1000
	if us < 0 {
		us -= 0.5
	} else {
		us += 0.5
	}
	*m = Millis(time.Duration(us) * time.Microsecond)
	return nil
}

// TimeLayout is the form of times in events: RFC 3339 in UTC with milliseconds always present, so that text sorts like
// time.
const TimeLayout = "2006-01-02T15:04:05.000Z"

// ErrIncomplete is what [ParseLine] returns for JSON that is no event since time, id or type are missing.
var ErrIncomplete = errors.New("event: time, id or type is missing")

// MarshalJSON implements [json.Marshaler] by [Event.AppendJSON].
func (e *Event) MarshalJSON() ([]byte, error) { return e.AppendJSON(nil), nil }

// ParseLine reads one event from its JSON form, with or without a line end. Names it does not know are ignored; a value
// it does not know in a closed list is an error.
func ParseLine(line []byte) (*Event, error) {
	e := new(Event)
	if err := json.Unmarshal(line, e); err != nil {
		return nil, fmt.Errorf("event: %w", err)
	}
	if e.Time.IsZero() || e.ID == "" || e.Type == 0 {
		return nil, ErrIncomplete
	}
	return e, nil
}
