package spool

import (
	"bufio"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

var update = flag.Bool("update", false, "write the golden files anew")

var (
	noon   = time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC)
	anID   = message.ID{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}
	noUnex = cmpopts.IgnoreUnexported(Record{}, Change{})
	addrs  = cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
)

func wholeMessage() *Message {
	return &Message{
		ID: anID, Tenant: "acme", Stream: "bulk", Received: noon,
		Expires: noon.Add(72 * time.Hour), DelayNotice: noon.Add(4 * time.Hour),
		Session: "s1", Listener: "relay", Client: "192.0.2.1", Hello: "app.example", Protocol: "ESMTP",
		From: smtp.Sender{Path: smtp.Path{Local: "a", Domain: "sender.example"}, Size: 1000,
			Body: smtp.Body8BitMIME, UTF8: true, Return: smtp.ReturnHeaders, EnvelopeID: "env"},
		Size: 12345, EightBit: true, DotLine: true, HeaderUTF8: true, Report: true,
		Recipients: []smtp.Recipient{
			{Path: smtp.Path{Local: "b", Domain: "rcpt.example"}},
			{Path: smtp.Path{Local: "ü", Domain: "bücher.example"}, Notify: smtp.NotifyFailure | smtp.NotifyDelay,
				Original: smtp.OriginalRecipient{Type: "utf-8", Address: "o@x.example"}},
		},
		Queues:     []QueueKey{{"acme", "rcpt.example"}, {"other", "xn--bcher-kva.example"}},
		HeaderFrom: "a@sender.example", Subject: "Hello", MessageID: "<1@sender.example>",
	}
}

// told is what a record keeps of a message for events.
func told() *Message {
	m := wholeMessage()
	return &Message{ID: m.ID, Tenant: m.Tenant, Stream: m.Stream, Received: m.Received, Session: m.Session,
		From: smtp.Sender{Path: m.From.Path}, Size: m.Size, Report: true, HeaderFrom: m.HeaderFrom, MessageID: m.MessageID}
}

func wholeResult() Result {
	return Result{
		Outcome: Deferred, Reason: event.Greylisted, Class: event.ClassMailboxFull,
		Reply: smtp.Reply{Code: 451, Enhanced: smtp.EnhancedCode{Class: 4, Subject: 7, Detail: 1}, Text: "come\nback"},
		Phase: "RCPT", Host: "mx1.rcpt.example", Addr: netip.MustParseAddrPort("[2001:db8::1]:25"), Site: "rcpt",
		Source: "out1", TLS: "TLS1.3", RemoteDSN: true, Explanation: "greylisted", NextDue: noon.Add(time.Hour),
	}
}

func sampleRecords() []Record {
	m, other := told(), &Message{ID: message.ID{1}}
	b := smtp.Path{Local: "b", Domain: "rcpt.example"}
	ue := smtp.Path{Local: "ü", Domain: "bücher.example"}
	plain, foreign := QueueKey{"acme", "rcpt.example"}, QueueKey{"other", "xn--bcher-kva.example"}
	id := &Message{ID: anID}
	v4 := wholeResult()
	v4.Addr = netip.MustParseAddrPort("192.0.2.9:2525")
	full := Change{
		Message: id, Index: 1, State: Claimed, Due: noon, Attempts: 3, LastAttempt: noon.Add(-time.Hour), Result: v4,
		HoldReason: "why", Interrupted: 2, DelayReported: true, Wish: WishFinish,
		WishResult: Result{Outcome: Cancelled, Reason: event.Operator},
	}
	return []Record{
		{Kind: KindAccepted, Time: noon, Message: wholeMessage()},
		{Kind: KindAttempted, Time: noon, Try: Try{
			Started: noon.Add(-time.Second), Ended: noon, Bytes: 99, Reused: true, Connection: "c1",
			Timings: Timings{
				DNS: time.Millisecond, Connect: 2 * time.Millisecond, Greeting: 3 * time.Millisecond,
				Mail: 4 * time.Millisecond, Data: 5 * time.Millisecond, Final: 6 * time.Millisecond,
			},
		}, Changes: []Change{
			{Message: m, Index: 0, Recipient: b, Queue: plain, State: Waiting, Due: noon.Add(time.Hour), Attempts: 1,
				Result: wholeResult()},
			{Message: m, Index: 1, Recipient: ue, Queue: foreign, State: Waiting, Due: noon.Add(time.Hour), Attempts: 7,
				Result: wholeResult()},
		}},
		{Kind: KindClaimed, Time: noon, Changes: []Change{{Message: id, Index: 0, Due: noon}, {Message: other, Index: 300}}},
		{Kind: KindSettled, Time: noon, Changes: []Change{{Message: m, Index: 0, Recipient: b, Queue: plain, Attempts: 4,
			Result: Result{Outcome: Expired, Reason: event.Aged}}}},
		{Kind: KindHeld, Time: noon, Changes: []Change{
			{Message: m, Index: 0, Recipient: b, Queue: plain, HoldReason: "by me"}}},
		{Kind: KindReleased, Time: noon, Changes: []Change{{Message: m, Index: 0, Recipient: b, Queue: plain, Due: noon}}},
		{Kind: KindRescheduled, Time: noon, Changes: []Change{
			{Message: m, Index: 0, Recipient: b, Queue: plain, Due: noon}}},
		{Kind: KindReturned, Time: noon, Changes: []Change{{Message: id, Index: 0, Due: noon}}},
		{Kind: KindWished, Time: noon, Changes: []Change{{Message: id, Index: 0, Wish: WishHold, HoldReason: "later"},
			{Message: id, Index: 1, Wish: WishFinish, WishResult: Result{Outcome: Cancelled}}, {Message: other}}},
		{Kind: KindReported, Time: noon, Report: message.ID{7}, Delay: true, Changes: []Change{{Message: id, Index: 0}}},
		{Kind: KindInterrupted, Time: noon, Changes: []Change{
			{Message: m, Index: 0, Recipient: b, Queue: plain, Due: noon, Attempts: 2, Interrupted: 1}}},
		{Kind: KindMoved, Time: noon, Message: wholeMessage(), Changes: []Change{full}},
		{Kind: KindCarried, Time: noon, Changes: []Change{full, {Message: other}}},
	}
}

