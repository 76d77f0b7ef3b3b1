// Package daemontest runs the whole server in one process, in a world of its own: real DNS on loopback with zones written as
// text, scripted mail hosts, a temporary data directory, and a ledger of what arrived.
//
//	w := daemontest.New(t, daemontest.Options{Zones: "ok.test. IN MX 10 mx.ok.test.\nmx.ok.test. IN A 127.0.2.1\n"})
//	w.Host("127.0.2.1", smtptest.Script{})
//	w.Start()
//	w.Submit("me@app.test", "Subject: hello\r\n\r\nhi\r\n", "you@ok.test")
//	w.WaitEmpty()
//
// A World can be stopped and started again on the same data, which is what a restart is. It checks at its end that the books
// balance: accepted is the sum of the outcomes and what is queued.
package daemontest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/daemon"
	"github.com/godwit-mta/godwit/internal/dns/dnstest"
	"github.com/godwit-mta/godwit/internal/outbox"
	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/smtpclient"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// Patience is how long a World waits for something to happen before the test fails.
const Patience = 20 * time.Second

// Options describe a World.
type Options struct {
	Zones  string                 // as dnstest takes them
	Config func(c *config.Config) // changes the configuration before the server starts; may be nil
	Load   func() (*config.Config, error)
	Scale  int // 0: 60, a minute is a second

	Log io.Writer // gets the server's log too, every level of it; may be nil

	Internet daemon.Internet // in place of parts of it
}

// World is a server and what is around it. Its methods are for the test's goroutine and fail the test themselves.
type World struct {
	t    testing.TB
	o    Options
	Dir  string // data directory
	Port int    // of all mail hosts
	DNS  *dnstest.Server

	daemon *daemon.Daemon
	config *config.Config
	client *api.Client
	stop   context.CancelFunc
	ended  chan error

	mu       sync.Mutex
	received []*smtptest.Received
}

// New makes a world with nobody in it.
func New(t testing.TB, o Options) *World {
	t.Helper()
	if o.Scale == 0 {
		o.Scale = 60
	}
	w := &World{t: t, o: o, Dir: shortDir(t)}
	w.DNS = dnstest.Start(t, o.Zones)
	return w
}

// shortDir returns a temporary directory whose path leaves room for a socket's name: those may have some 100 octets.
func shortDir(t testing.TB) string {
	dir, err := os.MkdirTemp("", "gw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Host puts a mail host at a loopback address. All hosts have the same port, so the first one chooses it.
func (w *World) Host(address string, script smtptest.Script) *smtptest.Sink {
	w.t.Helper()
	sink, err := smtptest.NewSink(smtptest.SinkOptions{Script: script, KeepBody: true, OnMessage: w.note})
	if err != nil {
		w.t.Fatal(err)
	}
	l, err := net.Listen("tcp", net.JoinHostPort(address, fmt.Sprint(w.Port)))
	if err != nil {
		w.t.Fatal(err)
	}
	w.Port = l.Addr().(*net.TCPAddr).Port
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- sink.Run(ctx, l) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			w.t.Errorf("mail host %s: %v", address, err)
		}
	})
	return sink
}

func (w *World) note(r *smtptest.Received) {
	if r.Accepted {
		w.mu.Lock()
		w.received = append(w.received, r)
		w.mu.Unlock()
	}
}

// Received returns what mail hosts have taken so far.
func (w *World) Received() []*smtptest.Received {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.received)
}

// Start starts the server and waits until it takes mail. It is stopped at the end of the test if it was not before.
func (w *World) Start() {
	w.t.Helper()
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	c := config.Default()
	c.Hostname = "godwit.test"
	c.DataDir = w.Dir
	c.Events.Dir = filepath.Join(w.Dir, "events")
	c.DrainTimeout = 5 * time.Second
	c.DNS.Servers = []string{w.DNS.Addr().String()}
	c.HTTP.Address = "127.0.0.1:0"
	c.Listeners = []config.Listener{{
		Name: "app", Address: "127.0.0.1:0", TrustedNetworks: loopback, Limits: c.Limits,
		Tenant: config.DefaultTenant, Stream: config.DefaultStream,
	}}
	c.Delivery.Port = max(w.Port, 1)
	c.Delivery.AllowedNetworks = loopback
	for i := range c.Delivery.Retry {
		c.Delivery.Retry[i] /= time.Duration(w.o.Scale)
	}
	if w.o.Config != nil {
		w.o.Config(c)
	}
	d, err := daemon.New(daemon.Options{
		Config: c, Load: w.o.Load, Logger: w.logger(), Scale: w.o.Scale, Internet: w.o.Internet,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	select {
	case <-d.Ready():
	case err := <-ended:
		cancel()
		w.t.Fatalf("the server did not start: %v", err)
	case <-time.After(Patience):
		cancel()
		w.t.Fatal("the server is not ready")
	}
	w.daemon, w.stop, w.ended, w.config = d, cancel, ended, c
	w.client = api.NewSocketClient(filepath.Join(w.Dir, "admin.sock"))
	w.t.Cleanup(w.Stop)
}

func (w *World) logger() *slog.Logger {
	if w.o.Log == nil {
		return slog.New(slog.NewTextHandler(logWriter{w.t}, nil))
	}
	out := io.MultiWriter(logWriter{w.t}, w.o.Log)
	return slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.Level(-100)}))
}

