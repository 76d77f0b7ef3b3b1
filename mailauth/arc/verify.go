package arc

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/mailauth/dkim"
	"github.com/godwit-mta/godwit/message"
)

// Chain is what verification found.
type Chain struct {
	Status    Status
	Instances int      // sets in the chain; 0 if it has none or they are not whole
	Sealers   []string // domains of the seals that hold, from the first instance on; only if Status is Pass
	// Results are what the ARC-Authentication-Results of each instance say, without i=, in the message's bytes; only if Status
	// is Pass. They can be believed as far as the sealer of the instance can.
	Results [][]byte
	// Newest is what became of the newest ARC-Message-Signature, which tells whether the message was changed since.
	Newest dkim.Result
	// Err says why Status is Fail. If it is dkim.ErrLookup, trying again later may tell otherwise.
	Err error
}

// Options say how chains are verified.
type Options struct {
	Resolver dkim.Resolver // needed
	// Timeout bounds the time for one message; zero means 20 seconds.
	Timeout time.Duration
}

// Verifier verifies chains. It is safe for concurrent use if its Resolver is.
type Verifier struct {
	o          Options
	signatures *dkim.Verifier
}

// New checks the options and returns a Verifier.
func New(o Options) (*Verifier, error) {
	if o.Timeout == 0 {
		o.Timeout = 20 * time.Second
	}
	v, err := dkim.NewVerifier(dkim.VerifyOptions{Resolver: o.Resolver, Timeout: max(0, o.Timeout)})
	switch {
	case o.Resolver == nil:
		return nil, errors.New("arc: a verifier needs a resolver")
	case o.Timeout < 0:
		return nil, errors.New("arc: the timeout is negative")
	case err != nil:
		return nil, err
	}
	return &Verifier{o: o, signatures: v}, nil
}

// Verify verifies the chain of the message that lies in pieces, its header first (RFC 8617, 5.2). The error is
// message.ErrHeaderTooLarge.
func (v *Verifier) Verify(ctx context.Context, pieces [][]byte, now time.Time) (Chain, error) {
	joined, err := message.JoinHeader(pieces)
	if err != nil {
		return Chain{}, err
	}
	h, err := message.ParseHeader(joined)
	var bad *message.HeaderError
	if err != nil && !errors.As(err, &bad) {
		return Chain{}, err
	}
	sets, err := findSets(h)
	switch {
	case err != nil:
		return Chain{Status: Fail, Err: err}, nil
	case len(sets) == 0:
		return Chain{Status: None}, nil
	}
	c := Chain{Status: Fail, Instances: len(sets)}
	if c.Err = checkStates(sets); c.Err != nil {
		return c, nil
	}
	ctx, cancel := context.WithTimeout(ctx, v.o.Timeout)
	defer cancel()
	c.Newest, err = v.signatures.VerifyARC(ctx, pieces, sets[len(sets)-1].signature, now)
	if err != nil {
		return Chain{}, err
	}
	if c.Newest.Status != dkim.Pass {
		c.Err = fmt.Errorf("arc: the newest signature: %w", c.Newest.Err)
		return c, nil
	}
	sealers, err := v.seals(ctx, sets)
	if err != nil {
		c.Err = err
		return c, nil
	}
	c.Status, c.Sealers = Pass, sealers
	for _, s := range sets {
		_, said, _ := bytes.Cut(s.results.Value, []byte(";"))
		c.Results = append(c.Results, said)
	}
	return c, nil
}

// checkStates checks what the seals say of the chain before them.
func checkStates(sets []set) error {
	if strings.EqualFold(sets[len(sets)-1].tags.Text("cv"), string(Fail)) {
		return ErrSealed
	}
	for i, s := range sets {
		want := Pass
		if i == 0 {
			want = None
		}
		if !strings.EqualFold(s.tags.Text("cv"), string(want)) {
			return fmt.Errorf("%w: the seal of instance %d does not say cv=%s", ErrStructure, i+1, want)
		}
	}
	return nil
}

// key is the answer for a selector.
type key struct {
	record *dkim.KeyRecord
	err    error
}

// seals verifies all seals. Each signs all sets before it, so one hash grows along the chain.
func (v *Verifier) seals(ctx context.Context, sets []set) ([]string, error) {
	keys := make(map[string]key)
	sealers := make([]string, 0, len(sets))
	chain := sha256.New()
	var buf []byte
	for i, s := range sets {
		buf = appendCanonical(buf[:0], s.results.Raw)
		buf = appendCanonical(append(buf, "\r\n"...), s.signature.Raw)
		_, _ = chain.Write(append(buf, "\r\n"...)) // never fails
		domain, err := v.sealHolds(ctx, s, chain, keys)
		if err != nil {
			return nil, fmt.Errorf("arc: the seal of instance %d: %w", i+1, err)
		}
		sealers = append(sealers, domain)
		buf = appendCanonical(buf[:0], s.seal.Raw)
		_, _ = chain.Write(append(buf, "\r\n"...))
	}
	return sealers, nil
}

func (v *Verifier) sealHolds(ctx context.Context, s set, chain hash.Hash, keys map[string]key) (string, error) {
	if _, has := s.tags.Get("h"); has {
		return "", fmt.Errorf("%w: it has h= (RFC 8617, 4.1.3)", ErrStructure)
	}
	packed, _ := s.tags.Packed("b")
	sig, err := base64.StdEncoding.AppendDecode(nil, packed)
	if err != nil || len(sig) == 0 {
		return "", fmt.Errorf("%w: b= is missing or not base64", ErrStructure)
	}
	domain, selector := strings.ToLower(s.tags.Text("d")), s.tags.Text("s")
	if !dkim.IsKeyName(domain, selector) {
		return "", fmt.Errorf("%w: d= or s= is no domain", ErrStructure)
	}
	id := selector + " " + domain
	k, ok := keys[id]
	if !ok {
		k.record, k.err = dkim.LookupKey(ctx, v.o.Resolver, domain, selector)
		keys[id] = k
	}
	if k.err != nil {
		return "", k.err
	}
	cloner, ok := chain.(hash.Cloner)
	if !ok {
		return "", errors.New("the hash cannot be copied")
	}
	c, err := cloner.Clone()
	if err != nil {
		return "", err
	}
	_, _ = c.Write(withoutSignature(s))
	return domain, k.record.Verify(strings.ToLower(s.tags.Text("a")), c.Sum(nil), sig)
}

// withoutSignature returns a seal's canonical form with an empty b=.
func withoutSignature(s set) []byte {
	b, _ := s.tags.Get("b")
	raw := s.seal.Raw
	colon := len(raw) - len(value(s.seal))
	own := append([]byte(nil), raw[:colon+b.Begin]...)
	return appendCanonical(nil, append(own, raw[colon+b.End:]...))
}
