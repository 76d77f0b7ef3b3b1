package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

// Act is one administrative act, as whoever carries it out describes it.
type Act struct {
	Actor  string // who: a system user, the name of a credential, "godwit" for the server itself
	Source string // from where: "admin socket", "signal", a network address
	Action string // what: a noun, a dot and a verb, such as "credential.create"
	Target string // to which thing: a name or id; empty: the server
	// Before and After say what the act changes. They are written as JSON; fields that hold secrets lose their values.
	Before, After any
}

// Record is an act in the chain.
type Record struct {
	Index  uint64          `json:"index"` // from 1 on, without gaps
	Time   time.Time       `json:"time"`  // UTC, microseconds
	Actor  string          `json:"actor"`
	Source string          `json:"source"`
	Action string          `json:"action"`
	Target string          `json:"target,omitempty"`
	Before json.RawMessage `json:"before,omitempty"`
	After  json.RawMessage `json:"after,omitempty"`
	// Of is the index of the record whose act ended like this; Error says why it failed, and is empty if it did not.
	Of       uint64 `json:"of,omitempty"`
	Error    string `json:"error,omitempty"`
	Previous Hash   `json:"previous"` // of the record before; zero for the first
	Hash     Hash   `json:"hash"`     // SHA-256 over all of the above
}

// Hash is a SHA-256 in hexadecimal digits when written.
type Hash [sha256.Size]byte

// String returns the hexadecimal digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText implements [encoding.TextMarshaler].
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (h *Hash) UnmarshalText(text []byte) error {
	if len(text) != 2*len(h) {
		return fmt.Errorf("%.80q is no SHA-256", text)
	}
	if _, err := hex.Decode(h[:], text); err != nil {
		return fmt.Errorf("%q is no SHA-256: %w", text, err)
	}
	return nil
}

// sum returns what Hash should be. It covers the fields with their lengths, not the JSON around them, so that an export may be
// indented or have its keys in another order.
func (r *Record) sum() Hash {
	h := sha256.New()
	var buf []byte
	text := func(s []byte) {
		buf = binary.BigEndian.AppendUint64(buf[:0], uint64(len(s)))
		h.Write(buf)
		h.Write(s)
	}
	number := func(n uint64) { h.Write(binary.BigEndian.AppendUint64(buf[:0], n)) }
	text([]byte("godwit audit 1"))
	number(r.Index)
	number(uint64(r.Time.UnixMicro()))
	for _, s := range []string{r.Actor, r.Source, r.Action, r.Target} {
		text([]byte(s))
	}
	text(compact(r.Before))
	text(compact(r.After))
	number(r.Of)
	text([]byte(r.Error))
	h.Write(r.Previous[:])
	return Hash(h.Sum(nil))
}

// compact drops white space that a tool may have put into an export.
func compact(raw json.RawMessage) []byte {
	if len(raw) == 0 {
		return nil
	}
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return raw
	}
	return b.Bytes()
}

// encode returns r as one line of JSON without its end.
func (r *Record) encode() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// decodeRecord undoes encode. It does not check the hash.
func decodeRecord(line []byte) (Record, error) {
	var r Record
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return Record{}, fmt.Errorf("no audit record: %w", err)
	}
	return r, nil
}

// maxText bounds a text of a record that comes from outside.
const maxText = 1000

// cut bounds s and replaces what is no UTF-8, which JSON would not bring back as it was.
func cut(s string) string {
	return string(bytes.ToValidUTF8([]byte(s[:min(len(s), maxText)]), []byte("?")))
}
