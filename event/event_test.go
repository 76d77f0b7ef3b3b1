package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func full() *Event {
	return &Event{
		Time: time.Date(2026, 3, 1, 12, 30, 15, 123456789, time.FixedZone("", 3600)),
		ID:   "0000000000001a.0", Type: Deferred,
		Message: "06a1b2c3d4e5f6g7h8i9", Entry: "06a1b2c3d4e5f6g7h8i9.2",
		Recipient: "a@example.org", Sender: "<>", Tenant: "default", Stream: "bulk", Queue: "example.org",
		MessageID: "<1.2@example.com>", HeaderFrom: "b@example.com",
		Session: "s1", Listener: "relay", Client: "192.0.2.1:4711", Hello: "client", Protocol: "ESMTP",
		Size: 10240, Recipients: 3, Auth: "spf=pass dkim=pass(example.org) dmarc=pass",
		Attempt: 2, Reason: Greylisted, Class: ClassGreylisted, Explanation: `mx1 said "later"`,
		Reply: Reply{Code: 451, Enhanced: "4.7.1", Text: "Greylisted\ncome <back> & wait"},
		Phase: "rcpt", MX: "mx1.example.org", Address: "[2001:db8::1]:25", Site: "mx1.example.org", Source: "default",
		TLS: "none", Reused: true,
		Timings: Timings{DNS: Millis(time.Millisecond), Connect: Millis(1500 * time.Microsecond),
			Greeting: Millis(2 * time.Second),
			Mail:     Millis(10 * time.Microsecond), Data: Millis(120 * time.Microsecond), Final: Millis(999),
			Total: Millis(time.Hour)},
		NextAttempt: time.Date(2026, 3, 1, 11, 35, 0, 0, time.UTC),
	}
}

const fullJSON = `{"time":"2026-03-01T11:30:15.123Z","id":"0000000000001a.0","type":"deferred",` +
	`"message":"06a1b2c3d4e5f6g7h8i9","entry":"06a1b2c3d4e5f6g7h8i9.2","recipient":"a@example.org","sender":"\u003c\u003e",` +
	`"tenant":"default","stream":"bulk","queue":"example.org","message_id":"\u003c1.2@example.com\u003e","header_from":"b@example.com",` +
	`"session":"s1","listener":"relay","client":"192.0.2.1:4711","hello":"client","protocol":"ESMTP","size":10240,"recipients":3,"auth":"spf=pass dkim=pass(example.org) dmarc=pass",` +
	`"attempt":2,"reason":"greylisted","class":"greylisted","explanation":"mx1 said \"later\"",` +
	`"reply":{"code":451,"enhanced":"4.7.1","text":"Greylisted\ncome \u003cback\u003e \u0026 wait"},` +
	`"phase":"rcpt","mx":"mx1.example.org","address":"[2001:db8::1]:25","site":"mx1.example.org","source":"default","tls":"none",` +
	`"reused":true,"timings_ms":{"dns":1,"connect":1.5,"greeting":2000,"mail":0.01,"data":0.12,"final":0,"total":3600000},` +
	`"next_attempt":"2026-03-01T11:35:00.000Z"}`

// plainEvent has the fields and the tags of Event and none of its methods, so that encoding/json writes it by itself.
type plainEvent Event

