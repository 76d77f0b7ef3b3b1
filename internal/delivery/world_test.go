package delivery

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/godwit-mta/godwit/internal/delivery/egress"
	"github.com/godwit-mta/godwit/internal/dns"
	"github.com/godwit-mta/godwit/internal/dns/dnstest"
	"github.com/godwit-mta/godwit/internal/queue"
	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/smtpclient"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a small internet on loopback: a DNS server, sinks as MX hosts, and a deliverer that keeps sessions.
type world struct {
	t    testing.TB
	dns  *dnstest.Server
	d    *Deliverer
	port uint16
	ids  *message.IDs
	stop context.CancelFunc
}

type conn = net.Conn

// zeroReader gives the same random bits to all tests.
type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

var _ io.Reader = zeroReader{}

// mx is one host of a world: its address, and how it behaves. A nil script means that nothing listens there.
type mx struct {
	address string
	script  *smtptest.Script
}

// newWorld starts a world whose sinks keep what they get.
func newWorld(t testing.TB, zones string, change func(*Options), hosts ...mx) (*world, []*smtptest.Sink) {
	t.Helper()
	return newWorldOf(t, zones, change, smtptest.SinkOptions{Keep: true, Hash: true}, hosts...)
}

// newWorldOf starts a world. All hosts listen on one port, the one that the deliverer takes for that of MX hosts.
func newWorldOf(t testing.TB, zones string, change func(*Options), kind smtptest.SinkOptions, hosts ...mx) (*world,
	[]*smtptest.Sink) {
	t.Helper()
	w := &world{t: t, ids: message.NewIDs(zeroReader{})}
	var listeners []net.Listener
	for try := range 20 {
		if l, ok := listenAll(t, hosts); ok {
			listeners = l
			break
		}
		if try == 19 {
			t.Fatal("no port is free on all addresses")
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.stop = cancel
	done := make(chan error, 8)
	running := 0
	sinks := make([]*smtptest.Sink, len(hosts))
	for i, h := range hosts {
		if listeners[i] == nil {
			continue
		}
		w.port = netip.MustParseAddrPort(listeners[i].Addr().String()).Port()
		if h.script == nil {
			if err := listeners[i].Close(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		kind.Script = *h.script
		sink, err := smtptest.NewSink(kind)
		if err != nil {
			t.Fatal(err)
		}
		sinks[i] = sink
		running++
		go func() { done <- sink.Run(ctx, listeners[i]) }()
	}
	w.dns = dnstest.Start(t, zones)
	resolver, err := dns.New(dns.Options{Servers: []netip.AddrPort{w.dns.Addr()}, Timeout: 500 * time.Millisecond,
		Tries: 1})
	if err != nil {
		t.Fatal(err)
	}
	o := Options{
		Hostname: "mta.test", Resolver: resolver, Port: w.port,
		AllowedNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
		Timeouts: smtpclient.Timeouts{Greeting: 10 * time.Second, Hello: 10 * time.Second, Mail: 10 * time.Second,
			Rcpt:     10 * time.Second,
			DataInit: 10 * time.Second, DataBlock: 10 * time.Second, DataDone: 10 * time.Second, Quit: time.Second},
	}
	if change != nil {
		change(&o)
	}
	if w.d, err = New(o); err != nil {
		t.Fatal(err)
	}
	running++
	go func() { done <- w.d.Run(ctx) }()
	for !w.d.pool.Keeping() {
		time.Sleep(time.Millisecond)
	}
	t.Cleanup(func() {
		cancel()
		for range running {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
	return w, sinks
}

// listenAll listens on one port of all addresses.
func listenAll(t testing.TB, hosts []mx) ([]net.Listener, bool) {
	t.Helper()
	port := "0"
	all := make([]net.Listener, len(hosts))
	for i, h := range hosts {
		l, err := net.Listen("tcp", net.JoinHostPort(h.address, port))
		if err != nil {
			for _, l := range all[:i] {
				_ = l.Close()
			}
			return nil, false
		}
		all[i] = l
		if _, port, err = net.SplitHostPort(l.Addr().String()); err != nil {
			t.Fatal(err)
		}
	}
	return all, true
}

// hasIPv6 tells whether loopback speaks IPv6.
func hasIPv6() bool {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		return false
	}
	return l.Close() == nil
}

const text = "From: a@sender.test\r\nSubject: test\r\n\r\nHello.\r\n"

// job makes a job for recipients, all of one domain.
func (w *world) job(recipients ...string) *queue.Job {
	return w.jobOf(smtp.BodyOf([]byte(text)), recipients...)
}

func (w *world) jobOf(body *smtp.Body, recipients ...string) *queue.Job {
	m := &spool.Message{
		ID: w.ids.New(time.Now()), Tenant: "default", Received: time.Now(), Size: body.Size(),
		From: smtp.Sender{Path: smtp.Path{Local: "a", Domain: "sender.test"}},
	}
	j := &queue.Job{Message: m, Body: func(context.Context) (*smtp.Body, error) { return body.Retain(), nil }}
	for i, r := range recipients {
		local, domain, _ := strings.Cut(r, "@")
		key := spool.QueueKey{Tenant: "default", Domain: strings.ToLower(domain)}
		m.Recipients = append(m.Recipients, smtp.Recipient{Path: smtp.Path{Local: local, Domain: domain}})
		m.Queues = append(m.Queues, key)
		j.Entries = append(j.Entries, &spool.Entry{Message: m, Index: i, State: spool.Claimed})
		j.Key = m.Queues[0]
	}
	return j
}

// deliver makes one attempt and checks what holds for all.
func (w *world) deliver(recipients ...string) queue.Verdict {
	w.t.Helper()
	return w.run(context.Background(), w.job(recipients...))
}

func (w *world) run(ctx context.Context, j *queue.Job) queue.Verdict {
	w.t.Helper()
	v := w.d.Deliver(ctx, j)
	a := v.Attempt
	if a == nil || len(a.Results) != len(j.Entries) || len(a.Entries) != len(j.Entries) || a.Message != j.Message {
		w.t.Fatalf("attempt %+v does not fit its job", a)
	}
	if a.Started.IsZero() || a.Ended.Before(a.Started) {
		w.t.Errorf("attempt lasted from %v to %v", a.Started, a.Ended)
	}
	deferred := true
	for i := range a.Results {
		r := &a.Results[i]
		deferred = deferred && r.Outcome == spool.Deferred
		if r.Outcome == spool.None {
			continue
		}
		if r.Reason == 0 || r.Phase == "" || r.Source == "" {
			w.t.Errorf("result %d lacks reason, phase or source: %+v", i, r)
		}
		if r.Outcome != spool.Delivered && (r.Explanation == "" || r.Class == 0) {
			w.t.Errorf("result %d lacks explanation or class: %+v", i, r)
		}
	}
	if v.Destination && !deferred {
		w.t.Errorf("the destination is to blame, and yet not all is deferred: %+v", a.Results)
	}
	return v
}

// says writes a result as tests compare it: outcome, reason, phase.
func says(r *spool.Result) string {
	if r.Outcome == spool.None {
		return "none"
	}
	return fmt.Sprintf("%s %s %s", r.Outcome, r.Reason, r.Phase)
}

// expect compares results to what they are to be; the phase may be one of several, separated by bars.
func expect(t testing.TB, v queue.Verdict, want ...string) {
	t.Helper()
	if len(want) != len(v.Attempt.Results) {
		t.Fatalf("%d results expected, %d are there", len(want), len(v.Attempt.Results))
	}
	for i := range want {
		if r := &v.Attempt.Results[i]; !fits(says(r), want[i]) {
			t.Errorf("entry %d: got %q (%s), want %q", i, says(r), r.Explanation, want[i])
		}
	}
}

func fits(got, want string) bool {
	i := strings.LastIndexByte(want, ' ') + 1
	for phase := range strings.SplitSeq(want[i:], "|") {
		if got == want[:i]+phase {
			return true
		}
	}
	return false
}

// awaitReceived waits for a sink, which counts a message after it has answered, to have taken n recipients, and checks
// that there are no more.
func awaitReceived(t testing.TB, sink *smtptest.Sink, n int) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); received(sink) < n && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if got := received(sink); got != n {
		t.Errorf("the host took %d recipients, want %d", got, n)
	}
}

func received(sink *smtptest.Sink) (n int) {
	for _, m := range sink.Messages() {
		if m.Accepted {
			n += len(m.Recipients)
		}
	}
	return n
}

const delivers = "delivered ok final"

// path is that of the sessions to example.test.
func (w *world) path(demand string) egress.Path {
	site, _ := w.d.siteOf("example.test")
	return egress.Path{Source: "default", Site: site, Demand: demand}
}

func oneMX(script smtptest.Script) []mx { return []mx{{"127.0.0.2", &script}} }

const oneZone = `
example.test.     MX 10 mx1.example.test.
mx1.example.test. A  127.0.0.2
`

const twoZones = `
example.test.     MX 10 mx1.example.test.
example.test.     MX 20 mx2.example.test.
mx1.example.test. A  127.0.0.2
mx2.example.test. A  127.0.0.3
`

// drop closes the kept sessions to example.test.
func (w *world) drop(demand string) {
	for s := w.d.pool.Take(w.path(demand)); s != nil; s = w.d.pool.Take(w.path(demand)) {
		_ = s.Close()
	}
}

func contains(t testing.TB, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q does not say %q", text, p)
		}
	}
}

func rule(at smtptest.Point, change func(*smtptest.Rule)) smtptest.Script {
	r := smtptest.Rule{At: at}
	change(&r)
	return smtptest.Script{Rules: []smtptest.Rule{r}}
}
