package spool

import (
	"fmt"
	"time"
	"unsafe"

	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

// Kinds of records. Numbers are stable: journals hold them.
//
// A record says what an entry is afterwards, not what to add to it, so that replaying records over a newer state ends
// in the same state.
const (
	// KindAccepted brings a message with its body. All of its entries are claimed by whoever was handed it.
	KindAccepted journal.Kind = iota + 1
	// KindAttempted is one attempt and what it did to each of its entries.
	KindAttempted
	// KindClaimed: somebody is about to deliver the entries.
	KindClaimed
	// KindSettled: entries became final by a decision, not by an attempt.
	KindSettled
	// KindHeld, KindReleased, KindRescheduled: an operator or a rule stopped entries, let them go on, moved their due
	// time.
	KindHeld
	KindReleased
	KindRescheduled
	// KindReturned: claimed entries came back untried.
	KindReturned
	// KindWished: entries in flight will be held or made final when their attempt ends, or that was taken back.
	KindWished
	// KindReported: the sender was told of entries, or nobody is to be told.
	KindReported
	// KindInterrupted: the process died while entries were claimed.
	KindInterrupted
	// KindMoved is a message with its body and the whole state of its entries, copied forward so that its old extent
	// can go.
	KindMoved
	// KindCarried is the whole state of a message's entries, copied forward so that an extent with older records of
	// it can go.
	KindCarried
)

var kindNames = [...]string{
	KindAccepted: "accepted", KindAttempted: "attempted", KindClaimed: "claimed", KindSettled: "settled", KindHeld: "held",
	KindReleased: "released", KindRescheduled: "rescheduled", KindReturned: "returned", KindWished: "wished",
	KindReported: "reported", KindInterrupted: "interrupted", KindMoved: "moved", KindCarried: "carried",
}

// KindName returns the word for a kind, empty if there is none.
func KindName(k journal.Kind) string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return ""
}

const recordVersion = 1

// Record is one record of the journal, decoded. Which fields count depends on the kind.
type Record struct {
	Kind journal.Kind
	Time time.Time // when it was decided; attempted: when the attempt ended

	Message *Message // accepted, moved: the whole envelope; nil for all others
	Changes []Change // one for each entry it is about; none for accepted
	Try     Try      // attempted

	// Reported: the message that tells the sender, zero if none was made, and whether it tells of a delay, not of a
	// final outcome.
	Report message.ID
	Delay  bool

	partial      []Message // of Changes, reused by Decode
	whole        *Message  // for Message, reused by DecodeBorrowed
	partialCount int       // of Changes, while the record is being made
}

// Try is what the entries of an attempted record have in common.
type Try struct {
	Started    time.Time // zero: no attempt was made, the results were decided without one
	Ended      time.Time
	Timings    Timings
	Bytes      int64
	Reused     bool
	Connection string
}

// Change is what a record says of one entry. Records that tell people something (attempted, settled, held, released,
// rescheduled, interrupted) have Recipient and Queue, and the parts of Message that events need: ID, Tenant, Stream,
// Received, Session, From (its Path), Size, Report, HeaderFrom, MessageID. For all other kinds only Message.ID and
// Index name the entry.
type Change struct {
	Message   *Message // not whole: has no recipients
	Index     int
	Recipient smtp.Path
	Queue     QueueKey

	State         State     // attempted, moved, carried
	Due           time.Time // attempted (waiting), claimed, released, rescheduled, returned, interrupted, moved, carried
	Attempts      int       // attempted, settled, interrupted, moved, carried: finished attempts
	LastAttempt   time.Time // moved, carried
	Result        Result    // attempted, settled; moved, carried: of the last attempt
	HoldReason    string    // held, wished, moved, carried
	Interrupted   int       // interrupted, moved, carried
	DelayReported bool      // moved, carried
	Wish          Wish      // wished, moved, carried
	WishResult    Result    // wished, moved, carried: how the entry will end

	entry *entry // while a record is being made
}

// ID returns the entry's name.
func (c *Change) ID() EntryID { return EntryID{Message: c.Message.ID, Index: c.Index} }

