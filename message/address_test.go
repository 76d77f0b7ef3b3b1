package message

import (
	"slices"
	"strings"
	"testing"
)

func TestParseAddresses(t *testing.T) {
	t.Parallel()
	for in, want := range map[string][]Address{
		"ann@example.com":                              {{"", "ann", "example.com"}},
		"Ann <ann@example.com>":                        {{"Ann", "ann", "example.com"}},
		`"Example, Ann" <ann@example.com>, bob@b.test`: {{"Example, Ann", "ann", "example.com"}, {"", "bob", "b.test"}},
		"=?utf-8?q?J=C3=BCrgen?= <j@example.com>":      {{"Jürgen", "j", "example.com"}},
		"Jürgen <jürgen@bücher.example>":               {{"Jürgen", "jürgen", "bücher.example"}},
		`"a b"@example.com`:                            {{"", "a b", "example.com"}},
		`"a@b"@example.com`:                            {{"", "a@b", "example.com"}},
		"ann@[192.0.2.1]":                              {{"", "ann", "[192.0.2.1]"}},
		"Friends: ann@a.test, bob@b.test;":             {{"", "ann", "a.test"}, {"", "bob", "b.test"}},
	} {
		got, err := ParseAddresses(in)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}

// I-1 and I-2: what is not a list of mailboxes is refused, and quoting is not lost.
func TestI2AddressInjection(t *testing.T) {
	t.Parallel()
	for _, in := range []string{
		"", "Nobody:;", "ann", "@example.com", "ann@", "ann@example.com\r\nBcc: x@example.com", "ann@example.com\n", "a\x00@example.com",
		"ann@b>\r\nRCPT TO:<c@d", "=?utf-8?q?a=0D=0ABcc:_x?= <ann@example.com>", "=?utf-8?q?a=00?= <ann@example.com>",
		"a@b c@d", "<a@b> <c@d>", "\"a\r\"@example.com", "\u2028@example.com", "ann@exa mple.com", "ann@example.com\xff",
	} {
		if got, err := ParseAddresses(in); err == nil || !strings.HasPrefix(err.Error(), "message: ") {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	got, err := ParseAddresses(`"a@x.test> ORCPT=rfc822;b@y"@z.test`)
	if err != nil || got[0].Domain != "z.test" || got[0].Mailbox() != `"a@x.test> ORCPT=rfc822;b@y"@z.test` {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, a := range []Address{
		{}, {"", "a", ""}, {"", "", "b"}, {"", "a", "b>"}, {"", "a", "b c"}, {"a\nb", "a", "b"}, {"", "a\r", "b"}, {"", "a", "b\x00"},
		{"", "a", "b,c"}, {"", "a", "b@c"}, {"\xff", "a", "b"},
	} {
		if got, err := FormatAddresses([]Address{a}); err == nil {
			t.Errorf("%q: %q", a, got)
		}
	}
}

func TestFormatAddresses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in   Address
		want string
	}{
		{Address{"", "ann", "example.com"}, "ann@example.com"},
		{Address{"Ann Example", "ann", "example.com"}, "Ann Example <ann@example.com>"},
		{Address{"  Ann   Example ", "ann", "example.com"}, "Ann Example <ann@example.com>"},
		{Address{"Example, Ann", "ann", "example.com"}, `"Example, Ann" <ann@example.com>`},
		{Address{`Ann "Sharp" \ Example`, "ann", "example.com"}, `"Ann \"Sharp\" \\ Example" <ann@example.com>`},
		{Address{"ann@other.test", "ann", "example.com"}, `"ann@other.test" <ann@example.com>`},
		{Address{"Jürgen", "j", "example.com"}, "=?utf-8?q?J=C3=BCrgen?= <j@example.com>"},
		{Address{"=?utf-8?q?x?=", "j", "example.com"}, "=?utf-8?q?=3D=3Futf-8=3Fq=3Fx=3F=3D?= <j@example.com>"},
		{Address{"  ", "j", "example.com"}, `"" <j@example.com>`},
		{Address{"", "a b", "example.com"}, `"a b"@example.com`},
		{Address{"", `a"b`, "example.com"}, `"a\"b"@example.com`},
		{Address{"", "a..b", "example.com"}, `"a..b"@example.com`},
		{Address{"", "jürgen", "example.com"}, "jürgen@example.com"},
	} {
		got, err := FormatAddresses([]Address{c.in, {"", "z", "z.test"}})
		if err != nil || got != c.want+", z@z.test" {
			t.Errorf("%q: %q, %v; want %q", c.in, got, err, c.want)
		}
	}
}

func FuzzAddresses(f *testing.F) {
	f.Add("Ann <ann@example.com>, \"x y\"@b.test")
	f.Add("=?utf-8?q?J=C3=BCrgen?= <j@[192.0.2.1]>")
	f.Add("G: a@b, c@d;")
	f.Fuzz(func(t *testing.T, s string) {
		list, err := ParseAddresses(s)
		if err != nil {
			return
		}
		text, err := FormatAddresses(list)
		if err != nil {
			t.Fatalf("%q parses to %q, which cannot be written: %v", s, list, err)
		}
		if strings.ContainsAny(text, "\r\n\x00") {
			t.Fatalf("%q", text)
		}
		again, err := ParseAddresses(text)
		if err != nil {
			t.Fatalf("%q is written as %q: %v", s, text, err)
		}
		if len(again) != len(list) {
			t.Fatalf("%q: %q became %q", s, list, again)
		}
		for i := range list {
			if list[i].Mailbox() != again[i].Mailbox() {
				t.Errorf("%q became %q", list[i], again[i])
			}
		}
	})
}
