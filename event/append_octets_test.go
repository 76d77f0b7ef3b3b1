package event

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestStringEveryOctet puts each octet at each place of a text that is looked at in words of eight, and of one that is
// not, and wants what encoding/json writes.
func TestStringEveryOctet(t *testing.T) {
	t.Parallel()
	for c := range 256 {
		for at := range 19 {
			text := []byte(strings.Repeat("z!~_a ]#'", 3))[:19]
			text[at] = byte(c)
			for _, s := range []string{string(text), string(text[at:]), string(text[:at+1])} {
				want, err := json.Marshal(s)
				if err != nil {
					t.Fatal(err)
				}
				if got := appendString(nil, s); string(got) != string(want) {
					t.Fatalf("%q became %s, want %s", s, got, want)
				}
			}
		}
	}
}
