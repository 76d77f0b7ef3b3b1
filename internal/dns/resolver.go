package dns

import (
	"cmp"
	"context"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"sync"
	"time"

	wire "github.com/miekg/dns"
)

// Resolver looks names up. Any number of goroutines may use it.
type Resolver struct {
	o       Options
	servers *serverList
	cache   *cache
	slots   chan struct{} // bounds the lookups on the network
	metrics *metrics

	flights struct {
		sync.Mutex
		byKey map[key]*flight
	}
	rand struct {
		sync.Mutex
		source rand.Source
	}
}

// key is a question: a name in the form of normalize and a record type.
type key struct {
	name string
	typ  uint16
}

// flight is a lookup under way. Its leader fills answer and closes done; answer stays nil if the leader's context ended
// first, and then one of those who waited leads the next.
type flight struct {
	done   chan struct{}
	answer *answer
}

// New checks the options and reads the system's configuration if it is asked to. It sends nothing.
func New(o Options) (*Resolver, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	r := &Resolver{o: o, cache: newCache(o.CacheEntries), slots: make(chan struct{}, o.Concurrency)}
	if r.servers, err = newServerList(o.Servers, systemFile, o.Trust); err != nil {
		return nil, err
	}
	r.flights.byKey = make(map[key]*flight)
	r.rand.source = o.Rand
	if r.metrics, err = newMetrics(o.Registerer, r.cache); err != nil {
		return nil, fmt.Errorf("dns: registering metrics: %w", err)
	}
	return r, nil
}

// lookupName normalizes name and looks it up. It returns no answer, but the name, only if ctx ended.
func (r *Resolver) lookupName(ctx context.Context, name string, typ uint16) (*answer, string, *Error) {
	if a := r.hit(key{name, typ}, time.Now()); a != nil { // what is in the cache was normal when it was put there
		return a, name, nil
	}
	name, bad := normalize(name)
	if bad != nil {
		bad.Type = wire.TypeToString[typ]
		return nil, "", bad
	}
	return r.lookup(ctx, key{name, typ}), name, nil
}

// hit answers from the cache.
func (r *Resolver) hit(k key, now time.Time) *answer {
	a := r.cache.get(k, now)
	if a != nil {
		r.metrics.cached.Inc()
	}
	return a
}

// lookup answers from the cache or leads or joins a flight. It returns nil only if ctx ended.
func (r *Resolver) lookup(ctx context.Context, k key) *answer {
	if a := r.hit(k, time.Now()); a != nil {
		return a
	}
	for {
		f, leader := r.join(k)
		if leader {
			return r.lead(ctx, k, f)
		}
		select {
		case <-f.done:
			if f.answer != nil {
				r.metrics.shared.Inc()
				return f.answer
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (r *Resolver) join(k key) (f *flight, leader bool) {
	r.flights.Lock()
	defer r.flights.Unlock()
	if f, ok := r.flights.byKey[k]; ok {
		return f, false
	}
	f = &flight{done: make(chan struct{})}
	r.flights.byKey[k] = f
	return f, true
}

func (r *Resolver) lead(ctx context.Context, k key, f *flight) *answer {
	defer func() { // in this order: who comes later finds the answer in the cache or joins a new flight
		r.flights.Lock()
		delete(r.flights.byKey, k)
		r.flights.Unlock()
		close(f.done)
	}()
	if a := r.cache.get(k, time.Now()); a != nil { // the flight before this one may have ended just now
		f.answer = a
		return a
	}
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return nil
	}
	r.metrics.network.Inc()
	a := r.resolve(ctx, k)
	if a == nil {
		return nil
	}
	f.answer = a
	r.cache.put(k, a, time.Now())
	return a
}

// maxAliases bounds the CNAME records followed from one name.
const maxAliases = 8

// resolve asks the network, and again for each alias whose end the answer does not tell. It returns nil only if ctx
// ended.
func (r *Resolver) resolve(ctx context.Context, k key) *answer {
	limited, cancel := context.WithTimeout(ctx, r.o.Deadline)
	defer cancel()
	name, links := k.name, 0
	ttl, authentic := r.o.MaxTTL, true
	for {
		reply, fail := r.exchange(limited, key{name, k.typ})
		if fail != nil {
			if ctx.Err() != nil {
				return nil
			}
			return r.failed(k, Temporary, fail.server, fail.detail)
		}
		links += reply.links
		if links > maxAliases {
			return r.failed(k, Loop, reply.server, fmt.Sprintf("more than %d in a row", maxAliases))
		}
		ttl = min(ttl, seconds(reply.ttl))
		authentic = authentic && reply.authentic
		if reply.onward {
			name = reply.name
			continue
		}
		a := &reply.answer
		a.authentic = authentic
		if a.err != nil {
			ttl = min(ttl, r.negativeTTL(reply.soa))
			a.err.Name, a.err.Type, a.err.Server = k.name, wire.TypeToString[k.typ], reply.server
			if a.err.Kind == NXDomain && a.name != k.name {
				a.err.Detail = "an alias of " + cut(a.name, maxName)
			}
		}
		a.expires = time.Now().Add(ttl)
		return a
	}
}

func (r *Resolver) failed(k key, kind Kind, server, detail string) *answer {
	return &answer{
		err:     &Error{Kind: kind, Name: k.name, Type: wire.TypeToString[k.typ], Server: server, Detail: detail},
		name:    k.name,
		expires: time.Now().Add(r.o.FailureTTL),
	}
}

// negativeTTL is how long "there is none" holds: the lesser of the SOA record's TTL and its last field (RFC 2308, 5).
// Without SOA record it should not be kept at all; it is kept as long as a failure, so that a queue full of such mail
// does not ask for each.
func (r *Resolver) negativeTTL(soa *wire.SOA) time.Duration {
	if soa == nil {
		return min(r.o.FailureTTL, r.o.MaxNegativeTTL)
	}
	return min(seconds(soa.Hdr.Ttl), seconds(soa.Minttl), r.o.MaxNegativeTTL)
}

// seconds turns a TTL into a duration; one with the highest bit set means 0 (RFC 2181, 8).
func seconds(ttl uint32) time.Duration {
	if ttl > 1<<31-1 {
		return 0
	}
	return time.Duration(ttl) * time.Second
}

// interrupted is the error of a caller whose context ended first.
func interrupted(ctx context.Context, name, typ string) *Error {
	cause := cmp.Or(context.Cause(ctx), context.Canceled)
	return &Error{Kind: Temporary, Name: name, Type: typ, Detail: "given up: " + cause.Error(), cause: cause}
}

// random returns 64 random bits.
func (r *Resolver) random() uint64 {
	if r.o.Rand == nil {
		return rand.Uint64()
	}
	r.rand.Lock()
	defer r.rand.Unlock()
	return r.rand.source.Uint64()
}

// shuffle puts s into random order.
func shuffle[T any](r *Resolver, s []T) {
	for i := len(s) - 1; i > 0; i-- {
		j, _ := bits.Mul64(r.random(), uint64(i+1))
		s[i], s[j] = s[j], s[i]
	}
}
