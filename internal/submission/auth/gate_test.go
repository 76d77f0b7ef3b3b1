package auth

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestGate: so many at once and no more, who is at home first, and nobody waits for ever.
func TestGate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1, 3, time.Second)
		if !g.enter(t.Context(), false) {
			t.Fatal("the first has to wait")
		}
		var mu sync.Mutex
		var order []string
		var wg sync.WaitGroup
		refused := 0
		knock := func(name string, home bool) {
			wg.Go(func() {
				ok := g.enter(t.Context(), home)
				mu.Lock()
				defer mu.Unlock()
				if !ok {
					refused++
					return
				}
				order = append(order, name)
				g.leave()
			})
			synctest.Wait()
		}
		knock("stranger 1", false)
		knock("stranger 2", false)
		knock("stranger 3", false)
		knock("stranger 4", false) // no room
		knock("home", true)
		if g.waiting() != 4 || refused != 1 {
			t.Fatalf("%d wait, %d refused", g.waiting(), refused)
		}
		g.leave()
		wg.Wait()
		if len(order) != 4 || order[0] != "home" || order[1] != "stranger 1" {
			t.Errorf("order %q", order)
		}

		if !g.enter(t.Context(), false) {
			t.Fatal("a turn was lost")
		}
		begin := time.Now()
		if g.enter(t.Context(), true) || time.Since(begin) != time.Second {
			t.Errorf("waited %v", time.Since(begin))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if g.enter(ctx, true) || g.waiting() != 0 {
			t.Error("waits though nobody does")
		}
		g.leave()
		if !g.enter(t.Context(), false) {
			t.Error("a turn was lost")
		}
		// After a failure those from elsewhere pause, and those at home do not notice.
		g.rest(100 * time.Millisecond)
		begin = time.Now()
		if !g.enter(t.Context(), true) || time.Since(begin) != 0 {
			t.Errorf("somebody at home waits %v", time.Since(begin))
		}
		g.leave()
		if !g.enter(t.Context(), false) || time.Since(begin) != 400*time.Millisecond {
			t.Errorf("a pause of %v", time.Since(begin))
		}
		// Pauses add up, and the turn of somebody at home that ends within one does not end it.
		g.rest(50 * time.Millisecond)
		begin = time.Now()
		wg.Go(func() {
			if !g.enter(t.Context(), false) || time.Since(begin) != 200*time.Millisecond {
				t.Errorf("a pause of %v", time.Since(begin))
			}
			g.rest(200 * time.Millisecond)
		})
		synctest.Wait()
		if !g.enter(t.Context(), true) {
			t.Error("nobody at home comes in")
		}
		g.leave()
		wg.Wait()
		begin = time.Now()
		if !g.enter(t.Context(), false) || time.Since(begin) != 800*time.Millisecond {
			t.Errorf("a pause of %v", time.Since(begin))
		}
		g.leave()
	})
}
