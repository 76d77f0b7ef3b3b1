package smtp

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseCommand(t *testing.T) {
	t.Parallel()
	tests := []struct {
		line string
		verb Verb
		args string
		ok   bool
	}{
		{"HELO x", VerbHelo, "x", true},
		{"ehlo  x ", VerbEhlo, "x", true},
		{"MAIL FROM:<a@b> SIZE=1", VerbMail, "<a@b> SIZE=1", true},
		{"mail from: <a@b>", VerbMail, "<a@b>", true},
		{"MAIL <a@b>", VerbMail, "<a@b>", false},
		{"MAIL", VerbMail, "", false},
		{"MAIL FROM <a@b>", VerbMail, "FROM <a@b>", false},
		{"MAIL FROM:", VerbMail, "", true},
		{"RCPT TO:<a@b>", VerbRcpt, "<a@b>", true},
		{"RCPT FROM:<a@b>", VerbRcpt, "FROM:<a@b>", false},
		{"DATA", VerbData, "", true},
		{"BDAT 1 LAST", VerbBdat, "1 LAST", true},
		{"RSET", VerbRset, "", true},
		{"NOOP a b", VerbNoop, "a b", true},
		{"VRFY a", VerbVrfy, "a", true},
		{"EXPN a", VerbExpn, "a", true},
		{"HELP", VerbHelp, "", true},
		{"QUIT", VerbQuit, "", true},
		{"StartTLS", VerbStartTLS, "", true},
		{"AUTH PLAIN x", VerbAuth, "PLAIN x", true},
		{"xclient ADDR=192.0.2.1", VerbXClient, "ADDR=192.0.2.1", true},
		{"XFORWARD NAME=x", VerbXForward, "NAME=x", true},
		{"XFORWARE NAME=x", VerbUnknown, "NAME=x", true},
		{"", VerbUnknown, "", true},
		{" DATA", VerbUnknown, "DATA", true},
		{"DATAX", VerbUnknown, "", true},
		{"DAT", VerbUnknown, "", true},
		{"DATA\tx", VerbUnknown, "", true},
		{"\x04ATA", VerbUnknown, "", true}, // differs from DATA only in the bit that folds case
		{"STARTTLs", VerbStartTLS, "", true},
	}
	for _, tt := range tests {
		verb, args, ok := ParseCommand([]byte(tt.line))
		if verb != tt.verb || string(args) != tt.args || ok != tt.ok {
			t.Errorf("%q: %v %q %v", tt.line, verb, args, ok)
		}
	}
	for v := VerbUnknown; v <= VerbXForward; v++ {
		if v.String() == "" {
			t.Errorf("verb %d has no word", v)
		}
	}
}

func TestParseCommandAllocates(t *testing.T) {
	line := []byte("MAIL FROM:<sender@example.org> SIZE=10240 BODY=8BITMIME")
	text := "<recipient@example.net> NOTIFY=FAILURE ORCPT=rfc822;recipient@example.net"
	n := testing.AllocsPerRun(100, func() {
		_, _, _ = ParseCommand(line)
		_, _ = ParseMail("<sender@example.org> SIZE=10240 BODY=8BITMIME RET=HDRS ENVID=abc")
		_, _ = ParseRcpt(text, PathOptions{})
		_, _ = DomainToASCII("mail.example.org")
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestParseExtensions(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, in string
		want     Extensions
	}{
		{"none", "mx.example.org greets you", Extensions{}},
		{"empty", "", Extensions{}},
		{"first line is no keyword", "PIPELINING", Extensions{}},
		{
			"all", "mx\nPIPELINING\nSIZE 1000\n8BITMIME\nSMTPUTF8\nDSN\nENHANCEDSTATUSCODES\nCHUNKING\nSTARTTLS\n" +
				"LIMITS RCPTMAX=50 MAILMAX=10 RCPTDOMAINMAX=1\nAUTH plain LOGIN",
			Extensions{
				Pipelining: true, EightBitMIME: true, SMTPUTF8: true, DSN: true, EnhancedCodes: true,
				Chunking: true, StartTLS: true,
				HasSize: true, Size: 1000, RcptMax: 50, MailMax: 10, Auth: []string{"PLAIN", "LOGIN"},
			},
		},
		{"lower case, spaces, CR", "mx\n pipelining \r\nsize\n8bitmime\r",
			Extensions{Pipelining: true, HasSize: true, EightBitMIME: true}},
		{"broken values", "mx\nSIZE x\nLIMITS RCPTMAX=-1 MAILMAX= RCPTMAX=99999999999\nAUTH\nXYZ\n\n",
			Extensions{HasSize: true}},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, ParseExtensions(tt.in)); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
	many := ParseExtensions("mx\nAUTH " + strings.Repeat("X ", 1000))
	if len(many.Auth) > 100 {
		t.Errorf("%d mechanisms kept", len(many.Auth))
	}
}

func FuzzParseExtensions(f *testing.F) {
	f.Add("mx\nPIPELINING\nSIZE 1000\nLIMITS RCPTMAX=50\nAUTH PLAIN")
	f.Fuzz(func(t *testing.T, s string) {
		x := ParseExtensions(s)
		if x.Size < 0 || x.RcptMax < 0 || x.MailMax < 0 || len(x.Auth) > 1000 {
			t.Fatalf("%q: %+v", s, x)
		}
	})
}
