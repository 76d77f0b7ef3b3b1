package inbound

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/godwit-mta/godwit/mailauth/authres"
	"github.com/godwit-mta/godwit/mailauth/dkim"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

// TestCheck has messages, what is found of them and what becomes of them where mail is refused.
func TestCheck(t *testing.T) {
	t.Parallel()
	z := world(nil)
	plain := letter("example.com")
	own := signed(t, plain, "example.com")
	foreign := signed(t, plain, "other.example")
	changed := strings.Replace(own, "Hello Bob", "Hello Eve", 1)
	atList := strings.Replace(own, "Subject: hello", "Subject: [list] hello", 1)
	listed := passedOn(t, z, atList, "list.example", dmarcPass("example.com"))
	twice := passedOn(t, z, listed, "relay.example")
	trustedTwice := passedOn(t, z, listed, "we.example")
	lying := passedOn(t, z, atList, "list.example", dmarcPass("other.example"))
	noWord := passedOn(t, z, atList, "list.example")
	brokenSeal := strings.Replace(listed, "[list]", "[evil]", 1)

	for name, c := range map[string]struct {
		q        *Question
		short    string
		decision Decision
		reply    string
		rejects  bool // RejectSPF
	}{
		"all in order": {q: ask(ours, "ann@example.com", "example.com", own),
			short: "spf=pass dkim=pass(example.com) dmarc=pass", decision: Taken},
		"SPF alone":  {q: ask(ours, "ann@example.com", "example.com", plain), short: "spf=pass dkim=none dmarc=pass", decision: Taken},
		"DKIM alone": {q: ask(theirs, "ann@nobody.example", "example.com", own), short: "spf=none dkim=pass(example.com) dmarc=pass", decision: Taken},
		"a report": {q: ask(ours, "", "example.com", plain),
			short: "spf=pass dkim=none dmarc=pass", decision: Taken},
		"forged": {q: ask(theirs, "ann@example.com", "example.com", plain),
			short: "spf=fail dkim=none dmarc=fail(reject)", decision: RefusedDMARC, reply: "550 5.7.1 "},
		"signed by somebody else": {q: ask(theirs, "ann@other.example", "example.com", foreign),
			short: "spf=none dkim=pass(other.example) dmarc=fail(reject)", decision: RefusedDMARC, reply: "550 5.7.1 "},
		"changed on the way": {q: ask(theirs, "ann@list.example", "example.com", changed),
			short: "spf=none dkim=fail(example.com) dmarc=fail(reject)", decision: RefusedDMARC, reply: "550 5.7.1 "},
		"of a list that is trusted": {q: ask(theirs, "bounce@list.example", "example.com", listed),
			short: "spf=none dkim=fail(example.com) dmarc=fail(reject) arc=pass", decision: VouchedFor},
		"of a list, by way of a relay that is trusted too": {q: ask(theirs, "bounce@list.example", "example.com", trustedTwice),
			short: "spf=none dkim=fail(example.com) dmarc=fail(reject) arc=pass", decision: VouchedFor},
		"of a list, by way of a relay that is not": {q: ask(theirs, "bounce@list.example", "example.com", twice),
			short: "spf=none dkim=fail(example.com) dmarc=fail(reject) arc=pass", decision: RefusedDMARC, reply: "550 5.7.1 "},
		"of a list, for another author": {q: ask(theirs, "bounce@list.example", "example.com", lying),
			short: "spf=none dkim=fail(example.com) dmarc=fail(reject) arc=pass", decision: RefusedDMARC, reply: "550 5.7.1 "},
		"of a list that says nothing": {q: ask(theirs, "bounce@list.example", "example.com", noWord),
			short: "spf=none dkim=fail(example.com) dmarc=fail(reject) arc=pass", decision: RefusedDMARC, reply: "550 5.7.1 "},
		"changed after the list": {q: ask(theirs, "bounce@list.example", "example.com", brokenSeal),
			short: "spf=none dkim=fail(example.com) dmarc=fail(reject) arc=fail", decision: RefusedDMARC, reply: "550 5.7.1 "},
		"quarantine": {q: ask(theirs, "ann@soft.example", "soft.example", letter("soft.example")),
			short: "spf=none dkim=none dmarc=fail(quarantine)", decision: Taken},
		"no policy but to watch": {q: ask(theirs, "ann@watching.example", "watching.example", letter("watching.example")),
			short: "spf=none dkim=none dmarc=fail(none)", decision: Taken},
		"a policy that is tested": {q: ask(theirs, "ann@testing.example", "testing.example", letter("testing.example")),
			short: "spf=none dkim=none dmarc=fail(reject)", decision: Taken},
		"SPF fails, no DMARC": {q: ask(theirs, "ann@nodmarc.example", "nodmarc.example", letter("nodmarc.example")),
			short: "spf=fail dkim=none dmarc=none", decision: Taken},
		"SPF fails, no DMARC, refused": {q: ask(theirs, "ann@nodmarc.example", "nodmarc.example", letter("nodmarc.example")), rejects: true,
			short: "spf=fail dkim=none dmarc=none", decision: RefusedSPF, reply: "550 5.7.23 "},
		"null MX": {q: ask(theirs, "ann@nomail.example", "other.example", letter("other.example")),
			short: "spf=none dkim=none dmarc=none", decision: RefusedNoMail, reply: "550 5.7.27 "},
		"policy unknown now": {q: ask(theirs, "ann@other.example", "broken.example", letter("broken.example")),
			short: "spf=none dkim=none dmarc=temperror", decision: PutOff, reply: "451 4.4.3 "},
		"SPF unknown now": {q: ask(theirs, "ann@spfbroken.example", "spfbroken.example", letter("spfbroken.example")),
			short: "spf=temperror dkim=none dmarc=temperror", decision: PutOff, reply: "451 4.7.24 "},
		"no author's domain": {q: &Question{Client: ask(theirs, "", "", "").Client, Hello: "x"},
			short: "spf=none dkim=none dmarc=none", decision: Taken},
		"several authors, one of them forged": {q: several(ask(ours, "ann@example.com", "example.com", own), "other.example", "soft.example"),
			short: "spf=pass dkim=pass(example.com) dmarc=fail(quarantine)", decision: Taken},
		"too many authors": {q: several(ask(ours, "ann@example.com", "example.com", own), "a.example", "b.example", "c.example", "d.example"),
			short: "spf=pass dkim=pass(example.com) dmarc=permerror", decision: RefusedAuthor, reply: "550 5.7.1 "},
		"author unclear": {q: unclear(ask(ours, "ann@example.com", "example.com", own)),
			short: "spf=pass dkim=pass(example.com) dmarc=permerror", decision: RefusedAuthor, reply: "550 5.7.1 "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checker := newChecker(t, z, func(o *Options) {
				o.Config = Config{TrustedSealers: []string{"LIST.example.", "we.example"}, RejectSPF: c.rejects}
				o.Registerer = prometheus.NewPedanticRegistry()
			})
			f := checker.Check(t.Context(), c.q)
			if got := f.String(); got != c.short {
				t.Errorf("found %q, want %q", got, c.short)
			}
			reply, decision := checker.Decide(Reject, f)
			if decision != c.decision || reply.IsZero() != (c.reply == "") || !strings.HasPrefix(reply.String(), c.reply) {
				t.Errorf("%s: %s, want %s: %s", decision, reply, c.decision, c.reply)
			}
			for _, m := range []Mode{Report, Mark} {
				if reply, decision := checker.Decide(m, f); !reply.IsZero() || decision != Taken {
					t.Errorf("mode %d refuses: %s", m, reply)
				}
			}
			readBack(t, f)
		})
	}
}

