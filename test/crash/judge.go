package crash

import (
	"cmp"
	"crypto/sha256"
	"slices"
	"time"

	"github.com/godwit-mta/godwit/event"
)

// Bounds of what the judge lets pass.
const (
	// forgettable is how long before a kill a 250 may have left and its outcome not be with the operating system yet:
	// 10 ms and the sync that is under way, which a busy disk makes long. The table tells how long it was.
	forgettable = 5 * time.Second
	// afterglow is how long after a kill a sink may still answer what was in its socket.
	afterglow = 2 * time.Second
	// slowRead is how long a sink may take to read what is in its socket.
	slowRead = 500 * time.Millisecond
	// unsynced is how long before a power cut something may have been written and not be on the disk.
	unsynced = time.Second
	// onTheWay is how long after a power cut a reply may still be read that left before.
	onTheWay = 250 * time.Millisecond
	// lateness is invariant I7.
	lateness = 60 * time.Second
)

// judge compares the ledgers with each other and with the event log. It knows nothing of how the server works beyond
// what docs/durability.md promises.
func judge(e *evidence) *Verdict {
	j := &judgement{
		evidence:    e,
		v:           new(Verdict),
		submissions: make(map[string]*submission),
		receptions:  make(map[delivery][]*reception),
		messages:    make(map[string]*story),
		byID:        make(map[string]*story),
		explained:   make(map[*told]bool),
	}
	j.v.checks(I1, I2, I3, I4, I5, I6, I7)
	j.readKills()
	j.readSubmissions()
	j.readEvents()
	j.readReceptions()
	for _, token := range sorted(j.submissions) {
		j.judgeSubmission(j.submissions[token])
	}
	j.judgeReports()
	j.judgeOwn()
	j.judgeRepeats()
	return j.v
}

// delivery is one recipient of one message.
type delivery struct{ token, to string }

// judgement is the evidence sorted.
type judgement struct {
	*evidence
	v           *Verdict
	submissions map[string]*submission
	receptions  map[delivery][]*reception // in order of time
	messages    map[string]*story         // by token
	byID        map[string]*story
	explained   map[*told]bool // notes of interruption that a repeat has used up
}

// story is what the event log tells of one message.
type story struct {
	accepted *told
	entries  map[string]*entryStory // by recipient
}

type entryStory struct {
	id     string
	events []*told
	final  *told
}

func (j *judgement) readKills() {
	var took []time.Duration
	for _, k := range j.kills {
		switch {
		case k.Began.IsZero():
		case k.Ready.IsZero():
			j.v.Early++
		default:
			j.v.Cycles++
		}
		if k.Ready.IsZero() {
			continue
		}
		ready := k.Ready.Sub(k.Started)
		took = append(took, ready)
		if ready > readyLimit {
			j.v.breach(I6, "the start at %s took %s", k.Started.Format(time.TimeOnly), ready.Round(time.Millisecond))
		}
	}
	j.v.setRestarts(took)
}

// readSubmissions joins the two lines of each submission.
func (j *judgement) readSubmissions() {
	for i := range j.evidence.submissions {
		line := &j.evidence.submissions[i]
		s := j.submissions[line.Token]
		if s == nil {
			begin := *line
			j.submissions[line.Token] = &begin
			continue
		}
		s.Outcome, s.Dropped, s.Code, s.Message, s.Err = line.Outcome, line.Dropped, line.Code, line.Message, line.Err
		s.ended = line.Time
	}
	j.v.Submitted = len(j.submissions)
	for _, s := range j.submissions {
		j.discount(s)
	}
	for _, s := range j.submissions {
		switch s.Outcome {
		case accepted:
			j.v.Acknowledged++
		case refused:
			j.v.Refused++
		case aborted:
			j.v.Aborted++
		default:
			j.v.Unanswered++
		}
	}
}

// discount makes of a reply no answer at all where the machine that gave it was failing. A machine without power
// acknowledges nothing: the process that lives on for the harness does not know that yet.
func (j *judgement) discount(s *submission) {
	for i := range j.kills {
		k := &j.kills[i]
		switch {
		case k.Began.IsZero() || s.ended.After(k.Gone.Add(onTheWay)):
		case k.power() && s.Outcome == accepted && s.ended.After(k.Began) && s.ended.Before(k.Cut.Add(onTheWay)):
			s.Outcome = unknown
		}
	}
}

