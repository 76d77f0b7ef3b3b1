package delivery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/delivery/egress"
	"github.com/godwit-mta/godwit/internal/dns"
	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/smtpclient"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

var verdicts = map[verdict]string{undecided: "undecided", delivered: "delivered", temporary: "temporary",
	permanent: "permanent",
	unknown:   "unknown", rest: "rest"}

func TestDecide(t *testing.T) {
	t.Parallel()
	lost := &smtpclient.Error{Phase: smtpclient.PhaseFinal, Err: io.EOF}
	late := &smtpclient.Error{Phase: smtpclient.PhaseFinal, Err: os.ErrDeadlineExceeded}
	nonsense := &smtpclient.Error{Phase: smtpclient.PhaseFinal, Protocol: true, Err: errors.New("25x")}
	reply := func(s string) smtp.Reply { return parseReply(t, s) }
	refused := func(p smtpclient.Phase, s string) smtpclient.RecipientResult {
		return smtpclient.RecipientResult{Status: smtpclient.Refused, Phase: p, Reply: reply(s)}
	}
	own := func(s string, err error) smtpclient.RecipientResult {
		r := refused(smtpclient.PhaseMail, s)
		r.Err = err
		return r
	}
	const mail, rcpt, data, final = smtpclient.PhaseMail, smtpclient.PhaseRcpt, smtpclient.PhaseData, smtpclient.PhaseFinal
	for _, c := range []struct {
		result smtpclient.RecipientResult
		used   bool
		want   string
	}{
		{smtpclient.RecipientResult{Status: smtpclient.Delivered, Phase: final, Reply: reply("250 2.0.0 ok")}, false,
			"delivered ok "},
		{smtpclient.RecipientResult{Status: smtpclient.Unsent, Err: lost}, false, "undecided  "},
		{smtpclient.RecipientResult{Status: smtpclient.TooMany}, false, "rest too_many_recipients too_many_recipients"},
		{smtpclient.RecipientResult{Status: smtpclient.Unknown, Phase: final, Err: lost}, false,
			"unknown connection_lost connection"},
		{smtpclient.RecipientResult{Status: smtpclient.Unknown, Phase: final, Err: late}, false,
			"unknown reply_timeout connection"},
		{smtpclient.RecipientResult{Status: smtpclient.Unknown, Phase: final, Err: nonsense}, false,
			"unknown protocol_error protocol"},

		{refused(mail, "550 5.7.1 no"), false, "permanent remote_refused unknown"},
		{refused(mail, "451 4.3.0 later"), false, "temporary remote_deferred busy"},
		{refused(mail, "421 closing"), false, "undecided session_closed busy"},
		{refused(mail, "503 bad sequence"), false, "permanent remote_refused protocol"},
		{refused(mail, "503 bad sequence"), true, "undecided protocol_error protocol"},
		{refused(mail, "451 too many messages per connection"), false, "temporary remote_deferred session_limit"},
		{refused(mail, "451 too many messages per connection"), true, "undecided remote_deferred session_limit"},
		{refused(rcpt, "451 too many messages per connection"), true, "temporary remote_deferred session_limit"},
		{refused(mail, "421 4.7.0 Max message per connection reached"), false, "undecided session_closed session_limit"},

		{refused(rcpt, "550 5.1.1 no such user"), false, "permanent remote_refused no_such_user"},
		{refused(rcpt, "450 4.2.0 greylisted"), false, "temporary greylisted greylisted"},
		{refused(rcpt, "452 4.2.2 mailbox full"), false, "temporary remote_deferred mailbox_full"},
		{refused(rcpt, "452 4.5.3 too many recipients"), false, "temporary too_many_recipients too_many_recipients"},
		{refused(rcpt, "552 5.5.3 too many recipients"), false, "temporary too_many_recipients too_many_recipients"},
		{refused(rcpt, "552 5.2.2 mailbox full"), false, "permanent remote_refused mailbox_full"},
		{refused(rcpt, "421 4.7.0 [TSS04] deferred due to user complaints"), false, "temporary rate_limited reputation"},
		{refused(rcpt, "421 4.7.0 too many connections"), false, "temporary rate_limited too_many_connections"},
		{refused(rcpt, "550 This IP has sent too many messages this hour. IB504"), false,
			"permanent remote_refused rate_limited"},
		{refused(data, "554 5.5.1 no valid recipients"), false, "permanent remote_refused protocol"},
		{refused(data, "421 4.3.2 bye"), false, "undecided session_closed busy"},
		{refused(final, "421 4.3.2 bye"), false, "temporary session_closed busy"},
		{refused(final, "550 5.7.1 spam"), false, "permanent remote_refused spam"},
		{refused(final, "354 what"), false, "undecided protocol_error protocol"},

		{own("553 5.6.7 x", smtpclient.ErrNeedUTF8), false, "permanent utf8_unsupported protocol"},
		{own("550 5.6.9 x", smtpclient.ErrNeedUTF8), false, "permanent utf8_unsupported protocol"},
		{own("554 5.6.3 x", smtpclient.ErrNeed8BitMIME), false, "permanent 8bit_unsupported protocol"},
		{own("552 5.3.4 x", smtpclient.ErrTooLarge), false, "permanent size_exceeded size"},
		{own("553 5.1.7 x", smtpclient.ErrAddress), false, "permanent invalid_sender "},
		{own("553 5.1.3 x", smtpclient.ErrAddress), false, "permanent invalid_recipient "},
		{own("554 5.6.0 x", errors.New("else")), false, "permanent extension_unsupported protocol"},
	} {
		v, reason, class := decide(&c.result, c.used)
		if got := fmt.Sprintf("%s %s %s", verdicts[v], reason, class); got != c.want {
			t.Errorf("%s %s (used %v, %v): got %q, want %q", c.result.Phase, c.result.Reply, c.used, c.result.Err, got, c.want)
		}
	}
}

