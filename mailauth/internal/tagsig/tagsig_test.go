package tagsig

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"
)

// TestCanonical has the examples of RFC 6376, 3.4.5.
func TestCanonical(t *testing.T) {
	t.Parallel()
	if got := string(AppendRelaxedField(nil, []byte("B"), []byte(" Y\t\r\n\tZ  "))); got != "b:Y Z" {
		t.Errorf("header field %q", got)
	}
	for in, want := range map[string]string{
		" C \r\nD \t E\r\n\r\n\r\n": " C\r\nD E\r\n", "": "", "\r\n": "", " \t\r\n\r\n": "", "x": "x\r\n", "\r\n\r\na\r\n": "\r\n\r\na\r\n",
	} {
		h := sha256.New()
		var c RelaxedBody
		c.Reset(h)
		c.Feed([]byte(in))
		c.End()
		if sum := sha256.Sum256([]byte(want)); !bytes.Equal(h.Sum(nil), sum[:]) || c.Bad() {
			t.Errorf("%q is not %q", in, want)
		}
	}
}

func TestSimple(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		" C \r\nD \t E\r\n\r\n\r\n": " C \r\nD \t E\r\n", "": "\r\n", "\r\n": "\r\n", "\r\n\r\n": "\r\n", "x": "x\r\n", " \r\n": " \r\n",
		"\r\n\r\na\r\n": "\r\n\r\na\r\n", "a\r\n\r\nb": "a\r\n\r\nb\r\n",
		"a" + strings.Repeat("\r\n", 40) + "b": "a" + strings.Repeat("\r\n", 40) + "b\r\n",
	} {
		for cut := range len(in) + 1 {
			var got bytes.Buffer
			var c SimpleBody
			c.Reset(&got)
			c.Feed([]byte(in[:cut]))
			c.Feed([]byte(in[cut:]))
			if c.End(); got.String() != want || c.Bad() {
				t.Errorf("%q cut at %d: %q, want %q", in, cut, got.String(), want)
			}
		}
	}
	for _, in := range []string{"\n", "a\nb", "a\r\n\n", "a\rb", "a\r", "\r\r\n", "a\r\r\n", "a\r\nb\n"} {
		var c SimpleBody
		c.Reset(new(bytes.Buffer))
		c.Feed([]byte(in))
		if c.End(); !c.Bad() {
			t.Errorf("%q is whole", in)
		}
	}
}

func TestWindow(t *testing.T) {
	t.Parallel()
	for limit, want := range map[int64]string{-1: "abcdefgh", 0: "", 3: "abc", 5: "abcde", 8: "abcdefgh", 9: "abcdefgh"} {
		var got bytes.Buffer
		w := Window{Hash: &got, Limit: limit}
		for _, p := range []string{"abcd", "", "efgh"} {
			if n, err := w.Write([]byte(p)); n != len(p) || err != nil {
				t.Error(n, err)
			}
		}
		if got.String() != want || w.Size != 8 {
			t.Errorf("%d: %q", limit, got.String())
		}
	}
}

func TestTags(t *testing.T) {
	t.Parallel()
	tags, err := ParseTags([]byte(" v=1; a =\r\n\tx y ;b=;h= From : To:\t;n=12;A=2;\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	if tags.Text("a") != "x y" || tags.Text("A") != "2" || tags.Text("none") != "" || !tags.Has("h", "To") || tags.Has("h", "to") {
		t.Errorf("%+v", tags)
	}
	if p, ok := tags.Packed("a"); string(p) != "xy" || !ok {
		t.Errorf("%q", p)
	}
	for name, want := range map[string]int64{"n": 12, "none": -1, "v": 1} {
		if n, err := tags.Number(name); n != want || err != nil {
			t.Errorf("%s: %d %v", name, n, err)
		}
	}
	for _, name := range []string{"a", "b", "h"} {
		if _, err := tags.Number(name); err == nil {
			t.Errorf("%s is a number", name)
		}
	}
	for _, bad := range []string{"", " ", ";", "a", "a=1;b", "a=1;;b=2", "=1", "1a=1", "a b=1", "a=1;a=2", "a=\x00", "a=\x7f",
		strings.Repeat("a", 3), "é=1"} {
		if tags, err := ParseTags([]byte(bad)); !errors.Is(err, ErrTags) {
			t.Errorf("%q: %v %v", bad, tags, err)
		}
	}
}

// FuzzTags: each value is where Begin and End say it is.
func FuzzTags(f *testing.F) {
	f.Add([]byte("v=1; a=rsa-sha256; b=\r\n x;"))
	f.Add([]byte(";=;"))
	f.Fuzz(func(t *testing.T, p []byte) {
		tags, err := ParseTags(p)
		if err != nil {
			return
		}
		for _, tag := range tags {
			if !bytes.Equal(bytes.Trim(p[tag.Begin:tag.End], blanks), tag.Value) || p[tag.Begin-1] != '=' ||
				tag.End < len(p) && p[tag.End] != ';' {
				t.Fatalf("%+v of %q", tag, p)
			}
		}
	})
}

// FuzzBodies: where a body is cut makes no difference.
func FuzzBodies(f *testing.F) {
	f.Add([]byte("a \r\n\r\n b\t\tc \r\n\r\n"), uint16(3))
	f.Fuzz(func(t *testing.T, body []byte, cut uint16) {
		i := int(cut) % (len(body) + 1)
		type form interface {
			Feed(p []byte)
			End()
			Bad() bool
		}
		run := func(c form, out *bytes.Buffer, pieces ...[]byte) string {
			for _, p := range pieces {
				if !c.Bad() {
					c.Feed(p)
				}
			}
			if !c.Bad() {
				c.End()
			}
			if c.Bad() {
				return "bad"
			}
			return out.String()
		}
		var results [4]string
		for n := range results {
			pieces := [][]byte{body}
			if n%2 == 1 {
				pieces = [][]byte{body[:i], body[i:]}
			}
			var out bytes.Buffer
			if n < 2 {
				var c SimpleBody
				c.Reset(&out)
				results[n] = run(&c, &out, pieces...)
			} else {
				var c RelaxedBody
				c.Reset(&out)
				results[n] = run(&c, &out, pieces...)
			}
		}
		if results[0] != results[1] || results[2] != results[3] || (results[0] == "bad") != (results[2] == "bad") {
			t.Fatalf("%q cut at %d: %q", body, i, results)
		}
	})
}
