package spool

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

// EntryID names one entry: a recipient of a message by its place in the envelope, from 0.
type EntryID struct {
	Message message.ID
	Index   int
}

// String returns the text form: message id, dot, index.
func (e EntryID) String() string { return e.Message.String() + "." + strconv.Itoa(e.Index) }

// Compare returns -1, 0 or 1 by message id, then index.
func (e EntryID) Compare(o EntryID) int {
	if c := e.Message.Compare(o.Message); c != 0 {
		return c
	}
	return e.Index - o.Index
}

// MarshalText implements [encoding.TextMarshaler].
func (e EntryID) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (e *EntryID) UnmarshalText(p []byte) (err error) {
	*e, err = ParseEntryID(string(p))
	return err
}

// ErrEntryID is what [ParseEntryID] returns for anything but the text of an EntryID.
var ErrEntryID = errors.New("spool: not an entry id")

// ParseEntryID reads the text form. It takes exactly what [EntryID.String] gives.
func ParseEntryID(s string) (EntryID, error) {
	id, index, ok := strings.Cut(s, ".")
	if !ok {
		return EntryID{}, ErrEntryID
	}
	m, err := message.ParseID(id)
	if err != nil {
		return EntryID{}, ErrEntryID
	}
	n, err := strconv.ParseUint(index, 10, 31)
	if err != nil || strconv.FormatUint(n, 10) != index {
		return EntryID{}, ErrEntryID
	}
	return EntryID{Message: m, Index: int(n)}, nil
}

// QueueKey names a queue: entries of one tenant for one destination.
type QueueKey struct {
	Tenant string
	Domain string // lower-case A-label, or an address literal in brackets
}

// String returns "tenant/domain".
func (k QueueKey) String() string { return k.Tenant + "/" + k.Domain }

// Compare returns -1, 0 or 1 by tenant, then domain.
func (k QueueKey) Compare(o QueueKey) int {
	if c := strings.Compare(k.Tenant, o.Tenant); c != 0 {
		return c
	}
	return strings.Compare(k.Domain, o.Domain)
}

// ProtocolTLSReport is the Protocol of the TLS reports that this server sends (RFC 8460). What came of their sessions is not reported.
const ProtocolTLSReport = "tls-report"

// Message is what was accepted, without its bytes. It is immutable from Accept on and may be read by any number of
// goroutines.
type Message struct {
	ID       message.ID
	Tenant   string    // owner
	Stream   string    // lane of the tenant
	Received time.Time // when it was accepted
	Expires  time.Time // when delivery is given up; zero: never
	// DelayNotice is when the sender is to be told of a delay, once per entry that waits then; zero: never. It counts
	// for recipients whose NOTIFY asks for it or is absent (RFC 3461, 4.1).
	DelayNotice time.Time

	// Where it came from.
	Session  string // id of the session
	Listener string
	Client   string // address of the client
	Hello    string // what the client called itself
	Protocol string // ESMTP, SMTP, HTTP, ...

	From       smtp.Sender
	Size       int64 // octets of the body, as it leaves
	EightBit   bool  // some octet is above 127
	DotLine    bool  // some line begins with a dot
	HeaderUTF8 bool  // the header section has octets above 127: needs SMTPUTF8 (RFC 6531, 3.2)
	// TLSOptional: the header says "TLS-Required: No", so what receivers publish about TLS is no ground to wait (RFC 8689, 3).
	TLSOptional bool
	Recipients  []smtp.Recipient
	Queues      []QueueKey // parallel to Recipients
	Report      bool       // a delivery status notification of ours

	// For people and events; bounded by whoever fills them.
	HeaderFrom string
	Subject    string
	MessageID  string
	Auth       string // what was found of who mail from outside is from; in the record of acceptance
}

// State is where an entry stands.
type State uint8

const (
	_       State = iota
	Waiting       // due at Entry.Due
	Claimed       // somebody delivers it now
	Held          // stopped until released
	Final         // nothing will happen to it
)

var stateNames = [...]string{Waiting: "waiting", Claimed: "claimed", Held: "held", Final: "final"}

// States returns all states in order.
func States() []State { return []State{Waiting, Claimed, Held, Final} }

// String returns the stable name, empty for the zero value.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return ""
}

// MarshalText implements [encoding.TextMarshaler].
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Outcome is what one attempt, or a decision, did to one entry. Numbers are stable: records hold them.
type Outcome uint8

const (
	None       Outcome = iota // nothing: the entry goes back untried
	Delivered                 // the remote took responsibility; final
	Deferred                  // failed for now
	Bounced                   // failed for good; final
	Expired                   // too old; final
	Suppressed                // must not be mailed; final
	Cancelled                 // taken out without a report; final
)

var outcomeNames = [...]string{
	None: "none", Delivered: "delivered", Deferred: "deferred", Bounced: "bounced", Expired: "expired",
	Suppressed: "suppressed", Cancelled: "cancelled",
}

// Outcomes returns all outcomes but None, in order.
func Outcomes() []Outcome {
	return []Outcome{Delivered, Deferred, Bounced, Expired, Suppressed, Cancelled}
}

// String returns the stable name.
func (o Outcome) String() string {
	if int(o) < len(outcomeNames) {
		return outcomeNames[o]
	}
	return ""
}

// Final reports whether nothing happens to the entry afterwards.
func (o Outcome) Final() bool { return o == Delivered || o >= Bounced && int(o) < len(outcomeNames) }

