package tlspolicy

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
)

// failure makes a Failure with a detail fit for reports.
func failure(t FailureType, detail string) *Failure {
	return &Failure{Type: t, Detail: cut(detail, 255)}
}

var errNoCertificate = failure(CertificateNotTrusted, "the host sent no certificate")

// verifyPKIX checks the chain of a handshake against roots and the name against its subject alternative names, the only
// ones that count (RFC 8461, 4.2). The clock is the system's.
func verifyPKIX(host string, roots *x509.CertPool) func(*tls.ConnectionState) *Failure {
	return func(state *tls.ConnectionState) *Failure {
		chain := state.PeerCertificates
		if len(chain) == 0 {
			return errNoCertificate
		}
		o := x509.VerifyOptions{DNSName: host, Roots: roots, Intermediates: x509.NewCertPool()}
		for _, c := range chain[1:] {
			o.Intermediates.AddCert(c)
		}
		if _, err := chain[0].Verify(o); err != nil {
			return classify(err)
		}
		return nil
	}
}

// classify turns an error of certificate verification into a result of reports.
func classify(err error) *Failure {
	var (
		invalid x509.CertificateInvalidError
		name    x509.HostnameError
	)
	switch {
	case errors.As(err, &name):
		return failure(CertificateHostMismatch, "the certificate is not for "+name.Host)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return failure(CertificateExpired, err.Error())
	}
	return failure(CertificateNotTrusted, err.Error())
}
