package crash

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// How long a life lasts from ready to the kill.
const (
	shortestLife = 50 * time.Millisecond
	longestLife  = 1500 * time.Millisecond
)

// runKill is row L-1.
func runKill(ctx context.Context, t *Trial) (*Verdict, error) {
	o := setting{binary: t.Binary, dir: t.Dir, seed: t.Seed}
	v, err := perform(ctx, o, func(ctx context.Context, s *stage) error {
		for cycle := range t.runs(8, 50) {
			if err := s.killCycle(ctx); err != nil {
				return fmt.Errorf("cycle %d: %w", cycle+1, err)
			}
			if (cycle+1)%10 == 0 {
				t.Log("%d kills", cycle+1)
			}
		}
		return s.finish(ctx, nil, nil)
	})
	if err == nil && (v.Delivered == 0 || v.Bounced == 0 || v.InFlight == 0) {
		v.breach(Row, "the load was too small to prove anything")
	}
	return v, err
}

// killCycle is one life of the server that ends in a kill under load, and sometimes one more that is killed as it
// starts.
func (s *stage) killCycle(ctx context.Context) error {
	if s.rand.IntN(4) == 0 {
		p, err := s.launch(s.o.binary, s.o.prefix)
		if err != nil {
			return err
		}
		pause(ctx, s.between(0, 150*time.Millisecond))
		k, err := p.kill()
		if err != nil {
			return err
		}
		s.kills.add(k)
	}
	p, err := s.start()
	if err != nil {
		return err
	}
	if err := s.liveFor(ctx, p, s.between(shortestLife, longestLife)); err != nil {
		return err
	}
	if err := s.killNow(p); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// liveFor lets a server that is ready take mail for so long. Sometimes what rests since an attempt was interrupted
// is told to go on in between.
func (s *stage) liveFor(ctx context.Context, p *process, life time.Duration) error {
	s.door.set(p.address)
	if retry := s.between(0, longestLife); retry < life {
		pause(ctx, retry)
		if err := s.retry(ctx); err != nil {
			return errors.Join(err, p.end())
		}
		life = time.Until(p.readyAt.Add(life))
	}
	pause(ctx, life)
	return nil
}
