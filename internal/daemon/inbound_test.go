package daemon_test

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/smtp"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/daemon/daemontest"
	"github.com/godwit-mta/godwit/internal/dns"
	"github.com/godwit-mta/godwit/internal/dns/dnstest"
	"github.com/godwit-mta/godwit/internal/submission/inbound"
	"github.com/godwit-mta/godwit/mailauth/arc"
	"github.com/godwit-mta/godwit/mailauth/authres"
	"github.com/godwit-mta/godwit/mailauth/dkim"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// inboundKey signs for signed.test.
var inboundKey = ed25519.NewKeyFromSeed([]byte("a seed of thirty-two octets, yes"))

// inboundWorld is a server with a listener for each mode, and a DNS with domains of all kinds.
func inboundWorld(t *testing.T, change func(*config.Config)) *daemontest.World {
	t.Helper()
	w := daemontest.New(t, daemontest.Options{
		Zones: `
ok.test.                 MX 10 mx.ok.test.
mx.ok.test.              A 127.0.2.1
1.0.0.127.in-addr.arpa.  PTR client.test.
client.test.             A 127.0.0.1
client.test.             TXT "v=spf1 a -all"
good.test.               TXT "v=spf1 ip4:127.0.0.1 -all"
_dmarc.good.test.        TXT "v=DMARC1; p=reject"
_dmarc.forged.test.      TXT "v=DMARC1; p=reject"
forged.test.             TXT "v=spf1 -all"
_dmarc.soft.test.        TXT "v=DMARC1; p=quarantine"
soft.test.               TXT "v=spf1 -all"
spf.test.                TXT "v=spf1 -all"
nomail.test.             MX 0 .
_dmarc.signed.test.      TXT "v=DMARC1; p=reject"
s._domainkey.signed.test. TXT "v=DKIM1; k=ed25519; p=` + base64.StdEncoding.EncodeToString(inboundKey.Public().(ed25519.PublicKey)) + `"
`,
		Config: func(c *config.Config) {
			c.Inbound.RejectSPF = true
			c.DNS.Timeout = 200 * time.Millisecond
			for _, mode := range []string{"off", "report", "mark", "reject"} {
				l := config.DefaultListener()
				l.Name, l.Address, l.Limits, l.RelayDomains, l.Verify = mode, "127.0.0.1:0", c.Limits, []string{"ok.test"}, mode
				l.Limits.HeaderSize = 4 * config.MiB
				c.Listeners = append(c.Listeners, l)
			}
			if change != nil {
				change(c)
			}
		},
	})
	w.DNS.Fail("_dmarc.broken.test", dnstest.Behaviour{Rcode: "SERVFAIL"})
	w.DNS.Fail("broken.test", dnstest.Behaviour{Rcode: "SERVFAIL"})
	w.Host("127.0.2.1", smtptest.Script{})
	w.Start()
	return w
}

// hand gives a message to a listener as a stranger does and returns the last reply.
func hand(w *daemontest.World, listener, hello, from, msg string) error {
	nc, err := net.DialTimeout("tcp", w.AddressOf(listener), daemontest.Patience)
	if err != nil {
		return err
	}
	if err := nc.SetDeadline(time.Now().Add(2 * daemontest.Patience)); err != nil {
		return err
	}
	c, err := smtp.NewClient(nc, "godwit.test")
	if err != nil {
		return err
	}
	defer c.Close()
	if err := errors.Join(c.Hello(hello), c.Mail(from), c.Rcpt("you@ok.test")); err != nil {
		return err
	}
	data, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := data.Write([]byte(msg)); err != nil {
		return err
	}
	return data.Close()
}

func note(from, more string) string {
	return more + "From: <ann@" + from + ">\r\nTo: <you@ok.test>\r\nSubject: hello\r\nDate: Sun, 22 Nov 2026 01:02:03 +0000\r\nMessage-ID: <1@" +
		from + ">\r\n\r\nhi\r\n"
}

