package crash

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// runPowerCut is row L-2: the disk forgets what was not synced, at random moments under load and while the server
// starts. Lives are long enough for checkpoints of the index, which come every two seconds, and segments small
// enough to be removed all the time.
func runPowerCut(ctx context.Context, t *Trial) (_ *Verdict, err error) {
	d, err := newDisk(ctx, t.Dir, 1024, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	inside, outside := d.data()
	o := setting{
		binary: t.Binary, dir: t.Dir, seed: t.Seed, data: inside, seen: outside, prefix: d.prefix(),
		config: serverConfig{segment: "2MiB"},
	}
	cuts := t.runs(8, 50)
	v, err := perform(ctx, o, func(ctx context.Context, s *stage) error {
		for n := range cuts {
			if err := s.powerCycle(ctx, d); err != nil {
				return fmt.Errorf("cut %d: %w", n+1, err)
			}
			if (n+1)%10 == 0 {
				t.Log("%d power cuts", n+1)
			}
		}
		return s.finish(ctx, nil, nil)
	})
	if err == nil && (v.Delivered == 0 || v.Bounced == 0 || v.InFlight == 0) {
		v.breach(Row, "the load was too small to prove anything")
	}
	return v, err
}

// powerCycle is one life that ends by a power cut, sometimes before the server is ready.
func (s *stage) powerCycle(ctx context.Context, d *disk) error {
	p, err := s.launch(s.o.binary, s.o.prefix)
	if err != nil {
		return err
	}
	if s.rand.IntN(4) == 0 {
		pause(ctx, s.between(0, 250*time.Millisecond))
	} else {
		if err := p.awaitReady(2 * readyLimit); err != nil {
			return errors.Join(err, p.end())
		}
		life := s.between(shortestLife, longestLife)
		if s.rand.IntN(4) == 0 {
			life += 2 * time.Second // past a checkpoint
		}
		if err := s.liveFor(ctx, p, life); err != nil {
			return err
		}
	}
	k := kill{Started: p.started, Ready: p.readyAt, Began: time.Now()}
	if err := d.cutPower(); err != nil {
		return errors.Join(err, p.end())
	}
	k.Cut = time.Now()
	// A machine without power does nothing more. The process lives a moment longer, so that it can be seen to
	// acknowledge nothing that the disk does not have.
	pause(ctx, s.between(0, 600*time.Millisecond))
	err = p.end()
	s.door.set("")
	k.Gone = time.Now()
	s.kills.add(k)
	if err != nil {
		return err
	}
	if err := d.umount(ctx); err != nil {
		return err
	}
	return errors.Join(d.mount(ctx), context.Cause(ctx))
}
