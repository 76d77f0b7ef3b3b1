package audit

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"slices"

	"github.com/godwit-mta/godwit/internal/store"
)

// Report is what [Verify] found.
type Report struct {
	First    uint64 `json:"first"`              // index of the first record
	Last     uint64 `json:"last"`               // index up to which records are good
	Anchors  int    `json:"anchors"`            // that were compared
	Anchored uint64 `json:"anchored"`           // index up to which the chain is vouched for by an anchor
	Head     Hash   `json:"head"`               // of the last good record
	Bad      uint64 `json:"bad,omitempty"`      // the first bad index; 0: none
	Problem  string `json:"problem,omitempty"`  // what is wrong with it
	Key      string `json:"key,omitempty"`      // public key of the anchors, base64
	Unsigned bool   `json:"unsigned,omitempty"` // there are no anchors, so that a missing end would not be found
}

// OK says that nothing is wrong.
func (r *Report) OK() bool { return r.Bad == 0 && r.Problem == "" }

// Verify walks over a chain and compares it with anchors, which may be none. With part it may begin with any record, as an export
// with --since does, and what came before is taken on trust. The first bad index is that of the first record that
// is not what was written there: changed, missing, from elsewhere, or cut off. The error is one of reading, not a finding.
func Verify(records iter.Seq2[Record, error], anchors []Anchor, part bool) (Report, error) {
	var rep Report
	bad := func(index uint64, format string, args ...any) {
		if rep.Problem == "" || index < rep.Bad {
			rep.Bad, rep.Problem = index, fmt.Sprintf(format, args...)
		}
	}
	known := make(map[uint64]Hash, len(anchors))
	var last uint64
	var key []byte
	for i := range anchors {
		a := &anchors[i]
		if key == nil {
			key = a.Key
		}
		switch {
		case !a.valid():
			bad(max(a.Index, 1), "anchor in line %d is not signed by its key", i+1)
			continue
		case !bytes.Equal(a.Key, key):
			bad(max(a.Index, 1), "anchor in line %d is signed by another key than the first", i+1)
			continue
		}
		rep.Anchors++
		if h, twice := known[a.Index]; twice && h != a.Hash {
			bad(a.Index, "record %d was anchored twice with different contents: the chain was put back to an earlier state", a.Index)
			continue
		}
		if a.Index < last {
			bad(a.Index, "record %d was anchored after record %d: the chain was put back to an earlier state", a.Index, last)
		}
		last = max(last, a.Index)
		known[a.Index] = a.Hash
	}
	rep.Unsigned = rep.Anchors == 0
	if key != nil {
		rep.Key = fmt.Sprintf("%x", key)
	}
	var previous Hash
	next := uint64(1)
	for r, err := range records {
		if err != nil {
			if !isContent(err) {
				return rep, err
			}
			bad(next, "record %d cannot be read: %v", next, err)
			break
		}
		if part && rep.First == 0 && r.Index > 0 {
			next, previous = r.Index, r.Previous
			if h, ok := known[next-1]; ok {
				previous = h
			}
		}
		if rep.First == 0 {
			rep.First = next
		}
		switch {
		case r.Index != next:
			bad(next, "record %d is missing: record %d stands in its place", next, r.Index)
		case r.Previous != previous:
			bad(next, "record %d does not follow the one before it", next)
		case r.sum() != r.Hash:
			bad(next, "record %d was changed", next)
		}
		if h, ok := known[next]; ok && r.Index == next && h != r.Hash {
			bad(next, "record %d is not the one that was anchored", next)
		}
		if rep.Problem != "" && rep.Bad <= next {
			break
		}
		if _, ok := known[next]; ok {
			rep.Anchored = next
		}
		rep.Last, rep.Head, previous = next, r.Hash, r.Hash
		next++
	}
	if next <= last {
		bad(next, "record %d is missing: %d records were anchored", next, last)
	}
	if rep.Problem != "" && rep.Bad <= rep.Last {
		rep.Last = rep.Bad - 1
		rep.Anchored = min(rep.Anchored, rep.Last)
	}
	return rep, nil
}

// VerifyStore is [Verify] for the whole chain in a store, which also knows how many records there should be.
func VerifyStore(ctx context.Context, s store.Store, anchors []Anchor) (Report, error) {
	l := Log{store: s}
	if err := l.readHead(ctx); err != nil {
		return Report{}, err
	}
	rep, err := Verify(Records(ctx, s, 0), anchors, false)
	if err == nil && rep.OK() && rep.Last != l.head.Index {
		rep.Bad = min(rep.Last, l.head.Index) + 1
		rep.Problem = fmt.Sprintf("the chain has %d records, its head says %d", rep.Last, l.head.Index)
	}
	return rep, err
}

// contentError is a record that could be read but makes no sense.
type contentError struct{ err error }

func (e *contentError) Error() string { return e.err.Error() }
func (e *contentError) Unwrap() error { return e.err }

func isContent(err error) bool {
	_, ok := err.(*contentError)
	return ok
}

// maxLine bounds one line of an export.
const maxLine = 4 << 20

// ReadExport yields the records of an export, one line of JSON each.
func ReadExport(r io.Reader) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		lines := bufio.NewScanner(r)
		lines.Buffer(make([]byte, 0, 64<<10), maxLine)
		for lines.Scan() {
			line := bytes.TrimSpace(lines.Bytes())
			if len(line) == 0 {
				continue
			}
			rec, err := decodeRecord(slices.Clone(line))
			if err != nil {
				err = &contentError{err}
			}
			if !yield(rec, err) || err != nil {
				return
			}
		}
		if err := lines.Err(); err != nil {
			yield(Record{}, err)
		}
	}
}
