package smtpserver

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/godwit-mta/godwit/smtp"
)

// TestCommandLineLimit is Z-1: a line is refused as soon as it is too long; one that ends within reason costs only
// itself.
func TestCommandLineLimit(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		length int // with CRLF
		want   string
	}{
		{511, "250"}, {512, "250"}, {513, "250"}, {998, "250"}, {1001, "250"}, {2048, "250"}, {2049, "500"},
		{4097, "500"}, {4098, "500"}, {4099, "500"}, {12288, "500"}, {1 << 19, "500"},
	} {
		c := dial(t, newTestServer(t, &backend{}, nil))
		c.hello()
		go c.send("NOOP " + strings.Repeat("x", tt.length-7) + "\r\nNOOP\r\n")
		c.want(tt.want, "250")
		c.quit()
	}
}

// TestEndlessCommandLine is Z-1 at its worst: the refusal comes while the line still does, and then the session ends.
func TestEndlessCommandLine(t *testing.T) {
	t.Parallel()
	c := dial(t, newTestServer(t, &backend{}, nil))
	sent := make(chan int)
	go func() {
		n := 0
		piece := []byte(strings.Repeat("x", 64<<10))
		for {
			k, err := c.conn.Write(piece)
			if n += k; err != nil {
				sent <- n
				return
			}
		}
	}()
	c.want("500 5.5.2")
	if rest := c.wantEnd(); rest != "" {
		t.Errorf("then %q", rest)
	}
	if n := <-sent; n > maxSkipped+2*(64<<10) {
		t.Errorf("%d octets were read", n)
	}
}

// TestCommandOctets is Z-8 and R-23 for commands: they are refused and the session goes on, but LF without CR ends it.
func TestCommandOctets(t *testing.T) {
	t.Parallel()
	c := dial(t, newTestServer(t, &backend{}, nil))
	c.hello()
	c.do("NOOP \x00 => 500 5.5.2", "\x00 => 500", "NO\x00OP => 500", "NOOP \x1b[0m => 500", "NOOP\tx => 500",
		"MAIL FROM:<a\x00@example.org> => 50", "NOOP \r => 500", "NO\rOP => 500", " => 500", "  => 500",
		"NOOP \xff\xfe => 501 5.5.2", "NOOP \xed\xa0\x80 => 501", "NOOP ü => 250")
	c.quit()

	c = dial(t, newTestServer(t, &backend{}, nil))
	c.hello()
	c.send("MAIL FROM:<a@example.org>\nRCPT TO:<b@example.net>\r\n")
	c.want("500 5.5.2")
	if rest := c.wantEnd(); rest != "" {
		t.Errorf("then %q", rest)
	}

	b := &backend{}
	c = dial(t, newTestServer(t, b, func(o *Options) { o.Normalize = true }))
	c.send("EHLO x\nMAIL FROM:<a@example.org>\nRCPT TO:<b@example.net>\nDATA\n")
	c.want("250", "250", "250", "354")
	c.send("Subject: x\n\ntext\n.\n..b\n.\r\n\r\n.\r\nQUIT\n")
	c.want("250", "221")
	c.wantEnd()
	if m := b.messages(); len(m) != 1 || m[0].body != "Subject: x\r\n\r\ntext\r\n.\r\n.b\r\n.\r\n\r\n" {
		t.Errorf("%+v", m)
	}
}

// TestForeignProtocols is T-ALPACA: who speaks HTTP or TLS gets at most one reply.
func TestForeignProtocols(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "POST /x HTTP/1.0\r\n\r\nMAIL FROM:<a@b>\r\n",
		"CONNECT x:25 HTTP/1.1\r\n\r\n", "GET /\r\n", "Host: x\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "\x16",
	} {
		b := &backend{}
		c := dial(t, newTestServer(t, b, nil))
		go func() { _, _ = c.conn.Write([]byte(text)) }()
		c.want("554 5.5.0")
		if rest := c.wantEnd(); rest != "" {
			t.Errorf("%.20q: then %q", text, rest)
		}
	}
}

