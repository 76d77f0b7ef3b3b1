package smtp

import (
	"bytes"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

func all(t *testing.T, b *Body) string {
	t.Helper()
	p, err := io.ReadAll(b.Reader())
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(p)) != b.Size() {
		t.Fatalf("%d octets read, size %d", len(p), b.Size())
	}
	return string(p)
}

// TestBodyAppend cuts texts anywhere, across the pieces' ends too, and compares with the plain text.
func TestBodyAppend(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		text := make([]byte, r.IntN(3*largePiece))
		for i := range text {
			text[i] = "a\r\nb..\n"[r.IntN(7)]
		}
		if r.IntN(2) == 0 {
			text = bytes.ReplaceAll(text, []byte("\n."), []byte("\nx"))
		}
		if len(text) > 0 && r.IntN(4) == 0 {
			text[r.IntN(len(text))] = 0xfc
		}
		b := NewBody()
		for p := text; len(p) > 0; {
			n := min(len(p), 1+r.IntN(20000))
			b.Append(p[:n])
			p = p[n:]
		}
		if got := all(t, b); got != string(text) {
			t.Fatalf("%d octets differ", len(text))
		}
		if want := bytes.HasPrefix(text, []byte(".")) || bytes.Contains(text, []byte("\n.")); b.DotLine != want {
			t.Fatalf("DotLine %v, want %v", b.DotLine, want)
		}
		if want := bytes.IndexByte(text, 0xfc) >= 0; b.EightBit != want {
			t.Fatalf("EightBit %v, want %v", b.EightBit, want)
		}
		b.Release()
	}
}

func TestBodyPrepend(t *testing.T) {
	t.Parallel()
	b := BodyOf([]byte("Subject: x\r\n\r\nbody\r\n"))
	b.Prepend([]byte("Received: 1\r\n"))
	b.Prepend([]byte("Received: 2\r\n"))
	if got, want := all(t, b), "Received: 2\r\nReceived: 1\r\nSubject: x\r\n\r\nbody\r\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	b.Extend(copy(b.Free(), "xyz"))
	b.Truncate(1)
	if got := all(t, b); !strings.HasSuffix(got, "body\r\nxy") {
		t.Errorf("%q", got)
	}
	b.Release()
}

func TestBodyReferences(t *testing.T) {
	t.Parallel()
	b := BodyOf([]byte("text"))
	if b.Retain() != b {
		t.Error("Retain returns another body")
	}
	b.Release()
	if got := all(t, b); got != "text" {
		t.Errorf("%q after the first release", got)
	}
	b.Release()
	defer func() {
		if recover() == nil {
			t.Error("a third release went unnoticed")
		}
	}()
	b.Release()
}

func TestHasEightBit(t *testing.T) {
	t.Parallel()
	p := bytes.Repeat([]byte{0x7f}, 100)
	for n := range len(p) {
		if HasEightBit(p[:n]) {
			t.Fatalf("%d octets of ASCII", n)
		}
		for i := range n {
			p[i] = 0x80
			if !HasEightBit(p[:n]) {
				t.Fatalf("octet %d of %d is not seen", i, n)
			}
			p[i] = 0x7f
		}
	}
}

func TestReply(t *testing.T) {
	t.Parallel()
	tests := []struct {
		r          Reply
		wire, text string
	}{
		{Reply{}, "0 \r\n", ""},
		{Reply{Code: 250, Text: "OK"}, "250 OK\r\n", "250 OK"},
		{Reply{Code: 250, Text: ""}, "250 \r\n", "250"},
		{
			Reply{Code: 550, Enhanced: EnhancedCode{5, 1, 1}, Text: "a\nb"},
			"550-5.1.1 a\r\n550 5.1.1 b\r\n", "550 5.1.1 a / b",
		},
	}
	for _, tt := range tests {
		if got := string(tt.r.AppendTo(nil)); got != tt.wire {
			t.Errorf("wire %q, want %q", got, tt.wire)
		}
		if got := tt.r.String(); got != tt.text {
			t.Errorf("text %q, want %q", got, tt.text)
		}
	}
}

func BenchmarkBodyAppend(b *testing.B) {
	text := bytes.Repeat([]byte("0123456789012345678901234567890123456789012345678901234567890123456789\r\n"), 142)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		BodyOf(text).Release()
	}
}

func TestReplyClasses(t *testing.T) {
	t.Parallel()
	for code, want := range map[int]string{0: "0 zero", 250: "2 positive", 354: "3", 421: "4 temporary", 550: "5 permanent"} {
		r := Reply{Code: code}
		got := string(rune('0' + r.Class()))
		for word, is := range map[string]bool{
			" zero": r.IsZero(), " positive": r.Positive(), " temporary": r.Temporary(), " permanent": r.Permanent(),
		} {
			if is {
				got += word
			}
		}
		if got != want {
			t.Errorf("%d: %q, want %q", code, got, want)
		}
	}
	if s := (EnhancedCode{5, 7, 26}).String(); s != "5.7.26" {
		t.Error(s)
	}
	if s := (EnhancedCode{}).String(); s != "" {
		t.Error(s)
	}
}

func TestNotify(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		n                       Notify
		failure, delay, success bool
	}{
		{0, true, false, false},
		{NotifyNever, false, false, false},
		{NotifySuccess, false, false, true},
		{NotifyFailure | NotifyDelay, true, true, false},
	} {
		if tt.n.Failure() != tt.failure || tt.n.Delay() != tt.delay || tt.n.Success() != tt.success {
			t.Errorf("%b", tt.n)
		}
	}
}

// TestBodyDropFront takes octets out across pieces and puts others before what is left.
func TestBodyDropFront(t *testing.T) {
	t.Parallel()
	text := bytes.Repeat([]byte("0123456789abcdef"), 8<<10)
	for _, n := range []int{0, 1, smallPiece - 1, smallPiece, smallPiece + 1, len(text) - 1, len(text)} {
		b := BodyOf(text)
		b.DropFront(n / 2)
		b.DropFront(n - n/2)
		b.Prepend([]byte("new: header\r\n"))
		want := "new: header\r\n" + string(text[n:])
		got, err := io.ReadAll(b.Reader())
		if err != nil || string(got) != want || b.Size() != int64(len(want)) {
			t.Errorf("%d: %d octets of %d, size %d, %v", n, len(got), len(want), b.Size(), err)
		}
		b.Release()
	}
}
