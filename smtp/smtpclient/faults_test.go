package smtpclient_test

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/godwit-mta/godwit/smtp/smtpclient"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// TestK1Drop: the peer drops the connection, by FIN and RST, at every point of a session, the first transaction and a
// later one, and whatever way the mail goes.
func TestK1Drop(t *testing.T) {
	t.Parallel()
	type rule = smtptest.Rule
	at := func(p smtptest.Point, after bool) rule { return rule{At: p, After: after} }
	cut := func(p smtptest.Point) rule { return rule{At: p, Cut: 2} }
	body := func(percent int) rule { return rule{At: smtptest.AtBody, Percent: percent} }
	rcpt := func(n int) rule { return rule{At: smtptest.AtRcpt, From: n} }
	const unsent, either = "unsent", "unsent or unknown"
	for _, tc := range []struct {
		name   string
		rule   rule
		status string // of both recipients
		phase  string // if it must be this one
	}{
		{"mail", at(smtptest.AtMail, false), "unsent or unknown", ""},
		{"after mail", at(smtptest.AtMail, true), either, ""},
		{"mid mail", cut(smtptest.AtMail), either, ""},
		{"first rcpt", rcpt(1), either, ""},
		{"second rcpt", rcpt(2), either, ""},
		{"data", at(smtptest.AtData, false), either, ""},
		{"after data", at(smtptest.AtData, true), either, ""},
		{"body 0", body(0), either, ""},
		{"body 50", body(50), either, ""},
		{"body 99", body(99), either, ""},
		{"final", at(smtptest.AtFinal, false), "unknown", "final"},
		{"mid final", cut(smtptest.AtFinal), "unknown", "final"},
		{"after final", at(smtptest.AtFinal, true), "delivered", "final"},
		{"quit", at(smtptest.AtQuit, false), "delivered", "final"},
	} {
		for _, way := range ways {
			for _, drop := range []smtptest.Drop{smtptest.DropFIN, smtptest.DropRST} {
				for before := range 2 {
					name := fmt.Sprintf("%s/%s/%s/after %d", tc.name, way.name, drop, before)
					t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
						t.Parallel()
						r := tc.rule
						r.Drop = drop
						p := loopback(t, smtptest.Script{})
						c := p.open(t, way.o)
						var all []*smtpclient.Transaction
						for i := range before {
							tx := message(fmt.Sprintf("good%d-", i), 2, letter)
							if err := c.Send(t.Context(), tx); err != nil {
								t.Fatal(err)
							}
							all = append(all, tx)
						}
						if err := p.SetScript(smtptest.Script{Rules: []rule{r}}); err != nil {
							t.Fatal(err)
						}
						tx := message("hit", 2, strings.Repeat(letter, 100))
						err := c.Send(t.Context(), tx)
						for _, res := range tx.Result.Recipients {
							if !strings.Contains(tc.status, res.Status.String()) {
								t.Errorf("status %s, want %s", res.Status, tc.status)
							}
							if tc.phase != "" && res.Phase.String() != tc.phase {
								t.Errorf("phase %s, want %s", res.Phase, tc.phase)
							}
						}
						if tc.status == "delivered" {
							if err != nil {
								t.Errorf("delivered, and error %v", err)
							}
							if tc.name == "quit" {
								_ = c.Quit(t.Context()) // may say that the peer left without a word
							}
							eventually(t, "the kept session is seen to be closed", func() bool { return !c.Alive() })
						} else {
							var e *smtpclient.Error
							if !errors.As(err, &e) || !e.Temporary() || !e.Reply.IsZero() {
								t.Errorf("error %v", err)
							}
							if c.Reusable() {
								t.Error("reusable")
							}
						}
						p.judge(t, append(all, tx)...)
						if drop == smtptest.DropFIN && p.Counters().Dropped != 1 {
							t.Errorf("the rule did not act: %+v", p.Counters())
						}
					})
				}
			}
		}
	}
}

