package crash

import (
	"strconv"
	"sync"
	"time"
)

// replies counts what submitters were told, while a scenario goes on.
type replies struct {
	mu  sync.Mutex
	now answers
}

// answers is what submitters were told in some time.
type answers struct {
	accepted         int            // messages
	refused          map[string]int // by code and enhanced code: "452 4.3.1"
	lastAck          time.Time
	fastest, slowest time.Duration // from the last octet of an accepted message to its 250
}

func (r *replies) note(end *submission, waited time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := &r.now
	switch {
	case end.Outcome == accepted:
		a.accepted++
		a.lastAck = end.Time
		a.slowest = max(a.slowest, waited)
		if a.fastest == 0 || waited < a.fastest {
			a.fastest = waited
		}
	case end.Code >= 400 && end.Code < 600:
		if a.refused == nil {
			a.refused = make(map[string]int)
		}
		a.refused[strconv.Itoa(end.Code)+" "+end.Enhanced]++
	}
}

// look returns what was told since the last take.
func (r *replies) look() answers {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.copy()
}

func (r *replies) copy() answers {
	a := r.now
	a.refused = make(map[string]int, len(r.now.refused))
	for k, n := range r.now.refused {
		a.refused[k] = n
	}
	return a
}

// take returns what was told since the last take, and begins anew.
func (r *replies) take() answers {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.copy()
	r.now = answers{}
	return a
}
