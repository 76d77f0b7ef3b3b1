package smtptest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// talk serves one connection in memory, writes all of in at once, and returns everything the sink says until it or the
// talk ends.
func talk(t testing.TB, sink *Sink, in string) string {
	t.Helper()
	client, server := Pipe()
	var serving sync.WaitGroup
	serving.Go(func() { sink.ServeConn(t.Context(), server) })
	if _, err := io.WriteString(client, in); err != nil && !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
	if err := client.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Error(err)
	}
	out, err := io.ReadAll(client)
	if err != nil {
		t.Error(err)
	}
	_ = client.Close()
	serving.Wait()
	return string(out)
}

func newSink(t testing.TB, o SinkOptions) *Sink {
	t.Helper()
	sink, err := NewSink(o)
	if err != nil {
		t.Fatal(err)
	}
	return sink
}

// codes returns the codes of a dialog, continuation lines left out.
func codes(out string) string {
	var list []string
	for line := range strings.Lines(out) {
		if len(line) > 3 && line[3] == ' ' {
			list = append(list, line[:3])
		}
	}
	return strings.Join(list, " ")
}

func TestSinkDialogs(t *testing.T) {
	t.Parallel()
	const envelope = "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"
	for _, tc := range []struct {
		name, in, want string
		script         Script
		messages       int
	}{
		{"whole", envelope + "DATA\r\nhi\r\n.\r\nQUIT\r\n", "220 250 250 250 354 250 221", Script{}, 1},
		{"lower case", "ehlo x\r\nmail from:<>\r\nrcpt to:<\"a>b\"@d> NOTIFY=NEVER\r\ndata\r\n.\r\nquit\r\n", "220 250 250 250 354 250 221", Script{}, 1},
		{"HELO", "HELO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n.\r\n", "220 250 250 250 354 250", Script{}, 1},
		{"chunks", envelope + "BDAT 3\r\nabcBDAT 0 LAST\r\nNOOP\r\n", "220 250 250 250 250 250 250", Script{}, 1},
		{"chunk for nobody", "EHLO x\r\nMAIL FROM:<a@b>\r\nBDAT 6 LAST\r\nNOOP\r\nRSET\r\n", "220 250 250 554 250", Script{}, 0},
		{"chunk without MAIL", "EHLO x\r\nBDAT 6 LAST\r\nNOOP\r\nRSET\r\n", "220 250 503 250", Script{}, 0},
		{"chunk not a number", envelope + "BDAT x LAST\r\nNOOP\r\n", "220 250 250 250 501", Script{}, 0},
		{"order", "MAIL FROM:<a@b>\r\nEHLO x\r\nRCPT TO:<c@d>\r\nDATA\r\nMAIL FROM:<a@b>\r\nMAIL FROM:<a@b>\r\nDATA\r\n", "220 503 250 503 503 250 503 554", Script{}, 0},
		{"syntax", "EHLO x\r\nMAIL FROM: <a@b>\r\nMAIL <a@b>\r\nMAIL FROM:<a@b\r\nRCPT TO:<>\r\nMAIL FROM:<a@b>x\r\nFOO\r\n\r\n", "220 250 501 501 501 501 501 500 500", Script{}, 0},
		{"bare LF", "EHLO x\nNOOP\r\n", "220 500 250", Script{}, 0},
		{"bare CR", "NOOP\rx\r\nNOOP\r\n", "220 500 250", Script{}, 0},
		{"smuggling", envelope + "DATA\r\na\n.\nb\r\n.\nc\n.\r\nd\r.\re\r\n.\rf\r\n\n.\r\n\r.\r\n.\r\nNOOP\r\n", "220 250 250 250 354 250 250", Script{}, 1},
		{"recipients", "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<c@d>\r\n", "220 250 250 250 452", Script{Recipients: 1}, 0},
		{"size declared", "EHLO x\r\nMAIL FROM:<a@b> SIZE=11\r\n", "220 250 552", Script{Size: 10}, 0},
		{"size found", envelope + "DATA\r\n0123456789\r\n.\r\n", "220 250 250 250 354 552", Script{Size: 10}, 0},
		{"session messages", envelope + "DATA\r\n.\r\nMAIL FROM:<a@b>\r\nNOOP\r\n", "220 250 250 250 354 250 421", Script{SessionMessages: 1}, 1},
		{"no ESMTP", "EHLO x\r\nHELO x\r\n", "220 500 250", Script{Without: []string{"ESMTP"}}, 0},
		{"no CHUNKING", envelope + "BDAT 3 LAST\r\n", "220 250 250 250 501", Script{Without: []string{"chunking"}}, 0},
		{"LMTP", "LHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@d>\r\nDATA\r\n.\r\nEHLO x\r\nHELO x\r\n", "220 250 250 250 250 354 250 550 500 500",
			Script{LMTP: true, Rules: []Rule{{At: AtFinal, Match: "e@*", Reply: "550 5.1.1 no"}}}, 1},
		{"banner", "NOOP\r\n", "554", Script{Rules: []Rule{{At: AtBanner, Reply: "554 no\nservice"}}}, 0},
		{"replies", envelope + "DATA\r\n.\r\nRSET\r\nNOOP\r\nQUIT\r\n", "220 251 252 253 355 254 255 256 222", Script{Rules: []Rule{
			{At: AtEhlo, Reply: "251 x"}, {At: AtMail, Reply: "252 x"}, {At: AtRcpt, Reply: "253 x"}, {At: AtData, Reply: "355 x"}, {At: AtFinal, Reply: "254 x"},
			{At: AtRset, Reply: "255 x"}, {At: AtNoop, Reply: "256 x"}, {At: AtQuit, Reply: "222 x"},
		}}, 1},
		{"from and times", strings.Repeat("NOOP\r\n", 6), "220 250 250 450 450 250 250", Script{Rules: []Rule{{At: AtNoop, From: 3, Times: 2, Reply: "450 x"}}}, 0},
		{"skip", strings.Repeat("NOOP\r\n", 4), "220 250 250 450 450", Script{Rules: []Rule{{At: AtNoop, Skip: 2, Reply: "450 x"}}}, 0},
		{"match", "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<Nobody@D>\r\nRCPT TO:<c@d>\r\n", "220 250 250 550 250",
			Script{Rules: []Rule{{At: AtRcpt, Match: "NOBODY@*", Reply: "550 x"}, {At: AtMail, Match: "b@*", Reply: "550 x"}}}, 0},
		{"too many bad commands", strings.Repeat("FOO\r\n", 200), "220 " + strings.Repeat("500 ", 101) + "421", Script{}, 0},
		{"cut", "NOOP\r\nNOOP\r\n", "220", Script{Rules: []Rule{{At: AtNoop, Cut: 2}}}, 0},
		{"within a body", envelope + "DATA\r\n0123456789\r\n.\r\nNOOP\r\n", "220 250 250 250 354 452 250 250", Script{Rules: []Rule{{At: AtBody, Octets: 5, Reply: "452 early"}}}, 1},
		{"drop within a body", envelope + "DATA\r\n0123456789\r\n.\r\nNOOP\r\n", "220 250 250 250 354", Script{Rules: []Rule{{At: AtBody, Octets: 5, Drop: DropRST}}}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var all []*Received
			sink := newSink(t, SinkOptions{Script: tc.script, OnMessage: func(m *Received) { all = append(all, m) }})
			out := talk(t, sink, tc.in)
			if got := codes(out); got != tc.want {
				t.Errorf("got %s, want %s\n%s", got, tc.want, out)
			}
			accepted := 0
			for _, m := range all {
				if m.Accepted {
					accepted++
				}
			}
			if c := sink.Counters(); c.Messages != int64(tc.messages) || accepted != tc.messages || c.Connections != 1 || c.Sessions != 0 {
				t.Errorf("%+v, %d in the ledger", c, accepted)
			}
		})
	}
}

