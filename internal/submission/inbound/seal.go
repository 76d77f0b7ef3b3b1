package inbound

import (
	"errors"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/mailauth/arc"
	"github.com/godwit-mta/godwit/mailauth/dkim"
)

// Keys has the keys that sign now for a domain; *keyring.Keyring is one. No tenant stands for the server itself. It is called for
// each message. Keys of other domains may be among them, and are not used.
type Keys interface {
	Keys(domain, tenant string) ([]*dkim.Key, error)
}

// ErrNoKey says that there is no key to seal with.
var ErrNoKey = errors.New("inbound: the domain that seals has no key that signs now")

// Seals reports whether messages that are passed on are sealed.
func (c *Checker) Seals() bool { return c.o.Keys != nil && c.settings.Load().Seal != "" }

// Seal appends to dst the fields that extend the chain of a message that is passed on (RFC 8617, 5.1): what was found when it came
// in, and a signature of what leaves, which lies in pieces. A chain that cannot be extended, having been sealed as broken
// before or being full, is left as it is: then nothing is appended and the error is nil.
func (c *Checker) Seal(dst []byte, pieces [][]byte, f *Findings) ([]byte, error) {
	s := c.settings.Load()
	if c.o.Keys == nil || s.Seal == "" || f.Skipped || f.arcErr != nil {
		return dst, nil
	}
	key, err := c.key(s)
	if err != nil {
		c.metrics.seals["failed"].Inc()
		return dst, err
	}
	out, err := c.sealer.Seal(dst, pieces, f.ARC, c.o.Hostname, f.Results(), key, time.Now())
	switch {
	case errors.Is(err, arc.ErrSealed), errors.Is(err, arc.ErrFull), errors.Is(err, arc.ErrStructure), errors.Is(err, dkim.ErrLookup):
		c.metrics.seals["left"].Inc()
		return dst, nil
	case err != nil:
		c.metrics.seals["failed"].Inc()
		return dst, err
	}
	c.metrics.seals["sealed"].Inc()
	return out, nil
}

// key returns the key that seals.
func (c *Checker) key(s *settings) (*dkim.Key, error) {
	keys, err := c.o.Keys.Keys(s.Seal, "")
	if err != nil {
		return nil, err
	}
	var best *dkim.Key
	for _, k := range keys {
		switch {
		case k.Domain != s.Seal || s.Selector != "" && k.Selector != s.Selector:
		case best == nil, strings.HasPrefix(k.Algorithm(), "rsa") && !strings.HasPrefix(best.Algorithm(), "rsa"):
			best = k
		}
	}
	if best == nil {
		return nil, ErrNoKey
	}
	return best, nil
}
