//go:build interop

package interop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/internal/dns"
	"github.com/godwit-mta/godwit/mailauth/dkim"
	"github.com/godwit-mta/godwit/smtp/smtptest"
	"github.com/godwit-mta/godwit/test/crash"
)

// uncached asks one name server, and keeps nothing.
type uncached struct{ at netip.AddrPort }

func (u uncached) TXT(ctx context.Context, name string) ([]string, error) {
	r, err := dns.New(dns.Options{Servers: []netip.AddrPort{u.at}})
	if err != nil {
		return nil, err
	}
	txt, err := r.LookupTXT(ctx, name)
	var e *dns.Error
	if errors.As(err, &e) && !e.Temporary() {
		return nil, nil
	}
	return txt.Records, err
}

// examiner looks at every message that arrives as a receiver does who asks DNS at this moment.
type examiner struct {
	servers []uncached
	ahead   atomic.Int64 // of the clock

	mu        sync.Mutex
	messages  int
	selectors map[string]int // how many messages each has signed
	bad       []string
}

func (e *examiner) now() time.Time { return time.Now().Add(time.Duration(e.ahead.Load())) }

func (e *examiner) examine(m *smtptest.Received) {
	var found []dkim.Result
	for _, s := range e.servers {
		v, err := dkim.NewVerifier(dkim.VerifyOptions{Resolver: s})
		if err != nil {
			e.fail("%v", err)
			return
		}
		results, err := v.Verify(context.Background(), [][]byte{m.Body}, e.now())
		if err != nil || len(results) != 2 {
			e.fail("%v: a message has %d signatures: %v", e.now(), len(results), err)
			return
		}
		for _, r := range results {
			if r.Status != dkim.Pass {
				e.fail("%v: by server %v %s of selector %s is %s: %v", e.now(), s.at, r.Algorithm, r.Selector, r.Status, r.Err)
			}
		}
		found = results
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.messages++
	for _, r := range found {
		e.selectors[r.Selector]++
	}
}

func (e *examiner) fail(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.bad = append(e.bad, fmt.Sprintf(format, args...))
}

func (e *examiner) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.messages
}

const rotationConfig = `hostname: mta1.example.com
data_dir: "%[1]s/data"
listeners: [{name: relay, address: "%[2]s", trusted_networks: [127.0.0.0/8]}]
dns: {servers: ["%[3]s"]}
routes: [{domains: ["*"], hosts: ["%[4]s"]}]
log: {format: json}
dkim:
  required: true
  rotate_every: 10d
  check_at: ["%[5]s"]
  publish: {provider: rfc2136, server: "%[3]s", zones: [example.com], key_name: %[6]s, secret_file: "%[1]s/tsig", ttl: 5m}
`

