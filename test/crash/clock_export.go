package crash

import (
	"context"
	"time"
)

// BuildWithClock builds the server into dir with a clock that can be set, and returns its name. A *SkipError says that this
// machine cannot.
func BuildWithClock(ctx context.Context, dir string) (string, error) { return buildWithClock(ctx, dir) }

// Clock sets the clock of servers from BuildWithClock that are started with its variable.
type Clock struct{ wall *wallClock }

// NewClock makes a clock, which is right at first, in dir.
func NewClock(dir string) (*Clock, error) {
	w, err := newWallClock(dir)
	return &Clock{w}, err
}

// Env is the variable of the environment that a server finds the clock by.
func (c *Clock) Env() string { return c.wall.env() }

// Step sets the clock forward by d, or back, in whole seconds.
func (c *Clock) Step(d time.Duration) { c.wall.step(d) }

// Close ends the use of the clock.
func (c *Clock) Close() error { return c.wall.close() }
