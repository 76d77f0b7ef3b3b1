package certs

import (
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"slices"
	"sync"
	"time"
)

// ticketLife is how long a key of session tickets is used for new tickets; tickets of the key before are still taken.
const ticketLife = 24 * time.Hour

// ServerOptions say what a listener wants of TLS.
type ServerOptions struct {
	Listener    string // its name, for logs
	Certificate string // name of the pair; empty: the one that fits the name that the client asks for, else the first

	// ClientAuth is tls.NoClientCert, tls.VerifyClientCertIfGiven or tls.RequireAndVerifyClientCert. With the latter two
	// ClientCAs is the file with the authorities (PEM); it is taken over when it changes, and sessions that were verified by
	// the authorities before are not resumed.
	ClientAuth tls.ClientAuthType
	ClientCAs  string
}

// Config makes the configuration of a listener. It follows the manager's certificates from then on. Two listeners never
// share one.
func (m *Manager) Config(o ServerOptions) (*tls.Config, error) {
	s := &server{o: o, manager: m}
	switch o.ClientAuth {
	case tls.NoClientCert:
	case tls.VerifyClientCertIfGiven, tls.RequireAndVerifyClientCert:
		if o.ClientCAs == "" {
			return nil, fmt.Errorf("certs: listener %s: no authorities to verify clients by", o.Listener)
		}
	default:
		return nil, fmt.Errorf("certs: listener %s: client certificates that are not verified are of no use", o.Listener)
	}
	if o.Certificate != "" && !slices.ContainsFunc(m.pairs(), func(p *pair) bool { return p.files.Name == o.Certificate }) {
		return nil, fmt.Errorf("certs: listener %s: there is no certificate %q", o.Listener, o.Certificate)
	}
	if o.Certificate == "" && len(m.pairs()) == 0 && m.acme == nil {
		return nil, fmt.Errorf("certs: listener %s: there is no certificate", o.Listener)
	}
	if _, err := s.refresh(true); err != nil {
		return nil, fmt.Errorf("certs: listener %s: %w", o.Listener, err)
	}
	m.mu.Lock()
	m.mu.servers = append(slices.DeleteFunc(m.mu.servers, func(old *server) bool { return old.o.Listener == o.Listener }), s)
	m.mu.Unlock()
	front := s.base()
	front.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.config(), nil }
	return front, nil
}

// server is the configuration of one listener over time. refresh and rotate are called by one goroutine at a time.
type server struct {
	o       ServerOptions
	manager *Manager
	seen    stamp // of ClientCAs
	trouble trouble

	mu struct {
		sync.Mutex
		current *tls.Config
		keys    [][32]byte // of tickets, the newest first
	}
}

func (s *server) config() *tls.Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.current
}

func (s *server) base() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		CipherSuites: []uint16{ // of TLS 1.2; those of 1.3 are all of this kind
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
		CurvePreferences: []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256, tls.CurveP384},
		NextProtos:       []string{"smtp"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return s.manager.certificate(hello, s.o.Certificate)
		},
	}
}

// refresh reads the authorities of clients if their file has changed.
func (s *server) refresh(all bool) (changed bool, err error) {
	verify := s.o.ClientAuth != tls.NoClientCert
	if s.config() != nil && !verify {
		return false, nil
	}
	next := s.base()
	if verify {
		now := stampOf(s.o.ClientCAs)
		same := now.same(s.seen)
		s.seen = now
		if same && !all {
			_, err := s.trouble.get()
			return false, err
		}
		if next.ClientCAs, err = loadPool(s.o.ClientCAs); err != nil {
			return s.trouble.set(err), err
		}
		s.trouble.set(nil)
		next.ClientAuth = s.o.ClientAuth
		if old := s.config(); old != nil && old.ClientCAs.Equal(next.ClientCAs) {
			return false, nil
		}
	}
	key := newTicketKey()
	next.SetSessionTicketKeys([][32]byte{key}) // what another authority vouched for is forgotten
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.current, s.mu.keys = next, [][32]byte{key}
	return true, nil
}

// rotate makes new tickets with a new key.
func (s *server) rotate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.keys = [][32]byte{newTicketKey(), s.mu.keys[0]}
	s.mu.current.SetSessionTicketKeys(s.mu.keys)
}

func newTicketKey() (key [32]byte) {
	_, _ = rand.Read(key[:]) // never fails (crypto/rand)
	return key
}

func (s *server) broken() (Finding, bool) {
	since, err := s.trouble.get()
	if err == nil {
		return Finding{}, false
	}
	return Finding{
		Certificate: s.o.Listener, Since: since,
		Problem: "new authorities of clients are broken, the old ones stay in use: " + err.Error(),
		Advice:  "put certificates (PEM) into " + s.o.ClientCAs,
	}, true
}