// TestRotation lets 33 days pass, in steps of six hours, for a server whose keys are replaced every ten days, and for the
// name servers that it publishes them on, one of which is always late. Mail comes all the time: every message of them must have
// both signatures, and each must hold by what either server says at that moment.
func TestRotation(t *testing.T) {
	if os.Getenv("INTEROP_SHORT") == "1" {
		t.Skip("it takes four minutes; the short part has the same without real name servers in internal/keyring")
	}
	need(t, "knotd")
	dir := t.TempDir()
	binary, err := crash.BuildWithClock(t.Context(), dir)
	var skip *crash.SkipError
	if errors.As(err, &skip) {
		lack(t, skip.Reason)
	}
	if err != nil {
		t.Fatal(err)
	}
	clock, err := crash.NewClock(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer clock.Close()
	knotClock := filepath.Join(dir, "knot-clock")
	setClock(t, knotClock, 0)
	names := startKnot(t, dir, "example.com", knotClock)

	e := &examiner{selectors: make(map[string]int)}
	for _, s := range []string{names.primary, names.secondary} {
		e.servers = append(e.servers, uncached{netip.MustParseAddrPort(s)})
	}
	sinkAt := startSink(t, smtptest.SinkOptions{KeepBody: true, OnMessage: e.examine})
	write(t, filepath.Join(dir, "tsig"), names.secret+"\n")
	relay := freeAddress(t)
	config := fmt.Sprintf(rotationConfig, dir, relay, names.primary, sinkAt, names.secondary, names.keyName)
	file := write(t, filepath.Join(dir, "godwit.yaml"), config)
	g := &godwit{binary: binary, socket: filepath.Join(dir, "data", "admin.sock")}
	g.process = launch(t, dir, "godwit", "env", clock.Env(), binary, "serve", "--config", file)
	g.await(t, "log record that it is ready", func() bool { return logged(t, g.log, "ready") })

	var list api.DKIMKeyList
	g.command(t, &list, "dkim", "create", "example.com")
	g.await(t, "keys that sign", func() bool {
		g.command(t, &list, "dkim", "list", "example.com")
		return len(list.Keys) == 2 && list.Keys[0].Signs && list.Keys[1].Signs
	})

	ctx, stop := context.WithCancel(t.Context())
	var sending sync.WaitGroup
	var accepted, refused atomic.Int64
	var first atomic.Pointer[string]
	sending.Go(func() {
		for ctx.Err() == nil {
			result, err := smtptest.Load(context.WithoutCancel(ctx), smtptest.LoadOptions{
				Address: relay, Messages: 20, Sessions: 2, Size: 4096, Rate: 30, From: func(int) string { return "news@example.com" },
			})
			if err == nil && result.FirstError != "" {
				err = errors.New(result.FirstError)
			}
			if err != nil {
				text := err.Error()
				first.CompareAndSwap(nil, &text)
			}
			accepted.Add(int64(result.Accepted))
			refused.Add(int64(result.Rejected + result.Failed))
		}
	})
	const step = 6 * time.Hour
	const steps = 33 * 4
	began := time.Now()
	for range steps {
		ahead := time.Duration(e.ahead.Load()) + step
		setClock(t, knotClock, ahead)
		clock.Step(step)
		e.ahead.Store(int64(ahead))
		time.Sleep(1500 * time.Millisecond) // the server looks at its clock every second
		if t.Failed() {
			break
		}
	}
	stop()
	sending.Wait()
	g.await(t, "the last message", func() bool { return int64(e.count()+len(e.bad)) >= accepted.Load() })

	g.command(t, &list, "dkim", "list", "example.com")
	var states []string
	for i := range list.Keys {
		states = append(states, list.Keys[i].State)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	t.Logf("%d days in %v: %d messages, none refused: %v; signed by %v; keys are %v", steps/4, time.Since(began).Round(time.Second), e.messages,
		refused.Load() == 0, e.selectors, states)
	for _, b := range e.bad[:min(len(e.bad), 10)] {
		t.Error(b)
	}
	if n := refused.Load(); n > 0 {
		t.Errorf("%d messages were refused: %s", n, *first.Load())
	}
	if want := 2 * (1 + (steps-1)/4/10); len(e.selectors) < want {
		t.Errorf("%d keys have signed, want %d", len(e.selectors), want)
	}
	checkEnd(t, e.servers[0], list.Keys)
}

// checkEnd checks that the first keys have come to their end in DNS too.
func checkEnd(t *testing.T, server uncached, list []api.DKIMKey) {
	t.Helper()
	revoked := slices.DeleteFunc(slices.Clone(list), func(k api.DKIMKey) bool { return k.State != "revoked" })
	if len(revoked) == 0 {
		t.Error("no key was revoked")
	}
	for _, k := range revoked {
		txt, err := server.TXT(t.Context(), k.Record.Name)
		if err != nil || len(txt) != 1 || !strings.HasSuffix(txt[0], "p=") {
			t.Errorf("%s: %q %v", k.Record.Name, txt, err)
		}
	}
}

// startSink runs a sink until the test ends, and returns where.
func startSink(t *testing.T, o smtptest.SinkOptions) string {
	t.Helper()
	sink, err := smtptest.NewSink(o)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = sink.Run(ctx, l) })
	t.Cleanup(func() { stop(); wg.Wait() })
	return l.Addr().String()
}
