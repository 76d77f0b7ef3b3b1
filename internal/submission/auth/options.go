package auth

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/godwit-mta/godwit/internal/dns"
	"github.com/godwit-mta/godwit/internal/store"
	"github.com/godwit-mta/godwit/smtp"
)

// Resolver looks up what proves a domain; *dns.Resolver is one. It should keep answers for seconds only: people correct
// a record and ask again. Errors are *dns.Error.
type Resolver interface {
	LookupTXT(ctx context.Context, name string) (dns.TXT, error)
	LookupAlias(ctx context.Context, name string) (string, error)
}

// Options make a Directory. Store and Hostname are required; zero values of the rest mean defaults.
type Options struct {
	Store    store.Store
	Resolver Resolver // nil: domains cannot be verified, only assigned
	Hostname string   // of this server, which the alias of a challenge points below

	Configured []ConfiguredTenant // what the configuration says of tenants
	Issuers    []Issuer           // who vouches for OAuth tokens; none: OAUTHBEARER and XOAUTH2 are not offered

	Cost            Cost          // of hashing a password
	ScramIterations int           // 15,000; at least 4,096 (RFC 7677, 4)
	Hashers         int           // hashes computed at once; default: half of GOMAXPROCS, at least 1
	HashQueue       int           // attempts that may wait for a hasher, more are answered 454 at once; 128
	HashWait        time.Duration // how long one waits before it is answered 454; 3 s

	CacheTime    time.Duration // how long a success is known again without hashing; 5 min
	CacheEntries int           // 16,384

	Budgets Budgets // for failures

	FlushInterval   time.Duration // how often last uses are written; 1 min
	RecheckInterval time.Duration // how often proofs of domains are looked at again; 24 h
	ChallengeTime   time.Duration // how long an unproven claim can be verified; 30 days

	// Banned is told of each automatic ban, from the goroutine of Run. Its Login is empty where there is no such account.
	// Nil: nobody is told.
	Banned func(ctx context.Context, b Ban)

	Rand       io.Reader             // of secrets, salts and ids; nil means crypto/rand
	Logger     *slog.Logger          // nil discards
	Registerer prometheus.Registerer // nil registers nothing
}

// ConfiguredTenant is a tenant as the configuration file gives it. At run time it can be disabled, but neither renamed,
// limited nor removed: its limits are the file's too, and package limits has them from there.
type ConfiguredTenant struct {
	ID       string
	Name     string
	TLS      string // as [Tenant].TLS
	Disabled bool
	Domains  []string // that the operator assigns to it: a name, or all below it ("*.example.com")
}

func (o Options) filled() (Options, error) {
	if o.Store == nil || o.Hostname == "" {
		return o, errors.New("auth: store and hostname are required")
	}
	host, err := smtp.DomainToASCII(o.Hostname)
	if err != nil {
		return o, fmt.Errorf("auth: hostname %q: %w", o.Hostname, err)
	}
	o.Hostname = host
	if o.Cost, err = o.Cost.filled(); err != nil {
		return o, err
	}
	if o.Budgets, err = o.Budgets.filled(); err != nil {
		return o, err
	}
	number := func(p *int, def int) {
		if *p == 0 {
			*p = def
		}
	}
	number(&o.ScramIterations, 15_000)
	number(&o.Hashers, max(1, runtime.GOMAXPROCS(0)/2))
	number(&o.HashQueue, 128)
	number(&o.CacheEntries, 16_384)
	period := func(p *time.Duration, def time.Duration) {
		if *p == 0 {
			*p = def
		}
	}
	period(&o.HashWait, 3*time.Second)
	period(&o.CacheTime, 5*time.Minute)
	period(&o.FlushInterval, time.Minute)
	period(&o.RecheckInterval, 24*time.Hour)
	period(&o.ChallengeTime, 30*24*time.Hour)
	if o.ScramIterations < 4096 || o.Hashers < 1 || o.HashQueue < 1 || o.CacheEntries < 1 || o.HashWait < 0 ||
		o.CacheTime < 0 || o.FlushInterval < 0 || o.RecheckInterval < 0 || o.ChallengeTime < 0 {
		return o, errors.New("auth: an option is out of range")
	}
	if o.Banned == nil {
		o.Banned = func(context.Context, Ban) {}
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, nil
}
