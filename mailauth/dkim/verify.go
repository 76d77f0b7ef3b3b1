package dkim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"hash"
	"time"

	"github.com/godwit-mta/godwit/mailauth/internal/tagsig"
	"github.com/godwit-mta/godwit/message"
)

// Status says what became of a signature (RFC 8601, 2.7.1).
type Status string

// What becomes of signatures.
const (
	Pass      Status = "pass"
	Fail      Status = "fail"      // it does not hold for this message now
	Policy    Status = "policy"    // it may hold, but is not taken: weak, or of a part of the body
	Neutral   Status = "neutral"   // it, or the message, cannot be read
	TempError Status = "temperror" // the key could not be looked up now
	PermError Status = "permerror" // it never holds: no key, a revoked one, From not signed
)

// Result says what became of one signature. Its texts are printable ASCII, whatever stood in the field.
type Result struct {
	Status    Status
	Domain    string // d=, lower case
	Selector  string // s=
	Identity  string // i=, or "@" and Domain
	Algorithm string // a=
	B         string // the first octets of b=, which tell signatures apart (RFC 6008, 4)
	Testing   bool   // the domain tests DKIM (t=y): a failure is to be treated as no signature
	// Length is l=, the octets of the body that are signed; -1 if the signature does not say, which means all.
	Length int64
	Err    error // why Status is not Pass
}

// VerifyOptions say how signatures are verified.
type VerifyOptions struct {
	Resolver Resolver // needed
	// Partial takes signatures of a part of the body (l=). To whatever they are on, anybody may append (RFC 6376, 8.2).
	Partial bool
	// Timeout bounds the time for all keys of one message; zero means 20 seconds.
	Timeout time.Duration
}

// Verifier verifies signatures. It is safe for concurrent use if its Resolver is.
type Verifier struct{ o VerifyOptions }

// NewVerifier checks the options and returns a Verifier.
func NewVerifier(o VerifyOptions) (*Verifier, error) {
	switch {
	case o.Resolver == nil:
		return nil, errors.New("dkim: a verifier needs a resolver")
	case o.Timeout < 0:
		return nil, errors.New("dkim: the timeout is negative")
	case o.Timeout == 0:
		o.Timeout = 20 * time.Second
	}
	return &Verifier{o}, nil
}

// Verify verifies the signatures of the message that lies in pieces, its header first, and returns a result for each, in the
// order of the message; none if it is not signed. The body is read once. The first MaxSignatures are verified.
//
// The error is message.ErrHeaderTooLarge; what is wrong with a message otherwise is told by the results.
func (v *Verifier) Verify(ctx context.Context, pieces [][]byte, now time.Time) ([]Result, error) {
	m, err := parseMessage(pieces)
	if err != nil {
		return nil, err
	}
	var list []*signature
	for f := range m.header.All(dkimSignature.name) {
		s := &signature{result: Result{Status: Policy, Err: ErrTooMany, Length: -1}}
		if len(list) < MaxSignatures {
			s = parseSignature(f, dkimSignature, now)
		}
		list = append(list, s)
		if len(list) > 2*MaxSignatures {
			break // more are not even listed
		}
	}
	v.verify(ctx, m, list)
	out := make([]Result, len(list))
	for i, s := range list {
		out[i] = s.result
	}
	return out, nil
}

// VerifyARC verifies one ARC-Message-Signature field of a message (RFC 8617, 4.1.2), which is one of DKIM under another name.
func (v *Verifier) VerifyARC(ctx context.Context, pieces [][]byte, field message.Field, now time.Time) (Result, error) {
	m, err := parseMessage(pieces)
	if err != nil {
		return Result{}, err
	}
	s := parseSignature(field, arcSignature, now)
	v.verify(ctx, m, []*signature{s})
	return s.result, nil
}

// received is a message to be verified.
type received struct {
	header message.Header
	block  []byte // the header with the empty line after it
	pieces [][]byte
	broken error // no signature can hold
	index  map[string][]message.Field
}

func parseMessage(pieces [][]byte) (*received, error) {
	joined, err := message.JoinHeader(pieces)
	if err != nil {
		return nil, err
	}
	m := &received{pieces: pieces}
	var bad *message.HeaderError
	switch m.header, err = message.ParseHeader(joined); {
	case errors.As(err, &bad):
		m.broken = fmt.Errorf("%w: octet %d", ErrHeader, bad.Offset)
	case err != nil:
		return nil, err
	}
	m.block = joined[:m.header.Len()]
	return m, nil
}

// named returns the fields of a name in lower case, in their order.
func (m *received) named(name string) []message.Field {
	if m.index == nil {
		m.index = make(map[string][]message.Field)
		for f := range m.header.Fields() {
			key := string(bytes.ToLower(f.Name))
			m.index[key] = append(m.index[key], f)
		}
	}
	return m.index[name]
}

