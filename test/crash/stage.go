package crash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/godwit-mta/godwit/api"
)

// setting is what a scenario of mail needs. Binary and dir are needed.
type setting struct {
	binary string // the server
	dir    string // for data, ledgers and logs; on a real disk, or syncs mean nothing. It must be empty
	data   string // the server's data directory as it sees it; default: data in dir
	seen   string // the same directory as the harness sees it; default: the same
	seed   uint64

	prefix  []string // stands in front of the server's command line
	config  serverConfig
	down    bool     // mailbox providers take nothing until world.setDown(false)
	profile bool     // the server serves profiles, so that G-1 can be looked at
	plain   bool     // all that is submitted is fine
	sites   []string // domains of recipients; default: all of them

	submitters int           // sessions that submit at once; default 16
	largest    int           // octets of a message; default 200 KiB
	pending    int64         // recipients on their way at which submitters wait; default 3,000, negative: never
	drain      time.Duration // how long the queue may take to become empty at the end; default 90 s
	calm       time.Duration // how long it must be empty: a report may still have to be made; default 1 s
}

func (o setting) filled() setting {
	if o.data == "" {
		o.data = filepath.Join(o.dir, "data")
	}
	if o.seen == "" {
		o.seen = o.data
	}
	if o.submitters == 0 {
		o.submitters = 16
	}
	if o.largest == 0 {
		o.largest = largest
	}
	if o.pending == 0 {
		o.pending = mostPending
	}
	if len(o.sites) == 0 {
		o.sites = sites
	}
	if o.calm == 0 {
		o.calm = time.Second
	}
	if o.drain == 0 {
		o.drain = 90 * time.Second
	}
	return o
}

// readyLimit is invariant I6. The process is given a little longer, so that the judge sees how long it took.
const readyLimit = 10 * time.Second

// stage is what scenarios of mail are played on: ledgers, a simulated internet, submitters, and the server's
// configuration and log. It outlives the server, which dies often.
type stage struct {
	o      setting
	rand   *rand.Rand
	door   *door
	world  *world
	submit *ledger
	sink   *ledger
	kills  *ledger
	log    *serverLog
	config string

	submitCtx      context.Context
	stopSubmitting context.CancelFunc
	submitters     sync.WaitGroup
	text           *text
	names          int // submitters so far

	late   []string // entries that were seen long after they were due
	stats  api.SpoolStats
	damage string // what spool check complained of

	stalled time.Duration // how long the disk stood still
	v       Verdict
}

