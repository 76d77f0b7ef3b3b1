package submission_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	verify "github.com/emersion/go-msgauth/dkim"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/signing"
	"github.com/godwit-mta/godwit/internal/submission"
	"github.com/godwit-mta/godwit/mailauth/dkim"
	"github.com/godwit-mta/godwit/smtp"
)

// ring has a key for each domain that it lists; those below "held." have one that may not sign now, and those below "bare." must be
// signed and have none.
type ring struct {
	domains []string
	key     ed25519.PrivateKey
	asked   []string // domain and tenant
}

func newRing(domains ...string) *ring {
	return &ring{domains: domains, key: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))}
}

func (r *ring) Keys(domain, tenant string) ([]*dkim.Key, error) {
	r.asked = append(r.asked, domain+" "+tenant)
	switch {
	case strings.HasPrefix(domain, "held."):
		return nil, errors.New("its record is not in DNS")
	case strings.HasPrefix(domain, "bare."):
		return nil, fmt.Errorf("no key: %w", signing.ErrNone)
	case !slices.Contains(r.domains, domain):
		return nil, nil
	}
	k, err := dkim.NewKey(dkim.KeyOptions{Domain: domain, Selector: "s", Signer: r.key})
	return []*dkim.Key{k}, err
}

func (r *ring) lookup(string) ([]string, error) {
	return []string{"v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(r.key.Public().(ed25519.PublicKey))}, nil
}

// counted notes what was counted as sent.
type counted struct {
	*signing.Signer
	sent []string
}

func (c *counted) Sent(domain, tenant, messageID string, n int) {
	c.sent = append(c.sent, fmt.Sprintf("%s %s %s %d", domain, tenant, messageID, n))
}

func newSigner(t *testing.T, keys signing.Keys) *counted {
	t.Helper()
	s, err := signing.New(signing.Options{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	return &counted{Signer: s}
}

var everyone = submission.Policy{TrustedNetworks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}

func (w *world) verified(r *ring) []string {
	w.t.Helper()
	list, err := verify.VerifyWithOptions(strings.NewReader(w.keeper.text[len(w.keeper.text)-1]), &verify.VerifyOptions{LookupTXT: r.lookup})
	if err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for _, v := range list {
		if v.Err != nil {
			w.t.Errorf("%s: %v in\n%s", v.Domain, v.Err, w.keeper.text[len(w.keeper.text)-1])
			continue
		}
		out = append(out, v.Domain)
	}
	return out
}

// TestSigned: what is accepted verifies as it stands, our Received field above the signature and everything else below, what
// we added and took out included.
func TestSigned(t *testing.T) {
	t.Parallel()
	for _, headers := range []submission.Headers{submission.HeadersRelay, submission.HeadersSubmission} {
		for name, msg := range map[string]string{
			"whole":   "From: Shop <Me@App.Test>\r\nTo: a@one.test\r\nDate: x\r\nMessage-ID: <1@app.test>\r\nSubject: s\r\n\r\nhi\r\n",
			"bare":    "From: me@app.test\r\n\r\nhi\r\n",
			"blind":   "Bcc: x@y.test\r\nFrom: me@app.test\r\nBcc: z@y.test\r\nSubject: s\r\n\r\nhi\r\n",
			"no body": "From: me@app.test\r\n\r\n",
			"long":    "From: me@app.test\r\nX-Long: " + strings.Repeat("x ", 20_000) + "\r\n\r\n" + strings.Repeat("line \t of text \r\n", 10_000),
		} {
			p, r := everyone, newRing("app.test")
			p.Headers = headers
			w := newWorld(t, p)
			s := newSigner(t, r)
			w.sign(s)
			if got := w.send(w.session("192.0.2.7"), me, msg, "a@one.test", "b@one.test"); got.Code != 250 {
				t.Errorf("%s: %v", name, got)
				continue
			}
			if got := w.verified(r); !slices.Equal(got, []string{"app.test"}) {
				t.Errorf("%s: verified %q", name, got)
			}
			m, text := w.keeper.msgs[0], w.keeper.text[0]
			var order []string
			for line := range strings.SplitSeq(text[:strings.Index(text, "\r\n\r\n")], "\r\n") {
				if field, _, ok := strings.Cut(line, ":"); ok && line[0] != '\t' && line[0] != ' ' {
					order = append(order, field)
				}
			}
			want := []string{"Received", "DKIM-Signature"}
			if headers == submission.HeadersSubmission && name != "whole" {
				want = append(want, "Date", "Message-ID")
			}
			if len(order) < len(want) || !slices.Equal(order[:len(want)], want) {
				t.Errorf("%s: fields %q, want %q first", name, order, want)
			}
			if m.Size != int64(len(text)) {
				t.Errorf("%s: size %d of %d", name, m.Size, len(text))
			}
			if want := []string{"app.test default " + m.MessageID + " 2"}; !slices.Equal(s.sent, want) {
				t.Errorf("%s: counted %q, want %q", name, s.sent, want)
			}
		}
	}
}

// TestAuthorDomain: the domain that signs is that of an address in From, and of nothing that merely looks like one.
func TestAuthorDomain(t *testing.T) {
	t.Parallel()
	r := newRing("app.test", "bank.test", "xn--bcher-kva.test")
	w := newWorld(t, everyone)
	w.sign(newSigner(t, r))
	for from, want := range map[string]string{
		"me@app.test": "app.test", "Me <me@APP.test>": "app.test", "me@app.test (bank.test)": "app.test",
		`"ceo@bank.test" <me@app.test>`:                     "app.test",
		`"Boss <ceo@bank.test>" <me@app.test>`:              "app.test",
		`=?utf-8?q?=3Cceo=40bank=2Etest=3E?= <me@app.test>`: "app.test",
		"<@bank.test:me@app.test>":                          "app.test",
		"x@none.test, me@app.test, ceo@bank.test":           "app.test",
		"x@none.test":                      "",
		"staff: x@none.test, me@app.test;": "app.test",
		"me@bücher.test":                   "xn--bcher-kva.test",
		"me@sub.app.test":                  "",
		"me@[192.0.2.1]":                   "",
		"me":                               "",
		"<>":                               "",
		"":                                 "",
	} {
		if got := w.send(w.session("192.0.2.7"), me, "From: "+from+"\r\nSubject: s\r\n\r\nhi\r\n", "a@one.test"); got.Code != 250 {
			t.Errorf("%s: %v", from, got)
			continue
		}
		if got := strings.Join(w.verified(r), " "); got != want {
			t.Errorf("%s: signed for %q, want %q", from, got, want)
		}
	}
}

// TestNotSigned: what must be signed and cannot be is refused, for good if its writer or an operator has to change something.
func TestNotSigned(t *testing.T) {
	t.Parallel()
	r := newRing("app.test")
	w := newWorld(t, everyone)
	s := newSigner(t, r)
	w.sign(s)
	for _, c := range []struct {
		name, message, want string
		reason              event.Reason
	}{
		{"held", "From: me@held.test\r\n\r\nhi\r\n", "451 4.7.0", event.NotSigned},
		{"none", "From: me@bare.test\r\n\r\nhi\r\n", "550 5.7.1", event.NotSigned},
		{"one of several is held", "From: me@held.test, me@none.test\r\n\r\nhi\r\n", "451 4.7.0", event.NotSigned},
		{"no field", "From: me@app.test\r\nno field\r\nSubject: s\r\n\r\nhi\r\n", "554 5.6.0", event.NotSigned},
		{"bare LF", "From: me@app.test\r\nSubject: s\nTo: b@c.test\r\n\r\nhi\r\n", "554 5.6.0", event.NotSigned},
		{"two From", "From: x@none.test\r\nFrom: me@app.test\r\n\r\nhi\r\n", "550 5.7.1", event.InvalidSender},
	} {
		w.refused = nil
		got := w.send(w.session("192.0.2.7"), me, c.message, "a@one.test")
		if text := fmt.Sprintf("%d %v", got.Code, got.Enhanced); text != c.want {
			t.Errorf("%s: %s %s, want %s", c.name, text, got.Text, c.want)
		}
		if len(w.refused) != 1 || w.refused[0].Reason != c.reason {
			t.Errorf("%s: told %v", c.name, w.refused)
		}
	}
	// A domain without keys is nobody's business, and what programs disagree on travels as ever.
	for _, ok := range []string{
		"From: me@none.test\r\nno field\r\n\r\nhi\r\n", "From: me@none.test\r\nFrom: x@none.test\r\n\r\nhi\r\n",
		"From: x@held.test, me@app.test\r\n\r\nhi\r\n", "Subject: s\r\n\r\nhi\r\n",
	} {
		if got := w.send(w.session("192.0.2.7"), me, ok, "a@one.test"); got.Code != 250 {
			t.Errorf("%q: %v", ok, got)
		}
	}
	w.keeper.err, s.sent = errors.New("disk"), nil
	if got := w.send(w.session("192.0.2.7"), me, "From: me@app.test\r\n\r\nhi\r\n", "a@one.test"); got.Code != 451 || s.sent != nil {
		t.Errorf("not kept: %v, counted %q", got, s.sent)
	}
}

// TestStrangersAreNotSigned: what comes from outside to a domain that is relayed never gets our signature.
func TestStrangersAreNotSigned(t *testing.T) {
	t.Parallel()
	r := newRing("app.test")
	p := everyone
	p.RelayDomains = submission.NewDomains([]string{"in.test"})
	w := newWorld(t, p)
	w.sign(newSigner(t, r))
	if got := w.send(w.session("198.51.100.1"), me, "From: me@app.test\r\n\r\nhi\r\n", "a@in.test"); got.Code != 250 {
		t.Fatal(got)
	}
	if len(r.asked) > 0 || strings.Contains(w.keeper.text[0], "DKIM") {
		t.Errorf("asked for %q:\n%s", r.asked, w.keeper.text[0])
	}
}

// slow is a signer that takes as long as its context lets it.
type slow struct{}

func (slow) Sign(ctx context.Context, dst []byte, _ [][]byte, _, _ string) ([]byte, error) {
	<-ctx.Done()
	return dst, context.Cause(ctx)
}

func (slow) Sent(string, string, string, int) {}

// TestClientGone: who goes away while its message waits to be signed is not waited for.
func TestClientGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, everyone)
	w.sign(slow{})
	s := w.session("192.0.2.7")
	env := &smtp.Envelope{From: me}
	rcpt := smtp.Recipient{Path: smtp.Path{Local: "a", Domain: "one.test"}}
	if r := s.Mail(t.Context(), &env.From); !r.IsZero() {
		t.Fatal(r)
	}
	if r := s.Rcpt(t.Context(), env, &rcpt); !r.IsZero() {
		t.Fatal(r)
	}
	env.Recipients = append(env.Recipients, rcpt)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	body := smtp.BodyOf([]byte("From: me@app.test\r\n\r\nhi\r\n"))
	defer body.Release()
	if r := s.Data(ctx, env, body); r.Code != 451 || len(w.keeper.msgs) > 0 {
		t.Errorf("%v, %d messages kept", r, len(w.keeper.msgs))
	}
}

// FuzzSigned: whatever is accepted with a signature of ours verifies.
func FuzzSigned(f *testing.F) {
	f.Add([]byte("From: me@app.test\r\nBcc: x\r\n\r\nhi\r\n"), true)
	f.Add([]byte("Bcc: a\r\n b\r\nFrom:me@app.test\r\n\r\n"), false)
	f.Fuzz(func(t *testing.T, msg []byte, headers bool) {
		if bytes.Contains(bytes.ToLower(msg), []byte("dkim-signature")) || !bytes.Contains(msg, []byte("\r\n\r\n")) {
			return // the verifier has others to look at, or wants an empty line
		}
		p, r := everyone, newRing("app.test")
		if headers {
			p.Headers = submission.HeadersSubmission
		}
		w := newWorld(t, p)
		w.sign(newSigner(t, r))
		if got := w.send(w.session("192.0.2.7"), me, string(msg), "a@one.test"); got.Code != 250 {
			return
		}
		list, err := verify.VerifyWithOptions(strings.NewReader(w.keeper.text[0]), &verify.VerifyOptions{LookupTXT: r.lookup})
		if err != nil {
			return // it does not read the header
		}
		for _, v := range list {
			if v.Err != nil {
				t.Fatalf("%v\n%q", v.Err, w.keeper.text[0])
			}
		}
	})
}
