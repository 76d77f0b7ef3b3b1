package message

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// TestR25 gives the parsers input that made others take quadratic time or endless memory. The budget is far above what
// they need, and far below what a quadratic one would.
func TestR25(t *testing.T) {
	t.Parallel()
	const size = 256 << 10
	long := func(s string) string { return strings.Repeat(s, size/len(s)) }
	for name, s := range map[string]string{
		"comments that open":      long("("),
		"comments in comments":    long("(") + long(")"),
		"commas":                  long(","),
		"groups":                  long("g:;,"),
		"dots":                    "a" + long(".a") + "@b.example",
		"quotes":                  long(`"`),
		"escapes":                 `"` + long(`\\`),
		"encoded words":           long("=?utf-8?q?=41?= "),
		"words that do not end":   long("=?utf-8?q?"),
		"words and spaces":        long("a "),
		"angles":                  long("<"),
		"addresses":               long("a@b.example, "),
		"a domain literal":        "a@[" + long("1.") + "]",
		"line ends between words": long("a\r\n "),
	} {
		begin := time.Now()
		_, _ = ParseAddresses(s) // whether it is one does not matter
		if d := time.Since(begin); d > 5*time.Second {
			t.Errorf("ParseAddresses of %s takes %s", name, d)
		}
	}
	for name, s := range map[string]string{
		"fields":      long("a:\r\n"),
		"folds":       "a: b" + long("\r\n "),
		"colons":      long(":"),
		"empty folds": "a:\r\n" + long(" \r\n"),
		"no field":    long("x"),
		"bare CR":     "a:" + long("\r"),
	} {
		begin := time.Now()
		h, err := ParseHeader([]byte(s + "\r\n\r\n"))
		if err == nil {
			n := 0
			for f := range h.Fields() {
				n++
				_ = AppendUnfolded(nil, f.Value)
			}
			_, _ = h.Get("Subject")
			_ = h.Count("a")
			if n > size {
				t.Errorf("%s: %d fields", name, n)
			}
		}
		if d := time.Since(begin); d > 5*time.Second {
			t.Errorf("a header of %s takes %s", name, d)
		}
	}
	if b := bytes.Repeat([]byte("\r\n\t x"), size/5); len(AppendUnfolded(nil, b)) > len(b) {
		t.Error("unfolding makes it longer")
	}
}
