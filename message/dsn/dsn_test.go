package dsn_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/message/dsn"
	"github.com/godwit-mta/godwit/smtp"
)

var update = flag.Bool("update", false, "rewrite the files in testdata")

var (
	noon  = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	later = noon.Add(72 * time.Hour)
	bob   = smtp.Path{Local: "bob", Domain: "example.net"}

	header = wire("From: Ann <ann@example.org>\nTo: bob@example.net\nSubject: Lunch on Friday?\n" +
		"Message-ID: <1@example.org>\nDate: Mon, 02 Mar 2026 09:00:00 +0000\n")
	whole = slices.Concat(header, wire("\nHow about noon?\n.\n--=_report_\n"))
)

// wire turns the line ends of a literal to CRLF.
func wire(s string) []byte { return []byte(strings.ReplaceAll(s, "\n", "\r\n")) }

func code(class, subject, detail uint16) smtp.EnhancedCode {
	return smtp.EnhancedCode{Class: class, Subject: subject, Detail: detail}
}

func reply(n int, c smtp.EnhancedCode, text string) smtp.Reply {
	return smtp.Reply{Code: n, Enhanced: c, Text: text}
}

// base returns a report of one failure, for tests to change.
func base() dsn.Report {
	return dsn.Report{
		Action: dsn.Failed, ReportingMTA: "mta1.example.com", From: "MAILER-DAEMON@mta1.example.com", To: "ann@example.org",
		Now: noon, Original: header,
		Recipients: []dsn.RecipientStatus{{
			Action: dsn.Failed, Final: bob, Status: code(5, 1, 1), RemoteMTA: "mx1.example.net", LastAttempt: noon,
			Diagnostic: reply(550, code(5, 1, 1), "No such user here"),
		}},
	}
}

func reports() map[string]dsn.Report {
	failed := base()
	failed.EnvelopeID, failed.Arrival, failed.MessageID = "QQ314159", noon.Add(-time.Hour), "r1@mta1.example.com"
	failed.Original, failed.OriginalIsFull = whole, true
	failed.Recipients[0].Original = smtp.OriginalRecipient{Type: "rfc822", Address: "Bob@Example.net"}

	many := base()
	many.Recipients = append(many.Recipients,
		dsn.RecipientStatus{Action: dsn.Failed, Final: smtp.Path{Local: "full", Domain: "example.net"}, Status: code(5, 2, 2),
			RemoteMTA: "mx1.example.net", Diagnostic: reply(552, code(5, 2, 2), "Mailbox full"), LastAttempt: noon},
		dsn.RecipientStatus{Action: dsn.Failed, Final: smtp.Path{Local: "x", Domain: "missing.example"}, Status: code(5, 1, 2),
			Explanation: "the domain name missing.example does not exist", LastAttempt: noon},
		dsn.RecipientStatus{Action: dsn.Failed, Final: smtp.Path{Local: "old one", Domain: "example.com"}, Status: code(4, 4, 7),
			RemoteMTA: "mx.example.com", Diagnostic: reply(451, code(4, 7, 1), "Greylisted, come back later"),
			Explanation: "given up after 3 days", LastAttempt: noon})

	delayed := base()
	delayed.Action, delayed.Recipients[0] = dsn.Delayed, dsn.RecipientStatus{
		Action: dsn.Delayed, Final: bob, Status: code(4, 4, 1), LastAttempt: noon, WillRetryUntil: later,
		Explanation: "connection refused by mx1.example.net [192.0.2.1]:25",
	}

	delivered := base()
	delivered.Action, delivered.Original = dsn.Delivered, nil
	delivered.Recipients[0] = dsn.RecipientStatus{Action: dsn.Delivered, Final: bob, Status: code(2, 1, 5), RemoteMTA: "mx1.example.net",
		Diagnostic: reply(250, code(2, 1, 5), "Delivered"), LastAttempt: noon}

	relayed := delivered
	relayed.Action = dsn.Relayed
	relayed.Recipients = []dsn.RecipientStatus{{Action: dsn.Relayed, Final: bob, Status: code(2, 0, 0), LastAttempt: noon}}

	utf8 := base()
	utf8.UTF8, utf8.To = true, "änn@example.org"
	utf8.Original = wire("From: Änn <änn@example.org>\nSubject: Grüße an alle\n")
	utf8.Recipients[0].Final = smtp.Path{Local: "jürgen", Domain: "bücher.example"}
	utf8.Recipients[0].Original = smtp.OriginalRecipient{Type: "utf-8", Address: "jürgen@bücher.example"}
	utf8.Recipients[0].Diagnostic = reply(550, code(5, 1, 1), "Unbekannter Empfänger")

	seven := utf8
	seven.UTF8, seven.To = false, "ann@example.org"
	seven.Recipients = slices.Clone(utf8.Recipients)
	seven.Recipients[0].Diagnostic = reply(550, code(5, 1, 1), "no such user")

	return map[string]dsn.Report{
		"failed": failed, "many": many, "delayed": delayed, "delivered": delivered, "relayed": relayed, "utf8": utf8, "seven-bit": seven,
	}
}

