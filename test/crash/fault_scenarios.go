package crash

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"
)

// How a server whose disk fails has to behave.
const (
	endsWithin = 8 * time.Second        // from the fault to the end of the process: goodbyes take 1 s, stuck parts 5 s
	lastWords  = 250 * time.Millisecond // a reply may be read so long after it was decided
)

// runSyncErrors is row L-3: a sync fails, once or from then on. At the seam the n-th sync of each directory fails,
// and on the real binary, where strace is installed, whichever comes first.
func runSyncErrors(ctx context.Context, t *Trial) (*Verdict, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the test program: %w", err)
	}
	seam, real := t.runs(8, 32), t.runs(3, 10)
	return perform(ctx, setting{binary: t.Binary, dir: t.Dir, seed: t.Seed}, func(ctx context.Context, s *stage) error {
		s.v.checks(Row)
		var slowest time.Duration
		ended := 0
		for n := range seam {
			f := &fault{Ops: []string{"sync"}, Error: "EIO", First: 1 + s.rand.IntN(50), Serves: n%4 != 0}
			f.Dirs = [][]string{{"journal"}, {"journal"}, {"journal"}, {"index"}, {"store"}}[n%5]
			if s.rand.IntN(2) == 0 {
				f.Times = 1
			}
			if f.Dirs[0] != "journal" {
				f.First, f.Serves = 1+s.rand.IntN(4), false // their syncs are rare, and most come at start
			}
			took, err := s.faultyLife(ctx, self, f, 3*time.Second)
			if err != nil {
				return fmt.Errorf("fault %d (%+v): %w", n+1, *f, err)
			}
			if took > 0 {
				ended++
			}
			slowest = max(slowest, took)
		}
		s.v.note("%d faults at the seam, %d ended the server, the slowest end %s after the fault", seam, ended,
			slowest.Round(time.Millisecond))
		if err := s.traceLives(ctx, real); err != nil {
			return err
		}
		return s.finish(ctx, nil, nil)
	})
}

// faultyLife is one life of a server whose file system fails. It returns how long the server lived after the fault,
// 0 if it did not end by itself within patience, which it must where the journal is concerned.
func (s *stage) faultyLife(ctx context.Context, self string, f *fault, patience time.Duration) (time.Duration, error) {
	p, err := s.launch(self, s.o.prefix, f.env())
	if err != nil {
		return 0, err
	}
	err = p.awaitReady(2 * readyLimit)
	if err == nil {
		s.door.set(p.address)
	} else if !errors.Is(err, errDied) {
		return 0, errors.Join(err, p.end())
	}
	return s.awaitFault(ctx, p, f.Dirs, patience)
}

// awaitFault waits until a server ends by itself, or long enough, and holds it to what it owes.
func (s *stage) awaitFault(ctx context.Context, p *process, dirs []string, patience time.Duration) (
	time.Duration, error) {
	for deadline := time.Now().Add(patience); p.alive(); {
		fault, failed, _ := p.trouble()
		if must := !failed.IsZero(); must && time.Since(failed) > endsWithin {
			s.v.breach(Row, "the server lives on %s after its journal failed", endsWithin)
			break
		} else if !must && time.Now().After(deadline) {
			if !fault.IsZero() && len(dirs) == 1 && dirs[0] == "journal" {
				s.v.breach(Row, "the server goes on after a failed sync of its journal")
			}
			break
		}
		if !pause(ctx, 10*time.Millisecond) {
			return 0, errors.Join(context.Cause(ctx), p.end())
		}
	}
	byItself := !p.alive()
	if err := p.end(); err != nil {
		return 0, err
	}
	s.door.set("")
	gone := time.Now()
	fault, failed, panics := p.trouble()
	for _, line := range panics {
		s.v.breach(Row, "the server: %s", line)
	}
	began := fault
	if began.IsZero() {
		began = failed // strace tells nobody when it made an error
	}
	k := kill{Started: p.started, Ready: p.readyAt, Began: began, Gone: gone, Fault: true}
	if began.IsZero() {
		k.Began = gone
	}
	s.kills.add(k)
	if !byItself {
		return 0, nil
	}
	if p.err == nil {
		s.v.breach(Row, "the server ended by itself with status 0")
	}
	if late := s.door.replies.look().lastAck.Sub(failed); !failed.IsZero() && late > lastWords {
		s.v.breach(Row, "a message was acknowledged %s after the journal failed", late.Round(time.Millisecond))
	}
	return gone.Sub(k.Began), nil
}