func several(q *Question, more ...string) *Question {
	q.Authors.Domains = append(q.Authors.Domains, more...)
	return q
}

func unclear(q *Question) *Question {
	q.Authors = Authors{Unclear: true}
	return q
}

// readBack reads the field that tells findings, as somebody behind us does.
func readBack(t *testing.T, f *Findings) []authres.Result {
	t.Helper()
	field, err := f.Append(nil, "mx.we.example")
	if err != nil {
		t.Fatal(err)
	}
	h, err := message.ParseHeader(append(field, "\r\n"...))
	if err != nil || len(authres.Forged(h, "mx.we.example")) != 1 || h.Count("") != 0 {
		t.Fatalf("%v: %s", err, field)
	}
	value, _ := h.Get(authres.FieldName)
	id, list, err := authres.Parse(value)
	if err != nil || id != "mx.we.example" || len(list) != len(f.Results()) {
		t.Fatalf("%v: %s", err, field)
	}
	return list
}

func TestField(t *testing.T) {
	t.Parallel()
	c := newChecker(t, world(nil), nil)
	f := c.Check(t.Context(), ask(ours, "ann@example.com", "example.com", signed(t, letter("example.com"), "example.com")))
	field, err := f.Append(nil, "mx.we.example")
	if err != nil {
		t.Fatal(err)
	}
	f.DKIM[0].B = "AbCdEfGh"
	field, err = f.Append(field[:0], "mx.we.example")
	const want = "Authentication-Results: mx.we.example; spf=pass smtp.mailfrom=ann@example.com;\r\n" +
		"\tspf=pass smtp.helo=mx.example.com; dkim=pass header.d=example.com\r\n" +
		"\theader.s=rsa header.a=rsa-sha256 header.b=AbCdEfGh; dmarc=pass\r\n" +
		"\theader.from=example.com polrec.p=reject; iprev=pass (mx.example.com)\r\n\tpolicy.iprev=192.0.2.1\r\n"
	if err != nil || string(field) != want {
		t.Errorf("%v\n%s\nwant\n%s", err, field, want)
	}
}

