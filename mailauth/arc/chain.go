package arc

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"github.com/godwit-mta/godwit/mailauth/internal/tagsig"
	"github.com/godwit-mta/godwit/message"
)

// Bounds on chains.
const (
	MaxInstances = 50 // RFC 8617, 4.2.1
	maxField     = 16 << 10
)

// Names of the fields of a set.
const (
	resultsName   = "ARC-Authentication-Results"
	signatureName = "ARC-Message-Signature"
	sealName      = "ARC-Seal"
)

// Status is the state of a chain (RFC 8617, 4.4).
type Status string

// States of chains.
const (
	None Status = "none" // the message has no chain
	Pass Status = "pass"
	Fail Status = "fail"
)

// Errors of chains. Those of keys and signatures are dkim's.
var (
	ErrStructure = errors.New("arc: the chain is not whole")
	ErrSealed    = errors.New("arc: the chain was sealed as broken before")
	ErrFull      = errors.New("arc: the chain has no room for another set")
)

// set is what one relay added.
type set struct {
	results, signature, seal message.Field
	tags                     tagsig.Tags // of seal
}

// findSets collects the sets of a header, and checks that they are whole (RFC 8617, 5.2, steps 1 to 3).
func findSets(h message.Header) ([]set, error) {
	var sets []set
	n := 0
	for f := range h.Fields() {
		var kind int
		switch {
		case f.Is(resultsName):
			kind = 0
		case f.Is(signatureName):
			kind = 1
		case f.Is(sealName):
			kind = 2
		default:
			continue
		}
		if n++; n > 3*MaxInstances || len(f.Raw) > maxField {
			return nil, fmt.Errorf("%w: it is too large", ErrStructure)
		}
		var tags tagsig.Tags
		i, err := instanceOf(f)
		if kind > 0 && err == nil {
			if tags, err = tagsig.ParseTags(value(f)); err == nil {
				i, err = instance([]byte(tags.Text("i")))
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%w: field %d: %w", ErrStructure, n, err)
		}
		for len(sets) < i {
			sets = append(sets, set{})
		}
		s := &sets[i-1]
		place := []*message.Field{&s.results, &s.signature, &s.seal}[kind]
		if place.Raw != nil {
			return nil, fmt.Errorf("%w: instance %d has two fields of a kind", ErrStructure, i)
		}
		*place = f
		if kind == 2 {
			s.tags = tags
		}
	}
	for i, s := range sets {
		if s.results.Raw == nil || s.signature.Raw == nil || s.seal.Raw == nil {
			return nil, fmt.Errorf("%w: instance %d lacks a field", ErrStructure, i+1)
		}
	}
	return sets, nil
}

// value returns a field's octets after the colon.
func value(f message.Field) []byte { return f.Raw[bytes.IndexByte(f.Raw, ':')+1:] }

var errInstance = errors.New("i= is no instance")

// instanceOf reads the i= of ARC-Authentication-Results, which stands first; in the other fields it may stand anywhere.
func instanceOf(f message.Field) (int, error) {
	if !f.Is(resultsName) {
		return 0, nil
	}
	first, _, ok := bytes.Cut(f.Value, []byte(";"))
	name, number, is := bytes.Cut(first, []byte("="))
	if !ok || !is || string(bytes.TrimSpace(name)) != "i" {
		return 0, errInstance
	}
	return instance(bytes.TrimSpace(number))
}

func instance(p []byte) (int, error) {
	n, err := strconv.ParseUint(string(p), 10, 8)
	if err != nil || n < 1 || n > MaxInstances {
		return 0, errInstance
	}
	return int(n), nil
}

// appendCanonical appends a field made canonical the relaxed way, without its line end.
func appendCanonical(dst, raw []byte) []byte {
	colon := bytes.IndexByte(raw, ':')
	return tagsig.AppendRelaxedField(dst, bytes.TrimRight(raw[:colon], " \t"), raw[colon+1:])
}
