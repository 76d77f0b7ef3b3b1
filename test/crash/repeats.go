package crash

import (
	"slices"
	"time"

	"github.com/godwit-mta/godwit/event"
)

// judgeReports asks whether the sender of each entry that failed was told so by exactly one report, and of no other.
func (j *judgement) judgeReports() {
	told := make(map[delivery]map[string]bool) // failed entry to the reports about it
	for d, list := range j.receptions {
		if !local(d.to) || j.vain(d, list) {
			continue
		}
		if slices.ContainsFunc(list, (*reception).delivered) {
			j.v.Reports++
		}
		for _, r := range list {
			for _, failed := range r.Failed {
				about := delivery{r.About, failed}
				if told[about] == nil {
					told[about] = make(map[string]bool)
				}
				told[about][d.token] = true
			}
		}
	}
	for _, token := range sorted(j.submissions) {
		s := j.submissions[token]
		m := j.messages[token]
		for _, to := range s.To {
			about := delivery{token, to}
			n := len(told[about])
			delete(told, about)
			due := m != nil && nobody(to) && !s.Silent && !slices.Contains(s.Dropped, to)
			switch {
			case due && n == 0:
				j.v.Lost++
				j.v.breach(I1, "%s to %s failed, and no report came back", token, to)
			case due && n > 1:
				j.v.breach(I5, "%s to %s failed, and %d different reports came back", token, to, n)
			case !due && n > 0:
				j.v.breach(I3, "%s to %s: a report came back that must not be", token, to)
			}
		}
	}
	for about := range told {
		j.v.breach(I3, "a report came back about %s to %s, which was never submitted", about.token, about.to)
	}
}

// judgeOwn holds reports to what holds for all accepted mail, and finds messages that nobody submitted.
func (j *judgement) judgeOwn() {
	for _, token := range sorted(j.messages) {
		m := j.messages[token]
		switch {
		case j.submissions[token] != nil:
		case m.accepted.Reason != event.ReportGenerated:
			j.v.Ghosts++
			j.v.breach(I3, "message %s (%s) is in the event log, and nobody submitted it", m.accepted.Message, token)
		case m.entries[sender] == nil || m.entries[sender].final == nil:
			j.v.breach(I5, "report %s has no final event", m.accepted.Message)
		case m.entries[sender].final.Type != event.Delivered || !j.reached(token, sender):
			j.v.Lost++
			j.v.breach(I1, "report %s never arrived; its final event is %s", m.accepted.Message, m.entries[sender].final.Type)
		}
	}
}

// judgeRepeats asks of each delivery beyond the first why it was made.
func (j *judgement) judgeRepeats() {
	repeats := make(map[int]int) // by number of the kill
	flying := make(map[int]int)
	for _, m := range j.byID {
		for _, e := range m.entries {
			for _, t := range e.events {
				if t.Reason == event.Interrupted {
					flying[j.killBefore(t.Time)]++
				}
			}
		}
	}
	for _, d := range sortedDeliveries(j.receptions) {
		list := slices.DeleteFunc(slices.Clone(j.receptions[d]), func(r *reception) bool { return !r.Accepted })
		for i := 1; i < len(list); i++ {
			j.v.Duplicates++
			before, again := list[i-1], list[i]
			if !before.Replied || before.Unheard {
				j.v.DuplicatesByReply++
				continue
			}
			k, number, ok := j.flight(d, before, again)
			if !ok {
				j.v.breach(I4, "%s came to %s at %s and again at %s, and no kill explains it", d.token, d.to,
					before.Time.Format(time.StampMilli), again.Time.Format(time.StampMilli))
				continue
			}
			j.v.DuplicatesByKill++
			repeats[number]++
			j.v.OldestRepeat = max(j.v.OldestRepeat, k.Began.Sub(before.Time))
		}
	}
	for _, n := range flying {
		j.v.InFlight += n
		j.v.MostInFlight = max(j.v.MostInFlight, n)
	}
	for _, n := range repeats {
		j.v.MostByKill = max(j.v.MostByKill, n)
	}
}

// flight explains why a delivery was made again: the first one was in flight at a kill, and the server noted at its
// next start that the attempt was interrupted. Each such note explains one repeat. It returns the kill, and the
// number of the one that the note is counted with; ok is false if there is no explanation.
func (j *judgement) flight(d delivery, before, again *reception) (k *kill, number int, ok bool) {
	m := j.messages[d.token]
	if m == nil || m.entries[d.to] == nil {
		return nil, 0, false
	}
	for _, k := range j.killsAbout(before) {
		for _, t := range m.entries[d.to].events {
			if t.Reason != event.Interrupted || j.explained[t] || !t.Time.Before(again.Time) {
				continue
			}
			if t.Time.After(k.Began) && t.Time.Before(j.noted(k)) && t.Time.Add(slowRead).After(before.Arrived) {
				j.explained[t] = true
				return k, j.killBefore(t.Time), true
			}
		}
	}
	return j.forgotten(before, again)
}

// forgotten explains a repeat by a power cut that took the claim with it, which is written before an attempt and
// synced soon after.
func (j *judgement) forgotten(before, again *reception) (k *kill, number int, ok bool) {
	for i := range j.kills {
		k := &j.kills[i]
		if k.power() && before.Arrived.After(k.Began.Add(-unsynced)) && before.Arrived.Before(k.Gone.Add(afterglow)) &&
			again.Arrived.After(k.Gone) {
			return k, i, true
		}
	}
	return nil, 0, false
}

// killsAbout returns the kills that a delivery may have been in flight at, the likeliest first: the end of the life
// it came from, if that was soon after the 250, and earlier ones after which its sink may have read or answered it
// late.
func (j *judgement) killsAbout(r *reception) []*kill {
	var own, earlier []*kill
	for i := range j.kills {
		k := &j.kills[i]
		switch {
		case k.Began.IsZero():
		case !k.Gone.After(r.Arrived):
			if k.Gone.Add(afterglow).After(r.Arrived) {
				earlier = slices.Insert(earlier, 0, k)
			}
		case len(own) == 0 && k.Began.Before(r.Time.Add(forgettable)):
			own = append(own, k)
		}
	}
	if len(own) > 0 && (own[0].Ready.IsZero() || r.Arrived.Before(own[0].Ready)) {
		return append(earlier, own...) // a life delivers nothing before it is ready
	}
	return append(own, earlier...)
}

// noted returns when the server had noted all that was in flight at a kill: it does so before it is ready.
func (j *judgement) noted(k *kill) time.Time {
	for i := range j.kills {
		if next := &j.kills[i]; next.Started.After(k.Began) && !next.Ready.IsZero() {
			return next.Ready
		}
	}
	return time.Time{}
}

// killBefore returns the number of the last kill before t, -1 if there is none.
func (j *judgement) killBefore(t time.Time) int {
	last := -1
	for i, k := range j.kills {
		if !k.Began.IsZero() && k.Began.Before(t) {
			last = i
		}
	}
	return last
}
