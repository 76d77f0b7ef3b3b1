package delivery

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/internal/delivery/tlspolicy"
)

// pkix demands a certificate that leads to one of roots (nil: the system's) and is for one of names (RFC 9525).
func pkix(roots *x509.CertPool, names ...string) func(*tls.ConnectionState) *tlspolicy.Failure {
	return func(state *tls.ConnectionState) *tlspolicy.Failure {
		if len(state.PeerCertificates) == 0 {
			return &tlspolicy.Failure{Type: tlspolicy.CertificateNotTrusted, Detail: "the host showed no certificate"}
		}
		leaf := state.PeerCertificates[0]
		between := x509.NewCertPool()
		for _, c := range state.PeerCertificates[1:] {
			between.AddCert(c)
		}
		if f := wellFormed(state); f != nil {
			return f
		}
		_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: time.Now(),
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
		if err != nil {
			return certificateFailure(err)
		}
		for _, name := range names {
			if leaf.VerifyHostname(name) == nil {
				return nil
			}
		}
		return &tlspolicy.Failure{Type: tlspolicy.CertificateHostMismatch,
			Detail: "the certificate is not for " + strings.Join(names, " or ")}
	}
}

// wellFormed refuses what package x509 would by itself and this program has it read for the sake of hosts that need not
// prove anything (see cmd/godwit, x509negativeserial).
func wellFormed(state *tls.ConnectionState) *tlspolicy.Failure {
	if slices.ContainsFunc(state.PeerCertificates, func(c *x509.Certificate) bool { return c.SerialNumber.Sign() < 0 }) {
		return &tlspolicy.Failure{Type: tlspolicy.CertificateNotTrusted, Detail: "a certificate has a negative serial number"}
	}
	return nil
}

func certificateFailure(err error) *tlspolicy.Failure {
	f := &tlspolicy.Failure{Type: tlspolicy.CertificateNotTrusted, Detail: clip(err.Error(), 200)}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		f.Type = tlspolicy.CertificateExpired
	}
	return f
}

// pinned demands one of the keys of pins in the host's own certificate. Those above it prove nothing by themselves: anybody
// can send them.
func pinned(pins []Pin) func(*tls.ConnectionState) *tlspolicy.Failure {
	return func(state *tls.ConnectionState) *tlspolicy.Failure {
		if len(state.PeerCertificates) > 0 {
			if slices.Contains(pins, Pin(sha256.Sum256(state.PeerCertificates[0].RawSubjectPublicKeyInfo))) {
				return nil
			}
		}
		return &tlspolicy.Failure{Type: tlspolicy.CertificateNotTrusted, Detail: "the host's key is none of those pinned"}
	}
}