// perform plays act, with world and submitters running beside it, and judges what the ledgers say at its end. Usually
// act ends with [stage.finish]. The error says that the scenario could not be carried out, also because the server
// ended by itself or did not stop; what it did wrong otherwise is in the verdict.
func perform(ctx context.Context, o setting, act func(ctx context.Context, s *stage) error) (*Verdict, error) {
	s := &stage{o: o.filled(), rand: rand.New(rand.NewPCG(o.seed, 0)), door: newDoor(o.pending)}
	if err := s.open(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	err := errors.Join(s.play(ctx, act), s.close())
	if err != nil {
		return nil, fmt.Errorf("%w%s", err, s.log.tail())
	}
	e, err := readEvidence(o.dir, filepath.Join(s.o.seen, "events"))
	if err != nil {
		return nil, err
	}
	e.stalled = s.stalled
	v := judge(e)
	v.merge(&s.v)
	v.Seed, v.Complaints, v.MoreComplaints = o.seed, s.log.complaints, s.log.more
	for _, late := range s.late {
		v.breach(I7, "%s", late)
	}
	if s.damage != "" {
		v.breach(I1, "spool check of the stopped server: %s", s.damage)
	}
	v.compareStats(&s.stats)
	return v, nil
}

// open makes ledgers and sockets; nothing runs yet.
func (s *stage) open() error {
	for _, l := range []struct {
		to   **ledger
		name string
	}{{&s.submit, submitLedger}, {&s.sink, sinkLedger}, {&s.kills, killLedger}} {
		var err error
		if *l.to, err = newLedger(filepath.Join(s.o.dir, l.name)); err != nil {
			return err
		}
	}
	file, err := os.Create(filepath.Join(s.o.dir, "server.log"))
	if err != nil {
		return fmt.Errorf("make log: %w", err)
	}
	s.log = &serverLog{file: file}
	if s.world, err = newWorld(s.sink, s.rand, func(n int) { s.door.pending.Add(int64(-n)) }); err != nil {
		return err
	}
	if s.o.down {
		if err := s.world.setDown(true); err != nil {
			return err
		}
	}
	s.config, err = s.o.config.write(s.o.dir, s.o.data, s.world)
	return err
}

func (s *stage) close() error {
	var errs []error
	for _, l := range []*ledger{s.submit, s.sink, s.kills} {
		if l != nil {
			errs = append(errs, l.close())
		}
	}
	if s.log != nil {
		errs = append(errs, s.log.file.Close())
	}
	if s.world != nil {
		s.world.close()
	}
	return errors.Join(errs...)
}

// play runs world and submitters beside act, and returns when all have ended.
func (s *stage) play(ctx context.Context, act func(context.Context, *stage) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var world sync.WaitGroup
	defer world.Wait()
	worldCtx, stopWorld := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWorld()
	world.Go(func() {
		if err := s.world.run(worldCtx); err != nil {
			cancel(fmt.Errorf("simulated internet: %w", err))
		}
	})
	s.submitCtx, s.stopSubmitting = context.WithCancel(ctx)
	defer s.submitters.Wait()
	defer s.stopSubmitting()
	s.text = newText(rand.NewPCG(s.o.seed, 1))
	s.addSubmitters(s.o.submitters)
	if err := act(ctx, s); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// addSubmitters lets n more sessions submit until s.endLoad. They wait while there is no server.
func (s *stage) addSubmitters(n int) {
	for range n {
		i := s.names
		s.names++
		sub := &submitter{door: s.door, ledger: s.submit, rand: rand.New(rand.NewPCG(s.o.seed, uint64(100+i)))}
		sub.shaper = &shaper{
			rand: sub.rand, name: strconv.Itoa(i), text: s.text, largest: s.o.largest, plain: s.o.plain, sites: s.o.sites,
		}
		s.submitters.Go(func() { sub.run(s.submitCtx) })
	}
}

// endLoad lets all submissions come to their end.
func (s *stage) endLoad() {
	s.stopSubmitting()
	s.submitters.Wait()
}

// start starts the server and waits until it takes mail. Submitters are not told.
func (s *stage) start(env ...string) (*process, error) {
	return s.startAs(s.o.binary, s.o.prefix, env...)
}

// startAs starts the server from another file, or with another prefix.
func (s *stage) startAs(binary string, prefix []string, env ...string) (*process, error) {
	p, err := s.launch(binary, prefix, env...)
	if err != nil {
		return nil, err
	}
	if err := p.awaitReady(2 * readyLimit); err != nil {
		return nil, errors.Join(err, p.end())
	}
	return p, nil
}

// launch starts the server and does not wait.
func (s *stage) launch(binary string, prefix []string, env ...string) (*process, error) {
	args := append(append([]string{}, prefix...), binary, "serve", "--config", s.config)
	if s.o.profile {
		args = append(args, "--pprof", "127.0.0.1:0")
	}
	return startProcess(args, env, s.log)
}

// killNow ends the life of a server under load by SIGKILL and enters it into the ledger.
func (s *stage) killNow(p *process) error {
	k, err := p.kill()
	s.door.set("")
	if err != nil {
		return err
	}
	k.Ready = p.readyAt
	s.kills.add(k)
	return nil
}

// end makes sure that no process is left behind after an error.
func (p *process) end() error {
	select {
	case <-p.gone:
		return nil
	default:
	}
	_, err := p.kill()
	return err
}

// client returns a client of the admin socket.
func (s *stage) client() *api.Client {
	return api.NewSocketClient(filepath.Join(s.o.seen, "admin.sock"))
}

// retry does what an operator does after a crash: what rests since its attempt was interrupted goes on now. Like
// all of them this act may be cut by the kill.
func (s *stage) retry(ctx context.Context) error {
	client := s.client()
	defer client.Close()
	_, err := client.Act(ctx, api.Action{Verb: api.Retry, Selection: api.Selection{State: "waiting", All: true}})
	if err != nil {
		return fmt.Errorf("retry: %w", err)
	}
	return nil
}

// finish ends the load, waits until the server p holds no mail, looks at what it still uses if before is not nil,
// stops it in order, and has the server's own tool check what is left. A nil p is started.
func (s *stage) finish(ctx context.Context, p *process, before *usage) error {
	s.endLoad()
	if p == nil {
		var err error
		if p, err = s.start(); err != nil {
			return err
		}
	}
	err := s.retry(ctx)
	if err == nil {
		err = s.drain(ctx, p)
	}
	if err == nil && before != nil {
		err = s.compareUsage(ctx, p, before)
	}
	if err != nil {
		return errors.Join(err, p.end())
	}
	last := kill{Started: p.started, Ready: p.readyAt}
	if err := p.stop(30 * time.Second); err != nil {
		return err
	}
	s.kills.add(last)
	return s.check(ctx)
}

// checkLimit bounds `godwit spool check`.
const checkLimit = 2 * time.Minute

// check has the server's own tool look at what is left on the disk.
func (s *stage) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	args := append(append([]string{}, s.o.prefix...), s.o.binary, "spool", "check", "--config", s.config)
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if _, found := errors.AsType[*exec.ExitError](err); found && ctx.Err() == nil {
		s.damage = string(out)
		return nil
	}
	if err != nil {
		return fmt.Errorf("spool check: %w", errors.Join(err, context.Cause(ctx)))
	}
	return nil
}

// drain waits until the spool is empty or the time is up; what is then left will be found by the judge.
func (s *stage) drain(ctx context.Context, p *process) error {
	client := s.client()
	defer client.Close()
	deadline := time.Now().Add(s.o.drain)
	for empty := time.Now(); ; {
		var err error
		if s.stats, err = client.SpoolStats(ctx); err != nil {
			return fmt.Errorf("drain: %w", err)
		}
		list, err := client.Queues(ctx, api.QueueQuery{})
		if err != nil {
			return fmt.Errorf("drain: %w", err)
		}
		if s.stats.Queued > 0 {
			empty = time.Now()
		}
		if time.Since(empty) >= s.o.calm {
			return nil
		}
		if time.Now().After(deadline) {
			for _, q := range list.Queues {
				s.late = append(s.late, fmt.Sprintf("after %s the queue %s has %d entries waiting, %d claimed, %d held: %s",
					s.o.drain, q.Domain, q.Waiting, q.Claimed, q.Held, q.Why.Text))
			}
			return nil
		}
		select {
		case <-p.gone:
			return fmt.Errorf("%w: %v", errDied, p.err)
		default:
		}
		if !pause(ctx, 50*time.Millisecond) {
			return context.Cause(ctx)
		}
	}
}

func (s *stage) between(low, high time.Duration) time.Duration {
	return low + time.Duration(s.rand.Int64N(int64(high-low)))
}
