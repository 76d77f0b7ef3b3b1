package auth

import (
	"container/list"
	"context"
	"sync"
	"time"
)

// gate lets few hashes be computed at once. Who comes from an address where its account is at home goes before others,
// so that a flood from elsewhere waits for itself.
type gate struct {
	room int // attempts that may wait
	wait time.Duration

	mu     sync.Mutex
	free   int
	queues [2]list.List // of chan struct{}: those at home, the others
}

func newGate(hashers, room int, wait time.Duration) *gate {
	return &gate{room: room, wait: wait, free: hashers}
}

// enter waits for a turn. It returns false if there is no room, or no turn in time. Who got true calls leave.
func (g *gate) enter(ctx context.Context, home bool) bool {
	g.mu.Lock()
	if g.free > 0 {
		g.free--
		g.mu.Unlock()
		return true
	}
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

// leave hands the turn to the next.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.queues {
		if e := g.queues[i].Front(); e != nil {
			close(g.queues[i].Remove(e).(chan struct{}))
			return
		}
	}
	g.free++
}

// rest leaves after a pause, so that a flood of failures has half of a hasher at most and what it leaves to be collected
// does not slow down everybody else.
func (g *gate) rest(pause time.Duration) {
	time.AfterFunc(min(pause, time.Second), g.leave)
}

func (g *gate) waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.queues[0].Len() + g.queues[1].Len()
}