func TestBadAndIdleCommands(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, line string
		count      int
		code, end  string
	}{
		{"bad", "XYZZY\r\n", 21, "500", "421 4.7.0 Too many bad commands"},
		{"bad order", "RCPT TO:<a@example.org>\r\n", 21, "503", "421 4.7.0 Too many bad commands"},
		{"P-3 NOOP", "NOOP\r\n", 100, "250", "421 4.7.0 Too many commands without mail"},
		{"P-3 RSET", "RSET\r\n", 100, "250", "421 4.7.0 Too many commands without mail"},
		{"P-3 EHLO", "EHLO x\r\n", 100, "250", "421 4.7.0 Too many commands without mail"},
		{"P-3 VRFY", "VRFY x\r\n", 100, "252", "421 4.7.0 Too many commands without mail"},
	}
	for _, tt := range tests {
		c := dial(t, newTestServer(t, &backend{}, nil))
		go func() { _, _ = c.conn.Write([]byte(strings.Repeat(tt.line, 10000))) }()
		for range tt.count {
			c.want(tt.code)
		}
		c.want(tt.end)
		c.wantEnd()
	}
}

// TestRefusedSenders: a client that tries senders without end is let go too.
func TestRefusedSenders(t *testing.T) {
	t.Parallel()
	b := &backend{onMail: func(*smtp.Sender) smtp.Reply { return smtp.Reply{Code: 550, Text: "no"} }}
	c := dial(t, newTestServer(t, b, nil))
	c.hello()
	for range 99 {
		c.do("MAIL FROM:<a@example.org> => 550")
	}
	c.do("MAIL FROM:<a@example.org> => 550")
	c.want("421")
	c.wantEnd()
}

// TestIdleBudgetReturns with each message, so that a client that resets before each is served for ever.
func TestIdleBudgetReturns(t *testing.T) {
	t.Parallel()
	b := &backend{}
	c := dial(t, newTestServer(t, b, func(o *Options) { o.Logger = nil }))
	c.hello()
	for range 250 {
		c.do("RSET => 250")
		c.envelope()
		c.send("BDAT 3 LAST\r\nx\r\n")
		c.want("250")
	}
	c.quit()
	if n := len(b.messages()); n != 250 {
		t.Errorf("%d messages", n)
	}
}

// TestRecipientLimit is P-4: beyond the limit 452, and those before stay valid.
func TestRecipientLimit(t *testing.T) {
	t.Parallel()
	b := &backend{}
	c := dial(t, newTestServer(t, b, func(o *Options) { o.Logger = nil }))
	c.hello()
	c.do("MAIL FROM:<a@example.org> => 250")
	go c.send(strings.Repeat("RCPT TO:<b@example.net>\r\n", 10000) + "DATA\r\n")
	for i := range 10000 {
		if i < 1000 {
			c.want("250")
		} else {
			c.want("452 4.5.3")
		}
	}
	c.want("354")
	c.send(".\r\n")
	c.want("250")
	c.quit()
	if n := len(b.messages()[0].env.Recipients); n != 1000 {
		t.Errorf("%d recipients", n)
	}
}

// TestMessageSize is Z-9 and the end of a message that is too large: it is read to its true end, its memory given back
// on the way.
func TestMessageSize(t *testing.T) {
	t.Parallel()
	b := &backend{}
	s := newTestServer(t, b, func(o *Options) { o.Limits.MessageBytes = 1 << 20 })
	c := dial(t, s)
	c.hello()
	c.do("MAIL FROM:<a@example.org> SIZE=1048577 => 552 5.3.4", "MAIL FROM:<a@example.org> SIZE=1048576 => 250",
		"RCPT TO:<b@example.net> => 250", "DATA => 354")
	body := "\r\n" + lines(20000, 70)
	c.send(body[:1<<20-10000])
	if n := held(s); n < 1<<19 {
		t.Errorf("%d octets held", n)
	}
	c.send(body[1<<20-10000:])
	if n := held(s); n != 0 {
		t.Errorf("%d octets held of a message that is too large", n)
	}
	c.send(".\r\n")
	c.want("552 5.3.4")
	c.do("DATA => 503")
	c.do("MAIL FROM:<a@example.org> SIZE=1 => 250", "RCPT TO:<b@example.net> => 250", "DATA => 354") // it lies
	c.send("\r\n" + lines(1000, 70) + ".\r\n")
	c.want("250")
	c.quit()
	if m := b.messages(); len(m) != 1 || m[0].env.From.Size != 1 {
		t.Errorf("%d messages", len(m))
	}
}

