package queue

import (
	"fmt"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/spool"
)

func tooOld(m *spool.Message, now time.Time) bool {
	return !m.Expires.IsZero() && !now.Before(m.Expires)
}

// aged is the result of an entry that is given up for its age. last is what stood in its way, if anything is known.
func (s *Scheduler) aged(e *spool.Entry, last *spool.Result) spool.Result {
	s.metrics.expired.Inc()
	r := *last
	r.Outcome, r.Reason, r.NextDue = spool.Expired, event.Aged, time.Time{}
	r.Explanation = "given up after " + span(e.Message.Expires.Sub(e.Message.Received))
	switch {
	case !last.Reply.IsZero():
		r.Explanation += fmt.Sprintf("; the last attempt: %s answered %s", last.Host, last.Reply)
	case last.Explanation != "":
		r.Explanation += "; the last attempt: " + last.Explanation
	}
	return r
}
