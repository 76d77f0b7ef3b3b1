package seal

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

const keySize = 32 // octets of every key

// masterPrefix begins each master key, so that people and scanners recognise one.
const masterPrefix = "gwmaster_"

// Master is a key that wraps data keys. It does not print itself.
type Master struct {
	id  string
	key [keySize]byte
}

// ID names the key without telling it.
func (m *Master) ID() string { return m.id }

// Format writes the id for every verb.
func (m Master) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "master key "+m.id) }

func newMaster(key []byte) Master {
	m := Master{key: [keySize]byte(key)}
	m.id = hex.EncodeToString(derive(key, nil, "godwit master key id 1")[:8])
	return m
}

// derive makes a key from a key (HKDF-SHA-256, RFC 5869).
func derive(key, salt []byte, purpose string) []byte {
	out, err := hkdf.Key(sha256.New, key, salt, purpose, keySize)
	if err != nil {
		panic("seal: " + err.Error()) // only for keys longer than the function can make
	}
	return out
}

// NewMaster returns the text of a new master key.
func NewMaster() string {
	var key [keySize]byte
	rand.Read(key[:]) // never fails
	return masterPrefix + base64.RawURLEncoding.EncodeToString(key[:])
}

// ParseMasters reads master keys, one a line, the one to wrap with first: as [NewMaster] makes them, or 32 octets in hexadecimal
// digits or base64, as key services print them. Empty lines and those that begin with # are passed over.
func ParseMasters(text []byte) ([]Master, error) {
	var all []Master
	n := 0
	for line := range bytes.Lines(text) {
		n++
		s := strings.TrimSpace(string(line))
		if s == "" || s[0] == '#' {
			continue
		}
		key, ok := decodeKey(strings.TrimPrefix(s, masterPrefix))
		if !ok {
			// Not the line itself: it may be nearly a key.
			return nil, fmt.Errorf("line %d is no master key: \"godwit key create\" makes one", n)
		}
		all = append(all, newMaster(key))
	}
	if len(all) == 0 {
		return nil, errors.New("holds no master key: \"godwit key create\" makes one")
	}
	return all, nil
}

func decodeKey(s string) ([]byte, bool) {
	for _, decode := range []func(string) ([]byte, error){
		hex.DecodeString, base64.RawURLEncoding.DecodeString, base64.StdEncoding.DecodeString, base64.URLEncoding.DecodeString,
	} {
		if key, err := decode(s); err == nil && len(key) == keySize {
			return key, true
		}
	}
	return nil, false
}

const (
	commandPatience = 30 * time.Second
	maxMasters      = 64 << 10 // octets
)

// LoadMasters reads master keys from a file, or from what a command prints (run without a shell, 30 s at most).
func LoadMasters(ctx context.Context, file string, command []string) ([]Master, error) {
	if len(command) > 0 {
		return askMasters(ctx, command)
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("master key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("master key: %w", err)
	}
	if info.Mode().IsRegular() && info.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("master key: everybody may read or write %s: chmod 600 it, and make a new key if it has been so for long", file)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxMasters))
	if err != nil {
		return nil, fmt.Errorf("master key: %w", err)
	}
	all, err := ParseMasters(text)
	if err != nil {
		return nil, fmt.Errorf("master key: %s %w", file, err)
	}
	return all, nil
}

func askMasters(ctx context.Context, command []string) ([]Master, error) {
	ctx, cancel := context.WithTimeout(ctx, commandPatience)
	defer cancel()
	c := exec.CommandContext(ctx, command[0], command[1:]...)
	c.WaitDelay = time.Second
	text, err := c.Output()
	if err != nil {
		// What it printed is not repeated: it may hold the key.
		return nil, fmt.Errorf("master key: %s: %w", command[0], err)
	}
	all, err := ParseMasters(text)
	if err != nil {
		return nil, fmt.Errorf("master key: what %s prints %w", command[0], err)
	}
	return all, nil
}

// wrap encrypts a data key. Master keys wrap seldom, so nonces are random.
func (m *Master) wrap(key []byte, about string) []byte {
	g := gcm(m.key[:])
	nonce := make([]byte, g.NonceSize(), g.NonceSize()+len(key)+g.Overhead())
	rand.Read(nonce) // never fails
	return g.Seal(nonce, nonce, key, []byte(about))
}

func (m *Master) unwrap(wrapped []byte, about string) ([]byte, error) {
	g := gcm(m.key[:])
	if len(wrapped) < g.NonceSize() {
		return nil, errors.New("is too short")
	}
	return g.Open(nil, wrapped[:g.NonceSize()], wrapped[g.NonceSize():], []byte(about))
}

func gcm(key []byte) cipher.AEAD {
	b, err := aes.NewCipher(key)
	if err == nil {
		var g cipher.AEAD
		if g, err = cipher.NewGCM(b); err == nil {
			return g
		}
	}
	panic("seal: " + err.Error()) // only for keys of another size
}
