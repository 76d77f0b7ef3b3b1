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

// Options configures a campaign. Binary and Dir are needed.
type Options struct {
	Binary string // the server
	Dir    string // for data, ledgers and logs; on a real disk, or syncs mean nothing. It must be empty
	Seed   uint64
	Cycles int // lives that end by SIGKILL while mail is taken; default 50

	Submitters int           // sessions that submit at once; default 16
	Shortest   time.Duration // a life from ready to the kill; default 50 ms
	Longest    time.Duration // default 1,500 ms
	Drain      time.Duration // how long the queue may take to become empty at the end; default 90 s

	Progress func(cycle int) // called after each kill; may be nil
}

func (o Options) withDefaults() (Options, error) {
	if o.Cycles == 0 {
		o.Cycles = 50
	}
	if o.Submitters == 0 {
		o.Submitters = 16
	}
	if o.Shortest == 0 {
		o.Shortest = 50 * time.Millisecond
	}
	if o.Longest == 0 {
		o.Longest = 1500 * time.Millisecond
	}
	if o.Drain == 0 {
		o.Drain = 90 * time.Second
	}
	switch {
	case o.Binary == "" || o.Dir == "":
		return o, errors.New("crash: Binary or Dir is missing")
	case o.Cycles < 1 || o.Submitters < 1 || o.Shortest < 0 || o.Longest <= o.Shortest || o.Drain < 0:
		return o, errors.New("crash: a number is out of range")
	}
	return o, nil
}

// readyLimit is invariant I6. The process is given a little longer, so that the judge sees how long it took.
const readyLimit = 10 * time.Second

// campaign is one run.
type campaign struct {
	o      Options
	rand   *rand.Rand
	door   *door
	world  *world
	submit *ledger
	sink   *ledger
	kills  *ledger
	log    *serverLog
	config string
	late   []string // entries that were seen long after they were due
	stats  api.SpoolStats
	damage string // what spool check complained of
}

// Run kills and starts the server as often as asked, lets it empty its queue, and judges. The error says that the
// campaign could not be carried out, also because the server ended by itself or did not stop; what it did wrong
// otherwise is in the verdict.
func Run(ctx context.Context, o Options) (v *Verdict, err error) {
	if o, err = o.withDefaults(); err != nil {
		return nil, err
	}
	c := &campaign{o: o, rand: rand.New(rand.NewPCG(o.Seed, 0)), door: newDoor()}
	if err := c.open(); err != nil {
		return nil, errors.Join(err, c.close())
	}
	err = errors.Join(c.play(ctx), c.close())
	if err != nil {
		return nil, fmt.Errorf("%w%s", err, c.log.tail())
	}
	e, err := readEvidence(o.Dir, eventsDir(o.Dir))
	if err != nil {
		return nil, err
	}
	v = judge(e)
	v.Seed, v.Complaints, v.MoreComplaints = o.Seed, c.log.complaints, c.log.more
	for _, late := range c.late {
		v.breach(I7, "%s", late)
	}
	if c.damage != "" {
		v.breach(I1, "spool check of the stopped server: %s", c.damage)
	}
	v.compareStats(&c.stats)
	return v, nil
}

// open makes ledgers and sockets; nothing runs yet.
func (c *campaign) open() error {
	for _, l := range []struct {
		to   **ledger
		name string
	}{{&c.submit, submitLedger}, {&c.sink, sinkLedger}, {&c.kills, killLedger}} {
		var err error
		if *l.to, err = newLedger(filepath.Join(c.o.Dir, l.name)); err != nil {
			return err
		}
	}
	file, err := os.Create(filepath.Join(c.o.Dir, "server.log"))
	if err != nil {
		return fmt.Errorf("make log: %w", err)
	}
	c.log = &serverLog{file: file}
	if c.world, err = newWorld(c.sink, c.rand, func(n int) { c.door.pending.Add(int64(-n)) }); err != nil {
		return err
	}
	c.config, err = writeConfig(c.o.Dir, c.world)
	return err
}

func (c *campaign) close() error {
	var errs []error
	for _, l := range []*ledger{c.submit, c.sink, c.kills} {
		if l != nil {
			errs = append(errs, l.close())
		}
	}
	if c.log != nil {
		errs = append(errs, c.log.file.Close())
	}
	if c.world != nil {
		c.world.close()
	}
	return errors.Join(errs...)
}

// play runs world and submitters beside the server, and returns when all have ended.
func (c *campaign) play(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var world, submitters sync.WaitGroup
	defer world.Wait()
	worldCtx, stopWorld := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWorld()
	world.Go(func() {
		if err := c.world.run(worldCtx); err != nil {
			cancel(fmt.Errorf("simulated internet: %w", err))
		}
	})
	submitCtx, stopSubmitting := context.WithCancel(ctx)
	defer submitters.Wait()
	defer stopSubmitting()
	text := newText(rand.NewPCG(c.o.Seed, 1))
	for i := range c.o.Submitters {
		s := &submitter{door: c.door, ledger: c.submit, rand: rand.New(rand.NewPCG(c.o.Seed, uint64(100+i)))}
		s.shaper = &shaper{rand: s.rand, name: strconv.Itoa(i), text: text}
		submitters.Go(func() { s.run(submitCtx) })
	}
	for cycle := range c.o.Cycles {
		if err := c.cycle(ctx); err != nil {
			return fmt.Errorf("cycle %d: %w", cycle+1, err)
		}
		if c.o.Progress != nil {
			c.o.Progress(cycle + 1)
		}
	}
	stopSubmitting()
	submitters.Wait()
	return c.finish(ctx)
}

