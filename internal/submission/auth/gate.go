package auth

import (
	"container/list"
	"context"
	"sync"
	"time"
)

// gate lets few hashes be computed at once. Who comes from an address where its account is at home goes before others,
// so that a flood from elsewhere waits for itself. After each failure from elsewhere there is a pause for all from elsewhere
// that is several times as long as the hash took: what guesses cost in time, and in memory to be collected, is then so
// little that mail does not feel it.
type gate struct {
	room  int // attempts that may wait
	wait  time.Duration
	slots int

	mu     sync.Mutex
	free   int
	pause  time.Time    // until then only those at home come in
	timed  bool         // a timer looks for others at the end of the pause
	queues [2]list.List // of chan struct{}: those at home, the others
}

// restFactor is how many times longer the pause is than the hash before it; all guesses together have a fifth of the hashers.
const restFactor = 4

func newGate(hashers, room int, wait time.Duration) *gate {
	return &gate{room: room, wait: wait, slots: hashers, free: hashers}
}

// enter waits for a turn. It returns false if there is no room, or no turn in time. Who got true calls leave or rest.
func (g *gate) enter(ctx context.Context, home bool) bool {
	g.mu.Lock()
	q := &g.queues[1]
	if home {
		q = &g.queues[0]
	}
	if q.Len() >= g.room {
		g.mu.Unlock()
		return false
	}
	turn := make(chan struct{})
	e := q.PushBack(turn)
	g.admit()
	g.mu.Unlock()

	timer := time.NewTimer(g.wait)
	defer timer.Stop()
	select {
	case <-turn:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-turn: // it came just now
		return true
	default:
		q.Remove(e)
		return false
	}
}

// admit hands out turns while there are some. The lock is held.
func (g *gate) admit() {
	for g.free > 0 {
		e, i := g.queues[0].Front(), 0
		if e == nil {
			e, i = g.queues[1].Front(), 1
		}
		if e == nil {
			return
		}
		if left := time.Until(g.pause); i == 1 && left > 0 {
			if !g.timed {
				g.timed = true
				time.AfterFunc(left, g.resume)
			}
			return
		}
		g.free--
		close(g.queues[i].Remove(e).(chan struct{}))
	}
}

func (g *gate) resume() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.timed = false
	g.admit()
}

// leave hands the turn to the next.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.free++
	g.admit()
}

// rest leaves after a failure from elsewhere, whose hash took so long.
func (g *gate) rest(took time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.free++
	now := time.Now()
	if g.pause.Before(now) {
		g.pause = now
	}
	g.pause = g.pause.Add(min(restFactor*took, time.Second) / time.Duration(g.slots))
	g.admit()
}

func (g *gate) waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.queues[0].Len() + g.queues[1].Len()
}