// readEvents drops repeats and sorts the rest by message and entry.
func (j *judgement) readEvents() {
	seen := make(map[string][sha256.Size]byte, len(j.events))
	first := make([]*told, 0, len(j.events))
	for i := range j.events {
		t := &j.events[i]
		if sum, again := seen[t.ID]; again {
			if sum != t.sum {
				j.v.breach(I5, "event %s was told again and differs", t.ID)
			}
			j.v.Repeated++
			continue
		}
		seen[t.ID] = t.sum
		first = append(first, t)
	}
	j.v.Events = len(first)
	slices.SortStableFunc(first, func(a, b *told) int { return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.ID, b.ID)) })
	for _, t := range first {
		if t.Type == event.Accepted {
			j.readAccepted(t)
		}
	}
	for _, t := range first {
		if t.Type != event.Accepted && t.Entry != "" && t.Type != event.Refused {
			j.readEntry(t)
		}
	}
}

func (j *judgement) readAccepted(t *told) {
	s := &story{accepted: t, entries: make(map[string]*entryStory)}
	if j.byID[t.Message] != nil {
		j.v.breach(I5, "message %s was accepted by two events", t.Message)
		return
	}
	j.byID[t.Message] = s
	if other := j.messages[t.token()]; other != nil {
		j.v.breach(I3, "%s was submitted once and accepted as %s and %s", t.token(), other.accepted.Message, t.Message)
		return
	}
	j.messages[t.token()] = s
}

// readEntry adds an event to its entry, and looks at finality and lateness.
func (j *judgement) readEntry(t *told) {
	s := j.byID[t.Message]
	if s == nil {
		j.v.breach(I5, "event %s (%s) is about message %s, which was never accepted", t.ID, t.Type, t.Message)
		return
	}
	if t.Recipient == "" { // that a report was made says nothing about the entry's way
		return
	}
	e := s.entries[t.Recipient]
	if e == nil {
		e = &entryStory{id: t.Entry}
		s.entries[t.Recipient] = e
	}
	if e.id != t.Entry {
		j.v.breach(I5, "recipient %s of message %s has entries %s and %s", t.Recipient, t.Message, e.id, t.Entry)
	}
	due := s.accepted.Time
	if n := len(e.events); n > 0 {
		due = e.events[n-1].NextAttempt
	}
	if late := t.Time.Sub(due); !due.IsZero() && late > lateness+j.stalled {
		j.v.breach(I7, "entry %s was due at %s, and %s came %s later", t.Entry, due.Format(time.TimeOnly), t.Type, late)
	}
	e.events = append(e.events, t)
	if !t.Type.Final() {
		return
	}
	if e.final != nil {
		j.v.breach(I5, "entry %s has two final events: %s by %s, %s by %s", t.Entry, e.final.Type, e.final.ID, t.Type, t.ID)
	}
	e.final = t
}

func (j *judgement) readReceptions() {
	for i := range j.evidence.receptions {
		r := &j.evidence.receptions[i]
		d := delivery{r.Token, r.To}
		j.receptions[d] = append(j.receptions[d], r)
	}
	for _, list := range j.receptions {
		slices.SortStableFunc(list, func(a, b *reception) int { return a.Time.Compare(b.Time) })
	}
	for _, d := range sortedDeliveries(j.receptions) {
		j.judgeReception(d, j.receptions[d])
	}
}

// vain reports that a message came from a machine without power alone, and left no trace in the event log: the
// process that lives on for the harness may deliver what it was about to write when the power went.
func (j *judgement) vain(d delivery, list []*reception) bool {
	return j.messages[d.token] == nil && !slices.ContainsFunc(list, func(r *reception) bool {
		return !slices.ContainsFunc(j.kills, func(k kill) bool {
			return k.power() && r.Arrived.After(k.Began) && r.Arrived.Before(k.Gone.Add(afterglow))
		})
	})
}

// judgeReception asks whether a recipient may have got the message at all, and got the right one.
func (j *judgement) judgeReception(d delivery, list []*reception) {
	s := j.submissions[d.token]
	if s == nil {
		m := j.messages[d.token]
		if local(d.to) && j.vain(d, list) {
			return
		}
		if m == nil || m.accepted.Reason != event.ReportGenerated || !local(d.to) {
			j.v.Ghosts++
			j.v.breach(I3, "%s came to %s, which nobody submitted", d.token, d.to)
		}
		for _, r := range list[1:] {
			if r.Hash != list[0].Hash {
				j.v.Corrupt++
				j.v.breach(I2, "report %s came twice and differs", d.token)
			}
		}
		return
	}
	if !slices.Contains(s.To, d.to) || slices.Contains(s.Dropped, d.to) {
		j.v.Ghosts++
		j.v.breach(I3, "%s came to %s, which is no recipient of it", d.token, d.to)
	}
	for _, r := range list {
		if r.Hash != s.Hash {
			j.v.Corrupt++
			j.v.breach(I2, "%s (%s, %d octets) came to %s with another content", d.token, s.Mode, s.Size, d.to)
		} else if !r.Traced {
			j.v.breach(I2, "%s came to %s without exactly one trace header", d.token, d.to)
		}
	}
}

