package crash

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// yardDomain is above all domains of a yard.
const yardDomain = "yard.example"

// yard is for scenarios of very many small messages, which a stage's ledgers would be too slow for: one sink behind a
// route, tenants with a listener each, and counts of what was acknowledged and what arrived, in memory.
type yard struct {
	t       *Trial
	tenants int
	domains int
	config  string
	data    string
	log     *serverLog
	sink    *smtptest.Sink
	port    string // of the sink, which may be closed

	mu      sync.Mutex
	acked   map[string]int32 // token to the number of the tenant
	unknown map[string]bool  // token without an answer
	arrived map[string]int32 // token to how often
	byOwner []int            // arrived for the first time, by tenant
	v       Verdict

	stopSink func() error
}

func newYard(t *Trial, tenants, domains int, more string) (*yard, error) {
	y := &yard{
		t: t, tenants: tenants, domains: domains, data: filepath.Join(t.Dir, "data"),
		acked: make(map[string]int32), unknown: make(map[string]bool), arrived: make(map[string]int32),
		byOwner: make([]int, tenants), stopSink: func() error { return nil },
	}
	file, err := os.Create(filepath.Join(t.Dir, "server.log"))
	if err != nil {
		return nil, fmt.Errorf("make log: %w", err)
	}
	y.log = &serverLog{file: file}
	y.sink, err = smtptest.NewSink(smtptest.SinkOptions{
		Script: smtptest.Script{Hostname: "mx." + yardDomain}, KeepBody: true, OnMessage: y.note,
	})
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	// A port that is closed until the sink opens.
	l, err := net.Listen("tcp", "127.0.3.1:0")
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	_, y.port, err = net.SplitHostPort(l.Addr().String())
	if err = errors.Join(err, l.Close(), y.writeConfig(more)); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return y, nil
}

func (y *yard) writeConfig(more string) error {
	var text strings.Builder
	fmt.Fprintf(&text, "hostname: godwit.crash.example\ndata_dir: %q\ndrain_timeout: 20s\nlisteners:\n", y.data)
	for i := range y.tenants {
		fmt.Fprintf(&text, "  - {name: t%d, address: \"127.0.0.1:0\", trusted_networks: [127.0.0.0/8], tenant: t%d}\n", i, i)
	}
	fmt.Fprintf(&text, "routes:\n  - {domains: [\"*.%s\"], hosts: [\"127.0.3.1:%s\"]}\n", yardDomain, y.port)
	// Nothing that is not routed exists: nobody answers on this port.
	text.WriteString("dns: {servers: [\"127.0.0.1:9\"], timeout: 100ms}\n")
	text.WriteString("events: {max_size: 64MiB, keep: 10000}\nlog: {format: json}\n" + more)
	y.config = filepath.Join(y.t.Dir, "godwit.yaml")
	return os.WriteFile(y.config, []byte(text.String()), 0o600)
}

// note counts what the sink took.
func (y *yard) note(r *smtptest.Received) {
	if !r.Accepted {
		return
	}
	token := fieldOf(r.Body[:min(len(r.Body), 2048)], "Load-Token")
	y.mu.Lock()
	defer y.mu.Unlock()
	y.arrived[token]++
	if owner, ok := y.acked[token]; ok && y.arrived[token] == 1 {
		y.byOwner[owner]++
	}
	if !bytes.HasSuffix(r.Body, []byte("\r\n")) {
		y.v.breach(I2, "%s came without its end", token)
	}
}

