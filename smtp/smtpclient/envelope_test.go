package smtpclient_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/smtpclient"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// TestNeeds: what a message needs and the peer lacks is refused by ourselves, with the right words and nothing on the
// wire.
func TestNeeds(t *testing.T) {
	t.Parallel()
	eight := "Subject: x\r\n\r\nh\xc3\xa9\r\n"
	for _, tc := range []struct {
		name    string
		without []string
		size    int64
		o       smtpclient.Options
		edit    func(*smtpclient.Transaction)
		want    string
		cause   error
	}{
		{"UTF8 header", []string{"SMTPUTF8"}, 0, smtpclient.Options{}, func(tx *smtpclient.Transaction) { tx.HeaderUTF8 = true },
			"2 * refused 550 mail", smtpclient.ErrNeedUTF8},
		{"UTF8 sender", []string{"SMTPUTF8"}, 0, smtpclient.Options{}, func(tx *smtpclient.Transaction) { tx.From.Local = "jürgen" },
			"2 * refused 553 mail", smtpclient.ErrNeedUTF8},
		{"UTF8 recipient", []string{"SMTPUTF8"}, 0, smtpclient.Options{}, func(tx *smtpclient.Transaction) { tx.Recipients[0].Local = "jürgen" },
			"refused 553 mail, delivered 250 final", smtpclient.ErrNeedUTF8},
		{"UTF8 declared but not needed", []string{"SMTPUTF8"}, 0, smtpclient.Options{}, func(tx *smtpclient.Transaction) { tx.From.UTF8 = true },
			"2 * delivered 250 final", nil},
		{"8-bit", []string{"8BITMIME"}, 0, smtpclient.Options{}, func(tx *smtpclient.Transaction) { tx.Body = smtp.BodyOf([]byte(eight)) },
			"2 * refused 554 mail", smtpclient.ErrNeed8BitMIME},
		{"8-bit allowed", []string{"8BITMIME"}, 0, smtpclient.Options{Allow8Bit: true},
			func(tx *smtpclient.Transaction) { tx.Body = smtp.BodyOf([]byte(eight)) }, "2 * delivered 250 final", nil},
		{"8-bit over HELO", []string{"ESMTP"}, 0, smtpclient.Options{}, func(tx *smtpclient.Transaction) { tx.Body = smtp.BodyOf([]byte(eight)) },
			"2 * refused 554 mail", smtpclient.ErrNeed8BitMIME},
		{"HELO", []string{"ESMTP"}, 0, smtpclient.Options{}, func(*smtpclient.Transaction) {}, "2 * delivered 250 final", nil},
		{"too large", nil, 10, smtpclient.Options{}, func(*smtpclient.Transaction) {}, "2 * refused 552 mail", smtpclient.ErrTooLarge},
		{"sender with a line end", nil, 0, smtpclient.Options{}, func(tx *smtpclient.Transaction) { tx.From.Local = "a>\r\nRCPT TO:<b@c>\r\nNOOP" },
			"2 * refused 553 mail", smtpclient.ErrAddress},
		{"recipient with a line end", nil, 0, smtpclient.Options{}, func(tx *smtpclient.Transaction) { tx.Recipients[0].Domain = "c>\nNOOP" },
			"refused 553 mail, delivered 250 final", smtpclient.ErrAddress},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p := piped(t, smtptest.Script{Without: tc.without, Size: tc.size})
			c := p.open(t, tc.o)
			tx := message("x", 2, letter)
			tc.edit(tx)
			err := c.Send(t.Context(), tx)
			if got := statuses(tx); got != tc.want || err != nil {
				t.Errorf("got %s, error %v", got, err)
			}
			for _, r := range tx.Result.Recipients {
				if r.Status == smtpclient.Refused && (!errors.Is(r.Err, tc.cause) || r.Reply.Enhanced.Class != 5) {
					t.Errorf("%+v", r)
				}
			}
			if !c.Reusable() {
				t.Error("not reusable")
			}
			p.judge(t, tx)
			if n := p.Counters().BadCommands; n != 0 && !slices.Contains(tc.without, "ESMTP") {
				t.Errorf("%d bad commands", n)
			}
		})
	}
}

