package smtp

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseMail(t *testing.T) {
	t.Parallel()
	a := Path{"a", "example.org"}
	tests := []struct {
		in   string
		want Sender
		code int
	}{
		{"<a@example.org>", Sender{Path: a}, 0},
		{"<>", Sender{}, 0},
		{"<a@example.org> SIZE=1000", Sender{Path: a, Size: 1000}, 0},
		{"<a@example.org> size=0  BODY=8bitmime ", Sender{Path: a, Body: Body8BitMIME}, 0},
		{"<a@example.org> BODY=7BIT", Sender{Path: a}, 0},
		{"<a@example.org> SMTPUTF8", Sender{Path: a, UTF8: true}, 0},
		{"<ü@example.org> SMTPUTF8", Sender{Path: Path{"ü", "example.org"}, UTF8: true}, 0},
		{"<a@example.org> RET=FULL ENVID=QQ314159", Sender{Path: a, Return: ReturnFull, EnvelopeID: "QQ314159"}, 0},
		{"<a@example.org> RET=hdrs ENVID=a+2Bb+3D+20c",
			Sender{Path: a, Return: ReturnHeaders, EnvelopeID: "a+b= c"}, 0},
		{"<a@example.org> ENVID=" + strings.Repeat("x", 100), Sender{Path: a, EnvelopeID: strings.Repeat("x", 100)}, 0},
		{"<a@example.org> AUTH=<>", Sender{Path: a, Auth: "<>"}, 0},
		{"<a@example.org> AUTH=admin@ours.example", Sender{Path: a, Auth: "admin@ours.example"}, 0},
		{"<a@example.org> AUTH=e+3Dmc2@example.com", Sender{Path: a, Auth: "e=mc2@example.com"}, 0},
		{"<a@example.org> AUTH=a+0D+0Ab", Sender{}, 501},
		{"<a@example.org> AUTH=a+00b", Sender{}, 501},
		{"<a@example.org> SIZE=9223372036854775807", Sender{Path: a, Size: 1<<63 - 1}, 0},
		{"<ü@example.org>", Sender{}, 553},           // U-1
		{"<a@bücher.example> SIZE=1", Sender{}, 553}, // U-1
		{"<a@example.org> SIZE=", Sender{}, 501},
		{"<a@example.org> SIZE", Sender{}, 501},
		{"<a@example.org> SIZE=-1", Sender{}, 501},                    // Z-9
		{"<a@example.org> SIZE=+1", Sender{}, 501},                    // Z-9
		{"<a@example.org> SIZE=1e3", Sender{}, 501},                   // Z-9
		{"<a@example.org> SIZE=99999999999999999999", Sender{}, 501},  // Z-9
		{"<a@example.org> SIZE=000000000000000000001", Sender{}, 501}, // Z-9, 21 digits
		{"<a@example.org> SIZE=1 SIZE=1", Sender{}, 501},              // Z-9
		{"<a@example.org> BODY=BINARYMIME", Sender{}, 501},            // B-7: not offered
		{"<a@example.org> BODY=", Sender{}, 501},
		{"<a@example.org> SMTPUTF8=1", Sender{}, 501},
		{"<a@example.org> SMTPUTF8 SMTPUTF8", Sender{}, 501},
		{"<a@example.org> RET=ALL", Sender{}, 501},
		{"<a@example.org> ENVID=", Sender{}, 501},
		{"<a@example.org> ENVID=a+0D+0AX", Sender{}, 501},                    // I-5
		{"<a@example.org> ENVID=a+00b", Sender{}, 501},                       // I-5, R-13
		{"<a@example.org> ENVID=+zz", Sender{}, 501},                         // I-5
		{"<a@example.org> ENVID=+4", Sender{}, 501},                          // I-5
		{"<a@example.org> ENVID=a=b", Sender{}, 501},                         // I-5
		{"<a@example.org> ENVID=" + strings.Repeat("x", 101), Sender{}, 501}, // I-5
		{"<a@example.org> AUTH=", Sender{}, 501},
		{"<a@example.org> AUTH=+zz", Sender{}, 501},
		{"<a@example.org> NOTIFY=NEVER", Sender{}, 555}, // of RCPT
		{"<a@example.org> XYZ", Sender{}, 555},
		{"<a@example.org> =x", Sender{}, 555},
		{"a@example.org SIZE=1", Sender{}, 501},
		{"", Sender{}, 501},
	}
	for _, tt := range tests {
		got, err := ParseMail(tt.in)
		if (err != nil) != (tt.code != 0) {
			t.Errorf("%s: error %v, want code %d", tt.in, err, tt.code)
			continue
		}
		if tt.code != 0 {
			checkParse(t, err, tt.code)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: %s", tt.in, diff)
		}
	}
}