// open lets the sink take mail until y.shut.
func (y *yard) open(ctx context.Context) error {
	l, err := net.Listen("tcp", "127.0.3.1:"+y.port)
	if err != nil {
		return fmt.Errorf("open the sink: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- y.sink.Run(ctx, l) }()
	y.stopSink = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	return nil
}

func (y *yard) close() error { return errors.Join(y.stopSink(), y.log.file.Close()) }

func (y *yard) start() (*process, error) {
	p, err := startProcess([]string{y.t.Binary, "serve", "--config", y.config, "--pprof", "127.0.0.1:0"}, nil, y.log)
	if err != nil {
		return nil, err
	}
	if err := p.awaitReady(2 * time.Minute); err != nil {
		return nil, errors.Join(err, p.end())
	}
	return p, nil
}

func (y *yard) client() *api.Client { return api.NewSocketClient(filepath.Join(y.data, "admin.sock")) }

// load submits n messages of this size, spread over tenants and domains, and returns how long it took.
func (y *yard) load(ctx context.Context, p *process, n, size, sessions int, domain func(i int) string) (
	time.Duration, error) {
	began := time.Now()
	var all sync.WaitGroup
	errs := make([]error, y.tenants)
	for tenant := range y.tenants {
		all.Go(func() {
			share := n/y.tenants + min(1, max(0, n%y.tenants-tenant))
			result, err := smtptest.Load(ctx, smtptest.LoadOptions{
				Address: p.listeners[fmt.Sprintf("t%d", tenant)], Messages: share, Size: size,
				Sessions: max(sessions/y.tenants, 1),
				To: func(i int) []string {
					return []string{fmt.Sprintf("user%d@%s.%s", i, domain(i*y.tenants+tenant), yardDomain)}
				},
				OnResult: func(e smtptest.LoadEntry) { y.answered(e, int32(tenant)) },
			})
			if err == nil && result.Accepted < share {
				err = fmt.Errorf("tenant %d: %d of %d accepted: %s", tenant, result.Accepted, share, result.FirstError)
			}
			errs[tenant] = err
		})
	}
	all.Wait()
	return time.Since(began), errors.Join(errs...)
}

func (y *yard) answered(e smtptest.LoadEntry, tenant int32) {
	y.mu.Lock()
	defer y.mu.Unlock()
	switch {
	case e.Err != nil:
		y.unknown[e.Token] = true
	case e.Reply.Code/100 == 2:
		y.acked[e.Token] = tenant
		if y.arrived[e.Token] == 1 { // it was quicker than the reply
			y.byOwner[tenant]++
		}
	}
}

// owners returns how much has arrived of each tenant.
func (y *yard) owners() []int {
	y.mu.Lock()
	defer y.mu.Unlock()
	return slices.Clone(y.byOwner)
}

// judge is the set algebra of the yard: I1, I3, I4 and, by the event log, I5.
func (y *yard) judge() (*Verdict, error) {
	v := &y.v
	v.checks(I1, I3, I4, I5)
	y.mu.Lock()
	defer y.mu.Unlock()
	v.Acknowledged, v.Accepted = len(y.acked), len(y.acked)
	for token := range y.acked {
		switch n := y.arrived[token]; {
		case n == 0:
			v.Lost++
			v.breach(I1, "%s was acknowledged and never arrived", token)
		default:
			v.Delivered++
			v.Duplicates += int(n) - 1
			if n > 1 {
				v.breach(I4, "%s arrived %d times, and nothing was killed", token, n)
			}
		}
	}
	for token := range y.arrived {
		if _, ok := y.acked[token]; !ok && !y.unknown[token] {
			v.Ghosts++
			v.breach(I3, "%s arrived and was not accepted", token)
		}
	}
	finals := make(map[string]int)
	err := eachEvent(filepath.Join(y.data, "events"), func(e *event.Event) {
		v.Events++
		if e.Type.Final() {
			finals[e.Entry]++
			if e.Type != event.Delivered {
				v.breach(I5, "entry %s ended as %s", e.Entry, e.Type)
			}
		}
	})
	if err != nil {
		return nil, err
	}
	for entry, n := range finals {
		if n > 1 {
			v.breach(I5, "entry %s has %d final events", entry, n)
		}
	}
	if len(finals) != len(y.acked) && len(y.unknown) == 0 {
		v.breach(I5, "%d entries have a final event, and %d were accepted", len(finals), len(y.acked))
	}
	v.Complaints, v.MoreComplaints = y.log.complaints, y.log.more
	return v, nil
}

// latencies asks for the list of queues and for statistics many times.
func (y *yard) latencies(ctx context.Context, times int) (p99 time.Duration, err error) {
	client := y.client()
	defer client.Close()
	var took []time.Duration
	for range times {
		began := time.Now()
		if _, err := client.Queues(ctx, api.QueueQuery{}); err != nil {
			return 0, err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took[len(took)*99/100], nil
}

// awaitEmpty waits until the spool is empty and calls each with what is left, often.
func (y *yard) awaitEmpty(ctx context.Context, p *process, limit time.Duration, each func(queued int)) error {
	client := y.client()
	defer client.Close()
	for deadline := time.Now().Add(limit); ; {
		s, err := client.SpoolStats(ctx)
		if err != nil {
			return err
		}
		each(int(s.Queued))
		switch {
		case s.Queued == 0:
			y.v.compareStats(&s)
			return nil
		case !p.alive():
			return fmt.Errorf("%w: %v", errDied, p.err)
		case time.Now().After(deadline):
			y.v.breach(I7, "after %s there are still %d entries", limit, s.Queued)
			y.v.Queued = int(s.Queued)
			return nil
		}
		if !pause(ctx, 100*time.Millisecond) {
			return context.Cause(ctx)
		}
	}
}

// usedBy returns the octets that a directory takes on its disk.
func usedBy(dir string) (int64, error) {
	var sum int64
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return ignoreMissing(err)
		}
		info, err := e.Info()
		if err == nil {
			sum += info.Size()
		}
		return ignoreMissing(err)
	})
	return sum, err
}

// ignoreMissing: files come and go while one looks.
func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func spread(counts []int) (least, most int) {
	return slices.MinFunc(counts, cmp.Compare[int]), slices.MaxFunc(counts, cmp.Compare[int])
}
