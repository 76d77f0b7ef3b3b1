package submission

import (
	"slices"
	"testing"

	"github.com/godwit-mta/godwit/message"
)

// TestAuthors: only what all readers understand alike names an author, and names in front of an address name nobody.
func TestAuthors(t *testing.T) {
	t.Parallel()
	for header, want := range map[string][]string{
		"From: Ann <ann@Example.COM>\r\n":                             {"example.com"},
		"From: ann@example.com, bob@example.com, c@other.example\r\n": {"example.com", "other.example"},
		"From: \"bank@bank.example\" <eve@evil.example>\r\n":          {"evil.example"},
		"From: ann@gr\xc3\xbcn.example\r\n":                           {"xn--grn-ioa.example"},
		"From: friends: ann@example.com;\r\n":                         {"example.com"},
		"From: MAILER-DAEMON\r\n":                                     {},
		"To: x@example.com\r\n":                                       nil,
		"From: a@example.com\r\nFROM: b@evil.example\r\n":             nil,
		"From: <a@example.com> <b@evil.example>\r\n":                  nil,
		"From: a@example.com\x00.evil.example\r\n":                    nil,
		"From: a@[192.0.2.1]\r\n":                                     nil,
		"From:\r\n":                                                   nil,
		"From: a@example.com\r\nno field\r\n":                         nil,
		"From : a@example.com\r\n":                                    {"example.com"},
	} {
		h, err := message.ParseHeader([]byte(header + "\r\n"))
		got := Authors(h, err)
		if got.Unclear != (want == nil) || !slices.Equal(got.Domains, want) {
			t.Errorf("%q: %+v, want %q", header, got, want)
		}
	}
}