// TestNeedUTF8Codes: the code tells whether an address or the header is what the peer cannot take (RFC 6531, 3.5).
func TestNeedUTF8Codes(t *testing.T) {
	t.Parallel()
	for want, edit := range map[string]func(*smtpclient.Transaction){
		"550 5.6.9": func(tx *smtpclient.Transaction) { tx.HeaderUTF8 = true },
		"553 5.6.7": func(tx *smtpclient.Transaction) { tx.HeaderUTF8, tx.From.Local = true, "jürgen" },
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			p := piped(t, smtptest.Script{Without: []string{"SMTPUTF8"}})
			c := p.open(t, smtpclient.Options{})
			tx := message("x", 1, letter)
			edit(tx)
			if err := c.Send(t.Context(), tx); err != nil {
				t.Fatal(err)
			}
			if r := tx.Result.Recipients[0].Reply; fmt.Sprintf("%d %v", r.Code, r.Enhanced) != want {
				t.Errorf("our reply is %d %v %s", r.Code, r.Enhanced, r.Text)
			}
			p.judge(t, tx)
		})
	}
}

// TestParameters: what the sender asked for goes on to a peer that offers it, and is left out for one that does not.
func TestParameters(t *testing.T) {
	t.Parallel()
	edit := func(tx *smtpclient.Transaction) {
		tx.From.Return, tx.From.EnvelopeID, tx.From.UTF8 = smtp.ReturnHeaders, "id+1", true
		tx.Recipients[0].Notify = smtp.NotifyFailure | smtp.NotifyDelay
		tx.Recipients[0].Original = smtp.OriginalRecipient{Type: "rfc822", Address: "first@example.com"}
		tx.Recipients[1].Domain = "bücher.example"
		tx.Body = smtp.BodyOf([]byte("\xc3\xa9"))
	}
	for _, tc := range []struct {
		without               []string
		mail, first, domainTo string
	}{
		{nil, "SIZE=4 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=id+2B1", "NOTIFY=FAILURE,DELAY ORCPT=rfc822;first@example.com", "bücher.example"},
		{[]string{"SMTPUTF8"}, "SIZE=4 BODY=8BITMIME RET=HDRS ENVID=id+2B1", "NOTIFY=FAILURE,DELAY ORCPT=rfc822;first@example.com", "xn--bcher-kva.example"},
		{[]string{"DSN"}, "SIZE=4 BODY=8BITMIME SMTPUTF8", "", "bücher.example"},
		{[]string{"SIZE"}, "BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=id+2B1", "NOTIFY=FAILURE,DELAY ORCPT=rfc822;first@example.com", "bücher.example"},
	} {
		t.Run(strings.Join(tc.without, " "), func(t *testing.T) {
			t.Parallel()
			p := piped(t, smtptest.Script{Without: tc.without})
			c := p.open(t, smtpclient.Options{})
			tx := message("x", 2, "")
			edit(tx)
			if err := c.Send(t.Context(), tx); err != nil {
				t.Fatal(err)
			}
			p.wait()
			m := p.ledger.messages[0]
			if m.Parameters != tc.mail || m.RecipientParameters[0] != tc.first || m.RecipientParameters[1] != "" || m.Recipients[1] != "x2@"+tc.domainTo {
				t.Errorf("%q %q %q", m.Parameters, m.RecipientParameters, m.Recipients)
			}
			if string(m.Body) != "\xc3\xa9\r\n" || m.Size != 4 {
				t.Errorf("body %q", m.Body)
			}
		})
	}
}

// TestNullSender: a report goes out from the null reverse-path.
func TestNullSender(t *testing.T) {
	t.Parallel()
	p := piped(t, smtptest.Script{})
	c := p.open(t, smtpclient.Options{})
	tx := message("x", 1, letter)
	tx.From = smtp.Sender{}
	if err := c.Send(t.Context(), tx); err != nil {
		t.Fatal(err)
	}
	p.judge(t, tx)
	if m := p.ledger.messages[0]; m.From != "" {
		t.Errorf("from %q", m.From)
	}
}

// TestManyRecipients: more than a group holds, over both kinds of connection.
func TestManyRecipients(t *testing.T) {
	t.Parallel()
	for _, way := range ways {
		for _, kind := range []func(testing.TB, smtptest.Script) *peer{loopback, piped} {
			t.Run(way.name, func(t *testing.T) {
				t.Parallel()
				p := kind(t, smtptest.Script{Rules: []smtptest.Rule{{At: smtptest.AtRcpt, Match: "*77@*", Reply: "550 5.1.1 unknown"}}})
				c := p.open(t, way.o)
				for i := range 2 {
					tx := message(fmt.Sprintf("x%d-", i), 1000, letter)
					if err := c.Send(t.Context(), tx); err != nil {
						t.Fatal(err)
					}
					want := "76 * delivered 250 final, refused 550 rcpt, " + strings.Repeat("99 * delivered 250 final, refused 550 rcpt, ", 9) + "23 * delivered 250 final"
					if got := statuses(tx); got != want {
						t.Errorf("got %s", got)
					}
				}
			})
		}
	}
}