// byLibrary writes e as encoding/json does; only the times are put in our layout.
func byLibrary(t *testing.T, e *Event) []byte {
	t.Helper()
	layout := func(at time.Time) string {
		if at.IsZero() {
			return ""
		}
		return at.UTC().Format(TimeLayout)
	}
	p, err := json.Marshal(struct {
		Time string `json:"time"`
		*plainEvent
		NextAttempt string `json:"next_attempt,omitempty"`
	}{e.Time.UTC().Format(TimeLayout), (*plainEvent)(e), layout(e.NextAttempt)})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAppendJSON(t *testing.T) {
	t.Parallel()
	got := full().AppendJSON(nil)
	if string(got) != fullJSON {
		t.Errorf("got  %s\nwant %s", got, fullJSON)
	}
	if diff := cmp.Diff(string(byLibrary(t, full())), string(got)); diff != "" {
		t.Errorf("differs from encoding/json (-library +ours):\n%s", diff)
	}
	small := &Event{Time: time.Unix(0, 0), ID: "1.0", Type: Accepted}
	const want = `{"time":"1970-01-01T00:00:00.000Z","id":"1.0","type":"accepted"}`
	if got := small.AppendJSON([]byte("x")); string(got) != "x"+want {
		t.Errorf("got %s", got)
	}
	p, err := json.Marshal(full())
	if err != nil || string(p) != fullJSON {
		t.Errorf("through json.Marshal: %v\n%s", err, p)
	}
}

func TestAppendJSONEscapes(t *testing.T) {
	t.Parallel()
	texts := []string{"", "\x00\x01\x1f\x7f", "\b\f\n\r\t", `"\/`, "<>&", "é€😀", "\u2028\u2029\u202a", "\xff", "a\xc3",
		"\xed\xa0\x80",
		"\xf5\x80\x80\x80", "a\xe2\x80z", strings.Repeat("x", 100) + "\n", "\ufffd", "\xff\xff<"}
	for c := range 256 {
		texts = append(texts, "a"+string([]byte{byte(c)})+"b")
	}
	for _, s := range texts {
		e := full()
		e.Explanation, e.Reply.Text = s, s
		if got, want := e.AppendJSON(nil), byLibrary(t, e); !bytes.Equal(got, want) {
			t.Errorf("%q:\n got %s\nwant %s", s, got, want)
		}
	}
}

func TestAppendTimeOutOfRange(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		at   time.Time
		want string
	}{
		{time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), `"9999-12-31T23:59:59.999Z"`},
		{time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC), `"0000-01-01T00:00:00.000Z"`},
		{time.Date(987, 6, 5, 4, 3, 2, 1e6, time.UTC), `"0987-06-05T04:03:02.001Z"`},
	} {
		if got := string(appendTime(nil, c.at)); got != c.want {
			t.Errorf("%v: got %s, want %s", c.at, got, c.want)
		}
	}
}

func TestMillis(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		d    time.Duration
		want string
	}{
		{0, "0"}, {999, "0"}, {time.Microsecond, "0.001"}, {10 * time.Microsecond, "0.01"}, {100 * time.Microsecond, "0.1"},
		{123 * time.Microsecond, "0.123"}, {time.Second, "1000"}, {-1500 * time.Microsecond, "-1.5"}, {72 * time.Hour,
			"259200000"},
	} {
		p, err := json.Marshal(Millis(c.d))
		if err != nil || string(p) != c.want {
			t.Errorf("%v: got %s, %v, want %s", c.d, p, err, c.want)
		}
		var back Millis
		if err := json.Unmarshal(p, &back); err != nil || time.Duration(back) != c.d.Truncate(time.Microsecond) {
			t.Errorf("%v: read back as %v, %v", c.d, time.Duration(back), err)
		}
	}
	var m Millis
	for _, s := range []string{`"1"`, "1e300", "-1e300", "{}"} {
		if err := json.Unmarshal([]byte(s), &m); err == nil {
			t.Errorf("%s: no error", s)
		}
	}
}

