package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/smtp/sasl"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// door is a rig with a listener at which clients log in under TLS.
type door struct {
	*rig
	address string
	tls     *tls.Config // of clients
	secret  string      // of app1
}

// newDoor starts a server that has such a listener beside the usual one. end must be called.
func newDoor(ctx context.Context, b *bench) (_ *door, err error) {
	d := new(door)
	if d.rig, err = newRig(ctx, b, func(data string) error { return d.prepare(ctx, b, filepath.Dir(data)) }); err != nil {
		return nil, err
	}
	d.address = d.listeners["app"]
	made, err := d.api.CreateCredential(ctx, api.NewCredential{
		Tenant: "default", Login: "app1", Senders: []string{"client.example"}, AssignDomains: true,
	})
	if err == nil {
		d.secret = made.Secret
		err = d.warm(ctx)
	}
	if err != nil {
		d.end(&err)
		return nil, err
	}
	return d, nil
}

// prepare makes a certificate and adds the listener to the configuration.
func (d *door) prepare(ctx context.Context, b *bench, dir string) error {
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	args := append(strings.Fields(b.binary), "cert", "self-signed", "127.0.0.1", "--certificate", cert, "--key", key)
	if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("make a certificate: %w: %s", err, out)
	}
	pem, err := os.ReadFile(cert)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	d.tls = &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS13}
	path := filepath.Join(dir, "godwit.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text = fmt.Appendf(text, "tls: {certificates: [{name: main, certificate: %q, key: %q}]}\n", cert, key)
	const listeners = "listeners:\n"
	return os.WriteFile(path, []byte(strings.Replace(string(text), listeners,
		listeners+"  - {name: app, address: \"127.0.0.1:0\", tls: starttls, auth: required}\n", 1)), 0o600)
}

// enter opens a session from an address, and secures it; without a password it does not log in.
func (d *door) enter(ctx context.Context, from net.IP, user, password string) (net.Conn, error) {
	o := smtptest.SecureOptions{TLS: d.tls}
	if password != "" {
		o.Auth = func(*tls.ConnectionState, []string) (sasl.Client, error) {
			return sasl.PlainClient("", user, password), nil
		}
	}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}
	nc, err := dialer.DialContext(ctx, "tcp", d.address)
	if err != nil {
		return nil, err
	}
	return smtptest.Secure(ctx, nc, o)
}

// passage is how mail came in for a while.
type passage struct {
	load   smtptest.LoadResult
	logins []time.Duration // from connecting to the end of the login, in order
	cpu    time.Duration
	rss    int64 // at most
}

// mail sends messages at 200/s over 50 sessions that log in and are replaced after 20 messages each.
func (d *door) mail(ctx context.Context, n int) (p passage, err error) {
	if err := d.freshPeak(); err != nil {
		return p, err
	}
	before, err := d.cpu()
	if err != nil {
		return p, err
	}
	var mu sync.Mutex
	if p.load, err = smtptest.Load(ctx, smtptest.LoadOptions{
		Messages: n, Rate: 200, Sessions: 50, MessagesPerSession: 20,
		From: func(int) string { return "load@client.example" },
		Dial: func(ctx context.Context) (net.Conn, error) {
			began := time.Now()
			nc, err := d.enter(ctx, net.IPv4(127, 0, 0, 1), "app1", d.secret)
			mu.Lock()
			defer mu.Unlock()
			p.logins = append(p.logins, time.Since(began))
			return nc, err
		},
	}); err != nil {
		return p, err
	}
	if p.load.Accepted != n {
		return p, fmt.Errorf("%d of %d messages accepted: %s", p.load.Accepted, n, p.load.FirstError)
	}
	slices.Sort(p.logins)
	after, err := d.cpu()
	if err != nil {
		return p, err
	}
	p.cpu = after - before
	_, p.rss, err = d.memory()
	return p, err
}

func (p *passage) login(q float64) float64 { return ms(p.logins[int(q*float64(len(p.logins)-1))]) }

// flood is people who guess, each from an address of its own, half of them at a name that exists.
type flood struct {
	tried, refused, later, failed atomic.Int64 // 535, 454, and no such answer
	all                           sync.WaitGroup
}

// guess tries wrong passwords until ctx ends: rate a second, or for 0 as many as so many in parallel can.
func (f *flood) guess(ctx context.Context, d *door, rate float64, parallel int) {
	began := time.Now()
	for range parallel {
		f.all.Go(func() {
			for ctx.Err() == nil {
				i := f.tried.Add(1) - 1
				if rate > 0 {
					select {
					case <-time.After(time.Until(began.Add(time.Duration(float64(i) / rate * float64(time.Second))))):
					case <-ctx.Done():
						return
					}
				}
				name := "app1"
				if i%2 == 1 {
					name = fmt.Sprintf("nobody%d", i)
				}
				nc, err := d.enter(ctx, net.IPv4(127, 1+byte(i>>16), byte(i>>8), byte(i)), name, fmt.Sprintf("wrong%d", i))
				switch {
				case err == nil:
					_ = nc.Close() // which must not happen, and is counted
					f.failed.Add(1)
				case strings.Contains(err.Error(), "answered with 535"):
					f.refused.Add(1)
				case strings.Contains(err.Error(), "answered with 454"):
					f.later.Add(1)
				case ctx.Err() == nil:
					f.failed.Add(1)
				}
			}
		})
	}
}

