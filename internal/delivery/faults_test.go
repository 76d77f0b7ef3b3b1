package delivery

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// fault is a way the best MX host misbehaves, and what is to come of it.
type fault struct {
	name   string
	script smtptest.Script
	rcpt   int // recipients; 0: one
	// want are the results with that host alone; one stands for all recipients.
	want []string
	// class of the first result, if given
	class event.Class
	// second says that with a healthy second host the mail is delivered there. If not, the results are the same as
	// without.
	second bool
	// destination is the expected Verdict.Destination with that host alone.
	destination bool
	says        string // part of the explanation
	accepted    int    // recipients of messages the misbehaving host took, whether or not its reply arrived
}

func runFaults(t *testing.T, faults []fault) {
	t.Helper()
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			n := max(f.rcpt, 1)
			var to []string
			for i := range n {
				to = append(to, fmt.Sprintf("u%d@example.test", i+1))
			}
			want := f.want
			for len(want) < n {
				want = append(want, want[0])
			}

			w, sinks := newWorld(t, oneZone, nil, oneMX(f.script)...)
			v := w.deliver(to...)
			expect(t, v, want...)
			first := &v.Attempt.Results[0]
			if f.class != 0 && first.Class != f.class {
				t.Errorf("class %s, want %s", first.Class, f.class)
			}
			if v.Destination != f.destination {
				t.Errorf("destination is %v", v.Destination)
			}
			if first.Outcome != spool.Delivered {
				contains(t, first.Explanation, f.says, "mx1.example.test [127.0.0.2]")
			}
			awaitReceived(t, sinks[0], f.accepted)

			w, sinks = newWorld(t, twoZones, nil, mx{"127.0.0.2", &f.script}, mx{"127.0.0.3", new(smtptest.Script)})
			v = w.deliver(to...)
			if !f.second {
				expect(t, v, want...)
				if c := sinks[1].Counters(); c.Transactions != 0 {
					t.Errorf("the second host was asked as well: %+v", c)
				}
				return
			}
			expect(t, v, repeat(delivers, n)...)
			awaitReceived(t, sinks[1], n-f.accepted)
		})
	}
}

// either returns the phase after a drop in order, or after a reset.
func either(how smtptest.Drop, fin, rst string) string {
	if how == smtptest.DropRST {
		return rst
	}
	return fin
}

func repeat(s string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = s
	}
	return all
}

// TestK1Drops drops the connection at every point of the dialog.
func TestK1Drops(t *testing.T) {
	t.Parallel()
	var faults []fault
	for _, how := range []smtptest.Drop{smtptest.DropFIN, smtptest.DropRST} {
		for _, chunking := range []bool{true, false} {
			without := []string{"CHUNKING"}
			by := "data"
			if chunking {
				without, by = nil, "bdat"
			}
			add := func(name string, f fault, r smtptest.Rule) {
				r.Drop = how
				f.name = fmt.Sprintf("%s/%s/%s", name, how, by)
				f.script = smtptest.Script{Without: without, Rules: []smtptest.Rule{r}}
				faults = append(faults, f)
			}
			lost := func(phase string) fault {
				return fault{want: []string{"deferred connection_lost " + phase}, class: event.ClassConnection, second: true,
					destination: true}
			}
			unknown := fault{want: []string{"deferred connection_lost final"}, class: event.ClassConnection,
				says: "arrive twice"}
			fine := fault{want: []string{delivers}, accepted: 1}

			// A reset may overtake the end of the handshake and what was sent before it.
			early := "greeting"
			if how == smtptest.DropRST {
				early = "connect|greeting|hello|mail"
			}
			add("before-banner", lost(early), smtptest.Rule{At: smtptest.AtBanner})
			add("mid-banner", lost(early), smtptest.Rule{At: smtptest.AtBanner, Cut: 3})
			add("after-banner", lost(either(how, "hello", early)), smtptest.Rule{At: smtptest.AtBanner, After: true})
			add("ehlo", lost("hello"), smtptest.Rule{At: smtptest.AtEhlo})
			add("after-ehlo", lost(either(how, "mail", early)), smtptest.Rule{At: smtptest.AtEhlo, After: true})
			add("mail", lost("mail"), smtptest.Rule{At: smtptest.AtMail})
			add("after-mail", lost("rcpt"), smtptest.Rule{At: smtptest.AtMail, After: true})
			add("rcpt-1", lost("rcpt"), smtptest.Rule{At: smtptest.AtRcpt})
			three := lost("rcpt")
			three.rcpt = 3
			add("rcpt-3", three, smtptest.Rule{At: smtptest.AtRcpt, From: 3})
			if !chunking {
				add("data", lost("data"), smtptest.Rule{At: smtptest.AtData})
			}
			add("after-dot", unknown, smtptest.Rule{At: smtptest.AtFinal})
			taken := unknown
			taken.accepted = 1
			add("mid-reply", taken, smtptest.Rule{At: smtptest.AtFinal, Cut: 2})
			add("after-250", fine, smtptest.Rule{At: smtptest.AtFinal, After: true})
			add("quit", fine, smtptest.Rule{At: smtptest.AtQuit})
		}
	}
	runFaults(t, faults)
}

