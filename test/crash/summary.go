package crash

import (
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"
)

// Result is what became of one scenario.
type Result struct {
	Scenario Scenario
	Seed     uint64
	Took     time.Duration
	Verdict  *Verdict // nil if it was skipped or could not be carried out
	Skipped  string   // why it was skipped
	Err      error    // why it could not be carried out
}

// word says how it ended.
func (r *Result) word() string {
	switch {
	case r.Skipped != "":
		return "skipped"
	case r.Err != nil:
		return "ERROR"
	case !r.Verdict.OK():
		return "FAIL"
	}
	return "pass"
}

// PrintSummary writes one line for each scenario and one for each reason, and then the invariants over all of them.
func PrintSummary(w io.Writer, results []Result) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, "row\tseed\taccepted\tdelivered\tbounced\tqueued\tlost\tduplicates\tworst restart\ttook\tresult\t\n")
	for i := range results {
		r := &results[i]
		fmt.Fprintf(t, "%s\t%d\t", r.Scenario.ID, r.Seed)
		if v := r.Verdict; v != nil {
			restart := "-"
			if v.RestartMax > 0 {
				restart = v.RestartMax.Round(time.Millisecond).String()
			}
			fmt.Fprintf(t, "%d\t%d\t%d\t%d\t%d\t%d\t%s\t", v.Accepted, v.Delivered, v.Bounced, v.Queued, v.Lost, v.Duplicates,
				restart)
		} else {
			fmt.Fprint(t, "-\t-\t-\t-\t-\t-\t-\t")
		}
		fmt.Fprintf(t, "%s\t%s\t\n", r.Took.Round(100*time.Millisecond), r.word())
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for i := range results {
		if r := &results[i]; r.Skipped != "" {
			fmt.Fprintf(w, "%s skipped: %s\n", r.Scenario.ID, r.Skipped)
		}
	}
	for i := range results {
		if r := &results[i]; r.Err != nil {
			fmt.Fprintf(w, "%s could not be carried out: %v\n", r.Scenario.ID, r.Err)
		}
	}
	for i := I1; i < invariants; i++ {
		checked, broken := 0, ""
		for k := range results {
			v := results[k].Verdict
			if v == nil || !v.Checked[i] {
				continue
			}
			checked++
			if n := v.Breaches[i]; n > 0 {
				broken += " " + results[k].Scenario.ID + " (" + strconv.Itoa(n) + ")"
			}
		}
		word := fmt.Sprintf("holds in %d scenarios", checked)
		switch {
		case broken != "":
			word = "BROKEN in" + broken
		case checked == 0:
			word = "not looked at"
		}
		if _, err := fmt.Fprintf(w, "%s: %s\n", i, word); err != nil {
			return err
		}
	}
	return nil
}
