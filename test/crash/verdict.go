package crash

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/godwit-mta/godwit/api"
)

// Invariant is one of the rules that a campaign holds the server to; the package comment lists them.
type Invariant uint8

// The invariants.
const (
	I1 Invariant = 1 + iota
	I2
	I3
	I4
	I5
	I6
	I7
	G1  // processes that live on
	Row // what the row itself asks
	invariants
)

var invariantTexts = [invariants]string{
	I1: "nothing acknowledged is lost",
	I2: "content arrives as it was submitted",
	I3: "what was not accepted is not delivered",
	I4: "only what was in flight is delivered again",
	I5: "each entry has exactly one final event",
	I6: "a restart is ready in time",
	I7: "the queue becomes empty in time",

	G1:  "goroutines, descriptors and memory return to where they were",
	Row: "the row's own condition",
}

// String returns the invariant's number and words.
func (i Invariant) String() string {
	if i == 0 || i >= invariants {
		return "no invariant"
	}
	switch i {
	case G1:
		return "G1, " + invariantTexts[i]
	case Row:
		return invariantTexts[i]
	}
	return fmt.Sprintf("I%d, %s", uint8(i), invariantTexts[i])
}

// Breach is one case in which an invariant does not hold.
type Breach struct {
	Invariant Invariant
	Text      string
}

// mostBreaches of one invariant are told; the rest is counted.
const mostBreaches = 10

// Verdict is what the judge found. Messages are counted by submission, everything else by recipient.
type Verdict struct {
	Seed   uint64
	Cycles int // kills while mail was taken
	Early  int // kills before the server was ready

	Submitted, Acknowledged, Refused, Aborted, Unanswered int // messages

	Accepted                    int // acknowledged, or unanswered and taken
	Delivered, Bounced, Reports int
	Queued                      int // still waiting when the scenario ended, which then must be meant
	Lost                        int
	Corrupt                     int
	Ghosts                      int // delivered without having been accepted

	Duplicates        int // deliveries beyond the first, reports included
	DuplicatesByKill  int // of these, in flight at a kill
	DuplicatesByReply int // of these, after a 250 that did not leave in full
	MostByKill        int // in one kill
	InFlight          int // entries whose attempts were interrupted, over all kills
	MostInFlight      int // in one kill
	// OldestRepeat is the longest time between a 250 and the kill that made its delivery repeat.
	OldestRepeat time.Duration

	Events   int
	Repeated int // told again, the same

	RestartP50, RestartMax time.Duration

	Checked  [invariants]bool // which were looked at; one with a breach always was
	Breaches [invariants]int
	Cases    []Breach
	Notes    []string // what was measured, for people

	Complaints     []string // errors that the server logged
	MoreComplaints int
}

// checks notes that these invariants are looked at, so that silence about them means that they hold.
func (v *Verdict) checks(list ...Invariant) {
	for _, i := range list {
		v.Checked[i] = true
	}
}

// note keeps a figure for people.
func (v *Verdict) note(format string, args ...any) {
	v.Notes = append(v.Notes, fmt.Sprintf(format, args...))
}

// breach notes a case in which an invariant does not hold.
func (v *Verdict) breach(i Invariant, format string, args ...any) {
	v.Checked[i] = true
	if v.Breaches[i]++; v.Breaches[i] <= mostBreaches {
		v.Cases = append(v.Cases, Breach{i, fmt.Sprintf(format, args...)})
	}
}

// merge takes over what a scenario found beside the ledgers.
func (v *Verdict) merge(o *Verdict) {
	for i := range o.Checked {
		v.Checked[i] = v.Checked[i] || o.Checked[i]
		v.Breaches[i] += o.Breaches[i]
	}
	v.Cases = append(v.Cases, o.Cases...)
	v.Notes = append(v.Notes, o.Notes...)
}

// OK reports that all invariants hold.
func (v *Verdict) OK() bool { return len(v.Cases) == 0 }

// compareStats holds the server's own books against themselves.
func (v *Verdict) compareStats(s *api.SpoolStats) {
	sum := s.Delivered + s.Bounced + s.Expired + s.Suppressed + s.Cancelled + s.Queued
	if s.Accepted != sum {
		v.breach(I5, "spool stats: %d accepted, and %d accounted for", s.Accepted, sum)
	}
	if s.Damaged > 0 {
		v.breach(I1, "spool stats: %d damaged stretches in the journal", s.Damaged)
	}
}

// setRestarts fills the times of restarts.
func (v *Verdict) setRestarts(took []time.Duration) {
	if len(took) == 0 {
		return
	}
	slices.Sort(took)
	v.RestartP50, v.RestartMax = took[len(took)/2], took[len(took)-1]
}

// Print writes the table, and the breaches below it.
func (v *Verdict) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "seed\t%d\t\n", v.Seed)
	row := func(what string, n any, more string, args ...any) {
		fmt.Fprintf(t, "%s\t%8d\t%s\n", what, n, fmt.Sprintf(more, args...))
	}
	row("cycles", v.Cycles, "kills under load, and %d while starting", v.Early)
	row("submitted", v.Submitted, "messages: %d acknowledged, %d refused, %d broken off, %d without an answer",
		v.Acknowledged, v.Refused, v.Aborted, v.Unanswered)
	row("accepted", v.Accepted, "recipients")
	row("delivered", v.Delivered, "")
	row("bounced", v.Bounced, "%d reports came back", v.Reports)
	row("lost", v.Lost, "")
	row("corrupt", v.Corrupt, "")
	row("not accepted, delivered", v.Ghosts, "")
	row("duplicates", v.Duplicates, "")
	row("of these allowed", v.DuplicatesByKill+v.DuplicatesByReply,
		"%d in flight at a kill (at most %d in one), %d after a 250 that did not leave in full",
		v.DuplicatesByKill, v.MostByKill, v.DuplicatesByReply)
	row("in flight at kills", v.InFlight, "at most %d in one; oldest 250 that was forgotten: %s before the kill",
		v.MostInFlight, v.OldestRepeat.Round(100*time.Microsecond))
	row("events", v.Events, "%d of them told again", v.Repeated)
	row("restart ms", int(v.RestartP50.Milliseconds()), "half of them, %d ms at most", v.RestartMax.Milliseconds())
	if err := t.Flush(); err != nil {
		return err
	}
	for i := I1; i < invariants; i++ {
		verdict := "holds"
		switch {
		case !v.Checked[i]:
			continue
		case v.Breaches[i] > 0:
			verdict = fmt.Sprintf("BROKEN %d times", v.Breaches[i])
		}
		if _, err := fmt.Fprintf(w, "%s: %s\n", i, verdict); err != nil {
			return err
		}
		for _, b := range v.Cases {
			if b.Invariant == i {
				fmt.Fprintf(w, "    %s\n", b.Text)
			}
		}
	}
	for _, note := range v.Notes {
		fmt.Fprintf(w, "    %s\n", note)
	}
	if len(v.Complaints) > 0 {
		fmt.Fprintf(w, "The server logged %d errors, such as:\n", len(v.Complaints)+v.MoreComplaints)
		for _, line := range v.Complaints {
			fmt.Fprintf(w, "    %s\n", line)
		}
	}
	return nil
}