// TestInjection: nothing that a client says becomes a result (espoofer a3 to a7).
func TestInjection(t *testing.T) {
	t.Parallel()
	c := newChecker(t, world(nil), nil)
	for _, odd := range []string{
		"evil.example(.example.com", "example.com;dkim=pass", "example.com\x00.evil.example", `example.com".evil.example`, "example.com (c)",
		"example.com\r\nX: y", "example.com;\r\n\tdmarc=pass header.from=example.com", "ex\u00e4mple.com", "@example.com",
	} {
		q := ask(theirs, "", "example.com", strings.Replace(letter("example.com"), "From:", "DKIM-Signature: v=1; a=rsa-sha256; d="+
			strings.NewReplacer("\r\n", "", "\x00", "\x01").Replace(odd)+"; s=rsa; h=from; bh=AAAA; b=AAAA\r\nFrom:", 1))
		q.From = smtp.Path{Local: `ann" smtp.x=y; dkim=pass (`, Domain: odd}
		q.Hello = odd
		f := c.Check(t.Context(), q)
		for _, r := range readBack(t, f) {
			if r.Value == "pass" && r.Method != "iprev" {
				t.Errorf("%q: %+v", odd, r)
			}
		}
		if s := f.String(); strings.Contains(s, "dkim=pass") || strings.ContainsAny(s, "\r\n\x00") {
			t.Errorf("%q: %q", odd, s)
		}
	}
}

// TestBounded: a checker whose DNS hangs answers in time, and lets no more in than it may.
func TestBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		z := world(zone{"TXT hang.example": {"hang"}, "TXT _dmarc.hang.example": {"hang"}})
		c := newChecker(t, z, func(o *Options) { o.InFlight = 4 })
		begin := time.Now()
		results := make(chan *Findings)
		for range 20 {
			go func() {
				results <- c.Check(context.Background(), ask(theirs, "ann@hang.example", "hang.example", letter("hang.example")))
			}()
		}
		skipped := 0
		for i := range 20 {
			f := <-results
			took := time.Since(begin)
			switch {
			case f.Skipped:
				skipped++
				if took > DefaultWait {
					t.Errorf("skipped after %v", took)
				}
			case took > DefaultTimeout:
				t.Errorf("number %d after %v", i, took)
			}
			if f.String() != "spf=temperror dkim=none dmarc=temperror" && f.String() != "spf=temperror dkim=temperror dmarc=temperror" {
				t.Errorf("%s", f)
			}
			readBack(t, f)
			if reply, d := c.Decide(Reject, f); d != PutOff || reply.Code != 451 {
				t.Errorf("%s %s", d, reply)
			}
			if reply, _ := c.Decide(Mark, f); !reply.IsZero() {
				t.Errorf("marking refuses: %s", reply)
			}
		}
		if skipped != 16 {
			t.Errorf("%d skipped", skipped)
		}
	})
}