// TestK1DropAtStart: before and after the banner, at EHLO.
func TestK1DropAtStart(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		rule  smtptest.Rule
		phase string
	}{
		{smtptest.Rule{At: smtptest.AtBanner}, "greeting"},
		{smtptest.Rule{At: smtptest.AtBanner, Cut: 2}, "greeting"},
		{smtptest.Rule{At: smtptest.AtBanner, After: true}, "hello"},
		{smtptest.Rule{At: smtptest.AtEhlo}, "hello"},
		{smtptest.Rule{At: smtptest.AtEhlo, Cut: 10}, "hello"},
	} {
		for _, drop := range []smtptest.Drop{smtptest.DropFIN, smtptest.DropRST} {
			t.Run(fmt.Sprintf("%s-%d-%v-%s", tc.rule.At, tc.rule.Cut, tc.rule.After, drop), func(t *testing.T) {
				t.Parallel()
				r := tc.rule
				r.Drop, r.Delay = drop, smtptest.Duration(10*time.Millisecond) // else the reset meets the dialling
				p := loopback(t, smtptest.Script{Rules: []smtptest.Rule{r}})
				_, err := p.try(smtpclient.Options{})
				var e *smtpclient.Error
				for tries := 0; errors.Is(err, syscall.ECONNRESET) && !errors.As(err, &e) && tries < 20; tries++ {
					_, err = p.try(smtpclient.Options{}) // the reset was quicker than the dialling, on a busy machine
				}
				if !errors.As(err, &e) {
					t.Fatalf("error %v", err)
				}
				if !e.Temporary() || e.Protocol || !e.Reply.IsZero() {
					t.Errorf("%#v", e)
				}
				// A reset may overtake the octets before it.
				if e.Phase.String() != tc.phase && !(drop == smtptest.DropRST && e.Phase == smtpclient.PhaseGreeting) {
					t.Errorf("phase %s, want %s", e.Phase, tc.phase)
				}
			})
		}
	}
}

// TestK3Replies: replies that are odd, wrong, or nonsense, at every point.
func TestK3Replies(t *testing.T) {
	t.Parallel()
	longLine := "250 " + strings.Repeat("x", 1<<20) + "\r\n"
	manyLines := strings.Repeat("250-2.0.0 all work and no play makes a dull peer\r\n", 999) + "250 2.0.0 ok\r\n"
	const fine, temporary, permanent, nonsense = "fine", "temporary", "permanent", "nonsense"
	replies := []struct{ name, raw, outcome string }{
		{"no text", "250\r\n", fine},
		{"no text with space", "250 \r\n", fine},
		{"LF only", "250 2.0.0 ok\n", fine},
		{"LF in lines", "250-a\n250-b\r\n250 c\n", fine},
		{"1000 lines", manyLines, fine},
		{"other 2yz", "251 will forward\r\n", fine},
		{"differing codes of a class", "250-a\r\n251 b\r\n", fine},
		{"8-bit", "250 h\xc3\xa9 \xff\xfe\r\n", fine},
		{"NUL", "250 a\x00b\r\n", fine},
		{"CR", "250 a\rb\r\n", fine},
		{"long line", "250 " + strings.Repeat("y", 100_000) + "\r\n", fine},
		{"421", "421 4.3.2 going down\r\n", temporary},
		{"4xx", "451 4.7.1 later\r\n", temporary},
		{"4xx alone", "450\r\n", temporary},
		{"5xx", "550 5.7.1 no\r\n", permanent},
		{"class of the first digit", "550 2.1.5 ok\r\n", permanent},
		{"class of the first digit too", "450 5.1.1 no such user\r\n", temporary},
		{"2200", "2200 ok\r\n", nonsense},
		{"25x", "25x ok\r\n", nonsense},
		{"words", "OK\r\n", nonsense},
		{"nothing", "\r\n", nonsense},
		{"1yz", "150 wait\r\n", nonsense},
		{"6yz", "650 more\r\n", nonsense},
		{"class differs", "250-a\r\n550 b\r\n", nonsense},
		{"1 MB line", longLine, nonsense},
		{"endless", strings.Repeat("250-more and more\r\n", 40_000), nonsense},
		{"HTTP", "HTTP/1.1 400 Bad Request\r\n\r\n", nonsense},
	}
	for _, at := range []smtptest.Point{smtptest.AtBanner, smtptest.AtEhlo, smtptest.AtMail, smtptest.AtRcpt, smtptest.AtData, smtptest.AtFinal} {
		for _, reply := range replies {
			for _, way := range ways {
				if at == smtptest.AtData && way.name != "data" && way.name != "alone" {
					continue
				}
				raw, outcome := reply.raw, reply.outcome
				switch at {
				case smtptest.AtBanner:
					raw = strings.ReplaceAll(raw, "250", "220")
				case smtptest.AtData:
					raw = strings.ReplaceAll(raw, "250", "354")
					if reply.name == "other 2yz" || reply.name == "differing codes of a class" {
						outcome = nonsense
					}
				case smtptest.AtEhlo: // 5yz means HELO, which is fine
					if outcome == permanent {
						outcome = fine
					}
				}
				t.Run(fmt.Sprintf("%s/%s/%s", at, reply.name, way.name), func(t *testing.T) {
					t.Parallel()
					p := piped(t, smtptest.Script{Rules: []smtptest.Rule{{At: at, Raw: raw, Times: 1}}})
					c, err := p.try(way.o)
					if at == smtptest.AtBanner || at == smtptest.AtEhlo {
						checkStart(t, err, outcome)
						if err != nil {
							return
						}
						defer c.Close()
					} else if err != nil {
						t.Fatal(err)
					} else {
						defer c.Close()
					}
					tx := message("x", 1, strings.ReplaceAll(letter, "hello", "hej"))
					err = c.Send(t.Context(), tx)
					if at == smtptest.AtBanner || at == smtptest.AtEhlo {
						outcome = fine
					}
					checkSend(t, tx, err, outcome, at == smtptest.AtFinal)
					if at != smtptest.AtFinal || outcome != nonsense { // there even the sink cannot tell
						p.judge(t, tx)
					}
				})
			}
		}
	}
}