// TestSinkReceived: what the ledger, the memory, and the maildir say of a message.
func TestSinkReceived(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "mail")
	var all []*Received
	sink := newSink(t, SinkOptions{Keep: true, KeepAtMost: 2, Maildir: dir, Hash: true, OnMessage: func(m *Received) { all = append(all, m) },
		Script: Script{Rules: []Rule{{At: AtFinal, From: 4, Reply: "550 5.7.1 no"}}}})
	body := "Subject: x\r\n\r\n.dot\r\n..\r\n"
	in := "EHLO me\r\n"
	for _, to := range []string{"c1@d", "c2@d", "c3@d", "c4@d"} {
		in += "MAIL FROM:<a@b> BODY=8BITMIME SIZE=99\r\nRCPT TO:<" + to + "> NOTIFY=NEVER\r\nDATA\r\nSubject: x\r\n\r\n..dot\r\n...\r\n.\r\n"
	}
	talk(t, sink, in)
	if len(all) != 4 {
		t.Fatalf("%d messages", len(all))
	}
	want := &Received{
		Session: 1, Transaction: 3, Time: all[2].Time, Remote: "client", Hello: "me", From: "a@b", Parameters: "BODY=8BITMIME SIZE=99",
		Recipients: []string{"c3@d"}, RecipientParameters: []string{"NOTIFY=NEVER"}, Size: int64(len(body)),
		Hash: fmt.Sprintf("%x", sha256.Sum256([]byte(body))), Body: []byte(body),
		Replies: []string{"250 2.0.0 taken as 1.3"}, Accepted: true, Replied: true,
	}
	if diff := cmp.Diff(want, all[2]); diff != "" {
		t.Error(diff)
	}
	if m := all[3]; m.Accepted || !m.Replied || m.Replies[0] != "550 5.7.1 no" {
		t.Errorf("%+v", m)
	}
	kept := sink.Messages()
	if len(kept) != 2 || kept[0] != all[1] || kept[1] != all[2] {
		t.Errorf("kept %d", len(kept))
	}
	files, err := os.ReadDir(filepath.Join(dir, "new"))
	if err != nil || len(files) != 3 {
		t.Errorf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		got, err := os.ReadFile(filepath.Join(dir, "new", f.Name()))
		if err != nil || string(got) != body {
			t.Errorf("%q %v", got, err)
		}
	}
	if _, err := NewSink(SinkOptions{Maildir: "/dev/null/x"}); err == nil {
		t.Error("a maildir that cannot be made")
	}
}

