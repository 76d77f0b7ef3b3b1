package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godwit-mta/godwit/event"
)

// paper is evidence before it is written to files, in a form that can be doctored.
type paper struct {
	submissions []submission
	receptions  []reception
	kills       []kill
	events      []event.Event
}

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func at(ms int) time.Time { return noon.Add(time.Duration(ms) * time.Millisecond) }

// submit adds a submission with its outcome.
func (p *paper) submit(token string, o outcome, ms int, to ...string) *submission {
	begin := submission{Token: token, Time: at(ms - 5), To: to, Hash: "hash of " + token, Mode: "finish, DATA"}
	end := submission{Token: token, Outcome: o, Time: at(ms)}
	if o == accepted {
		end.Code, end.Message = 250, "ID-"+token
	}
	p.submissions = append(p.submissions, begin, end)
	return &p.submissions[len(p.submissions)-2]
}

// accept adds the event of acceptance.
func (p *paper) accept(token string, ms, recipients int) {
	e := p.event(event.Accepted, token, ms)
	e.Recipients, e.Sender, e.Reason = recipients, sender, event.Submitted
}

func (p *paper) event(t event.Type, token string, ms int) *event.Event {
	p.events = append(p.events, event.Event{
		ID: fmt.Sprintf("%016d-0", len(p.events)), Time: at(ms), Type: t,
		Message: "ID-" + token, MessageID: "<" + token + ">",
	})
	return &p.events[len(p.events)-1]
}

// entry adds an event about one recipient.
func (p *paper) entry(t event.Type, token string, ms, index int, to string) *event.Event {
	e := p.event(t, token, ms)
	e.Entry, e.Recipient = fmt.Sprintf("ID-%s.%d", token, index), to
	return e
}

// receive adds what a sink took with a whole 250.
func (p *paper) receive(token, to string, ms int) *reception {
	p.receptions = append(p.receptions, reception{
		Token: token, To: to, Accepted: true, Replied: true, Hash: "hash of " + token, Traced: true,
		Arrived: at(ms - 1), Time: at(ms),
	})
	return &p.receptions[len(p.receptions)-1]
}

// report adds a report about one failed recipient, from its acceptance to its arrival.
func (p *paper) report(token, about, failed string, ms int) {
	e := p.event(event.Accepted, token, ms)
	e.Recipients, e.Sender, e.Reason = 1, "<>", event.ReportGenerated
	p.entry(event.Delivered, token, ms+20, 0, sender)
	r := p.receive(token, sender, ms+15)
	r.Traced, r.About, r.Failed = false, about, []string{failed}
}

// interrupted adds what the server notes at its start about an attempt that was under way.
func (p *paper) interrupted(token string, ms, index int, to string) {
	e := p.entry(event.Deferred, token, ms, index, to)
	e.Reason, e.NextAttempt = event.Interrupted, at(ms+1000)
}