func checkStart(t *testing.T, err error, outcome string) {
	t.Helper()
	var e *smtpclient.Error
	if outcome != "fine" && !errors.As(err, &e) {
		t.Fatalf("error %v, want %s", err, outcome)
	}
	switch outcome {
	case "fine":
		if err != nil {
			t.Fatal(err)
		}
	case "temporary":
		if !e.Reply.Temporary() || !e.Temporary() || e.Protocol {
			t.Errorf("%#v", e)
		}
	case "permanent":
		if !e.Reply.Permanent() || e.Temporary() || e.Protocol {
			t.Errorf("%#v", e)
		}
	case "nonsense":
		if !e.Reply.IsZero() || !e.Temporary() || !e.Protocol {
			t.Errorf("%#v", e)
		}
	}
}

func checkSend(t *testing.T, tx *smtpclient.Transaction, err error, outcome string, final bool) {
	t.Helper()
	r := tx.Result.Recipients[0]
	switch outcome {
	case "fine":
		if err != nil || r.Status != smtpclient.Delivered {
			t.Errorf("%s, error %v", statuses(tx), err)
		}
	case "temporary":
		if r.Status != smtpclient.Refused || !r.Reply.Temporary() || r.Reply.Enhanced.Class == 5 {
			t.Errorf("%s, error %v", statuses(tx), err)
		}
		if (r.Reply.Code == 421) != (err != nil) {
			t.Errorf("reply %s, error %v", r.Reply, err)
		}
	case "permanent":
		if r.Status != smtpclient.Refused || !r.Reply.Permanent() || r.Reply.Enhanced.Class == 2 || err != nil {
			t.Errorf("%s, error %v", statuses(tx), err)
		}
	case "nonsense":
		want := smtpclient.Unsent
		if final {
			want = smtpclient.Unknown
		}
		var e *smtpclient.Error
		if r.Status != want || !errors.As(err, &e) || !e.Protocol || !e.Temporary() {
			t.Errorf("%s, error %v", statuses(tx), err)
		}
	}
	if len(r.Reply.Text) > 4<<10 || strings.ContainsAny(r.Reply.Text, "\x00\r") {
		t.Errorf("text kept: %.100q", r.Reply.Text)
	}
}

