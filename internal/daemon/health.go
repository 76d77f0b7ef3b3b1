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
