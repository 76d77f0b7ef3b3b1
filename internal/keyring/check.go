package keyring

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/godwit-mta/godwit/mailauth/dkim"
)

// verdict is what one resolver makes of a key's record. The set is closed.
type verdict uint8

const (
	matches   verdict = iota // it is there, and the key's
	missing                  // there is none, by DNS's own word
	different                // there is another one, or one that cannot be read
	empty                    // there is one that says the key is revoked
	unknown                  // DNS did not answer
	verdicts
)

var verdictWords = [verdicts]string{"matches", "missing", "different", "revoked", "unknown"}

func (v verdict) String() string { return verdictWords[v] }

// sight is what DNS shows of a record, from one place.
type sight struct {
	from    string
	verdict verdict
	testing bool
	detail  string
}

// sighting is what all places show.
type sighting []sight

func (s sighting) count(v verdict) int {
	n := 0
	for i := range s {
		if s[i].verdict == v {
			n++
		}
	}
	return n
}

// everywhere says that all show the record, and there are any.
func (s sighting) everywhere() bool { return len(s) > 0 && s.count(matches) == len(s) }

// contradicts says that some place shows for certain that the record is not there.
func (s sighting) contradicts() bool { return s.count(missing)+s.count(different)+s.count(empty) > 0 }

// gone says that no place shows a record, for certain.
func (s sighting) gone() bool { return len(s) > 0 && s.count(missing) == len(s) }

// problem says in words what is wrong; empty: nothing.
func (s sighting) problem() string {
	var list []string
	for i := range s {
		if s[i].verdict == matches {
			continue
		}
		text := s[i].detail
		if len(s) > 1 {
			text = "at " + s[i].from + " " + text
		}
		list = append(list, text)
	}
	return strings.Join(list, "; ")
}

// look asks all places for the record of a key.
func (k *Keyring) look(ctx context.Context, r *record) sighting {
	ctx, cancel := context.WithTimeout(ctx, k.o.Times.Lookup)
	defer cancel()
	s := make(sighting, len(k.o.Resolvers))
	var wg sync.WaitGroup
	for i, v := range k.o.Resolvers {
		wg.Go(func() {
			s[i] = compare(ctx, v, r)
			s[i].from = v.Name
		})
	}
	wg.Wait()
	for i := range s {
		k.metrics.checks[s[i].verdict].Inc()
	}
	return s
}

// compare asks one place.
func compare(ctx context.Context, v Resolver, r *record) sight {
	list, err := v.TXT(ctx, r.dnsName())
	switch {
	case err != nil:
		return sight{verdict: unknown, detail: "DNS gave no answer: " + err.Error()}
	case len(list) == 0:
		return sight{verdict: missing, detail: "there is no record"}
	case len(list) > 1:
		// A verifier may take any of them (RFC 6376, 3.6.2.2).
		return sight{verdict: different, detail: fmt.Sprintf("there are %d TXT records; remove all but the key's", len(list))}
	}
	key, err := dkim.ParseRecord(list[0])
	switch {
	case errors.Is(err, dkim.ErrRevoked):
		return sight{verdict: empty, detail: "the record says that the key is revoked"}
	case err != nil:
		return sight{verdict: different, detail: "the record is no key: " + strings.TrimPrefix(err.Error(), "dkim: ")}
	case !same(key.Key, r.Public):
		return sight{verdict: different, detail: "the record has another key"}
	}
	return sight{verdict: matches, testing: key.Testing}
}

func same(key crypto.PublicKey, want []byte) bool {
	p, _, _, err := public(key)
	return err == nil && bytes.Equal(p, want)
}

// note writes down what DNS showed. It returns what the log is to say, if anything.
func (r *record) note(s sighting, now time.Time, t *Times) (line string) {
	r.Checked, r.Problem = now, s.problem()
	r.Testing = false
	for i := range s {
		r.Testing = r.Testing || s[i].testing
	}
	switch {
	case r.State == Revoked: // there is no record that it should have
		if r.Problem = ""; s.count(matches) > 0 {
			r.Problem = "the record still has the key, though it is revoked"
		}
	case s.everywhere():
		if !r.Bad.IsZero() {
			line = "DNS shows the record of a key again"
		}
		r.Good, r.Doubt, r.Bad, r.Unknown = now, time.Time{}, time.Time{}, time.Time{}
	case s.contradicts():
		r.Unknown = time.Time{}
		if r.Doubt.IsZero() {
			r.Doubt = now
		}
		// Once may be a server that had just begun; a key that never was in DNS needs no second answer.
		if r.Bad.IsZero() && (r.Good.IsZero() || now.Sub(r.Doubt) >= t.Confirm) {
			r.Bad = r.Doubt
			if !r.Good.IsZero() {
				line = "DNS does not show the record of a key any more"
			}
		}
	case r.Unknown.IsZero():
		r.Unknown = now
	}
	return line
}
