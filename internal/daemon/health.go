package daemon

import (
	"errors"
	"fmt"
)

// health answers the probes of whoever watches the process.
type health struct{ d *Daemon }

// Alive reports a server that cannot keep mail any more and should be restarted.
func (h *health) Alive() error {
	if err := h.d.journal.Err(); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if r := h.d.state.Load(); r != nil {
		if err := r.spool.Err(); err != nil {
			return fmt.Errorf("spool: %w", err)
		}
	}
	return nil
}

// Ready reports a server that takes no mail now: it starts, stops, or has failed.
func (h *health) Ready() error {
	if err := h.Alive(); err != nil {
		return err
	}
	if h.d.state.Load() == nil {
		return errors.New("starting or stopping")
	}
	return nil
}

// Findings tells what a person must look at, though mail flows.
func (h *health) Findings() []string {
	r := h.d.state.Load()
	if r == nil {
		return nil
	}
	var lines []string
	for _, f := range (physician{r}).Findings() {
		word := "warning"
		if f.Grave {
			word = "grave"
		}
		lines = append(lines, fmt.Sprintf("%s: %s %s: %s; %s", word, f.Subject, f.Name, f.Problem, f.Advice))
	}
	return lines
}
