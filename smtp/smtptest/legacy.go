package smtptest

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// LegacyPeer is a way in which the TLS of real mail hosts is old, false or odd. Mail that only wants whatever TLS there is
// must get through to each of them (RFC 7435).
type LegacyPeer struct {
	Name string
	// Options of a sink; Script is to be added.
	Options SinkOptions
	Script  Script
	// Clear says that no TLS can come about with package tls, so that mail goes in the clear.
	Clear bool
	// Slow says that only a time limit of the client leads on.
	Slow bool
}

// LegacyPeers returns peers that package tls can be, all of them called name.
func LegacyPeers(name string) ([]LegacyPeer, error) {
	b := legacyBuilder{name: name}
	plain := func() *tls.Config { return b.config(CertificateOptions{Names: []string{name}, RSA: 1024}) }
	yesterday := time.Now().Add(-24 * time.Hour)
	b.add("self-signed", b.config(CertificateOptions{Names: []string{name}}))
	b.add("expired", b.config(CertificateOptions{Names: []string{name}, NotAfter: yesterday}))
	b.add("wrong name", b.config(CertificateOptions{Names: []string{"other.invalid"}}))
	b.add("no SAN", b.config(CertificateOptions{}))
	b.add("SHA-1 signed", b.config(CertificateOptions{Names: []string{name}, RSA: 1024, SHA1: true}))
	b.add("RSA-1024", plain())
	b.add("negative serial", b.config(CertificateOptions{Names: []string{name}, RSA: 1024, NegativeSerial: true}))
	b.add("huge chain", b.chain(60<<10))
	b.add("endless chain", b.chain(400<<10)).Clear = true

	suites := func(version uint16, ids ...uint16) *tls.Config {
		c := plain()
		c.MaxVersion, c.CipherSuites = version, ids
		return c
	}
	b.add("RSA key exchange only", suites(tls.VersionTLS12, tls.TLS_RSA_WITH_AES_128_CBC_SHA))
	b.add("3DES only", suites(tls.VersionTLS12, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA))
	b.add("RC4 only", suites(tls.VersionTLS12, tls.TLS_RSA_WITH_RC4_128_SHA))
	old := suites(tls.VersionTLS10, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA)
	old.MinVersion = tls.VersionTLS10
	b.add("TLS 1.0 only", old)
	b.add("TLS 1.0 with 3DES", &tls.Config{Certificates: old.Certificates, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10,
		CipherSuites: []uint16{tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA}})

	b.hook("dies on a large ClientHello", plain(), func(hello []byte) bool { return len(hello) > 1000 })
	b.hello("dies on ALPN", plain(), func(h *tls.ClientHelloInfo) bool { return len(h.SupportedProtos) > 0 })
	b.hello("dies on SNI", plain(), func(h *tls.ClientHelloInfo) bool { return h.ServerName != "" })
	b.hello("dies on TLS 1.3", plain(), func(h *tls.ClientHelloInfo) bool { return h.SupportedVersions[0] == tls.VersionTLS13 })
	b.hello("dies on every ClientHello", plain(), func(*tls.ClientHelloInfo) bool { return true }).Clear = true

	b.say("454", Rule{Reply: "454 4.7.0 TLS not available"})
	b.say("500", Rule{Reply: "500 5.5.1 unknown command"})
	b.say("501", Rule{Reply: "501 5.5.4 syntax"})
	b.say("502", Rule{Reply: "502 5.5.1 not here"})
	b.say("354", Rule{Reply: "354 go ahead"})
	b.say("220 then close", Rule{Drop: DropFIN, After: true})
	b.say("220 then reset", Rule{Drop: DropRST, After: true})
	b.say("close", Rule{Drop: DropFIN})
	b.say("220 with a reply behind it", Rule{Raw: "220 go\r\n250-sink.test\r\n250 AUTH PLAIN\r\n"})
	b.say("220 then nothing", Rule{Stall: true, After: true}).Slow = true
	b.say("nothing", Rule{Stall: true}).Slow = true
	text := b.add("220 then clear text", plain())
	text.Clear = true
	text.Options.Handshake = func(nc net.Conn) (net.Conn, error) {
		var one [1]byte
		if _, err := io.ReadFull(nc, one[:]); err != nil { // of the ClientHello, so that it is no injection
			return nil, err
		}
		_, err := nc.Write([]byte("502 5.5.2 syntax error\r\n"))
		return nil, errors.Join(errDies, err)
	}
	return b.peers, b.err
}

// errDies is how a peer ends that dies of a handshake.
var errDies = errors.New("this peer dies of such a handshake")

type legacyBuilder struct {
	name  string
	peers []LegacyPeer
	err   error
}

func (b *legacyBuilder) add(name string, c *tls.Config) *LegacyPeer {
	b.peers = append(b.peers, LegacyPeer{Name: name, Options: SinkOptions{TLS: c, Keep: true}})
	return &b.peers[len(b.peers)-1]
}

// say adds a peer that answers STARTTLS by a rule.
func (b *legacyBuilder) say(name string, r Rule) *LegacyPeer {
	r.At = AtStartTLS
	p := b.add(name, b.config(CertificateOptions{Names: []string{b.name}}))
	p.Script, p.Clear = Script{Rules: []Rule{r}}, true
	return p
}

func (b *legacyBuilder) config(o CertificateOptions) *tls.Config {
	c, err := NewCertificate(o)
	if err != nil {
		b.err = errors.Join(b.err, err)
	}
	return &tls.Config{Certificates: []tls.Certificate{c}, MinVersion: tls.VersionTLS10}
}

// chain is a certificate with others behind it that make up so many octets.
func (b *legacyBuilder) chain(octets int) *tls.Config {
	c := b.config(CertificateOptions{Names: []string{b.name}})
	if b.err != nil {
		return c
	}
	certificate := &c.Certificates[0]
	leaf := certificate.Certificate[0]
	for n := 0; n < octets; n += len(leaf) {
		certificate.Certificate = append(certificate.Certificate, leaf)
	}
	return c
}

// hello adds a peer that drops the connection on some ClientHellos.
func (b *legacyBuilder) hello(name string, c *tls.Config, dies func(*tls.ClientHelloInfo) bool) *LegacyPeer {
	c.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		if !dies(h) {
			return nil, nil
		}
		return nil, errors.Join(errDies, h.Conn.Close())
	}
	return b.add(name, c)
}

// hook adds a peer that drops the connection on some first records.
func (b *legacyBuilder) hook(name string, c *tls.Config, dies func(record []byte) bool) {
	p := b.add(name, c)
	p.Options.Handshake = func(nc net.Conn) (net.Conn, error) {
		var head [5]byte
		if _, err := io.ReadFull(nc, head[:]); err != nil {
			return nil, err
		}
		record := make([]byte, binary.BigEndian.Uint16(head[3:]))
		if _, err := io.ReadFull(nc, record); err != nil {
			return nil, err
		}
		if dies(record) {
			return nil, errDies
		}
		conn := tls.Server(&greeted{Conn: nc, banner: append(head[:], record...)}, c)
		if err := conn.Handshake(); err != nil {
			return nil, fmt.Errorf("handshake: %w", err)
		}
		return conn, nil
	}
}
