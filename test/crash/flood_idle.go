package crash

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// Bounds of C-1.
const (
	plainSession  = 32 << 10
	secureSession = 64 << 10
	secureName    = "secure" // the listener
)

// runIdle is row C-1: many sessions that do nothing, a third of them over TLS, and mail beside them.
func runIdle(ctx context.Context, t *Trial) (*Verdict, error) {
	n := t.runs(1500, 15000)
	secure := n / 3
	idle := time.Duration(t.pick(10, 35)) * time.Second
	limits := fmt.Sprintf("command_timeout: %s, sessions: 60000, sessions_per_client: 20000", idle)
	certificate, key, err := selfSigned(t.Dir)
	if err != nil {
		return nil, err
	}
	v, _, err := withRig(ctx, t, rigOptions{
		providers: goodWorld(), listener: limits,
		more: fmt.Sprintf("  - {name: %s, address: \"127.0.0.1:0\", trusted_networks: [127.0.0.0/8], tls: implicit, "+
			"certificate: test, limits: {%s}}\n", secureName, limits),
		top: fmt.Sprintf("tls: {certificates: [{name: test, certificate: %q, key: %q}]}\n", certificate, key),
	}, func(ctx context.Context, r *rig) error {
		mail := r.traffic(ctx, "warm", float64(t.pick(100, 300)))
		pause(ctx, 2*time.Second)
		calm := mail.end("before")
		client := r.client()
		defer client.Close()
		status, err := client.Status(ctx)
		if err != nil {
			return err
		}
		// Go keeps what describes a goroutine for the next one, some 450 octets, for ever; so do the maps of sessions.
		r.began.heap += int64(n) * 640
		plain := &crowd{address: r.address}
		hidden := &crowd{address: status.Listeners[secureName], secure: &tls.Config{InsecureSkipVerify: true}}
		defer plain.disperse()
		defer hidden.disperse()
		mail = r.traffic(ctx, "idle", float64(t.pick(100, 300)))
		if err := r.fill(ctx, plain, n-secure, plainSession, "plain"); err != nil {
			return err
		}
		since := time.Now() // the last of them said hello
		if err := r.fill(ctx, hidden, secure, secureSession, "TLS"); err != nil {
			return err
		}
		sinceSecure := time.Now()
		waits, failed := r.banners(ctx, 3*time.Second)
		beside := mail.end("beside idle sessions")
		p99 := quantileOf(waits, 0.99)
		r.v.note("greeting of new clients: %s (half), %s (99 %%), %d failed", quantileOf(waits, 0.5).Round(10*time.Microsecond),
			p99.Round(10*time.Microsecond), failed)
		if failed > 0 || p99 > time.Duration(t.pick(1000, 250))*time.Millisecond {
			r.v.breach(Row, "new clients are greeted in %s (99 %%), and %d not at all", p99, failed)
		}
		if beside.accepted == 0 || beside.refused+beside.unknown > 0 {
			r.v.breach(Row, "beside idle sessions: %s, and before: %s", beside, calm)
		}
		for _, c := range []struct {
			name  string
			crowd *crowd
			since time.Time
		}{{"plain", plain, since}, {"TLS", hidden, sinceSecure}} {
			first, last, left := c.crowd.awaitEnds(c.since, 2*idle)
			r.v.note("%s sessions were closed %s to %s after the last of them said hello; the limit is %s", c.name,
				first.Round(time.Millisecond), last.Round(time.Millisecond), idle)
			if left > 0 || last > idle*9/8+5*time.Second {
				r.v.breach(Row, "%d %s sessions are open, the last was closed after %s", left, c.name, last)
			}
		}
		return nil
	})
	return v, err
}

// fill opens n sessions and asks what one of them costs.
func (r *rig) fill(ctx context.Context, c *crowd, n, bound int, kind string) error {
	before, err := r.p.use(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := c.gather(ctx, n, true); err != nil {
		return fmt.Errorf("open %d %s sessions: %w", n, kind, err)
	}
	took := time.Since(began)
	after, err := r.p.use(ctx)
	if err != nil {
		return err
	}
	each, heap := (after.resident-before.resident)/int64(n), (after.heap-before.heap)/int64(n)
	r.v.note("%d %s sessions in %s: %d octets each resident, %d of them live", n, kind, took.Round(time.Millisecond), each, heap)
	if each > int64(bound) {
		r.v.breach(Row, "an idle %s session costs %d octets", kind, each)
	}
	return nil
}

// selfSigned makes a certificate and its key.
func selfSigned(dir string) (certificate, key string, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "godwit.crash.example"},
		DNSNames:  []string{"godwit.crash.example"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(day),
	}
	public, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return "", "", err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return "", "", err
	}
	certificate, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	return certificate, key, errors.Join(
		os.WriteFile(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: public}), 0o600),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600),
	)
}
