package outbox

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeJournal holds records as values; their meta is their place in the list.
type fakeJournal struct {
	mu      sync.Mutex
	records []spool.Record
	grown   chan struct{}
	err     error // what readers say
}

func newFakeJournal() *fakeJournal { return &fakeJournal{grown: make(chan struct{})} }

// Positions are spread, as real ones are.
const stride = 1000

func (j *fakeJournal) add(records ...spool.Record) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.records = append(j.records, records...)
	close(j.grown)
	j.grown = make(chan struct{})
}

func (j *fakeJournal) fail(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.err = err
	close(j.grown)
	j.grown = make(chan struct{})
}

func (j *fakeJournal) End() journal.Position {
	j.mu.Lock()
	defer j.mu.Unlock()
	return journal.Position(len(j.records)+1) * stride
}

func (j *fakeJournal) NewReader(from journal.Position) (journal.Reader, error) {
	return &fakeReader{j, max(int((from+stride-1)/stride)-1, 0)}, nil
}

func (j *fakeJournal) decode(r *spool.Record, _ journal.Kind, meta []byte) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	i := int(meta[0])<<8 | int(meta[1])
	*r = j.records[i]
	if r.Kind == 0 {
		return errors.New("unreadable")
	}
	return nil
}

type fakeReader struct {
	j    *fakeJournal
	next int
}

func (r *fakeReader) Next(ctx context.Context, wait bool) (journal.Entry, error) {
	for {
		r.j.mu.Lock()
		n, grown, err := len(r.j.records), r.j.grown, r.j.err
		r.j.mu.Unlock()
		if err != nil {
			return journal.Entry{}, err
		}
		if i := r.next; i < n {
			r.next++
			at := journal.Position(i+1) * stride
			return journal.Entry{Position: at, Next: at + stride, Kind: spool.KindAccepted, Meta: []byte{byte(i >> 8), byte(i)}}, nil
		}
		if !wait {
			return journal.Entry{}, io.EOF
		}
		select {
		case <-ctx.Done():
			return journal.Entry{}, ctx.Err()
		case <-grown:
		}
	}
}

func (r *fakeReader) Close() error { return nil }

// fakeView remembers how far it was told.
type fakeView struct {
	mu sync.Mutex
	at journal.Position
}

func (v *fakeView) Advance(p journal.Position) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.at = p
}

func (v *fakeView) position() journal.Position {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.at
}

var start = time.Date(2026, 11, 21, 21, 33, 0, 0, time.UTC)

// testMessage makes the nth message, accepted n seconds after start.
func testMessage(n, recipients int) *spool.Message {
	at := start.Add(time.Duration(n) * time.Second)
	id := message.ID{}
	ms := at.UnixMilli()
	for i := range 6 {
		id[i] = byte(ms >> (8 * (5 - i)))
	}
	id[10], id[11] = byte(n>>8), byte(n)
	m := &spool.Message{
		ID: id, Tenant: "default", Stream: "bulk", Received: at, Session: "s1", Listener: "relay", Client: "127.0.0.1:4711",
		Hello: "app.example", Protocol: "ESMTP", From: smtp.Sender{Path: smtp.Path{Local: "news", Domain: "example.com"}},
		Size: 10240, HeaderFrom: "news@example.com", MessageID: "<1@example.com>",
	}
	for i := range recipients {
		m.Recipients = append(m.Recipients, smtp.Recipient{Path: smtp.Path{Local: "user" + string(rune('a'+i%26)), Domain: "mx.example"}})
		m.Queues = append(m.Queues, spool.QueueKey{Tenant: "default", Domain: "mx.example"})
	}
	return m
}

func accepted(m *spool.Message) spool.Record {
	return spool.Record{Kind: spool.KindAccepted, Time: m.Received, Message: m}
}

// attempted makes the record of an attempt whose result is the same for all recipients.
func attempted(m *spool.Message, after time.Duration, res spool.Result) spool.Record {
	end := m.Received.Add(after)
	r := spool.Record{Kind: spool.KindAttempted, Time: end, Try: spool.Try{
		Started: end.Add(-300 * time.Millisecond), Ended: end, Reused: true,
		Timings: spool.Timings{DNS: time.Millisecond, Connect: 20 * time.Millisecond, Data: 1500 * time.Microsecond},
	}}
	for i := range m.Recipients {
		c := spool.Change{
			Message: m, Index: i, Recipient: m.Recipients[i].Path, Queue: m.Queues[i],
			State: spool.Final, Attempts: 1, Result: res,
		}
		if res.Outcome == spool.Deferred {
			c.State, c.Due = spool.Waiting, end.Add(2*time.Minute)
		}
		r.Changes = append(r.Changes, c)
	}
	return r
}

var delivered = spool.Result{
	Outcome: spool.Delivered, Reason: event.OK, Phase: "final", Host: "mx1.mx.example",
	Reply: smtp.Reply{Code: 250, Enhanced: smtp.EnhancedCode{Class: 2}, Text: "queued as 7"},
	Addr:  netip.MustParseAddrPort("192.0.2.1:25"), Site: "mx.example", Source: "default",
}

var deferred = spool.Result{
	Outcome: spool.Deferred, Reason: event.Greylisted, Class: event.ClassGreylisted, Phase: "rcpt", Host: "mx1.mx.example",
	Reply: smtp.Reply{Code: 451, Enhanced: smtp.EnhancedCode{Class: 4, Subject: 7, Detail: 1}, Text: "try again later"},
	Addr:  netip.MustParseAddrPort("[2001:db8::1]:25"), Explanation: "The remote server asks to try again.",
}
