package submission

import (
	"net/mail"
	"slices"
	"strings"
	"testing"

	"github.com/godwit-mta/godwit/smtp"
)

// FuzzAuthors: a value that is accepted has no address for another reader that was not checked. The other reader is net/mail.
func FuzzAuthors(f *testing.F) {
	for _, s := range []string{
		"me@shop.example", "Me <me@shop.example>, you@shop.example", "Team: a@b.c, d@e.f;, g@h.i", "<@a.b,@c.d:e@f.g>",
		"=?utf-8?b?PGNlb0BiYW5rLmV4YW1wbGU+?= <me@shop.example>", "\"<a@b>\" <c@d.e>", "a . b @ c.d (x)", "(a@b) c@d", "a@[127.0.0.1]",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var domains []string
		err := eachAuthor(s, func(p smtp.Path) error {
			domains = append(domains, strings.ToLower(p.Domain))
			return nil
		})
		if err != nil {
			return
		}
		if len(domains) == 0 {
			t.Fatalf("%q is accepted and names nobody", s)
		}
		list, err := mail.ParseAddressList(s)
		if err != nil {
			return
		}
		for _, a := range list {
			at := strings.LastIndexByte(a.Address, '@')
			if !slices.Contains(domains, strings.ToLower(a.Address[at+1:])) {
				t.Errorf("%q: %q was not checked, only %q", s, a.Address, domains)
			}
		}
	})
}