// TestK1DropsInBody drops the connection within a body too large for the buffers of the connection: nothing was taken
// over, and the sender knows it.
func TestK1DropsInBody(t *testing.T) {
	t.Parallel()
	line := strings.Repeat("x", 98) + "\r\n"
	body := smtp.BodyOf([]byte(strings.Repeat(line, 300_000))) // 30 MB
	for _, how := range []smtptest.Drop{smtptest.DropFIN, smtptest.DropRST} {
		for _, percent := range []int{0, 50} {
			for _, without := range [][]string{nil, {"CHUNKING"}} {
				t.Run(fmt.Sprintf("%d/%s/without%v", percent, how, without), func(t *testing.T) {
					t.Parallel()
					r := smtptest.Rule{At: smtptest.AtBody, Percent: percent, Drop: how}
					if percent == 0 {
						r.Octets = 1
					}
					script := smtptest.Script{Without: without, Rules: []smtptest.Rule{r}}
					w, _ := newWorld(t, oneZone, nil, oneMX(script)...)
					v := w.run(context.Background(), w.jobOf(body, "u@example.test"))
					if how == smtptest.DropFIN { // a host that closes its side only may still take the message in
						r := &v.Attempt.Results[0]
						if r.Outcome != spool.Deferred || r.Reason != event.ConnectionLost {
							t.Errorf("got %s: %s", says(r), r.Explanation)
						}
						return
					}
					expect(t, v, "deferred connection_lost body")
					if !v.Destination || v.Attempt.Bytes >= body.Size() {
						t.Errorf("got %+v", v)
					}
				})
			}
		}
	}
}

// TestK1DropsLateInBody drops the connection at 99 % of a body: what is left of it fits the buffers of the connection,
// so the sender cannot know whether the host had it all, unless the host says so.
func TestK1DropsLateInBody(t *testing.T) {
	t.Parallel()
	for _, how := range []smtptest.Drop{smtptest.DropFIN, smtptest.DropRST} {
		t.Run(string(how), func(t *testing.T) {
			t.Parallel()
			script := smtptest.Script{Rules: []smtptest.Rule{{At: smtptest.AtBody, Percent: 99, Drop: how}}}
			w, sinks := newWorld(t, oneZone, nil, oneMX(script)...)
			r := &w.deliver("u@example.test").Attempt.Results[0]
			if r.Outcome != spool.Deferred || r.Reason != event.ConnectionLost {
				t.Errorf("got %+v", r)
			}
			if n := received(sinks[0]); n != 0 {
				t.Errorf("%d recipients taken", n)
			}
		})
	}
}