// The bytes of records must not change: journals hold them.
func TestRecordsGolden(t *testing.T) {
	t.Parallel()
	const name = "testdata/records.txt"
	if *update {
		var b strings.Builder
		for _, r := range sampleRecords() {
			fmt.Fprintf(&b, "%d %s %s\n", r.Kind, KindName(r.Kind), hex.EncodeToString(appendRecord(nil, &r)))
		}
		if err := os.WriteFile(name, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	var borrowed Record // used again and again, so that nothing of the record before may show
	for _, want := range sampleRecords() {
		lines.Scan()
		var kind journal.Kind
		var word, text string
		if _, err := fmt.Sscan(lines.Text(), &kind, &word, &text); err != nil {
			t.Fatal(err)
		}
		meta, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if kind != want.Kind || word != KindName(want.Kind) {
			t.Errorf("kind %d is %q, was %d, %q", want.Kind, KindName(want.Kind), kind, word)
		}
		got, err := DecodeRecord(kind, meta)
		if err != nil {
			t.Fatalf("%s: %v", word, err)
		}
		if d := cmp.Diff(want, got, noUnex, addrs); d != "" {
			t.Errorf("%s reads as (-want +got)\n%s", word, d)
		}
		if err := borrowed.DecodeBorrowed(kind, meta); err != nil {
			t.Fatalf("%s: %v", word, err)
		}
		if d := cmp.Diff(want, borrowed, noUnex, addrs, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s, borrowed, reads as (-want +got)\n%s", word, d)
		}
		if now := appendRecord(nil, &want); hex.EncodeToString(now) != text {
			t.Errorf("%s is written as %x, was %s", word, now, text)
		}
	}
	if lines.Scan() {
		t.Errorf("another line: %s", lines.Text())
	}
}

// Every kind has a name, a set of fields and a sample.
func TestKinds(t *testing.T) {
	t.Parallel()
	seen := make(map[journal.Kind]bool)
	for _, r := range sampleRecords() {
		seen[r.Kind] = true
	}
	for k := KindAccepted; k <= KindCarried; k++ {
		if KindName(k) == "" || int(k) >= len(kindFields) || !seen[k] {
			t.Errorf("kind %d: name %q, sample %v", k, KindName(k), seen[k])
		}
	}
	for _, k := range []journal.Kind{0, KindCarried + 1, 255} {
		if _, err := DecodeRecord(k, []byte{recordVersion, 0, 0}); !errors.Is(err, ErrVersion) {
			t.Errorf("kind %d: %v", k, err)
		}
	}
	if _, err := DecodeRecord(KindClaimed, []byte{recordVersion + 1, 0, 0}); !errors.Is(err, ErrVersion) {
		t.Errorf("a newer version: %v", err)
	}
}

// A record cut anywhere is an error, or lacks fields at its end as an older one would; it never panics.
func TestRecordsCut(t *testing.T) {
	t.Parallel()
	for _, r := range sampleRecords() {
		meta := appendRecord(nil, &r)
		for n := range len(meta) {
			got, err := DecodeRecord(r.Kind, meta[:n])
			whole := len(got.Changes) == len(r.Changes) && (r.Message == nil || got.Message != nil)
			if err == nil && n > 8 && whole && len(r.Changes) > 0 {
				t.Errorf("%s cut at %d of %d reads whole", KindName(r.Kind), n, len(meta))
			}
		}
	}
}

// Fields that a newer version adds at the end of a frame are passed over.
func TestUnknownFieldsAreSkipped(t *testing.T) {
	t.Parallel()
	m := wholeMessage()
	m.Auth = "spf=pass" // else it is left out, which a version with fields behind it can't do
	frame := appendMessage(nil, m)
	d := decoder{s: string(frame)}
	inner := d.string()
	d = decoder{s: string(endFrame(append([]byte(inner), "new field"...), 0))}
	read := new(Message)
	if d.message(read); d.err != nil || cmp.Diff(m, read) != "" {
		t.Errorf("%v %s", d.err, cmp.Diff(m, read))
	}
	c := Change{Message: m, Index: 1, Due: noon}
	d = decoder{s: string(appendChange(nil, &c, hasDue, nil, maxText))}
	inner = d.string()
	more := append([]byte{inner[0]}, appendUint(nil, hasDue|1<<40)...)
	d = decoder{s: string(endFrame(append(append(more, inner[2:]...), "more"...), 0))}
	got := Change{Message: m}
	if d.change(&got, nil); d.err != nil || got.Due != noon || got.Index != 1 {
		t.Errorf("%v %+v", d.err, got)
	}
}

// Long texts are cut in records, and more in the index.
func TestTextsAreCut(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 5000)
	r := Result{Outcome: Deferred, Reply: smtp.Reply{Code: 450, Text: long}, Explanation: long}
	for _, limit := range []int{maxText, maxIndexText} {
		d := decoder{s: string(appendResult(nil, &r, limit))}
		if got := d.result(); len(got.Reply.Text) != limit || len(got.Explanation) != limit {
			t.Errorf("%d and %d octets, want %d", len(got.Reply.Text), len(got.Explanation), limit)
		}
	}
}

func FuzzDecodeRecord(f *testing.F) {
	for _, r := range sampleRecords() {
		f.Add(uint8(r.Kind), appendRecord(nil, &r))
	}
	f.Fuzz(func(t *testing.T, kind uint8, meta []byte) {
		var first, second Record
		if first.Decode(journal.Kind(kind), meta) != nil {
			return
		}
		again := appendRecord(nil, &first)
		if err := second.Decode(first.Kind, again); err != nil {
			t.Fatalf("what was read cannot be read again: %v", err)
		}
		if third := appendRecord(nil, &second); string(third) != string(again) {
			t.Fatalf("not stable:\n%x\n%x", again, third)
		}
	})
}

func FuzzParseEntryID(f *testing.F) {
	f.Add(EntryID{anID, 3}.String())
	f.Add("00000000000000000000.-1")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseEntryID(s); err == nil && id.String() != s {
			t.Errorf("%q reads as %q", s, id)
		}
	})
}

func TestQueueKeysOfIndex(t *testing.T) {
	t.Parallel()
	points := []duePoint{
		{}, {due: -5, id: anID, index: 1}, {due: 5}, {due: 5, id: anID}, {due: 5, id: anID, index: 1 << 31}, lastPoint,
	}
	for _, key := range []QueueKey{{"", "x"}, {"t", "[192.0.2.1]"}, {"tenant", "rcpt.example"}} {
		var before []byte
		for _, s := range []State{Waiting, Claimed, Held} {
			for i, p := range points {
				k := queueKeyOf(nil, key, s, p)
				gotKey, gotState, gotPoint, ok := readQueueKey(k)
				if !ok || gotKey != key || gotState != s || gotPoint != p {
					t.Errorf("%x reads as %v %v %v %v", k, gotKey, gotState, gotPoint, ok)
				}
				if i > 0 && i != 1 && (string(before) >= string(k) || points[i-1].compare(p) >= 0) && p.due >= points[i-1].due {
					t.Errorf("%x is not after %x", k, before)
				}
				before = k
			}
		}
	}
}
