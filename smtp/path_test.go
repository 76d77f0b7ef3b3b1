package smtp

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseForwardPath(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 64)
	label := strings.Repeat("d", 63)
	domain := strings.Join([]string{label, label, label, strings.Repeat("d", 61)}, ".")
	tests := []struct {
		name string
		in   string
		want Path
		rest string
		code int // 0: accepted
	}{
		{"plain", "<user@example.org>", Path{"user", "example.org"}, "", 0},
		{"case is kept R-22", "<John.DOE+Tag@Example.ORG>", Path{"John.DOE+Tag", "Example.ORG"}, "", 0},
		{"parameters", "<u@example.org> NOTIFY=NEVER", Path{"u", "example.org"}, " NOTIFY=NEVER", 0},
		{"all of atext", "<!#$%&'*+-/=?^_`{|}~@example.org>", Path{"!#$%&'*+-/=?^_`{|}~", "example.org"}, "", 0},
		{"quoted", `<"john doe"@example.org>`, Path{"john doe", "example.org"}, "", 0},
		{"quoted needlessly", `<"john"@example.org>`, Path{"john", "example.org"}, "", 0},
		{"quoted pairs", `<"a\"b\\c\ d"@example.org>`, Path{`a"b\c d`, "example.org"}, "", 0},
		{"quoted bracket and at", `<"a>b@c"@example.org>`, Path{"a>b@c", "example.org"}, "", 0},
		{"quoted empty", `<""@example.org>`, Path{"", "example.org"}, "", 0},
		{"source route", "<@a.example,@b.example:u@example.org>", Path{"u", "example.org"}, "", 0},
		{"source route with literal", "<@[192.0.2.1]:u@example.org>", Path{"u", "example.org"}, "", 0},
		{"postmaster", "<Postmaster>", Path{"Postmaster", ""}, "", 0},
		{"postmaster, other case", "<POSTmaster> X=Y", Path{"POSTmaster", ""}, " X=Y", 0},
		{"literal 4", "<u@[192.0.2.1]>", Path{"u", "[192.0.2.1]"}, "", 0},
		{"literal 6", "<u@[IPv6:2001:db8::1]>", Path{"u", "[IPv6:2001:db8::1]"}, "", 0},
		{"literal 6, tag in lower case", "<u@[ipv6:::1]>", Path{"u", "[ipv6:::1]"}, "", 0},
		{"underscore in domain", "<u@a_b.example>", Path{"u", "a_b.example"}, "", 0},
		{"single label", "<u@localhost>", Path{"u", "localhost"}, "", 0},
		{"digits only", "<u@123.456>", Path{"u", "123.456"}, "", 0},
		{"A-label", "<u@xn--bcher-kva.example>", Path{"u", "xn--bcher-kva.example"}, "", 0},
		{"U-label", "<u@bücher.example>", Path{"u", "bücher.example"}, "", 0},
		{"local UTF-8", "<grüße@example.org>", Path{"grüße", "example.org"}, "", 0},
		{"quoted UTF-8", `<"grüße und"@example.org>`, Path{"grüße und", "example.org"}, "", 0},
		{"U-6 roman numeral is kept", "<henryⅣ@example.org>", Path{"henryⅣ", "example.org"}, "", 0},
		{"local 64", "<" + long + "@example.org>", Path{long, "example.org"}, "", 0},
		{"percent is no route", "<a%b@example.org>", Path{"a%b", "example.org"}, "", 0},
		{"domain 253", "<u@" + domain[:250] + ">", Path{"u", domain[:250]}, "", 0},

		{"empty", "", Path{}, "", 501},
		{"null", "<>", Path{}, "", 501},
		{"no brackets", "u@example.org", Path{}, "", 501},
		{"no end", "<u@example.org", Path{}, "", 501},
		{"glued parameters", "<u@example.org>NOTIFY=NEVER", Path{}, "", 501},
		{"postmaster glued", "<postmaster>x", Path{}, "", 501},
		{"no domain", "<u>", Path{}, "", 501},
		{"empty domain", "<u@>", Path{}, "", 501},
		{"empty local", "<@example.org>", Path{}, "", 501},
		{"dot first", "<.u@example.org>", Path{}, "", 501},
		{"dot last", "<u.@example.org>", Path{}, "", 501},
		{"two dots", "<a..b@example.org>", Path{}, "", 501},
		{"two at", "<a@b@example.org>", Path{}, "", 501},
		{"space in local", "<a b@example.org>", Path{}, "", 501},
		{"space in domain", "<a@exa mple.org>", Path{}, "", 501},
		{"trailing dot", "<a@example.org.>", Path{}, "", 501},
		{"empty label", "<a@example..org>", Path{}, "", 501},
		{"hyphen first", "<a@-example.org>", Path{}, "", 501},
		{"hyphen last", "<a@example-.org>", Path{}, "", 501},
		{"hyphen at the end", "<a@example.org->", Path{}, "", 501},
		{"unended quote", `<"a@example.org>`, Path{}, "", 501},
		{"quote then text", `<"a"b@example.org>`, Path{}, "", 501},
		{"control in quotes", "<\"a\tb\"@example.org>", Path{}, "", 501},
		{"NUL Z-8", "<u@ours\x00.example.org>", Path{}, "", 501},
		{"NUL in local Z-8", "<u\x00v@example.org>", Path{}, "", 501},
		{"DEL in quotes", "<\"a\x7fb\"@example.org>", Path{}, "", 501},
		{"backslash at end", `<"a\`, Path{}, "", 501},
		{"I-1 parameter in quotes stays quoted", `<"a@x.test> ORCPT=rfc822;b@y"@z.test>`,
			Path{"a@x.test> ORCPT=rfc822;b@y", "z.test"}, "", 0},
		{"local 65", "<a" + long + "@example.org>", Path{}, "", 501},
		{"quoted local 65", `<"a` + long + `"@example.org>`, Path{}, "", 501},
		{"label 64", "<u@d" + label + ".example>", Path{}, "", 501},
		{"last label 64", "<u@d" + label + ">", Path{}, "", 501},
		{"domain 254", "<u@d." + domain + ">", Path{}, "", 501},
		{"path over 256", "<" + long + "@" + domain + ">", Path{}, "", 501},
		{"literal not closed", "<u@[192.0.2.1>", Path{}, "", 501},
		{"literal empty", "<u@[]>", Path{}, "", 501},
		{"literal with zeros", "<u@[192.0.02.1]>", Path{}, "", 501},
		{"literal 999", "<u@[999.1.1.1]>", Path{}, "", 501},
		{"literal 6 untagged", "<u@[2001:db8::1]>", Path{}, "", 501},
		{"literal 4 tagged", "<u@[IPv6:192.0.2.1]>", Path{}, "", 501},
		{"literal zone", "<u@[IPv6:fe80::1%eth0]>", Path{}, "", 501},
		{"literal then text", "<u@[192.0.2.1]x>", Path{}, "", 501},
		{"Z-5 long literal", "<u@[" + strings.Repeat("a", 262144) + "]>", Path{}, "", 501},
		{"route without colon", "<@a.example u@b.example>", Path{}, "", 501},
		{"route empty", "<@:u@b.example>", Path{}, "", 501},
		{"U-4 overlong", "<a\xc0\x80@example.org>", Path{}, "", 501},
		{"U-4 surrogate", "<a\xed\xa0\x80@example.org>", Path{}, "", 501},
		{"U-4 truncated", "<a\xc3@example.org>", Path{}, "", 501},
		{"U-4 too big", "<a\xf4\x90\x80\x80@example.org>", Path{}, "", 501},
		{"U-4 in domain", "<a@exa\xc3mple.org>", Path{}, "", 501},
		{"U-4 in quotes", "<\"a\xff\"@example.org>", Path{}, "", 501},
		{"U-5 xn---", "<a@xn---.example>", Path{}, "", 501},
		{"U-5 A-label of ASCII", "<a@xn--abc-.example>", Path{}, "", 501},
		{"U-5 A-label of capital", "<a@xn--bcher-2pa.example>", Path{}, "", 501},
		{"U-5 label too long as A-label", "<a@" + strings.Repeat("ü", 60) + ".example>", Path{}, "", 501},
		{"U-6 full-width at", "<a\uff20b@example.org>", Path{}, "", 501},
		{"U-6 ideographic dot", "<a@example\u3002org>", Path{}, "", 501},
		{"U-6 zero-width joiner", "<a\u200db@example.org>", Path{}, "", 501},
		{"U-6 BOM", "<\ufeffa@example.org>", Path{}, "", 501},
		{"U-6 override", "<a\u202eb@example.org>", Path{}, "", 501},
		{"U-6 full-width domain", "<a@ｅxample.org>", Path{}, "", 501},
		{"NEL", "<a\u0085b@example.org>", Path{}, "", 501},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, rest, err := ParseForwardPath(tt.in, PathOptions{UTF8: true})
			checkParse(t, err, tt.code)
			if diff := cmp.Diff(tt.want, got); diff != "" || rest != tt.rest {
				t.Errorf("path %s\nrest %q, want %q", diff, rest, tt.rest)
			}
		})
	}
}

func checkParse(t *testing.T, err error, code int) {
	t.Helper()
	if code == 0 {
		if err != nil {
			t.Fatalf("refused: %v", err)
		}
		return
	}
	var pe *ParseError
	if !errors.As(err, &pe) {
		t.Fatalf("error %v is no ParseError", err)
	}
	if pe.Code != code || pe.Text == "" || pe.Enhanced.Class != uint16(code/100) {
		t.Fatalf("reply %q, want code %d", pe.Reply(), code)
	}
}

func TestParsePathWithoutUTF8(t *testing.T) {
	t.Parallel()
	for _, in := range []string{"<grüße@example.org>", "<u@bücher.example>"} {
		_, _, err := ParseForwardPath(in, PathOptions{})
		checkParse(t, err, 553)
		_, _, err = ParseReversePath(in, PathOptions{})
		checkParse(t, err, 553)
	}
	_, _, err := ParseReversePath("<a\xff@example.org>", PathOptions{})
	checkParse(t, err, 501) // invalid UTF-8 is bad syntax with or without the extension
}

func TestParseReversePath(t *testing.T) {
	t.Parallel()
	p, rest, err := ParseReversePath("<> SIZE=1", PathOptions{})
	if err != nil || !p.IsNull() || rest != " SIZE=1" {
		t.Errorf("null path: %v %q %v", p, rest, err)
	}
	for _, in := range []string{"<postmaster>", "<>x", "< >", ""} {
		_, _, err := ParseReversePath(in, PathOptions{})
		checkParse(t, err, 501)
	}
}

func TestParseMailbox(t *testing.T) {
	t.Parallel()
	for _, ok := range []string{"u@example.org", `"a b"@example.org`, "grüße@bücher.example", "u@[192.0.2.1]"} {
		if _, err := ParseMailbox(ok); err != nil {
			t.Errorf("%s: %v", ok, err)
		}
	}
	for _, bad := range []string{
		"", "u", "<u@example.org>", "u@example.org ", "u@example.org>", "postmaster", "a@b@c",
	} {
		p, err := ParseMailbox(bad)
		if err == nil || err.Error() == "" {
			t.Errorf("%s: accepted as %v", bad, p)
		}
	}
}

func TestPathNeedsUTF8(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][2]bool{
		"u@example.org": {true, false}, "u@bücher.example": {false, false}, "ü@example.org": {false, true},
	} {
		p, err := ParseMailbox(text)
		if err != nil || p.IsASCII() != want[0] || p.NeedsUTF8() != want[1] {
			t.Errorf("%s: %v %v %v", text, err, p.IsASCII(), p.NeedsUTF8())
		}
	}
}

func TestPathRoundTrip(t *testing.T) {
	t.Parallel()
	for _, p := range []Path{
		{"u", "a.example"}, {"", "a.example"}, {"a b", "a.example"}, {`a"\`, "a.example"},
		{".a", "a.example"}, {"a..b", "x"},
	} {
		got, err := ParseMailbox(p.String())
		if err != nil || got != p {
			t.Errorf("%q became %q: %v", p, got, err)
		}
	}
}

