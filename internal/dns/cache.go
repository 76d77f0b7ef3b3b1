package dns

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// answer is what is known of one question. It does not change after it was made, and many may hold it.
type answer struct {
	err       *Error // nil if there are records
	name      string // whose records these are, at the end of the aliases
	authentic bool
	expires   time.Time

	hosts []Host // MX: by preference, then name
	site  string // MX: the name of the whole set
	addrs []netip.Addr
	texts []string
	tlsa  []TLSARecord
}

const (
	cacheShards = 64
	evictSample = 8 // entries looked at to find one to drop
)

// cache keeps answers until they expire. Its size is bounded: a full shard drops what of a random sample was unused
// longest.
type cache struct {
	seed   maphash.Seed
	limit  int // per shard
	shards [cacheShards]cacheShard
}

type cacheShard struct {
	sync.Mutex
	entries map[key]*cacheEntry
	_       [40]byte // shards do not share a cache line
}

type cacheEntry struct {
	answer *answer
	used   atomic.Int64 // Unix seconds
}

func newCache(entries int) *cache {
	c := &cache{seed: maphash.MakeSeed(), limit: max(1, entries/cacheShards)}
	for i := range c.shards {
		c.shards[i].entries = make(map[key]*cacheEntry)
	}
	return c
}

func (c *cache) shard(k key) *cacheShard {
	return &c.shards[(maphash.String(c.seed, k.name)+uint64(k.typ))%cacheShards]
}

// get returns the answer to k if there is one that holds at now.
func (c *cache) get(k key, now time.Time) *answer {
	s := c.shard(k)
	s.Lock()
	e := s.entries[k]
	s.Unlock()
	if e == nil || !now.Before(e.answer.expires) {
		return nil
	}
	if at := now.Unix(); e.used.Load() != at {
		e.used.Store(at)
	}
	return e.answer
}

func (c *cache) put(k key, a *answer, now time.Time) {
	if !now.Before(a.expires) {
		return
	}
	e := &cacheEntry{answer: a}
	e.used.Store(now.Unix())
	s := c.shard(k)
	s.Lock()
	defer s.Unlock()
	if _, ok := s.entries[k]; !ok && len(s.entries) >= c.limit {
		s.evictLocked(now)
	}
	s.entries[k] = e
}

// evictLocked drops an expired entry, or the longest unused one, of a few that the map's random order brings up.
func (s *cacheShard) evictLocked(now time.Time) {
	var oldest key
	oldestUse, seen := int64(0), 0
	for k, e := range s.entries {
		if !now.Before(e.answer.expires) {
			oldest = k
			break
		}
		if use := e.used.Load(); seen == 0 || use < oldestUse {
			oldest, oldestUse = k, use
		}
		if seen++; seen == evictSample {
			break
		}
	}
	delete(s.entries, oldest)
}

// len returns the number of answers kept, expired ones included.
func (c *cache) len() int {
	n := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.Lock()
		n += len(s.entries)
		s.Unlock()
	}
	return n
}
