package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/godwit-mta/godwit/event"
)

// powerless returns healthy evidence whose first life ended by a power cut: it began at 2,000 ms, was done at 2,005
// ms, and the process lived until 2,400 ms.
func powerless() *paper {
	p := healthy()
	p.kills[0].Cut, p.kills[0].Gone = at(2005), at(2010)
	return p
}

func TestPowerCutEvidence(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		want   Invariant // 0: all hold
		doctor func(p *paper)
	}{
		{"as after a kill", 0, func(*paper) {}},
		{"acknowledged while the power went, and lost", 0, func(p *paper) {
			p.submit("edge", accepted, 2003, "a@quick.example")
		}},
		{"acknowledged while the power went, lost, and delivered by a machine without power", 0, func(p *paper) {
			p.submit("edge", accepted, 2003, "a@quick.example")
			p.receive("edge", "a@quick.example", 2008)
		}},
		{"acknowledged while the power went, lost, and delivered later", I3, func(p *paper) {
			p.submit("edge", accepted, 2003, "a@quick.example")
			p.receive("edge", "a@quick.example", 4500)
		}},
		{"refused for good, and delivered by a machine without power", I3, func(p *paper) {
			p.submit("edge", refused, 2003, "a@quick.example")
			p.end("edge").Code = 552
			p.receive("edge", "a@quick.example", 2008)
		}},
		{"a report that only a machine without power made", 0, func(p *paper) {
			r := p.receive("vain", sender, 2008)
			r.Traced, r.About, r.Failed = false, "failed", []string{"nobody0@users.example"}
		}},
		{"a second report, long after", I3, func(p *paper) {
			r := p.receive("vain", sender, 4500)
			r.Traced, r.About, r.Failed = false, "failed", []string{"nobody0@users.example"}
		}},
		{"acknowledged before, and lost", I1, func(p *paper) { p.submit("edge", accepted, 1999, "a@quick.example") }},
		{"acknowledged long after, and lost", I1, func(p *paper) {
			p.kills[0].Gone = at(2900)
			p.submit("edge", accepted, 2700, "a@quick.example")
		}},
		{"refused as the disk failed, and kept", I3, func(p *paper) {
			p.submit("edge", refused, 2003, "a@quick.example")
			p.end("edge").Code = 451
			p.accept("edge", 2300, 1)
			p.receive("edge", "a@quick.example", 2400)
			p.entry(event.Delivered, "edge", 2401, 0, "a@quick.example")
		}},
		{"refused for good as the disk failed, and kept", I3, func(p *paper) {
			p.submit("edge", refused, 2003, "a@quick.example")
			p.end("edge").Code = 552
			p.accept("edge", 2300, 1)
		}},
		{"refused long before the disk failed, and delivered", I3, func(p *paper) {
			p.submit("edge", refused, 500, "a@quick.example")
			p.end("edge").Code = 451
			p.receive("edge", "a@quick.example", 2400)
		}},
		{"delivered again, and the power took the claim", 0, func(p *paper) { p.dropInterrupted() }},
		{"delivered again, long settled before the cut", I4, func(p *paper) {
			p.received("plain").Time, p.received("plain").Arrived = at(600), at(600)
			p.receive("plain", "a@quick.example", 3300)
		}},
		{"delivered again before the cut", I4, func(p *paper) {
			p.received("plain").Time, p.received("plain").Arrived = at(1500), at(1500)
			p.receive("plain", "a@quick.example", 1900)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := powerless()
			c.doctor(p)
			v := p.judge(t)
			if c.want == 0 && !v.OK() || c.want != 0 && v.Breaches[c.want] == 0 {
				t.Errorf("want a breach of %q, found: %v", c.want, v.Cases)
			}
		})
	}
}

func TestUsageThatStaysIsABreach(t *testing.T) {
	t.Parallel()
	before := &usage{goroutines: 50, descriptors: 30, heap: 100 << 20}
	for _, c := range []struct {
		name string
		now  usage
		ok   bool
	}{
		{"the same", *before, true},
		{"less", usage{goroutines: 1, descriptors: 1}, true},
		{"within the bounds", usage{goroutines: 55, descriptors: 35, heap: 117 << 20}, true},
		{"goroutines", usage{goroutines: 56, descriptors: 30, heap: 100 << 20}, false},
		{"descriptors", usage{goroutines: 50, descriptors: 36, heap: 100 << 20}, false},
		{"memory", usage{goroutines: 50, descriptors: 30, heap: 120 << 20}, false},
	} {
		v := new(Verdict)
		v.judgeUsage(before, &c.now)
		if v.OK() != c.ok || !v.Checked[G1] {
			t.Errorf("%s: %v", c.name, v.Cases)
		}
	}
}

// The books of a yard are judged like ledgers.
func TestDoctoredYardFails(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		want   Invariant
		doctor func(y *yard, log *paper)
	}{
		{"healthy", 0, func(*yard, *paper) {}},
		{"lost", I1, func(y *yard, _ *paper) { delete(y.arrived, "b") }},
		{"nobody submitted it", I3, func(y *yard, _ *paper) { y.arrived["ghost"] = 1 }},
		{"no answer, and delivered", 0, func(y *yard, _ *paper) { y.unknown["c"], y.arrived["c"] = true, 1 }},
		{"delivered twice", I4, func(y *yard, _ *paper) { y.arrived["a"] = 2 }},
		{"two final events", I5, func(_ *yard, log *paper) { log.entry(event.Delivered, "a", 9, 0, "x@yard.example") }},
		{"no final event", I5, func(_ *yard, log *paper) { log.events = log.events[:1] }},
		{"bounced", I5, func(_ *yard, log *paper) { log.events[0].Type = event.Bounced }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			y := &yard{
				data: t.TempDir(), acked: map[string]int32{"a": 0, "b": 0}, unknown: make(map[string]bool),
				arrived: map[string]int32{"a": 1, "b": 1}, log: new(serverLog),
			}
			log := new(paper)
			log.entry(event.Delivered, "a", 1, 0, "x@yard.example")
			log.entry(event.Delivered, "b", 2, 0, "x@yard.example")
			c.doctor(y, log)
			var lines []byte
			for i := range log.events {
				lines = append(log.events[i].AppendJSON(lines), '\n')
			}
			if err := os.MkdirAll(filepath.Join(y.data, "events"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(y.data, "events", "current.jsonl"), lines, 0o600); err != nil {
				t.Fatal(err)
			}
			v, err := y.judge()
			if err != nil {
				t.Fatal(err)
			}
			if c.want == 0 && !v.OK() || c.want != 0 && v.Breaches[c.want] == 0 {
				t.Errorf("want a breach of %q, found: %v", c.want, v.Cases)
			}
		})
	}
}

// Rows have names that can be asked for, and say what they do and how much of it.
func TestScenariosAreDescribed(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for _, s := range scenarios() {
		if s.ID == "" || seen[s.ID] || s.About == "" || s.Quick == "" || s.Full == "" || s.Run == nil {
			t.Errorf("scenario %q is not complete, or there twice: %s", s.ID, fmt.Sprintf("%+v", s.About))
		}
		seen[s.ID] = true
	}
}
