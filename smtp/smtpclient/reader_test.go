package smtpclient

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/godwit-mta/godwit/smtp"
)

func TestReadReply(t *testing.T) {
	t.Parallel()
	code := func(class, subject, detail uint16) smtp.EnhancedCode {
		return smtp.EnhancedCode{Class: class, Subject: subject, Detail: detail}
	}
	for _, tc := range []struct {
		in   string
		want smtp.Reply
	}{
		{"250 ok\r\n", smtp.Reply{Code: 250, Text: "ok"}},
		{"250\r\n", smtp.Reply{Code: 250}},
		{"250 2.1.5 fine by me\r\n", smtp.Reply{Code: 250, Enhanced: code(2, 1, 5), Text: "fine by me"}},
		{"250 2.1.5\r\n", smtp.Reply{Code: 250, Enhanced: code(2, 1, 5)}},
		{"550 5.7.509   spaces\n", smtp.Reply{Code: 550, Enhanced: code(5, 7, 509), Text: "spaces"}},
		{"550 2.1.5 other class\r\n", smtp.Reply{Code: 550, Text: "2.1.5 other class"}},
		{"550 5.1.1234 long\r\n", smtp.Reply{Code: 550, Text: "5.1.1234 long"}},
		{"550 5.1 short\r\n", smtp.Reply{Code: 550, Text: "5.1 short"}},
		{"550 5.1.1. dot\r\n", smtp.Reply{Code: 550, Text: "5.1.1. dot"}},
		{"354 3.0.0 go\r\n", smtp.Reply{Code: 354, Text: "3.0.0 go"}},
		{"452-4.5.3 too\r\n452-4.5.3 many\r\n452 4.5.3 of them\r\n", smtp.Reply{Code: 452, Enhanced: code(4, 5, 3), Text: "too\nmany\nof them"}},
		{"452-4.5.3 too\r\n452 many\r\n", smtp.Reply{Code: 452, Enhanced: code(4, 5, 3), Text: "too\nmany"}},
		{"550-see below\r\n550 5.1.1 unknown\r\n", smtp.Reply{Code: 550, Enhanced: code(5, 1, 1), Text: "see below\nunknown"}},
		{"550-5.1.1 a\r\n550 5.2.1 b\r\n", smtp.Reply{Code: 550, Enhanced: code(5, 1, 1), Text: "a\n5.2.1 b"}},
		{"250-a\r\n250-\r\n250\r\n", smtp.Reply{Code: 250, Text: "a\n\n"}},
		{"250-a\r\n251 b\r\n", smtp.Reply{Code: 251, Text: "a\nb"}},
		{"250 t\tab\x00nul\x7f\xff \xc3\xa9\r\r\n", smtp.Reply{Code: 250, Text: "t ab nul ? é"}},
		{"250 " + strings.Repeat("x", 600) + "\r\n", smtp.Reply{Code: 250, Text: strings.Repeat("x", 508)}},
		{"250 " + strings.Repeat("y", 10_000) + "\r\n", smtp.Reply{Code: 250, Text: strings.Repeat("y", 508)}},
		{strings.Repeat("250-z\r\n", 5000) + "250 z\r\n", smtp.Reply{Code: 250, Text: strings.TrimSuffix(strings.Repeat("z\n", 2048), "\n")}},
	} {
		r := newReplyReader(strings.NewReader(tc.in), func() {})
		var memory string
		got, err := r.read(false, &memory)
		if err != nil {
			t.Errorf("%.60q: %v", tc.in, err)
			continue
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%.60q: %s", tc.in, diff)
		}
	}
	// The replies to EHLO and to the connection are read as they are (RFC 2034, 3).
	r := newReplyReader(strings.NewReader("250-2.0.0 host\r\n250 SIZE\r\n"), func() {})
	var memory string
	if got, err := r.read(true, &memory); err != nil || got.Text != "2.0.0 host\nSIZE" || !got.Enhanced.IsZero() {
		t.Errorf("%+v %v", got, err)
	}
}

