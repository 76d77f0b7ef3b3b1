package inbound

import (
	"errors"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/mailauth/arc"
	"github.com/godwit-mta/godwit/mailauth/dkim"
)

// Keys has the keys that sign for a domain, the RSA one among them: it is what all verifiers know. It is called for each
// message.
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
	keys, err := c.o.Keys.Keys(s.Seal, s.Tenant)
	if err == nil && len(keys) == 0 {
		err = ErrNoKey
	}
	if err != nil {
		c.metrics.seals["failed"].Inc()
		return dst, err
	}
	key := keys[0]
	for _, k := range keys {
		if strings.HasPrefix(k.Algorithm(), "rsa") && k.Domain == s.Seal {
			key = k
			break
		}
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
