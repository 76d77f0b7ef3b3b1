package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"io"
	"sync"
	"time"
)

// known remembers successes for some minutes, as keyed hashes under a key that only this process has. An entry holds as
// long as its record is the current one, so any change of a credential drops what is known of it.
type known struct {
	key   []byte
	limit int
	keep  time.Duration

	mu      sync.Mutex
	entries map[digest]success
}

type digest [sha256.Size]byte

type success struct {
	record  *credentialRecord
	secret  string // id
	expires time.Time
}

const evictSample = 8 // entries looked at to find one to drop

func newKnown(r io.Reader, limit int, keep time.Duration) (*known, error) {
	key, err := random(r, sha256.Size)
	return &known{key: key, limit: limit, keep: keep, entries: make(map[digest]success)}, err
}

func (k *known) digest(login, password string) (d digest) {
	m := hmac.New(sha256.New, k.key)
	io.WriteString(m, login) // a hash takes all it is given
	m.Write([]byte{0})
	io.WriteString(m, password)
	m.Sum(d[:0])
	return d
}

// find returns the id of the secret that the password was.
func (k *known) find(record *credentialRecord, login, password string) (secret string, ok bool) {
	d := k.digest(login, password)
	now := time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	s, ok := k.entries[d]
	if !ok {
		return "", false
	}
	if s.record != record || !now.Before(s.expires) {
		delete(k.entries, d)
		return "", false
	}
	return s.secret, true
}

func (k *known) add(record *credentialRecord, login, password, secret string) {
	d := k.digest(login, password)
	now := time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.entries[d]; !ok && len(k.entries) >= k.limit {
		k.evictLocked(now)
	}
	k.entries[d] = success{record: record, secret: secret, expires: now.Add(k.keep)}
}

// evictLocked drops the entry that ends first of a few that the map's random order brings up.
func (k *known) evictLocked(now time.Time) {
	var victim digest
	var soonest time.Time
	seen := 0
	for d, s := range k.entries {
		if seen == 0 || s.expires.Before(soonest) {
			victim, soonest = d, s.expires
		}
		if seen++; seen == evictSample || !now.Before(soonest) {
			break
		}
	}
	delete(k.entries, victim)
}
