package submission_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/godwit-mta/godwit/internal/submission"
	"github.com/godwit-mta/godwit/internal/submission/auth"
)

// TestAuthors: a client that has logged in sends as what its tenant has proven and as nobody else, however the header hides
// it. Cases named espoofer follow Chen, Paxson and Jiang, "Composition Kills" (2020).
func TestAuthors(t *testing.T) {
	t.Parallel()
	f := newFront(t, frontOptions{policy: submission.Policy{Login: submission.LoginRequired, Auth: auth.Policy{InsecureAuth: true}}})
	f.credential(auth.Credential{Tenant: "shop", Login: "news", Senders: []string{"news@shop.example"}})
	const (
		ok        = "250"
		foreign   = "550 5.7.1 Sender refused: From is in a domain"
		unclear   = "550 5.7.1 Sender refused: a field of authors is not a plain list"
		twice     = "550 5.7.1 Sender refused: the message has more than one"
		malformed = "550 5.7.1 Sender refused: From is not an address"
		notAField = "554 5.6.0"
	)
	const mine, bank = "me@shop.example", "ceo@bank.example"
	for i, c := range []struct{ header, want string }{
		{"From: " + mine, ok},
		{"From: Me <" + mine + ">", ok},
		{"From: ME <Me@SHOP.Example>", ok},
		{"From: \"Me, of the shop\" <" + mine + ">, you@shop.example", ok},
		{"From: =?utf-8?q?J=C3=BCrgen?= <" + mine + ">", ok},
		{"From: Jürgen (a comment (nested) with \\) signs) <" + mine + ">", ok},
		{"From:\r\n  Me\r\n\t<" + mine + ">", ok},
		{"From: \"joe@gmail.example via Shop\" <" + mine + ">", ok},
		{"From: John Q. Public <" + mine + ">", ok},
		{"From: Team: " + mine + ", you@shop.example;", ok},
		{"From: <@shop.example:" + mine + ">", ok},
		{"From: \"quoted local\"@shop.example", ok},
		{"Subject: no author at all", ok},
		{"From: " + mine + "\r\nSender: you@in.shop.example\r\nSubject: x", "550 5.7.1 Sender refused: Sender is in a domain"},
		{"From: a@x.in.shop.example", ok},
		{"From: " + mine + "\r\nSender: you@shop.example\r\nResent-From: " + mine + "\r\nResent-Sender: " + mine, ok},
		{"X-From: " + bank + "\r\nFrom: " + mine, ok},

		{"From: " + bank, foreign},
		{"from: " + bank, foreign},
		{"From: Me <" + bank + ">", foreign},
		{"From: other@other.example", foreign}, // another tenant's
		{"From: a@notshop.example", foreign},
		{"From: a@shop.example.bank.example", foreign},
		{"From: " + mine + ", " + bank, foreign},
		{"From: " + bank + ", " + mine, foreign},
		{"From: " + mine + "\r\nFrom: " + bank, foreign},
		{"From: " + bank + "\r\nFrom: " + mine, foreign},
		{"From: " + mine + "\r\nFrom: " + mine, twice},
		{"Sender: " + bank + "\r\nFrom: " + mine, "550 5.7.1 Sender refused: Sender is in a domain"},
		{"From: " + mine + "\r\nResent-From: " + bank, "550 5.7.1 Sender refused: Resent-From is in a domain"},
		{"From: " + mine + "\r\nResent-Sender: " + bank, "550 5.7.1 Sender refused: Resent-Sender is in a domain"},
		{"From: Team: " + mine + ", " + bank + ";", foreign},
		{"From: Team: " + mine + ";, " + bank, foreign},
		{"From: undisclosed:;", unclear},
		{"From:", unclear},
		{"From: Me", unclear},
		{"From: =?utf-8?b?Y2VvQGJhbmsuZXhhbXBsZQ==?=", unclear},                // espoofer a11: the whole address encoded
		{"From: =?utf-8?b?PGNlb0BiYW5rLmV4YW1wbGU+?= <" + mine + ">", foreign}, // ... as a name in angle brackets
		{"From: \"<" + bank + ">\" <" + mine + ">", foreign},
		{"From: =?utf-8?q?ceo=40bank.example=00?= <" + mine + ">", unclear}, // Mailsploit
		{"From: =?utf-8?q?ceo=40bank.example=0A?= <" + mine + ">", unclear},
		{"From: <" + bank + "> <" + mine + ">", foreign},
		{"From: <" + mine + "> <" + bank + ">", unclear},
		{"From: <" + mine + ">" + bank, unclear},
		{"From: " + bank + " <" + mine + ">", foreign},
		{"From: " + mine + " <" + bank + ">", unclear},
		{"From: <" + mine + ">, <" + bank + ">", foreign},
		{"From: " + mine + "\\, <" + bank + ">", unclear}, // espoofer a14: an escaped comma
		{"From: <@bank.example:" + mine + ">", foreign},   // espoofer a12: a route that some readers show
		{"From: <@bank.example,@any.example:" + mine + ">", foreign},
		{"From: <" + bank + "\r\n >, " + mine, foreign},
		{"From: (" + bank + ") " + mine, ok}, // a comment is no address
		{"From: (" + mine + ") " + bank, foreign},
		{"From: (" + mine, unclear},
		{"From: \"" + mine, unclear},
		{"From: " + mine + ";", unclear},
		{"From: a: b: " + mine + ";", unclear},
		{"From: ceo@bank.example(" + mine + ")", foreign},
		{"From: ceo@[192.0.2.1]", malformed},
		{"From: ceo@", unclear},
		{"From: @shop.example", unclear},
		{"From: a b@shop.example", unclear},
		{"From: " + mine + " " + mine, unclear},
		{"From: me@shop.example@bank.example", unclear},
		{"From: me@shop.exa\x01mple", foreign}, // the domain ends there
		{"From: m\x01e@shop.example", unclear},
		{"From : " + bank, foreign},                         // espoofer a8: a space before the colon
		{"From\t: " + bank, foreign},                        //
		{" From: " + bank + "\r\nFrom: " + mine, notAField}, // espoofer a9: the first line is folded
		{"From: " + mine + "\r\nX\r\nFrom: " + bank, notAField},
		{"From: " + mine + "\r\n\tFrom: " + bank, unclear}, // folded into the first
		{"From: " + mine + "\r\nTo: x\r\n y: z", ok},
		{strings.Repeat("From: "+mine+"\r\n", 2) + "From: " + bank, foreign},
		{"From: " + strings.Repeat(mine+",", 200) + mine, unclear},
	} {
		t.Run(fmt.Sprintf("%02d", i), func(t *testing.T) {
			cl := f.connect("198.51.100.7")
			if r := cl.login("app", password); r[0] != '2' {
				t.Fatal(r)
			}
			if r := cl.send(mine, c.header+"\r\n\r\nhi", "u@far.example"); !strings.HasPrefix(r, c.want) {
				t.Errorf("%q: %s, want %s", c.header, r, c.want)
			}
		})
	}
	for _, c := range []struct{ login, from, header, want string }{
		{"app", bank, "From: " + mine, "550 5.7.1 Sender refused: MAIL FROM is in a domain"},
		{"app", "", "From: " + mine, "550 5.7.1 Sender refused: MAIL FROM is empty"},
		{"app", "a@[192.0.2.1]", "From: " + mine, "550 5.7.1 Sender refused: MAIL FROM is not an address"},
		{"app", "a@other.example", "From: " + mine, "550 5.7.1 Sender refused: MAIL FROM is in a domain"},
		{"news", "news@shop.example", "From: News <news@SHOP.example>", "250"},
		{"news", mine, "From: " + mine, "550 5.7.1 Sender refused: MAIL FROM is not among"},
		{"news", "news@shop.example", "From: " + mine, "550 5.7.1 Sender refused: From is not among"},
	} {
		cl := f.connect("198.51.100.7")
		if r := cl.login(c.login, password); r[0] != '2' {
			t.Fatal(r)
		}
		if r := cl.send(c.from, c.header+"\r\n\r\nhi", "u@far.example"); !strings.HasPrefix(r, c.want) {
			t.Errorf("%s as <%s>, %q: %s, want %s", c.login, c.from, c.header, r, c.want)
		}
	}
}

// TestTrustedSenders: senders of a trusted network are checked only if the tenant wants it.
func TestTrustedSenders(t *testing.T) {
	t.Parallel()
	for _, check := range []bool{false, true} {
		f := newFront(t, frontOptions{policy: submission.Policy{
			TrustedNetworks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Tenant: "shop", CheckTrusted: check,
		}})
		for _, c := range []struct {
			from, header string
			mine         bool
		}{
			{"a@shop.example", "From: a@shop.example", true},
			{"", "From: a@shop.example", true},
			{"a@bank.example", "From: a@shop.example", false},
			{"a@shop.example", "From: a@bank.example", false},
			{"a@shop.example", "From: nonsense", false},
			{"a@shop.example", "no field\r\nFrom: a@shop.example", false},
		} {
			r := f.connect("10.0.0.1").send(c.from, c.header+"\r\n\r\nhi", "u@far.example")
			if got := r[:3] == "250"; got != (c.mine || !check) {
				t.Errorf("checked %v, <%s> %q: %s", check, c.from, c.header, r)
			}
		}
	}
}
