// Package certs keeps the server's certificates: pairs in files, taken over when the files change, and certificates that
// are got by ACME (RFC 8555). It makes the TLS configuration of each listener.
//
//	manager, err := certs.New(certs.Options{Pairs: []certs.Pair{{Name: "main", Certificate: "cert.pem", Key: "key.pem"}}})
//	config, err := manager.Config(certs.ServerOptions{Listener: "submission"})
//	err = manager.Run(ctx) // watches the files
//
// A pair that is broken never replaces a good one: key and certificate that do not belong together, a file that cannot be
// read, a certificate that has expired. What was there stays in use, and a [Finding] says what is wrong until it is
// right. A handshake takes the pair of its moment; sessions that are open are not touched.
//
// # Configuration
//
// TLS 1.2 and 1.3 (RFC 8446), suites with authenticated encryption alone, X25519MLKEM768 first among the key exchanges, so
// that what is recorded today stays closed to quantum computers. Session tickets have keys of the listener's own, which
// are replaced every day: a session of one listener is never resumed at another, whose rules may differ. A client that
// wants to speak another protocol, such as HTTP, is refused by ALPN (RFC 7301; RFC 9325, 3.7).
package certs

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Pair names the files of a certificate.
type Pair struct {
	Name        string // by which listeners refer to it
	Certificate string // file: the certificate, then those on its way to the root (PEM)
	Key         string // file: the private key (PEM)
}

// Options describe a manager.
type Options struct {
	Pairs []Pair
	ACME  *ACME // nil: none

	// Poll is how often the files are looked at: 5 seconds by default, 10 at most.
	Poll time.Duration

	Logger     *slog.Logger          // nil discards
	Registerer prometheus.Registerer // nil: metrics are kept but not registered
}

// expirySoon is how long before its end a certificate is a finding. ACME renews earlier, so this means that it fails.
const expirySoon = 14 * 24 * time.Hour

// Manager keeps certificates. Its methods may be called from any goroutine.
type Manager struct {
	o       Options
	log     *slog.Logger
	metrics *metrics
	acme    *acme // nil: none

	mu struct {
		sync.RWMutex
		pairs   []*pair // in the order of the configuration
		servers []*server
	}
	reloading sync.Mutex // reads of files, one at a time
}

// New loads the pairs. One that cannot be used is an error, since nothing was there before that could stay; one that has
// expired is a finding.
func New(o Options) (*Manager, error) {
	o.Poll = cmp.Or(o.Poll, 5*time.Second)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Poll < 0 || o.Poll > 10*time.Second {
		return nil, fmt.Errorf("certs: poll of %v is not between 0 and 10s", o.Poll)
	}
	m := &Manager{o: o, log: o.Logger}
	var err error
	if m.metrics, err = newMetrics(o.Registerer); err != nil {
		return nil, fmt.Errorf("certs: metrics: %w", err)
	}
	if err := m.SetPairs(o.Pairs); err != nil {
		return nil, err
	}
	if o.ACME != nil {
		if m.acme, err = newACME(*o.ACME, o.Logger); err != nil {
			return nil, fmt.Errorf("certs: %w", err)
		}
	}
	return m, nil
}

// SetPairs replaces the list of pairs, as after a reload of the configuration. Pairs that were there stay loaded, even if
// their files are broken now; if a new one cannot be loaded nothing changes.
func (m *Manager) SetPairs(list []Pair) error {
	m.reloading.Lock()
	defer m.reloading.Unlock()
	m.mu.RLock()
	old := m.mu.pairs
	m.mu.RUnlock()
	var errs []error
	next := make([]*pair, 0, len(list))
	for i, files := range list {
		if slices.ContainsFunc(list[:i], func(p Pair) bool { return p.Name == files.Name }) || files.Name == "" {
			errs = append(errs, fmt.Errorf("certs: name %q of a certificate is empty or there twice", files.Name))
			continue
		}
		if k := slices.IndexFunc(old, func(p *pair) bool { return p.files == files }); k >= 0 {
			next = append(next, old[k])
			continue
		}
		p, err := openPair(files)
		if err != nil {
			errs = append(errs, fmt.Errorf("certs: certificate %s: %w", files.Name, err))
			continue
		}
		next = append(next, p)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, p := range old {
		if !slices.ContainsFunc(next, func(n *pair) bool { return n.files.Name == p.files.Name }) {
			m.metrics.expiry.DeleteLabelValues(p.files.Name)
		}
	}
	m.mu.Lock()
	m.mu.pairs = next
	m.mu.Unlock()
	m.measure()
	return nil
}

// Run watches the files, and keeps ACME's certificates fresh, until ctx is done.
func (m *Manager) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	if m.acme != nil {
		wg.Go(func() { m.acme.run(ctx) })
	}
	poll := time.NewTicker(m.o.Poll)
	defer poll.Stop()
	rotate := time.NewTicker(ticketLife)
	defer rotate.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-poll.C:
			_ = m.reload(false) // logged, and a finding
		case <-rotate.C:
			for _, s := range m.servers() {
				s.rotate()
			}
		}
	}
}

// Reload reads all files now, whether or not they seem to have changed. It returns what could not be taken over; what was
// there before stays in use.
func (m *Manager) Reload() error { return m.reload(true) }