func TestReadReplyFails(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		in       string
		protocol bool
		err      error
	}{
		{"", false, io.EOF},
		{"2", false, io.ErrUnexpectedEOF},
		{"250 ok", false, io.ErrUnexpectedEOF},
		{"250-ok\r\n", false, io.ErrUnexpectedEOF},
		{"250-ok\r\n25", false, io.ErrUnexpectedEOF},
		{"2500 ok\r\n", true, nil},
		{"25\r\n", true, nil},
		{"25x\r\n", true, nil},
		{"199 ok\r\n", true, nil},
		{"600 ok\r\n", true, nil},
		{"250-ok\r\n450 no\r\n", true, nil},
		{"250_ok\r\n", true, nil},
		{" 250 ok\r\n", true, nil},
		{"250 " + strings.Repeat("x", maxReply) + "\r\n", true, nil},
		{strings.Repeat("250-x\r\n", maxReply/7+1) + "250 x\r\n", true, nil},
	} {
		r := newReplyReader(strings.NewReader(tc.in), func() {})
		var memory string
		_, err := r.read(false, &memory)
		_, protocol := errors.AsType[protocolError](err)
		if protocol != tc.protocol || tc.err != nil && err != tc.err {
			t.Errorf("%.40q: %v", tc.in, err)
		}
		if err != nil && len(err.Error()) > 200 {
			t.Errorf("%.40q: long error", tc.in)
		}
	}
	r := newReplyReader(emptyReader{}, func() {})
	var memory string
	if _, err := r.read(false, &memory); err != io.ErrNoProgress {
		t.Error(err)
	}
}

type emptyReader struct{}

func (emptyReader) Read([]byte) (int, error) { return 0, nil }

// TestReadReplyWaitsOnce: the time limit of a reply is set once, before the first read that may block, and not at all
// for a reply that is there.
func TestReadReplyWaitsOnce(t *testing.T) {
	t.Parallel()
	waits := 0
	r := newReplyReader(iotest.OneByteReader(strings.NewReader("250-a\r\n250 b\r\n250 c\r\n")), func() { waits++ })
	var memory string
	for want := 1; want <= 2; want++ {
		if _, err := r.read(false, &memory); err != nil || waits != want {
			t.Errorf("%v, %d waits, want %d", err, waits, want)
		}
	}
	waits = 0
	r = newReplyReader(strings.NewReader("250-a\r\n250 b\r\n250 c\r\n"), func() { waits++ })
	for range 2 {
		if _, err := r.read(false, &memory); err != nil || waits != 1 {
			t.Errorf("%v, %d waits", err, waits)
		}
	}
}

func TestReadReplyAllocations(t *testing.T) {
	in := strings.Repeat("250-2.1.0 first line of the usual words\r\n250 2.1.0 second line\r\n", 2000)
	r := newReplyReader(strings.NewReader(in), func() {})
	var memory string
	n := testing.AllocsPerRun(1000, func() {
		if _, err := r.read(false, &memory); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for a reply heard before", n)
	}
}

func FuzzReadReply(f *testing.F) {
	for _, s := range []string{
		"250 ok\r\n", "250-a\r\n250 b\r\n", "250\n", "2200\r\n", "25x\r\n", "550 2.1.5 x\r\n", "250-a\r\n550 b\r\n",
		"354 go\r\n421 4.3.2 bye\r\n", "250 \x00\xff\r\n", "\r\n", strings.Repeat("250-x\r\n", 3) + "250 5.5.5", "250 2.1.",
		"250 " + strings.Repeat("l", 5000) + "\r\n250 next\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		readAll := func(src io.Reader) (replies []smtp.Reply, failure string) {
			r := newReplyReader(src, func() {})
			var memory string
			for {
				reply, err := r.read(false, &memory)
				if err != nil {
					return replies, err.Error()
				}
				replies = append(replies, reply)
			}
		}
		whole, end := readAll(strings.NewReader(string(in)))
		pieces, endOfPieces := readAll(iotest.OneByteReader(strings.NewReader(string(in))))
		// How the octets arrive must not matter, or a peer's replies shift against our commands.
		if diff := cmp.Diff(whole, pieces); diff != "" || end != endOfPieces {
			t.Errorf("in pieces: %s, %s or %s", diff, end, endOfPieces)
		}
		for _, r := range whole {
			if r.Code < 200 || r.Code > 599 || len(r.Text) > keptReply+2*utf8.UTFMax || !utf8.ValidString(r.Text) {
				t.Errorf("%d with %d octets", r.Code, len(r.Text))
			}
			if !r.Enhanced.IsZero() && int(r.Enhanced.Class) != r.Class() {
				t.Errorf("class of %s", r)
			}
			if strings.ContainsFunc(r.Text, func(c rune) bool { return c < ' ' && c != '\n' || c == 0x7f }) {
				t.Errorf("control character in %q", r.Text)
			}
			// What was understood reads the same from its own wire form, if no line of it was cut.
			if reads := newReplyReader(strings.NewReader(string(r.AppendTo(nil))), func() {}); len(r.Text) < 400 {
				var memory string
				back, err := reads.read(false, &memory)
				if err != nil || back.Code != r.Code || r.Enhanced != back.Enhanced && !r.Enhanced.IsZero() {
					t.Errorf("%+v came back as %+v, %v", r, back, err)
				}
			}
		}
	})
}
