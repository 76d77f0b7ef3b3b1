package smtptest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"time"
)

// CertificateOptions say what certificate a peer has. The zero value is good for a day, self-signed, and for no name.
type CertificateOptions struct {
	Names    []string
	RSA      int              // bits of an RSA key; 0 is an ECDSA key
	Issuer   *tls.Certificate // nil: self-signed
	CA       bool
	NotAfter time.Time // zero is in a day
	// SHA1 signs with SHA-1, NegativeSerial gives a serial number below zero: neither is issued by package x509. Both need RSA,
	// and no Issuer.
	SHA1, NegativeSerial bool
}

// NewCertificate issues a certificate.
func NewCertificate(o CertificateOptions) (tls.Certificate, error) {
	var key crypto.Signer
	var err error
	if o.RSA > 0 {
		key, err = rsa.GenerateKey(rand.Reader, o.RSA)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		return tls.Certificate{}, err
	}
	name := "nobody"
	if len(o.Names) > 0 {
		name = o.Names[0]
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(0x7a11), Subject: pkix.Name{CommonName: name}, DNSNames: o.Names,
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: o.NotAfter, IsCA: o.CA, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if o.CA {
		t.KeyUsage |= x509.KeyUsageCertSign
	}
	if t.NotAfter.IsZero() {
		t.NotAfter = time.Now().Add(24 * time.Hour)
	}
	parent, signer := t, key
	var above [][]byte
	if o.Issuer != nil {
		above = o.Issuer.Certificate
		signer = o.Issuer.PrivateKey.(crypto.Signer)
		if parent, err = x509.ParseCertificate(above[0]); err != nil {
			return tls.Certificate{}, err
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), signer)
	if err != nil {
		return tls.Certificate{}, err
	}
	if o.SHA1 || o.NegativeSerial {
		if der, err = odd(der, key.(*rsa.PrivateKey), &o); err != nil {
			return tls.Certificate{}, err
		}
	}
	return tls.Certificate{Certificate: append([][]byte{der}, above...), PrivateKey: key}, nil
}

// odd changes a certificate into one that package x509 does not issue, and signs it again. Lengths stay as they are.
func odd(der []byte, key *rsa.PrivateKey, o *CertificateOptions) ([]byte, error) {
	var c struct {
		TBS       asn1.RawValue
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &c); err != nil {
		return nil, err
	}
	sha256WithRSA := []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11}
	sha1WithRSA := []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5}
	tbs, algorithm := bytes.Clone(c.TBS.FullBytes), bytes.Clone(c.Algorithm.FullBytes)
	if o.NegativeSerial {
		tbs = bytes.Replace(tbs, []byte{2, 2, 0x7a, 0x11}, []byte{2, 2, 0xfa, 0x11}, 1)
	}
	var signature []byte
	var err error
	if o.SHA1 {
		tbs, algorithm = bytes.Replace(tbs, sha256WithRSA, sha1WithRSA, 1), bytes.Replace(algorithm, sha256WithRSA, sha1WithRSA, 1)
		sum := sha1.Sum(tbs)
		signature, err = rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA1, sum[:])
	} else {
		h := crypto.SHA256.New()
		h.Write(tbs)
		signature, err = rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, h.Sum(nil))
	}
	if err != nil {
		return nil, err
	}
	if len(signature) != len(c.Signature.Bytes) {
		return nil, fmt.Errorf("a signature of %d octets in place of %d", len(signature), len(c.Signature.Bytes))
	}
	changed := append(bytes.Clone(der[:bytes.Index(der, c.TBS.FullBytes)]), tbs...)
	changed = append(changed, algorithm...)
	rest := der[len(changed) : len(der)-len(signature)]
	return append(append(changed, rest...), signature...), nil
}
