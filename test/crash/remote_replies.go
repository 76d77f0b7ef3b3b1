package crash

import (
	"context"
	"strings"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// replyRemotes are the replies of K-3. What is temporary or no SMTP is given a third of the time, so that the mail
// arrives in the end; what is permanent is given to recipients that the judge expects to fail.
func replyRemotes() []*remote {
	var list []*remote
	add := func(name string, m remote, rules ...smtptest.Rule) {
		m.name = name
		m.script.Rules = rules
		if r := rules[0]; r.Share > 0 && (r.At == smtptest.AtBanner || r.At == smtptest.AtEhlo) {
			m.script.SessionMessages = 2 // or the point would be reached too seldom
		}
		list = append(list, &m)
	}
	later := func(reasons ...event.Reason) remote { return remote{reasons: reasons} }
	never := remote{nobody: true, direct: true}
	fine := remote{direct: true}
	// With DATA no octet of a message has left before the replies to its envelope are read. With BDAT the remote may
	// have taken it when it turns out that its replies are no SMTP.
	odd := later(event.ProtocolError)
	odd.script.Without = []string{"CHUNKING"}
	unheard := remote{twice: true, reasons: []event.Reason{event.ProtocolError}}
	const share = 0.3
	reply := func(at smtptest.Point, text string) smtptest.Rule {
		return smtptest.Rule{At: at, Share: share, Reply: text}
	}
	raw := func(at smtptest.Point, text string) smtptest.Rule {
		return smtptest.Rule{At: at, Share: share, Raw: text}
	}
	const busy = "421 4.3.2 Not now"

	add("421-banner", later(event.SessionRefused), reply(smtptest.AtBanner, busy))
	add("421-ehlo", later(event.SessionRefused), reply(smtptest.AtEhlo, busy))
	add("421-mail", later(event.SessionClosed), reply(smtptest.AtMail, busy))
	add("421-rcpt", later(event.SessionClosed), reply(smtptest.AtRcpt, busy))
	add("421-final", later(event.SessionClosed), reply(smtptest.AtFinal, busy))
	add("450-mail", later(event.RemoteDeferred), reply(smtptest.AtMail, "450 4.3.0 Later"))
	add("450-rcpt", later(event.RemoteDeferred), reply(smtptest.AtRcpt, "450 4.3.0 Later"))
	add("451-final", later(event.RemoteDeferred), reply(smtptest.AtFinal, "451 4.3.0 Later"))
	add("550-mail", never, smtptest.Rule{At: smtptest.AtMail, Reply: "550 5.7.1 Never"})
	add("550-rcpt", never, smtptest.Rule{At: smtptest.AtRcpt, Reply: "550 5.1.1 Nobody"})
	add("554-final", never, smtptest.Rule{At: smtptest.AtFinal, Reply: "554 5.6.0 Never"})
	add("521-banner", never, smtptest.Rule{At: smtptest.AtBanner, Reply: "521 This host takes no mail"})
	plain := remote{direct: true, ascii: true} // without 8BITMIME
	add("502-ehlo", plain, smtptest.Rule{At: smtptest.AtEhlo, Reply: "502 5.5.1 What"})
	add("554-banner", later(event.SessionRefused), reply(smtptest.AtBanner, "554 5.7.1 No service for you"))

	add("no-text", fine, smtptest.Rule{At: smtptest.AtFinal, Raw: "250\r\n"})
	add("codes-differ", odd, raw(smtptest.AtRcpt, "250-one\r\n550 two\r\n"))
	add("codes-differ-bdat", unheard, raw(smtptest.AtRcpt, "250-one\r\n550 two\r\n"))
	add("codes-differ-final", unheard, raw(smtptest.AtFinal, "250-one\r\n550 two\r\n"))
	add("four-digits", odd, raw(smtptest.AtMail, "2200 four digits\r\n"))
	add("letters", odd, raw(smtptest.AtRcpt, "25x what\r\n"))
	add("thousand-lines", odd, raw(smtptest.AtRcpt, strings.Repeat("250-more\r\n", 100_000)+"250 end\r\n"))
	add("long-line", odd, raw(smtptest.AtRcpt, "250 "+strings.Repeat("x", 1<<20)+"\r\n"))
	add("nul", never, smtptest.Rule{At: smtptest.AtRcpt, Raw: "550 5.1.1 no\x00body\r\n"})
	add("eight-bit", never, smtptest.Rule{At: smtptest.AtRcpt, Raw: "550 5.1.1 no\xff\xfebody\r\n"})
	add("class-mismatch", never, smtptest.Rule{At: smtptest.AtRcpt, Raw: "550 2.1.5 Fine\r\n"})
	add("lf-only", never, smtptest.Rule{At: smtptest.AtRcpt, Raw: "550 5.1.1 Nobody\n"})
	add("no-line-end", later(event.ConnectionLost), smtptest.Rule{
		At: smtptest.AtBanner, Share: share, Raw: "220 " + strings.Repeat("x", 64<<10), Drop: smtptest.DropFIN,
	})
	add("two-banners", odd, raw(smtptest.AtBanner, "220 one\r\n220 two\r\n"))
	// The second reply stands where that to the next command will be looked for, so the session is over.
	add("two-replies", odd, raw(smtptest.AtMail, "250 ok\r\n220 what\r\n"))
	add("354-to-mail", odd, reply(smtptest.AtMail, "354 Go ahead"))
	add("no-keywords", plain, smtptest.Rule{At: smtptest.AtEhlo, Raw: "250 mx\r\n"})
	add("huge-ehlo", odd, raw(smtptest.AtEhlo, strings.Repeat("250-X-NOTHING\r\n", 100_000)+"250 OK\r\n"))
	add("many-keywords", plain, smtptest.Rule{
		At: smtptest.AtEhlo, Raw: "250-mx\r\n" + strings.Repeat("250-X-NOTHING\r\n", 50) + "250 OK\r\n",
	})
	return list
}

// runReplies is row K-3.
func runReplies(ctx context.Context, t *Trial) (*Verdict, error) {
	return runRemotes(ctx, t, replyRemotes(), t.runs(20, 300), true)
}

// pipelineRemotes are the refusals of K-4.
func pipelineRemotes() []*remote {
	nobody := smtptest.Rule{At: smtptest.AtRcpt, Match: "nobody*", Reply: "550 5.1.1 Nobody"}
	shy := smtptest.Rule{At: smtptest.AtRcpt, Share: 0.2, Reply: "451 4.3.0 Later"}
	rules := func(list ...smtptest.Rule) smtptest.Script { return smtptest.Script{Rules: list} }
	return []*remote{
		{
			name: "550-to-mail-then-close", recipients: 100, nobody: true, direct: true,
			script: rules(smtptest.Rule{At: smtptest.AtMail, Reply: "550 5.7.1 Not you", Drop: smtptest.DropFIN}),
		},
		{ // one more recipient is refused with each connection
			name: "554-to-first-rcpt-then-close", recipients: 5, nobody: true, reasons: []event.Reason{event.ConnectionLost},
			script: rules(smtptest.Rule{At: smtptest.AtRcpt, Reply: "554 5.7.1 No", Drop: smtptest.DropFIN}),
		},
		{name: "452-from-the-tenth", recipients: 100, direct: true, script: smtptest.Script{Recipients: 9}},
		{
			name: "452-plain", recipients: 100, direct: true,
			script: rules(smtptest.Rule{At: smtptest.AtRcpt, From: 31, Reply: "452 Full"}),
		},
		{
			name: "552-from-the-eleventh", recipients: 100, direct: true,
			script: rules(smtptest.Rule{At: smtptest.AtRcpt, From: 11, Reply: "552 5.5.3 Too many"}),
		},
		{
			name: "all-refused-but-354", recipients: 100, nobody: true, direct: true,
			script: smtptest.Script{Without: []string{"CHUNKING"}, Rules: []smtptest.Rule{
				nobody, {At: smtptest.AtData, Reply: "354 Go ahead"},
			}},
		},
		{name: "all-refused", recipients: 100, nobody: true, direct: true, script: rules(nobody)},
		{
			name: "mixed", recipients: 100, mixed: true, script: rules(nobody, shy),
			reasons: []event.Reason{event.RemoteDeferred},
		},
		{
			name: "mixed-data", recipients: 100, mixed: true, reasons: []event.Reason{event.RemoteDeferred},
			script: smtptest.Script{Without: []string{"CHUNKING"}, Rules: []smtptest.Rule{nobody, shy}},
		},
		{
			name: "mixed-without-pipelining", recipients: 100, mixed: true, reasons: []event.Reason{event.RemoteDeferred},
			script: smtptest.Script{Without: []string{"CHUNKING", "PIPELINING"}, Rules: []smtptest.Rule{nobody, shy}},
		},
		{
			name: "mixed-then-451", recipients: 20, mixed: true, reasons: []event.Reason{event.RemoteDeferred},
			script: rules(nobody, smtptest.Rule{At: smtptest.AtFinal, Share: 0.3, Reply: "451 4.3.0 Later"}),
		},
	}
}

// runPipelines is row K-4.
func runPipelines(ctx context.Context, t *Trial) (*Verdict, error) {
	return runRemotes(ctx, t, pipelineRemotes(), t.runs(3, 20), true)
}
