package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godwit-mta/godwit/api"
)

// rig is a server that lives through a scenario: one process from begin to end, a world of its own, and ledgers outside
// of it.
type rig struct {
	*campaign
	p        *process
	address  string // where it takes mail
	client   *api.Client
	http     string // where it tells its metrics
	profiles string // and its profiles
	started  kill
	began    vitals

	stopWorld func()
	failed    func() error // what the world ended with
}

// rigOptions says what surrounds the server. The zero value is a world with nobody but the senders in it.
type rigOptions struct {
	providers []*provider
	zones     string   // more of DNS
	listener  string   // further keys of the listener, in YAML flow: "limits: {...}, ..."
	config    string   // further top-level keys
	retry     string   // "[1s, 1s, 2s]" if empty
	binary    string   // that of the trial if empty
	env       []string // of the server
	drain     time.Duration
}

// startRig opens a world and starts a server in it. Whoever gets a rig ends it by finish or close.
func startRig(ctx context.Context, t *Trial, o rigOptions) (_ *rig, err error) {
	c := &campaign{
		o:    Options{Binary: t.Binary, Dir: t.Dir, Seed: t.Seed, Drain: 90 * time.Second},
		rand: t.Rand(1000), door: newDoor(),
	}
	if o.drain > 0 {
		c.o.Drain = o.drain
	}
	if o.binary != "" {
		c.o.Binary = o.binary
	}
	r := &rig{campaign: c, stopWorld: func() {}, failed: func() error { return nil }}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if err := r.openLedgers(); err != nil {
		return nil, err
	}
	home := &provider{domain: homeDomain, address: "127.0.2.7"}
	c.world, err = newWorldOf(append(slices.Clone(o.providers), home), o.zones, c.sink, c.rand, func(int) {})
	if err != nil {
		return nil, err
	}
	if err := r.writeConfig(&o); err != nil {
		return nil, err
	}
	r.runWorld()
	if err := r.start(ctx, o.env); err != nil {
		return nil, err
	}
	r.began, err = r.vitals(ctx)
	return r, err
}

func (r *rig) openLedgers() error {
	for _, l := range []struct {
		to   **ledger
		name string
	}{{&r.submit, submitLedger}, {&r.sink, sinkLedger}, {&r.kills, killLedger}} {
		var err error
		if *l.to, err = newLedger(filepath.Join(r.o.Dir, l.name)); err != nil {
			return err
		}
	}
	file, err := os.Create(filepath.Join(r.o.Dir, "server.log"))
	if err != nil {
		return fmt.Errorf("make log: %w", err)
	}
	r.log = &serverLog{file: file}
	return nil
}

func (r *rig) writeConfig(o *rigOptions) error {
	retry := o.retry
	if retry == "" {
		retry = "[1s, 1s, 2s]"
	}
	listener := o.listener
	if listener == "" {
		listener = "limits: {}"
	}
	r.config = filepath.Join(r.o.Dir, "godwit.yaml")
	text := fmt.Sprintf(`hostname: godwit.crash.example
data_dir: %q
drain_timeout: 10s
listeners:
  - {name: %s, address: "127.0.0.1:0", trusted_networks: [127.0.0.0/8], %s}
http: {address: "127.0.0.1:0"}
delivery:
  port: %d
  allowed_networks: [127.0.0.0/8]
  retry: %s
  idle_timeout: 3s
dns: {servers: [%q], timeout: 1s}
journal: {segment_size: 8MiB}
events: {max_size: 64MiB, keep: 10000}
log: {format: json}
%s`, dataDir(r.o.Dir), listenerName, listener, r.world.port, retry, r.world.dns.Addr(), o.config)
	if err := os.WriteFile(r.config, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return nil
}

func (r *rig) runWorld() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.world.run(ctx) }()
	r.failed = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	r.stopWorld = cancel
}

// start starts the server, also again on the same data.
func (r *rig) start(ctx context.Context, env []string) error {
	cmd := exec.Command(r.o.Binary, "serve", "--config", r.config, "--pprof", "127.0.0.1:0")
	cmd.Env = append([]string{}, env...)
	p, err := startCommand(cmd, r.log)
	if err != nil {
		return err
	}
	r.p = p
	address, took, err := p.awaitReady(2 * readyLimit)
	if err != nil {
		return errors.Join(err, p.end())
	}
	r.address = address
	r.started = kill{Started: p.started, Ready: p.started.Add(took)}
	r.client = api.NewSocketClient(filepath.Join(dataDir(r.o.Dir), "admin.sock"))
	s, err := r.client.Status(ctx)
	if err != nil {
		return fmt.Errorf("status: %w", err)
	}
	r.http = s.HTTP
	r.profiles, err = r.lastProfiles()
	return err
}