// alive reports that the process has not ended.
func (p *process) alive() bool {
	select {
	case <-p.gone:
		return false
	default:
		return true
	}
}

// traceLives has strace fail the syncs of the real binary, at random moments.
func (s *stage) traceLives(ctx context.Context, lives int) error {
	if _, err := exec.LookPath("strace"); err != nil {
		s.v.note("strace is not installed: no errors in system calls of the real binary")
		return nil
	}
	slowest := time.Duration(0)
	for n := range lives {
		p, err := s.start()
		if err != nil {
			return err
		}
		s.door.set(p.address)
		pause(ctx, s.between(100*time.Millisecond, time.Second))
		inject := "inject=fsync,fdatasync:error=EIO"
		if n%2 == 0 {
			inject += ":when=1" // of each thread
		}
		tracer := exec.CommandContext(ctx, "strace", "-f", "-q", "-o", "/dev/null", "-e", "trace=fsync,fdatasync",
			"-e", inject, "-p", strconv.Itoa(p.cmd.Process.Pid))
		if err := tracer.Start(); err != nil {
			return errors.Join(fmt.Errorf("strace: %w", err), p.end())
		}
		took, err := s.awaitFault(ctx, p, nil, 10*time.Second)
		if err := errors.Join(err, quiet(tracer.Wait())); err != nil {
			return err
		}
		if took == 0 {
			s.v.note("strace made no error in one life: tracing may be forbidden here")
		}
		slowest = max(slowest, took)
	}
	s.v.note("%d lives of the real binary under strace, the slowest end %s after the fault", lives,
		slowest.Round(time.Millisecond))
	return nil
}

// quiet drops the status of a process that was told to end.
func quiet(err error) error {
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil
	}
	return err
}

// runWriteErrors is row L-5: one operation on files in a hundred fails.
func runWriteErrors(ctx context.Context, t *Trial) (*Verdict, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the test program: %w", err)
	}
	rounds := t.runs(1, 4)
	return perform(ctx, setting{binary: t.Binary, dir: t.Dir, seed: t.Seed}, func(ctx context.Context, s *stage) error {
		s.v.checks(Row)
		ended := 0
		for round := range rounds {
			for i, name := range []string{"EROFS", "EDQUOT", "EMFILE", "ENOMEM"} {
				f := &fault{
					Ops:    []string{"sync", "write", "create", "open", "rename", "remove"},
					Error:  name,
					Share:  0.01,
					Seed:   s.rand.Uint64(),
					Serves: (round+i)%2 == 0, // else it begins while the server starts
				}
				took, err := s.faultyLife(ctx, self, f, 2*time.Second)
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				if took > 0 {
					ended++
				}
				// A life on a good disk shows that the server recovers from what this one left, and makes more mail.
				if err := s.killCycle(ctx); err != nil {
					return fmt.Errorf("after %s: %w", name, err)
				}
			}
		}
		s.v.note("%d lives, %d of them ended by the fault", 4*rounds, ended)
		return s.finish(ctx, nil, nil)
	})
}

