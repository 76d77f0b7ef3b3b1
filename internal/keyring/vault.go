package keyring

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// keep puts a private key where the record says afterwards: into the record, sealed, or into a file. A crash between the file
// and the record leaves a file that nobody names, which the next key of that name overwrites.
func (k *Keyring) keep(r *record, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return errors.New("the private key cannot be written")
	}
	if s := k.o.Sealer; s != nil && s.Sealing() {
		r.Sealed = s.SealText(nil, der)
		return nil
	}
	if k.o.Dir == "" {
		return errors.New("there is no place for private keys")
	}
	r.File = r.Domain + "." + r.Selector + ".pem"
	return writeFile(k.o.Dir, r.File, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// fetch returns the private key of a record.
func (k *Keyring) fetch(r *record) (crypto.Signer, error) {
	switch {
	case len(r.Sealed) > 0 && k.o.Sealer == nil:
		return nil, errors.New("its private key is encrypted, and there is no master key")
	case len(r.Sealed) > 0:
		der, err := k.o.Sealer.OpenText(nil, r.Sealed)
		if err != nil {
			return nil, fmt.Errorf("its private key cannot be decrypted: %w", err)
		}
		return ParsePrivate(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	case r.File != "":
		text, err := os.ReadFile(filepath.Join(k.o.Dir, filepath.Base(r.File)))
		if err != nil {
			return nil, fmt.Errorf("its private key cannot be read: %w", err)
		}
		return ParsePrivate(text)
	}
	return nil, errors.New("its private key is gone")
}

// discard removes the file of a private key that no record names any more.
func (k *Keyring) discard(file string) {
	if file == "" {
		return
	}
	if err := os.Remove(filepath.Join(k.o.Dir, filepath.Base(file))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		k.o.Logger.Warn("the file of a private key that is of no use any more cannot be removed", "file", file, "error", err)
	}
}

// writeFile writes a file that the server alone may read. A crash leaves the old one, none, or all of the new one.
func writeFile(dir, name string, text []byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make directory for private keys: %w", err)
	}
	path := filepath.Join(dir, name)
	f, err := os.OpenFile(path+".tmp", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write private key: %w", err)
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Chmod(0o600), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write private key: %w", err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return fmt.Errorf("write private key: %w", err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("write private key: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}
