package message

import (
	"bytes"
	"encoding/base64"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

var update = flag.Bool("update", false, "rewrite the files in testdata")

var (
	ann  = Address{"Ann Example", "ann", "example.com"}
	bob  = Address{"Bob, of Example", "bob", "example.net"}
	noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
)

// fixed gives a draft everything that would differ from run to run.
func fixed(d Draft) *Draft {
	d.Date, d.MessageID, d.Rand = noon, "1@example.com", rand.NewChaCha8([32]byte{1})
	if d.From == nil {
		d.From = []Address{ann}
	}
	if d.To == nil {
		d.To = []Address{bob}
	}
	return &d
}

func TestCompose(t *testing.T) {
	t.Parallel()
	for name, d := range map[string]Draft{
		"plain":       {Subject: "Hello", Text: "One.\nTwo.\r\nThree."},
		"empty":       {},
		"umlauts":     {Subject: "Grüße", Text: "Viele Grüße\n", From: []Address{{"Jürgen Müller", "j", "example.com"}}},
		"japanese":    {Subject: "お知らせ", Text: "お知らせです。\n"},
		"html":        {Subject: "Hello", HTML: "<p>Hello</p>"},
		"alternative": {Subject: "Hello", Text: "Hello", HTML: "<p>Hello</p>"},
		"attachment":  {Subject: "File", Text: "See the file.", Attachments: []Attachment{{Name: "data.bin", Type: "application/x-data", Content: []byte{0, 1, 2, 255}}}},
		"everything": {
			Subject: "All of it", Sender: bob, ReplyTo: []Address{bob}, Cc: []Address{ann}, InReplyTo: "0@example.com",
			Text: "Text", HTML: `<img src="cid:logo@example.com">`,
			Fields: []ExtraField{{"X-Campaign", "spring"}, {"List-Unsubscribe", "<https://example.com/u>"}},
			Attachments: []Attachment{
				{Name: "logo.png", Type: "image/png", Content: []byte("png"), ContentID: "logo@example.com"},
				{Name: "Übersicht \"2026\".pdf", Type: "application/pdf", Content: bytes.Repeat([]byte("pdf"), 50)},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := fixed(d).Compose()
			if err != nil {
				t.Fatal(err)
			}
			checkWire(t, got)
			file := filepath.Join("testdata", "compose", name+".eml")
			if *update {
				if err := os.WriteFile(file, bytes.ReplaceAll(got, []byte("\r\n"), []byte("\n")), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, wire(string(want))) {
				t.Errorf("differs from %s (-update rewrites it):\n%s", file, got)
			}
		})
	}
}

// checkWire holds what every composed message keeps: CRLF line ends, short lines, 7 bits.
func checkWire(t *testing.T, p []byte) {
	t.Helper()
	for line := range bytes.Lines(p) {
		if body, ok := bytes.CutSuffix(line, []byte("\r\n")); !ok || len(body) > lineMax || bytes.ContainsAny(body, "\r\x00") {
			t.Errorf("line %q", line)
		}
	}
	if !isASCII(string(p)) {
		t.Errorf("not 7-bit:\n%s", p)
	}
}

// leaf is a part as a receiver sees it.
type leaf struct {
	media, file, id string
	content         string
}

// leaves reads a message with the standard library alone.
func leaves(t *testing.T, p []byte) (mail.Header, []leaf) {
	t.Helper()
	m, err := mail.ReadMessage(bytes.NewReader(p))
	if err != nil {
		t.Fatal(err)
	}
	var out []leaf
	var walk func(get func(string) string, body io.Reader)
	walk = func(get func(string) string, body io.Reader) {
		media, params, err := mime.ParseMediaType(get("Content-Type"))
		if err != nil {
			t.Fatalf("%q: %v", get("Content-Type"), err)
		}
		if strings.HasPrefix(media, "multipart/") {
			r := multipart.NewReader(body, params["boundary"])
			for {
				part, err := r.NextRawPart()
				if err == io.EOF {
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				walk(part.Header.Get, part)
			}
		}
		l := leaf{media: media, id: get("Content-ID")}
		if d := get("Content-Disposition"); d != "" {
			_, params, err := mime.ParseMediaType(d)
			if err != nil {
				t.Fatalf("%q: %v", d, err)
			}
			l.file = params["filename"]
		}
		switch get("Content-Transfer-Encoding") {
		case "base64":
			body = base64.NewDecoder(base64.StdEncoding, body)
		case "quoted-printable":
			body = quotedprintable.NewReader(body)
		}
		content, err := io.ReadAll(body)
		if err != nil {
			t.Fatal(err)
		}
		l.content = string(content)
		out = append(out, l)
	}
	walk(m.Header.Get, m.Body)
	return m.Header, out
}

func TestComposedTextComesBack(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"Hello\r\n", "From the start\r\n.\r\n..\r\nFrom here\r\n", "trailing  \r\ntab\t\r\n", strings.Repeat("long ", 500) + "\r\n",
		strings.Repeat("x", 5000) + "\r\n", "Grüße\r\n", "漢字\r\n", "a\x00b\x1b[0m\r\n", "=3D =\r\n", "--=_boundary\r\n", "\r\n\r\n\r\n",
	} {
		p, err := fixed(Draft{Text: text, HTML: text, Attachments: []Attachment{{Name: "a", Content: []byte(text)}}}).Compose()
		if err != nil {
			t.Fatal(err)
		}
		checkWire(t, p)
		_, got := leaves(t, p)
		if len(got) != 3 || got[0].content != text || got[1].content != text || got[2].content != text {
			t.Errorf("%q comes back as %q", text, got)
		}
	}
}

// I-6: names of files, types and ids cannot break out of their fields.
func TestI6AttachmentInjection(t *testing.T) {
	t.Parallel()
	for _, name := range []string{`a"b.txt`, `a\b.txt`, "a;b=c.txt", "ä ö.txt", "'; filename=x", "漢字.pdf", strings.Repeat("ü", 127), "a%20b", " "} {
		p, err := fixed(Draft{Attachments: []Attachment{{Name: name, Type: "text/plain", Content: []byte("x")}}}).Compose()
		if err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		checkWire(t, p)
		if _, got := leaves(t, p); got[1].file != name {
			t.Errorf("%q comes back as %q", name, got[1].file)
		}
	}
	for _, a := range []Attachment{
		{Name: "a\"\r\nX-E: 1"}, {Name: "a\nb"}, {Name: "a\x00"}, {Name: "a\xff"}, {Name: strings.Repeat("a", 256)},
		{Type: "text/plain\r\nX-E: 1"}, {Type: "text/plain; a=\"\r\n b\""}, {Type: "nonsense//"}, {Type: "text/plain; charset"},
		{ContentID: "a@b>\r\nX-E: 1"}, {ContentID: "a"}, {ContentID: "a b@c"}, {ContentID: "a@b@c"},
	} {
		if p, err := fixed(Draft{Attachments: []Attachment{a}}).Compose(); err == nil {
			t.Errorf("%+v was taken:\n%s", a, p)
		}
	}
}

func TestI6BoundaryNeverOccurs(t *testing.T) {
	t.Parallel()
	first, err := fixed(Draft{HTML: "x", Text: "x"}).Compose()
	if err != nil {
		t.Fatal(err)
	}
	_, params, err := mime.ParseMediaType(fieldOf(t, first, "Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	taken := params["boundary"]
	p, err := fixed(Draft{HTML: "x", Text: "Sent before:\n--" + taken + "--\n"}).Compose()
	if err != nil {
		t.Fatal(err)
	}
	if _, params, _ = mime.ParseMediaType(fieldOf(t, p, "Content-Type")); params["boundary"] == taken {
		t.Error("the boundary occurs in the text")
	}
	if _, got := leaves(t, p); len(got) != 2 || got[0].content != "Sent before:\r\n--"+taken+"--\r\n" {
		t.Errorf("got %q", got)
	}
	d := fixed(Draft{HTML: "x", Text: "=_000000000000000000000000"})
	d.Rand = zeros{}
	if _, err := d.Compose(); err == nil {
		t.Error("a boundary that occurs was used for want of a better one")
	}
}

func fieldOf(t *testing.T, p []byte, name string) string {
	t.Helper()
	h, err := ParseHeader(p)
	if err != nil {
		t.Fatal(err)
	}
	v, _ := h.Get(name)
	return string(AppendUnfolded(nil, v))
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestComposeRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		d    Draft
		want error
	}{
		"no author":           {Draft{From: []Address{}}, ErrNoSender},
		"two and no sender":   {Draft{From: []Address{ann, bob}}, ErrNoSender},
		"line in subject":     {Draft{Subject: "a\r\nBcc: x@example.com"}, ErrFieldControl},
		"subject like a word": {Draft{Subject: "=?utf-8?q?x?=\n"}, ErrFieldControl},
		"line in name":        {Draft{To: []Address{{"a\nb", "a", "b"}}}, ErrFieldControl},
		"line in field":       {Draft{Fields: []ExtraField{{"X-A", "a\r\nb"}}}, ErrFieldControl},
		"space in field name": {Draft{Fields: []ExtraField{{"X A", "a"}}}, ErrFieldName},
		"text not UTF-8":      {Draft{Text: "\xff"}, ErrFieldUTF8},
		"Bcc":                 {Draft{Fields: []ExtraField{{"BCC", "a@b"}}}, ErrProtectedField},
		"DKIM-Signature":      {Draft{Fields: []ExtraField{{"dkim-signature", "a"}}}, ErrProtectedField},
		"Received":            {Draft{Fields: []ExtraField{{"Received", "a"}}}, ErrProtectedField},
		"Return-Path":         {Draft{Fields: []ExtraField{{"Return-path", "a"}}}, ErrProtectedField},
		"From":                {Draft{Fields: []ExtraField{{"From", "a@b"}}}, ErrProtectedField},
		"Content-Type":        {Draft{Fields: []ExtraField{{"Content-Type", "text/html"}}}, ErrProtectedField},
		"ARC":                 {Draft{Fields: []ExtraField{{"ARC-Seal", "a"}}}, ErrProtectedField},
	} {
		if p, err := fixed(c.d).Compose(); !errors.Is(err, c.want) || p != nil {
			t.Errorf("%s: %q, %v", name, p, err)
		}
	}
	for _, id := range []string{"a", "a@", "@b", "<a@b>", "a@b\r\nX: y", "a b@c", "a@b>", strings.Repeat("a", 900) + "@b"} {
		d := fixed(Draft{})
		d.MessageID = id
		if p, err := d.Compose(); err == nil {
			t.Errorf("Message-ID %q was taken: %q", id, p)
		}
	}
	d := fixed(Draft{})
	d.MessageID, d.Rand = "", iotest.ErrReader(errors.New("no randomness"))
	if _, err := d.Compose(); err == nil {
		t.Error("a Message-ID was made of nothing")
	}
}

func TestComposeFillsIn(t *testing.T) {
	t.Parallel()
	before := time.Now().Truncate(time.Second)
	p, err := (&Draft{From: []Address{ann}, Text: "x"}).Compose()
	if err != nil {
		t.Fatal(err)
	}
	h, _ := leaves(t, p)
	if at, err := h.Date(); err != nil || at.Before(before) || time.Since(at) > time.Minute {
		t.Errorf("date %v, %v", at, err)
	}
	if id := h.Get("Message-Id"); len(id) != len("<@example.com>")+32 || !strings.HasSuffix(id, "@example.com>") {
		t.Errorf("Message-ID %q", id)
	}
}

// A mailbox in UTF-8 stays as it is: such a message needs SMTPUTF8 anyway.
func TestComposeUTF8Mailbox(t *testing.T) {
	t.Parallel()
	p, err := fixed(Draft{To: []Address{{"Jürgen", "jürgen", "bücher.example"}}, Subject: "Grüße", Text: "x"}).Compose()
	if err != nil || !bytes.Contains(p, []byte("To: =?utf-8?q?J=C3=BCrgen?= <jürgen@bücher.example>\r\n")) ||
		!bytes.Contains(p, []byte("Subject: =?utf-8?q?")) {
		t.Errorf("%s, %v", p, err)
	}
}

func TestLongListIsFolded(t *testing.T) {
	t.Parallel()
	var to []Address
	for range 500 {
		to = append(to, bob)
	}
	p, err := fixed(Draft{To: to}).Compose()
	if err != nil {
		t.Fatal(err)
	}
	checkWire(t, p)
	h, _ := leaves(t, p)
	if list, err := h.AddressList("To"); err != nil || len(list) != 500 {
		t.Errorf("%d addresses, %v", len(list), err)
	}
}

func TestSubjectThatLooksEncoded(t *testing.T) {
	t.Parallel()
	for _, subject := range []string{"=?utf-8?q?x?=", "a =?b", strings.Repeat("x", 2000)} {
		p, err := fixed(Draft{Subject: subject}).Compose()
		if err != nil {
			t.Fatal(err)
		}
		checkWire(t, p)
		back, err := new(mime.WordDecoder).DecodeHeader(fieldOf(t, p, "Subject"))
		if err != nil || back != subject {
			t.Errorf("%q comes back as %q, %v", subject, back, err)
		}
	}
}

func FuzzCompose(f *testing.F) {
	f.Add("Hello", "Ann", "text", "a.txt")
	f.Add("Grüße\r\nBcc: x", "a\"b", "From x\n.\n", "ü\"\r\n.pdf")
	f.Fuzz(func(t *testing.T, subject, name, text, file string) {
		d := fixed(Draft{
			Subject: subject, To: []Address{{name, "bob", "example.net"}}, Text: text,
			Attachments: []Attachment{{Name: file, Type: "text/plain", Content: []byte(text)}},
		})
		p, err := d.Compose()
		if err != nil {
			return
		}
		checkWire(t, p)
		h, got := leaves(t, p)
		if len(h) > 8 {
			t.Errorf("%d fields: %q", len(h), h)
		}
		if len(got) != 2 || got[1].content != text || got[1].file != file {
			t.Errorf("got %q", got)
		}
		if want := string(wireLines(text)); got[0].content != want {
			t.Errorf("text %q comes back as %q", want, got[0].content)
		}
	})
}
