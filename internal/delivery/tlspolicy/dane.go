package tlspolicy

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/internal/dns"
)

// Values of the fields of TLSA records (RFC 6698, 2.1; RFC 7218).
const (
	usageTA = 2 // the certificate or key of an issuer
	usageEE = 3 // the certificate or key of the host itself

	selectorCert = 0
	selectorKey  = 1

	matchFull   = 0
	matchSHA256 = 1
	matchSHA512 = 2
)

// maxChain bounds how many certificates of a host are looked at.
const maxChain = 16

// tlsaRecord is a TLSA record that can be used for SMTP.
type tlsaRecord struct {
	usage, selector, matching uint8
	data                      []byte
	cert                      *x509.Certificate // of usage 2 with all of the certificate
	key                       any               // of usage 2 with all of the key
}

// readRecord says why a record cannot be used, if it cannot (RFC 7672, 3.1.3; RFC 6698, 4.1).
func readRecord(r *dns.TLSARecord) (t tlsaRecord, why string) {
	t = tlsaRecord{usage: r.Usage, selector: r.Selector, matching: r.Matching, data: r.Data}
	switch {
	case r.Malformed:
		return t, "it is too short"
	case r.Usage == 0 || r.Usage == 1:
		return t, fmt.Sprintf("its usage is %d, which SMTP does not use", r.Usage)
	case r.Usage != usageTA && r.Usage != usageEE:
		return t, fmt.Sprintf("its usage %d is not known", r.Usage)
	case r.Selector != selectorCert && r.Selector != selectorKey:
		return t, fmt.Sprintf("its selector %d is not known", r.Selector)
	}
	size := -1
	switch r.Matching {
	case matchSHA256:
		size = sha256.Size
	case matchSHA512:
		size = sha512.Size
	case matchFull:
	default:
		return t, fmt.Sprintf("its matching type %d is not known", r.Matching)
	}
	if size >= 0 {
		if len(r.Data) != size {
			return t, fmt.Sprintf("its digest has %d octets instead of %d", len(r.Data), size)
		}
		return t, ""
	}
	var err error
	if r.Selector == selectorCert {
		t.cert, err = x509.ParseCertificate(r.Data)
	} else {
		t.key, err = x509.ParsePKIXPublicKey(r.Data)
	}
	if err != nil || t.key != nil && keyAlgorithm(t.key) == x509.UnknownPublicKeyAlgorithm {
		return t, "it holds what is no certificate or key"
	}
	return t, ""
}

func keyAlgorithm(key any) x509.PublicKeyAlgorithm {
	switch key.(type) {
	case *rsa.PublicKey:
		return x509.RSA
	case *ecdsa.PublicKey:
		return x509.ECDSA
	case ed25519.PublicKey:
		return x509.Ed25519
	}
	return x509.UnknownPublicKeyAlgorithm
}

// recordText is a record as zone files write it, for reports and operators.
func recordText(r *dns.TLSARecord) string {
	if r.Malformed {
		return "malformed"
	}
	return fmt.Sprintf("%d %d %d %s", r.Usage, r.Selector, r.Matching, hex.EncodeToString(r.Data))
}

// matches reports whether the record is of certificate c.
func (t *tlsaRecord) matches(c *x509.Certificate) bool {
	selected := c.Raw
	if t.selector == selectorKey {
		selected = c.RawSubjectPublicKeyInfo
	}
	switch t.matching {
	case matchSHA256:
		d := sha256.Sum256(selected)
		selected = d[:]
	case matchSHA512:
		d := sha512.Sum512(selected)
		selected = d[:]
	}
	return bytes.Equal(selected, t.data)
}

// daneVerifier checks a host against its TLSA records. It does not change.
type daneVerifier struct {
	base    string
	names   []string // that a certificate of an issuer's may be for
	records []tlsaRecord
}

