package crash

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of row L-4.
const (
	diskMiB     = 256
	fullWithin  = 3 * time.Minute  // for the load to fill the disk
	freeWithin  = time.Minute      // for deliveries to free a good part of it
	takesWithin = 10 * time.Second // from then on, until mail is taken again
	fullReply   = "452 4.3.1"
	spareInodes = 32 // left by whoever takes the others
)

// runDiskFull is row L-4: the disk fills up while no provider takes mail, stays full under load, and is freed by
// deliveries. Then its inodes run out.
func runDiskFull(ctx context.Context, t *Trial) (_ *Verdict, err error) {
	d, err := newDisk(ctx, t.Dir, diskMiB, 1024)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	inside, outside := d.data()
	o := setting{
		binary: t.Binary, dir: t.Dir, seed: t.Seed, data: inside, seen: outside, prefix: d.prefix(),
		down: true, pending: -1, profile: true,
		calm:   15 * time.Second, // a report that found no room is tried again after 10 s
		config: serverConfig{retry: "[10s]"},
	}
	return perform(ctx, o, func(ctx context.Context, s *stage) error {
		s.v.checks(Row)
		p, err := s.start()
		if err != nil {
			return err
		}
		before, err := s.afterWork(ctx, p)
		if err == nil {
			s.door.set(p.address)
			err = s.fillUp(ctx, p, time.Duration(t.pick(4, 15))*time.Second)
		}
		if err == nil {
			err = s.exhaustInodes(ctx, p, d.seen(d.point))
		}
		if err != nil {
			return errors.Join(err, p.end())
		}
		return s.finish(ctx, p, before)
	})
}

// fillUp lets mail fill the disk, holds it full for some time, and lets deliveries free it.
func (s *stage) fillUp(ctx context.Context, p *process, stay time.Duration) error {
	began := time.Now()
	if err := s.awaitReply(ctx, p, fullReply, fullWithin); err != nil {
		return err
	}
	free, err := freeSpace(s.o.seen)
	if err != nil {
		return err
	}
	s.v.note("the first %s after %s, with %.0f MiB of %d free", fullReply, time.Since(began).Round(time.Millisecond),
		mib(free), diskMiB)
	least := free
	for until := time.Now().Add(stay); time.Now().Before(until) && p.alive(); pause(ctx, 20*time.Millisecond) {
		if free, err = freeSpace(s.o.seen); err != nil {
			return err
		}
		least = min(least, free)
	}
	if !p.alive() {
		return fmt.Errorf("the disk is full, and %w: %v", errDied, p.err)
	}
	a := s.door.replies.take()
	s.v.note("%s at the brim: refused %v; least space left %.1f MiB", stay, a.refused, mib(least))
	for code := range a.refused {
		if code != fullReply && code[0] == '4' && code != "452 4.5.3" {
			s.v.breach(Row, "a message was refused with %s while the disk was full", code)
		}
	}
	if err := s.world.setDown(false); err != nil {
		return err
	}
	// Submitters go on, so that mail is taken as soon as may be; the reserve is what is free now and then something.
	opened := time.Now()
	if err := s.retry(ctx); err != nil {
		return err
	}
	var room time.Time
	for room.IsZero() {
		if free, err = freeSpace(s.o.seen); err != nil {
			return err
		}
		if free > 96<<20 { // the default reserve and four segments
			room = time.Now()
		}
		if s.door.replies.look().accepted > 0 {
			break
		}
		if time.Since(opened) > freeWithin {
			s.v.breach(Row, "deliveries have not freed the disk within %s: %.0f MiB are free", freeWithin, mib(free))
			return nil
		}
		pause(ctx, 10*time.Millisecond)
	}
	if room.IsZero() {
		room = time.Now()
	}
	for s.door.replies.look().accepted == 0 {
		if time.Since(room) > takesWithin {
			s.v.breach(Row, "mail is not taken again %s after there was room", takesWithin)
			return nil
		}
		pause(ctx, 10*time.Millisecond)
	}
	s.v.note("deliveries made room %s after providers were back, and mail was taken again %s later",
		room.Sub(opened).Round(time.Millisecond), time.Since(room).Round(time.Millisecond))
	return nil
}

// awaitReply waits until submitters are told this code, by a server that lives.
func (s *stage) awaitReply(ctx context.Context, p *process, code string, limit time.Duration) error {
	for deadline := time.Now().Add(limit); s.door.replies.look().refused[code] == 0; {
		switch {
		case !p.alive():
			return fmt.Errorf("before any %s: %w: %v", code, errDied, p.err)
		case time.Now().After(deadline):
			return fmt.Errorf("nobody was told %s within %s; told were %v", code, limit, s.door.replies.look().refused)
		case !pause(ctx, 10*time.Millisecond):
			return context.Cause(ctx)
		}
	}
	return nil
}

// exhaustInodes takes all inodes of the disk, sees what the server does, and gives them back.
func (s *stage) exhaustInodes(ctx context.Context, p *process, dir string) error {
	dir = filepath.Join(dir, "filler")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	n := 0
	for ; ; n++ {
		left, err := freeInodes(dir)
		if err != nil {
			return err
		}
		if left <= spareInodes {
			break
		}
		if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(n)), nil, 0o600); err != nil {
			return err
		}
	}
	pause(ctx, time.Second) // the server need not look more often
	s.door.replies.take()
	for until := time.Now().Add(5 * time.Second); time.Now().Before(until) && p.alive(); {
		pause(ctx, 50*time.Millisecond)
	}
	during := s.door.replies.take()
	s.v.note("%d files left %d inodes: for 5s %d messages were accepted and %v refused", n, spareInodes, during.accepted,
		during.refused)
	alive := p.alive()
	if alive && during.accepted == 0 && during.refused[fullReply] == 0 {
		s.v.breach(Row, "without inodes nobody was told %s, but %v", fullReply, during.refused)
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if !alive {
		s.v.breach(Row, "the server ended when the disk had no inodes left")
		return fmt.Errorf("no inodes are left, and %w: %v", errDied, p.err)
	}
	for until := time.Now().Add(takesWithin); s.door.replies.look().accepted == 0; {
		if time.Now().After(until) {
			s.v.breach(Row, "mail is not taken again %s after there were inodes", takesWithin)
			break
		}
		pause(ctx, 10*time.Millisecond)
	}
	return nil
}

func freeInodes(path string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, fmt.Errorf("free inodes of %s: %w", path, err)
	}
	return st.Ffree, nil
}

func freeSpace(path string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", path, err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

// copyFile copies a file and makes it durable.
func copyFile(to, from string, mode os.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}
