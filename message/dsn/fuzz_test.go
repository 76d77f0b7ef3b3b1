package dsn_test

import (
	"bytes"
	"testing"

	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/message/dsn"
	"github.com/godwit-mta/godwit/smtp"
)

// FuzzCompose holds that whatever remotes say and senders wrote, a report is a message in wire form that has the fields
// it should and no others, says of each recipient what was meant, and can be read again.
func FuzzCompose(f *testing.F) {
	f.Add("No such user here", "bob", "example.net", "mx1.example.net", "QQ1", header, false, false)
	f.Add("line\none\r\n\r\nFrom: evil", "b\" b", "b\u00fccher.example", "", "a b\x00", whole, true, true)
	f.Add("\xff\x00--=_report_", "", "", "x\r\nSubject: y", "\n", []byte("\r\n.\r\n"), true, false)
	f.Fuzz(func(t *testing.T, text, local, domain, mta, id string, original []byte, full, utf8 bool) {
		r := base()
		r.EnvelopeID, r.Original, r.OriginalIsFull, r.UTF8 = id, original, full, utf8
		s := &r.Recipients[0]
		s.Final, s.RemoteMTA = smtp.Path{Local: local, Domain: domain}, mta
		s.Diagnostic.Text, s.Explanation = text, text
		p, err := r.Compose()
		if err != nil {
			return
		}
		for rest := p; len(rest) > 0; {
			line, more, found := bytes.Cut(rest, []byte("\r\n"))
			if !found || bytes.ContainsAny(line, "\r\n\x00") || len(line) > 998 {
				t.Fatalf("a line is none: %q", line)
			}
			rest = more
		}
		h, err := message.ParseHeader(p)
		if err != nil {
			t.Fatalf("the header is none: %v\n%q", err, p)
		}
		for _, name := range []string{"From", "To", "Subject", "Date", "MIME-Version", "Content-Type"} {
			if n := h.Count(name); n != 1 {
				t.Errorf("%d fields %s\n%s", n, name, h.Bytes())
			}
		}
		n := 0
		for range h.Fields() {
			n++
		}
		if n > 12 {
			t.Errorf("%d fields\n%s", n, h.Bytes())
		}
		back, err := dsn.Parse(p)
		if err != nil || len(back.Recipients) != 1 || back.Action != dsn.Failed {
			t.Fatalf("%v, %+v\n%s", err, back, p)
		}
		if got := back.Recipients[0].Status; got != s.Status {
			t.Errorf("status %v", got)
		}
	})
}