func compose(t *testing.T, r dsn.Report) []byte {
	t.Helper()
	p, err := r.Compose()
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(p) {
		if body, ok := bytes.CutSuffix(line, []byte("\r\n")); !ok || len(body) > 998 || bytes.ContainsAny(body, "\r\x00\x1b") {
			t.Errorf("line %q", line)
		}
	}
	return p
}

func TestCompose(t *testing.T) {
	t.Parallel()
	for name, r := range reports() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := compose(t, r)
			if again := compose(t, r); !bytes.Equal(got, again) {
				t.Error("two reports of the same differ")
			}
			if !r.UTF8 && !isASCII(got) {
				t.Error("not 7-bit")
			}
			file := filepath.Join("testdata", name+".eml")
			if *update {
				if err := os.WriteFile(file, bytes.ReplaceAll(got, []byte("\r\n"), []byte("\n")), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(wire(string(want))), string(got)); diff != "" {
				t.Errorf("differs from %s (-update rewrites it):\n%s", file, diff)
			}
		})
	}
}

func isASCII(p []byte) bool {
	return bytes.IndexFunc(p, func(c rune) bool { return c > unicode.MaxASCII }) < 0
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for name, r := range reports() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := dsn.Parse(compose(t, r))
			if err != nil {
				t.Fatal(err)
			}
			want := r
			want.Recipients = slices.Clone(r.Recipients)
			for i := range want.Recipients {
				if !want.Recipients[i].Diagnostic.IsZero() {
					want.Recipients[i].Explanation = "" // it is for people, the reply is for programs
				}
			}
			if diff := cmp.Diff(&want, got); diff != "" {
				t.Errorf("(-composed +parsed)\n%s", diff)
			}
		})
	}
}

// the class of the status agrees with the action.
// TestFoldingKeepsWords: who unfolds by the book, taking out line ends alone (RFC 5322, 2.2.3), has the remote's words as
// they were; with a tab in the fold they had one too.
func TestFoldingKeepsWords(t *testing.T) {
	t.Parallel()
	const words = "<somebody@example.net> User doesn't exist here and has not for as long as anyone remembers: somebody"
	r := base()
	r.Recipients[0].Diagnostic = reply(550, code(5, 1, 1), words)
	p, err := r.Compose()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(bytes.ReplaceAll(p, []byte("\r\n "), []byte(" ")), []byte("Diagnostic-Code: smtp; 550 5.1.1 "+words+"\r\n")) {
		t.Errorf("the words are not in:\n%s", p)
	}
}

