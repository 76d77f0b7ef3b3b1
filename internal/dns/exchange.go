package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/bits"
	"net"
	"os"
	"sync"
	"time"

	wire "github.com/miekg/dns"
)

const (
	udpPayload = 1232 // what an answer over UDP may have without being cut into fragments (RFC 9715, 3)
	maxPacket  = 1 << 16
)

var packets = sync.Pool{New: func() any { return new([maxPacket]byte) }}

// failure is why a query gave no answer that could be used: a part of a sentence after the server's name, and its
// class.
type failure struct {
	outcome outcome
	server  string
	detail  string
}

var (
	errTruncated = errors.New("the answer is too large for UDP")
	errCaseLost  = errors.New("the answer spells the name in another case")
	errMalformed = errors.New("sent a malformed answer")
)

// exchange asks the servers, one after the other and then again, until one gives an answer that can be used.
func (r *Resolver) exchange(ctx context.Context, k key) (*reply, *failure) {
	var last *failure
	for range r.o.Tries {
		for _, s := range r.servers.order(time.Now()) {
			reply, fail := r.ask(ctx, s, k)
			if fail == nil {
				return reply, nil
			}
			if ctx.Err() != nil && last != nil {
				return nil, last // it says more than that time ran out
			}
			last = fail
			if ctx.Err() != nil {
				return nil, last
			}
		}
	}
	return nil, last
}

// ask sends one query to one server, in as many forms as that server needs.
func (r *Resolver) ask(ctx context.Context, s *server, k key) (*reply, *failure) {
	limited, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	start := time.Now()
	reply, fail := r.askForms(limited, s, k)
	if fail == nil {
		reply.server = s.name
		reply.authentic = reply.authentic && s.trusted
		r.metrics.queries[outcomeOK].Inc()
		r.metrics.seconds.Observe(time.Since(start).Seconds())
		s.down.set(time.Time{})
		return reply, nil
	}
	if ctx.Err() != nil && fail.outcome != outcomeRcode { // not the server's fault
		fail.detail = "did not answer in time"
		fail.server = s.name
		return nil, fail
	}
	fail.server = s.name
	r.metrics.queries[fail.outcome].Inc()
	now := time.Now()
	if fail.outcome == outcomeTimeout || fail.outcome == outcomeNetwork {
		if !s.down.holds(now) {
			r.o.Logger.LogAttrs(ctx, slog.LevelWarn, "DNS server does not answer and is asked last for a while",
				slog.String("server", s.name), slog.String("detail", fail.detail), slog.Duration("for", downTime))
		}
		s.down.set(now.Add(downTime))
	}
	return nil, fail
}

// form is how a query is put.
type form struct {
	network  string
	edns     bool
	caseless bool // the name as it is, without random case
}

func (r *Resolver) askForms(ctx context.Context, s *server, k key) (*reply, *failure) {
	now := time.Now()
	f := form{network: "udp", edns: !s.plain.holds(now), caseless: s.caseless.holds(now)}
	caseLost := false
	for {
		m, err := r.roundTrip(ctx, s, k, f)
		switch {
		case errors.Is(err, errTruncated) && f.network == "udp":
			f.network = "tcp"
			continue
		case errors.Is(err, errCaseLost):
			// Either somebody forged the answer or the server does not keep case. TCP settles it, for it is hard to
			// forge.
			caseLost, f.network, f.caseless = true, "tcp", true
			continue
		case err != nil && caseLost && f.network == "tcp" && ctx.Err() == nil:
			f.network = "udp" // no TCP here: better an answer with less protection than none
			continue
		case err != nil:
			return nil, networkFailure(err, r.o.Timeout)
		case f.edns && (m.Rcode == wire.RcodeFormatError || m.Rcode == wire.RcodeNotImplemented ||
			m.Rcode == wire.RcodeBadVers):
			f.edns = false // a server from before EDNS (RFC 6891, 7)
			s.plain.set(now.Add(quirkTime))
			continue
		}
		if caseLost {
			s.caseless.set(now.Add(quirkTime))
		}
		return readReply(m, k)
	}
}

func networkFailure(err error, timeout time.Duration) *failure {
	var ne net.Error
	switch {
	case errors.Is(err, errMalformed), errors.Is(err, errTruncated):
		return &failure{outcome: outcomeMalformed, detail: err.Error()}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded),
		errors.As(err, &ne) && ne.Timeout():
		return &failure{outcome: outcomeTimeout, detail: fmt.Sprintf("did not answer within %v", timeout)}
	}
	var op *net.OpError // the outer layers repeat the address
	if errors.As(err, &op) {
		err = op.Err
	}
	var call *os.SyscallError
	if errors.As(err, &call) {
		err = call.Err
	}
	return &failure{outcome: outcomeNetwork, detail: fmt.Sprintf("could not be reached (%v)", err)}
}

