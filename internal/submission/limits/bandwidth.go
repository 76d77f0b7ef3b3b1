package limits

import (
	"context"
	"sync"
	"time"
)

// MaxWait is how long a sender is made to wait by Bandwidth before it is told to come back later.
const MaxWait = time.Minute

// Bandwidth paces octets per second. A message is paid for after it has come, and who owes waits before the next one, so
// that no memory is held meanwhile. The zero value sets no limit. It is safe for concurrent use.
type Bandwidth struct {
	mu struct {
		sync.Mutex
		rate int64     // octets per second, 0: no limit
		free time.Time // when all that has come is paid for
		held int64     // waits since the start
	}
}

// Set changes the rate; 0 is no limit.
func (b *Bandwidth) Set(rate int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.rate = rate
	if rate == 0 {
		b.mu.free = time.Time{}
	}
}

// Spend counts octets that have come.
func (b *Bandwidth) Spend(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.rate <= 0 {
		return
	}
	if now := time.Now(); b.mu.free.Before(now) {
		b.mu.free = now
	}
	b.mu.free = b.mu.free.Add(time.Duration(float64(n) / float64(b.mu.rate) * float64(time.Second)))
}

// Wait returns when what has come is paid for. It reports false, at once, if that takes more than MaxWait, and when ctx
// ends.
func (b *Bandwidth) Wait(ctx context.Context) bool {
	b.mu.Lock()
	rate, free := b.mu.rate, b.mu.free
	if rate == 0 {
		b.mu.Unlock()
		return true
	}
	pause := time.Until(free)
	if pause > 0 {
		b.mu.held++
	}
	b.mu.Unlock()
	switch {
	case pause <= 0:
		return true
	case pause > MaxWait:
		return false
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// State returns the rate, how long a new message would wait now, and how many have waited since the start.
func (b *Bandwidth) State() (rate int64, wait time.Duration, held int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.rate, max(time.Until(b.mu.free), 0), b.mu.held
}
