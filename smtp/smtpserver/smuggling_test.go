package smtpserver

import (
	"fmt"
	"strings"
	"testing"
)

// smuggles are the endings that some server somewhere takes for the end of data (SEC Consult, "SMTP Smuggling", 2023).
// None is. Those whose clean says so are odd but lawful text.
var smuggles = []struct {
	id, x string
	clean bool
}{
	{"S-1", "\n.\n", false},
	{"S-2", "\n.\r", false},
	{"S-3", "\r.\n", false},
	{"S-4", "\r.\r", false},
	{"S-5", "\n.\r\n", false},
	{"S-6", "\r.\r\n", false},
	{"S-7", "\r\n.\n", false},
	{"S-8", "\r\n.\r", false},
	{"S-9", "\r\n.\r\r\n", false},
	{"S-10", "\r\r\n.\r\r\n", false},
	{"S-11", "\r\n\x00.\r\n", false},
	{"S-12", "\r\n.\x00\r\n", false},
	{"S-13", "\r\n .\r\n", true},
	{"S-14", "\r\n. \r\n", true},
	{"S-15", "\r\n.\t\r\n", true},
	{"S-16", "\r\v.\r\v", false},
	{"S-17", "\r\f.\r\f", false},
	{"S-18", "\xc2\x85.\xc2\x85", true},
	{"S-19", "\xe2\x80\xa8.\xe2\x80\xa8", true},
	{"S-20", "\r\x00\n\x00.\x00\r\x00\n\x00", false},
}

const (
	smuggleHead = "Subject: x\r\nFrom: a@example.org\r\n"
	smuggled    = "MAIL FROM:<evil@example.org>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\n" +
		"Subject: smuggled\r\n\r\nboo\r\n"
)

// smugglePositions place the ending x in a message.
var smugglePositions = []struct {
	id   string
	data func(x string) string
}{
	{"a-body", func(x string) string { return smuggleHead + "\r\ntext" + x + smuggled }},
	{"b-behind-header", func(x string) string { return smuggleHead + x + smuggled }},
	{"c-first", func(x string) string { return strings.TrimPrefix(x, "\r\n") + smuggled }},
	{"d-beyond-size", func(x string) string {
		return smuggleHead + "\r\n" + strings.Repeat("0123456789abcdef\r\n", 1+(64<<10)/18) + "text" + x + smuggled
	}},
	{"g-attachment", func(x string) string {
		return smuggleHead + "Content-Type: message/rfc822\r\n\r\n" + smuggleHead + "\r\ninner" + x + smuggled
	}},
}

// smugglePieces cut what is sent.
var smugglePieces = []struct {
	id   string
	send func(c *client, text string)
}{
	{"whole", func(c *client, text string) { c.send(text) }},
	{"e-octets", func(c *client, text string) {
		// Only the end of a long text is cut into octets; nothing in its begin depends on cuts.
		head := max(0, len(text)-400)
		if head > 0 {
			c.send(text[:head])
		}
		for i := range len(text) - head {
			c.send(text[head+i : head+i+1])
		}
	}},
}

// TestSmuggling sends every ending in every position: there is one reply to the data, nothing behind the ending is
// taken for a command, and what is accepted is one message without stray CR or LF.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	for _, normalize := range []bool{false, true} {
		for _, pos := range smugglePositions {
			for _, piece := range smugglePieces {
				t.Run(fmt.Sprintf("normalize=%v/%s/%s", normalize, pos.id, piece.id), func(t *testing.T) {
					t.Parallel()
					b := &backend{}
					c := dial(t, newTestServer(t, b, func(o *Options) {
						o.Normalize = normalize
						o.Limits.MessageBytes = 64 << 10
						o.Limits.IdleCommands = 1000
					}))
					c.hello()
					for _, s := range smuggles {
						want := "554 5.6.0"
						switch {
						case strings.HasPrefix(pos.id, "d"):
							want = "55" // for its size or its octets, whichever is seen first
						case strings.Contains(s.x, "\x00"):
						case s.clean, normalize:
							want = "250 2.0.0"
						}
						trySmuggle(t, c, b, s.id, pos.data(s.x), want, piece.send)
					}
					c.quit()
				})
			}
		}
	}
}