// lastProfiles finds in the log where the process that runs now shows its profiles.
func (r *rig) lastProfiles() (string, error) {
	p, err := os.ReadFile(r.log.file.Name())
	if err != nil {
		return "", err
	}
	i := bytes.LastIndex(p, []byte(`"msg":"profiles","address":"`))
	if i < 0 {
		return "", errors.New("the server does not say where its profiles are")
	}
	address, _, _ := strings.Cut(string(p[i+len(`"msg":"profiles","address":"`):]), `"`)
	return address, nil
}

// stop ends the server in order and notes its life.
func (r *rig) stop() error {
	if r.p == nil {
		return nil
	}
	p := r.p
	r.p = nil
	r.client.Close()
	if err := p.stop(30 * time.Second); err != nil {
		return err
	}
	r.kills.add(r.started)
	return nil
}

// close ends what is left after an error.
func (r *rig) close() error {
	var errs []error
	if r.p != nil {
		errs = append(errs, r.p.end())
		r.p = nil
	}
	if err := r.failed(); err != nil {
		errs = append(errs, fmt.Errorf("simulated internet: %w", err))
	}
	return errors.Join(append(errs, r.campaign.close())...)
}

// finish lets the queue become empty, sees whether the process gives back what it used, stops it, and judges. The
// evidence is for the row's own condition.
func (r *rig) finish(ctx context.Context) (*Verdict, *evidence, error) {
	v := new(Verdict)
	err := r.drain(ctx, r.p)
	if err == nil {
		err = r.calm(ctx, v)
	}
	if err == nil {
		err = r.stop()
	}
	if err == nil {
		err = r.check(ctx)
	}
	if err = errors.Join(err, r.close()); err != nil {
		return nil, nil, fmt.Errorf("%w%s", err, r.log.tail())
	}
	e, err := readEvidence(r.o.Dir, eventsDir(r.o.Dir))
	if err != nil {
		return nil, nil, err
	}
	found := judge(e)
	found.checks(v.list()...)
	for _, b := range v.Cases {
		found.breach(b.Invariant, "%s", b.Text)
	}
	found.Notes = append(found.Notes, v.Notes...)
	found.Complaints, found.MoreComplaints = r.log.complaints, r.log.more
	for _, late := range r.late {
		found.breach(I7, "%s", late)
	}
	if r.damage != "" {
		found.breach(I1, "spool check of the stopped server: %s", r.damage)
	}
	found.compareStats(&r.stats)
	return found, e, nil
}

// list returns the invariants that were looked at.
func (v *Verdict) list() (list []Invariant) {
	for i, checked := range v.Checked {
		if checked {
			list = append(list, Invariant(i))
		}
	}
	return list
}

// abandon ends the rig after err.
func (r *rig) abandon(err error) error {
	tail := r.log.tail()
	return fmt.Errorf("%w%s", errors.Join(err, r.close()), tail)
}

// nudge makes all that waits due again and again until the returned function is called, as an impatient operator would:
// suspended destinations are asked at once, and a row need not wait for probes that are minutes apart.
func (r *rig) nudge(ctx context.Context, every time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		for pause(ctx, every) {
			_, _ = r.client.Act(ctx, api.Action{
				Verb: api.Retry, Selection: api.Selection{State: "waiting", All: true},
			}) // a try that fails is made again
		}
	})
	return func() { cancel(); done.Wait() }
}

// feed says what is submitted.
type feed struct {
	name     string // begins its tokens
	n        int    // messages; 0: until the context ends
	sessions int    // 0: 8
	rate     float64
	size     int // octets of the body, about; 0: 2,000
	silent   bool
	to       func(i int) []string
	patience time.Duration // of each exchange; 0: as ever
}

// fed is what became of it.
type fed struct {
	accepted, refused, unknown int
	waits                      []time.Duration // from MAIL to the final reply, of what was accepted
	err                        error           // the last of a session
}