// TestSinkReplied: whether the reply left is known for every way to drop.
func TestSinkReplied(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		rule              Rule
		accepted, replied bool
	}{
		{Rule{At: AtFinal, Drop: DropFIN}, false, false},
		{Rule{At: AtFinal, Drop: DropRST, After: true}, true, true},
		{Rule{At: AtFinal, Drop: DropFIN, Reply: "451 no"}, false, true},
		{Rule{At: AtFinal, Cut: 3}, true, false},
		{Rule{At: AtFinal, Raw: "250 a\r\n250 b\r\n"}, true, true},
	} {
		var got *Received
		sink := newSink(t, SinkOptions{Script: Script{Rules: []Rule{tc.rule}}, OnMessage: func(m *Received) { got = m }})
		talk(t, sink, "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n.\r\n")
		if got == nil || got.Accepted != tc.accepted || got.Replied != tc.replied {
			t.Errorf("%+v: %+v", tc.rule, got)
		}
	}
}

func TestSinkLimits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const mail = "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n.\r\n"
		// At 2 messages a second, five take two seconds.
		start := time.Now()
		sink := newSink(t, SinkOptions{Script: Script{Rate: 2}})
		if got := codes(talk(t, sink, "EHLO x\r\n"+strings.Repeat(mail, 5))); got != "220 250"+strings.Repeat(" 250 250 354 250", 5) {
			t.Error(got)
		}
		if d := time.Since(start); d != 2*time.Second || sink.Counters().Limited != 4 {
			t.Errorf("%s, %+v", d, sink.Counters())
		}
		// Or all but the first are told to come later.
		sink = newSink(t, SinkOptions{Script: Script{Rate: 2, RateReply: "451 4.7.0 slowly"}})
		if got := codes(talk(t, sink, "EHLO x\r\n"+mail+"MAIL FROM:<a@b>\r\n")); got != "220 250 250 250 354 250 451" {
			t.Error(got)
		}
		time.Sleep(500 * time.Millisecond)
		if got := codes(talk(t, sink, "EHLO x\r\nMAIL FROM:<a@b>\r\n")); got != "220 250 250" {
			t.Error(got)
		}
		// Who says nothing is told so, and left.
		sink = newSink(t, SinkOptions{Script: Script{Idle: Duration(time.Minute)}})
		client, server := Pipe()
		var serving sync.WaitGroup
		serving.Go(func() { sink.ServeConn(t.Context(), server) })
		start = time.Now()
		if out, err := io.ReadAll(client); err != nil || codes(string(out)) != "220 421" || time.Since(start) != time.Minute {
			t.Errorf("%q %v after %s", out, err, time.Since(start))
		}
		_ = client.Close()
		serving.Wait()
		// A triplet may pass once its time is over.
		sink = newSink(t, SinkOptions{Script: Script{Greylist: Duration(5 * time.Minute)}})
		for _, want := range []string{"450", "450", "250"} {
			if got := codes(talk(t, sink, "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n")); got != "220 250 250 "+want {
				t.Errorf("%s, want %s", got, want)
			}
			time.Sleep(150 * time.Second)
		}
		if c := sink.Counters(); c.Greylisted != 2 {
			t.Errorf("%+v", c)
		}
	})
}

