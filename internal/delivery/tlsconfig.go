package delivery

import (
	"crypto/tls"
	"net/netip"
	"sync"
	"time"

	"github.com/godwit-mta/godwit/internal/delivery/tlspolicy"
)

// manner is a way to make a session, in the order in which they are tried.
type manner uint8

const (
	mannerFull  manner = iota // all that current TLS has
	mannerPlain               // what old and odd hosts can bear: no SNI, no hybrid key exchange, TLS 1.2 at most, no resumption
	mannerClear
)

// maxResumed bounds the sessions of TLS that are remembered for resumption; one takes a few KiB.
const maxResumed = 1024

// resumption keeps sessions of TLS apart by what they were made for: one that was made without a look at the certificate
// is not resumed where it counts.
type resumption struct {
	all tls.ClientSessionCache
	key string
}

func (r resumption) Get(name string) (*tls.ClientSessionState, bool) {
	return r.all.Get(r.key + "\x00" + name)
}

func (r resumption) Put(name string, s *tls.ClientSessionState) { r.all.Put(r.key+"\x00"+name, s) }

// everySuite lists what crypto/tls knows, those that it would not offer by itself included. Against somebody who only
// listens a weak cipher is better than none (RFC 7435, 3).
func everySuite() []uint16 {
	var all []uint16
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		all = append(all, s.ID)
	}
	return all
}

// classicalCurves leave out the hybrids, whose ClientHello does not fit into one packet.
func classicalCurves() []tls.CurveID {
	return []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521}
}

// tlsConfig makes what crypto/tls needs for a session.
func (d *Deliverer) tlsConfig(q *demand, m manner) *tls.Config {
	c := &tls.Config{
		InsecureSkipVerify: true, // VerifyConnection does it where it is demanded, for resumed sessions too
		ServerName:         q.name,
		MinVersion:         tls.VersionTLS12,
		// Small records at the begin of a connection are for browsers.
		DynamicRecordSizingDisabled: true,
	}
	if !q.required() {
		c.MinVersion = tls.VersionTLS10
		c.CipherSuites = d.suites
	}
	switch m {
	case mannerFull:
		c.ClientSessionCache = resumption{d.resumed, q.key}
	case mannerPlain:
		c.CurvePreferences = classicalCurves()
		if !q.required() {
			c.ServerName = ""
			c.MaxVersion = tls.VersionTLS12
		}
	}
	if check := q.check; check != nil {
		c.VerifyConnection = func(state tls.ConnectionState) error {
			if f := check(&state); f != nil {
				return &unverifiedError{f}
			}
			return nil
		}
	}
	return c
}

// unverifiedError says that a host did not prove to be who it must be.
type unverifiedError struct{ failure *tlspolicy.Failure }

// Error returns what does not hold.
func (e *unverifiedError) Error() string { return e.failure.Detail }

// secureWords describe a session's TLS for events: "TLSv1.3 TLS_AES_128_GCM_SHA256 X25519MLKEM768 dane".
func secureWords(state *tls.ConnectionState, how string) string {
	words := versionWord(state.Version) + " " + tls.CipherSuiteName(state.CipherSuite)
	if state.CurveID != 0 {
		words += " " + state.CurveID.String()
	}
	return words + " " + how
}

// versionWord names a version of TLS as mail people do.
func versionWord(v uint16) string {
	switch v {
	case tls.VersionTLS10:
		return "TLSv1"
	case tls.VersionTLS11:
		return "TLSv1.1"
	case tls.VersionTLS12:
		return "TLSv1.2"
	case tls.VersionTLS13:
		return "TLSv1.3"
	}
	return "unknown"
}

// manners remembers at which address not everything worked, so that mail need not find out each time. It is bounded, and
// forgets: what failed once may have been repaired.
type manners struct {
	mu  sync.Mutex
	all map[netip.AddrPort]remembered
}

type remembered struct {
	manner manner
	until  time.Time
}

const (
	maxManners  = 8192
	plainMemory = 24 * time.Hour
	clearMemory = time.Hour
)

func (m *manners) get(a netip.AddrPort, now time.Time) manner {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.all[a]
	if ok && now.After(r.until) {
		delete(m.all, a)
		return mannerFull
	}
	return r.manner
}

func (m *manners) set(a netip.AddrPort, how manner, now time.Time) {
	keep := plainMemory
	if how == mannerClear {
		keep = clearMemory
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if how == mannerFull {
		delete(m.all, a)
		return
	}
	if m.all == nil {
		m.all = make(map[netip.AddrPort]remembered)
	}
	for old := range m.all {
		if len(m.all) < maxManners {
			break
		}
		delete(m.all, old)
	}
	m.all[a] = remembered{how, now.Add(keep)}
}
