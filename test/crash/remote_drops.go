package crash

import (
	"context"
	"fmt"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// dropRemotes are the points of K-1: a third of the time the connection ends there, in order or by a reset.
func dropRemotes() []*remote {
	const share = 0.3
	var list []*remote
	for _, how := range []smtptest.Drop{smtptest.DropFIN, smtptest.DropRST} {
		add := func(name string, m remote, r smtptest.Rule, without ...string) {
			if r.Drop = how; r.Share == 0 && r.Times == 0 {
				r.Share = share
			}
			m.name = fmt.Sprintf("%s-%s", name, how)
			m.script = smtptest.Script{Rules: []smtptest.Rule{r}, Without: without}
			if r.At == smtptest.AtBanner || r.At == smtptest.AtEhlo {
				m.script.SessionMessages = 2 // or the point would be reached too seldom
			}
			m.reasons = []event.Reason{event.ConnectionLost}
			list = append(list, &m)
		}
		again := remote{}                         // nothing was taken over, so it comes once
		lost := remote{twice: true, surely: true} // the 250 did not arrive
		fine := remote{direct: true}
		other := remote{second: true, direct: true} // the next host is asked at once

		add("banner", again, smtptest.Rule{At: smtptest.AtBanner})
		add("banner-cut", again, smtptest.Rule{At: smtptest.AtBanner, Cut: 2})
		add("banner-after", again, smtptest.Rule{At: smtptest.AtBanner, After: true})
		add("banner-two-hosts", other, smtptest.Rule{At: smtptest.AtBanner})
		add("ehlo", again, smtptest.Rule{At: smtptest.AtEhlo})
		add("ehlo-after", again, smtptest.Rule{At: smtptest.AtEhlo, After: true})
		add("mail", again, smtptest.Rule{At: smtptest.AtMail})
		add("mail-two-hosts", other, smtptest.Rule{At: smtptest.AtMail})
		add("rcpt-first", again, smtptest.Rule{At: smtptest.AtRcpt})
		third := again
		third.recipients = 5
		add("rcpt-third", third, smtptest.Rule{At: smtptest.AtRcpt, From: 3, Share: 0.1})
		add("data", again, smtptest.Rule{At: smtptest.AtData}, "CHUNKING")
		add("data-354", again, smtptest.Rule{At: smtptest.AtData, After: true}, "CHUNKING")
		add("body-begin", again, smtptest.Rule{At: smtptest.AtBody, Octets: 1})
		add("body-half", again, smtptest.Rule{At: smtptest.AtBody, Percent: 50})
		add("body-99", again, smtptest.Rule{At: smtptest.AtBody, Percent: 99})
		add("body-half-data", again, smtptest.Rule{At: smtptest.AtBody, Percent: 50}, "CHUNKING")
		add("dot", again, smtptest.Rule{At: smtptest.AtFinal})
		add("dot-data", again, smtptest.Rule{At: smtptest.AtFinal}, "CHUNKING", "PIPELINING")
		add("reply-cut", lost, smtptest.Rule{At: smtptest.AtFinal, Cut: 2})
		add("reply-end-cut", lost, smtptest.Rule{At: smtptest.AtFinal, Cut: 12}, "CHUNKING")
		add("after-250", fine, smtptest.Rule{At: smtptest.AtFinal, After: true})
		add("quit", fine, smtptest.Rule{At: smtptest.AtQuit})
	}
	list = append(list,
		&remote{name: "connect-two-hosts", closed: true, second: true, direct: true},
		&remote{name: "idle-closed", direct: true, script: smtptest.Script{ // a kept session ends between two messages
			Rules: []smtptest.Rule{{At: smtptest.AtFinal, Share: 0.5, Drop: smtptest.DropFIN, After: true}},
		}},
		&remote{name: "few-a-session", direct: true, script: smtptest.Script{SessionMessages: 3}},
	)
	return list
}

// runDrops is row K-1.
func runDrops(ctx context.Context, t *Trial) (*Verdict, error) {
	return runRemotes(ctx, t, dropRemotes(), t.runs(20, 1000), true)
}
