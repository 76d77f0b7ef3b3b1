package dkim

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/godwit-mta/godwit/mailauth/internal/tagsig"
	"github.com/godwit-mta/godwit/message"
)

// maxSignedFields bounds how many fields of one name are signed. A message with more of them is a trick.
const maxSignedFields = 100

// Signer makes signatures. It is safe for concurrent use.
type Signer struct {
	fields []fieldRule
	pool   sync.Pool // *workspace
}

// fieldRule is one name of the h= list.
type fieldRule struct {
	name     string
	oversign bool
}

// New checks the options and returns a Signer.
func New(o Options) (*Signer, error) {
	headers, oversign := o.Headers, o.Oversign
	if headers == nil {
		headers = DefaultHeaders()
	}
	if oversign == nil {
		oversign = DefaultOversign()
	}
	s := &Signer{fields: []fieldRule{{"From", true}}}
	has := func(list []string, name string) bool {
		return slices.ContainsFunc(list, func(n string) bool { return strings.EqualFold(n, name) })
	}
	for _, name := range slices.Concat(headers, oversign) {
		if !isFieldName(name) {
			return nil, fmt.Errorf("dkim: %q is no name of a field", name)
		}
		if strings.EqualFold(name, "DKIM-Signature") {
			return nil, errors.New("dkim: a signature does not sign signatures")
		}
		known := slices.ContainsFunc(s.fields, func(r fieldRule) bool { return strings.EqualFold(r.name, name) })
		if !known {
			s.fields = append(s.fields, fieldRule{name, has(oversign, name)})
		}
	}
	s.pool.New = func() any { return &workspace{hash: sha256.New()} }
	return s, nil
}

func isFieldName(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f || s[i] == ':' || s[i] == ';' {
			return false
		}
	}
	return s != ""
}

// workspace is what one call needs.
type workspace struct {
	hash   hash.Hash
	body   tagsig.RelaxedBody
	found  []message.Field // the fields of one message that have rules
	rules  []int           // of each found
	signed []byte          // canonical fields, in the order of h=
	names  []byte          // h=
	field  []byte          // the signature's own field, canonical
	sum    [sha256.Size]byte
	bodies [sha256.Size]byte
}

// Sign signs the message that lies in pieces, its header first, with each of the keys, and appends one DKIM-Signature
// field for each to dst, each with its line end. now becomes t=.
//
// The error is one of ErrNoFrom, ErrHeader and ErrLineEnd, message.ErrHeaderTooLarge, or one of a key; then dst comes back
// as it was.
func (s *Signer) Sign(dst []byte, pieces [][]byte, keys []*Key, now time.Time) ([]byte, error) {
	if len(keys) == 0 || len(keys) > MaxKeys {
		return dst, fmt.Errorf("dkim: %d keys, want 1 to %d", len(keys), MaxKeys)
	}
	return s.sign(dst, pieces, keys, 0, now)
}

// SignARC appends an ARC-Message-Signature field of the given instance, which is a DKIM signature under another name
// (RFC 8617, 4.1.2), as Sign would. The key's Identity and Expire have no part in it.
func (s *Signer) SignARC(dst []byte, pieces [][]byte, key *Key, instance int, now time.Time) ([]byte, error) {
	if instance < 1 {
		return dst, fmt.Errorf("dkim: %d is no instance", instance)
	}
	return s.sign(dst, pieces, []*Key{key}, instance, now)
}

// sign makes signatures of DKIM, or of ARC if there is an instance.
func (s *Signer) sign(dst []byte, pieces [][]byte, keys []*Key, instance int, now time.Time) ([]byte, error) {
	joined, err := message.JoinHeader(pieces)
	if err != nil {
		return dst, err
	}
	header, err := message.ParseHeader(joined)
	var bad *message.HeaderError
	switch {
	case errors.As(err, &bad):
		return dst, fmt.Errorf("%w: octet %d", ErrHeader, bad.Offset)
	case err != nil:
		return dst, err
	}
	w := s.pool.Get().(*workspace)
	defer func() {
		clear(w.found)
		s.pool.Put(w)
	}()
	if err := s.gather(w, header); err != nil {
		return dst, err
	}
	if err := w.hashBody(pieces, header.Len()); err != nil {
		return dst, err
	}
	begin := len(dst)
	for _, k := range keys {
		if dst, err = w.sign(dst, k, instance, now); err != nil {
			return dst[:begin], err
		}
	}
	return dst, nil
}