// TestLimits: LIMITS MAILMAX ends the use of a session in time.
func TestLimits(t *testing.T) {
	t.Parallel()
	p := loopback(t, smtptest.Script{SessionMessages: 2, Announce: true})
	c := p.open(t, smtpclient.Options{})
	for i := range 2 {
		if !c.Reusable() {
			t.Errorf("not reusable after %d", i)
		}
		if err := c.Send(t.Context(), message("x", 1, letter)); err != nil {
			t.Error(err)
		}
	}
	if c.Reusable() || c.Alive() {
		t.Error("reusable beyond MAILMAX")
	}
	// Not announced, the limit shows as 421 at MAIL.
	p = loopback(t, smtptest.Script{SessionMessages: 1})
	c = p.open(t, smtpclient.Options{})
	if err := c.Send(t.Context(), message("x", 1, letter)); err != nil {
		t.Error(err)
	}
	tx := message("y", 1, letter)
	err := c.Send(t.Context(), tx)
	var e *smtpclient.Error
	if !errors.As(err, &e) || e.Reply.Code != 421 || e.Phase != smtpclient.PhaseMail || statuses(tx) != "refused 421 mail" {
		t.Errorf("%s %v", statuses(tx), err)
	}
}

// TestLMTP: a reply for each accepted recipient.
func TestLMTP(t *testing.T) {
	t.Parallel()
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			p := loopback(t, smtptest.Script{LMTP: true, Rules: []smtptest.Rule{
				{At: smtptest.AtRcpt, Match: "x2@*", Reply: "550 5.1.1 unknown"},
				{At: smtptest.AtFinal, Match: "x3@*", Reply: "452 4.2.2 full"},
				{At: smtptest.AtFinal, Match: "x4@*", Reply: "554 5.6.0 no"},
				{At: smtptest.AtFinal, Match: "y3@*", Drop: smtptest.DropFIN},
			}})
			o := way.o
			o.LMTP = true
			c := p.open(t, o)
			first := message("x", 5, letter)
			if err := c.Send(t.Context(), first); err != nil {
				t.Fatal(err)
			}
			if got := statuses(first); got != "delivered 250 final, refused 550 rcpt, refused 452 final, refused 554 final, delivered 250 final" {
				t.Errorf("got %s", got)
			}
			second := message("y", 4, letter)
			if err := c.Send(t.Context(), second); err == nil {
				t.Error("no error")
			}
			if got := statuses(second); got != "2 * delivered 250 final, 2 * unknown final" {
				t.Errorf("got %s", got)
			}
			p.judge(t, first)
		})
	}
	p := piped(t, smtptest.Script{LMTP: true})
	if _, err := p.try(smtpclient.Options{}); err == nil {
		t.Error("SMTP with an LMTP server")
	}
	p = piped(t, smtptest.Script{})
	if _, err := p.try(smtpclient.Options{LMTP: true}); err == nil {
		t.Error("LMTP with an SMTP server")
	}
}

// TestRefusedAtStart: refusals at the banner and at EHLO keep their class.
func TestRefusedAtStart(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		rule      smtptest.Rule
		phase     smtpclient.Phase
		permanent bool
	}{
		{smtptest.Rule{At: smtptest.AtBanner, Reply: "554 5.7.1 go away"}, smtpclient.PhaseGreeting, true},
		{smtptest.Rule{At: smtptest.AtBanner, Reply: "421 4.3.2 busy", Drop: smtptest.DropFIN}, smtpclient.PhaseGreeting, false},
		{smtptest.Rule{At: smtptest.AtEhlo, Reply: "554 5.7.1 go away"}, smtpclient.PhaseHello, true},
		{smtptest.Rule{At: smtptest.AtEhlo, Reply: "450 4.7.1 later"}, smtpclient.PhaseHello, false},
	} {
		p := loopback(t, smtptest.Script{Rules: []smtptest.Rule{tc.rule}})
		_, err := p.try(smtpclient.Options{})
		var e *smtpclient.Error
		if !errors.As(err, &e) || e.Phase != tc.phase || e.Reply.Permanent() != tc.permanent || e.Temporary() == tc.permanent {
			t.Errorf("%+v: error %v", tc.rule, err)
		}
	}
}
