package keyring

import (
	"cmp"
	"context"
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/godwit-mta/godwit/internal/store"
)

// Resolver looks names up. An answer that there is nothing is no error: it is an empty list. An error says that it could not
// be found out now. What it keeps of earlier answers is to be seconds old at most.
type Resolver interface {
	TXT(ctx context.Context, name string) ([]string, error)
}

// Viewpoint is one place from where DNS is looked at.
type Viewpoint struct {
	Name string // for people: the address of a server
	Resolver
}

// Publisher writes records into DNS. Its calls end with their context.
type Publisher interface {
	// Covers reports whether name lies in a zone that the publisher writes.
	Covers(name string) bool
	// SetTXT makes text the only TXT record of name.
	SetTXT(ctx context.Context, name, text string) error
	// RemoveTXT leaves name without TXT records. That there are none is no error.
	RemoveTXT(ctx context.Context, name string) error
}

// Sealer encrypts what is kept; *seal.Keyring is one.
type Sealer interface {
	Sealing() bool
	SealText(dst, text []byte) []byte
	OpenText(dst, sealed []byte) ([]byte, error)
}

// Owners knows whose domains are. It is asked for each message.
type Owners interface {
	// Owns reports whether a tenant may send from a domain.
	Owns(tenant, domain string) bool
	// Owned reports whether any tenant may.
	Owned(domain string) bool
}

// Options describe a keyring. Store is required.
type Options struct {
	Store  store.Store
	Dir    string // of private keys that are not sealed; made when needed. Empty: without a Sealer no keys can be made
	Sealer Sealer // nil: nothing is sealed

	Resolvers []Viewpoint // none: no record can be checked, so that keys sign only with Unchecked
	Publisher Publisher   // nil: people publish
	Owners    Owners      // nil: every domain is everybody's

	Settings

	// RSA makes what signs of a private RSA key; nil: the key itself.
	RSA func(*rsa.PrivateKey) crypto.Signer

	Times Times

	Logger     *slog.Logger          // nil discards
	Registerer prometheus.Registerer // nil: metrics are kept but not registered
}

// Settings are what the configuration says, and can be replaced by [Keyring.SetSettings].
type Settings struct {
	Static []StaticKey
	// Operator is the domain that signs all mail besides the author's; empty: none. It needs keys without a tenant.
	Operator string
	// Required: mail that no key of its author's domain can sign is not sent.
	Required bool
	// Unchecked: keys sign although DNS does not show their record.
	Unchecked bool
	// Expire is how long signatures are good for; 0: for ever. It must outlast delivery.
	Expire time.Duration
	// Algorithms are those that new keys are made of; empty: all.
	Algorithms []Algorithm
	// Bits is the size of new RSA keys; default 2048.
	Bits int
	// RotateEvery is how old a signing key gets before a new one is made; 0: any age.
	RotateEvery time.Duration
	// RetireAfter is how long the record of a key stays after it signed last: longer than any message may be under way.
	// Default 7 days.
	RetireAfter time.Duration
	// Settle is how long a record has been seen by all before its key signs in another one's place; default 1 hour.
	Settle time.Duration
}

// Times are the time constants that are no configuration. They are for tests and demonstrations.
type Times struct {
	Check   time.Duration // between looks at the record of a key that is in use; 24 h
	Again   time.Duration // between looks while something is wrong; 5 min
	Confirm time.Duration // between two answers that a record is wrong and the belief; 30 s
	Eager   time.Duration // between looks for a record that was never seen, in the first hour; 1 min. Later ten times that, then Check/24
	Keep    time.Duration // how long an empty record says that a key is revoked; 30 d
	Poll    time.Duration // between looks at the clock, which may be set; 1 s
	Lookup  time.Duration // for one check; 30 s
	Write   time.Duration // for one publication; 30 s
}

// DefaultTimes returns what holds where nothing is said.
func DefaultTimes() (t Times) {
	t.fill()
	return t
}

// Divided returns times that are shorter by a factor; those for which others are waited for stay.
func (t Times) Divided(by int) Times {
	by = max(by, 1)
	for _, d := range []*time.Duration{&t.Check, &t.Again, &t.Confirm, &t.Eager, &t.Keep, &t.Poll} {
		*d = max(*d/time.Duration(by), time.Millisecond)
	}
	return t
}

func (t *Times) fill() {
	for _, f := range []struct {
		of   *time.Duration
		Else time.Duration
	}{
		{&t.Check, 24 * time.Hour}, {&t.Again, 5 * time.Minute}, {&t.Confirm, 30 * time.Second}, {&t.Eager, time.Minute},
		{&t.Keep, 30 * 24 * time.Hour}, {&t.Poll, time.Second}, {&t.Lookup, 30 * time.Second}, {&t.Write, 30 * time.Second},
	} {
		*f.of = cmp.Or(*f.of, f.Else)
	}
}

func (s Settings) filled() (Settings, error) {
	s.RetireAfter = cmp.Or(s.RetireAfter, 7*24*time.Hour)
	s.Settle = cmp.Or(s.Settle, time.Hour)
	s.Bits = cmp.Or(s.Bits, defaultBits)
	if len(s.Algorithms) == 0 {
		s.Algorithms = Algorithms()
	}
	var errs []error
	for _, a := range s.Algorithms {
		if !slices.Contains(Algorithms(), a) {
			errs = append(errs, fmt.Errorf("keyring: algorithm %q is not known", a))
		}
	}
	if s.Bits < defaultBits || s.Bits > maxBits {
		errs = append(errs, fmt.Errorf("keyring: RSA keys of %d bits; use %d to %d", s.Bits, defaultBits, maxBits))
	}
	if min(s.Expire, s.RotateEvery, s.RetireAfter, s.Settle) < 0 {
		errs = append(errs, errors.New("keyring: a time is negative"))
	}
	if s.Expire > s.RetireAfter && s.Expire > 0 {
		// A record that goes before its signatures expire would only make them fail earlier, which is as well; but who sets
		// this means the signatures to be good.
		s.RetireAfter = s.Expire
	}
	return s, errors.Join(errs...)
}

func (o Options) filled() (Options, error) {
	o.Times.fill()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.RSA == nil {
		o.RSA = func(k *rsa.PrivateKey) crypto.Signer { return k }
	}
	if o.Store == nil {
		return o, errors.New("keyring: no store")
	}
	return o, nil
}