// Which fields a change has. More bits, and their fields at the end, may come.
const (
	hasRecipient = 1 << iota
	hasState
	hasDue
	hasAttempts
	hasResult
	hasSameResult // as the change before
	hasHoldReason
	hasInterrupted
	hasWish
	hasLastAttempt
	hasDelayReported
)

const hasAll = hasState | hasDue | hasAttempts | hasResult | hasHoldReason | hasInterrupted | hasWish | hasLastAttempt |
	hasDelayReported

// kindFields says what each kind writes of a change.
var kindFields = [...]uint64{
	KindAccepted:    0,
	KindAttempted:   hasRecipient | hasState | hasDue | hasAttempts | hasResult,
	KindClaimed:     hasDue,
	KindSettled:     hasRecipient | hasAttempts | hasResult,
	KindHeld:        hasRecipient | hasHoldReason,
	KindReleased:    hasRecipient | hasDue,
	KindRescheduled: hasRecipient | hasDue,
	KindReturned:    hasDue,
	KindWished:      hasWish | hasHoldReason,
	KindReported:    0,
	KindInterrupted: hasRecipient | hasDue | hasAttempts | hasInterrupted,
	KindMoved:       hasAll,
	KindCarried:     hasAll,
}

// appendRecord writes r. Changes of one message stand together.
func appendRecord(b []byte, r *Record) []byte {
	b = append(b, recordVersion)
	b = appendTime(b, r.Time)
	switch r.Kind {
	case KindAccepted, KindMoved:
		b = appendMessage(b, r.Message)
	case KindAttempted:
		b = appendTry(b, &r.Try)
	case KindReported:
		start := len(b)
		b = append(b, r.Report[:]...)
		b = appendBool(b, r.Delay)
		b = endFrame(b, start)
	}
	if r.Kind == KindAccepted {
		return b
	}
	groups := 0
	for i := range r.Changes {
		if i == 0 || r.Changes[i].Message != r.Changes[i-1].Message {
			groups++
		}
	}
	b = appendUint(b, uint64(groups))
	fields, limit := kindFields[r.Kind], textLimit(len(r.Changes))
	for i := 0; i < len(r.Changes); {
		n := 1
		for i+n < len(r.Changes) && r.Changes[i+n].Message == r.Changes[i].Message {
			n++
		}
		start := len(b)
		b = appendOrigin(b, r.Changes[i].Message, fields&hasRecipient != 0)
		b = appendUint(b, uint64(n))
		for k := range n {
			var before *Result
			if k > 0 {
				before = &r.Changes[i+k-1].Result
			}
			b = appendChange(b, &r.Changes[i+k], fields, before, limit)
		}
		b = endFrame(b, start)
		i += n
	}
	return b
}

// textLimit is where texts of a change are cut in a record of n changes, so that the record stays well below what the
// journal takes. A change has up to 14 texts.
func textLimit(n int) int { return min(maxText, max(16, journal.MaxMeta/2/16/max(n, 1))) }

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

func appendTry(b []byte, t *Try) []byte {
	start := len(b)
	b = appendTime(b, t.Started)
	b = appendTime(b, t.Ended)
	for _, d := range [...]time.Duration{
		t.Timings.DNS, t.Timings.Connect, t.Timings.Greeting, t.Timings.Mail, t.Timings.Data, t.Timings.Final,
	} {
		b = appendInt(b, d.Microseconds())
	}
	b = appendInt(b, t.Bytes)
	b = appendBool(b, t.Reused)
	b = appendCut(b, t.Connection, maxText)
	return endFrame(b, start)
}

func (d *decoder) try() (t Try) {
	f := d.frame()
	t.Started, t.Ended = f.time(), f.time()
	for _, p := range [...]*time.Duration{
		&t.Timings.DNS, &t.Timings.Connect, &t.Timings.Greeting, &t.Timings.Mail, &t.Timings.Data, &t.Timings.Final,
	} {
		*p = time.Duration(f.int()) * time.Microsecond
	}
	t.Bytes, t.Reused, t.Connection = f.int(), f.octet()&1 != 0, f.string()
	d.leave(&f)
	return t
}