// runSlowSyncs is row L-7: each sync takes 200 ms, then 2 s, then one takes very long.
func runSlowSyncs(ctx context.Context, t *Trial) (*Verdict, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the test program: %w", err)
	}
	o := setting{
		binary: t.Binary, dir: t.Dir, seed: t.Seed, submitters: t.pick(128, 256), largest: 16 << 10, pending: -1,
		config: serverConfig{drain: "60s", segment: "64MiB"},
	}
	return perform(ctx, o, func(ctx context.Context, s *stage) error {
		s.v.checks(Row)
		for _, c := range []struct {
			delay, life time.Duration
			first       int // sync, 0: all of them
		}{
			{200 * time.Millisecond, time.Duration(t.pick(4, 10)) * time.Second, 0},
			{2 * time.Second, time.Duration(t.pick(9, 20)) * time.Second, 0},
			{time.Duration(t.pick(6, 60)) * time.Second, time.Duration(t.pick(8, 64)) * time.Second, 20},
		} {
			f := &fault{Ops: []string{"sync"}, Dirs: []string{"journal"}, Delay: c.delay, Serves: true, First: c.first}
			if c.first > 0 {
				f.Times = 1
			}
			if err := s.slowLife(ctx, self, f, c.life); err != nil {
				return fmt.Errorf("syncs that take %s: %w", c.delay, err)
			}
		}
		return s.finish(ctx, nil, nil)
	})
}

// slowLife is one life of a server whose syncs take long.
func (s *stage) slowLife(ctx context.Context, self string, f *fault, life time.Duration) error {
	p, err := s.startAs(self, s.o.prefix, f.env())
	if err != nil {
		return err
	}
	s.door.replies.take()
	s.door.set(p.address)
	if f.Times > 0 {
		if err := s.stall(ctx, p, f.Delay); err != nil {
			return errors.Join(err, p.end())
		}
	} else {
		pause(ctx, life)
		a := s.door.replies.look()
		s.v.note("syncs of %s: %d messages in %s, replies after %s to %s", f.Delay, a.accepted, life,
			a.fastest.Round(time.Millisecond), a.slowest.Round(time.Millisecond))
		if a.accepted > 0 && a.fastest < f.Delay {
			s.v.breach(Row, "a message was acknowledged %s after it was sent, while each sync takes %s",
				a.fastest.Round(time.Millisecond), f.Delay)
		}
		// Whoever submits waits for the sync under way and for the next one, and all of them together.
		if least := s.o.submitters * int(life/(2*f.Delay)-1) / 2; a.accepted < least {
			s.v.breach(Row, "%d messages in %s with %d sessions and syncs of %s; group commit should make %d at least",
				a.accepted, life, s.o.submitters, f.Delay, least)
		}
	}
	err = p.stop(90 * time.Second)
	s.door.set("")
	if err != nil {
		return err
	}
	s.kills.add(kill{Started: p.started, Ready: p.readyAt})
	return context.Cause(ctx)
}

// stall looks at a server one of whose syncs takes very long: it may wait or refuse, acknowledge nothing, and go on
// afterwards.
func (s *stage) stall(ctx context.Context, p *process, d time.Duration) error {
	s.stalled = d
	var fault time.Time
	for deadline := time.Now().Add(10 * time.Second); fault.IsZero(); fault, _, _ = p.trouble() {
		if !pause(ctx, 5*time.Millisecond) || time.Now().After(deadline) {
			return errors.Join(errors.New("no sync was slow"), context.Cause(ctx))
		}
	}
	pause(ctx, lastWords)
	s.door.replies.take()
	pause(ctx, d/2)
	greeted := "a new session is greeted"
	if c, err := dial(ctx, p.address, "late.example"); err != nil {
		greeted = "a new session is not greeted: " + err.Error()
	} else if err := c.nc.Close(); err != nil {
		return err
	}
	pause(ctx, time.Until(fault.Add(d-200*time.Millisecond)))
	during := s.door.replies.take()
	if during.accepted > 0 {
		s.v.breach(Row, "%d messages were acknowledged while the disk stood still", during.accepted)
	}
	pause(ctx, 2*time.Second)
	after := s.door.replies.take()
	s.v.note("a sync of %s: meanwhile refused %v, %s; 2s later %d acknowledged, the slowest after %s", d, during.refused,
		greeted, after.accepted, after.slowest.Round(time.Millisecond))
	if after.accepted == 0 {
		s.v.breach(Row, "nothing is acknowledged 2s after the disk goes on")
	}
	return nil
}
