package arc

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/godwit-mta/godwit/mailauth/authres"
	"github.com/godwit-mta/godwit/mailauth/dkim"
	"github.com/godwit-mta/godwit/mailauth/internal/tagsig"
	"github.com/godwit-mta/godwit/message"
)

// Sealer extends chains. It is safe for concurrent use.
type Sealer struct{ signer *dkim.Signer }

// NewSealer returns a Sealer; the options say which fields its signatures cover.
func NewSealer(o dkim.Options) (*Sealer, error) {
	for _, name := range append(append([]string(nil), o.Headers...), o.Oversign...) {
		switch {
		case equal(name, authres.FieldName), equal(name, resultsName), equal(name, signatureName), equal(name, sealName):
			return nil, fmt.Errorf("arc: a signature does not cover %s (RFC 8617, 4.1.2)", name)
		}
	}
	s, err := dkim.New(o)
	if err != nil {
		return nil, err
	}
	return &Sealer{s}, nil
}

func equal(name, other string) bool { return message.Field{Name: []byte(name)}.Is(other) }

// Seal appends to dst the three fields that extend a message's chain by one set (RFC 8617, 5.1), for the message's begin. chain is
// what Verify found in the same message when it came in; id and results are what its Authentication-Results says.
//
// A chain that is broken is sealed as such, once: of one that was, or is full, or so broken that its end cannot be told, the
// error is ErrSealed, ErrFull or ErrStructure. Other errors are those of dkim.Signer.Sign and authres.Append. Then dst comes
// back as it was.
func (s *Sealer) Seal(dst []byte, pieces [][]byte, chain Chain, id string, results []authres.Result, key *dkim.Key, now time.Time) ([]byte, error) {
	begin := len(dst)
	out, err := s.seal(dst, pieces, chain, id, results, key, now)
	if err != nil {
		return dst[:begin], err
	}
	return out, nil
}

func (s *Sealer) seal(dst []byte, pieces [][]byte, chain Chain, id string, results []authres.Result, key *dkim.Key, now time.Time) ([]byte, error) {
	switch {
	case key == nil:
		return dst, errors.New("arc: no key to seal with")
	case chain.Status != None && chain.Status != Pass && chain.Status != Fail:
		return dst, fmt.Errorf("arc: %q is no state of a chain", chain.Status)
	case errors.Is(chain.Err, ErrSealed):
		return dst, ErrSealed
	case chain.Status == Fail && errors.Is(chain.Err, dkim.ErrLookup):
		return dst, chain.Err // nobody knows whether it is broken
	case chain.Status != None && chain.Instances == 0:
		return dst, ErrStructure
	case chain.Instances >= MaxInstances:
		return dst, ErrFull
	}
	joined, err := message.JoinHeader(pieces)
	if err != nil {
		return dst, err
	}
	h, err := message.ParseHeader(joined)
	if err != nil {
		return dst, fmt.Errorf("arc: %w", err)
	}
	sets, err := findSets(h)
	if err != nil {
		return dst, err
	}
	if len(sets) != chain.Instances {
		return dst, fmt.Errorf("%w: the message has %d sets, the verified one had %d", ErrStructure, len(sets), chain.Instances)
	}
	n := chain.Instances + 1
	field, err := resultsField(n, id, results)
	if err != nil {
		return dst, err
	}
	signature, err := s.signer.SignARC(nil, pieces, key, n, now)
	if err != nil {
		return dst, err
	}
	sum := sha256.New()
	var buf []byte
	write := func(raw []byte) {
		buf = append(appendCanonical(buf[:0], raw), "\r\n"...)
		_, _ = sum.Write(buf) // never fails
	}
	if chain.Status == Pass { // a broken chain is not sealed over (RFC 8617, 5.1.2)
		for _, old := range sets {
			write(old.results.Raw)
			write(old.signature.Raw)
			write(old.seal.Raw)
		}
	}
	write(field)
	write(signature)

	dst = append(dst, sealName+": i="...)
	start := len(dst) - len(sealName+": i=")
	dst = strconv.AppendInt(dst, int64(n), 10)
	dst = append(dst, "; a="...)
	dst = append(dst, key.Algorithm()...)
	dst = append(dst, "; cv="...)
	dst = append(dst, chain.Status...)
	dst = append(dst, "; d="...)
	dst = append(dst, key.Domain...)
	dst = append(dst, ";\r\n\ts="...)
	dst = append(dst, key.Selector...)
	dst = append(dst, "; t="...)
	dst = strconv.AppendInt(dst, now.Unix(), 10)
	dst = append(dst, ";\r\n\tb="...)
	_, _ = sum.Write(appendCanonical(buf[:0], dst[start:]))
	sig, err := key.SignHash(sum.Sum(nil))
	if err != nil {
		return dst, err
	}
	dst = tagsig.AppendSignature(dst, sig)
	dst = append(dst, signature...)
	return append(dst, field...), nil
}

// resultsField makes ARC-Authentication-Results, a field of Authentication-Results with an instance before it.
func resultsField(n int, id string, results []authres.Result) ([]byte, error) {
	plain, err := authres.Append(nil, id, results)
	if err != nil {
		return nil, err
	}
	out := append([]byte(resultsName+": i="), strconv.Itoa(n)...)
	out = append(out, ";\r\n\t"...)
	return append(out, plain[len(authres.FieldName)+2:]...), nil
}
