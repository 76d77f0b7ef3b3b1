package daemon

import (
	"context"
	"fmt"
	"sync"
)

// parts runs the goroutines of the daemon's parts. Each is stopped by its own hand, in the order that the data flows; one
// that ends by itself with an error ends the daemon.
type parts struct {
	failed chan error // first failure of a part that nobody had stopped
	wg     sync.WaitGroup
}

func newParts() *parts { return &parts{failed: make(chan error, 1)} }

// part is one running part.
type part struct {
	stop context.CancelFunc
	done chan struct{}
	err  error // valid once done is closed
}

// start runs one part until its context ends. Values of ctx reach it, its end does not: parts stop in their own order.
func (p *parts) start(ctx context.Context, name string, run func(context.Context) error) *part {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	t := &part{stop: cancel, done: make(chan struct{})}
	p.wg.Go(func() {
		defer close(t.done)
		defer cancel()
		if err := run(ctx); err != nil {
			t.err = fmt.Errorf("%s: %w", name, err)
		}
		if ctx.Err() != nil {
			return
		}
		err := t.err
		if err == nil {
			err = fmt.Errorf("%s ended by itself", name)
		}
		select {
		case p.failed <- err:
		default: // an earlier failure is the cause
		}
	})
	return t
}

// end stops the part and waits for it. Ending one twice, or one that never started, is harmless.
func (t *part) end() error {
	if t == nil {
		return nil
	}
	t.stop()
	<-t.done
	return t.err
}