// TestHeaderAndLineLimits is Z-2 and Z-3 in a session.
func TestHeaderAndLineLimits(t *testing.T) {
	t.Parallel()
	c := dial(t, newTestServer(t, &backend{}, nil))
	c.hello()
	for _, tt := range []struct{ name, body, want string }{
		{"line of 64 KiB", "\r\n" + strings.Repeat("x", 64<<10) + "\r\n", "250"},
		{"longer line", "\r\n" + strings.Repeat("x", 64<<10+1) + "\r\n", "554 5.6.0"},
		{"line of 5 MB", "\r\n" + strings.Repeat("x", 5<<20) + "\r\n", "554 5.6.0"},
		{"100,000 fields", strings.Repeat("X: y\r\n", 100000) + "\r\n", "552 5.3.4"},
		{"fields of 255 KiB", strings.Repeat("X: y\r\n", 255<<10/6) + "\r\n", "250"},
		{"folded 1 MB", "X: y\r\n" + strings.Repeat(" z\r\n", 1<<18) + "\r\n", "552 5.3.4"},
	} {
		c.envelope()
		c.do("DATA => 354")
		c.send(tt.body + ".\r\n")
		if got := c.reply(); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: reply %q, want %s", tt.name, got, tt.want)
		}
	}
	c.quit()
}

// TestMemoryLimit: what all sessions hold together is bounded; who comes too late is put off, not refused.
func TestMemoryLimit(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, &backend{}, func(o *Options) { o.Memory = smtp.NewBudget(512 << 10) })
	first, second := dial(t, s), dial(t, s)
	for _, c := range []*client{first, second} {
		c.hello()
		c.envelope()
		c.do("DATA => 354")
	}
	body := "\r\n" + lines(2500, 70)
	first.send(body)
	second.send(body + ".\r\n")
	second.want("452 4.3.1")
	first.send(".\r\n")
	first.want("250")
	second.envelope()
	second.do("DATA => 354")
	second.send(body + ".\r\n")
	second.want("250")
	first.quit()
	second.quit()
	if n := held(s); n != 0 {
		t.Errorf("%d octets held", n)
	}
}

// recorder notes each write of the server.
type recorder struct {
	net.Conn
	writes []string
}

func (r *recorder) Write(p []byte) (int, error) {
	r.writes = append(r.writes, string(p))
	return r.Conn.Write(p)
}

// TestUncork is P-6: the replies to a group of commands leave in one write, before the server waits.
func TestUncork(t *testing.T) {
	t.Parallel()
	near, far := memoryPipe()
	server := &recorder{Conn: far}
	envelope := "MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\n"
	_, _ = near.Write([]byte("EHLO x\r\n" + envelope + "RCPT TO:<c@example.net>\r\nDATA\r\n" +
		"x\r\n.\r\n" + envelope + "BDAT 3 LAST\r\nx\r\nQUIT\r\n"))
	newTestServer(t, &backend{}, nil).ServeConn(t.Context(), server)
	all, _ := io.ReadAll(near)
	_ = near.Close()
	// The greeting leaves alone. Before the second message is handed over the client is told of the first.
	w := server.writes
	if len(w) != 3 || !strings.HasPrefix(w[0], "220 ") || strings.Count(w[0], "\n") != 1 ||
		!strings.HasSuffix(w[1], "250 2.1.5 Recipient OK\r\n") || strings.Count(w[2], "\n") != 2 {
		t.Errorf("%d writes: %q", len(w), w)
	}
	if !strings.HasSuffix(string(all), "221 2.0.0 Bye\r\n") {
		t.Errorf("%q", all)
	}
}

// TestPipelinedPastEhlo is P-2: a client that does not wait where it should is answered in order.
func TestPipelinedPastEhlo(t *testing.T) {
	t.Parallel()
	b := &backend{}
	c := dial(t, newTestServer(t, b, nil))
	go c.send("EHLO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\nx\r\n.\r\nQUIT\r\nNOOP\r\n")
	c.want("250", "250", "250", "354", "250", "221")
	if rest := c.wantEnd(); rest != "" {
		t.Errorf("then %q", rest)
	}
	if n := len(b.messages()); n != 1 {
		t.Errorf("%d messages", n)
	}
}