func TestParseRcpt(t *testing.T) {
	t.Parallel()
	b := Path{"b", "example.net"}
	tests := []struct {
		in   string
		utf8 bool
		want Recipient
		code int
	}{
		{"<b@example.net>", false, Recipient{Path: b}, 0},
		{"<b@example.net> NOTIFY=NEVER", false, Recipient{Path: b, Notify: NotifyNever}, 0},
		{"<b@example.net> NOTIFY=success,FAILURE,delay", false,
			Recipient{Path: b, Notify: NotifySuccess | NotifyFailure | NotifyDelay}, 0},
		{"<b@example.net> ORCPT=rfc822;b+2Bc@example.net", false,
			Recipient{Path: b, Original: OriginalRecipient{"rfc822", "b+c@example.net"}}, 0},
		{"<b@example.net> ORCPT=RFC822;Bob@Example.net NOTIFY=DELAY", false,
			Recipient{Path: b, Notify: NotifyDelay, Original: OriginalRecipient{"rfc822", "Bob@Example.net"}}, 0},
		{"<b@example.net> ORCPT=x400;/C=de/", false, Recipient{}, 501}, // '=' must be encoded
		{"<b@example.net> ORCPT=x400;/C+3Dde/", false,
			Recipient{Path: b, Original: OriginalRecipient{"x400", "/C=de/"}}, 0},
		{`<b@example.net> ORCPT=utf-8;gr\x{FC}\x{DF}e@example.net`, false,
			Recipient{Path: b, Original: OriginalRecipient{"utf-8", "grüße@example.net"}}, 0},
		{"<b@example.net> ORCPT=utf-8;grüße@example.net", true,
			Recipient{Path: b, Original: OriginalRecipient{"utf-8", "grüße@example.net"}}, 0},
		{"<ü@example.net>", true, Recipient{Path: Path{"ü", "example.net"}}, 0},
		{"<Postmaster> NOTIFY=NEVER", false, Recipient{Path: Path{Local: "Postmaster"}, Notify: NotifyNever}, 0},
		{"<ü@example.net>", false, Recipient{}, 553}, // U-1
		{"<b@example.net> ORCPT=utf-8;grüße@example.net", false, Recipient{}, 501},
		{"<b@example.net> NOTIFY=NEVER,SUCCESS", false, Recipient{}, 501}, // I-5
		{"<b@example.net> NOTIFY=", false, Recipient{}, 501},
		{"<b@example.net> NOTIFY=SUCCESS,", false, Recipient{}, 501},
		{"<b@example.net> NOTIFY=NEVER NOTIFY=NEVER", false, Recipient{}, 501},
		{"<b@example.net> ORCPT=rfc822;a+0D+0Ab", false, Recipient{}, 501},   // I-5
		{"<b@example.net> ORCPT=rfc822;a+00b", false, Recipient{}, 501},
		{`<b@example.net> ORCPT=utf-8;a\x{110000}`, false, Recipient{}, 501}, // I-5
		{`<b@example.net> ORCPT=utf-8;a\x{D800}`, false, Recipient{}, 501},
		{`<b@example.net> ORCPT=utf-8;a\x{0D}`, false, Recipient{}, 501},
		{`<b@example.net> ORCPT=utf-8;a\x{2028}`, false, Recipient{}, 501},
		{`<b@example.net> ORCPT=utf-8;a\x{41`, false, Recipient{}, 501},
		{`<b@example.net> ORCPT=utf-8;a\y`, false, Recipient{}, 501},
		{"<b@example.net> ORCPT=rfc822", false, Recipient{}, 501},
		{"<b@example.net> ORCPT=rfc822;", false, Recipient{}, 501},
		{"<b@example.net> ORCPT=;b@example.net", false, Recipient{}, 501},
		{"<b@example.net> ORCPT=rfc 822;b", false, Recipient{}, 501},
		{"<b@example.net> ORCPT=rfc822;" + strings.Repeat("x", 494), false, Recipient{}, 501}, // I-5, 501 octets
		{"<b@example.net> SIZE=1", false, Recipient{}, 555},
		{"<>", false, Recipient{}, 501},
	}
	for _, tt := range tests {
		got, err := ParseRcpt(tt.in, PathOptions{UTF8: tt.utf8})
		if (err != nil) != (tt.code != 0) {
			t.Errorf("%s: error %v, want code %d", tt.in, err, tt.code)
			continue
		}
		if tt.code != 0 {
			checkParse(t, err, tt.code)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: %s", tt.in, diff)
		}
	}
}