func signedNote(t *testing.T) string {
	t.Helper()
	k, err := dkim.NewKey(dkim.KeyOptions{Domain: "signed.test", Selector: "s", Signer: inboundKey})
	if err != nil {
		t.Fatal(err)
	}
	s, err := dkim.New(dkim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	msg := note("signed.test", "")
	fields, err := s.Sign(nil, [][]byte{[]byte(msg)}, []*dkim.Key{k}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return string(fields) + msg
}

// told returns what the fields of ours in a message say, and how many there are. The first field must be our Received.
func told(t *testing.T, msg []byte) (results string, fields int) {
	t.Helper()
	h, err := message.ParseHeader(msg)
	if err != nil {
		t.Fatal(err)
	}
	i := 0
	for f := range h.Fields() {
		if i == 0 && !f.Is("Received") {
			t.Errorf("begins with %s", f.Raw)
		}
		if f.Is(authres.FieldName) {
			if id, list, err := authres.Parse(f.Value); err == nil && id == "godwit.test" {
				if i != 1 {
					t.Errorf("our field is number %d", i)
				}
				var words []string
				for _, r := range list {
					words = append(words, r.Method+"="+r.Value)
				}
				results = strings.Join(words, " ")
				fields++
			}
		}
		i++
	}
	return results, fields
}

// TestInbound hands messages of all kinds to a listener of each mode.
func TestInbound(t *testing.T) {
	t.Parallel()
	w := inboundWorld(t, nil)
	forgedField := "Authentication-Results: godwit.test; dmarc=pass header.from=forged.test\r\n" +
		"Authentication-Results: (;) \"godwit.test\"; dkim=pass\r\nAuthentication-Results: elsewhere.test; spf=pass\r\n"
	type kind struct {
		name, from, msg string
		found           string // what the field says
		auth            string // what the event says
		code            int    // of the listener that refuses
		reply           string
	}
	kinds := []kind{
		{"passes", "ann@good.test", note("good.test", ""),
			"spf=pass spf=pass dkim=none dmarc=pass iprev=pass", "spf=pass dkim=none dmarc=pass", 250, ""},
		{"signed", "bounce@elsewhere.test", signedNote(t),
			"spf=none spf=pass dkim=pass dmarc=pass iprev=pass", "spf=none dkim=pass(signed.test) dmarc=pass", 250, ""},
		{"changed", "bounce@elsewhere.test", strings.Replace(signedNote(t), "\r\n\r\nhi", "\r\n\r\nho", 1),
			"spf=none spf=pass dkim=fail dmarc=fail iprev=pass", "spf=none dkim=fail(signed.test) dmarc=fail(reject)", 550, "5.7.1 Rejected by DMARC"},
		{"forged", "ann@forged.test", note("forged.test", forgedField),
			"spf=fail spf=pass dkim=none dmarc=fail iprev=pass", "spf=fail dkim=none dmarc=fail(reject)", 550, "5.7.1 Rejected by DMARC"},
		{"a report", "", note("good.test", ""),
			"spf=pass dkim=none dmarc=fail iprev=pass", "spf=pass dkim=none dmarc=fail(reject)", 550, "5.7.1 Rejected by DMARC"},
		{"quarantine", "ann@soft.test", note("soft.test", ""),
			"spf=fail spf=pass dkim=none dmarc=fail iprev=pass", "spf=fail dkim=none dmarc=fail(quarantine)", 250, ""},
		{"SPF alone", "ann@spf.test", note("spf.test", ""),
			"spf=fail spf=pass dkim=none dmarc=none iprev=pass", "spf=fail dkim=none dmarc=none", 550, "5.7.23 Rejected by SPF"},
		{"null MX", "ann@nomail.test", note("elsewhere.test", ""),
			"spf=none spf=pass dkim=none dmarc=none iprev=pass", "spf=none dkim=none dmarc=none", 550, "5.7.27 Rejected"},
		{"two authors", "ann@good.test", note("good.test", "From: <eve@forged.test>\r\n"),
			"spf=pass spf=pass dkim=none dmarc=permerror iprev=pass", "spf=pass dkim=none dmarc=permerror", 550, "5.7.1 Rejected by DMARC: From"},
		{"policy unknown", "ann@elsewhere.test", note("broken.test", ""),
			"spf=none spf=pass dkim=none dmarc=temperror iprev=pass", "spf=none dkim=none dmarc=temperror", 451, "4.4.3 Could not check"},
		{"SPF unknown", "ann@broken.test", note("broken.test", ""),
			"spf=temperror spf=pass dkim=none dmarc=temperror iprev=pass", "spf=temperror dkim=none dmarc=temperror", 451, "4.7.24 Could not check"},
	}
	for _, k := range kinds {
		for _, listener := range []string{"off", "report", "mark", "reject"} {
			before := len(w.Received())
			err := hand(w, listener, "client.test", k.from, k.msg)
			if want := k.code; listener == "reject" && want != 250 {
				var e *textproto.Error
				if !errors.As(err, &e) || e.Code != want || !strings.HasPrefix(e.Msg, k.reply) {
					t.Errorf("%s: %v", k.name, err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s at %s: %v", k.name, listener, err)
				continue
			}
			w.Until(k.name+" arrives", func() bool { return len(w.Received()) > before })
			got := w.Received()[before].Body
			results, n := told(t, got)
			if marks := listener == "mark" || listener == "reject"; marks && (n != 1 || results != k.found) || !marks && n != 0 {
				t.Errorf("%s at %s: %d fields, %q, want %q\n%s", k.name, listener, n, results, k.found, got)
			}
			if strings.Contains(k.msg, "Results: elsewhere.test") != strings.Contains(string(got), "Results: elsewhere.test") {
				t.Errorf("%s at %s: another's field is gone", k.name, listener)
			}
			if !strings.HasSuffix(string(got), k.msg[strings.Index(k.msg, "From:"):]) {
				t.Errorf("%s at %s: changed:\n%s", k.name, listener, got)
			}
		}
	}
	w.WaitEmpty()
	tally := make(map[string]int)
	for _, e := range w.Events() {
		switch e.Type {
		case event.Accepted:
			tally[e.Listener+" "+e.Auth]++
		case event.Refused:
			tally[e.Reason.String()]++
		}
	}
	for _, k := range kinds {
		for _, listener := range []string{"report", "mark"} {
			if tally[listener+" "+k.auth] == 0 {
				t.Errorf("%s at %s: no event says %q: %v", k.name, listener, k.auth, tally)
			}
		}
	}
	if tally["off "] != len(kinds) || tally["unauthenticated"] != 6 || tally["dns_temporary"] != 2 {
		t.Errorf("%v", tally)
	}
	resp, err := http.Get("http://" + w.HTTP() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{`godwit_inbound_results_total{method="dmarc",result="pass"} 6`, `godwit_inbound_decisions_total{decision="refused_dmarc"} 3`} {
		if !strings.Contains(string(page), line+"\n") {
			t.Errorf("no %s", line)
		}
	}
	for _, e := range w.Events() {
		if e.Type == event.Accepted && e.Listener == "mark" {
			m, err := w.Client().Message(t.Context(), e.Message)
			if err != nil || len(m.Events) == 0 || !strings.Contains(m.Events[0].Text, e.Auth) {
				t.Errorf("%v: %+v", err, m.Events)
			}
			break
		}
	}
}

// TestInboundTrusted: what comes from those whom a listener trusts is not from outside.
func TestInboundTrusted(t *testing.T) {
	t.Parallel()
	w := inboundWorld(t, func(c *config.Config) {
		for i := range c.Listeners {
			c.Listeners[i].TrustedNetworks = c.Listeners[0].TrustedNetworks
		}
	})
	if err := hand(w, "reject", "client.test", "ann@forged.test", note("forged.test", "")); err != nil {
		t.Fatal(err)
	}
	w.WaitEmpty()
	if _, n := told(t, w.Received()[0].Body); n != 0 {
		t.Errorf("marked: %s", w.Received()[0].Body)
	}
}

// TestInboundSeals: what is passed on has a seal that holds for the next one, over what left, forged fields taken out.
func TestInboundSeals(t *testing.T) {
	t.Parallel()
	w := inboundWorld(t, func(c *config.Config) {
		der, err := x509.MarshalPKCS8PrivateKey(inboundKey)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(c.DataDir, "seal.pem")
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		c.DKIM.Keys = []config.DKIMKey{{Domain: "signed.test", Selector: "s", File: file}}
		c.DKIM.RequireRecord = false
		c.Inbound.ARC.Domain = "signed.test"
	})
	r, err := dns.New(dns.Options{Servers: []netip.AddrPort{w.DNS.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	v, err := arc.New(arc.Options{Resolver: inbound.DNS(r)})
	if err != nil {
		t.Fatal(err)
	}
	msg := note("good.test", "Authentication-Results: godwit.test; dkim=pass header.d=good.test\r\n")
	for i := range 3 {
		if err := hand(w, "mark", "client.test", "ann@good.test", msg); err != nil {
			t.Fatal(err)
		}
		w.Until("it arrives", func() bool { return len(w.Received()) > i })
		msg = string(w.Received()[i].Body)
		chain, err := v.Verify(t.Context(), [][]byte{[]byte(msg)}, time.Now())
		if err != nil || chain.Status != arc.Pass || chain.Instances != i+1 || chain.Sealers[i] != "signed.test" {
			t.Fatalf("%v %+v:\n%s", err, chain, msg)
		}
		if _, list, err := authres.Parse(chain.Results[i]); err != nil || len(list) < 3 || list[0].Method != "spf" || list[0].Value != "pass" {
			t.Errorf("%v %+v", err, list)
		}
		if _, n := told(t, []byte(msg)); n != 1 {
			t.Errorf("%d fields of ours:\n%s", n, msg)
		}
	}
	w.WaitEmpty()
}

// TestInboundFlood: megabytes of signatures are checked as far as they may, or refused.
func TestInboundFlood(t *testing.T) {
	t.Parallel()
	w := inboundWorld(t, nil)
	one := "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed; d=signed.test; s=s; h=from:to;\r\n\tbh=" + strings.Repeat("A", 43) +
		"=;\r\n\tb=" + strings.Repeat("A", 86) + "==\r\n"
	begin := time.Now()
	if err := hand(w, "mark", "client.test", "ann@good.test", note("good.test", strings.Repeat(one, 900<<10/len(one)))); err != nil {
		t.Error(err)
	}
	if err := hand(w, "mark", "client.test", "ann@good.test", note("good.test", strings.Repeat(one, 2<<20/len(one)))); !saidNo(err, "552", "5.3.4") {
		t.Errorf("2 MB of signatures: %v", err)
	}
	many := strings.Repeat("a:\r\n", message.MaxHeaderFields) + "Authentication-Results: godwit.test; dkim=pass\r\n"
	if err := hand(w, "off", "client.test", "ann@good.test", note("good.test", many)); !saidNo(err, "552", "5.3.4") {
		t.Errorf("too many fields to look through: %v", err)
	}
	if took := time.Since(begin); took > daemontest.Patience {
		t.Errorf("took %v", took)
	}
	w.WaitEmpty()
	results, _ := told(t, w.Received()[0].Body)
	if strings.Count(results, "dkim=") != dkim.MaxSignatures || !strings.Contains(results, "dmarc=pass") {
		t.Errorf("%s", results)
	}
}

// TestInboundDeaf: with a DNS that does not answer, mail is taken as unchecked or put off, and never for long.
func TestInboundDeaf(t *testing.T) {
	t.Parallel()
	w := inboundWorld(t, func(c *config.Config) {
		c.Inbound.ChecksInFlight, c.Inbound.Timeout = 2, 2*time.Second
		c.DNS.Timeout = 10 * time.Second
		c.Routes = []config.Route{{Domains: []string{"ok.test"}, Hosts: []string{fmt.Sprintf("127.0.2.1:%d", c.Delivery.Port)}, Protocol: "smtp"}}
	})
	w.DNS.Fail("*", dnstest.Behaviour{Drop: true})
	begin := time.Now()
	var wg sync.WaitGroup
	for i := range 16 {
		listener := []string{"mark", "reject"}[i%2]
		wg.Go(func() {
			err := hand(w, listener, "client.test", fmt.Sprintf("ann@d%d.test", i), note(fmt.Sprintf("d%d.test", i), ""))
			if listener == "mark" && err != nil || listener == "reject" && !saidNo(err, "451", "4.") {
				t.Errorf("%s: %v", listener, err)
			}
		})
	}
	wg.Wait()
	if took := time.Since(begin); took > 12*time.Second {
		t.Errorf("took %v", took)
	}
	w.WaitEmpty()
	for _, r := range w.Received() {
		if results, n := told(t, r.Body); n != 1 || !strings.HasPrefix(results, "spf=temperror") || !strings.Contains(results, "dmarc=temperror") {
			t.Errorf("%s", results)
		}
	}
}
