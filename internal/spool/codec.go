package spool

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

// The encoding of records and index values. Numbers are varints, strings and groups of fields (frames) begin with
// their length. A frame only ever grows at its end: a reader that knows fewer fields skips the rest, a reader that
// knows more takes zero values for what is missing. So old and new versions read each other's records.

var errCodec = errors.New("spool: malformed record")

// Texts that come from outside are cut when they are written, so that no record or index value grows with the words
// of a remote.
const (
	maxText      = 1000 // in records
	maxIndexText = 300  // in the index
)

func appendUint(b []byte, n uint64) []byte { return binary.AppendUvarint(b, n) }
func appendInt(b []byte, n int64) []byte   { return binary.AppendVarint(b, n) }

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendCut(b []byte, s string, limit int) []byte { return appendString(b, s[:min(len(s), limit)]) }

// appendTime writes microseconds; the zero time is 0.
func appendTime(b []byte, t time.Time) []byte { return binary.AppendVarint(b, micros(t)) }

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// round is what a time is after it was written and read: UTC, microseconds.
func round(t time.Time) time.Time { return fromMicros(micros(t)) }

// endFrame puts the length of b[start:] before it.
func endFrame(b []byte, start int) []byte {
	var head [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(head[:], uint64(len(b)-start))
	b = append(b, head[:n]...)
	copy(b[start+n:], b[start:])
	copy(b[start:], head[:n])
	return b
}

// decoder reads fields from s. Strings it gives are parts of s, so that one allocation serves a whole record. After
// an error all reads give zero values. At the end of s, too: that is how fields that the writer did not know are
// read.
type decoder struct {
	s   string
	err error
}

func (d *decoder) fail() {
	d.err = errCodec
	d.s = ""
}

func (d *decoder) uint() uint64 {
	if d.s != "" && d.s[0] < 0x80 { // lengths, nearly always
		n := d.s[0]
		d.s = d.s[1:]
		return uint64(n)
	}
	return d.long()
}

// long reads a number of any length.
func (d *decoder) long() uint64 {
	var n uint64
	for i := 0; i < len(d.s); i++ {
		c := d.s[i]
		if i == binary.MaxVarintLen64-1 && c > 1 {
			break
		}
		n |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			d.s = d.s[i+1:]
			return n
		}
		if i == binary.MaxVarintLen64-1 {
			break
		}
	}
	if d.s != "" {
		d.fail()
	}
	return 0
}

func (d *decoder) int() int64 {
	u := d.uint()
	n := int64(u >> 1)
	if u&1 != 0 {
		n = ^n
	}
	return n
}

// count reads how many elements follow, each of at least size octets.
func (d *decoder) count(size int) int {
	n := d.uint()
	if n > uint64(len(d.s)/size) {
		d.fail()
		return 0
	}
	return int(n)
}