// parseReply reads "550 5.1.1 text".
func parseReply(t testing.TB, s string) (r smtp.Reply) {
	t.Helper()
	if _, err := fmt.Sscanf(s, "%d", &r.Code); err != nil {
		t.Fatal(err)
	}
	r.Text = s[4:]
	var e smtp.EnhancedCode
	if n, _ := fmt.Sscanf(r.Text, "%d.%d.%d ", &e.Class, &e.Subject, &e.Detail); n == 3 && !strings.HasPrefix(r.Text,
		"[") {
		r.Enhanced = e
		_, r.Text, _ = strings.Cut(r.Text, " ")
	}
	return r
}

// TestDecideFirstDigit: of all replies, at all phases, whatever else they say, only 5yz is final.
func TestDecideFirstDigit(t *testing.T) {
	t.Parallel()
	for phase := smtpclient.PhaseMail; phase <= smtpclient.PhaseFinal; phase++ {
		for code := 400; code < 600; code++ {
			for _, e := range []smtp.EnhancedCode{{}, {Class: 2, Subject: 1, Detail: 5}, {Class: 4, Subject: 7, Detail: 1},
				{Class: 5, Subject: 1, Detail: 1}} {
				for _, text := range []string{"", "user unknown", "greylisted, try later"} {
					r := smtpclient.RecipientResult{Status: smtpclient.Refused, Phase: phase, Reply: smtp.Reply{Code: code,
						Enhanced: e, Text: text}}
					v, reason, class := decide(&r, false)
					if v == delivered || v == unknown || (v == permanent) != (code >= 500) && !(code == 552 &&
						phase == smtpclient.PhaseRcpt) {
						t.Errorf("%s %s: %s", phase, r.Reply, verdicts[v])
					}
					if reason == 0 || class == 0 {
						t.Errorf("%s %s: no reason or class", phase, r.Reply)
					}
				}
			}
		}
	}
}

func TestSum(t *testing.T) {
	t.Parallel()
	at := func(host string) egress.Target {
		return egress.Target{Host: host, Addr: netip.MustParseAddrPort("192.0.2.1:25")}
	}
	refusedConn := failure{target: at("a"), reason: event.ConnectionRefused, phase: phaseConnect, text: "refused by a"}
	noAddress := failure{target: at("b"), reason: event.DNSNoAddress, phase: phaseDNS, text: "b has no address",
		final: true}
	loop := failure{reason: event.Loop, phase: phaseDNS, text: "loop", final: true}
	busy := sessionFailure(at("c"), &smtpclient.Error{Phase: smtpclient.PhaseGreeting, Reply: smtp.Reply{Code: 421,
		Text: "busy"}})
	never := sessionFailure(at("d"), &smtpclient.Error{Phase: smtpclient.PhaseGreeting, Reply: smtp.Reply{Code: 521,
		Text: "no mail"}})
	lost := sessionFailure(at("e"), &smtpclient.Error{Phase: smtpclient.PhaseMail, Err: io.EOF})
	for _, c := range []struct {
		failures []failure
		reason   event.Reason
		final    bool
		text     string
	}{
		{nil, event.DNSTemporary, false, "no mail server"},
		{[]failure{noAddress, loop}, event.DNSNoAddress, true, "b has no address; loop"},
		{[]failure{refusedConn, noAddress}, event.ConnectionRefused, false, "refused by a; b has no address"},
		{[]failure{refusedConn, lost, busy}, event.SessionRefused, false,
			`c [192.0.2.1]:25 refused the session: 421 busy; refused by a; e [192.0.2.1]:25 closed`},
		{[]failure{refusedConn, lost}, event.ConnectionLost, false, "in answer to MAIL; refused by a"},
		{[]failure{never, never}, event.SessionRefused, true, "521 no mail"},
		{[]failure{never, refusedConn}, event.ConnectionRefused, false, "refused by a; d ["},
		{[]failure{refusedConn, refusedConn, refusedConn}, event.ConnectionRefused, false, "refused by a"},
	} {
		got := sum(c.failures)
		if got.reason != c.reason || got.final != c.final || !strings.Contains(got.text, c.text) {
			t.Errorf("got %s, final %v, %q; want %s, %v, %q", got.reason, got.final, got.text, c.reason, c.final, c.text)
		}
	}
	many := make([]failure, 20)
	for i := range many {
		many[i] = failure{text: strings.Repeat("ä", 100+i)}
	}
	if got := sum(many).text; len(got) > maxExplain+3 || !utf8.ValidString(got) {
		t.Errorf("an explanation of %d octets", len(got))
	}
}

