package crash

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godwit-mta/godwit/api"
)

// rig is a server that lives through a scenario: one process from begin to end, in a world of the row's own.
type rig struct {
	*stage
	p       *process
	began   *usage // before anything was asked of it
	env     []string
	address string // where it takes mail

	leave func() error // ends a server in this process; nil: it is one of its own
}

// rigOptions says what surrounds the server. The zero value is a world with nobody but the senders in it.
type rigOptions struct {
	binary    string      // the server, if not that of the trial
	providers []*provider // beside the senders' own
	zones     string      // more of DNS
	listener  string      // limits of the listener, in YAML flow
	delivery  string      // further keys of delivery, in YAML flow
	more      string      // further listeners, each on a line of its own, indented by two
	retry     string      // "[1s, 1s, 2s]" if empty
	top       string      // further keys at the top level, each with its line end
	env       []string    // of the server
	prefix    []string    // stands in front of its command line
	drain     time.Duration
	unheard   func(to string) bool // recipients at remotes whose 250 may not be understood; may be nil
	scale     int                  // not 0: the server runs in this process, with its constants of time divided by this
	stepped   bool                 // the clock of the server is set, so its times say nothing about lateness
	hasty     bool                 // nobody looks whether the process gives back what it used, which takes it half a minute
}

// withRig starts a server in a world of its own, plays act, lets the queue become empty, looks whether the process gives
// back what it used, stops it, and judges. The evidence is for the row's own condition.
func withRig(ctx context.Context, t *Trial, o rigOptions, act func(context.Context, *rig) error) (*Verdict, *evidence, error) {
	s := &stage{
		o: setting{
			binary: t.Binary, dir: t.Dir, seed: t.Seed, drain: o.drain, profile: true, submitters: -1, prefix: o.prefix,
		}.filled(),
		rand: t.Rand(1000), door: newDoor(0),
	}
	if o.binary != "" {
		s.o.binary = o.binary
	}
	s.v.checks(Row)
	r := &rig{stage: s, env: o.env}
	if err := r.open(&o); err != nil {
		return nil, nil, errors.Join(err, s.close())
	}
	err := s.play(ctx, func(ctx context.Context, _ *stage) error { return r.live(ctx, &o, act) })
	if err = errors.Join(err, s.close()); err != nil {
		return nil, nil, fmt.Errorf("%w%s", err, s.log.tail())
	}
	e, err := readEvidence(s.o.dir, filepath.Join(s.o.seen, "events"))
	if err != nil {
		return nil, nil, err
	}
	for i := range e.receptions {
		e.receptions[i].Unheard = o.unheard != nil && o.unheard(e.receptions[i].To)
	}
	if o.stepped { // only their order is left to judge
		for i := range e.events {
			e.events[i].Time, e.events[i].NextAttempt = time.Unix(0, int64(i)), time.Time{}
		}
	}
	v := judge(e)
	v.merge(&s.v)
	v.Complaints, v.MoreComplaints = s.log.complaints, s.log.more
	for _, late := range s.late {
		v.breach(I7, "%s", late)
	}
	if s.damage != "" {
		v.breach(I1, "spool check of the stopped server: %s", s.damage)
	}
	v.compareStats(&s.stats)
	return v, e, nil
}

// live is the life of the server from start to stop.
func (r *rig) live(ctx context.Context, o *rigOptions, act func(context.Context, *rig) error) error {
	if o.scale > 0 {
		err := r.within(o.scale)
		if err != nil {
			return err
		}
		if err = errors.Join(act(ctx, r), r.leave()); err == nil {
			r.kills.add(kill{Started: r.p.started, Ready: r.p.readyAt})
		}
		return err
	}
	err := r.up(ctx)
	if err == nil {
		err = act(ctx, r)
	}
	if err == nil {
		before := r.began
		if o.hasty {
			before = nil
		}
		return r.finish(ctx, r.p, before)
	}
	if r.p != nil {
		err = errors.Join(err, r.p.end())
	}
	return err
}

