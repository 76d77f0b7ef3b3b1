package queue

import (
	"fmt"
	"strconv"
	"time"

	"github.com/godwit-mta/godwit/internal/spool"
)

// Code says in one word why an entry or a queue is where it is. The list is closed; names are stable.
type Code uint8

const (
	_ Code = iota

	InFlight     // an attempt is under way
	Scheduled    // the next attempt is at a later time
	Next         // due, and about to be attempted
	QueueBusy    // as many attempts of this queue as it may make are under way
	ServerBusy   // as many attempts as this server, or the tenant, may make are under way
	Suspended    // the destination cannot be reached and is probed from time to time
	Paused       // this server could not do its part; it tries again soon
	Held         // until an operator releases it
	Recording    // an outcome is being written down
	Stopping     // this server is stopping
	Stopped      // outcomes cannot be recorded, so nothing is delivered
	Done         // nothing will happen to the entry any more
	NothingThere // the queue is empty
	Memory       // an attempt is under way and waits for memory to read the message back
)

var codeNames = [...]string{
	InFlight: "in_flight", Scheduled: "scheduled", Next: "next", QueueBusy: "queue_busy", ServerBusy: "server_busy",
	Suspended: "suspended", Paused: "paused", Held: "held", Recording: "recording", Stopping: "stopping",
	Stopped: "stopped", Done: "done", NothingThere: "empty",
	Memory: "memory",
}

// Codes returns all codes in order.
func Codes() []Code {
	all := make([]Code, 0, len(codeNames)-1)
	for c := InFlight; int(c) < len(codeNames); c++ {
		all = append(all, c)
	}
	return all
}

// String returns the stable name, empty for the zero value.
func (c Code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return ""
}

// MarshalText implements [encoding.TextMarshaler].
func (c Code) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// Why says why an entry or a queue waits, in the operator's words.
type Why struct {
	Code  Code
	Text  string
	Since time.Time // when it became so; zero: not known
	Until time.Time // when something will happen by itself; zero: not known
}

// Explain says of each entry why it is still there. The entries are copies that the spool gave out moments ago; the
// answers are as of now, so that an entry that has left meanwhile may be said to be recording its outcome.
func (s *Scheduler) Explain(entries ...*spool.Entry) []Why {
	now := time.Now()
	why := make([]Why, len(entries))
	s.mu.Lock()
	defer s.mu.Unlock()
	var places map[spool.EntryID]int
	for i, e := range entries {
		if e.State == spool.Claimed && places == nil {
			places = s.placesLocked(entries)
		}
		why[i] = s.explainLocked(e, places, now)
	}
	return why
}

// placesLocked tells of each entry in a window how many entries of its queue come before it.
func (s *Scheduler) placesLocked(entries []*spool.Entry) map[spool.EntryID]int {
	places := make(map[spool.EntryID]int)
	seen := make(map[*queue]bool)
	for _, e := range entries {
		q := s.mu.queues[e.Queue()]
		if e.State != spool.Claimed || q == nil || seen[q] {
			continue
		}
		seen[q] = true
		before := 0
		for g := range q.live() {
			for _, in := range g.entries {
				places[in.ID()] = before
			}
			before += len(g.entries)
		}
	}
	return places
}

func (s *Scheduler) explainLocked(e *spool.Entry, places map[spool.EntryID]int, now time.Time) Why {
	q := s.mu.queues[e.Queue()]
	switch e.State {
	case spool.Final:
		return Why{Code: Done, Text: e.Last.Outcome.String(), Since: e.LastAttempt}
	case spool.Held:
		return Why{Code: Held, Text: "held by operator" + because(e.HoldReason)}
	case spool.Claimed:
		if w := s.attemptOfLocked(e.ID()); w != nil {
			return w.why(now)
		}
		before, ok := places[e.ID()]
		if !ok {
			return Why{Code: Recording, Text: "its state is being recorded"}
		}
		return s.turnOfLocked(q, before, now)
	}
	if why, stuck := s.stuckLocked(q, now); stuck && (why.Until.IsZero() || why.Until.After(e.Due)) {
		return why
	}
	if e.Due.After(now) {
		return Why{
			Code: Scheduled, Since: e.LastAttempt, Until: e.Due,
			Text: "next attempt in " + span(e.Due.Sub(now)) + lastWords(e, now),
		}
	}
	before := 0
	if q != nil {
		before = q.entries
	}
	return s.turnOfLocked(q, before, now)
}

// lastWords says what stood in the way of e last, after a colon; empty if nothing is known.
func lastWords(e *spool.Entry, now time.Time) string {
	switch {
	case e.Interrupted > 0:
		return ": this server stopped while it was being delivered" + times(e.Interrupted)
	case e.Attempts == 0:
		return ": no attempt was made yet"
	}
	return ": " + resultText(&e.Last) + " at " + clock(e.LastAttempt, now)
}

// resultText says what an attempt met.
func resultText(r *spool.Result) string {
	switch {
	case r == nil:
	case !r.Reply.IsZero() && r.Host != "":
		return r.Host + " answered " + r.Reply.String()
	case r.Explanation != "":
		return r.Explanation
	case r.Reason != 0:
		return r.Reason.Explain()
	}
	return "the last attempt failed"
}