// key tells sets of records apart, and names where they count.
func (v *daneVerifier) key() string {
	h := sha256.New()
	var lines []string
	for i := range v.records {
		r := &v.records[i]
		lines = append(lines, fmt.Sprintf("%d %d %d %x", r.usage, r.selector, r.matching, r.data))
		if r.usage == usageTA {
			lines = append(lines, v.names...)
		}
	}
	slices.Sort(lines)
	h.Write([]byte(strings.Join(slices.Compact(lines), "\n")))
	return fmt.Sprintf("dane %s %x", v.base, h.Sum(nil)[:16])
}

// verify implements Plan.Verify: one record that matches is enough, so that a new certificate can be announced beside the
// old one (RFC 7671, 8.1).
func (v *daneVerifier) verify(state *tls.ConnectionState) *Failure {
	chain := state.PeerCertificates
	if len(chain) == 0 {
		return errNoCertificate
	}
	chain = chain[:min(len(chain), maxChain)]
	for i := range v.records {
		// Neither names nor dates count: the record binds the key to the host, for as long as it stands (RFC 7672, 3.1.1).
		if r := &v.records[i]; r.usage == usageEE && r.matches(chain[0]) {
			return nil
		}
	}
	var first *Failure
	for i := range v.records {
		if r := &v.records[i]; r.usage == usageTA {
			anchored, fail := v.anchor(r, chain)
			switch {
			case anchored && fail == nil:
				return nil
			case anchored && first == nil:
				first = fail
			}
		}
	}
	if first != nil {
		return first
	}
	return failure(CertificateNotTrusted, "no TLSA record of "+v.base+" matches what the host sent")
}

// anchor checks the chain up to the issuer that the record names, which is among the certificates sent, or stands in the
// record itself in full (RFC 7671, 5.2). anchored says whether the issuer was found.
func (v *daneVerifier) anchor(r *tlsaRecord, chain []*x509.Certificate) (anchored bool, fail *Failure) {
	o := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for i, c := range chain {
		switch {
		case r.matches(c):
			o.Roots.AddCert(c)
			anchored = true
		case i > 0:
			o.Intermediates.AddCert(c)
		}
	}
	switch {
	case r.cert != nil:
		o.Roots.AddCert(r.cert)
		anchored = true
	case r.key != nil && !anchored:
		for i, c := range chain {
			if root := issuerOf(c, r, i); root != nil {
				o.Roots.AddCert(root)
				anchored = true
			}
		}
	}
	if !anchored {
		return false, nil
	}
	if _, err := chain[0].Verify(o); err != nil {
		return true, classify(err)
	}
	for _, name := range v.names {
		if names(chain[0], name) {
			return true, nil
		}
	}
	return true, failure(CertificateHostMismatch, "the certificate is for none of "+strings.Join(v.names, ", "))
}

// issuerOf makes a certificate of the bare key in a record, as the issuer of c if the key signed c; nil if it did not.
func issuerOf(c *x509.Certificate, r *tlsaRecord, serial int) *x509.Certificate {
	root := &x509.Certificate{
		Raw: append([]byte{byte(serial)}, r.data...), RawSubject: c.RawIssuer, Subject: c.Issuer, SubjectKeyId: c.AuthorityKeyId,
		PublicKey: r.key, PublicKeyAlgorithm: keyAlgorithm(r.key), RawSubjectPublicKeyInfo: r.data,
		Version: 3, SerialNumber: big.NewInt(int64(serial)), IsCA: true, BasicConstraintsValid: true, MaxPathLen: -1,
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<40, 0),
	}
	if c.CheckSignatureFrom(root) != nil {
		return nil
	}
	return root
}

// names reports whether a certificate is for a name: by its subject alternative names, and, only if it has none that are
// DNS names, by its common name (RFC 7672, 3.2.3; RFC 6125, 6.4.4).
func names(c *x509.Certificate, name string) bool {
	if c.VerifyHostname(name) == nil {
		return true
	}
	if len(c.DNSNames) > 0 {
		return false
	}
	common := strings.ToLower(c.Subject.CommonName)
	if parent, wild := strings.CutPrefix(common, "*."); wild && strings.Contains(parent, ".") {
		_, rest, ok := strings.Cut(name, ".")
		return ok && rest == parent
	}
	return isHostName(common) && common == name
}