func TestQ7StatusAgreesWithAction(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		action dsn.Action
		status smtp.EnhancedCode
		reply  smtp.Reply
		want   string
	}{
		{dsn.Failed, code(5, 1, 1), smtp.Reply{}, "5.1.1"},
		{dsn.Failed, code(4, 4, 7), smtp.Reply{}, "4.4.7"},
		{dsn.Failed, code(2, 1, 5), smtp.Reply{}, "5.0.0"},
		{dsn.Failed, smtp.EnhancedCode{}, smtp.Reply{}, "5.0.0"},
		{dsn.Failed, smtp.EnhancedCode{}, reply(552, code(5, 2, 2), "full"), "5.2.2"},
		{dsn.Failed, smtp.EnhancedCode{}, reply(452, code(4, 2, 2), "full"), "4.2.2"},
		{dsn.Failed, code(9, 1, 1), smtp.Reply{}, "5.1.1"},
		{dsn.Delayed, code(4, 4, 1), smtp.Reply{}, "4.4.1"},
		{dsn.Delayed, code(5, 4, 1), smtp.Reply{}, "4.4.1"},
		{dsn.Delayed, smtp.EnhancedCode{}, smtp.Reply{}, "4.0.0"},
		{dsn.Delivered, code(2, 1, 5), smtp.Reply{}, "2.1.5"},
		{dsn.Delivered, code(5, 1, 1), smtp.Reply{}, "2.0.0"},
		{dsn.Relayed, smtp.EnhancedCode{}, smtp.Reply{}, "2.0.0"},
		{dsn.Expanded, code(4, 0, 0), smtp.Reply{}, "2.0.0"},
	} {
		r := base()
		r.Action, r.Recipients[0] = c.action, dsn.RecipientStatus{Final: bob, Status: c.status, Diagnostic: c.reply}
		p := compose(t, r)
		if want := "\r\nAction: " + c.action.String() + "\r\nStatus: " + c.want + "\r\n"; !bytes.Contains(p, []byte(want)) {
			t.Errorf("%v with %v and %v: no %q in\n%s", c.action, c.status, c.reply, want, p)
		}
	}
}

// I-8: what a remote says cannot leave its place, whatever it is.
func TestI8HostileReply(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"line ends":   "no\r\nAction: delivered\r\n\r\nFinal-Recipient: rfc822; eve@example.com\r\nStatus: 2.0.0",
		"bare CR":     "no\rAction: delivered",
		"escapes":     "\x1b[2J\x1b[31mred\x07",
		"NUL":         "a\x00b",
		"8-bit":       "kein Empf\xe4nger",
		"UTF-8":       "Empfänger\u2028unbekannt\u202edrow",
		"huge":        strings.Repeat("x", 1<<20),
		"many lines":  strings.Repeat("line of a reply\n", 10_000),
		"long lines":  strings.Repeat(strings.Repeat("y", 2000)+"\n", 20),
		"a boundary":  "--=_report_000000000000000000000000--",
		"long spaces": "a" + strings.Repeat(" ", 5000) + "b",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, utf := range []bool{false, true} {
				r := base()
				r.UTF8 = utf
				if utf {
					r.To = "änn@example.org"
				}
				r.Recipients[0].Diagnostic.Text = text
				r.Recipients[0].RemoteMTA = text
				r.Recipients[0].Explanation = text
				r.ReportingMTA, r.EnvelopeID = text, text
				r.Recipients[0].Original = smtp.OriginalRecipient{Type: text, Address: text}
				r.Recipients[0].Final = smtp.Path{Local: text, Domain: "example.net"}
				p := compose(t, r)
				if len(p) > 40_000 || !utf && !isASCII(p) {
					t.Errorf("%d octets", len(p))
				}
				if n := bytes.Count(p, []byte("\r\nFinal-Recipient:")); n != 1 {
					t.Errorf("%d recipients", n)
				}
				got, err := dsn.Parse(p)
				if err != nil || len(got.Recipients) != 1 || got.Recipients[0].Action != dsn.Failed || got.Recipients[0].Status != code(5, 1, 1) {
					t.Errorf("parsed as %+v, %v", got, err)
				}
			}
		})
	}
}

func TestHostileOriginal(t *testing.T) {
	t.Parallel()
	for name, original := range map[string]string{
		"subject":    "Subject: =?utf-8?q?a=0D=0ABcc:_x=1B[0m=E2=80=AE?=\n",
		"message id": "Message-ID: <a b>\n",
		"no id":      "Message-ID: <" + strings.Repeat("x", 2000) + "@b>\n",
		"long line":  "X: " + strings.Repeat("x", 5000) + "\n",
		"8-bit":      "Subject: Gr\xfc\xdfe\n",
		"no header":  "what is this\n",
		"boundary":   "X: --=_report_\n",
	} {
		for _, full := range []bool{false, true} {
			r := base()
			r.Original, r.OriginalIsFull = wire(original), full
			p := compose(t, r)
			if !isASCII(p) {
				t.Errorf("%s: not 7-bit", name)
			}
			h, err := message.ParseHeader(p)
			if err != nil || h.Count("Bcc") != 0 || h.Count("In-Reply-To") != 0 {
				t.Errorf("%s: %v\n%s", name, err, h.Bytes())
			}
			if got, err := dsn.Parse(p); err != nil || !full && !bytes.Equal(got.Original, wire(original)) {
				t.Errorf("%s: the header comes back as %q, %v", name, got.Original, err)
			}
		}
	}
}