// TestK3OutOfStep: a reply before its command, or one too many.
func TestK3OutOfStep(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		rule   smtptest.Rule
		start  bool   // Start fails
		status string // else this is the outcome
	}{
		{"early talker", smtptest.Rule{At: smtptest.AtBanner, Raw: "220 hi\r\n250-hi\r\n250 PIPELINING\r\n"}, true, ""},
		{"two replies to EHLO", smtptest.Rule{At: smtptest.AtEhlo, Raw: "250 a\r\n250 b\r\n"}, false, "unsent mail"},
		{"farewell after EHLO", smtptest.Rule{At: smtptest.AtEhlo, Raw: "250 a\r\n421 bye\r\n"}, false, "unsent mail"},
		{"two replies to MAIL", smtptest.Rule{At: smtptest.AtMail, Raw: "250 a\r\n250 b\r\n"}, false, "unsent data"},
		{"two replies to RCPT", smtptest.Rule{At: smtptest.AtRcpt, Raw: "250 a\r\n550 b\r\n"}, false, "refused 550 data"},
		{"two replies to DATA", smtptest.Rule{At: smtptest.AtData, Raw: "354 a\r\n354 b\r\n"}, false, "unsent body"},
		{"farewell after 354", smtptest.Rule{At: smtptest.AtData, Raw: "354 a\r\n421 b\r\n"}, false, "unsent body"},
		{"two final replies", smtptest.Rule{At: smtptest.AtFinal, Raw: "250 a\r\n250 b\r\n"}, false, "delivered 250 final"},
		{"farewell after the end", smtptest.Rule{At: smtptest.AtFinal, Raw: "250 a\r\n421 bye\r\n"}, false, "delivered 250 final"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p := piped(t, smtptest.Script{Rules: []smtptest.Rule{tc.rule}})
			c, err := p.try(smtpclient.Options{NoChunking: true})
			if tc.start {
				var e *smtpclient.Error
				if !errors.As(err, &e) || !e.Protocol || !errors.Is(err, smtpclient.ErrUnsolicited) {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			tx := message("x", 1, letter)
			_ = c.Send(t.Context(), tx) // statuses tell
			if got := statuses(tx); got != tc.status {
				t.Errorf("got %s, want %s", got, tc.status)
			}
			if c.Reusable() && tc.status != "refused 550 data" {
				t.Error("reusable")
			}
			p.judge(t, tx)
		})
	}
}

