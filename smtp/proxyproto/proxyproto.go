// Package proxyproto reads the header that a proxy puts in front of a connection to name its client: the PROXY protocol,
// versions 1 and 2 (haproxy.org, proxy-protocol.txt, 2020/03/05).
//
// The header is a claim. Who reads one from a peer that it does not trust lets that peer be anybody; so callers ask for
// a header only of peers that they know, and then insist on it.
//
//	header, err := proxyproto.Read(conn) // reads the header and not one octet more
//
// The parser is strict: what the specification does not allow is an error, and so is anything that ends early. Whoever
// sends a header that cannot be read is not to be answered.
package proxyproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// Errors that Read wraps, next to those of the reader.
var (
	ErrNone    = errors.New("proxyproto: no header")        // the first octets are none
	ErrInvalid = errors.New("proxyproto: header is broken") // it begins as a header and breaks the rules
)

// Sizes of headers in octets.
const (
	maxV1    = 107 // with its CRLF
	prefixV2 = 16  // signature, version, family, length

	// maxV2 bounds what stands behind the first 16 octets of version 2. The length field could say 65,535; addresses take 36
	// (216 for Unix sockets) and the extensions in use some hundred, a client certificate's name included.
	maxV2 = 4 << 10

	// shortest is the length of the shortest header of all, "PROXY UNKNOWN" with its CRLF.
	shortest = 15
)

const signature = "\r\n\r\n\x00\r\nQUIT\n"

const wordV1 = "PROXY "

// Header is what a proxy says of a connection.
type Header struct {
	Version int // 1 or 2

	// Local says that the proxy speaks for itself, as in a check of health, or does not know its client: the addresses of
	// the connection are the true ones, and Source and Destination are zero.
	Local bool

	Source, Destination netip.AddrPort // IPv4 is never mapped into IPv6
}

// Begins reports whether the first octets of a connection are, as far as they go, those of a header.
func Begins(p []byte) bool {
	return len(p) > 0 && (agree(p, wordV1) || agree(p, signature))
}

// agree reports whether p and s are the same as far as both go.
func agree(p []byte, s string) bool {
	n := min(len(p), len(s))
	return string(p[:n]) == s[:n]
}

// Read reads one header from r, and not one octet behind it. The caller bounds the time. An error wraps ErrNone,
// ErrInvalid or that of r; io.ErrUnexpectedEOF means that the connection ended within the header.
func Read(r io.Reader) (Header, error) {
	var buf [maxV1]byte
	n := 0
	// The kinds differ in their first octet; no more is read than the shortest header has.
	for n < shortest {
		k, err := r.Read(buf[n:shortest])
		n += k
		if n > 0 && !Begins(buf[:n]) {
			return Header{}, ErrNone
		}
		if err != nil && n < shortest {
			return Header{}, ended(err)
		}
	}
	if buf[0] == signature[0] {
		return readV2(r, buf[:n])
	}
	return readV1(r, buf[:], n)
}

func ended(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("proxyproto: read header: %w", err)
}

func invalid(what string) error { return fmt.Errorf("%w: %s", ErrInvalid, what) }

// readV1 reads to the CRLF: two octets at a time, or one if the last was CR, never reads past it.
func readV1(r io.Reader, buf []byte, n int) (Header, error) {
	for {
		if bytes.HasSuffix(buf[:n], []byte("\r\n")) {
			break
		}
		if i := bytes.IndexByte(buf[:n], '\r'); i >= 0 && i < n-1 || bytes.IndexByte(buf[:n], '\n') >= 0 {
			return Header{}, invalid("line end is not CRLF")
		}
		step := 2
		if buf[n-1] == '\r' {
			step = 1
		}
		if n+step > len(buf) {
			return Header{}, invalid("line is too long")
		}
		k, err := io.ReadFull(r, buf[n:n+step])
		n += k
		if err != nil {
			return Header{}, ended(err)
		}
	}
	return parseV1(string(buf[:n-2]))
}

// parseV1 parses the line without its CRLF.
func parseV1(line string) (Header, error) {
	fields := strings.Split(line, " ")
	h := Header{Version: 1}
	switch {
	case fields[1] == "UNKNOWN": // what follows is to be ignored (2.1)
		h.Local = true
		return h, nil
	case len(fields) != 6:
		return Header{}, invalid("not six fields")
	}
	v4 := fields[1] == "TCP4"
	if !v4 && fields[1] != "TCP6" {
		return Header{}, invalid("protocol is not known")
	}
	var err1, err2 error
	h.Source, err1 = parseAddrPort(fields[2], fields[4], v4)
	h.Destination, err2 = parseAddrPort(fields[3], fields[5], v4)
	return h, errors.Join(err1, err2)
}