func TestSinkSessions(t *testing.T) {
	t.Parallel()
	sink, addr := startSink(t, SinkOptions{Script: Script{Sessions: 2}})
	var open []net.Conn
	for range 3 {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		open = append(open, nc)
		line, err := bufio.NewReader(nc).ReadString('\n')
		if want := map[bool]string{true: "220", false: "421"}[len(open) <= 2]; err != nil || line[:3] != want {
			t.Errorf("%q %v, want %s", line, err, want)
		}
	}
	if c := sink.Counters(); c.SessionsPeak < 3 || c.Connections != 3 || c.Limited != 1 {
		t.Errorf("%+v", c)
	}
}

func TestSinkRunFails(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if err := newSink(t, SinkOptions{}).Run(t.Context(), l); err == nil {
		t.Error("ran on a closed listener")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := newSink(t, SinkOptions{}).Run(ctx); err != nil {
		t.Error(err)
	}
}

func TestScriptJSON(t *testing.T) {
	t.Parallel()
	want := Script{
		Hostname: "mx.example", Without: []string{"DSN"}, Size: 1000, Recipients: 5, Greylist: Duration(90 * time.Second), Rate: 1.5,
		Rules: []Rule{{At: AtRcpt, Match: "x*", From: 2, Reply: "450 4.2.1 later", Delay: Duration(time.Millisecond), Drop: DropRST, Share: 0.5}},
	}
	text, err := json.Marshal(want)
	if err != nil || !bytes.Contains(text, []byte(`"greylist":"1m30s"`)) {
		t.Fatal(string(text), err)
	}
	var got Script
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if err := json.Unmarshal([]byte(`{"greylist":"soon"}`), &got); err == nil {
		t.Error("a time that is none")
	}
}

func TestScriptValidate(t *testing.T) {
	t.Parallel()
	for _, s := range []Script{
		{Without: []string{"STARTTLS"}}, {Size: -1}, {Rate: -1}, {RateReply: "later"},
		{Rules: []Rule{{}}}, {Rules: []Rule{{At: "dot"}}}, {Rules: []Rule{{At: AtMail, Drop: "x"}}}, {Rules: []Rule{{At: AtMail, Reply: "no"}}},
		{Rules: []Rule{{At: AtMail, Reply: "2500 x"}}}, {Rules: []Rule{{At: AtMail, Reply: "250 x", Raw: "x"}}}, {Rules: []Rule{{At: AtMail, Share: 2}}},
		{Rules: []Rule{{At: AtMail, Percent: 101}}}, {Rules: []Rule{{At: AtMail, Cut: -1}}},
	} {
		if err := s.Validate(); err == nil {
			t.Errorf("%+v is taken", s)
		}
		if _, err := NewSink(SinkOptions{Script: s}); err == nil {
			t.Errorf("%+v is taken", s)
		}
	}
	sink := newSink(t, SinkOptions{})
	if sink.SetScript(Script{Size: -1}) == nil || sink.SetScript(Script{Size: 1}) != nil {
		t.Error("SetScript")
	}
}

func TestMatches(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		pattern, s string
		want       bool
	}{
		{"a", "a", true}, {"a", "b", false}, {"*", "", true}, {"*", "x", true}, {"a*", "abc", true}, {"*c", "abc", true}, {"a*c", "abc", true},
		{"a*c", "abcd", false}, {"*b*", "abc", true}, {"a**c", "ac", true}, {"*a*a*", "a", false}, {"*@x.example", "y@x.example", true}, {"", "a", false},
	} {
		if got := matches(tc.pattern, tc.s); got != tc.want {
			t.Errorf("%q %q: %v", tc.pattern, tc.s, got)
		}
	}
}