func trySmuggle(t *testing.T, c *client, b *backend, id, data, want string, send func(c *client, text string)) {
	t.Helper()
	before := len(b.messages())
	c.envelope()
	c.do("DATA => 354")
	send(c, data+"end\r\n.\r\n")
	if got := c.reply(); !strings.HasPrefix(got, want) {
		t.Errorf("%s: reply %q, want %s", id, got, want)
	}
	// No further reply is on its way, and the envelope is empty.
	c.do("NOOP => 250", "RCPT TO:<x@example.net> => 503")
	messages := b.messages()[before:]
	if accepted := strings.HasPrefix(want, "2"); len(messages) > 1 || (len(messages) == 1) != accepted {
		t.Fatalf("%s: %d messages", id, len(messages))
	}
	for _, m := range messages {
		stray := strings.ContainsAny(strings.ReplaceAll(m.body, "\r\n", ""), "\r\n")
		if stray || !strings.Contains(m.body, "smuggled") {
			t.Errorf("%s: body %q", id, m.body)
		}
		if m.env.From.Local != "a" || len(m.env.Recipients) != 1 {
			t.Errorf("%s: envelope %+v", id, m.env)
		}
	}
}

// TestSmugglingAtOffsets puts each ending across the borders of buffers (position f).
func TestSmugglingAtOffsets(t *testing.T) {
	t.Parallel()
	for _, border := range []int{4096, 8192, 16384, 32768, 65536} {
		t.Run(fmt.Sprint(border), func(t *testing.T) {
			t.Parallel()
			b := &backend{}
			c := dial(t, newTestServer(t, b, func(o *Options) {
				o.Logger = nil
				o.Limits.IdleCommands, o.Limits.BadCommands = 1<<20, 1<<20
			}))
			c.hello()
			for _, s := range smuggles {
				for shift := range len(s.x) + 1 {
					text := smuggleHead + "\r\n"
					text += strings.Repeat("0123456789abcdef\r\n", (border-shift-len(text))/18)
					text += strings.Repeat("y", border-shift-len(text))
					want := "554 5.6.0"
					if s.clean {
						want = "250 2.0.0"
					}
					trySmuggle(t, c, b, s.id, text+s.x+smuggled, want, smugglePieces[0].send)
				}
			}
			c.quit()
		})
	}
}

// TestSmugglingByChunks sends the endings over BDAT (position h), where the number of octets alone is the frame.
func TestSmugglingByChunks(t *testing.T) {
	t.Parallel()
	for _, normalize := range []bool{false, true} {
		b := &backend{}
		c := dial(t, newTestServer(t, b, func(o *Options) {
			o.Normalize = normalize
			o.Limits.BadCommands = 1000
		}))
		c.hello()
		for _, s := range smuggles {
			want := "554 5.6.0"
			switch {
			case strings.Contains(s.x, "\x00"):
			case s.clean, normalize:
				want = "250 2.0.0"
			}
			body := smuggleHead + "\r\ntext" + s.x + smuggled
			before := len(b.messages())
			c.envelope()
			c.send(fmt.Sprintf("BDAT %d LAST\r\n%s", len(body), body))
			c.want(want)
			c.do("NOOP => 250", "RCPT TO:<x@example.net> => 503")
			messages := b.messages()[before:]
			if (len(messages) == 1) != strings.HasPrefix(want, "2") {
				t.Fatalf("%s: %d messages", s.id, len(messages))
			}
			if len(messages) == 1 && !normalize && messages[0].body != body {
				t.Errorf("%s: body %q", s.id, messages[0].body)
			}
		}
		c.quit()
	}
}

// TestPipelinedBehindData: what follows the true end in the same segment is the next transaction, and works.
func TestPipelinedBehindData(t *testing.T) {
	t.Parallel()
	b := &backend{}
	c := dial(t, newTestServer(t, b, nil))
	c.hello()
	var group strings.Builder
	for i := range 50 {
		fmt.Fprintf(&group, "MAIL FROM:<a%d@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n", i)
		fmt.Fprintf(&group, "Subject: %d\r\n\r\n%s.\r\n", i, lines(40, 70))
	}
	go c.send(group.String() + "QUIT\r\n")
	for range 50 {
		c.want("250 2.1.0", "250 2.1.5", "354", "250 2.0.0 queued")
	}
	c.want("221")
	c.wantEnd()
	for i, m := range b.messages() {
		if m.env.From.Local != fmt.Sprintf("a%d", i) || !strings.HasSuffix(m.body, "\r\n\r\n"+lines(40, 70)) {
			t.Errorf("message %d is from %s", i, m.env.From.Local)
		}
	}
}