// Config returns the configuration that the server was last started with.
func (w *World) Config() *config.Config { return w.config }

// logWriter gives the server's log to the test that it belongs to.
type logWriter struct{ t testing.TB }

func (l logWriter) Write(p []byte) (int, error) {
	l.t.Logf("%s", strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

// Stop stops the server, if it runs, and checks its books.
func (w *World) Stop() {
	w.t.Helper()
	if w.stop == nil {
		return
	}
	if s, err := w.client.SpoolStats(context.Background()); err != nil {
		w.t.Errorf("stats: %v", err)
	} else if sum := s.Delivered + s.Bounced + s.Expired + s.Suppressed + s.Cancelled + s.Queued; sum != s.Accepted {
		w.t.Errorf("accepted %d recipients, %d are accounted for: %+v", s.Accepted, sum, s)
	}
	w.client.Close()
	w.stop()
	w.stop = nil
	select {
	case err := <-w.ended:
		if err != nil {
			w.t.Errorf("the server ended with: %v", err)
		}
	case <-time.After(Patience):
		w.t.Fatal("the server does not stop")
	}
}

// Client returns a client of the administrators' interface.
func (w *World) Client() *api.Client { return w.client }

// Address returns where the server takes mail.
func (w *World) Address() string { return w.daemon.Addresses()["app"] }

// AddressOf returns where a listener takes mail.
func (w *World) AddressOf(listener string) string { return w.daemon.Addresses()[listener] }

// HTTP returns where the server answers monitoring.
func (w *World) HTTP() string { return w.daemon.HTTPAddress() }

// Submit sends a message to the server and returns the reply that each recipient ended with.
func (w *World) Submit(from, message string, to ...string) []smtp.Reply {
	w.t.Helper()
	sender, err := smtp.ParseMailbox(from)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.SubmitTransaction(&smtpclient.Transaction{From: smtp.Sender{Path: sender}, Body: smtp.BodyOf([]byte(message))}, to...)
}

// SubmitTransaction is Submit for an envelope with parameters. Recipients given as text are added to it.
func (w *World) SubmitTransaction(t *smtpclient.Transaction, to ...string) []smtp.Reply {
	w.t.Helper()
	for _, r := range to {
		p, err := smtp.ParseMailbox(r)
		if err != nil {
			w.t.Fatal(err)
		}
		t.Recipients = append(t.Recipients, smtp.Recipient{Path: p})
	}
	nc, err := net.Dial("tcp", w.Address())
	if err != nil {
		w.t.Fatal(err)
	}
	c := smtpclient.New(nc, smtpclient.Options{Hello: "app.test"})
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	if err := c.Start(ctx); err != nil {
		w.t.Fatal(err)
	}
	if err := c.Send(ctx, t); err != nil {
		w.t.Fatal(err)
	}
	replies := make([]smtp.Reply, len(t.Result.Recipients))
	for i, r := range t.Result.Recipients {
		replies[i] = r.Reply
	}
	return replies
}

// Until waits until a condition holds.
func (w *World) Until(what string, holds func() bool) {
	w.t.Helper()
	for end := time.Now().Add(Patience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("waited %v in vain: %s", Patience, what)
		}
	}
}

// WaitEmpty waits until nothing is queued and the event log tells every outcome.
func (w *World) WaitEmpty() {
	w.t.Helper()
	w.Until("the queue is empty", func() bool {
		s, err := w.client.SpoolStats(context.Background())
		if err != nil || s.Queued != 0 {
			return false
		}
		final := 0
		for _, e := range w.Events() {
			switch e.Type {
			case event.Delivered, event.Bounced, event.Expired, event.Cancelled, event.Suppressed:
				final++
			}
		}
		return final == int(s.Accepted)
	})
}

// Events returns what the event log has, repeats dropped.
func (w *World) Events() []*event.Event {
	w.t.Helper()
	p, err := w.readEvents(filepath.Join(w.Dir, "events", "current.jsonl"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		w.t.Fatal(err)
	}
	var list []*event.Event
	seen := make(map[string]bool)
	for line := range strings.Lines(string(p)) {
		if !strings.HasSuffix(line, "\n") {
			break // is being written
		}
		e, err := event.ParseLine([]byte(line))
		if err != nil {
			w.t.Fatalf("event log: %v in %s", err, line)
		}
		if !seen[e.ID] {
			seen[e.ID] = true
			list = append(list, e)
		}
	}
	return list
}

// readEvents reads events, in clear if they are encrypted.
func (w *World) readEvents(path string) ([]byte, error) {
	if w.config == nil || !w.config.Encryption.Enabled() {
		return os.ReadFile(path)
	}
	keys, err := daemon.OpenKeys(context.Background(), w.config)
	if err != nil {
		return nil, err
	}
	whole, err := os.ReadFile(path) // the last line may be half written: it is left out
	if err != nil {
		return nil, err
	}
	copied := filepath.Join(w.t.TempDir(), "events.jsonl")
	if err := os.WriteFile(copied, whole[:bytes.LastIndexByte(whole, '\n')+1], 0o600); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if closed, err := outbox.Reveal(context.Background(), &b, copied, keys); err != nil || closed > 0 {
		return nil, fmt.Errorf("%d events do not open: %w", closed, err)
	}
	return b.Bytes(), nil
}
