package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/smtp"
)

// SelfSigned makes a certificate for names and addresses that is signed by its own key (ECDSA, P-256), valid from a day ago
// for so long. Clients must be told to trust it: it is for trying out, and for networks of one's own.
func SelfSigned(hosts []string, valid time.Duration) (cert, key []byte, err error) {
	if len(hosts) == 0 || valid <= 0 {
		return nil, nil, errors.New("certs: a certificate needs a host name and some time to be valid")
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("certs: make key: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: hosts[0]},
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(valid),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for _, h := range hosts {
		if a, err := netip.ParseAddr(h); err == nil {
			template.IPAddresses = append(template.IPAddresses, a.AsSlice())
			continue
		}
		rest, wild := strings.CutPrefix(h, "*.")
		name, err := smtp.DomainToASCII(rest)
		if err != nil {
			return nil, nil, fmt.Errorf("certs: %q is neither a host name nor an address", h)
		}
		if wild {
			name = "*." + name
		}
		template.DNSNames = append(template.DNSNames, name)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, nil, fmt.Errorf("certs: sign: %w", err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, fmt.Errorf("certs: encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), nil
}

// WritePair writes a new pair into files, the key readable for its owner alone. Files that exist are never overwritten. A
// crash leaves both, the key alone, or nothing.
func WritePair(files Pair, cert, key []byte) error {
	for _, f := range []struct {
		name string
		data []byte
		mode os.FileMode
	}{{files.Key, key, 0o600}, {files.Certificate, cert, 0o644}} {
		if err := os.MkdirAll(filepath.Dir(f.name), 0o755); err != nil {
			return fmt.Errorf("certs: %w", err)
		}
		if err := writeNew(f.name, f.data, f.mode); err != nil {
			return fmt.Errorf("certs: %w", err)
		}
	}
	return nil
}

func writeNew(name string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}