// TestK1KeptSessions drops kept sessions between messages and under them: the next message goes out at once over a new
// connection.
func TestK1KeptSessions(t *testing.T) {
	t.Parallel()
	for _, how := range []smtptest.Drop{smtptest.DropFIN, smtptest.DropRST} {
		t.Run("idle/"+string(how), func(t *testing.T) {
			t.Parallel()
			script := smtptest.Script{Rules: []smtptest.Rule{{At: smtptest.AtFinal, Drop: how, After: true}}}
			w, sinks := newWorld(t, oneZone, nil, oneMX(script)...)
			for i := range 5 {
				v := w.deliver("u@example.test")
				expect(t, v, delivers)
				time.Sleep(time.Duration(i%2) * 80 * time.Millisecond) // found closed under the transaction, and before
			}
			awaitReceived(t, sinks[0], 5)
			if c := sinks[0].Counters(); c.Connections != 5 {
				t.Errorf("got %+v", c)
			}
		})
		for _, at := range []smtptest.Point{smtptest.AtMail, smtptest.AtRcpt} {
			t.Run(fmt.Sprintf("%s/%s", at, how), func(t *testing.T) {
				t.Parallel()
				script := smtptest.Script{Rules: []smtptest.Rule{{At: at, Skip: 1, Times: 1, Drop: how}}}
				w, sinks := newWorld(t, oneZone, nil, oneMX(script)...)
				expect(t, w.deliver("u@example.test"), delivers)
				v := w.deliver("u@example.test")
				if at == smtptest.AtMail {
					expect(t, v, delivers)
					if v.Attempt.Reused {
						t.Error("a new connection is told as a kept one")
					}
				} else if r := &v.Attempt.Results[0]; r.Outcome != spool.Delivered && r.Reason != event.ConnectionLost {
					// The small message left with its envelope, so the host may have had it all before it dropped.
					t.Errorf("got %s: %s", says(r), r.Explanation)
				}
				if got := received(sinks[0]); got < 1 || got > 2 {
					t.Errorf("%d recipients taken", got)
				}
			})
		}
		for name, reply := range map[string]string{"421": "421 4.3.2 closing for maintenance",
			"503":           "503 5.5.1 bad sequence",
			"session-limit": "451 4.7.0 too many messages in this session"} {
			t.Run(fmt.Sprintf("%s-at-mail/%s", name, how), func(t *testing.T) {
				t.Parallel()
				script := smtptest.Script{Rules: []smtptest.Rule{{At: smtptest.AtMail, Skip: 1, Times: 1, Reply: reply}}}
				w, sinks := newWorld(t, oneZone, nil, oneMX(script)...)
				expect(t, w.deliver("u@example.test"), delivers)
				expect(t, w.deliver("v@example.test"), delivers)
				awaitReceived(t, sinks[0], 2)
				if c := sinks[0].Counters(); c.Connections != 2 {
					t.Errorf("got %+v", c)
				}
			})
		}
	}
}

// TestK2Stalls lets the host fall silent, with the limits of RFC 5321, 4.5.3.2 scaled down.
func TestK2Stalls(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		at    smtptest.Point
		after bool
		want  string
	}{
		{smtptest.AtBanner, false, "deferred reply_timeout greeting"},
		{smtptest.AtEhlo, false, "deferred reply_timeout hello"},
		{smtptest.AtMail, false, "deferred reply_timeout mail"},
		{smtptest.AtRcpt, false, "deferred reply_timeout rcpt"},
		{smtptest.AtData, false, "deferred reply_timeout data"},
		{smtptest.AtFinal, false, "deferred reply_timeout final"},
	} {
		t.Run(string(c.at), func(t *testing.T) {
			t.Parallel()
			script := smtptest.Script{Without: []string{"CHUNKING"}, Rules: []smtptest.Rule{{At: c.at, Stall: true}}}
			short := func(o *Options) {
				tm := &o.Timeouts
				const limit = 400 * time.Millisecond
				tm.Greeting, tm.Hello, tm.Mail, tm.Rcpt, tm.DataInit, tm.DataBlock, tm.DataDone = limit, limit, limit, limit, limit,
					limit, limit
			}
			w, _ := newWorld(t, oneZone, short, oneMX(script)...)
			v := w.deliver("u@example.test")
			expect(t, v, c.want)
			if v.Destination != (c.at != smtptest.AtFinal) {
				t.Errorf("destination is %v", v.Destination)
			}
		})
	}
	t.Run("slow-final", func(t *testing.T) { // patience after the dot turns a duplicate into a delivery
		t.Parallel()
		script := rule(smtptest.AtFinal, func(r *smtptest.Rule) { r.Delay = smtptest.Duration(time.Second) })
		short := func(o *Options) { o.Timeouts.Mail, o.Timeouts.Rcpt = 500*time.Millisecond, 500*time.Millisecond }
		w, _ := newWorld(t, oneZone, short, oneMX(script)...)
		expect(t, w.deliver("u@example.test"), delivers)
	})
}