// quantile returns the q-th of the waits.
func (f *fed) quantile(q float64) time.Duration {
	if len(f.waits) == 0 {
		return 0
	}
	slices.Sort(f.waits)
	return f.waits[min(int(q*float64(len(f.waits))), len(f.waits)-1)]
}

func (f *fed) String() string {
	return fmt.Sprintf("%d accepted, %d refused, %d unknown; accepted in %s (half), %s (99 %%)", f.accepted, f.refused,
		f.unknown, f.quantile(0.5).Round(10*time.Microsecond), f.quantile(0.99).Round(10*time.Microsecond))
}

// feed submits mail, and notes it in the ledger. It returns when all of it has had its try or ctx has ended.
func (r *rig) feed(ctx context.Context, f feed) *fed {
	if f.sessions == 0 {
		f.sessions = 8
	}
	if f.size == 0 {
		f.size = 2000
	}
	if f.name == "" {
		f.name = "m"
	}
	var next atomic.Int64
	var mu sync.Mutex
	var sum fed
	var all sync.WaitGroup
	begin := time.Now()
	text := newText(rand.NewPCG(r.o.Seed, 7))
	for s := range f.sessions {
		all.Go(func() {
			g := &feeder{feed: &f, rig: r, rand: rand.New(rand.NewPCG(r.o.Seed, uint64(2000+s))), text: text}
			defer func() {
				g.hangUp()
				mu.Lock()
				defer mu.Unlock()
				sum.accepted += g.sum.accepted
				sum.refused += g.sum.refused
				sum.unknown += g.sum.unknown
				sum.waits = append(sum.waits, g.sum.waits...)
				sum.err = errors.Join(sum.err, g.sum.err)
			}()
			for {
				i := int(next.Add(1) - 1)
				if f.n > 0 && i >= f.n || ctx.Err() != nil {
					return
				}
				if f.rate > 0 && !pause(ctx, time.Until(begin.Add(time.Duration(float64(i)/f.rate*float64(time.Second))))) {
					return
				}
				g.submit(ctx, i)
			}
		})
	}
	all.Wait()
	return &sum
}

// feeder is one session, opened again when it ends.
type feeder struct {
	*feed
	rig  *rig
	rand *rand.Rand
	text *text
	c    *session
	sum  fed
}

func (g *feeder) hangUp() {
	if g.c != nil {
		_, _ = g.c.ask("QUIT\r\n") // it may have gone
		_ = g.c.nc.Close()
		g.c = nil
	}
}

// submit makes one message and hands it in. Without a session it waits for one: the message begins only then.
func (g *feeder) submit(ctx context.Context, i int) {
	for g.c == nil {
		c, err := dial(ctx, g.rig.address, "feeder.example")
		if err == nil {
			g.c = c
			break
		}
		g.sum.err = err
		if !pause(ctx, 20*time.Millisecond) {
			return
		}
	}
	p := g.plan(i)
	begin := p.submission
	begin.Time = time.Now()
	g.rig.submit.add(begin)
	end, err := p.submit(g.c)
	end.Token, end.Time = p.Token, time.Now()
	if err != nil {
		end.Err = err.Error()
		g.sum.err = err
	}
	g.rig.submit.add(end)
	switch end.Outcome {
	case accepted:
		g.sum.accepted++
		g.sum.waits = append(g.sum.waits, end.Time.Sub(begin.Time))
	case refused:
		g.sum.refused++
	default:
		g.sum.unknown++
	}
	if err != nil {
		_ = g.c.nc.Close()
		g.c = nil
	}
}

func (g *feeder) plan(i int) *plan {
	p := &plan{submission: submission{Token: fmt.Sprintf("%s.%d@%s", g.name, i, homeDomain)}}
	p.To, p.Silent = g.to(i), g.silent
	p.pipelined = g.rand.IntN(2) == 0
	p.chunks = g.rand.IntN(3)
	head := fmt.Appendf(nil, "Message-ID: <%s>\r\nFrom: Crash <%s>\r\nSubject: %s\r\n\r\n", p.Token, sender, p.Token)
	p.content = slices.Concat(head, g.text.cut(g.rand, g.size/2+g.rand.IntN(g.size)))
	p.seal()
	return p
}

// cut returns about n octets of whole lines.
func (t *text) cut(r *rand.Rand, n int) []byte {
	from := t.lines[r.IntN(len(t.lines))]
	body := t.octets[from : from+n]
	return body[:bytes.LastIndexByte(body, '\n')+1]
}