func TestReturnedMessageIsBounded(t *testing.T) {
	t.Parallel()
	line := strings.Repeat("x", 76) + "\r\n"
	for _, c := range []struct {
		name string
		body string
		full bool // returned whole
	}{
		{"small", "short\r\n", true},
		{"8-bit", "Gr\xc3\xbc\xc3\x9fe\r\n", true},
		{"just fits", strings.Repeat(line, (dsn.MaxOriginal-len(header)-2)/78), true},
		{"too large", strings.Repeat(line, dsn.MaxOriginal/78+1), false},
		{"long line", strings.Repeat("x", 999) + "\r\n", false},
		{"bare LF", "a\nb\r\n", false},
		{"bare CR", "a\rb\r\n", false},
		{"NUL", "a\x00b\r\n", false},
	} {
		r := base()
		r.Original, r.OriginalIsFull = slices.Concat(header, []byte("\r\n"+c.body)), true
		p, err := r.Compose()
		if err != nil {
			t.Fatal(err)
		}
		got, err := dsn.Parse(p)
		if err != nil || got.OriginalIsFull != c.full {
			t.Fatalf("%s: whole %v, %v", c.name, got.OriginalIsFull, err)
		}
		want := header
		if c.full {
			want = r.Original
		}
		if !bytes.Equal(got.Original, want) {
			t.Errorf("%s: %d octets came back, not %d", c.name, len(got.Original), len(want))
		}
	}
	r := base()
	r.Original = bytes.Repeat([]byte("X-Filler: "+line), 2000)
	got, err := dsn.Parse(compose(t, r))
	if err != nil || len(got.Original) > dsn.MaxOriginal || len(got.Original) < dsn.MaxOriginal-100 || !bytes.HasSuffix(got.Original, []byte("x\r\n")) {
		t.Errorf("a long header: %d octets, %v", len(got.Original), err)
	}
	r.Original = bytes.Repeat([]byte("X: y\r\n"), message.MaxHeaderFields+1)
	if p := compose(t, r); len(p) > 10_000 {
		t.Errorf("a header too large to be read is returned: %d octets", len(p))
	}
}

// a thousand recipients share one report, and the words for people stay short.
func TestQ5ManyRecipients(t *testing.T) {
	t.Parallel()
	r := base()
	r.Recipients = nil
	for i := range 1000 {
		r.Recipients = append(r.Recipients, dsn.RecipientStatus{
			Final: smtp.Path{Local: fmt.Sprintf("user%d", i), Domain: "example.net"}, Status: code(5, 1, 1),
			Diagnostic: reply(550, code(5, 1, 1), "No such user"),
		})
	}
	p := compose(t, r)
	words, _, _ := bytes.Cut(p, []byte("message/delivery-status"))
	if len(words) > 10_000 || !bytes.Contains(words, []byte("and more recipients")) || bytes.Count(words, []byte("What you can do")) != 1 {
		t.Errorf("%d octets of words", len(words))
	}
	got, err := dsn.Parse(p)
	if err != nil || len(got.Recipients) != 1000 || got.Recipients[999].Final.Local != "user999" {
		t.Errorf("%d recipients came back, %v", len(got.Recipients), err)
	}
}