// TestK3EagerOutOfStep: one reply too many in a group that ends with the body. The last reply read may belong to
// another command, so a refusal must not be taken for an acceptance.
func TestK3EagerOutOfStep(t *testing.T) {
	t.Parallel()
	p := piped(t, smtptest.Script{})
	c := p.open(t, smtpclient.Options{})
	if err := c.Send(t.Context(), message("first", 1, letter)); err != nil {
		t.Fatal(err)
	}
	err := p.SetScript(smtptest.Script{Rules: []smtptest.Rule{
		{At: smtptest.AtRcpt, Raw: "250 a\r\n250 b\r\n"}, {At: smtptest.AtFinal, Reply: "550 spam"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	tx := message("x", 1, letter)
	err = c.Send(t.Context(), tx)
	if got := statuses(tx); got != "unknown final" || !errors.Is(err, smtpclient.ErrUnsolicited) {
		t.Errorf("got %s, error %v", got, err)
	}
}

// TestK4: refusals within a group.
func TestK4(t *testing.T) {
	t.Parallel()
	type rules = []smtptest.Rule
	const rcpts = 100
	all := func(what string) string { return fmt.Sprintf("%d * %s", rcpts, what) }
	var mixed []string
	for i := range rcpts {
		switch n := i + 1; {
		case n%10 == 3:
			mixed = append(mixed, "refused 550 rcpt")
		case n%10 == 7:
			mixed = append(mixed, "refused 450 rcpt")
		default:
			mixed = append(mixed, "delivered 250 final")
		}
	}
	data := []string{"CHUNKING"}
	for _, tc := range []struct {
		name     string
		script   smtptest.Script
		want     string
		reusable bool
	}{
		{"550 to MAIL then close", smtptest.Script{Rules: rules{{At: "mail", Reply: "550 5.7.1 no", Drop: "fin"}}}, all("refused 550 mail"), false},
		{"550 to MAIL", smtptest.Script{Rules: rules{{At: "mail", Reply: "550 5.7.1 no"}}}, all("refused 550 mail"), true},
		{"450 to MAIL then close", smtptest.Script{Rules: rules{{At: "mail", Reply: "450 4.7.1 no", Drop: "fin"}}}, all("refused 450 mail"), false},
		{"421 to MAIL", smtptest.Script{Rules: rules{{At: "mail", Reply: "421 4.7.1 no", Drop: "fin"}}}, all("refused 421 mail"), false},
		{"554 to first RCPT then close", smtptest.Script{Rules: rules{{At: "rcpt", Reply: "554 5.7.1 no", Drop: "fin"}}}, "refused 554 rcpt, 99 * unsent rcpt", false},
		{"421 to tenth RCPT", smtptest.Script{Rules: rules{{At: "rcpt", From: 10, Reply: "421 4.7.1 no", Drop: "fin"}}},
			"9 * unsent rcpt, refused 421 rcpt, 90 * unsent rcpt", false},
		{"all RCPT refused", smtptest.Script{Rules: rules{{At: "rcpt", Reply: "550 5.1.1 unknown"}}}, all("refused 550 rcpt"), true},
		{"all RCPT refused but 354", smtptest.Script{Rules: rules{{At: "rcpt", Reply: "550 5.1.1 unknown"}, {At: "data", Reply: "354 go"}}}, all("refused 550 rcpt"), true},
		{"5xx, 4xx and 2xx", smtptest.Script{Rules: rules{{At: "rcpt", Match: "x*3@*", Reply: "550 5.1.1 unknown"}, {At: "rcpt", Match: "x*7@*", Reply: "450 4.2.1 later"}}}, runs(mixed), true},
		{"DATA refused for good", smtptest.Script{Without: data, Rules: rules{{At: "data", Reply: "554 5.6.0 no"}}}, all("refused 554 data"), true},
		{"DATA refused for now", smtptest.Script{Without: data, Rules: rules{{At: "data", Reply: "451 4.6.0 no"}}}, all("refused 451 data"), true},
		{"DATA 421", smtptest.Script{Without: data, Rules: rules{{At: "data", Reply: "421 4.6.0 no", Drop: "fin"}}}, all("refused 421 data"), false},
		{"final 554", smtptest.Script{Rules: rules{{At: "final", Reply: "554 5.7.1 spam"}}}, all("refused 554 final"), true},
		{"final 451", smtptest.Script{Rules: rules{{At: "final", Reply: "451 4.7.1 later"}}}, all("refused 451 final"), true},
		{"final 554 then close", smtptest.Script{Rules: rules{{At: "final", Reply: "554 5.7.1 spam", Drop: "fin"}}}, all("refused 554 final"), false},
		{"452 from the 41st RCPT", smtptest.Script{Recipients: 40}, "40 * delivered 250 final, 60 * too many 452 rcpt", true},
		{"RCPTMAX 40", smtptest.Script{Recipients: 40, Announce: true}, "40 * delivered 250 final, 60 * too many rcpt", true},
	} {
		for _, way := range ways {
			t.Run(tc.name+"/"+way.name, func(t *testing.T) {
				t.Parallel()
				p := loopback(t, smtptest.Script{Recipients: tc.script.Recipients, Announce: tc.script.Announce, Without: tc.script.Without})
				c := p.open(t, way.o)
				first := message("good", 1, letter)
				if err := c.Send(t.Context(), first); err != nil {
					t.Fatal(err)
				}
				if err := p.SetScript(tc.script); err != nil {
					t.Fatal(err)
				}
				tx := message("x", rcpts, letter)
				err := c.Send(t.Context(), tx)
				got, want := statuses(tx), tc.want
				switch {
				case tc.name == "452 from the 41st RCPT" && strings.HasPrefix(way.name, "alone"):
					want = "40 * delivered 250 final, too many 452 rcpt, 59 * too many rcpt" // not even tried
				case tc.name == "554 to first RCPT then close" && way.name == "bdat":
					want = "refused 554 rcpt, 99 * unknown rcpt" // the whole message had left
				case tc.name == "421 to tenth RCPT" && way.name == "bdat":
					want = "9 * unknown rcpt, refused 421 rcpt, 90 * unknown rcpt"
				}
				if got != want {
					t.Errorf("error %v, got\n%s\nwant\n%s", err, got, want)
				}
				if (err == nil) != c.Reusable() {
					t.Errorf("error %v, reusable %v", err, c.Reusable())
				}
				transactions := []*smtpclient.Transaction{first, tx}
				if tc.reusable {
					if err != nil {
						t.Fatal(err)
					}
					// What is over the limit goes on at once.
					if err := p.SetScript(smtptest.Script{Recipients: tc.script.Recipients, Without: tc.script.Without}); err != nil {
						t.Fatal(err)
					}
					rest := message("next", 1, letter)
					for i, r := range tx.Result.Recipients {
						if r.Status == smtpclient.TooMany {
							rest.Recipients = append(rest.Recipients, tx.Recipients[i])
							tx.Result.Recipients[i].Status = smtpclient.Refused // judged below as taken no time by this one
						}
					}
					if err := c.Send(t.Context(), rest); err != nil || rest.Result.Recipients[0].Status != smtpclient.Delivered {
						t.Errorf("next: %s %v", statuses(rest), err)
					}
					if len(rest.Recipients) > 1 {
						p.wait()
						for i, r := range rest.Result.Recipients {
							if name := rest.Recipients[i].String(); (r.Status == smtpclient.Delivered) != (p.ledger.accepted(name) == 1) {
								t.Errorf("%s: %s, taken %d times", name, r.Status, p.ledger.accepted(name))
							}
						}
						return
					}
					transactions = append(transactions, rest)
				}
				p.judge(t, transactions...)
				if n := p.Counters().Messages; n > 3 {
					t.Errorf("%d messages", n)
				}
			})
		}
	}
}

// TestK4LoneDot: a peer that refuses all recipients and yet asks for the data gets nothing to deliver.
func TestK4LoneDot(t *testing.T) {
	t.Parallel()
	p := piped(t, smtptest.Script{Without: []string{"CHUNKING"}, Rules: []smtptest.Rule{
		{At: "rcpt", Reply: "550 5.1.1 unknown", Times: 2}, {At: "data", Reply: "354 go", Times: 1},
	}})
	c := p.open(t, smtpclient.Options{})
	tx := message("x", 2, letter)
	if err := c.Send(t.Context(), tx); err != nil || statuses(tx) != "2 * refused 550 rcpt" {
		t.Errorf("%s %v", statuses(tx), err)
	}
	next := message("next", 1, letter)
	if err := c.Send(t.Context(), next); err != nil || statuses(next) != "delivered 250 final" {
		t.Errorf("%s %v", statuses(next), err)
	}
	p.wait()
	for _, m := range p.ledger.messages {
		if len(m.Recipients) == 0 && m.Size != 0 {
			t.Errorf("%d octets without a recipient", m.Size)
		}
	}
	// A peer that refuses the sender, takes the recipient, and asks for the data gets not even a dot.
	p = piped(t, smtptest.Script{Without: []string{"CHUNKING"}, Rules: []smtptest.Rule{
		{At: "mail", Reply: "550 5.7.1 no"}, {At: "rcpt", Reply: "250 fine"}, {At: "data", Reply: "354 go"},
	}})
	c = p.open(t, smtpclient.Options{})
	tx = message("x", 1, letter)
	if err := c.Send(t.Context(), tx); err == nil || statuses(tx) != "refused 550 mail" {
		t.Errorf("%s %v", statuses(tx), err)
	}
	p.wait()
	if n := len(p.ledger.messages); n != 0 {
		t.Errorf("%d messages", n)
	}
}