// MarshalText implements [encoding.TextMarshaler].
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// Result is what one attempt did to one entry. The last one is kept with the entry. Texts are bounded by whoever
// fills them; the spool cuts what is longer than 1,000 octets.
type Result struct {
	Outcome     Outcome
	Reason      event.Reason
	Class       event.Class    // what a failure meant
	Reply       smtp.Reply     // of the remote; zero if none was received
	Phase       string         // phase of the session that decided
	Host        string         // name of the MX host
	Addr        netip.AddrPort // its address
	Site        string
	Source      string // what it left from
	TLS         string // how the session was encrypted; empty: not
	RemoteDSN   bool   // the remote took over the DSN parameters: reports of success are its business (RFC 3461, 5.2.1)
	Explanation string // for people

	NextDue time.Time // Deferred: when the entry is due again; zero: at once
}

// Entry is one recipient of one message with its schedule. What Claim and Fresh hand out is the spool's own: the
// claimant may read it until it settles or returns it, and nobody changes it meanwhile. Everything else hands out
// copies.
type Entry struct {
	Message *Message
	Index   int
	State   State
	// Due, to the microsecond. Waiting: when it is due. Claimed: when it would be due if the claimant vanished.
	Due time.Time

	Attempts    int       // finished attempts
	LastAttempt time.Time // when the last one ended
	Last        Result    // what it did

	HoldReason    string // Held: why
	DelayReported bool   // the sender was told of the delay
	Interrupted   int    // how often in a row the process died while the entry was claimed
	Wish          Wish   // Claimed: what happens when the attempt ends without a final outcome
}

// ID returns the entry's name.
func (e *Entry) ID() EntryID { return EntryID{Message: e.Message.ID, Index: e.Index} }

// Recipient returns the recipient with its parameters.
func (e *Entry) Recipient() *smtp.Recipient { return &e.Message.Recipients[e.Index] }

// Queue returns the queue of the entry.
func (e *Entry) Queue() QueueKey { return e.Message.Queues[e.Index] }

// Wish is what an operator asked for while an entry was in flight.
type Wish uint8

const (
	NoWish     Wish = iota
	WishHold        // hold it
	WishFinish      // make it final
)

// Attempt is one try of entries of one message over one path, with what it did to each.
type Attempt struct {
	Message *Message
	Entries []*Entry // claimed
	Results []Result // parallel to Entries

	// Started and Ended. A zero Started says that no attempt was made: the results stand (moved on to NextDue, expired,
	// bounced), but the entries' numbers of attempts do not grow and nothing is told as attempted.
	Started, Ended time.Time
	Timings        Timings
	Bytes          int64  // octets of message data sent
	Reused         bool   // a kept connection carried it
	Connection     string // id of the outgoing session, for logs; may be empty
}

// Timings says how long each phase of an attempt took; zero for a phase that did not take place.
type Timings struct {
	DNS, Connect, Greeting, Mail, Data, Final time.Duration
}

// Sink is told of what can be delivered; the queue is one. Both methods are called without locks held, must not
// block, and may be called from many goroutines.
type Sink interface {
	// Fresh hands over a message that was just accepted, claimed for its first attempt. Every entry must be settled or
	// returned.
	Fresh(m *Message, entries []*Entry)
	// Due says that a queue's earliest due time became at, which is earlier than before.
	Due(key QueueKey, at time.Time)
}

// QueueStat describes one queue.
type QueueStat struct {
	Key     QueueKey
	Waiting int
	Claimed int
	Held    int
	// NextDue is no later than the due time of the first Waiting entry; zero if none waits. It is exact except for
	// entries that were claimed and came back, until the next Claim.
	NextDue time.Time
	// Oldest is when the oldest entry was received, or some time before: up to a minute for young entries, up to a
	// quarter of their age for old ones in queues with many ages.
	Oldest time.Time
}

// Total returns how many entries the queue has.
func (q QueueStat) Total() int { return q.Waiting + q.Claimed + q.Held }

// Filter selects entries. Fields that are set must all match; the zero value selects everything that is not final.
type Filter struct {
	Entries  []EntryID
	Messages []message.ID
	Queue    QueueKey // zero: any
	Tenant   string
	Stream   string
	Domain   string     // of the queue, any tenant
	Sender   *smtp.Path // reverse-path, domains compared without case
	States   []State    // empty: Waiting, Claimed and Held
}

// Report is a message whose sender is to be told of entries.
type Report struct {
	Message *Message
	Entries []*Entry // final ones that were not reported, copies
}

// What callers branch on.
var (
	ErrNotFound = errors.New("spool: no such message")
	ErrExists   = errors.New("spool: the message is there already")
	ErrClosed   = errors.New("spool: closed")
	// ErrStale: the entries are no longer in the state that the call needs.
	ErrStale = errors.New("spool: the entries have changed")
	// ErrFailed: the journal or the index failed. Nothing is settled any more; only a restart helps.
	ErrFailed = errors.New("spool: failed")
	// ErrUncertain: the journal failed while it had the message, which is there after a restart or is not. It is an ErrFailed.
	ErrUncertain = fmt.Errorf("%w: whether the message was kept is not known", ErrFailed)
	// ErrVersion: a record was written by a version of Godwit that this one does not understand.
	ErrVersion = errors.New("spool: a record of a newer version")
)