// verify settles the signatures that parsing left open.
func (v *Verifier) verify(ctx context.Context, m *received, list []*signature) {
	open := make([]*signature, 0, len(list))
	for _, s := range list {
		if s.result.Status == "" {
			open = append(open, s)
		}
	}
	if len(open) == 0 {
		return
	}
	broken := m.broken
	if broken == nil && !cleanLines(m.block) {
		broken = ErrLineEnd
	}
	if broken == nil {
		broken = m.hashBodies(open)
	}
	ctx, cancel := context.WithTimeout(ctx, v.o.Timeout)
	defer cancel()
	keys := make(map[string]fetched)
	for _, s := range open {
		err := broken
		if err == nil {
			err = v.settle(ctx, m, s, keys)
		}
		s.result.Status = Pass
		if err != nil {
			s.result.Status, s.result.Err = statusOf(err), err
		}
	}
}

// fetched is the answer for a key.
type fetched struct {
	record *KeyRecord
	err    error
}

func (v *Verifier) settle(ctx context.Context, m *received, s *signature, keys map[string]fetched) error {
	id := s.result.Selector + " " + s.result.Domain
	key, ok := keys[id]
	if !ok {
		key.record, key.err = LookupKey(ctx, v.o.Resolver, s.result.Domain, s.result.Selector)
		keys[id] = key
	}
	if key.err != nil {
		return key.err
	}
	s.result.Testing = key.record.Testing
	if key.record.Strict && s.below {
		return fmt.Errorf("%w, where the key wants it (t=s)", ErrIdentity)
	}
	if s.limit > s.body.window.Size || subtle.ConstantTimeCompare(s.body.sum, s.bodyHash) == 0 {
		return ErrBody
	}
	h := sha256.New()
	m.hashHeader(h, s)
	if err := key.record.Verify(s.result.Algorithm, h.Sum(nil), s.value); err != nil {
		return err
	}
	if s.limit >= 0 && s.limit < s.body.window.Size && !v.o.Partial {
		return fmt.Errorf("%w: %d of %d octets are signed", ErrPartial, s.limit, s.body.window.Size)
	}
	return nil
}

// hashHeader hashes the fields that h= names, and the signature's own (RFC 6376, 3.7). Of several fields of one name the
// last ones come first; names of which there are no more fields stand for nothing.
func (m *received) hashHeader(h hash.Hash, s *signature) {
	used := make(map[string]int)
	var buf []byte
	for w := range s.tags.Words("h") {
		key := string(bytes.ToLower(w))
		fields := m.named(key)
		n := len(fields) - 1 - used[key]
		if n < 0 {
			continue
		}
		used[key]++
		buf = appendCanonical(buf[:0], fields[n].Raw, s.simpleHeader)
		_, _ = h.Write(append(buf, "\r\n"...))
	}
	b, _ := s.tags.Get("b")
	colon := len(s.field.Raw) - len(value(s.field))
	own := append([]byte(nil), s.field.Raw[:colon+b.Begin]...)
	own = append(own, s.field.Raw[colon+b.End:]...)
	_, _ = h.Write(appendCanonical(buf[:0], own, s.simpleHeader))
}

// appendCanonical appends a field without its last line end.
func appendCanonical(dst, raw []byte, simple bool) []byte {
	if simple {
		return append(dst, bytes.TrimSuffix(raw, []byte("\r\n"))...)
	}
	colon := bytes.IndexByte(raw, ':')
	return tagsig.AppendRelaxedField(dst, bytes.TrimRight(raw[:colon], " \t"), raw[colon+1:])
}

// digest is the hash of one canonical form of the body, or of its begin.
type digest struct {
	hash   hash.Hash
	window tagsig.Window
	sum    []byte
}

// fan writes to all digests of one form.
type fan []*digest

func (f fan) Write(p []byte) (int, error) {
	for _, d := range f {
		_, _ = d.window.Write(p)
	}
	return len(p), nil
}

// hashBodies gives each signature its digest, after one pass over the body.
func (m *received) hashBodies(list []*signature) error {
	var simple, relaxed fan
	for _, s := range list {
		all := &relaxed
		if s.simpleBody {
			all = &simple
		}
		for _, d := range *all {
			if d.window.Limit == s.limit {
				s.body = d
			}
		}
		if s.body == nil {
			h := sha256.New()
			s.body = &digest{hash: h, window: tagsig.Window{Hash: h, Limit: s.limit}}
			*all = append(*all, s.body)
		}
	}
	var a tagsig.SimpleBody
	var b tagsig.RelaxedBody
	a.Reset(simple)
	b.Reset(relaxed)
	skip := m.header.Len()
	for _, p := range m.pieces {
		if skip >= len(p) {
			skip -= len(p)
			continue
		}
		if len(simple) > 0 {
			a.Feed(p[skip:])
		}
		if len(relaxed) > 0 {
			b.Feed(p[skip:])
		}
		skip = 0
	}
	if len(simple) > 0 {
		a.End()
	}
	if len(relaxed) > 0 {
		b.End()
	}
	if a.Bad() || b.Bad() {
		return ErrLineEnd
	}
	for _, d := range append(simple, relaxed...) {
		d.sum = d.hash.Sum(nil)
	}
	return nil
}
