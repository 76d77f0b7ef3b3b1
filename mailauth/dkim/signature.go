package dkim

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/mailauth/internal/tagsig"
	"github.com/godwit-mta/godwit/message"
)

// Bounds on signatures that others made.
const (
	MaxSignatures  = 10       // of one message that are verified
	MaxSignedNames = 256      // names in h=
	MaxSignature   = 16 << 10 // octets of the field
	// ClockSkew is how far our clock and a signer's may be apart.
	ClockSkew = 10 * time.Minute
)

// signature is a DKIM-Signature or ARC-Message-Signature field taken apart.
type signature struct {
	field  message.Field
	kind   kind
	result Result
	tags   tagsig.Tags
	// simpleHeader and simpleBody are the canonical forms that c= names.
	simpleHeader, simpleBody bool
	bodyHash, value          []byte
	limit                    int64 // l=, or -1
	below                    bool  // the domain of i= is below d=
	body                     *digest
}

// kind is what differs between the two fields.
type kind struct {
	name     string
	instance bool // i= is a number, and there is no v= (RFC 8617, 4.1.2)
}

var (
	dkimSignature = kind{name: "DKIM-Signature"}
	arcSignature  = kind{name: "ARC-Message-Signature", instance: true}
)

// value returns a field's octets after the colon, its last line end included.
func value(f message.Field) []byte { return f.Raw[bytes.IndexByte(f.Raw, ':')+1:] }

// parseSignature takes a field apart. If it cannot be used, the result says so.
func parseSignature(f message.Field, k kind, now time.Time) *signature {
	s := &signature{field: f, kind: k, limit: -1, result: Result{Length: -1}}
	if err := s.parse(now); err != nil {
		s.result.Err = err
		s.result.Status = statusOf(err)
	}
	return s
}

func (s *signature) parse(now time.Time) error {
	if len(s.field.Raw) > MaxSignature {
		return fmt.Errorf("%w: it has more than %d octets", ErrSyntax, MaxSignature)
	}
	var err error
	if s.tags, err = tagsig.ParseTags(value(s.field)); err != nil {
		return fmt.Errorf("%w: %w", ErrSyntax, err)
	}
	if err := s.names(); err != nil {
		return err
	}
	if err := s.hashes(); err != nil {
		return err
	}
	if err := s.listed(); err != nil {
		return err
	}
	if s.limit, err = s.tags.Number("l"); err != nil {
		return fmt.Errorf("%w: %w", ErrSyntax, err)
	}
	s.result.Length = s.limit
	return s.times(now)
}

// names reads who signed.
func (s *signature) names() error {
	t := s.tags
	r := &s.result
	r.Domain, r.Selector, r.Algorithm = strings.ToLower(t.Text("d")), t.Text("s"), clean(strings.ToLower(t.Text("a")))
	if b, _ := t.Packed("b"); b != nil {
		r.B = clean(string(b[:min(8, len(b))]))
	}
	if !isDomain(r.Domain) || !isDomain(r.Selector) && !isLabel(r.Selector) {
		r.Domain, r.Selector = clean(r.Domain), clean(r.Selector)
		return fmt.Errorf("%w: d= or s= is no domain", ErrSyntax)
	}
	if s.kind.instance {
		if _, ok := t.Get("v"); ok {
			return fmt.Errorf("%w: v= has no place here (RFC 8617, 4.1.2)", ErrSyntax)
		}
		return nil
	}
	if v := t.Text("v"); v != "1" {
		return fmt.Errorf("%w: v= is not 1", ErrSyntax)
	}
	i, ok := t.Get("i")
	if !ok {
		r.Identity = "@" + r.Domain
		return nil
	}
	r.Identity = clean(string(i.Value))
	at := bytes.LastIndexByte(i.Value, '@')
	if at < 0 || !atOrBelow(string(i.Value[at+1:]), r.Domain) {
		return ErrIdentity
	}
	s.below = len(i.Value)-at-1 > len(r.Domain)
	return nil
}

// clean returns a text that may stand in a log or a field: what is not printable ASCII is replaced, and it is short.
func clean(s string) string {
	return strings.Map(func(c rune) rune {
		if c <= ' ' || c >= 0x7f {
			return '?'
		}
		return c
	}, s[:min(len(s), 320)])
}

// atOrBelow reports whether a domain is another one or a true subdomain of it: fexample.net is not below example.net.
func atOrBelow(domain, top string) bool {
	if !isDomain(domain) || len(domain) < len(top) {
		return false
	}
	head, tail := domain[:len(domain)-len(top)], domain[len(domain)-len(top):]
	return strings.EqualFold(tail, top) && (head == "" || head[len(head)-1] == '.')
}