func (m *Manager) reload(all bool) error {
	m.reloading.Lock()
	defer m.reloading.Unlock()
	var errs []error
	for _, p := range m.pairs() {
		changed, err := p.refresh(all)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("certs: certificate %s: %w", p.files.Name, err))
			if changed { // a failure that is new
				m.metrics.reloads[1].Inc()
				m.log.Error("new certificate is broken, the old one stays in use", "certificate", p.files.Name, "error", err)
			}
		case changed:
			m.metrics.reloads[0].Inc()
			leaf := p.current.Load().Leaf
			m.log.Info("certificate taken over", "certificate", p.files.Name, "names", strings.Join(leaf.DNSNames, " "),
				"expires", leaf.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	for _, s := range m.servers() {
		if changed, err := s.refresh(all); err != nil {
			errs = append(errs, fmt.Errorf("certs: listener %s: %w", s.o.Listener, err))
			if changed {
				m.log.Error("new authorities of clients are broken, the old ones stay in use", "listener", s.o.Listener, "error", err)
			}
		} else if changed {
			m.log.Info("authorities of clients taken over", "listener", s.o.Listener)
		}
	}
	m.measure()
	return errors.Join(errs...)
}

func (m *Manager) pairs() []*pair {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.mu.pairs
}

func (m *Manager) servers() []*server {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return slices.Clone(m.mu.servers)
}

func (m *Manager) measure() {
	for _, p := range m.pairs() {
		m.metrics.expiry.WithLabelValues(p.files.Name).Set(float64(p.current.Load().Leaf.NotAfter.Unix()))
	}
	if m.acme != nil {
		for _, c := range m.acme.certificates() {
			m.metrics.expiry.WithLabelValues(c.name).Set(float64(c.expires.Unix()))
		}
	}
}

// Finding is something about a certificate that a person must look at.
type Finding struct {
	Certificate string    // name of the pair, host name (ACME), or listener whose authorities are meant
	Problem     string    // what is wrong
	Advice      string    // what to do about it
	Since       time.Time // when it was seen first; zero if that is not known
	Expires     time.Time // of the certificate in use; zero if that is not the matter
	Grave       bool      // clients are refused, or soon will be
}

// Findings returns what is wrong now.
func (m *Manager) Findings() []Finding {
	var list []Finding
	for _, p := range m.pairs() {
		if f, ok := p.broken(); ok {
			list = append(list, f)
		}
		list = append(list, expiry(p.files.Name, p.current.Load().Leaf.NotAfter, "put a new certificate into "+p.files.Certificate)...)
	}
	for _, s := range m.servers() {
		if f, ok := s.broken(); ok {
			list = append(list, f)
		}
	}
	if m.acme != nil {
		list = append(list, m.acme.findings()...)
	}
	return list
}

// expiry is the finding of a certificate that ends or has ended.
func expiry(name string, end time.Time, advice string) []Finding {
	left := time.Until(end)
	f := Finding{Certificate: name, Advice: advice, Expires: end, Grave: left < expirySoon/2}
	switch {
	case left <= 0:
		f.Problem, f.Since = "certificate has expired", end
	case left < expirySoon:
		f.Problem = fmt.Sprintf("certificate expires in %d days", int(left.Hours()/24))
	default:
		return nil
	}
	return []Finding{f}
}

// certificate chooses for a handshake. name is that of the only pair to use, empty for the best one.
func (m *Manager) certificate(hello *tls.ClientHelloInfo, name string) (*tls.Certificate, error) {
	pairs := m.pairs()
	if name != "" {
		for _, p := range pairs {
			if p.files.Name == name {
				return p.current.Load(), nil
			}
		}
		return nil, fmt.Errorf("certs: there is no certificate %q", name)
	}
	host := strings.TrimSuffix(hello.ServerName, ".")
	var first *tls.Certificate
	for _, p := range pairs {
		c := p.current.Load()
		if host != "" && c.Leaf.VerifyHostname(host) == nil {
			if hello.SupportsCertificate(c) == nil {
				return c, nil
			}
			first = cmp.Or(first, c)
		}
	}
	if m.acme != nil && first == nil {
		if c, err := m.acme.certificate(hello); err == nil {
			return c, nil
		}
	}
	if first != nil {
		return first, nil
	}
	if len(pairs) == 0 {
		return nil, errors.New("certs: there is no certificate yet")
	}
	for _, p := range pairs {
		if c := p.current.Load(); hello.SupportsCertificate(c) == nil {
			return c, nil
		}
	}
	return pairs[0].current.Load(), nil
}

// Identities returns the names in a client's certificate that a credential can be looked up by: mail addresses, DNS names
// and URIs of its subjectAltName (RFC 5280, 4.2.1.6), in this order. The common name is not among them: it says of no name
// what it is. There are none unless the certificate was verified.
func Identities(state *tls.ConnectionState) []string {
	if state == nil || len(state.VerifiedChains) == 0 || len(state.PeerCertificates) == 0 {
		return nil
	}
	return identities(state.PeerCertificates[0])
}

func identities(leaf *x509.Certificate) []string {
	names := slices.Concat(leaf.EmailAddresses, leaf.DNSNames)
	for _, u := range leaf.URIs {
		names = append(names, u.String())
	}
	return names
}