// FuzzSink: however a client's octets are cut on their way, the sink says the same and takes the same messages; and
// what it takes as the end of a message is CRLF.CRLF.
func FuzzSink(f *testing.F) {
	const envelope = "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"
	for _, s := range []string{
		"", "QUIT\r\n", envelope + "DATA\r\nhi\r\n.\r\nQUIT\r\n", envelope + "DATA\r\n.\r\n", envelope + "DATA\r\n..\r\n.\r\n.\r\n",
		envelope + "BDAT 3\r\nabcBDAT 2 LAST\r\n.\rRSET\r\n", envelope + "DATA\r\na\n.\n\r\n.\n\n.\r\n\r.\r\n.\r\nNOOP\r\n", "MAIL FROM:<\"a\\\">b\"@c>\r\n",
	} {
		f.Add([]byte(s), uint16(1))
	}
	f.Fuzz(func(t *testing.T, in []byte, cut uint16) {
		if len(in) > 60_000 {
			return
		}
		run := func(size int) (string, []string) {
			var bodies []string
			sink := newSink(t, SinkOptions{KeepBody: true, OnMessage: func(m *Received) { bodies = append(bodies, string(m.Body)) }})
			conn := &cutConn{rest: bytes.Clone(in), size: size}
			sink.ServeConn(t.Context(), conn)
			return conn.out.String(), bodies
		}
		said, took := run(len(in) + 1)
		saidCut, tookCut := run(int(cut)%97 + 1)
		if said != saidCut || !slices.Equal(took, tookCut) {
			t.Errorf("whole: %q %q\ncut: %q %q", said, took, saidCut, tookCut)
		}
		for _, body := range took {
			if strings.Contains(string(in), "BDAT") || strings.Contains(string(in), "bdat") {
				break
			}
			if len(body) > 0 && !strings.HasSuffix(body, "\r\n") {
				t.Errorf("message ends with %q", body[max(0, len(body)-5):])
			}
		}
	})
}

// cutConn gives what it has in pieces and keeps what is written.
type cutConn struct {
	net.Conn
	rest []byte
	size int
	out  bytes.Buffer
}

func (c *cutConn) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), c.size)], c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *cutConn) Write(p []byte) (int, error)     { return c.out.Write(p) }
func (c *cutConn) Close() error                    { return nil }
func (c *cutConn) SetReadDeadline(time.Time) error { return nil }
func (c *cutConn) RemoteAddr() net.Addr            { return pipeAddr("cut") }