// TestBackendReplies holds what the engine does with the backend's words.
func TestBackendReplies(t *testing.T) {
	t.Parallel()
	tests := []struct {
		give smtp.Reply
		want string
		ends bool
	}{
		{smtp.Reply{}, "250 2.1.0 Sender OK", false},
		{smtp.Reply{Code: 250, Text: "fine"}, "250 fine", false},
		{say(530, 7, 0, "a\nb"), "530-5.7.0 a\n530 5.7.0 b", false},
		{say(421, 3, 0, "bye"), "421 4.3.0 bye", true},
		{smtp.Reply{Code: 354, Text: "go on"}, "451 4.3.0", false},
		{smtp.Reply{Code: 99, Text: "x"}, "451 4.3.0", false},
		{smtp.Reply{Code: 250, Text: "a\r\n550 b"}, "451 4.3.0", false},
		{smtp.Reply{Code: 250, Text: "a\x1b[0m"}, "451 4.3.0", false},
	}
	for _, tt := range tests {
		b := &backend{onMail: func(*smtp.Sender) smtp.Reply { return tt.give }}
		c := dial(t, newTestServer(t, b, nil))
		c.hello()
		c.do("MAIL FROM:<a@example.org> => " + tt.want)
		if tt.ends {
			c.wantEnd()
			continue
		}
		accepted := strings.HasPrefix(tt.want, "250")
		c.do("RCPT TO:<b@example.net> => " + map[bool]string{true: "250", false: "503"}[accepted])
		c.quit()
	}
}

// TestRefusedConnection: the backend may refuse before the greeting.
func TestRefusedConnection(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		give smtp.Reply
		want string
	}{
		{say(554, 7, 1, "not you"), "554 5.7.1 not you"},
		{smtp.Reply{Code: 421, Text: "later"}, "421 later"},
		{smtp.Reply{Code: 250, Text: "what"}, "451 4.3.0"},
	} {
		b := &backend{onSession: func(*Peer) smtp.Reply { return tt.give }}
		c := dialSilent(t, newTestServer(t, b, nil))
		c.want(tt.want)
		if rest := c.wantEnd(); rest != "" {
			t.Errorf("then %q", rest)
		}
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	good := Options{Hostname: "mx.example.org", Backend: &backend{}}
	for name, change := range map[string]func(o *Options){
		"no hostname":     func(o *Options) { o.Hostname = "" },
		"hostname":        func(o *Options) { o.Hostname = "a b" },
		"no backend":      func(o *Options) { o.Backend = nil },
		"banner":          func(o *Options) { o.Banner = "a\r\nb" },
		"greeting delay":  func(o *Options) { o.GreetingDelay = -1 },
		"drain timeout":   func(o *Options) { o.DrainTimeout = -1 },
		"command line":    func(o *Options) { o.Limits.CommandLine = 511 },
		"text line":       func(o *Options) { o.Limits.TextLine = 997 },
		"message":         func(o *Options) { o.Limits.MessageBytes = -1 },
		"recipients":      func(o *Options) { o.Limits.Recipients = 99 },
		"command timeout": func(o *Options) { o.Limits.CommandTimeout = 1 },
		"data rate":       func(o *Options) { o.Limits.MinDataRate = -1 },
	} {
		o := good
		change(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	s, err := New(good)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetLimits(Limits{Recipients: 1}); err == nil {
		t.Error("bad limits were accepted")
	}
	old := dial(t, s)
	if err := s.SetLimits(Limits{MessageBytes: 99999}); err != nil {
		t.Fatal(err)
	}
	fresh := dial(t, s)
	for c, want := range map[*client]string{old: fmt.Sprint(50 << 20), fresh: "99999"} {
		c.send("EHLO x\r\n")
		if got := c.reply(); !strings.Contains(got, "SIZE "+want+"\n") {
			t.Errorf("%q has no SIZE %s", got, want)
		}
		c.quit()
	}
}