// roundTrip sends one packet and waits for the one that answers it; all others are dropped.
func (r *Resolver) roundTrip(ctx context.Context, s *server, k key, f form) (*wire.Msg, error) {
	conn, err := r.o.Dial(ctx, f.network, s.addr.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if t, ok := ctx.Deadline(); ok {
		conn.SetDeadline(t)
	}
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()

	buf := packets.Get().(*[maxPacket]byte)
	defer packets.Put(buf)
	query := r.query(k, f)
	packed, err := query.PackBuffer(buf[2 : 2 : maxPacket-2])
	if err != nil {
		return nil, fmt.Errorf("packing the query: %w", err)
	}
	if f.network == "udp" {
		if _, err := conn.Write(packed); err != nil {
			return nil, err
		}
	} else if err := writeTCP(conn, packed); err != nil {
		return nil, err
	}
	for {
		var p []byte
		if f.network == "udp" {
			n, err := conn.Read(buf[:])
			if err != nil {
				return nil, err
			}
			p = buf[:n]
		} else if p, err = readTCP(conn, buf); err != nil {
			return nil, err
		}
		m, err := parsePacket(p, query)
		if err == nil && m == nil {
			r.metrics.discarded.Inc()
			if f.network == "udp" {
				continue
			}
			return nil, errMalformed // over TCP nobody else can have sent it
		}
		return m, err
	}
}

// query makes the question: recursion desired, the AD bit set to have it in the answer (RFC 6840, 5.7).
func (r *Resolver) query(k key, f form) *wire.Msg {
	random := r.random()
	m := new(wire.Msg)
	m.Id = uint16(random)
	m.RecursionDesired, m.AuthenticatedData = true, true
	name := k.name + "."
	if !f.caseless {
		name = r.randomCase(name)
	}
	m.Question = []wire.Question{{Name: name, Qtype: k.typ, Qclass: wire.ClassINET}}
	if f.edns {
		m.SetEdns0(udpPayload, false)
	}
	return m
}

// randomCase spells each letter in upper or lower case by a coin.
func (r *Resolver) randomCase(name string) string {
	p := []byte(name)
	coins, left := uint64(0), 0
	for i, c := range p {
		if left == 0 {
			coins, left = r.random(), 64
		}
		if 'a' <= c && c <= 'z' && coins&1 == 1 {
			p[i] = c - 'a' + 'A'
		}
		coins, left = bits.RotateLeft64(coins, -1), left-1
	}
	return string(p)
}

// parsePacket returns the message in p if it answers query, and nothing if p belongs to no query of ours. A packet that
// has the right id and cannot be read is an error.
func parsePacket(p []byte, query *wire.Msg) (*wire.Msg, error) {
	if len(p) < 12 || binary.BigEndian.Uint16(p) != query.Id || p[2]&0x80 == 0 {
		return nil, nil
	}
	if query.Question[0].Qtype == wire.TypeTLSA {
		shieldTLSA(p)
	}
	m := new(wire.Msg)
	if err := m.Unpack(p); err != nil {
		if p[2]&0x02 != 0 { // cut off in the middle of a record
			return nil, errTruncated
		}
		return nil, errMalformed
	}
	if m.Opcode != wire.OpcodeQuery {
		return nil, nil
	}
	asked := query.Question[0]
	switch {
	case len(m.Question) == 0 && m.Rcode != wire.RcodeSuccess && m.Rcode != wire.RcodeNameError:
		return m, nil // a server that understood nothing repeats nothing
	case len(m.Question) != 1:
		return nil, errMalformed
	}
	got := m.Question[0]
	if got.Qtype != asked.Qtype || got.Qclass != asked.Qclass || !sameName(got.Name, fromWire(asked.Name)) {
		return nil, nil
	}
	switch {
	case got.Name != asked.Name:
		return nil, errCaseLost
	case m.Truncated:
		return nil, errTruncated
	}
	return m, nil
}

// writeTCP sends a message with its length before it (RFC 1035, 4.2.2), in one write as RFC 7766, 8 asks.
func writeTCP(w io.Writer, p []byte) error {
	framed := make([]byte, 2, 2+len(p))
	binary.BigEndian.PutUint16(framed, uint16(len(p)))
	_, err := w.Write(append(framed, p...))
	return err
}

func readTCP(rd io.Reader, buf *[maxPacket]byte) ([]byte, error) {
	if _, err := io.ReadFull(rd, buf[:2]); err != nil {
		return nil, err
	}
	p := buf[:binary.BigEndian.Uint16(buf[:2])]
	if _, err := io.ReadFull(rd, p); err != nil {
		return nil, err
	}
	return p, nil
}