func TestParseLine(t *testing.T) {
	t.Parallel()
	got, err := ParseLine([]byte(fullJSON + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := full()
	want.Time = want.Time.UTC().Truncate(time.Millisecond)
	want.Timings.Final = 0 // below a microsecond
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := ParseLine([]byte(`{"time":"2026-03-01T11:30:15Z","id":"1","type":"held","news":{"a":[1]}}`)); err != nil {
		t.Errorf("an unknown name: %v", err)
	}
	for _, s := range []string{`{}`, `{"time":"2026-03-01T11:30:15Z","id":"1"}`,
		`{"time":"2026-03-01T11:30:15Z","type":"held"}`,
		`{"id":"1","type":"held"}`} {
		if _, err := ParseLine([]byte(s)); !errors.Is(err, ErrIncomplete) {
			t.Errorf("%s: got %v, want ErrIncomplete", s, err)
		}
	}
	for _, s := range []string{``, `[]`, `{"type":"nonsense"}`, `{"reason":"nonsense"}`, `{"id":1}`,
		`{"time":"yesterday"}`, `{`, `{}{}`} {
		if _, err := ParseLine([]byte(s)); err == nil {
			t.Errorf("%s: no error", s)
		}
	}
}

func FuzzEvent(f *testing.F) {
	f.Add("id", "text", "\xff\n\u2028<", int64(0), int64(12345), uint8(1), uint8(2), uint8(3), 550)
	f.Add("", "", "", int64(math.MaxInt64), int64(-1), uint8(0), uint8(255), uint8(0), 0)
	const century, us = int64(100 * 365 * 24 * time.Hour / time.Microsecond), int64(time.Microsecond)
	f.Fuzz(func(t *testing.T, id, a, b string, at, ns int64, typ, reason, class uint8, code int) {
		e := &Event{Time: time.UnixMilli(at % 253402300800000).UTC(), ID: id, Message: a, Recipient: b, Sender: a + b,
			Explanation: b + a,
			Reply:       Reply{Code: code, Text: b}, Attempt: code, Size: at, Timings: Timings{DNS: Millis(ns % century * us),
				Final: Millis(at % century * us)},
			Type: Types()[int(typ)%len(Types())], Reason: Reasons()[int(reason)%len(Reasons())],
			Class: Classes()[int(class)%len(Classes())], Reused: code%2 == 0}
		if e.Time.Year() < 0 || e.Time.Year() > 9999 {
			t.Skip("RFC 3339 has no such year")
		}
		line := e.AppendJSON(nil)
		if want := byLibrary(t, e); !bytes.Equal(line, want) {
			t.Fatalf("got  %s\nwant %s", line, want)
		}
		if bytes.ContainsAny(line, "\n\r\x00") || !utf8.Valid(line) {
			t.Fatalf("%q is not one line of UTF-8", line)
		}
		back, err := ParseLine(line)
		if id == "" || e.Time.IsZero() {
			if !errors.Is(err, ErrIncomplete) {
				t.Fatalf("got %v, want ErrIncomplete", err)
			}
			return
		}
		if err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		again, err := ParseLine(back.AppendJSON(nil))
		if err != nil || *again != *back {
			t.Fatalf("%v: %+v became %+v", err, back, again)
		}
	})
}

func FuzzParseLine(f *testing.F) {
	f.Add([]byte(fullJSON))
	f.Add([]byte(`{"time":"2026-03-01T11:30:15Z","id":"1","type":"held"}`))
	f.Add([]byte(`{"timings_ms":{"dns":1e999}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := ParseLine(line)
		if err != nil {
			return
		}
		again, err := ParseLine(e.AppendJSON(nil))
		if err != nil {
			if e.Time.UTC().Year() <= 0 || e.Time.UTC().Year() > 9999 { // zones carry times over the edge
				return
			}
			t.Fatalf("%v: what %q was read as cannot be read back", err, line)
		}
		if again.ID != e.ID || again.Type != e.Type || again.Reply != e.Reply {
			t.Fatalf("%+v became %+v", e, again)
		}
	})
}

func TestAppendJSONAllocates(t *testing.T) {
	e, buf := full(), make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() { buf = e.AppendJSON(buf[:0]) }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func BenchmarkAppendJSON(b *testing.B) {
	e, buf := full(), make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf = e.AppendJSON(buf[:0])
	}
	b.SetBytes(int64(len(buf)))
}
