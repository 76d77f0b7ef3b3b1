package main

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/mailauth/dkim"
)

// demoKeys are the DKIM keys of the demo's application, made for one run, and the providers that look for them.
type demoKeys struct {
	config   []config.DKIMKey
	records  map[string]string // as DNS has them: name to text
	verifier *dkim.Verifier
}

// newDemoKeys writes two keys into dir.
func newDemoKeys(dir string) (*demoKeys, error) {
	k := &demoKeys{records: make(map[string]string)}
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("make DKIM key: %w", err)
	}
	pub, e, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make DKIM key: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(r.Public())
	if err != nil {
		return nil, fmt.Errorf("make DKIM key: %w", err)
	}
	for _, made := range []struct {
		selector, kind string
		private        crypto.Signer
		public         []byte
	}{{"demo-r", "rsa", r, der}, {"demo-e", "ed25519", e, pub}} {
		private, err := x509.MarshalPKCS8PrivateKey(made.private)
		if err != nil {
			return nil, fmt.Errorf("make DKIM key: %w", err)
		}
		file := filepath.Join(dir, made.selector+".pem")
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600); err != nil {
			return nil, fmt.Errorf("keep DKIM key: %w", err)
		}
		c := config.DefaultDKIMKey()
		c.Domain, c.Selector, c.File = homeDomain, made.selector, file
		k.config = append(k.config, c)
		k.records[made.selector+"._domainkey."+homeDomain] = "v=DKIM1; k=" + made.kind + "; p=" + base64.StdEncoding.EncodeToString(made.public)
	}
	k.verifier, err = dkim.NewVerifier(dkim.VerifyOptions{Resolver: k})
	return k, err
}

// TXT answers as the simulated DNS does.
func (k *demoKeys) TXT(_ context.Context, name string) ([]string, error) {
	if text, ok := k.records[name]; ok {
		return []string{text}, nil
	}
	return nil, nil
}

// zone returns the records as lines of a zone, their text in strings (RFC 6376, 3.6.2.2).
func (k *demoKeys) zone() string {
	var b strings.Builder
	for name, text := range k.records {
		b.WriteString(name + ". 300 IN TXT")
		for part := range slices.Chunk([]byte(text), 200) {
			fmt.Fprintf(&b, " %q", part)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// hold reports whether a message has a signature by each key, and all of them hold.
func (k *demoKeys) hold(msg []byte) bool {
	list, err := k.verifier.Verify(context.Background(), [][]byte{msg}, time.Now())
	for _, r := range list {
		if r.Status != dkim.Pass || r.Domain != homeDomain {
			return false
		}
	}
	return err == nil && len(list) == len(k.records)
}