// stuckLocked says what keeps all of q from moving.
func (s *Scheduler) stuckLocked(q *queue, now time.Time) (Why, bool) {
	switch {
	case s.mu.failed != nil:
		return Why{Code: Stopped, Text: "delivery has stopped: " + s.mu.failed.Error()}, true
	case s.mu.stopping || !s.mu.started:
		return Why{Code: Stopping, Text: "this server is stopping; delivery goes on after its start"}, true
	case q == nil:
		return Why{}, false
	}
	h := &q.health
	switch {
	case h.suspended(&s.mu.settings):
		text := "destination suspended until " + clock(h.until, now)
		if !h.stopped(now) {
			text = "destination suspended, one entry is tried now"
		}
		return Why{
			Code: Suspended, Since: h.since, Until: h.until,
			Text: fmt.Sprintf("%s: %s (%s, first at %s)",
				text, resultText(h.last), count(h.failures, "try"), clock(h.since, now)),
		}, true
	case h.stopped(now):
		return Why{
			Code: Paused, Since: h.since, Until: h.until,
			Text: fmt.Sprintf("this server could not make the attempt and tries again in %s: %s",
				span(h.until.Sub(now)), resultText(h.last)),
		}, true
	}
	return Why{}, false
}

// turnOfLocked says why what is due in q has not begun, when before entries of the queue come first.
func (s *Scheduler) turnOfLocked(q *queue, before int, now time.Time) Why {
	if why, stuck := s.stuckLocked(q, now); stuck {
		return why
	}
	ahead := ""
	if before > 0 {
		ahead = "; " + count(before, "entry") + " of this queue before it"
	}
	limit := 1
	switch {
	case q == nil:
	case q.active >= q.limit(&s.mu.settings):
		limit = q.limit(&s.mu.settings)
		text := fmt.Sprintf("all %d connections to this queue are busy%s", limit, ahead)
		switch {
		case q.health.failures > 0:
			text = "the last attempt did not reach the destination, so one is made at a time" + ahead
		case limit == 1:
			text = "the connection to this queue is busy" + ahead
		}
		return Why{Code: QueueBusy, Text: text}
	case !s.roomLocked(q):
		return Why{Code: ServerBusy, Text: s.fullText(q) + "; the queue waits for its turn" + ahead}
	}
	return Why{Code: Next, Text: "due, is attempted next" + ahead}
}

// fullText says which limit leaves no slot for q.
func (s *Scheduler) fullText(q *queue) string {
	limit := s.mu.settings.Attempts
	half := max(1, limit/2)
	switch {
	case s.mu.active >= limit:
		return every(limit) + " that this server may make at once"
	case q.tenant.active >= most(limit):
		return every(most(limit)) + " that tenant " + q.tenant.name + " may make at once"
	case s.mu.shares[unproven] >= half:
		return every(half) + " that may be made at destinations that have not answered lately"
	}
	return every(most(half)) + " that tenant " + q.tenant.name + " may make at destinations that have not answered lately"
}

func every(n int) string {
	if n == 1 {
		return "the one attempt is under way"
	}
	return "all " + strconv.Itoa(n) + " attempts are under way"
}

// attemptOfLocked returns the worker that delivers the entry, or nil.
func (s *Scheduler) attemptOfLocked(id spool.EntryID) *worker {
	for w := range s.mu.workers {
		if len(w.entries) == 0 || w.entries[0].Message.ID != id.Message {
			continue
		}
		for _, e := range w.entries {
			if e.Index == id.Index {
				return w
			}
		}
	}
	return nil
}

// why says how far the attempt under way has come.
func (w *worker) why(now time.Time) Why {
	p := w.job.Phase()
	if p.Name == PhaseMemory {
		return Why{
			Code: Memory, Since: p.Since,
			Text: "waits for memory to read the message, since " + span(now.Sub(p.Since)) + ": memory.in_flight is used up",
		}
	}
	text := "in flight since " + span(now.Sub(w.started))
	if p.Host != "" {
		text = "in flight to " + p.Host + " since " + span(now.Sub(w.started))
	}
	if p.Name != "" {
		text += ", phase " + p.Name
		if in := now.Sub(p.Since); in >= time.Second {
			text += " for " + span(in)
		}
	}
	return Why{Code: InFlight, Text: text, Since: w.started}
}

// whyLocked says what a queue as a whole does.
func (s *Scheduler) whyLocked(q *queue, stat *spool.QueueStat, now time.Time) Why {
	if why, stuck := s.stuckLocked(q, now); stuck {
		return why
	}
	switch {
	case q != nil && q.active > 0:
		limit := q.limit(&s.mu.settings)
		return Why{Code: InFlight, Text: fmt.Sprintf("delivering: %d of %d connections busy", q.active, max(limit, q.active))}
	case q != nil && q.ready(now):
		return s.turnOfLocked(q, 0, now)
	case stat.Waiting > 0 && stat.NextDue.After(now):
		return Why{Code: Scheduled, Text: "next attempt in " + span(stat.NextDue.Sub(now)), Until: stat.NextDue}
	case stat.Waiting > 0:
		return Why{Code: Next, Text: "due, is attempted next"}
	case stat.Claimed > 0:
		return Why{Code: Recording, Text: "outcomes are being recorded"}
	case stat.Held > 0:
		return Why{Code: Held, Text: count(stat.Held, "entry") + " held by operator"}
	}
	return Why{Code: NothingThere, Text: "empty"}
}

// clock returns a time of day, with its date if that is another one.
func clock(t, now time.Time) string {
	t, now = t.Local(), now.Local()
	if t.YearDay() == now.YearDay() && t.Year() == now.Year() {
		if d := t.Sub(now).Abs(); d < time.Minute {
			return t.Format("15:04:05")
		}
		return t.Format("15:04")
	}
	return t.Format("2006-01-02 15:04")
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

func times(n int) string {
	if n < 2 {
		return ""
	}
	return " " + strconv.Itoa(n) + " times in a row"
}