// TestSeal: what is passed on is sealed, and the next one finds it whole.
func TestSeal(t *testing.T) {
	t.Parallel()
	z := world(nil)
	msg := signed(t, letter("example.com"), "example.com")
	for name, c := range map[string]struct {
		config Config
		msg    string
		want   string // of the next check; empty: nothing was added
		fails  bool
	}{
		"first":           {Config{Seal: "we.example"}, msg, "spf=none dkim=pass(example.com) dmarc=pass arc=pass", false},
		"by selector":     {Config{Seal: "we.example", Selector: "ed"}, msg, "spf=none dkim=pass(example.com) dmarc=pass arc=pass", false},
		"second":          {Config{Seal: "we.example"}, passedOn(t, z, msg, "list.example"), "spf=none dkim=pass(example.com) dmarc=pass arc=pass", false},
		"not at all":      {Config{}, msg, "", false},
		"no key":          {Config{Seal: "nobody.example"}, msg, "", true},
		"no such key":     {Config{Seal: "we.example", Selector: "x"}, msg, "", true},
		"keys are broken": {Config{Seal: "later.example"}, msg, "", true},
		"a broken chain": {Config{Seal: "we.example"}, strings.Replace(passedOn(t, z, msg, "list.example"), "Hello Bob", "Hello Eve", 1),
			"spf=none dkim=fail(example.com) dmarc=fail(reject) arc=fail", false},
		"a chain that is not whole": {Config{Seal: "we.example"}, "ARC-Seal: i=1; a=rsa-sha256; cv=none; d=x.example; s=y; b=AA==\r\n" + msg, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checker := newChecker(t, z, func(o *Options) { o.Config = c.config })
			if checker.Seals() != (c.config.Seal != "") {
				t.Error("it does not know whether it seals")
			}
			q := ask(ours, "ann@example.com", "example.com", c.msg)
			f := checker.Check(t.Context(), q)
			out, err := checker.Seal([]byte("kept"), q.Pieces, f)
			if (err != nil) != c.fails || !strings.HasPrefix(string(out), "kept") {
				t.Fatalf("%v: %s", err, out)
			}
			added := strings.TrimPrefix(string(out), "kept")
			if (added == "") != (c.want == "") {
				t.Fatalf("added %s", added)
			}
			if added == "" {
				return
			}
			next := checker.Check(t.Context(), ask(theirs, "x@nobody.example", "example.com", added+c.msg))
			if got := next.String(); got != c.want {
				t.Errorf("found %q, want %q", got, c.want)
			}
			if next.ARC.Instances != f.ARC.Instances+1 {
				t.Errorf("%d instances after %d", next.ARC.Instances, f.ARC.Instances)
			}
		})
	}
}

// TestManySignatures: their number and size cost neither time nor a field that nobody takes.
func TestManySignatures(t *testing.T) {
	t.Parallel()
	c := newChecker(t, world(nil), nil)
	var b strings.Builder
	for b.Len() < 900<<10 {
		b.WriteString("DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.com; s=rsa; h=" + strings.Repeat("from:", 200) +
			"to; bh=" + strings.Repeat("A", 43) + "=; b=" + strings.Repeat("A", 300) + "\r\n")
	}
	b.WriteString(letter("example.com"))
	f := c.Check(t.Context(), ask(theirs, "ann@example.com", "example.com", b.String()))
	if len(f.DKIM) > 2*dkim.MaxSignatures+1 {
		t.Errorf("%d results", len(f.DKIM))
	}
	field, err := f.Append(nil, "mx.we.example")
	if err != nil || len(field) > 8<<10 || len(f.String()) > 300 {
		t.Errorf("%v: a field of %d octets, %q", err, len(field), f)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{
		{}, {Hostname: "x"}, {Resolver: world(nil)}, {Hostname: "x", Resolver: world(nil), InFlight: -1},
		{Hostname: "x", Resolver: world(nil), Timeout: -1}, {Hostname: "x", Resolver: world(nil), Wait: -1},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
	reg := prometheus.NewPedanticRegistry()
	newChecker(t, world(nil), func(o *Options) { o.Registerer = reg })
	if _, err := New(Options{Hostname: "x", Resolver: world(nil), Registerer: reg}); err == nil {
		t.Error("metrics registered twice")
	}
}

func BenchmarkCheck(b *testing.B) {
	z := world(nil)
	c := newChecker(b, z, nil)
	body := strings.Repeat("A line of text that is as long as lines of text are in mail, more or less.\r\n", 130)
	q := ask(ours, "ann@example.com", "example.com", signed(b, letter("example.com")+body, "example.com"))
	b.ReportAllocs()
	for b.Loop() {
		if f := c.Check(b.Context(), q); f.DMARC.Result != "pass" {
			b.Fatal(f)
		}
	}
}