// healthy returns evidence with one of everything that is allowed. The server is killed at 2,000 ms.
func healthy() *paper {
	p := &paper{kills: []kill{
		{Started: at(0), Ready: at(200), Began: at(2000), Gone: at(2010)},
		{Started: at(2020), Began: at(2050), Gone: at(2060)},
		{Started: at(2100), Ready: at(2300)},
	}}
	p.submit("plain", accepted, 500, "a@quick.example", "b@slow.example")
	p.accept("plain", 499, 2)
	p.receive("plain", "a@quick.example", 510)
	p.entry(event.Delivered, "plain", 512, 0, "a@quick.example")
	p.receive("plain", "b@slow.example", 590)
	p.entry(event.Delivered, "plain", 592, 1, "b@slow.example")

	p.submit("flying", accepted, 1900, "a@slow.example")
	p.accept("flying", 1899, 1)
	p.receive("flying", "a@slow.example", 1990)
	p.interrupted("flying", 2200, 0, "a@slow.example")
	p.receive("flying", "a@slow.example", 3300)
	p.entry(event.Delivered, "flying", 3301, 0, "a@slow.example")

	// In flight at the kill, and answered so late that the server had started, noted it, and been killed again.
	p.submit("late", accepted, 1900, "a@slow.example")
	p.accept("late", 1899, 1)
	r := p.receive("late", "a@slow.example", 2070)
	r.Arrived = at(1995)
	p.interrupted("late", 2045, 0, "a@slow.example")
	p.interrupted("late", 2200, 0, "a@slow.example")
	p.receive("late", "a@slow.example", 3350)
	p.entry(event.Delivered, "late", 3351, 0, "a@slow.example")

	p.submit("cut", accepted, 600, "a@moody.example")
	p.accept("cut", 599, 1)
	p.receive("cut", "a@moody.example", 610).Replied = false
	p.entry(event.Deferred, "cut", 611, 0, "a@moody.example").NextAttempt = at(1611)
	p.receive("cut", "a@moody.example", 1620)
	p.entry(event.Delivered, "cut", 1621, 0, "a@moody.example")

	p.submit("failed", accepted, 700, "nobody0@users.example")
	p.accept("failed", 699, 1)
	p.entry(event.Bounced, "failed", 705, 0, "nobody0@users.example")
	p.report("report", "failed", "nobody0@users.example", 720)

	p.submit("silent", accepted, 800, "nobody0@users.example").Silent = true
	p.accept("silent", 799, 1)
	p.entry(event.Bounced, "silent", 805, 0, "nobody0@users.example")

	p.submit("taken", unknown, 2000, "a@quick.example")
	p.accept("taken", 1999, 1)
	p.interrupted("taken", 2200, 0, "a@quick.example")
	p.receive("taken", "a@quick.example", 3250)
	p.entry(event.Delivered, "taken", 3251, 0, "a@quick.example")

	p.submit("gone", unknown, 2000, "a@quick.example")
	p.submit("huge", refused, 900, "a@quick.example").Doomed = true
	p.submit("refused", refused, 900, "a@quick.example")
	p.submit("aborted", aborted, 900, "a@quick.example")
	return p
}