// judgeSubmission holds what a submitter knows against what became of the message.
func (j *judgement) judgeSubmission(s *submission) {
	m := j.messages[s.Token]
	mayPass := !s.Doomed && (s.Outcome == accepted || s.Outcome == unknown || s.Outcome == begun)
	switch {
	case s.Doomed && s.Outcome == accepted:
		j.v.breach(I3, "%s (%s) was accepted and had to be refused", s.Token, s.Mode)
		return
	case m == nil && s.Outcome == accepted:
		lost := 0
		for _, to := range s.To {
			if !slices.Contains(s.Dropped, to) && !j.reached(s.Token, to) {
				lost++
			}
		}
		j.v.Lost += lost
		j.v.Accepted += len(s.To) - len(s.Dropped)
		j.v.breach(I1, "%s was acknowledged as %s at %s, and the event log does not know it; %d recipients got nothing",
			s.Token, s.Message, s.Time.Format(time.StampMilli), lost)
		return
	case m != nil && !mayPass:
		j.v.Ghosts++
		j.v.breach(I3, "%s (%s) was %s with %d, and is in the event log as %s", s.Token, s.Mode, s.Outcome, s.Code,
			m.accepted.Message)
		return
	case m == nil:
		for _, to := range s.To {
			d := delivery{s.Token, to}
			if list := j.receptions[d]; len(list) > 0 && !(mayPass && j.vain(d, list)) {
				j.v.Ghosts++
				j.v.breach(I3, "%s (%s) was not accepted (%s, %d), and came to %s", s.Token, s.Mode, s.Outcome, s.Code, to)
			}
		}
		return
	}
	if s.Outcome == accepted && s.Message != m.accepted.Message {
		j.v.breach(I5, "%s was acknowledged as %q and is in the event log as %s", s.Token, s.Message, m.accepted.Message)
	}
	if want := len(s.To) - len(s.Dropped); m.accepted.Recipients != want {
		j.v.breach(I5, "%s was accepted for %d recipients, and its event says %d", s.Token, want, m.accepted.Recipients)
	}
	for _, to := range s.To {
		if !slices.Contains(s.Dropped, to) {
			j.v.Accepted++
			j.judgeEntry(s, m, to)
		}
	}
}

// reached reports whether some sink gave a whole 250 for it.
func (j *judgement) reached(token, to string) bool {
	return slices.ContainsFunc(j.receptions[delivery{token, to}], (*reception).delivered)
}

// judgeEntry asks whether one recipient of an accepted message ended as it had to, and whether the event log knows.
func (j *judgement) judgeEntry(s *submission, m *story, to string) {
	want := event.Delivered
	if nobody(to) {
		want = event.Bounced
	}
	final := event.Type(0)
	if e := m.entries[to]; e != nil && e.final != nil {
		final = e.final.Type
	}
	reached := j.reached(s.Token, to)
	switch {
	case final == 0:
		j.v.breach(I5, "%s to %s (message %s) has no final event", s.Token, to, m.accepted.Message)
	case final != want:
		j.v.breach(I5, "%s to %s (message %s) ended as %s and not as %s", s.Token, to, m.accepted.Message, final, want)
	}
	switch {
	case want == event.Delivered && reached:
		j.v.Delivered++
	case want == event.Delivered:
		j.v.Lost++
		j.v.breach(I1, "%s to %s (message %s) never arrived; its final event is %q", s.Token, to, m.accepted.Message, final)
	case reached:
		j.v.Ghosts++
		j.v.breach(I3, "%s was taken for %s, which does not exist", s.Token, to)
	default:
		j.v.Bounced++
	}
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func sortedDeliveries(m map[delivery][]*reception) []delivery {
	keys := make([]delivery, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b delivery) int {
		return cmp.Or(cmp.Compare(a.token, b.token), cmp.Compare(a.to, b.to))
	})
	return keys
}
