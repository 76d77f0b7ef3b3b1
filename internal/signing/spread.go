package signing

import (
	"hash/maphash"
	"sync"
	"time"
)

// wideMessage is how many recipients of one message within an hour are worth a line in the log.
const wideMessage = 10_000

// Sent notes that a signed message was accepted for a number of recipients. Messages of one author domain with one
// Message-ID are one message, however many transactions bring it: a signature is good for each of them, which is what
// who replays one wants (RFC 6376, 8.6). A message without Message-ID counts by its transaction alone.
func (s *Signer) Sent(domain, tenant, messageID string, recipients int) {
	s.metrics.recipients.Observe(float64(recipients))
	if messageID == "" {
		return
	}
	if n, passed := s.spread.note(domain, messageID, recipients, time.Now()); passed {
		s.metrics.wide.Inc()
		s.log.Warn("a signed message goes to very many recipients; was it replayed?",
			"domain", domain, "tenant", tenant, "message_id", messageID, "recipients", n)
	}
}

const (
	spreadSets = 256
	spreadWays = 4
)

// spread counts the recipients of the messages that go to most, in memory that does not grow. Of messages that share a
// set the smallest makes room, bit by bit, so that the many with few recipients do not push the few with many out.
// A count may be too low by that, never too high but for two messages of one hash.
type spread struct {
	mu   sync.Mutex
	hour int64 // since 1970
	seed maphash.Seed
	now  [spreadSets][spreadWays]sighting
	max  int64 // of now
	last int64 // max of the hour before
}

type sighting struct {
	hash  uint64
	count int64
}

// note adds recipients of a message and returns how many were seen within the hour, and whether these are the ones that made
// it a wide one.
func (s *spread) note(domain, messageID string, recipients int, now time.Time) (int64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turnLocked(now)
	var h maphash.Hash
	h.SetSeed(s.seed)
	_, _ = h.WriteString(domain)
	_ = h.WriteByte(0)
	_, _ = h.WriteString(messageID)
	sum, n := h.Sum64(), int64(recipients)
	set := &s.now[sum%spreadSets]
	small := &set[0]
	for i := range set {
		w := &set[i]
		if w.hash == sum && w.count > 0 {
			before := w.count
			w.count += n
			s.max = max(s.max, w.count)
			return w.count, before <= wideMessage && w.count > wideMessage
		}
		if w.count < small.count {
			small = w
		}
	}
	if small.count >= n {
		small.count -= n
		return n, false
	}
	*small = sighting{hash: sum, count: n}
	s.max = max(s.max, n)
	return n, n > wideMessage
}

// turnLocked forgets what was seen in an hour that has passed.
func (s *spread) turnLocked(now time.Time) {
	hour := now.Unix() / 3600
	if hour == s.hour {
		return
	}
	s.last = 0
	if hour == s.hour+1 {
		s.last = s.max
	}
	s.hour, s.max, s.seed = hour, 0, maphash.MakeSeed()
	s.now = [spreadSets][spreadWays]sighting{}
}

// widest returns the most recipients that one message had in this hour or the one before.
func (s *spread) widest() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turnLocked(time.Now())
	return max(s.max, s.last)
}
