package message

import (
	"bytes"
	"errors"
	"mime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestAppendField(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, value, want string }{
		{"Subject", "Hello", "Subject: Hello\n"},
		{"Subject", "  Hello  ", "Subject: Hello\n"},
		{"Subject", "", "Subject:\n"},
		{"X", "a\tb", "X: a\tb\n"},
		{"Subject", "Grüße", "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\n"},
		{"Subject", "お知らせ", "Subject: =?utf-8?b?44GK55+l44KJ44Gb?=\n"},
		{"Subject", strings.Repeat("word ", 20) + "end", "Subject:" + strings.Repeat(" word", 14) + "\n" + strings.Repeat(" word", 6) + " end\n"},
		{"Subject", "many" + strings.Repeat(" ", 80) + "spaces", "Subject: many\n" + strings.Repeat(" ", 80) + "spaces\n"},
		{"List-Unsubscribe", "<https://example.com/" + strings.Repeat("u", 60) + ">, <mailto:u@example.com>",
			"List-Unsubscribe:\n <https://example.com/" + strings.Repeat("u", 60) + ">,\n <mailto:u@example.com>\n"},
		{"X", strings.Repeat("a", 980), "X:\n " + strings.Repeat("a", 980) + "\n"},
	} {
		got, err := AppendField([]byte("before\r\n"), c.name, c.value)
		if want := "before\r\n" + string(wire(c.want)); err != nil || string(got) != want {
			t.Errorf("%s: %q:\n got %q, %v\nwant %q", c.name, c.value, got, err, want)
		}
	}
}

// I-3 and I-4: nothing gets through that ends a line or is no field name.
func TestI4FieldInjection(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, value string
		want        error
	}{
		{"Subject", "a\rb", ErrFieldControl},
		{"Subject", "a\nBcc: x@example.com", ErrFieldControl},
		{"Subject", "a\r\nBcc: x@example.com", ErrFieldControl},
		{"Subject", "a\r\n folded", ErrFieldControl},
		{"Subject", "a\x00b", ErrFieldControl},
		{"Subject", "a\x1bb", ErrFieldControl},
		{"Subject", "a\x7fb", ErrFieldControl},
		{"Subject", "a\u0085b", ErrFieldControl},
		{"Subject", "a\u2028b", ErrFieldControl},
		{"Subject", "a\u2029b", ErrFieldControl},
		{"Subject", "ä\r\nBcc: x@example.com", ErrFieldControl},
		{"Subject", "a\xffb", ErrFieldUTF8},
		{"Subject", "a\xc3", ErrFieldUTF8},
		{"", "a", ErrFieldName},
		{"Sub ject", "a", ErrFieldName},
		{"Subject:", "a", ErrFieldName},
		{"Sub\r\nject", "a", ErrFieldName},
		{"Sübject", "a", ErrFieldName},
		{"\x7f", "a", ErrFieldName},
		{strings.Repeat("N", 77), "a", ErrFieldName},
		{"X", strings.Repeat("a", 998), ErrFieldLong},
	} {
		dst := []byte("before")
		got, err := AppendField(dst, c.name, c.value)
		if !errors.Is(err, c.want) || string(got) != "before" {
			t.Errorf("%q: %q: %q, %v", c.name, c.value, got, err)
		}
	}
	for _, value := range []string{"\u010a", "\u010d", "\u560a", "\u560d", "\u0a0d"} {
		got, err := AppendField(nil, "Subject", value)
		if err != nil || bytes.ContainsAny(got[:len(got)-2], "\r\n") {
			t.Errorf("%+q: %q, %v", value, got, err)
		}
	}
}

func TestEncodedWordsAreShort(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		strings.Repeat("ä", 300), strings.Repeat("word with ü. ", 50), strings.Repeat("漢字", 200), "😀" + strings.Repeat("a", 500),
	} {
		p, err := AppendField(nil, "Subject", text)
		if err != nil {
			t.Fatal(err)
		}
		checkEncoded(t, p, "Subject", strings.TrimSpace(text))
	}
}

func checkEncoded(t *testing.T, p []byte, name, text string) {
	t.Helper()
	for line := range bytes.Lines(p) {
		if len(line) > 78 {
			t.Errorf("a line of %d octets: %q", len(line)-2, line)
		}
	}
	h, err := ParseHeader(p)
	if err != nil {
		t.Fatalf("%q: %v", p, err)
	}
	v, _ := h.Get(name)
	back, err := new(mime.WordDecoder).DecodeHeader(string(AppendUnfolded(nil, v)))
	if err != nil || back != text {
		t.Errorf("%q comes back as %q, %v", text, back, err)
	}
}

func TestFormatDate(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 2, 7, 5, 9, 1, time.FixedZone("", -5*3600-1800))
	const want = "Mon, 02 Mar 2026 07:05:09 -0530"
	if got := FormatDate(at); got != want || string(AppendDate(nil, at)) != want {
		t.Errorf("got %q", got)
	}
}

func FuzzAppendField(f *testing.F) {
	f.Add("Subject", "Hello")
	f.Add("Subject", "Grüße\r\nBcc: x")
	f.Add("X-Long", strings.Repeat("word ", 100))
	f.Fuzz(func(t *testing.T, name, value string) {
		p, err := AppendField(nil, name, value)
		if err != nil {
			if len(p) > 0 {
				t.Error("half a field was written")
			}
			return
		}
		h, err := ParseHeader(p)
		if err != nil || h.Count(name) != 1 || h.Len() != len(p) || h.Complete() {
			t.Fatalf("%q: %q is %q, %v", name, value, p, err)
		}
		n := 0
		for range h.Fields() {
			n++
		}
		if n != 1 {
			t.Fatalf("%d fields of one: %q", n, p)
		}
		for line := range bytes.Lines(p) {
			if len(line) > 1000 || !bytes.HasSuffix(line, []byte("\r\n")) || len(bytes.TrimSpace(line)) == 0 {
				t.Errorf("line %q", line)
			}
		}
		if !isASCII(string(p)) {
			t.Errorf("%q is not ASCII", p)
		}
		if !isASCII(value) && utf8.ValidString(value) {
			v, _ := h.Get(name)
			back, err := new(mime.WordDecoder).DecodeHeader(string(AppendUnfolded(nil, v)))
			if err != nil || back != strings.Trim(value, " \t") {
				t.Errorf("%q comes back as %q, %v", value, back, err)
			}
		}
	})
}