// TestK3Replies gives wrong, strange and hostile replies.
func TestK3Replies(t *testing.T) {
	t.Parallel()
	var faults []fault
	add := func(name string, f fault, r smtptest.Rule) {
		f.name, f.script = name, smtptest.Script{Rules: []smtptest.Rule{r}}
		faults = append(faults, f)
	}
	nonsense := func(phase string) fault {
		return fault{want: []string{"deferred protocol_error " + phase}, class: event.ClassProtocol, second: true,
			destination: true}
	}
	refused := func(reason, phase string) fault {
		return fault{want: []string{"deferred " + reason + " " + phase}, second: true, destination: true}
	}
	site := func(outcome, phase string) fault { return fault{want: []string{outcome + " " + phase}} }
	fine := fault{want: []string{delivers}, accepted: 1}

	// 421 anywhere.
	add("421-banner", refused("session_refused", "greeting"), smtptest.Rule{At: smtptest.AtBanner,
		Reply: "421 4.3.2 not now"})
	add("421-ehlo", refused("session_refused", "hello"), smtptest.Rule{At: smtptest.AtEhlo, Reply: "421 4.3.2 not now"})
	add("421-mail", refused("session_closed", "mail"), smtptest.Rule{At: smtptest.AtMail, Reply: "421 4.3.2 not now"})
	add("421-rcpt", refused("session_closed", "rcpt"), smtptest.Rule{At: smtptest.AtRcpt, Reply: "421 4.3.2 not now"})
	add("421-final", site("deferred session_closed", "final"), smtptest.Rule{At: smtptest.AtFinal,
		Reply: "421 4.3.2 not now"})
	add("421-mail-explained", fault{want: []string{"deferred rate_limited mail"}, class: event.ClassRateLimited},
		smtptest.Rule{At: smtptest.AtMail, Reply: "421 4.7.28 unusual rate of mail"})

	// Refusals at each verb.
	add("4xx-banner", refused("session_refused", "greeting"), smtptest.Rule{At: smtptest.AtBanner,
		Reply: "450 4.3.0 come back"})
	add("5xx-banner", refused("session_refused", "greeting"), smtptest.Rule{At: smtptest.AtBanner,
		Reply: "554 5.7.1 no service for you"})
	never := fault{want: []string{"bounced session_refused greeting"}, second: true}
	add("521-banner", never, smtptest.Rule{At: smtptest.AtBanner, Reply: "521 this host takes no mail"})
	add("4xx-ehlo", refused("session_refused", "hello"), smtptest.Rule{At: smtptest.AtEhlo, Reply: "450 4.3.0 come back"})
	add("5xx-ehlo", fine, smtptest.Rule{At: smtptest.AtEhlo, Reply: "502 5.5.1 what"})
	add("554-ehlo", refused("session_refused", "hello"), smtptest.Rule{At: smtptest.AtEhlo, Reply: "554 5.7.1 go away"})
	for _, c := range []struct {
		at    smtptest.Point
		phase string
	}{{smtptest.AtMail, "mail"}, {smtptest.AtRcpt, "rcpt"}, {smtptest.AtFinal, "final"}} {
		add("4xx-"+c.phase, site("deferred remote_deferred", c.phase), smtptest.Rule{At: c.at, Reply: "451 4.3.0 later"})
		add("5xx-"+c.phase, site("bounced remote_refused", c.phase), smtptest.Rule{At: c.at, Reply: "550 5.7.1 never"})
	}

	// Form.
	add("250-without-text", fine, smtptest.Rule{At: smtptest.AtRcpt, Raw: "250\r\n"})
	add("codes-differ", nonsense("rcpt"), smtptest.Rule{At: smtptest.AtRcpt, Raw: "250-one\r\n550 two\r\n"})
	add("2200", nonsense("rcpt"), smtptest.Rule{At: smtptest.AtRcpt, Raw: "2200 four digits\r\n"})
	add("25x", nonsense("rcpt"), smtptest.Rule{At: smtptest.AtRcpt, Raw: "25x what\r\n"})
	add("thousand-lines", fault{want: []string{"deferred protocol_error rcpt"}, second: true, destination: true},
		smtptest.Rule{At: smtptest.AtRcpt, Raw: strings.Repeat("250-more\r\n", 100_000) + "250 end\r\n"})
	add("long-line", fault{want: []string{"deferred protocol_error rcpt"}, second: true, destination: true},
		smtptest.Rule{At: smtptest.AtRcpt, Raw: "250 " + strings.Repeat("x", 1<<20) + "\r\n"})
	add("nul", site("bounced remote_refused", "rcpt"), smtptest.Rule{At: smtptest.AtRcpt, Raw: "550 5.1.1 no\x00body\r\n"})
	add("8-bit", site("bounced remote_refused", "rcpt"), smtptest.Rule{At: smtptest.AtRcpt,
		Raw: "550 5.1.1 no\xff\xfebody\r\n"})
	add("class-mismatch", site("bounced remote_refused", "rcpt"), smtptest.Rule{At: smtptest.AtRcpt,
		Raw: "550 2.1.5 fine\r\n"})
	add("lf-only", site("bounced remote_refused", "rcpt"), smtptest.Rule{At: smtptest.AtRcpt, Raw: "550 5.1.1 nobody\n"})
	cut := fault{want: []string{"deferred connection_lost greeting"}, second: true, destination: true}
	add("no-line-end", cut, smtptest.Rule{At: smtptest.AtBanner, Raw: "220 " + strings.Repeat("x", 64<<10),
		Drop: smtptest.DropFIN})
	add("354-to-mail", nonsense("mail"), smtptest.Rule{At: smtptest.AtMail, Reply: "354 go ahead"})
	add("two-banners", nonsense("hello"), smtptest.Rule{At: smtptest.AtBanner, Raw: "220 one\r\n220 two\r\n"})
	runFaults(t, faults)
}