// gather fills w.signed and w.names. Of several fields of one name the last ones are signed first (RFC 6376, 5.4.2).
func (s *Signer) gather(w *workspace, header message.Header) error {
	w.found, w.rules, w.signed, w.names = w.found[:0], w.rules[:0], w.signed[:0], w.names[:0]
	for f := range header.Fields() {
		if !cleanLines(f.Raw) {
			return ErrLineEnd
		}
		if i := s.rule(f); i >= 0 {
			w.found, w.rules = append(w.found, f), append(w.rules, i)
		}
	}
	for i, r := range s.fields {
		n := 0
		for j := len(w.found) - 1; j >= 0; j-- {
			if w.rules[j] != i {
				continue
			}
			if n++; n > maxSignedFields {
				return fmt.Errorf("%w: more than %d of %s", ErrHeader, maxSignedFields, r.name)
			}
			w.signed = tagsig.AppendRelaxedField(w.signed, w.found[j].Name, w.found[j].Value)
			w.signed = append(w.signed, '\r', '\n')
			w.list(r.name)
		}
		if i == 0 && n != 1 {
			return ErrNoFrom
		}
		if r.oversign {
			w.list(r.name)
		}
	}
	return nil
}

// rule returns the index of the rule of a field, or -1.
func (s *Signer) rule(f message.Field) int {
	for i := range s.fields {
		if len(s.fields[i].name) == len(f.Name) && f.Is(s.fields[i].name) {
			return i
		}
	}
	return -1
}

func (w *workspace) list(name string) {
	if len(w.names) > 0 {
		w.names = append(w.names, ':')
	}
	w.names = append(w.names, name...)
}

// cleanLines reports whether each CR of p has its LF and the other way round.
func cleanLines(p []byte) bool {
	for i, b := range p {
		if b == '\n' && (i == 0 || p[i-1] != '\r') || b == '\r' && (i+1 == len(p) || p[i+1] != '\n') {
			return false
		}
	}
	return true
}

func (w *workspace) hashBody(pieces [][]byte, skip int) error {
	w.hash.Reset()
	w.body.Reset(w.hash)
	for _, p := range pieces {
		if skip >= len(p) {
			skip -= len(p)
			continue
		}
		w.body.Feed(p[skip:])
		skip = 0
		if w.body.Bad() {
			return ErrLineEnd
		}
	}
	if w.body.End(); w.body.Bad() {
		return ErrLineEnd
	}
	w.hash.Sum(w.bodies[:0])
	return nil
}

// sign appends one signature.
func (w *workspace) sign(dst []byte, k *Key, instance int, now time.Time) ([]byte, error) {
	begin, name := len(dst), dkimSignature.name
	if instance > 0 {
		name = arcSignature.name
		dst = append(dst, name...)
		dst = append(dst, ": i="...)
		dst = strconv.AppendInt(dst, int64(instance), 10)
	} else {
		dst = append(dst, name...)
		dst = append(dst, ": v=1"...)
	}
	dst = append(dst, "; a="...)
	dst = append(dst, k.algorithm...)
	dst = append(dst, "; c=relaxed/relaxed;"...)
	if instance > 0 { // the name is longer, so the line is full
		dst = append(dst, "\r\n\td="...)
	} else {
		dst = append(dst, " d="...)
	}
	dst = append(dst, k.Domain...)
	dst = append(dst, ";\r\n\ts="...)
	dst = append(dst, k.Selector...)
	dst = append(dst, "; t="...)
	dst = strconv.AppendInt(dst, now.Unix(), 10)
	if k.Expire > 0 && instance == 0 {
		dst = append(dst, "; x="...)
		dst = strconv.AppendInt(dst, now.Add(k.Expire).Unix(), 10)
	}
	if k.Identity != "" && instance == 0 {
		dst = append(dst, ";\r\n\ti="...)
		dst = append(dst, k.Identity...)
	}
	dst = append(dst, ";\r\n\th="...)
	dst = appendFolded(dst, w.names, ':')
	dst = append(dst, ";\r\n\tbh="...)
	dst = base64.StdEncoding.AppendEncode(dst, w.bodies[:])
	dst = append(dst, ";\r\n\tb="...)

	w.field = tagsig.AppendRelaxedField(w.field[:0], dst[begin:begin+len(name)], dst[begin+len(name)+1:])
	w.hash.Reset()
	_, _ = w.hash.Write(w.signed)
	_, _ = w.hash.Write(w.field)
	w.hash.Sum(w.sum[:0])
	sig, err := k.SignHash(w.sum[:])
	if err != nil {
		return dst, err
	}
	return tagsig.AppendSignature(dst, sig), nil
}

// appendFolded appends a list with line breaks after separators, so that lines stay below 78 octets.
func appendFolded(dst, list []byte, sep byte) []byte {
	column := len("\th=")
	for len(list) > 0 {
		n := slices.Index(list, sep) + 1
		if n == 0 {
			n = len(list)
		}
		if column+n > 76 {
			dst = append(dst, "\r\n\t "...)
			column = 2
		}
		dst = append(dst, list[:n]...)
		column += n
		list = list[n:]
	}
	return dst
}
