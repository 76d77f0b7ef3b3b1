package journal

import (
	"fmt"

	"github.com/godwit-mta/godwit/smtp"
)

// Sealer encrypts what records hold. The engine writes what it gives in place of meta and body, sums that, and finds tears and
// damage as ever: for those it needs no key. Kinds, lengths and positions stay clear.
type Sealer interface {
	// Sealing says whether what is appended now is to be sealed. What is sealed already is opened in any case.
	Sealing() bool
	// Seal appends the sealed meta to dst and returns it with the sealed body, which has a reference for the caller; nil for
	// nil. It adds at most sealedMore octets to a meta, and that and a 512th to a body.
	Seal(dst []byte, kind uint8, meta []byte, body *smtp.Body) ([]byte, *smtp.Body)
	// OpenMeta appends what was sealed to dst, or says that these are not the bytes that Seal gave.
	OpenMeta(dst []byte, kind uint8, sealed []byte) ([]byte, error)
	// OpenBody returns the body of the record with this sealed meta, with a reference for the caller, who keeps that of sealed.
	OpenBody(kind uint8, sealedMeta []byte, sealed *smtp.Body) (*smtp.Body, error)
	// BodySize returns the octets of the body that has sealed octets as written.
	BodySize(sealed int64) int64
}

// sealedMore bounds what a Sealer adds to a meta.
const sealedMore = 64

// wire is what is written of a record.
type wire struct {
	meta  []byte
	body  *smtp.Body // one reference, given back when it is written
	flags uint8

	metaSum, bodySum uint32
	bodySize         uint32

	memory []byte // of a sealed meta, kept for the next use of the record
}

// set makes w what is to be written of r, sealed by s unless that is nil.
func (w *wire) set(r *Record, s Sealer) {
	if s == nil {
		w.meta, w.body = r.Meta, r.Body
		if r.Body != nil {
			r.Body.Retain()
		}
		w.flags = bodyFlags(r.Body)
	} else {
		w.memory, w.body = s.Seal(w.memory[:0], uint8(r.Kind), r.Meta, r.Body)
		w.meta = w.memory
		w.flags = bodyFlags(w.body) | flagSealed
	}
	w.sum()
}

// release gives back the body.
func (w *wire) release() {
	if w.body != nil {
		w.body.Release()
		w.body = nil
	}
}

// sealer returns what seals records that are appended now; nil: nothing does.
func (l *Log) sealer() Sealer {
	if s := l.options.Sealer; s != nil && s.Sealing() {
		return s
	}
	return nil
}

// unseal opens a record that was read as it is written, and releases its sealed body. what says why it cannot be opened for good.
func (l *Log) unseal(r *Record) (what string, err error) {
	s := l.options.Sealer
	if s == nil {
		return "", ErrSealed
	}
	meta, err := s.OpenMeta(nil, uint8(r.Kind), r.Meta)
	if err != nil {
		return fmt.Sprintf("the meta does not open: %v", err), nil
	}
	if r.Body != nil {
		clear, err := s.OpenBody(uint8(r.Kind), r.Meta, r.Body)
		if err != nil {
			return fmt.Sprintf("the body does not open: %v", err), nil
		}
		r.Body.Release()
		r.Body = clear
	}
	r.Meta = meta
	return "", nil
}

// unsealEntry opens the meta of an entry, into memory.
func (l *Log) unsealEntry(e *Entry, memory []byte) ([]byte, error) {
	s := l.options.Sealer
	if s == nil {
		return memory, ErrSealed
	}
	clear, err := s.OpenMeta(memory[:0], uint8(e.Kind), e.Meta)
	if err != nil {
		return memory, err
	}
	e.Meta, e.BodySize = clear, s.BodySize(e.BodySize)
	return clear, nil
}