// TestK3Hellos gives replies to EHLO that are meagre or enormous.
func TestK3Hellos(t *testing.T) {
	t.Parallel()
	for name, reply := range map[string]string{
		"no-keywords": "250 mx\r\n",
		"no-text":     "250\r\n",
		"empty-lines": "250-mx\r\n250-\r\n250 \r\n",
		"nonsense":    "250-mx\r\n250-SIZE x\r\n250-SIZE=\r\n250-LIMITS RCPTMAX=x MAILMAX\r\n250 \xff\r\n",
		"many":        "250-mx\r\n" + strings.Repeat("250-X-NOTHING\r\n", 50) + "250 OK\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, _ := newWorld(t, oneZone, nil, oneMX(smtptest.Script{Rules: []smtptest.Rule{{At: smtptest.AtEhlo,
				Raw: reply}}})...)
			expect(t, w.deliver("u@example.test"), delivers)
		})
	}
}

// TestK4 is about refusals in pipelined groups.
func TestK4(t *testing.T) {
	t.Parallel()
	refusedMail := "550 5.7.1 not you"
	runFaults(t, []fault{
		{name: "550-to-mail-then-close", rcpt: 3, want: []string{"bounced remote_refused mail"},
			script: rule(smtptest.AtMail, func(r *smtptest.Rule) { r.Reply, r.Drop = refusedMail, smtptest.DropFIN })},
		{name: "550-to-mail-then-reset", rcpt: 3, want: []string{"bounced remote_refused mail"},
			script: smtptest.Script{Without: []string{"CHUNKING"},
				Rules: []smtptest.Rule{{At: smtptest.AtMail, Reply: refusedMail, Drop: smtptest.DropFIN}}}},
		{name: "554-to-first-rcpt-then-close", want: []string{"bounced remote_refused rcpt"},
			script: rule(smtptest.AtRcpt, func(r *smtptest.Rule) { r.Reply, r.Drop = "554 5.7.1 no", smtptest.DropFIN })},
		{name: "all-refused-but-354", rcpt: 3, want: []string{"bounced remote_refused rcpt"},
			script: smtptest.Script{Without: []string{"CHUNKING"}, Rules: []smtptest.Rule{
				{At: smtptest.AtRcpt, Reply: "550 5.1.1 nobody"}, {At: smtptest.AtData, Reply: "354 go ahead"}}}},
		{name: "mixed", rcpt: 3, want: []string{delivers, "deferred remote_deferred rcpt", "bounced remote_refused rcpt"},
			accepted: 1,
			script: smtptest.Script{Rules: []smtptest.Rule{
				{At: smtptest.AtRcpt, Match: "u2@*", Reply: "451 4.3.0 later"}, {At: smtptest.AtRcpt, Match: "u3@*",
					Reply: "550 5.1.1 nobody"}}}},
		{name: "mixed-then-final-451", rcpt: 2, want: []string{"deferred remote_deferred final",
			"bounced remote_refused rcpt"},
			script: smtptest.Script{Rules: []smtptest.Rule{
				{At: smtptest.AtRcpt, Match: "u2@*", Reply: "550 5.1.1 nobody"}, {At: smtptest.AtFinal,
					Reply: "451 4.3.0 later"}}}},
	})
}