// judge writes the evidence to files and has it judged as at the end of a campaign.
func (p *paper) judge(t *testing.T) *Verdict {
	t.Helper()
	dir := t.TempDir()
	for name, lines := range map[string][]any{
		submitLedger: boxed(p.submissions), sinkLedger: boxed(p.receptions), killLedger: boxed(p.kills),
	} {
		l, err := newLedger(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		l.add(lines...)
		if err := l.close(); err != nil {
			t.Fatal(err)
		}
	}
	var log []byte
	for i := range p.events {
		log = append(p.events[i].AppendJSON(log), '\n')
	}
	if err := os.MkdirAll(eventsDir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(eventsDir(dir), "current.jsonl"), log, 0o600); err != nil {
		t.Fatal(err)
	}
	e, err := readEvidence(dir, eventsDir(dir))
	if err != nil {
		t.Fatal(err)
	}
	return judge(e)
}

func boxed[T any](list []T) []any {
	out := make([]any, len(list))
	for i := range list {
		out[i] = list[i]
	}
	return out
}

func TestHealthyEvidencePasses(t *testing.T) {
	t.Parallel()
	v := healthy().judge(t)
	if !v.OK() {
		t.Errorf("breaches: %v", v.Cases)
	}
	got := []int{v.Cycles, v.Early, v.Submitted, v.Acknowledged, v.Refused, v.Aborted, v.Unanswered, v.Accepted,
		v.Delivered, v.Bounced, v.Reports, v.Lost, v.Duplicates, v.DuplicatesByKill, v.DuplicatesByReply, v.InFlight}
	if want := []int{1, 1, 11, 6, 2, 1, 2, 8, 6, 2, 1, 0, 3, 2, 1, 4}; !slices.Equal(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
	if v.OldestRepeat != 10*time.Millisecond {
		t.Errorf("oldest repeat %s, want 10ms", v.OldestRepeat)
	}
}

// The doctors below do what a server that breaks its promise would do. The judge must see through each.

func (p *paper) dropEvents(match func(*event.Event) bool) {
	p.events = slices.DeleteFunc(p.events, func(e event.Event) bool { return match(&e) })
}

func (p *paper) dropReceptions(token string) {
	p.receptions = slices.DeleteFunc(p.receptions, func(r reception) bool { return r.Token == token })
}

func (p *paper) dropMessage(token string) {
	p.dropEvents(func(e *event.Event) bool { return e.Message == "ID-"+token })
}

func (p *paper) dropInterrupted() {
	p.dropEvents(func(e *event.Event) bool { return e.Reason == event.Interrupted })
}

// end returns the line with a submission's outcome.
func (p *paper) end(token string) *submission {
	i := slices.IndexFunc(p.submissions, func(s submission) bool { return s.Token == token && s.Outcome != begun })
	return &p.submissions[i]
}

func (p *paper) final(token string) *event.Event {
	i := slices.IndexFunc(p.events, func(e event.Event) bool { return e.Message == "ID-"+token && e.Type.Final() })
	return &p.events[i]
}

func (p *paper) received(token string) *reception {
	i := slices.IndexFunc(p.receptions, func(r reception) bool { return r.Token == token })
	return &p.receptions[i]
}

func TestDoctoredEvidenceFails(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		want   Invariant
		doctor func(p *paper)
	}{
		{"lost though the log says delivered", I1, func(p *paper) { p.dropReceptions("plain") }},
		{"lost without a trace", I1, func(p *paper) { p.dropReceptions("plain"); p.dropMessage("plain") }},
		{"forgotten by the log, though it arrived", I1, func(p *paper) { p.dropMessage("plain") }},
		{"only the cut reply is left", I1, func(p *paper) {
			p.receptions = slices.DeleteFunc(p.receptions, func(r reception) bool { return r.Token == "cut" && r.Replied })
		}},
		{"bounced though the recipient exists", I1, func(p *paper) {
			p.dropReceptions("taken")
			p.final("taken").Type = event.Bounced
		}},
		{"one recipient of two lost", I1, func(p *paper) {
			p.receptions = slices.DeleteFunc(p.receptions, func(r reception) bool { return r.To == "b@slow.example" })
		}},
		{"failed and nobody was told", I1, func(p *paper) { p.dropReceptions("report"); p.dropMessage("report") }},
		{"a report made and lost", I1, func(p *paper) {
			p.event(event.Accepted, "second", 3000).Reason = event.ReportGenerated
			p.entry(event.Delivered, "second", 3001, 0, sender)
		}},

		{"content changed", I2, func(p *paper) { p.received("plain").Hash = "another" }},
		{"trace header missing", I2, func(p *paper) { p.received("plain").Traced = false }},
		{"content changed in a repeat", I2, func(p *paper) { p.receive("flying", "a@slow.example", 3400).Hash = "another" }},

		{"refused and delivered", I3, func(p *paper) { p.receive("refused", "a@quick.example", 950) }},
		{"refused and in the log", I3, func(p *paper) { p.accept("refused", 900, 1) }},
		{"broken off and delivered", I3, func(p *paper) { p.receive("aborted", "a@quick.example", 950) }},
		{"broken off and in the log", I3, func(p *paper) { p.accept("aborted", 900, 1) }},
		{"too large and accepted", I3, func(p *paper) { p.end("huge").Outcome = accepted }},
		{"no reply, not accepted, delivered", I3, func(p *paper) { p.receive("gone", "a@quick.example", 3000) }},
		{"no reply, accepted twice", I3, func(p *paper) {
			e := p.event(event.Accepted, "taken", 1999)
			e.Message, e.Recipients = "ID-other", 1
		}},
		{"delivered to somebody else", I3, func(p *paper) { p.receive("plain", "c@quick.example", 520) }},
		{"taken for a recipient that does not exist", I3, func(p *paper) {
			p.receive("failed", "nobody0@users.example", 710)
		}},
		{"delivered and submitted by nobody", I3, func(p *paper) { p.receive("ghost", "a@quick.example", 520) }},
		{"accepted and submitted by nobody", I3, func(p *paper) { p.accept("ghost", 520, 1) }},
		{"a report that was not to be", I3, func(p *paper) { p.report("unwanted", "silent", "nobody0@users.example", 900) }},
		{"a report about a delivery", I3, func(p *paper) { p.report("wrong", "plain", "a@quick.example", 900) }},
		{"a report about nothing", I3, func(p *paper) { p.report("wrong", "ghost", "a@quick.example", 900) }},

		{"delivered again without a kill", I4, func(p *paper) { p.receive("plain", "a@quick.example", 1200) }},
		{"delivered again, long settled before the kill", I4, func(p *paper) {
			p.received("plain").Time, p.received("plain").Arrived = at(-4000), at(-4000)
			p.interrupted("plain", 2200, 0, "a@quick.example")
			p.receive("plain", "a@quick.example", 3300)
		}},
		{"delivered again, in flight at no kill but a later one", I4, func(p *paper) {
			p.kills[2].Began, p.kills[2].Gone = at(12_000), at(12_010)
			p.interrupted("taken", 12_100, 0, "a@quick.example")
			p.receive("taken", "a@quick.example", 13_000)
		}},
		{"delivered again, and was not in flight", I4, func(p *paper) { p.dropInterrupted() }},
		{"delivered a third time", I4, func(p *paper) { p.receive("flying", "a@slow.example", 4500) }},
		{"a report delivered again", I4, func(p *paper) { p.receive("report", sender, 1900) }},

		{"no final event", I5, func(p *paper) {
			p.dropEvents(func(e *event.Event) bool { return e.Message == "ID-plain" && e.Type.Final() })
		}},
		{"two final events", I5, func(p *paper) { p.entry(event.Delivered, "plain", 600, 0, "a@quick.example") }},
		{"the wrong final event", I5, func(p *paper) { p.final("plain").Type = event.Expired }},
		{"final for a recipient that was refused at RCPT", I5, func(p *paper) {
			p.end("plain").Dropped = []string{"a@quick.example"}
		}},
		{"told again with other words", I5, func(p *paper) {
			again := p.events[0]
			again.Size = 7
			p.events = append(p.events, again)
		}},
		{"another id than in the 250", I5, func(p *paper) { p.end("plain").Message = "ID-other" }},
		{"one message accepted by two events", I5, func(p *paper) { p.accept("plain", 499, 2) }},
		{"an entry of a message that was never accepted", I5, func(p *paper) {
			p.entry(event.Delivered, "ghost", 600, 0, "a@quick.example")
		}},
		{"two entries for one recipient", I5, func(p *paper) {
			p.entry(event.Released, "flying", 2500, 1, "a@slow.example")
		}},
		{"two reports about one failure", I5, func(p *paper) { p.report("again", "failed", "nobody0@users.example", 900) }},
		{"a report without an end", I5, func(p *paper) {
			p.dropEvents(func(e *event.Event) bool { return e.Message == "ID-report" && e.Type.Final() })
		}},

		{"a slow start", I6, func(p *paper) { p.kills[2].Ready = at(13_000) }},
		{"a late first attempt", I7, func(p *paper) { p.final("failed").Time = at(65_000) }},
		{"a late retry", I7, func(p *paper) { p.final("cut").Time = at(65_000) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := healthy()
			c.doctor(p)
			v := p.judge(t)
			if v.Breaches[c.want] == 0 {
				t.Errorf("not noticed; found instead: %v", v.Cases)
			}
			if c.want == I1 && v.Lost == 0 && !strings.HasPrefix(c.name, "forgotten") {
				t.Error("nothing counted as lost")
			}
			var table strings.Builder
			if err := v.Print(&table); err != nil {
				t.Fatal(err)
			}
			if want := fmt.Sprintf("%s: BROKEN", c.want); !strings.Contains(table.String(), want) {
				t.Errorf("the table does not say %q:\n%s", want, &table)
			}
		})
	}
}

// An event told again after a crash is no fault if it is the same.
func TestSameEventAgain(t *testing.T) {
	t.Parallel()
	p := healthy()
	p.events = append(p.events, p.events[:3]...)
	if v := p.judge(t); !v.OK() || v.Repeated != 3 {
		t.Errorf("%d repeated, breaches: %v", v.Repeated, v.Cases)
	}
}

// Evidence with a gap proves nothing.
func TestTornEvidenceIsAnError(t *testing.T) {
	t.Parallel()
	for _, name := range []string{submitLedger, sinkLedger, killLedger, "data/events/current.jsonl"} {
		dir := t.TempDir()
		if err := os.MkdirAll(eventsDir(dir), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(`{"token":"a","ti`), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readEvidence(dir, eventsDir(dir)); err == nil {
			t.Errorf("%s is torn and was read", name)
		}
	}
}

func TestEveryInvariantHasWords(t *testing.T) {
	t.Parallel()
	for i := I1; i < invariants; i++ {
		text := i.String()
		if len(text) < 10 || i <= I7 && !strings.HasPrefix(text, fmt.Sprintf("I%d, ", i)) {
			t.Errorf("%d is %q", i, text)
		}
	}
}