func TestLookupFailures(t *testing.T) {
	t.Parallel()
	for _, kind := range dns.Kinds() {
		f := lookupFailure("example.test", &dns.Error{Kind: kind, Name: "example.test", Type: "MX", Detail: "x"})
		if f.reason == 0 || f.class == 0 || f.text == "" || f.final != (kind != dns.Temporary && kind != dns.Loop) {
			t.Errorf("%s: got %+v", kind, f)
		}
	}
	if f := lookupFailure("example.test", context.DeadlineExceeded); f.final || f.reason != event.DNSTemporary {
		t.Errorf("got %+v", f)
	}
}

// TestQuote: words of a remote do not bring control characters or endless text into logs and reports.
func TestQuote(t *testing.T) {
	t.Parallel()
	got := quote(smtp.Reply{Code: 550, Text: "a\x00b\x1b[31mc\r\n\td\n" + strings.Repeat("ü", 1000)})
	if strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r == 0x7f }) || len(got) > maxQuote+3 ||
		!utf8.ValidString(got) {
		t.Errorf("got %q", got)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	w, _ := newWorld(t, oneZone, func(o *Options) { o.Registerer = registry },
		oneMX(rule(smtptest.AtRcpt, func(r *smtptest.Rule) { r.Match, r.Reply = "no*", "550 5.1.1 no such user" }))...)
	w.deliver("a@example.test", "no1@example.test", "no2@example.test")
	w.deliver("a@example.test")
	w.deliver("a@gone.test")
	problems, err := testutil.GatherAndLint(registry)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
	want := "# HELP godwit_delivery_outcomes_total Recipients by what an attempt did to them and what a failure meant. " +
		"A lasting rise of deferred or bounced says by its class who is at fault: blocked, reputation and rate_limited are " +
		"about this source, no_such_user about lists." + `
# TYPE godwit_delivery_outcomes_total counter
godwit_delivery_outcomes_total{class="",outcome="delivered"} 2
godwit_delivery_outcomes_total{class="no_such_user",outcome="bounced"} 2
godwit_delivery_outcomes_total{class="no_such_domain",outcome="bounced"} 1
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "godwit_delivery_outcomes_total"); err != nil {
		t.Error(err)
	}
}

// TestHotPathAsksNobody: with a kept session and a known site nothing is looked up.
func TestHotPathAsksNobody(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, oneZone, nil, oneMX(smtptest.Script{})...)
	expect(t, w.deliver("u@example.test"), delivers)
	before := w.dns.Queries("example.test", "MX") + w.dns.Queries("mx1.example.test", "A")
	for range 20 {
		v := w.deliver("u@example.test")
		if v.Attempt.Results[0].Outcome != spool.Delivered || v.Attempt.Timings.DNS != 0 {
			t.Errorf("got %+v", v.Attempt)
		}
	}
	if after := w.dns.Queries("example.test", "MX") + w.dns.Queries("mx1.example.test", "A"); after != before {
		t.Errorf("%d more queries", after-before)
	}
}

func FuzzParseLiteral(f *testing.F) {
	for _, s := range []string{"[1.2.3.4]", "[IPv6:2001:db8::1]", "[ipv6:::1]", "[]", "[", "[IPv6:]", "[x]", "[1.2.3.4",
		"[IPv6:fe80::1%lo]", "[::1]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := parseLiteral(s)
		var bad *dns.Error
		if err != nil {
			if !errors.As(err, &bad) || bad.Temporary() {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		tag := ""
		if a.Is6() {
			tag = "IPv6:"
		}
		if again, err := parseLiteral("[" + tag + a.String() + "]"); err != nil || again != a || a.Zone() != "" {
			t.Fatalf("%q became %s became %s, %v", s, a, again, err)
		}
	})
}

func FuzzRoutes(f *testing.F) {
	for _, s := range []string{"*", "*.example.test", "example.test", "[1.2.3.4]", "a.*.b"} {
		for _, h := range []string{"a.test", "a.test:25", "[::1]:25", "::1", "10.0.0.1", ":25", "localhost", "a:b:c"} {
			f.Add(s, h, false)
		}
	}
	f.Fuzz(func(t *testing.T, domain, host string, lmtp bool) {
		r := Route{Domains: []string{domain}, Hosts: []string{host}}
		if lmtp {
			r.Protocol = LMTP
		}
		table, err := newRoutes([]Route{r})
		if err != nil {
			if !errors.Is(err, ErrRoute) {
				t.Fatal(err)
			}
			return
		}
		probe := strings.Replace(domain, "*", "x", 1)
		ascii, err := smtp.DomainToASCII(probe)
		if err != nil {
			return
		}
		found := table.find(ascii)
		if found == nil || len(found.hosts) != 1 || found.hosts[0].port == 0 || found.hosts[0].name == "" ||
			found.lmtp != lmtp {
			t.Fatalf("%q by %q goes to %+v", ascii, domain, found)
		}
	})
}
