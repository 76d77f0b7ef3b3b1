package smtpserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/godwit-mta/godwit/smtp"
)

// What a trusted peer may tell (Postfix, XCLIENT_README and XFORWARD_README).
const (
	xclientOffer  = "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"
	xforwardOffer = "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE"
)

// unavailable reports the two ways to say that a value is not known.
func unavailable(v string) bool {
	return strings.EqualFold(v, "[UNAVAILABLE]") || strings.EqualFold(v, "[TEMPUNAVAIL]")
}

// attribute is one pair of XCLIENT or XFORWARD, decoded; the value is empty if it is not available.
type attribute struct{ name, value string }

// parseAttributes reads pairs that are in the offer, each once. A value is at most 255 octets of UTF-8 without control
// characters, so that it is one word of one line wherever it is shown.
func parseAttributes(args []byte, offer string) ([]attribute, bool) {
	known := strings.Fields(offer)[1:]
	var list []attribute
	for pair := range bytes.FieldsSeq(args) {
		name, value, ok := strings.Cut(string(pair), "=")
		name = strings.ToUpper(name)
		if !ok || !slices.Contains(known, name) {
			return nil, false
		}
		if slices.ContainsFunc(list, func(a attribute) bool { return a.name == name }) {
			return nil, false
		}
		value, err := smtp.ParseXtext(value)
		if err != nil || value == "" || len(value) > 255 || !utf8.ValidString(value) || strings.ContainsFunc(value, isControl) {
			return nil, false
		}
		if unavailable(value) {
			value = ""
		}
		list = append(list, attribute{name, value})
	}
	return list, len(list) > 0
}

func isControl(r rune) bool {
	return r < ' ' || 0x7f <= r && r < 0xa0 || r == '\u2028' || r == '\u2029'
}

// parseXAddr reads an address, with "IPV6:" in front of one of IPv6; none if it is not available.
func parseXAddr(v string) (netip.Addr, bool) {
	if v == "" {
		return netip.Addr{}, true
	}
	if len(v) > 5 && strings.EqualFold(v[:5], "IPV6:") {
		v = v[5:]
	}
	a, err := netip.ParseAddr(v)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, false
	}
	return a.Unmap(), true
}

func parseXPort(v string) (uint16, bool) {
	if v == "" {
		return 0, true
	}
	n, err := strconv.ParseUint(v, 10, 16)
	return uint16(n), err == nil
}

// xclient lets a trusted peer say on whose behalf it speaks. The session begins again at the greeting, with a session of
// the backend that knows the client alone.
func (s *session) xclient(ctx context.Context, args []byte) ending {
	switch {
	case !s.trusted:
		return s.refuse(replyUnknown)
	case s.state.inTransaction():
		return s.refuse(replySequence)
	}
	list, ok := parseAttributes(args, xclientOffer)
	if !ok {
		return s.refuse(replyXClientSyntax)
	}
	remote, local := s.peer.Remote, s.peer.Local
	login := ""
	for _, a := range list {
		ok := true
		var ip netip.Addr
		var port uint16
		switch a.name {
		case "ADDR":
			ip, ok = parseXAddr(a.value)
			remote = netip.AddrPortFrom(ip, remote.Port())
		case "PORT":
			port, ok = parseXPort(a.value)
			remote = netip.AddrPortFrom(remote.Addr(), port)
		case "DESTADDR":
			ip, ok = parseXAddr(a.value)
			local = netip.AddrPortFrom(ip, local.Port())
		case "DESTPORT":
			port, ok = parseXPort(a.value)
			local = netip.AddrPortFrom(local.Addr(), port)
		case "PROTO":
			ok = a.value == "" || strings.EqualFold(a.value, "SMTP") || strings.EqualFold(a.value, "ESMTP")
		case "LOGIN":
			login = a.value
		}
		if !ok {
			return s.refuse(replyXClientSyntax)
		}
	}
	via := s.peer.Via
	if !via.IsValid() {
		via = s.peer.Remote
	}
	if e := s.claim(remote, local); e != goOn {
		return e
	}
	s.closeBackend()
	s.backend = nil
	s.peer = Peer{Session: s.peer.Session, Remote: remote, Local: local, Via: via, TLS: withoutCertificates(s.peer.TLS), XClientLogin: login}
	s.authenticated, s.offersAuth = false, false
	s.clear(stateConnected)
	if s.debug {
		s.log.Debug("session is for another client", "client", remote.String(), "via", via.String())
	}
	if !s.permitted() {
		return endDenied
	}
	return s.greet(ctx)
}

// withoutCertificates is the state of a connection whose certificate is that of the peer in between: the client that it
// speaks for must not log in by it.
func withoutCertificates(state *tls.ConnectionState) *tls.ConnectionState {
	if state == nil {
		return nil
	}
	bare := *state
	bare.PeerCertificates, bare.VerifiedChains = nil, nil
	return &bare
}

// xforward lets a trusted peer say where a message came from; only the log tells.
func (s *session) xforward(ctx context.Context, args []byte) ending {
	switch {
	case !s.trusted:
		return s.refuse(replyUnknown)
	case s.state == stateConnected:
		return s.refuse(replyHelloFirst)
	case s.state.inTransaction():
		return s.refuse(replySequence)
	}
	list, ok := parseAttributes(args, xforwardOffer)
	if !ok {
		return s.refuse(replyXClientSyntax)
	}
	attrs := make([]any, 0, 2*len(list))
	for _, a := range list {
		attrs = append(attrs, "forwarded_"+strings.ToLower(a.name), a.value)
	}
	s.log.InfoContext(ctx, "message is passed on", attrs...)
	return s.reply(replyHello)
}