// small reads a number that must not exceed limit.
func (d *decoder) small(limit uint64) int {
	n := d.uint()
	if n > limit {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) string() string {
	n := d.uint()
	if n > uint64(len(d.s)) {
		d.fail()
		return ""
	}
	s := d.s[:n]
	d.s = d.s[n:]
	return s
}

func (d *decoder) time() time.Time { return fromMicros(d.int()) }

func (d *decoder) id() (id message.ID) {
	if d.s == "" {
		return id
	}
	if len(d.s) < len(id) {
		d.fail()
		return id
	}
	copy(id[:], d.s)
	d.s = d.s[len(id):]
	return id
}

// frame reads a group of fields.
func (d *decoder) frame() decoder { return decoder{s: d.string(), err: d.err} }

// leave takes over the error of a frame that was read.
func (d *decoder) leave(f *decoder) {
	if f.err != nil && d.err == nil {
		d.fail()
	}
}

const maxIndex = 1<<31 - 1 // of a recipient

// Flags of a message.
const (
	flagEightBit = 1 << iota
	flagDotLine
	flagHeaderUTF8
	flagReport
	flagFromUTF8
	flagRequireTLS
	flagTLSOptional
)

// Flags of a recipient.
const (
	flagOtherDomain = 1 << iota // the queue's domain differs from the path's
	flagOtherTenant             // the queue's tenant differs from the message's
	flagOriginal                // ORCPT is there
)

// appendMessage writes the whole of m as a frame.
func appendMessage(b []byte, m *Message) []byte {
	start := len(b)
	b = append(b, m.ID[:]...)
	var flags uint64
	for i, set := range [...]bool{m.EightBit, m.DotLine, m.HeaderUTF8, m.Report, m.From.UTF8, m.From.RequireTLS,
		m.TLSOptional} {
		if set {
			flags |= 1 << i
		}
	}
	b = appendUint(b, flags)
	b = appendString(b, m.Tenant)
	b = appendString(b, m.Stream)
	b = appendTime(b, m.Received)
	b = appendTime(b, m.Expires)
	b = appendTime(b, m.DelayNotice)
	b = appendString(b, m.Session)
	b = appendString(b, m.Listener)
	b = appendString(b, m.Client)
	b = appendString(b, m.Hello)
	b = appendString(b, m.Protocol)
	b = appendUint(b, uint64(m.Size))
	b = appendString(b, m.From.Local)
	b = appendString(b, m.From.Domain)
	b = appendUint(b, uint64(max(m.From.Size, 0)))
	b = append(b, byte(m.From.Body), byte(m.From.Return))
	b = appendString(b, m.From.EnvelopeID)
	b = appendCut(b, m.HeaderFrom, maxText)
	b = appendCut(b, m.Subject, maxText)
	b = appendCut(b, m.MessageID, maxText)
	b = appendUint(b, uint64(len(m.Recipients)))
	for i := range m.Recipients {
		b = appendRecipient(b, m, i)
	}
	if m.Auth != "" { // left out while it is the last field
		b = appendCut(b, m.Auth, maxText)
	}
	return endFrame(b, start)
}

func appendRecipient(b []byte, m *Message, i int) []byte {
	start := len(b)
	r, q := &m.Recipients[i], m.Queues[i]
	var flags uint64
	if q.Domain != r.Domain {
		flags |= flagOtherDomain
	}
	if q.Tenant != m.Tenant {
		flags |= flagOtherTenant
	}
	if r.Original != (smtp.OriginalRecipient{}) {
		flags |= flagOriginal
	}
	b = appendUint(b, flags)
	b = appendString(b, r.Local)
	b = appendString(b, r.Domain)
	b = append(b, byte(r.Notify))
	if flags&flagOtherDomain != 0 {
		b = appendString(b, q.Domain)
	}
	if flags&flagOtherTenant != 0 {
		b = appendString(b, q.Tenant)
	}
	if flags&flagOriginal != 0 {
		b = appendString(b, r.Original.Type)
		b = appendString(b, r.Original.Address)
	}
	return endFrame(b, start)
}

// octet reads one octet as it stands.
func (d *decoder) octet() byte {
	if d.s == "" {
		return 0
	}
	c := d.s[0]
	d.s = d.s[1:]
	return c
}

// message reads a whole message into m, in the memory of m's lists.
func (d *decoder) message(m *Message) {
	f := d.frame()
	*m = Message{Recipients: m.Recipients[:0], Queues: m.Queues[:0]}
	m.ID = f.id()
	flags := f.uint()
	m.EightBit, m.DotLine = flags&flagEightBit != 0, flags&flagDotLine != 0
	m.HeaderUTF8, m.Report = flags&flagHeaderUTF8 != 0, flags&flagReport != 0
	m.From.UTF8 = flags&flagFromUTF8 != 0
	m.From.RequireTLS, m.TLSOptional = flags&flagRequireTLS != 0, flags&flagTLSOptional != 0
	m.Tenant, m.Stream = f.string(), f.string()
	m.Received, m.Expires, m.DelayNotice = f.time(), f.time(), f.time()
	m.Session, m.Listener, m.Client, m.Hello, m.Protocol = f.string(), f.string(), f.string(), f.string(), f.string()
	m.Size = int64(f.uint() &^ (1 << 63))
	m.From.Local, m.From.Domain = f.string(), f.string()
	m.From.Size = int64(f.uint() &^ (1 << 63))
	m.From.Body, m.From.Return = smtp.BodyType(f.octet()), smtp.Return(f.octet())
	m.From.EnvelopeID = f.string()
	m.HeaderFrom, m.Subject, m.MessageID = f.string(), f.string(), f.string()
	n := f.count(4) // flags, two lengths, NOTIFY
	m.Recipients = slices.Grow(m.Recipients, n)[:n]
	m.Queues = slices.Grow(m.Queues, n)[:n]
	for i := range n {
		m.Recipients[i] = smtp.Recipient{}
		f.recipient(m, i)
	}
	m.Auth = f.string()
	d.leave(&f)
	if d.err == nil && (m.ID.IsZero() || n == 0) {
		d.fail()
	}
}

func (d *decoder) recipient(m *Message, i int) {
	f := d.frame()
	r, q := &m.Recipients[i], &m.Queues[i]
	flags := f.uint()
	r.Local, r.Domain = f.string(), f.string()
	r.Notify = smtp.Notify(f.octet())
	q.Domain, q.Tenant = r.Domain, m.Tenant
	if flags&flagOtherDomain != 0 {
		q.Domain = f.string()
	}
	if flags&flagOtherTenant != 0 {
		q.Tenant = f.string()
	}
	if flags&flagOriginal != 0 {
		r.Original.Type, r.Original.Address = f.string(), f.string()
	}
	d.leave(&f)
}

// appendResult writes r as a frame, its texts cut at limit.
func appendResult(b []byte, r *Result, limit int) []byte {
	start := len(b)
	b = append(b, byte(r.Outcome), byte(r.Reason), byte(r.Class))
	b = appendUint(b, uint64(max(r.Reply.Code, 0)))
	b = appendUint(b, uint64(r.Reply.Enhanced.Class))
	b = appendUint(b, uint64(r.Reply.Enhanced.Subject))
	b = appendUint(b, uint64(r.Reply.Enhanced.Detail))
	b = appendCut(b, r.Reply.Text, limit)
	b = appendCut(b, r.Phase, limit)
	b = appendCut(b, r.Host, limit)
	b = appendAddr(b, r.Addr)
	b = appendCut(b, r.Site, limit)
	b = appendCut(b, r.Source, limit)
	b = appendCut(b, r.TLS, limit)
	b = appendCut(b, r.Explanation, limit)
	b = appendTime(b, r.NextDue)
	var flags byte
	if r.RemoteDSN {
		flags = 1
	}
	b = append(b, flags)
	return endFrame(b, start)
}

func (d *decoder) result() (r Result) {
	f := d.frame()
	r.Outcome, r.Reason, r.Class = Outcome(f.octet()), event.Reason(f.octet()), event.Class(f.octet())
	r.Reply.Code = f.small(1 << 16)
	r.Reply.Enhanced.Class = uint16(f.small(1<<16 - 1))
	r.Reply.Enhanced.Subject = uint16(f.small(1<<16 - 1))
	r.Reply.Enhanced.Detail = uint16(f.small(1<<16 - 1))
	r.Reply.Text, r.Phase, r.Host = f.string(), f.string(), f.string()
	r.Addr = f.addr()
	r.Site, r.Source, r.TLS, r.Explanation = f.string(), f.string(), f.string(), f.string()
	r.NextDue = f.time()
	r.RemoteDSN = f.octet()&1 != 0
	d.leave(&f)
	if int(r.Outcome) >= len(outcomeNames) {
		d.fail()
	}
	return r
}

// appendAddr writes an address with its port: the length, the octets of the address, the port. Zones are not written.
func appendAddr(b []byte, a netip.AddrPort) []byte {
	switch ip := a.Addr().WithZone(""); {
	case ip.Is4():
		o := ip.As4()
		b = append(append(b, 6), o[:]...)
	case ip.Is6():
		o := ip.As16()
		b = append(append(b, 18), o[:]...)
	default:
		return append(b, 0)
	}
	return binary.BigEndian.AppendUint16(b, a.Port())
}

func (d *decoder) addr() netip.AddrPort {
	s := d.string()
	if len(s) == 0 {
		return netip.AddrPort{}
	}
	if len(s) != 6 && len(s) != 18 {
		d.fail()
		return netip.AddrPort{}
	}
	var o [16]byte
	n := copy(o[:], s[:len(s)-2])
	ip, _ := netip.AddrFromSlice(o[:n])
	return netip.AddrPortFrom(ip, uint16(s[len(s)-2])<<8|uint16(s[len(s)-1]))
}
