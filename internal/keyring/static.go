package keyring

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"time"

	"github.com/godwit-mta/godwit/mailauth/dkim"
	"github.com/godwit-mta/godwit/smtp"
)

// StaticKey is a key of the configuration: a file with the private key, or a command that signs and a file with the public
// key.
type StaticKey struct {
	Domain   string
	Selector string
	Tenant   string // whose mail it signs; empty: that of everybody whose domain it is

	File string // private key, as ParsePrivate takes it

	// Command is run without a shell for each signature. It reads a SHA-256 hash (32 octets) from its standard input and writes
	// the signature, nothing else, to its standard output: PKCS #1 v1.5 for RSA (RFC 8017, 8.2), that of the hash as a
	// message for Ed25519 (RFC 8463, 3).
	Command []string
	Public  string        // file with the public key (PEM), beside Command
	Timeout time.Duration // for one signature; default 5 s
}

// staticKey is one that was opened.
type staticKey struct {
	StaticKey
	at     int // in the configuration
	signer crypto.Signer
	public []byte
}

func (k *Keyring) openStatic(list []StaticKey) (map[string]*record, error) {
	records := make(map[string]*record, len(list))
	var errs []error
	for i := range list {
		r, err := k.openStaticKey(&list[i], i)
		if err != nil {
			errs = append(errs, fmt.Errorf("dkim key %s of %s: %w", list[i].Selector, list[i].Domain, err))
			continue
		}
		if records[r.name()] != nil {
			errs = append(errs, fmt.Errorf("dkim key %s of %s is given twice", r.Selector, r.Domain))
			continue
		}
		records[r.name()] = r
	}
	return records, errors.Join(errs...)
}

func (k *Keyring) openStaticKey(c *StaticKey, at int) (*record, error) {
	s := &staticKey{StaticKey: *c, at: at}
	domain, err := smtp.DomainToASCII(c.Domain)
	if err != nil || !dkim.IsKeyName(domain, c.Selector) {
		return nil, errors.New("a domain or selector that cannot be")
	}
	s.Domain = domain
	var key crypto.PublicKey
	switch {
	case c.File != "" && len(c.Command) == 0:
		text, err := os.ReadFile(c.File)
		if err != nil {
			return nil, err
		}
		if i, err := os.Stat(c.File); err == nil && i.Mode().Perm()&0o077 != 0 {
			k.o.Logger.Warn("others can read a private key; make it readable for the server alone: chmod 600", "file", c.File)
		}
		private, err := ParsePrivate(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.File, err)
		}
		key, s.signer = private.Public(), k.primitive(private)
	case len(c.Command) > 0 && c.File == "" && c.Public != "":
		text, err := os.ReadFile(c.Public)
		if err != nil {
			return nil, err
		}
		if key, err = ParsePublic(text); err != nil {
			return nil, fmt.Errorf("%s: %w", c.Public, err)
		}
		s.signer = newCommand(c, key)
	default:
		return nil, errors.New("it needs a file, or a command and the file of the public key")
	}
	r := &record{Domain: s.Domain, Selector: c.Selector, Tenant: c.Tenant, State: Signing, Static: true, static: s}
	if r.Public, r.Algorithm, r.Bits, err = public(key); err != nil {
		return nil, err
	}
	s.public = r.Public
	return r, nil
}

// primitive returns what signs with a private key.
func (k *Keyring) primitive(key crypto.Signer) crypto.Signer {
	if r, ok := key.(*rsa.PrivateKey); ok {
		return k.o.RSA(r)
	}
	return key
}

// command signs by running a program.
type command struct {
	args    []string
	public  crypto.PublicKey
	timeout time.Duration
	turns   chan struct{}
}

const (
	commandTimeout = 5 * time.Second
	maxSignature   = maxBits / 8
)

func newCommand(c *StaticKey, public crypto.PublicKey) *command {
	o := &command{args: c.Command, public: public, timeout: c.Timeout, turns: make(chan struct{}, 2*runtime.GOMAXPROCS(0))}
	if o.timeout <= 0 {
		o.timeout = commandTimeout
	}
	return o
}

// Public implements [crypto.Signer].
func (c *command) Public() crypto.PublicKey { return c.public }

// Sign implements [crypto.Signer] for SHA-256 hashes. A signature that does not hold is an error, so that none leaves.
func (c *command) Sign(_ io.Reader, hash []byte, _ crypto.SignerOpts) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
	defer cancel()
	select {
	case c.turns <- struct{}{}:
		defer func() { <-c.turns }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%s is busy: no turn in %v", c.args[0], c.timeout)
	}
	cmd := exec.CommandContext(ctx, c.args[0], c.args[1:]...)
	cmd.Stdin = bytes.NewReader(hash)
	out := &bounded{most: maxSignature}
	cmd.Stdout = out
	cmd.WaitDelay = time.Second // for those to whom the program gave its output
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("no signature in %v", c.timeout)
		}
		return nil, fmt.Errorf("%s: %w", c.args[0], err)
	}
	sig := out.buf
	switch key := c.public.(type) {
	case *rsa.PublicKey:
		if rsa.VerifyPKCS1v15(key, crypto.SHA256, hash, sig) == nil {
			return sig, nil
		}
	case ed25519.PublicKey:
		if ed25519.Verify(key, hash, sig) {
			return sig, nil
		}
	}
	return nil, fmt.Errorf("%s: what it wrote is no signature by this key", c.args[0])
}

// bounded keeps what is written to it, up to a limit.
type bounded struct {
	buf  []byte
	most int
}

func (b *bounded) Write(p []byte) (int, error) {
	if len(b.buf)+len(p) > b.most {
		return 0, errors.New("too much output")
	}
	b.buf = append(b.buf, p...)
	return len(p), nil
}