func TestXtext(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ plain, encoded string }{
		{"", ""}, {"abc", "abc"}, {"a+b", "a+2Bb"}, {"a=b c", "a+3Db+20c"},
		{"\r\n\x00\x7f", "+0D+0A+00+7F"}, {"ü", "+C3+BC"}, {"+", "+2B"},
	} {
		if got := string(AppendXtext(nil, tt.plain)); got != tt.encoded {
			t.Errorf("%q encodes as %q, want %q", tt.plain, got, tt.encoded)
		}
		if got, err := ParseXtext(tt.encoded); err != nil || got != tt.plain {
			t.Errorf("%q decodes as %q, %v", tt.encoded, got, err)
		}
	}
	for _, bad := range []string{"+", "+4", "+zz", "+4g", "+2b", "a b", "a=b", "ü", "a\x7f", "x+0"} {
		if got, err := ParseXtext(bad); err == nil {
			t.Errorf("%q decodes as %q", bad, got)
		}
	}
}

func FuzzXtext(f *testing.F) {
	for _, s := range []string{"", "a+2Bb", "+0D", "+", "\x00ü+="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got, err := ParseXtext(string(AppendXtext(nil, s))); err != nil || got != s {
			t.Fatalf("%q came back as %q, %v", s, got, err)
		}
		if plain, err := ParseXtext(s); err == nil {
			if back, err := ParseXtext(string(AppendXtext(nil, plain))); err != nil || back != plain {
				t.Fatalf("%q: %q came back as %q", s, plain, back)
			}
		}
		if plain, err := parseUTF8Xtext(s); err == nil {
			if back, err := parseUTF8Xtext(string(appendUTF8Xtext(nil, plain))); err != nil || back != plain {
				t.Fatalf("%q: %q came back as %q, %v", s, plain, back, err)
			}
		}
	})
}

// offered is a server that offers all that concerns envelopes.
var offered = Extensions{EightBitMIME: true, SMTPUTF8: true, DSN: true, HasSize: true}