func TestComposeRefuses(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*dsn.Report){
		"nothing happened":      func(r *dsn.Report) { r.Action = 0 },
		"unknown action":        func(r *dsn.Report) { r.Action = 99 },
		"no reporter":           func(r *dsn.Report) { r.ReportingMTA = "" },
		"no author":             func(r *dsn.Report) { r.From = "" },
		"author is no mailbox":  func(r *dsn.Report) { r.From = "MAILER-DAEMON" },
		"null sender":           func(r *dsn.Report) { r.To = "" },
		"line end in sender":    func(r *dsn.Report) { r.To = "a@b\r\nBcc: c@d" },
		"sender is no mailbox":  func(r *dsn.Report) { r.To = "a" },
		"no time":               func(r *dsn.Report) { r.Now = time.Time{} },
		"no recipients":         func(r *dsn.Report) { r.Recipients = nil },
		"too many recipients":   func(r *dsn.Report) { r.Recipients = make([]dsn.RecipientStatus, dsn.MaxRecipients+1) },
		"UTF-8 sender, 7 bits":  func(r *dsn.Report) { r.To = "änn@example.org" },
		"Message-ID with break": func(r *dsn.Report) { r.MessageID = "a\r\nb@c" },
	} {
		r := base()
		change(&r)
		if p, err := r.Compose(); err == nil {
			t.Errorf("%s:\n%s", name, p)
		}
	}
}

func TestActions(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for a := dsn.Failed; a <= dsn.Expanded; a++ {
		if a.String() == "" || seen[a.String()] {
			t.Errorf("action %d is called %q", a, a.String())
		}
		seen[a.String()] = true
		r := base()
		r.Action, r.Recipients[0] = a, dsn.RecipientStatus{Final: bob}
		if got, err := dsn.Parse(compose(t, r)); err != nil || got.Action != a {
			t.Errorf("%v comes back as %v, %v", a, got.Action, err)
		}
	}
}

// Reports of other servers, as they look in the wild.
func TestParseForeign(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/foreign/*.eml")
	if err != nil || len(files) == 0 {
		t.Fatal("no reports in testdata/foreign")
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			p, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			r, err := dsn.Parse(p)
			if err != nil {
				fmt.Fprintf(&out, "error: %v\n", err)
			} else {
				fmt.Fprintf(&out, "mta: %s\nenvelope: %s\narrival: %v\nfull: %v, original of %d octets\n", r.ReportingMTA, r.EnvelopeID,
					r.Arrival, r.OriginalIsFull, len(r.Original))
				for _, rcpt := range r.Recipients {
					fmt.Fprintf(&out, "%v %v %v from %s\n  reply: %q\n  else: %q\n  original: %v\n", rcpt.Action, rcpt.Status,
						rcpt.Final, rcpt.RemoteMTA, rcpt.Diagnostic, rcpt.Explanation, rcpt.Original)
				}
			}
			want := strings.TrimSuffix(file, ".eml") + ".want"
			if *update {
				if err := os.WriteFile(want, []byte(out.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			expected, err := os.ReadFile(want)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(expected), out.String()); diff != "" {
				t.Errorf("%s (-update rewrites it):\n%s", want, diff)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, r := range reports() {
		p, err := r.Compose()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p)
	}
	files, err := filepath.Glob("testdata/foreign/*.eml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		p, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		r, err := dsn.Parse(p)
		if err != nil {
			if r != nil {
				t.Error("a report and an error")
			}
			return
		}
		if r.Action.String() == "" || len(r.Recipients) == 0 || len(r.Recipients) > dsn.MaxRecipients || len(r.Original) > dsn.MaxOriginal {
			t.Fatalf("%+v", r)
		}
		for _, rcpt := range r.Recipients {
			for _, s := range []string{rcpt.RemoteMTA, rcpt.Diagnostic.Text, rcpt.Explanation, rcpt.Final.Local, rcpt.Final.Domain, rcpt.Original.Address} {
				if strings.ContainsFunc(s, unicode.IsControl) {
					t.Errorf("%q", s)
				}
			}
		}
		// What was read can be reported again.
		r.ReportingMTA, r.From, r.To, r.Now, r.UTF8, r.MessageID = "mta", "a@b", "c@d", noon, false, ""
		again := compose(t, *r)
		back, err := dsn.Parse(again)
		if err != nil || len(back.Recipients) != len(r.Recipients) {
			t.Fatalf("%v\n%s", err, again)
		}
	})
}

func BenchmarkCompose(b *testing.B) {
	r := base()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Compose(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	r := base()
	p, err := r.Compose()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := dsn.Parse(p); err != nil {
			b.Fatal(err)
		}
	}
}
