package outbox

import (
	"time"
	"unsafe"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

// teller turns records into lines. It is used by one goroutine and reuses its memory.
type teller struct {
	text   []byte // what the strings of the record's events are made of
	parts  []part
	events []event.Event
	counts [64]int // events told, by type
	lines  liner
}

// part is a string that stands in text[from:to].
type part struct {
	dst      *string
	from, to int
}

// append appends the lines of one record to dst, but for the first skip events, which were told before. It allocates
// nothing: the strings of the events lie in text, and nobody sees them after this.
func (t *teller) append(dst []byte, p journal.Position, r *spool.Record, skip int) []byte {
	t.text, t.parts, t.events = t.text[:0], t.parts[:0], t.events[:0]
	t.events = grow(t.events, 1+2*len(r.Changes)) // parts point into it, so it must not move below
	t.collect(r)
	for i := range t.events {
		t.put(&t.events[i].ID, appendID(t.text, p, i))
	}
	all := unsafe.String(unsafe.SliceData(t.text), len(t.text))
	for _, part := range t.parts {
		*part.dst = all[part.from:part.to]
	}
	for i := range t.events {
		if i < skip {
			continue
		}
		dst = t.lines.append(dst, &t.events[i])
		t.counts[t.events[i].Type]++
	}
	clear(t.events) // strings of the record are not kept alive
	return dst
}

func grow(events []event.Event, n int) []event.Event {
	if cap(events) < n {
		return make([]event.Event, 0, n)
	}
	return events
}

// put notes that the string at dst is what text was grown by.
func (t *teller) put(dst *string, grown []byte) {
	t.parts = append(t.parts, part{dst, len(t.text), len(grown)})
	t.text = grown
}

// next adds an event and returns it.
func (t *teller) next(typ event.Type, at time.Time) *event.Event {
	t.events = append(t.events, event.Event{Type: typ, Time: at})
	return &t.events[len(t.events)-1]
}

// collect adds the events of a record. Kinds that tell people nothing (claims, returns, copies) have none.
func (t *teller) collect(r *spool.Record) {
	switch r.Kind {
	case spool.KindAccepted:
		t.accepted(r)
	case spool.KindAttempted:
		t.attempted(r)
	case spool.KindSettled:
		for i := range r.Changes {
			c := &r.Changes[i]
			if typ, told := outcomeTypes[c.Result.Outcome]; told {
				e := t.entry(typ, r, c)
				e.Attempt = c.Attempts
				t.result(e, &c.Result)
			}
		}
	case spool.KindHeld:
		for i := range r.Changes {
			e := t.entry(event.Held, r, &r.Changes[i])
			e.Reason, e.Explanation = event.Operator, r.Changes[i].HoldReason
		}
	case spool.KindReleased, spool.KindRescheduled:
		typ := event.Released
		if r.Kind == spool.KindRescheduled {
			typ = event.Rescheduled
		}
		for i := range r.Changes {
			e := t.entry(typ, r, &r.Changes[i])
			e.Reason, e.NextAttempt = event.Operator, r.Changes[i].Due
		}
	case spool.KindInterrupted:
		for i := range r.Changes {
			e := t.entry(event.Deferred, r, &r.Changes[i])
			e.Reason, e.Explanation = event.Interrupted, event.Interrupted.Explain()
			e.Attempt, e.NextAttempt = r.Changes[i].Attempts, r.Changes[i].Due
		}
	case spool.KindReported:
		t.reported(r)
	}
}

// outcomeTypes says which event tells an outcome.
var outcomeTypes = map[spool.Outcome]event.Type{
	spool.Delivered: event.Delivered, spool.Deferred: event.Deferred, spool.Bounced: event.Bounced,
	spool.Expired: event.Expired, spool.Suppressed: event.Suppressed, spool.Cancelled: event.Cancelled,
}

func (t *teller) accepted(r *spool.Record) {
	m := r.Message
	e := t.next(event.Accepted, r.Time)
	t.origin(e, m)
	e.Listener, e.Client, e.Hello, e.Protocol = m.Listener, m.Client, m.Hello, m.Protocol
	e.Recipients, e.Auth = len(m.Recipients), m.Auth
	e.Reason = event.Submitted
	if m.Report {
		e.Reason = event.ReportGenerated
	}
	if len(m.Recipients) == 1 {
		e.Queue = m.Queues[0].Domain
		t.entryID(e, m.ID, 0)
		t.put(&e.Recipient, m.Recipients[0].AppendTo(t.text))
	}
}

// attempted tells the attempt, if there was one, then what it did to each entry.
func (t *teller) attempted(r *spool.Record) {
	try := &r.Try
	timings := event.Timings{
		DNS: event.Millis(try.Timings.DNS), Connect: event.Millis(try.Timings.Connect), Greeting: event.Millis(try.Timings.Greeting),
		Mail: event.Millis(try.Timings.Mail), Data: event.Millis(try.Timings.Data), Final: event.Millis(try.Timings.Final),
	}
	made := !try.Started.IsZero()
	if made {
		timings.Total = event.Millis(try.Ended.Sub(try.Started))
	}
	if made && len(r.Changes) > 0 {
		first := &r.Changes[0]
		e := t.next(event.Attempted, r.Time)
		t.origin(e, first.Message)
		e.Queue, e.Recipients, e.Attempt = first.Queue.Domain, len(r.Changes), first.Attempts
		e.Timings, e.Reused = timings, try.Reused
		t.path(e, &first.Result)
	}
	for i := range r.Changes {
		c := &r.Changes[i]
		typ, told := outcomeTypes[c.Result.Outcome]
		if !told {
			continue // came back untried
		}
		e := t.entry(typ, r, c)
		e.Attempt = c.Attempts
		t.result(e, &c.Result)
		if made {
			e.Timings, e.Reused = timings, try.Reused
		}
		if c.Result.Outcome == spool.Deferred {
			e.NextAttempt = c.Due
		}
		if c.State == spool.Held { // asked for while the attempt was under way
			h := t.entry(event.Held, r, c)
			h.Reason = event.Operator
			e.NextAttempt = time.Time{}
		}
	}
}

// reported tells which entries a report of ours is about. Nothing is told when nobody is to be told.
func (t *teller) reported(r *spool.Record) {
	if r.Report.IsZero() {
		return
	}
	for i := range r.Changes {
		c := &r.Changes[i]
		e := t.next(event.Reported, r.Time)
		t.put(&e.Message, c.Message.ID.AppendTo(t.text))
		t.entryID(e, c.Message.ID, c.Index)
		e.Reason = event.ReportGenerated
		if r.Delay {
			e.Reason = event.DelayNotice
		}
		t.put(&e.Explanation, append(r.Report.AppendTo(append(t.text, "The report is message "...)), '.'))
	}
}

// entry adds an event about one entry.
func (t *teller) entry(typ event.Type, r *spool.Record, c *spool.Change) *event.Event {
	e := t.next(typ, r.Time)
	t.origin(e, c.Message)
	e.Queue = c.Queue.Domain
	t.entryID(e, c.Message.ID, c.Index)
	t.put(&e.Recipient, c.Recipient.AppendTo(t.text))
	return e
}

// origin fills what an event says of its message.
func (t *teller) origin(e *event.Event, m *spool.Message) {
	t.put(&e.Message, m.ID.AppendTo(t.text))
	e.Sender = "<>"
	if !m.From.IsNull() {
		t.put(&e.Sender, m.From.AppendTo(t.text))
	}
	e.Tenant, e.Stream = m.Tenant, m.Stream
	e.MessageID, e.HeaderFrom, e.Session, e.Size = m.MessageID, m.HeaderFrom, m.Session, m.Size
}

func (t *teller) entryID(e *event.Event, id message.ID, index int) {
	grown := append(id.AppendTo(t.text), '.')
	t.put(&e.Entry, appendInt(grown, index))
}

// result fills why and how.
func (t *teller) result(e *event.Event, res *spool.Result) {
	e.Reason, e.Class, e.Explanation, e.Phase = res.Reason, res.Class, res.Explanation, res.Phase
	e.Reply.Code, e.Reply.Text = res.Reply.Code, res.Reply.Text
	if res.Reply.Enhanced != (smtp.EnhancedCode{}) {
		t.put(&e.Reply.Enhanced, res.Reply.Enhanced.AppendTo(t.text))
	}
	t.path(e, res)
}

// path fills where an attempt went.
func (t *teller) path(e *event.Event, res *spool.Result) {
	e.MX, e.Site, e.Source, e.TLS = res.Host, res.Site, res.Source, res.TLS
	if res.Addr.IsValid() {
		t.put(&e.Address, res.Addr.AppendTo(t.text))
	}
}