// cycle is one life of the server that ends in a kill under load, and sometimes one more that is killed as it starts.
func (c *campaign) cycle(ctx context.Context) error {
	if c.rand.IntN(4) == 0 {
		p, err := startProcess(c.o.Binary, c.config, c.log)
		if err != nil {
			return err
		}
		pause(ctx, c.between(0, 150*time.Millisecond))
		k, err := p.kill()
		if err != nil {
			return err
		}
		c.kills.add(k)
	}
	p, address, took, err := c.start()
	if err != nil {
		return err
	}
	ready := p.started.Add(took)
	c.door.set(address)
	life := c.between(c.o.Shortest, c.o.Longest)
	retry := c.between(0, c.o.Longest)
	if retry < life {
		pause(ctx, retry)
		if err := c.retry(ctx); err != nil {
			return errors.Join(err, p.end())
		}
		life = time.Until(ready.Add(life))
	}
	pause(ctx, life)
	k, err := p.kill()
	c.door.set("")
	if err != nil {
		return err
	}
	k.Ready = ready
	c.kills.add(k)
	return context.Cause(ctx)
}

// start starts the server and waits until it takes mail.
func (c *campaign) start() (*process, string, time.Duration, error) {
	p, err := startProcess(c.o.Binary, c.config, c.log)
	if err != nil {
		return nil, "", 0, err
	}
	address, took, err := p.awaitReady(2 * readyLimit)
	if err != nil {
		return nil, "", 0, errors.Join(err, p.end())
	}
	return p, address, took, nil
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

// retry does what an operator does after a crash: what rests since its attempt was interrupted goes on now. Like all of
// them this act may be cut by the kill.
func (c *campaign) retry(ctx context.Context) error {
	client := api.NewSocketClient(filepath.Join(dataDir(c.o.Dir), "admin.sock"))
	defer client.Close()
	_, err := client.Act(ctx, api.Action{Verb: api.Retry, Selection: api.Selection{State: "waiting", All: true}})
	if err != nil {
		return fmt.Errorf("retry: %w", err)
	}
	return nil
}

// finish starts the server for the last time, waits until it holds no mail, and stops it in order.
func (c *campaign) finish(ctx context.Context) error {
	p, _, took, err := c.start()
	if err != nil {
		return err
	}
	err = c.retry(ctx)
	if err == nil {
		err = c.drain(ctx, p)
	}
	if err != nil {
		return errors.Join(err, p.end())
	}
	last := kill{Started: p.started, Ready: p.started.Add(took)}
	if err := p.stop(30 * time.Second); err != nil {
		return err
	}
	c.kills.add(last)
	return c.check(ctx)
}

// checkLimit bounds `godwit spool check`.
const checkLimit = 2 * time.Minute

// check has the server's own tool look at what is left on the disk.
func (c *campaign) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, c.o.Binary, "spool", "check", "--config", c.config).CombinedOutput()
	if _, found := errors.AsType[*exec.ExitError](err); found && ctx.Err() == nil {
		c.damage = string(out)
		return nil
	}
	if err != nil {
		return fmt.Errorf("spool check: %w", errors.Join(err, context.Cause(ctx)))
	}
	return nil
}

// drain waits until the spool is empty or the time is up; what is then left will be found by the judge.
func (c *campaign) drain(ctx context.Context, p *process) error {
	client := api.NewSocketClient(filepath.Join(dataDir(c.o.Dir), "admin.sock"))
	defer client.Close()
	deadline := time.Now().Add(c.o.Drain)
	for empty := 0; ; {
		var err error
		if c.stats, err = client.SpoolStats(ctx); err != nil {
			return fmt.Errorf("drain: %w", err)
		}
		list, err := client.Queues(ctx, api.QueueQuery{})
		if err != nil {
			return fmt.Errorf("drain: %w", err)
		}
		if empty++; c.stats.Queued > 0 {
			empty = 0
		}
		if empty == 20 { // a report may still have followed the last failure
			return nil
		}
		if time.Now().After(deadline) {
			for _, q := range list.Queues {
				c.late = append(c.late, fmt.Sprintf("after %s the queue %s has %d entries waiting, %d claimed, %d held: %s",
					c.o.Drain, q.Domain, q.Waiting, q.Claimed, q.Held, q.Why.Text))
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

func (c *campaign) between(low, high time.Duration) time.Duration {
	return low + time.Duration(c.rand.Int64N(int64(high-low)))
}

// tail returns the last complaints of the server, to stand below an error.
func (l *serverLog) tail() string {
	if l == nil {
		return ""
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var text string
	for _, line := range l.complaints {
		text += "\n  server: " + line
	}
	return text
}
