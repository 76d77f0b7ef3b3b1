package inbound

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godwit-mta/godwit/mailauth/arc"
	"github.com/godwit-mta/godwit/mailauth/authres"
	"github.com/godwit-mta/godwit/mailauth/dkim"
	"github.com/godwit-mta/godwit/smtp"
)

// zone is a DNS: "TXT example.com" and the like to what is there; "!" is an error. A name with any of these exists.
type zone map[string][]string

var errBroken = errors.New("SERVFAIL")

func (z zone) get(typ, name string) ([]string, error) {
	list := z[typ+" "+strings.ToLower(strings.TrimSuffix(name, "."))]
	if len(list) == 1 && list[0] == "!" {
		return nil, errBroken
	}
	return list, nil
}

func (z zone) TXT(ctx context.Context, name string) ([]string, error) {
	if list := z["TXT "+name]; len(list) == 1 && list[0] == "hang" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return z.get("TXT", name)
}
func (z zone) MX(_ context.Context, name string) ([]string, error) { return z.get("MX", name) }
func (z zone) PTR(_ context.Context, a netip.Addr) ([]string, error) {
	return z.get("PTR", a.String())
}

func (z zone) NetIP(_ context.Context, network, name string) ([]netip.Addr, error) {
	list, err := z.get(map[string]string{"ip4": "A", "ip6": "AAAA"}[network], name)
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out, err
}

func (z zone) Exists(_ context.Context, name string) (bool, error) {
	for k := range z {
		if _, n, _ := strings.Cut(k, " "); n == name || strings.HasSuffix(n, "."+name) {
			return true, nil
		}
	}
	return false, nil
}

func (z zone) TakesNoMail(_ context.Context, domain string) (bool, error) {
	list, err := z.get("MX", domain)
	return len(list) == 1 && list[0] == ".", err
}

// ring has a pair of keys for each domain, made once for all tests.
type ring map[string][]*dkim.Key

func (r ring) Keys(domain, _ string) ([]*dkim.Key, error) {
	if domain == "later.example" {
		return nil, errBroken
	}
	return r[domain], nil
}

var pairs = sync.OnceValues(func() (ring, zone) {
	keys, records := make(ring), make(zone)
	signer, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	pub, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	der, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		panic(err)
	}
	for _, domain := range []string{"example.com", "other.example", "list.example", "relay.example", "we.example"} {
		for _, o := range []dkim.KeyOptions{{Selector: "ed", Signer: ed}, {Selector: "rsa", Signer: signer}} {
			o.Domain = domain
			k, err := dkim.NewKey(o)
			if err != nil {
				panic(err)
			}
			keys[domain] = append(keys[domain], k)
		}
		records["TXT rsa._domainkey."+domain] = []string{"v=DKIM1; p=" + base64.StdEncoding.EncodeToString(der)}
		records["TXT ed._domainkey."+domain] = []string{"v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(pub)}
	}
	return keys, records
})

const (
	ours   = "192.0.2.1" // may send for example.com
	theirs = "192.0.2.9"
)

// world is the DNS of most tests.
func world(more zone) zone {
	z := zone{
		"TXT example.com":              {"v=spf1 ip4:192.0.2.1 -all"},
		"TXT _dmarc.example.com":       {"v=DMARC1; p=reject"},
		"TXT _dmarc.soft.example":      {"v=DMARC1; p=quarantine"},
		"TXT _dmarc.watching.example":  {"v=DMARC1; p=none"},
		"TXT _dmarc.testing.example":   {"v=DMARC1; p=reject; t=y"},
		"TXT nodmarc.example":          {"v=spf1 -all"},
		"MX nomail.example":            {"."},
		"TXT mx.example.com":           {"v=spf1 a -all"},
		"A mx.example.com":             {ours},
		"PTR " + ours:                  {"mx.example.com"},
		"PTR " + theirs:                {"mx.example.com", "x.example"},
		"TXT _dmarc.broken.example":    {"!"},
		"TXT spfbroken.example":        {"!"},
		"TXT _dmarc.spfbroken.example": {"v=DMARC1; p=reject"},
	}
	_, records := pairs()
	for _, m := range []zone{records, more} {
		for k, v := range m {
			z[k] = v
		}
	}
	return z
}

func newChecker(t testing.TB, z zone, change func(*Options)) *Checker {
	t.Helper()
	keys, _ := pairs()
	o := Options{Hostname: "mx.we.example", Resolver: z, Keys: keys}
	if change != nil {
		change(&o)
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// letter is a message with an author.
func letter(author string) string {
	return "From: <ann@" + author + ">\r\nTo: <bob@we.example>\r\nSubject: hello\r\nDate: Sun, 22 Nov 2026 01:02:03 +0000\r\n" +
		"Message-ID: <1@" + author + ">\r\n\r\nHello Bob\r\n"
}

// signed puts a signature before a message.
func signed(t testing.TB, msg, domain string) string {
	t.Helper()
	keys, _ := pairs()
	s, err := dkim.New(dkim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	fields, err := s.Sign(nil, [][]byte{[]byte(msg)}, keys[domain][1:], time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return string(fields) + msg
}

// passedOn is what becomes of a message at a relay that seals it, with these results.
func passedOn(t testing.TB, z zone, msg, sealer string, results ...authres.Result) string {
	t.Helper()
	keys, _ := pairs()
	v, err := arc.New(arc.Options{Resolver: z})
	if err != nil {
		t.Fatal(err)
	}
	pieces := [][]byte{[]byte(msg)}
	chain, err := v.Verify(t.Context(), pieces, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s, err := arc.NewSealer(dkim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Seal(nil, pieces, chain, "mx."+sealer, append(results, authres.Result{Method: "arc", Value: string(chain.Status)}),
		keys[sealer][1], time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return string(out) + msg
}

func dmarcPass(from string) authres.Result {
	return authres.Result{Method: "dmarc", Value: "pass", Properties: []authres.Property{{Type: "header", Name: "from", Value: from}}}
}

// ask makes a question; the author is that of a letter.
func ask(client, from, author, msg string) *Question {
	q := &Question{Client: netip.MustParseAddr(client), Hello: "mx.example.com", Authors: Authors{Domains: []string{author}}}
	if local, domain, ok := strings.Cut(from, "@"); ok {
		q.From = smtp.Path{Local: local, Domain: domain}
	}
	half := len(msg) / 3
	q.Pieces = [][]byte{[]byte(msg[:half]), []byte(msg[half:])}
	return q
}
