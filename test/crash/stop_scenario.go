package crash

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// stopsAccepting is how soon after SIGTERM the last 250 must have left, but for messages that were on their way.
const stopsAccepting = time.Second

// runStop is row L-8: orderly stops under load, and starts of the program from another file in turn, as an
// upgrade does; nothing may come twice. The last stop is hastened by a second signal.
func runStop(ctx context.Context, t *Trial) (*Verdict, error) {
	other := filepath.Join(t.Dir, "godwit-next")
	if err := copyFile(other, t.Binary, 0o700); err != nil {
		return nil, fmt.Errorf("install the program again: %w", err)
	}
	o := setting{binary: t.Binary, dir: t.Dir, seed: t.Seed, config: serverConfig{drain: "30s"}}
	slowest := time.Duration(0)
	return perform(ctx, o, func(ctx context.Context, s *stage) error {
		for n := range t.runs(3, 12) {
			binary := []string{s.o.binary, other}[n%2]
			took, err := s.stopCycle(ctx, binary)
			if err != nil {
				return fmt.Errorf("stop %d: %w", n+1, err)
			}
			slowest = max(slowest, took)
		}
		s.v.checks(Row)
		s.v.note("slowest orderly stop under load: %s", slowest.Round(time.Millisecond))
		if err := s.stopTwice(ctx); err != nil {
			return fmt.Errorf("two signals: %w", err)
		}
		return s.finish(ctx, nil, nil)
	})
}

// stopCycle is one life that ends by SIGTERM under load.
func (s *stage) stopCycle(ctx context.Context, binary string) (time.Duration, error) {
	p, err := s.startAs(binary, s.o.prefix)
	if err != nil {
		return 0, err
	}
	s.door.set(p.address)
	pause(ctx, s.between(300*time.Millisecond, longestLife))
	asked := time.Now()
	err = p.stop(40 * time.Second)
	took := time.Since(asked)
	s.door.set("")
	if err != nil {
		return took, err
	}
	s.kills.add(kill{Started: p.started, Ready: p.readyAt})
	if late := s.door.replies.look().lastAck.Sub(asked); late > stopsAccepting {
		s.v.breach(Row, "a message was acknowledged %s after SIGTERM", late.Round(time.Millisecond))
	}
	if took > 30*time.Second {
		s.v.breach(Row, "the server took %s to stop", took.Round(time.Millisecond))
	}
	return took, context.Cause(ctx)
}

// stopTwice sends a second signal while the server drains: it ends at once, which costs no more than a kill.
func (s *stage) stopTwice(ctx context.Context) error {
	p, err := s.start()
	if err != nil {
		return err
	}
	s.door.set(p.address)
	pause(ctx, s.between(300*time.Millisecond, longestLife))
	k := kill{Started: p.started, Ready: p.readyAt, Began: time.Now()}
	err = p.cmd.Process.Signal(syscall.SIGTERM)
	pause(ctx, 5*time.Millisecond)
	again := time.Now()
	if second := p.cmd.Process.Signal(syscall.SIGTERM); !errors.Is(second, os.ErrProcessDone) {
		err = errors.Join(err, second)
	}
	if err != nil {
		return errors.Join(err, p.end())
	}
	select {
	case <-p.gone:
	case <-time.After(2 * time.Second):
		s.v.breach(Row, "the server lived on for 2s after a second SIGTERM")
		if err := p.end(); err != nil {
			return err
		}
	}
	s.door.set("")
	s.v.note("end after a second SIGTERM: %s", time.Since(again).Round(time.Millisecond))
	k.Gone = time.Now()
	s.kills.add(k)
	return nil
}
