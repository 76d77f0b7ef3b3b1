// Package signing puts DKIM signatures on mail that is sent (RFC 6376, 8301 and 8463). It knows neither where keys come from nor
// what is done with a signed message: it is asked by the door for what clients hand in, and by the queue for the
// reports that the server writes itself.
//
//	s, err := signing.New(signing.Options{Keys: ring})
//	...
//	fields, err := s.Sign(ctx, nil, pieces, "example.com", "shop")
//	body.Prepend(fields)
//
// # Where it is done
//
// A signature of RSA costs more than all else that happens to a message. It is made on the session's own goroutine, before
// the message is handed to the spool: so the committer of the journal never waits for one, a message that cannot be
// signed is refused while its sender still listens, and it is made once, whatever the number of recipients. At most
// [Options.Workers] are made at a time; who comes later waits in turn, without burning a core that
// the journal or a delivery could use.
//
// # What is signed
//
// What leaves: the message after its last edit, as it will be sent, but for our own Received field, which stands above
// the signatures. See mailauth/dkim for the fields.
//
// RFC 6376, 5: signer actions. RFC 8301, 3: RSA of 2048 bits and SHA-256. RFC 8463: Ed25519 beside it.
package signing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/godwit-mta/godwit/mailauth/dkim"
	"github.com/godwit-mta/godwit/message"
)

// Keys knows which keys sign. It is asked for each message by many goroutines, so it should neither lock nor allocate.
type Keys interface {
	// Keys returns the keys that sign now for mail of this author domain (in A-labels, lower case; empty if the message
	// names no author that can be told) and this tenant (empty: the server's own mail), at most dkim.MaxKeys. None and no
	// error: the message goes without a signature. An error: it must be signed, and no key can; one that wraps ErrNone
	// says that there is no key to wait for.
	Keys(domain, tenant string) ([]*dkim.Key, error)
}

// ErrNone is for [Keys]: there is no key for the domain, and only an operator can change that.
var ErrNone = errors.New("signing: there is no key for the author's domain, and its mail must be signed")

// Options make a [Signer]. Keys is needed; for everything else the zero value means the default.
type Options struct {
	Keys Keys
	// Workers bounds the signatures that are made at a time. Default: GOMAXPROCS.
	Workers int
	// Fields say which header fields are signed. It can be replaced by [Signer.SetFields].
	Fields dkim.Options

	Logger     *slog.Logger          // nil discards
	Registerer prometheus.Registerer // nil: metrics are kept but not registered
}

// Signer signs messages. It is safe for concurrent use.
type Signer struct {
	keys    Keys
	log     *slog.Logger
	signer  atomic.Pointer[dkim.Signer]
	workers chan struct{} // holds one value for each message that is being signed
	metrics *metrics
	spread  spread
}

// New checks the options and returns a Signer. It starts nothing, and has nothing to be closed.
func New(o Options) (*Signer, error) {
	switch {
	case o.Keys == nil:
		return nil, errors.New("signing: there are no keys to ask for")
	case o.Workers < 0:
		return nil, fmt.Errorf("signing: %d workers", o.Workers)
	case o.Workers == 0:
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Signer{keys: o.Keys, log: o.Logger, workers: make(chan struct{}, o.Workers)}
	if err := s.SetFields(o.Fields); err != nil {
		return nil, err
	}
	var err error
	s.metrics, err = newMetrics(s, o.Registerer)
	return s, err
}

// SetFields replaces what is signed, from the next message on.
func (s *Signer) SetFields(o dkim.Options) error {
	signer, err := dkim.New(o)
	if err != nil {
		return err
	}
	s.signer.Store(signer)
	return nil
}

// Sign appends the DKIM-Signature fields of a message to dst, each with its line end. The message lies in pieces, its header
// first; domain is that of its author (in A-labels, lower case), tenant its owner. With no key for them dst comes back as
// it was, and that is no error. Nothing of pieces or dst is kept.
//
// Sign waits for its turn; the end of ctx ends the wait. The error is that of Keys, one of ctx, one about the message
// (dkim.ErrNoFrom, ErrHeader, ErrLineEnd or message.ErrHeaderTooLarge), or one of a key; then dst comes back as it was.
func (s *Signer) Sign(ctx context.Context, dst []byte, pieces [][]byte, domain, tenant string) ([]byte, error) {
	keys, err := s.keys.Keys(domain, tenant)
	if err != nil {
		s.metrics.failures[failedKeys].Inc()
		return dst, fmt.Errorf("signing for %q: %w", domain, err)
	}
	if len(keys) == 0 {
		s.metrics.unsigned.Inc()
		return dst, nil
	}
	begin := time.Now()
	select {
	case s.workers <- struct{}{}:
	case <-ctx.Done():
		s.metrics.failures[failedWait].Inc()
		return dst, fmt.Errorf("signing: no turn in %v: %w", time.Since(begin), context.Cause(ctx))
	}
	turn := time.Now()
	dst, err = s.sign(dst, pieces, keys, turn)
	s.metrics.wait.Observe(turn.Sub(begin).Seconds())
	s.metrics.duration.Observe(time.Since(turn).Seconds())
	if err != nil {
		s.metrics.failures[kindOf(err)].Inc()
		return dst, err
	}
	for _, k := range keys {
		s.metrics.signature(k.Algorithm()).Inc()
	}
	return dst, nil
}

// sign holds a turn while it works, be it that a key panics.
func (s *Signer) sign(dst []byte, pieces [][]byte, keys []*dkim.Key, now time.Time) ([]byte, error) {
	defer func() { <-s.workers }()
	return s.signer.Load().Sign(dst, pieces, keys, now)
}

// kindOf says which failure an error of dkim is.
func kindOf(err error) failure {
	switch {
	case errors.Is(err, dkim.ErrNoFrom):
		return failedFrom
	case errors.Is(err, dkim.ErrHeader), errors.Is(err, message.ErrHeaderTooLarge):
		return failedHeader
	case errors.Is(err, dkim.ErrLineEnd):
		return failedLineEnd
	}
	return failedPrimitive
}