// authJob is mail that goes on while passwords are guessed: at 64 a second, and by 64 who never pause. The server is
// fresh for each, since bans and budgets that are used up make the second flood easier.
func authJob(ctx context.Context, b *bench) (_ *row, err error) {
	table := facts{title: "200 messages/s that log in, while passwords are guessed"}
	var ratios []float64
	for round := range pick(b, 3, 1) {
		for _, kind := range []struct {
			name     string
			rate     float64
			parallel int
		}{{"64 guesses/s", 64, 256}, {"64 who guess without pause", 0, 64}} { // an answer may take 3 s, and a rate does not wait for it
			quiet, loud, f, err := besieged(ctx, b, kind.rate, kind.parallel)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", kind.name, err)
			}
			ratio := loud.load.Latency.P99 / quiet.load.Latency.P99
			if kind.rate > 0 {
				ratios = append(ratios, ratio)
			}
			for _, p := range []struct {
				what string
				*passage
			}{{"alone", quiet}, {kind.name, loud}} {
				table.add(fmt.Sprintf("round %d, %s: accepted after, p50, p99, at most", round+1, p.what), "", "%.1f, **%.1f**, %.1f ms",
					p.load.Latency.P50, p.load.Latency.P99, p.load.Latency.Max)
				table.add("connected and logged in after, p50, p99", "", "%.1f, %.1f ms", p.login(0.5), p.login(0.99))
				table.add("CPU, memory at most", "", "%.1f s, %d MiB", p.cpu.Seconds(), p.rss>>20)
			}
			table.add("guesses: refused, put off, no answer", "no answer 0", "%d, %d, %d", f.refused.Load(), f.later.Load(), f.failed.Load())
			table.add("p99 beside that alone", "2 times", "**%.2f times**", ratio)
		}
	}
	slices.Sort(ratios)
	table.add("64 guesses/s, p99 beside that alone, median", "2 times", "**%.2f times**", ratios[len(ratios)/2])
	table.print(b)
	return nil, nil
}

// besieged measures mail alone and then beside a flood, at one fresh server.
func besieged(ctx context.Context, b *bench, rate float64, parallel int) (quiet, loud *passage, f *flood, err error) {
	d, err := newDoor(ctx, b)
	if err != nil {
		return nil, nil, nil, err
	}
	defer d.end(&err)
	n := pick(b, 12_000, 3_000)
	if _, err := d.mail(ctx, 500); err != nil {
		return nil, nil, nil, err
	}
	a, err := d.mail(ctx, n)
	if err != nil {
		return nil, nil, nil, err
	}
	guessing, stop := context.WithCancel(ctx)
	f = new(flood)
	f.guess(guessing, d, rate, parallel)
	z, err := d.mail(ctx, n)
	stop()
	f.all.Wait()
	b.note("  p99 %.1f ms alone, %.1f ms beside; %d guesses", a.load.Latency.P99, z.load.Latency.P99, f.tried.Load())
	return &a, &z, f, err
}

// idleTLSJob is sessions that do nothing, some of them under TLS and logged in.
func idleTLSJob(ctx context.Context, b *bench) (_ *row, err error) {
	d, err := newDoor(ctx, b)
	if err != nil {
		return nil, err
	}
	defer d.end(&err)
	// The first login hashes; the rest are known, as they are of a client that comes back.
	first, err := d.enter(ctx, net.IPv4(127, 0, 0, 1), "app1", d.secret)
	if err != nil {
		return nil, err
	}
	held := []net.Conn{first}
	defer func() {
		for _, c := range held {
			_ = c.Close() // the server may have closed it
		}
	}()
	table := facts{title: "Idle sessions, some under TLS"}
	for _, kind := range []struct {
		name, aim string
		n         int
		open      func() (net.Conn, error)
	}{
		{"in the clear", "32 KiB", pick(b, 10_000, 2000), func() (net.Conn, error) {
			c, _, err := greet(d.rig.address)
			return c, err
		}},
		{"under TLS, logged in", "64 KiB", pick(b, 5000, 1000), func() (net.Conn, error) {
			return d.enter(ctx, net.IPv4(127, 0, 0, 1), "app1", d.secret)
		}},
	} {
		before, _, err := d.memory()
		if err != nil {
			return nil, err
		}
		conns, err := crowd(kind.n, kind.open)
		held = append(held, conns...)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", kind.name, err)
		}
		for range pick(b, 90, 15) { // until the collector has been there twice: it comes every two minutes at least
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
		now, _, err := d.memory()
		if err != nil {
			return nil, err
		}
		table.add(fmt.Sprintf("%s sessions %s: memory for each", grouped(float64(kind.n)), kind.name), kind.aim, "%.1f KiB",
			float64(now-before)/float64(kind.n)/1024)
	}
	now, most, err := d.memory()
	if err != nil {
		return nil, err
	}
	table.add("memory of the server with all, at most until then", "", "%d MiB, %d MiB", now>>20, most>>20)
	table.print(b)
	return nil, nil
}

// crowd opens n sessions, 32 at a time, and returns those that were opened.
func crowd(n int, open func() (net.Conn, error)) ([]net.Conn, error) {
	var left atomic.Int64
	left.Store(int64(n))
	conns, errs := make([][]net.Conn, 32), make([]error, 32)
	several(len(conns), func(i int) {
		for left.Add(-1) >= 0 && errs[i] == nil {
			var c net.Conn
			if c, errs[i] = open(); errs[i] == nil {
				conns[i] = append(conns[i], c)
			}
		}
	})
	return slices.Concat(conns...), errors.Join(errs...)
}