// up starts the server, also again on the same data.
func (r *rig) up(ctx context.Context) (err error) {
	if r.p, err = r.start(r.env...); err != nil {
		return err
	}
	r.address = r.p.address
	if r.began == nil {
		r.began, err = r.p.use(ctx)
	}
	return err
}

// down stops the server in order.
func (r *rig) down() error {
	p := r.p
	r.p = nil
	if err := p.stop(30 * time.Second); err != nil {
		return err
	}
	r.kills.add(kill{Started: p.started, Ready: p.readyAt})
	return nil
}

func (r *rig) open(o *rigOptions) error {
	for _, l := range []struct {
		to   **ledger
		name string
	}{{&r.submit, submitLedger}, {&r.sink, sinkLedger}, {&r.kills, killLedger}} {
		var err error
		if *l.to, err = newLedger(filepath.Join(r.o.dir, l.name)); err != nil {
			return err
		}
	}
	file, err := os.Create(filepath.Join(r.o.dir, "server.log"))
	if err != nil {
		return fmt.Errorf("make log: %w", err)
	}
	r.log = &serverLog{file: file}
	list := append(slices.Clone(o.providers), &provider{domain: homeDomain, address: "127.0.2.7"})
	if r.world, err = newWorldOf(list, o.zones, r.sink, r.rand, func(int) {}); err != nil {
		return err
	}
	return r.writeConfig(o)
}

func (r *rig) writeConfig(o *rigOptions) error {
	retry, listener, delivery := o.retry, o.listener, o.delivery
	if retry == "" {
		retry = "[1s, 1s, 2s]"
	}
	if delivery != "" {
		delivery = ", " + delivery
	}
	r.config = filepath.Join(r.o.dir, "godwit.yaml")
	text := fmt.Sprintf(`hostname: godwit.crash.example
data_dir: %q
drain_timeout: 10s
listeners:
  - {name: %s, address: "127.0.0.1:0", trusted_networks: [127.0.0.0/8], limits: {%s}}
%sdelivery: {port: %d, allowed_networks: [127.0.0.0/8], retry: %s, idle_timeout: 3s%s}
dns: {servers: [%q], timeout: 1s}
journal: {segment_size: 8MiB}
events: {max_size: 64MiB, keep: 10000}
log: {format: json}
%s`, r.o.data, listenerName, listener, o.more, r.world.port, retry, delivery, r.world.dns.Addr(), o.top)
	if err := os.WriteFile(r.config, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return nil
}

// nudge makes all that waits due again and again until the returned function is called, as an impatient operator would:
// suspended destinations are asked at once, and a row need not wait for probes that are minutes apart.
func (r *rig) nudge(ctx context.Context, every time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	client := r.client()
	var done sync.WaitGroup
	done.Go(func() {
		defer client.Close()
		for pause(ctx, every) {
			_, _ = client.Act(ctx, api.Action{
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
	ascii    func(i int) bool // no octets above 127; may be nil
	large    func(i int) bool // more than a connection holds; may be nil
	to       func(i int) []string
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
	text := newText(rand.NewPCG(r.o.seed, 7))
	for s := range f.sessions {
		all.Go(func() {
			g := &feeder{feed: &f, rig: r, rand: rand.New(rand.NewPCG(r.o.seed, uint64(2000+s))), text: text}
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
	if g.large != nil && g.large(i) {
		p.content = slices.Concat(p.content, bytes.Repeat([]byte(strings.Repeat("x", 70)+"\r\n"), 200_000))
	}
	if g.ascii != nil && g.ascii(i) {
		for k := range p.content {
			p.content[k] = min(p.content[k]&0x7f, '~')
		}
	}
	sum := sha256.Sum256(p.content)
	p.Size, p.Hash, p.Mode = len(p.content), hex.EncodeToString(sum[:]), p.words()
	return p
}

// cut returns about n octets of whole lines.
func (t *text) cut(r *rand.Rand, n int) []byte {
	from := t.lines[r.IntN(len(t.lines))]
	body := t.octets[from : from+n]
	return body[:bytes.LastIndexByte(body, '\n')+1]
}
