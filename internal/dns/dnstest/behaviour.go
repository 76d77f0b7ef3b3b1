package dnstest

import (
	"encoding/binary"
	"io"
	"strings"
	"time"

	wire "github.com/miekg/dns"
)

const maxPacket = 1 << 16

// Behaviour is what the server does in place of a plain answer. The zero value is a plain answer. Several can be
// combined where that makes sense: a delay with any other.
type Behaviour struct {
	Types []string // record types it holds for ("MX"); empty: all
	Times int      // for so many queries only, then plain again; 0: always
	Share float64  // the part of the queries it holds for, in turns; 0: all

	Drop          bool          // no answer; over TCP the connection is closed
	Delay         time.Duration // the answer comes later
	Rcode         string        // "SERVFAIL", "REFUSED", "FORMERR" ... and no records
	Authentic     bool          // the AD bit is set
	Truncate      bool          // over UDP: no records and the TC bit
	NoTCP         bool          // connections are closed unanswered
	NoEDNS        bool          // a query with EDNS gets FORMERR without question, as from servers of old
	WrongID       bool          // a wrong id
	WrongName     bool          // the answer is to another question
	LowerCase     bool          // names come back in lower case
	Referral      bool          // only an NS record of a server to ask instead
	CutAliases    bool          // only the first alias, not what it leads to
	WithoutSOA    bool          // negative answers say nothing of their TTL
	Raw           []byte        // these octets follow the id of the query
	BeforeWrongID int           // so many forged packets with wrong ids come first

	// Extra is master-file text of records that the answer has besides: forged ones.
	Extra string
}

type behaviour struct {
	Behaviour
	types map[uint16]bool
	extra []wire.RR
	rcode int
	left  int // queries it still holds for; negative: always
	turn  float64
}

// question is a name in canonical form and a record type's name.
type question struct{ name, typ string }

// Fail lets the server misbehave when it is asked for name, in place of what was said of that name before. "*.example"
// stands for all names below example that have no behaviour of their own, "*" for all. A zero Behaviour makes it plain
// again. It panics on a Behaviour that names no known type or code, which is a mistake in a test.
func (s *Server) Fail(name string, b Behaviour) {
	made := &behaviour{Behaviour: b, types: make(map[uint16]bool), left: b.Times}
	if b.Times == 0 {
		made.left = -1
	}
	for _, t := range b.Types {
		n, ok := wire.StringToType[t]
		if !ok {
			panic("dnstest: unknown record type " + t)
		}
		made.types[n] = true
	}
	if b.Rcode != "" {
		n, ok := wire.StringToRcode[b.Rcode]
		if !ok {
			panic("dnstest: unknown response code " + b.Rcode)
		}
		made.rcode = n
	}
	if b.Extra != "" {
		z, err := parseZones(b.Extra)
		if err != nil {
			panic(err)
		}
		for _, rrs := range z.records {
			made.extra = append(made.extra, rrs...)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.behaviours[canonical(name)] = made
}

// take returns the behaviour for a question, which counts as one use of it, and counts the question.
func (s *Server) take(q wire.Question) *behaviour {
	name := canonical(q.Name)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.queries[question{name, wire.TypeToString[q.Qtype]}]++
	pattern := name
	for {
		if b := s.mu.behaviours[pattern]; b != nil && b.left != 0 && (len(b.types) == 0 || b.types[q.Qtype]) {
			if b.Share > 0 {
				if b.turn += b.Share; b.turn < 1 {
					return &behaviour{}
				}
				b.turn--
			}
			b.left = max(b.left-1, -1)
			return b
		}
		if pattern == "*." {
			return &behaviour{}
		}
		if name = parent(name); name == "." {
			pattern = "*."
		} else {
			pattern = "*." + name
		}
	}
}

// respond returns the packets that answer a query, if any, and how long to wait before.
func (s *Server) respond(packet []byte, tcp bool) ([][]byte, time.Duration) {
	query := new(wire.Msg)
	if err := query.Unpack(packet); err != nil || query.Response || len(query.Question) != 1 {
		return nil, 0
	}
	b := s.take(query.Question[0])
	switch {
	case b.Drop, b.NoTCP && tcp:
		return nil, b.Delay
	case b.Raw != nil:
		return [][]byte{append(packet[:2:2], b.Raw...)}, b.Delay
	}
	m := s.answer(query, b, tcp)
	out, err := m.Pack()
	if err != nil {
		return nil, b.Delay
	}
	var packets [][]byte
	for i := range b.BeforeWrongID {
		forged := append([]byte(nil), out...)
		binary.BigEndian.PutUint16(forged, m.Id+uint16(i)+1)
		packets = append(packets, forged)
	}
	return append(packets, out), b.Delay
}

func (s *Server) answer(query *wire.Msg, b *behaviour, tcp bool) *wire.Msg {
	m := new(wire.Msg)
	m.SetReply(query)
	m.RecursionAvailable = true
	m.AuthenticatedData = b.Authentic
	m.Compress = true
	opt := query.IsEdns0()
	size := wire.MinMsgSize
	if opt != nil {
		if b.NoEDNS {
			m.Question, m.Rcode = nil, wire.RcodeFormatError
			return m
		}
		size = max(size, int(opt.UDPSize()))
		m.SetEdns0(1232, false)
	}
	switch {
	case b.Rcode != "":
		m.Rcode = b.rcode
	case b.Referral:
		root := wire.RR_Header{Name: ".", Rrtype: wire.TypeNS, Class: wire.ClassINET, Ttl: defaultTTL}
		m.Ns = []wire.RR{&wire.NS{Hdr: root, Ns: "a.root-servers.net."}}
	default:
		s.mu.RLock()
		data := s.mu.data
		s.mu.RUnlock()
		data.resolve(m)
	}
	m.Answer = append(m.Answer, b.extra...)
	s.distort(m, b)
	switch {
	case tcp:
		m.Truncate(wire.MaxMsgSize - 1)
	case b.Truncate:
		m.Truncated, m.Answer, m.Ns = true, nil, nil
	default:
		m.Truncate(size)
	}
	return m
}

func (s *Server) distort(m *wire.Msg, b *behaviour) {
	if b.WrongID {
		m.Id++
	}
	if b.WrongName {
		m.Question[0].Name = "other." + strings.TrimPrefix(m.Question[0].Name, ".")
	}
	if b.WithoutSOA && !b.Referral {
		m.Ns = nil
	}
	if b.CutAliases && len(m.Answer) > 1 {
		m.Answer, m.Ns, m.Rcode = m.Answer[:1], nil, wire.RcodeSuccess
	}
	if b.LowerCase {
		for i := range m.Question {
			m.Question[i].Name = strings.ToLower(m.Question[i].Name)
		}
		for _, rr := range m.Answer {
			rr.Header().Name = strings.ToLower(rr.Header().Name)
		}
	}
}

func readFramed(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	p := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(r, p)
	return p, err
}

func writeFramed(w io.Writer, p []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(p))), p...))
	return err
}