func TestDomainToASCII(t *testing.T) {
	t.Parallel()
	tests := []struct{ in, want string }{
		{"example.org", "example.org"},
		{"Example.ORG.", "example.org"},
		{"BÜCHER.example", "xn--bcher-kva.example"},
		{"XN--BCHER-KVA.example", "xn--bcher-kva.example"},
		{"straße.example", "xn--strae-oqa.example"},
		{"مثال.example", "xn--mgbh0fb.example"},
		{"a_b.example", "a_b.example"},
		{"ab--c.example", "ab--c.example"},
		{"[192.0.2.1]", "[192.0.2.1]"},
		{"[ipv6:2001:DB8::0:1]", "[IPv6:2001:db8::1]"},
		{"", ""}, {".", ""}, {"a..b", ""}, {"a b", ""}, {"-a.b", ""}, {"a-.b", ""},
		{"a\x00b", ""}, {"[x]", ""}, {"a@b", ""},
		{"xn---.example", ""}, {"xn--.example", ""}, {"xn--abc-.example", ""}, {"xn--a.example", ""},
		{strings.Repeat("a", 64) + ".b", ""}, {strings.Repeat("a.", 127) + "b", ""},
		{strings.Repeat("ü", 60) + ".example", ""},
		{"example。org", ""}, {"ｅxample.org", ""}, {"bu\u0308cher.example", ""},
		{"a\u202eb.example", ""}, {"\xff.example", ""},
	}
	for _, tt := range tests {
		got, err := DomainToASCII(tt.in)
		if got != tt.want && err == nil || (err != nil) != (tt.want == "") {
			t.Errorf("%q: %q, %v, want %q", tt.in, got, err, tt.want)
		}
		if err == nil {
			if again, err := DomainToASCII(got); err != nil || again != got {
				t.Errorf("%q is not stable: %q, %v", got, again, err)
			}
		}
	}
}