func TestAppendMail(t *testing.T) {
	t.Parallel()
	full := Sender{
		Path: Path{"ü", "bücher.example"}, Body: Body8BitMIME, UTF8: true, Return: ReturnFull, EnvelopeID: "a=b c",
	}
	plain := Sender{Path: Path{"a b", "bücher.example"}, Return: ReturnHeaders}
	tests := []struct {
		s    Sender
		size int64
		x    Extensions
		want string
	}{
		{Sender{}, 10, Extensions{}, "MAIL FROM:<>"},
		{full, 10, offered, "MAIL FROM:<ü@bücher.example> SIZE=10 BODY=8BITMIME SMTPUTF8 RET=FULL ENVID=a+3Db+20c"},
		{plain, 10, Extensions{}, `MAIL FROM:<"a b"@xn--bcher-kva.example>`},
		{plain, 0, offered, `MAIL FROM:<"a b"@xn--bcher-kva.example> RET=HDRS`}, // U-2: A-labels do without SMTPUTF8
		{Sender{}, 10, Extensions{HasSize: true}, "MAIL FROM:<> SIZE=10"},
	}
	for _, tt := range tests {
		if got := string(AppendMail(nil, tt.s, tt.size, tt.x)); got != tt.want+"\r\n" {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}

func TestAppendRcpt(t *testing.T) {
	t.Parallel()
	b := Path{"b", "example.net"}
	tests := []struct {
		r    Recipient
		x    Extensions
		want string
	}{
		{Recipient{Path: b}, offered, "RCPT TO:<b@example.net>"},
		{Recipient{Path: Path{Local: "postmaster"}}, offered, "RCPT TO:<postmaster>"},
		{Recipient{Path: b, Notify: NotifyNever}, offered, "RCPT TO:<b@example.net> NOTIFY=NEVER"},
		{Recipient{Path: b, Notify: NotifyNever}, Extensions{}, "RCPT TO:<b@example.net>"},
		{Recipient{Path: b, Notify: NotifySuccess | NotifyDelay}, offered,
			"RCPT TO:<b@example.net> NOTIFY=SUCCESS,DELAY"},
		{Recipient{Path: b, Original: OriginalRecipient{"rfc822", "b+c@x"}}, offered,
			"RCPT TO:<b@example.net> ORCPT=rfc822;b+2Bc@x"},
		{Recipient{Path: b, Original: OriginalRecipient{"utf-8", "ü+@x"}}, offered,
			`RCPT TO:<b@example.net> ORCPT=utf-8;\x{FC}\x{2B}@x`},
		{Recipient{Path: Path{"b", "BÜCHER.example"}}, Extensions{}, "RCPT TO:<b@xn--bcher-kva.example>"},
		{Recipient{Path: Path{"x> ORCPT=rfc822;y", "z.example"}}, offered, // I-1, R-24
			`RCPT TO:<"x> ORCPT=rfc822;y"@z.example>`},
	}
	for _, tt := range tests {
		if got := string(AppendRcpt(nil, tt.r, tt.x)); got != tt.want+"\r\n" {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}

// FuzzCommand holds that what one server accepts is one clean line for the next, which reads the same out of it.
func FuzzCommand(f *testing.F) {
	for _, s := range []string{
		"MAIL FROM:<a@example.org> SIZE=10 BODY=8BITMIME RET=HDRS ENVID=a+2Bb", "mail from: <> SMTPUTF8 AUTH=<>",
		`MAIL FROM:<"a\"b"@bücher.example> SMTPUTF8`,
		"RCPT TO:<b@example.net> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b+2Bc@x",
		`rcpt to:<Postmaster> ORCPT=utf-8;\x{FC}@x`, "EHLO x", "BDAT 10 LAST",
		"", " ", "STARTTLS", "MAIL FROM:", "noop \x00",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		verb, args, ok := ParseCommand(line)
		if verb.String() == "" {
			t.Fatal("verb without a word")
		}
		if !ok {
			return
		}
		switch verb {
		case VerbMail:
			from, err := ParseMail(string(args))
			if err != nil {
				return
			}
			from.Auth = "" // is told to nobody
			again := reparse(t, AppendMail(nil, from, from.Size, offered), VerbMail)
			back, err := ParseMail(again)
			if err != nil || back != from {
				t.Fatalf("%q: %+v came back as %+v, %v", line, from, back, err)
			}
		case VerbRcpt:
			to, err := ParseRcpt(string(args), PathOptions{UTF8: true})
			if err != nil {
				return
			}
			again := reparse(t, AppendRcpt(nil, to, offered), VerbRcpt)
			back, err := ParseRcpt(again, PathOptions{UTF8: true})
			if len(to.Original.Address) < 40 && (err != nil || back != to) { // encoding may grow beyond the limit
				t.Fatalf("%q: %+v came back as %+v, %v", line, to, back, err)
			}
		}
	})
}

func reparse(t *testing.T, command []byte, want Verb) string {
	t.Helper()
	text, ok := strings.CutSuffix(string(command), "\r\n")
	if !ok || strings.ContainsAny(text, "\r\n\x00") {
		t.Fatalf("command %q is not one line", command)
	}
	verb, args, ok := ParseCommand([]byte(text))
	if verb != want || !ok {
		t.Fatalf("command %q reads as %v", command, verb)
	}
	return string(args)
}
