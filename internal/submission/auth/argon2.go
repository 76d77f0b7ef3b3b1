package auth

import (
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Cost says how hard a password hash is (RFC 9106, 4). The zero value means the default: 19 MiB, 2 passes, 1 lane, some
// 20 ms on one core.
type Cost struct {
	MemoryKiB uint32 // 8 to 1 Mi
	Passes    uint32 // 1 to 64
	Lanes     uint8  // 1 to 16
}

const (
	saltSize = 16
	hashSize = 32
)

func (c Cost) filled() (Cost, error) {
	if c == (Cost{}) {
		return Cost{MemoryKiB: 19 << 10, Passes: 2, Lanes: 1}, nil
	}
	if c.MemoryKiB < 8 || c.MemoryKiB > 1<<20 || c.Passes < 1 || c.Passes > 64 || c.Lanes < 1 || c.Lanes > 16 {
		return c, errors.New("auth: cost of hashing is out of range")
	}
	return c, nil
}

// argon2Params is an argon2id hash taken apart.
type argon2Params struct {
	cost Cost
	salt []byte
	hash []byte
}

// matches computes the hash of the password and compares. It takes its time, whatever the outcome.
func (p *argon2Params) matches(password string) bool {
	got := argon2.IDKey([]byte(password), p.salt, p.cost.Passes, p.cost.MemoryKiB, p.cost.Lanes, uint32(len(p.hash)))
	return subtle.ConstantTimeCompare(got, p.hash) == 1
}

// newArgon2 hashes a password under a fresh salt.
func newArgon2(r io.Reader, password string, c Cost) (*argon2Params, error) {
	salt, err := random(r, saltSize)
	if err != nil {
		return nil, err
	}
	return &argon2Params{
		cost: c, salt: salt, hash: argon2.IDKey([]byte(password), salt, c.Passes, c.MemoryKiB, c.Lanes, hashSize),
	}, nil
}

var phcBase64 = base64.RawStdEncoding.Strict()

// String returns the PHC form: $argon2id$v=19$m=19456,t=2,p=1$salt$hash.
func (p *argon2Params) String() string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, p.cost.MemoryKiB, p.cost.Passes, p.cost.Lanes,
		phcBase64.EncodeToString(p.salt), phcBase64.EncodeToString(p.hash))
}

// parsePHC reads the form that String writes.
func parsePHC(s string) (*argon2Params, error) {
	bad := func(what string) (*argon2Params, error) { return nil, fmt.Errorf("password hash: %s", what) }
	f := strings.Split(s, "$")
	if strings.ContainsAny(s, "\r\n") { // which the decoder of base64 passes over
		return bad("line end within")
	}
	if len(f) != 6 || f[0] != "" || f[1] != "argon2id" {
		return bad("not of the form $argon2id$v=19$m=...,t=...,p=...$salt$hash")
	}
	if f[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return bad("unknown version of argon2")
	}
	var c Cost
	if n, err := fmt.Sscanf(f[3], "m=%d,t=%d,p=%d", &c.MemoryKiB, &c.Passes, &c.Lanes); err != nil || n != 3 ||
		f[3] != fmt.Sprintf("m=%d,t=%d,p=%d", c.MemoryKiB, c.Passes, c.Lanes) {
		return bad("cannot read the cost")
	}
	if c == (Cost{}) {
		return bad("no cost")
	}
	if _, err := c.filled(); err != nil {
		return nil, err
	}
	salt, err := phcBase64.DecodeString(f[4])
	if err != nil || len(salt) < 8 || len(salt) > 64 {
		return bad("bad salt")
	}
	hash, err := phcBase64.DecodeString(f[5])
	if err != nil || len(hash) < 16 || len(hash) > 64 {
		return bad("bad hash")
	}
	return &argon2Params{cost: c, salt: salt, hash: hash}, nil
}