func FuzzParsePath(f *testing.F) {
	for _, s := range []string{
		"<>", "<u@example.org> SIZE=1", `<"a\"b"@[192.0.2.1]>`, "<@a,@b:u@c>", "<Postmaster>", "<ü@bücher.example>",
		"<a@xn--bcher-kva.example>", "<u@[IPv6:::1]>", "<a\xff@b>", `<"`, "<@",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, o := range []PathOptions{{}, {UTF8: true}} {
			p, rest, err := ParseForwardPath(s, o)
			if err != nil {
				if p != (Path{}) || rest != "" {
					t.Fatalf("a refused path has a value: %q %q", p, rest)
				}
				continue
			}
			if !strings.HasSuffix(s, rest) || len(p.Local) > maxLocal || len(p.Domain) > maxPath {
				t.Fatalf("%q: %q, rest %q", s, p, rest)
			}
			if strings.ContainsAny(p.Local+p.Domain, "\r\n\x00") || !o.UTF8 && !p.IsASCII() {
				t.Fatalf("%q: unclean path %q", s, p)
			}
			again, rest, err := ParseForwardPath("<"+p.String()+">", o)
			stable := err == nil && again == p && rest == "" || err != nil && len(p.String()) > maxPath-2
			if !stable && p.Domain != "" {
				t.Fatalf("%q is not stable: %q %v", p, again, err)
			}
			if p.Domain != "" {
				if _, err := DomainToASCII(p.Domain); err != nil {
					t.Fatalf("%q: domain %q has no key: %v", s, p.Domain, err)
				}
			}
		}
	})
}

func FuzzDomainToASCII(f *testing.F) {
	for _, s := range []string{
		"example.org", "BÜCHER.example", "xn--bcher-kva", "[IPv6:::1]", "xn---.x", "مثال.إختبار", "a.-b",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := DomainToASCII(s)
		if err != nil {
			return
		}
		again, err := DomainToASCII(got)
		if err != nil || again != got {
			t.Fatalf("%q became %q, then %q, %v", s, got, again, err)
		}
		if !isASCII(got) || got == "" || len(got) > maxDomain {
			t.Fatalf("%q became %q", s, got)
		}
	})
}