func parseAddrPort(address, port string, v4 bool) (netip.AddrPort, error) {
	a, err := netip.ParseAddr(address)
	if err != nil || a.Is4() != v4 || a.Zone() != "" {
		return netip.AddrPort{}, invalid("address")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || len(port) > 1 && port[0] == '0' || port[0] == '+' {
		return netip.AddrPort{}, invalid("port")
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), nil
}

// Commands and families of version 2 (2.2).
const (
	version2     = 0x20
	commandLocal = version2
	commandProxy = version2 | 1

	familyNone = 0x00
	familyTCP4 = 0x11
	familyTCP6 = 0x21
)

// readV2 reads the rest of a binary header, whose first 15 octets are there.
func readV2(r io.Reader, have []byte) (Header, error) {
	var prefix [prefixV2]byte
	copy(prefix[:], have)
	if _, err := io.ReadFull(r, prefix[len(have):]); err != nil {
		return Header{}, ended(err)
	}
	n := int(binary.BigEndian.Uint16(prefix[14:]))
	if n > maxV2 {
		return Header{}, invalid("header is too long")
	}
	if prefix[12]&0xf0 != version2 {
		return Header{}, invalid("version is not known")
	}
	rest := make([]byte, n)
	if _, err := io.ReadFull(r, rest); err != nil {
		return Header{}, ended(err)
	}
	return parseV2(prefix[12], prefix[13], rest)
}

func parseV2(command, family byte, rest []byte) (Header, error) {
	h := Header{Version: 2}
	switch command {
	case commandLocal: // the family and what follows are to be ignored (2.2)
		h.Local = true
		return h, nil
	case commandProxy:
	default:
		return Header{}, invalid("command is not known")
	}
	size := 0
	switch family {
	case familyTCP4:
		size = 4
	case familyTCP6:
		size = 16
	case familyNone: // the proxy does not know: as LOCAL
		h.Local = true
		return h, checkTLVs(rest)
	default: // UDP and Unix sockets bring no mail
		return Header{}, invalid("family is not TCP")
	}
	if len(rest) < 2*size+4 {
		return Header{}, invalid("addresses are cut off")
	}
	src, _ := netip.AddrFromSlice(rest[:size])
	dst, _ := netip.AddrFromSlice(rest[size : 2*size])
	h.Source = netip.AddrPortFrom(src.Unmap(), binary.BigEndian.Uint16(rest[2*size:]))
	h.Destination = netip.AddrPortFrom(dst.Unmap(), binary.BigEndian.Uint16(rest[2*size+2:]))
	return h, checkTLVs(rest[2*size+4:])
}

// checkTLVs walks the extensions, of which none is used.
func checkTLVs(p []byte) error {
	for len(p) > 0 {
		if len(p) < 3 {
			return invalid("extension is cut off")
		}
		n := 3 + int(binary.BigEndian.Uint16(p[1:]))
		if n > len(p) {
			return invalid("extension is longer than the header")
		}
		p = p[n:]
	}
	return nil
}

// AppendV1 appends h in version 1, for clients and tests.
func (h Header) AppendV1(dst []byte) []byte {
	if h.Local {
		return append(dst, wordV1+"UNKNOWN\r\n"...)
	}
	protocol := "TCP4"
	if h.Source.Addr().Is6() {
		protocol = "TCP6"
	}
	return fmt.Appendf(dst, "%s%s %s %s %d %d\r\n", wordV1, protocol, h.Source.Addr(), h.Destination.Addr(), h.Source.Port(), h.Destination.Port())
}

// AppendV2 appends h in version 2, without extensions.
func (h Header) AppendV2(dst []byte) []byte {
	dst = append(dst, signature...)
	if h.Local {
		return append(dst, commandLocal, familyNone, 0, 0)
	}
	family, size := byte(familyTCP4), 12
	if h.Source.Addr().Is6() {
		family, size = familyTCP6, 36
	}
	dst = append(dst, commandProxy, family, 0, byte(size))
	dst = append(append(dst, h.Source.Addr().AsSlice()...), h.Destination.Addr().AsSlice()...)
	dst = binary.BigEndian.AppendUint16(dst, h.Source.Port())
	return binary.BigEndian.AppendUint16(dst, h.Destination.Port())
}
