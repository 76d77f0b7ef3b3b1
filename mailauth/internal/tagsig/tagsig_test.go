package tagsig

import (
	"bytes"
	"crypto/sha256"
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