// appendOrigin names a message, with what events need of it if told.
func appendOrigin(b []byte, m *Message, told bool) []byte {
	start := len(b)
	b = append(b, m.ID[:]...)
	if told {
		b = appendString(b, m.Tenant)
		b = appendString(b, m.Stream)
		b = appendTime(b, m.Received)
		b = appendString(b, m.Session)
		b = appendString(b, m.From.Local)
		b = appendString(b, m.From.Domain)
		b = appendUint(b, uint64(m.Size))
		b = appendBool(b, m.Report)
		b = appendCut(b, m.HeaderFrom, maxText)
		b = appendCut(b, m.MessageID, maxText)
	}
	return endFrame(b, start)
}

func (d *decoder) origin(m *Message) {
	f := d.frame()
	m.ID = f.id()
	m.Tenant, m.Stream, m.Received, m.Session = f.string(), f.string(), f.time(), f.string()
	m.From.Local, m.From.Domain = f.string(), f.string()
	m.Size = int64(f.uint() &^ (1 << 63))
	m.Report = f.octet()&1 != 0
	m.HeaderFrom, m.MessageID = f.string(), f.string()
	d.leave(&f)
	if m.ID.IsZero() {
		d.fail()
	}
}

// appendChange writes those of c's fields that are asked for and are not zero.
func appendChange(b []byte, c *Change, fields uint64, before *Result, limit int) []byte {
	drop := func(bit uint64, zero bool) {
		if zero {
			fields &^= bit
		}
	}
	drop(hasState, c.State == 0)
	drop(hasDue, c.Due.IsZero())
	drop(hasAttempts, c.Attempts == 0)
	drop(hasHoldReason, c.HoldReason == "")
	drop(hasInterrupted, c.Interrupted == 0)
	drop(hasWish, c.Wish == NoWish)
	drop(hasLastAttempt, c.LastAttempt.IsZero())
	drop(hasDelayReported, !c.DelayReported)
	if fields&hasResult != 0 {
		if c.Result == (Result{}) {
			fields &^= hasResult
		} else if before != nil && *before == c.Result {
			fields = fields&^hasResult | hasSameResult
		}
	}
	start := len(b)
	b = appendUint(b, uint64(c.Index))
	b = appendUint(b, fields)
	if fields&hasRecipient != 0 {
		b = appendString(b, c.Recipient.Local)
		b = appendString(b, c.Recipient.Domain)
		// Most queues are named like the recipient's domain and belong to the message's tenant.
		if c.Queue.Domain == c.Recipient.Domain && c.Queue.Tenant == c.Message.Tenant {
			b = append(b, 0)
		} else {
			b = append(b, 1)
			b = appendString(b, c.Queue.Tenant)
			b = appendString(b, c.Queue.Domain)
		}
	}
	if fields&hasState != 0 {
		b = append(b, byte(c.State))
	}
	if fields&hasDue != 0 {
		b = appendTime(b, c.Due)
	}
	if fields&hasAttempts != 0 {
		b = appendUint(b, uint64(c.Attempts))
	}
	if fields&hasResult != 0 {
		b = appendResult(b, &c.Result, limit)
	}
	if fields&hasHoldReason != 0 {
		b = appendCut(b, c.HoldReason, limit)
	}
	if fields&hasInterrupted != 0 {
		b = appendUint(b, uint64(c.Interrupted))
	}
	if fields&hasWish != 0 {
		b = append(b, byte(c.Wish))
		if c.Wish == WishFinish {
			b = appendResult(b, &c.WishResult, limit)
		}
	}
	if fields&hasLastAttempt != 0 {
		b = appendTime(b, c.LastAttempt)
	}
	if fields&hasDelayReported != 0 {
		b = append(b, 1)
	}
	return endFrame(b, start)
}