// hashes reads algorithm, canonical forms and the two values.
func (s *signature) hashes() error {
	switch s.result.Algorithm {
	case "rsa-sha256", "ed25519-sha256":
	case "rsa-sha1":
		return ErrWeakHash
	default:
		return fmt.Errorf("%w: a= is none that is known", ErrSyntax)
	}
	form, body, two := strings.Cut(strings.ToLower(s.tags.Text("c")), "/")
	if form == "" {
		form = "simple"
	}
	if !two {
		body = "simple" // RFC 6376, 3.5
	}
	for _, c := range []string{form, body} {
		if c != "simple" && c != "relaxed" {
			return fmt.Errorf("%w: c= is none that is known", ErrSyntax)
		}
	}
	s.simpleHeader, s.simpleBody = form == "simple", body == "simple"
	if _, ok := s.tags.Get("q"); ok && !s.tags.Has("q", "dns/txt") && !s.tags.Has("q", "dns") {
		return fmt.Errorf("%w: q= does not have dns/txt", ErrSyntax)
	}
	for name, to := range map[string]*[]byte{"bh": &s.bodyHash, "b": &s.value} {
		packed, _ := s.tags.Packed(name)
		v, err := base64.StdEncoding.AppendDecode(nil, packed)
		if err != nil || len(v) == 0 {
			return fmt.Errorf("%w: %s= is missing or not base64", ErrSyntax, name)
		}
		*to = v
	}
	return nil
}

// listed checks h=.
func (s *signature) listed() error {
	n, from := 0, false
	for w := range s.tags.Words("h") {
		if n++; n > MaxSignedNames {
			return fmt.Errorf("%w: h= has more than %d names", ErrSyntax, MaxSignedNames)
		}
		if !isFieldName(string(w)) {
			return fmt.Errorf("%w: h= has what is no name of a field", ErrSyntax)
		}
		if s.kind.instance && (bytes.EqualFold(w, []byte("ARC-Seal"))) {
			return fmt.Errorf("%w: h= has ARC-Seal (RFC 8617, 4.1.2)", ErrSyntax)
		}
		from = from || bytes.EqualFold(w, []byte("From"))
	}
	if n == 0 {
		return fmt.Errorf("%w: it has no h=", ErrSyntax)
	}
	if !from {
		return ErrFromNotSigned
	}
	return nil
}

func (s *signature) times(now time.Time) error {
	made, err := s.tags.Number("t")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSyntax, err)
	}
	until, err := s.tags.Number("x")
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrSyntax, err)
	case until >= 0 && made >= 0 && until <= made:
		return fmt.Errorf("%w: x= is not after t=", ErrSyntax)
	case until >= 0 && now.Add(-ClockSkew).Unix() > until:
		return ErrExpired
	case made > now.Add(ClockSkew).Unix():
		return ErrFuture
	}
	return nil
}

// Errors of verification. Those of keys are ErrLookup, ErrNoKey, ErrRecord, ErrRevoked and ErrWeakKey.
var (
	ErrSyntax        = errors.New("dkim: the signature cannot be read")
	ErrSignature     = errors.New("dkim: the signature does not hold")
	ErrBody          = errors.New("dkim: the body was changed")
	ErrExpired       = errors.New("dkim: the signature has expired")
	ErrFuture        = errors.New("dkim: the signature is from the future")
	ErrIdentity      = errors.New("dkim: i= is not at or below d=")
	ErrFromNotSigned = errors.New("dkim: From is not signed")
	ErrWeakHash      = errors.New("dkim: SHA-1 does not count (RFC 8301, 3.1)")
	ErrPartial       = errors.New("dkim: l= leaves a part of the body unsigned")
	ErrTooMany       = errors.New("dkim: too many signatures, this one was not verified")
)

// statusOf says what an error makes of a signature (RFC 8601, 2.7.1).
func statusOf(err error) Status {
	for _, e := range []struct {
		err    error
		status Status
	}{
		{ErrLookup, TempError}, {ErrSyntax, Neutral}, {ErrHeader, Neutral}, {ErrLineEnd, Neutral}, {ErrPartial, Policy}, {ErrTooMany, Policy},
		{ErrWeakHash, Policy}, {ErrWeakKey, Policy}, {ErrSignature, Fail}, {ErrBody, Fail}, {ErrExpired, Fail}, {ErrFuture, Fail},
	} {
		if errors.Is(err, e.err) {
			return e.status
		}
	}
	return PermError
}