// TestK4TooMany: recipients over the remote's limit go on at once, until all have gone.
func TestK4TooMany(t *testing.T) {
	t.Parallel()
	var to []string
	for i := range 100 {
		to = append(to, fmt.Sprintf("u%d@example.test", i))
	}
	for _, c := range []struct {
		name         string
		script       smtptest.Script
		transactions int64
		connections  int64
	}{
		{"452", smtptest.Script{Recipients: 10}, 10, 1},
		{"552", smtptest.Script{Rules: []smtptest.Rule{{At: smtptest.AtRcpt, From: 11, Reply: "552 5.5.3 too many"}}}, 10, 1},
		{"452-plain", smtptest.Script{Rules: []smtptest.Rule{{At: smtptest.AtRcpt, From: 31, Reply: "452 full"}}}, 4, 1},
		{"limits", smtptest.Script{Recipients: 25, Announce: true}, 4, 1},
		{"limits-mail", smtptest.Script{Recipients: 25, SessionMessages: 2, Announce: true}, 4, 2},
		{"421-after-two", smtptest.Script{Recipients: 25, SessionMessages: 2}, 4, 2},
		{"no-pipelining", smtptest.Script{Recipients: 40, Without: []string{"PIPELINING"}}, 3, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w, sinks := newWorld(t, oneZone, nil, oneMX(c.script)...)
			expect(t, w.deliver(to...), repeat(delivers, len(to))...)
			got := sinks[0].Counters()
			if got.Deliveries != 100 || got.Messages != c.transactions || got.Connections != c.connections {
				t.Errorf("got %+v", got)
			}
			seen := make(map[string]bool)
			for _, m := range sinks[0].Messages() {
				for _, r := range m.Recipients {
					if seen[r] {
						t.Errorf("%s got it twice", r)
					}
					seen[r] = true
				}
			}
		})
	}
	t.Run("first-refused", func(t *testing.T) { // nobody was taken: that is a refusal, not a limit
		t.Parallel()
		w, _ := newWorld(t, oneZone, nil, oneMX(rule(smtptest.AtRcpt,
			func(r *smtptest.Rule) { r.Reply = "452 4.5.3 too many" }))...)
		v := w.deliver("a@example.test", "b@example.test")
		expect(t, v, "deferred too_many_recipients rcpt", "deferred too_many_recipients rcpt")
	})
}