func (d *decoder) change(c *Change, before *Result) {
	f := d.frame()
	c.Index = f.small(maxIndex)
	fields := f.uint()
	if fields&hasRecipient != 0 {
		c.Recipient.Local, c.Recipient.Domain = f.string(), f.string()
		if f.octet() == 0 {
			c.Queue = QueueKey{Tenant: c.Message.Tenant, Domain: c.Recipient.Domain}
		} else {
			c.Queue = QueueKey{Tenant: f.string(), Domain: f.string()}
		}
	}
	if fields&hasState != 0 {
		c.State = State(f.octet())
	}
	if fields&hasDue != 0 {
		c.Due = f.time()
	}
	if fields&hasAttempts != 0 {
		c.Attempts = f.small(maxIndex)
	}
	switch {
	case fields&hasResult != 0:
		c.Result = f.result()
	case fields&hasSameResult != 0 && before != nil:
		c.Result = *before
	}
	if fields&hasHoldReason != 0 {
		c.HoldReason = f.string()
	}
	if fields&hasInterrupted != 0 {
		c.Interrupted = f.small(maxIndex)
	}
	if fields&hasWish != 0 {
		c.Wish = Wish(f.octet())
		if c.Wish == WishFinish {
			c.WishResult = f.result()
		}
	}
	if fields&hasLastAttempt != 0 {
		c.LastAttempt = f.time()
	}
	if fields&hasDelayReported != 0 {
		c.DelayReported = f.octet() != 0
	}
	d.leave(&f)
	if int(c.State) >= len(stateNames) || c.Wish > WishFinish {
		d.fail()
	}
}

// DecodeRecord reads one record of the spool. Its strings share one copy of meta.
func DecodeRecord(kind journal.Kind, meta []byte) (Record, error) {
	var r Record
	err := r.Decode(kind, meta)
	return r, err
}

// Decode reads one record into r, reusing r's memory: what Changes held before becomes invalid, Message and strings
// stay valid.
func (r *Record) Decode(kind journal.Kind, meta []byte) error {
	return r.decode(kind, string(meta), new(Message))
}

// DecodeBorrowed is Decode for who looks at a record once: it copies nothing. All of r, strings and Message included,
// is valid until meta changes or r is used again.
func (r *Record) DecodeBorrowed(kind journal.Kind, meta []byte) error {
	if r.whole == nil || cap(r.whole.Recipients) > maxKeptRecipients {
		r.whole = new(Message)
	}
	return r.decode(kind, unsafe.String(unsafe.SliceData(meta), len(meta)), r.whole)
}

// maxKeptRecipients bounds the memory that a record keeps for the next one.
const maxKeptRecipients = 256

func (r *Record) decode(kind journal.Kind, meta string, whole *Message) error {
	*r = Record{Kind: kind, Changes: r.Changes[:0], partial: r.partial[:0], whole: r.whole}
	if int(kind) >= len(kindNames) || kind == 0 {
		return fmt.Errorf("%w: kind %d", ErrVersion, kind)
	}
	d := decoder{s: meta}
	if v := d.octet(); v != recordVersion {
		return fmt.Errorf("%w: version %d of a %s record", ErrVersion, v, kindNames[kind])
	}
	r.Time = d.time()
	switch kind {
	case KindAccepted, KindMoved:
		d.message(whole)
		r.Message = whole
	case KindAttempted:
		r.Try = d.try()
	case KindReported:
		f := d.frame()
		r.Report, r.Delay = f.id(), f.octet()&1 != 0
		d.leave(&f)
	}
	if kind != KindAccepted {
		r.groups(&d)
	}
	if d.err != nil {
		return fmt.Errorf("%w: a %s record", errCodec, kindNames[kind])
	}
	return nil
}

func (r *Record) groups(d *decoder) {
	groups := d.count(len(message.ID{}))
	if cap(r.partial) < groups {
		r.partial = make([]Message, 0, groups) // not grown below, since changes point into it
	}
	for range groups {
		f := d.frame()
		r.partial = append(r.partial, Message{})
		m := &r.partial[len(r.partial)-1]
		f.origin(m)
		n := f.count(2)
		for k := range n {
			r.Changes = append(r.Changes, Change{Message: m})
			c := &r.Changes[len(r.Changes)-1]
			var before *Result
			if k > 0 {
				before = &r.Changes[len(r.Changes)-2].Result
			}
			f.change(c, before)
			if f.err != nil {
				break
			}
		}
		d.leave(&f)
		if d.err != nil {
			return
		}
	}
}
