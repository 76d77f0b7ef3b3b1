package limits

import (
	"cmp"
	"slices"
	"time"
)

// State is one limit of one holder as it stands now.
type State struct {
	Kind    Kind
	Name    string
	Subject Subject
	Span    Span
	Used    int64
	Max     int64     // 0: counted, but not limited
	Source  string    // where Max comes from
	Refused int64     // messages and recipients it has held back since the start
	Room    time.Time // when there will be room again; zero: there is
}

// Query selects States. The zero value asks for all limits of all holders.
type Query struct {
	Kind  Kind
	Of    bool   // only holders of Kind
	Name  string // only this holder
	Limit int    // at most so many holders of each kind, the latest first; 0 is 1000
}

// Explain returns how holders stand: what each has used, of how much, why so much, and what it holds back now. A holder
// that was never seen is not among them.
func (l *Limiter) Explain(q Query) []State {
	now := time.Now()
	var states []State
	cfg := l.config.Load()
	for k := range kinds {
		if q.Of && k != q.Kind {
			continue
		}
		for _, h := range l.seen(k, q.Name, cmp.Or(q.Limit, 1000)) {
			states = append(states, h.states(cfg, now)...)
		}
	}
	return states
}

func (l *Limiter) seen(k Kind, name string, most int) []*holder {
	t := &l.tables[k]
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []*holder
	if name != "" {
		if e, ok := t.mu.holders[name]; ok {
			list = append(list, e.Value.(*holder))
		}
		return list
	}
	for e := t.mu.recent.Front(); e != nil && len(list) < most; e = e.Next() {
		list = append(list, e.Value.(*holder))
	}
	slices.SortFunc(list, func(a, b *holder) int { return cmp.Compare(a.name, b.name) })
	return list
}

// states tells what is counted of a holder. What was limited for it alone is known from the last message.
func (h *holder) states(cfg *Config, now time.Time) []State {
	h.mu.Lock()
	defer h.mu.Unlock()
	quota, source := h.mu.set, h.mu.source
	if source == "" { // restored, and nothing has come since
		quota, source = effective(cfg, &LimitSet{Kind: h.kind, Name: h.name})
	}
	var states []State
	for s := range subjects {
		for p := range spans {
			if h.mu.used[s][p].count == nil && h.mu.unique[p] == nil && quota.Max[s][p] <= 0 {
				continue
			}
			st := State{Kind: h.kind, Name: h.name, Subject: s, Span: p, Max: max(quota.Max[s][p], 0), Refused: h.mu.refused[s][p]}
			one := Amount{Messages: 1, Recipients: 1, Bytes: 1}
			used, _ := h.usedLocked(s, p, &one, now)
			st.Used = used
			if st.Max > 0 {
				st.Source = source
				if used >= st.Max {
					st.Room = h.roomLocked(s, p, 1, st.Max)
				}
			}
			if s == Unique && st.Max == 0 {
				continue
			}
			states = append(states, st)
		}
	}
	return states
}
