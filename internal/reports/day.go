package reports

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/godwit-mta/godwit/internal/dns"
	"github.com/godwit-mta/godwit/internal/store"
	"github.com/godwit-mta/godwit/mailauth/tlsrpt"
)

// What is below openPrefix is counts of days that are not over, by begin and domain; below outPrefix reports that are made, by the id of
// the report.
const (
	openPrefix = "reports/tls/open/"
	outPrefix  = "reports/tls/out/"
)

// open is a tally as the store keeps it.
type open struct {
	Start    time.Time       `json:"start"`
	Policies []tlsrpt.Policy `json:"policies"`
	Omitted  bool            `json:"omitted,omitempty"`
}

func (k tallyKey) store() string {
	return openPrefix + strconv.FormatInt(k.day.Unix(), 10) + "/" + k.domain
}

func parseTallyKey(key string) (tallyKey, bool) {
	day, domain, ok := strings.Cut(strings.TrimPrefix(key, openPrefix), "/")
	n, err := strconv.ParseInt(day, 10, 64)
	return tallyKey{time.Unix(n, 0).UTC(), domain}, ok && err == nil
}

// load reads what the last process left.
func (r *Reports) load(ctx context.Context) error {
	r.tallies.m = make(map[tallyKey]*tally)
	for kv, err := range r.o.Store.Scan(ctx, openPrefix) {
		if err != nil {
			return fmt.Errorf("reports: %w", err)
		}
		key, ok := parseTallyKey(kv.Key)
		var o open
		if err := json.Unmarshal(kv.Value, &o); err != nil || !ok {
			r.log.Warn("counts for a TLS report cannot be read", "key", kv.Key, "error", err)
			continue
		}
		c := &tally{start: o.Start, policies: o.Policies, omitted: o.Omitted, stored: true}
		c.measure()
		r.tallies.m[key] = c
		r.tallies.octets += c.octets
	}
	r.due.m, r.due.busy = make(map[string]time.Time), make(map[string]bool)
	for kv, err := range r.o.Store.Scan(ctx, outPrefix) {
		if err != nil {
			return fmt.Errorf("reports: %w", err)
		}
		var out outgoing
		if err := json.Unmarshal(kv.Value, &out); err != nil {
			r.log.Warn("a TLS report cannot be read", "key", kv.Key, "error", err)
			continue
		}
		if out.State == waiting {
			r.due.m[out.ID] = out.Next
		}
		key := tallyKey{out.Start.UTC().Truncate(r.o.Day), out.Domain}
		if c := r.tallies.m[key]; c == nil && out.End.Before(key.day.Add(r.o.Day)) || c != nil && c.start.Before(out.End) && len(c.policies) == 0 {
			r.tallies.m[key] = &tally{start: out.End} // a part of the day was told before its end
		}
	}
	return nil
}

// lookups is how many domains are asked at once whether they want reports.
const lookups = 4

// lookUp finds out which domains want reports, and forgets the counts of those that do not. Those that give no answer are
// asked again.
func (r *Reports) lookUp(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, max(r.o.Flush, time.Second)) // the next time goes on
	defer cancel()
	ask := make(map[string][]tallyKey)
	r.tallies.mu.Lock()
	for k, c := range r.tallies.m {
		if c.wanted == unknown {
			ask[k.domain] = append(ask[k.domain], k)
		}
	}
	r.tallies.mu.Unlock()
	next := make(chan string)
	var askers sync.WaitGroup
	for range min(lookups, len(ask)) {
		askers.Go(func() {
			for domain := range next {
				if ctx.Err() == nil {
					r.learn(ask[domain], r.wants(ctx, domain))
				}
			}
		})
	}
	for domain := range ask {
		next <- domain
	}
	close(next)
	askers.Wait()
}

func (r *Reports) wants(ctx context.Context, domain string) wanted {
	_, err := r.record(ctx, domain)
	var fault *dns.Error
	switch {
	case err == nil:
		return wants
	case errors.As(err, &fault) && (fault.Kind == dns.Temporary || fault.Kind == dns.Loop), ctx.Err() != nil:
		return unknown
	}
	return wantsNot
}

// record returns what a domain publishes. The error is a *dns.Error, or one of package tlsrpt.
func (r *Reports) record(ctx context.Context, domain string) (*tlsrpt.Record, error) {
	if strings.HasPrefix(domain, "[") {
		return nil, tlsrpt.ErrNoRecord
	}
	txt, err := r.o.Resolver.LookupTXT(ctx, tlsrpt.RecordName(domain))
	var fault *dns.Error
	if errors.As(err, &fault) && (fault.Kind == dns.NXDomain || fault.Kind == dns.NoRecord || fault.Kind == dns.Malformed) {
		return nil, tlsrpt.ErrNoRecord
	}
	if err != nil {
		return nil, err
	}
	return tlsrpt.ParseRecord(txt.Records)
}

// learn notes what was found out of a domain.
func (r *Reports) learn(list []tallyKey, w wanted) {
	t := &r.tallies
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range list {
		c := t.m[k]
		if c == nil || c.wanted != unknown {
			continue // a report meanwhile
		}
		if c.wanted = w; w == wantsNot {
			t.octets -= c.octets
			c.policies, c.octets, c.failures = nil, 0, 0
			c.dirty = c.stored // to be removed from the store
		}
	}
}

// perBatch is how many counts are written in one step.
const perBatch = 200

// flush writes down what has changed. What a crash leaves behind is the counts as of the last flush.
func (r *Reports) flush(ctx context.Context) error {
	done, err := r.hold(ctx)
	if err != nil {
		return err
	}
	defer done()
	return r.flushHeld(ctx)
}

func (r *Reports) flushHeld(ctx context.Context) error {
	for {
		var b store.Batch
		written, size := r.changed(&b)
		if len(written) == 0 {
			return nil
		}
		if _, err := r.o.Store.Apply(ctx, &b); err != nil {
			r.tallies.mu.Lock()
			for _, c := range written {
				c.dirty = true
			}
			r.tallies.mu.Unlock()
			return fmt.Errorf("write %d octets of counts: %w", size, err)
		}
	}
}

// changed puts some of what has changed into a batch.
func (r *Reports) changed(b *store.Batch) (written []*tally, size int) {
	t := &r.tallies
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, c := range t.m {
		if !c.dirty {
			continue
		}
		if c.wanted == wantsNot {
			b.Delete(k.store())
			c.stored = false
		} else {
			p, err := json.Marshal(&open{Start: c.start, Policies: c.policies, Omitted: c.omitted})
			if err != nil || len(p) > maxValue {
				c.dirty = false
				r.log.Warn("counts for a TLS report are too large to be kept", "domain", k.domain, "error", err)
				continue
			}
			b.Put(k.store(), p)
			c.stored = true
			size += len(p)
		}
		c.dirty = false
		if written = append(written, c); len(written) == perBatch || size > store.MaxBatch/4 {
			return written, size
		}
	}
	return written, size
}

// closeDays makes reports of the counts of days that are over.
func (r *Reports) closeDays(ctx context.Context, now time.Time) error {
	done, err := r.hold(ctx)
	if err != nil {
		return err
	}
	defer done()
	return r.closeHeld(ctx, func(k tallyKey) (end time.Time, ok bool) {
		return k.day.Add(r.o.Day), !now.Before(r.over(k.day))
	}, r.spread)
}

// closeHeld makes a report of each tally that over says is over and when, due as delay says.
func (r *Reports) closeHeld(ctx context.Context, over func(tallyKey) (time.Time, bool), delay func(id string) time.Duration) error {
	type closing struct {
		key   tallyKey
		tally *tally
		end   time.Time
	}
	var list []closing
	t := &r.tallies
	t.mu.Lock()
	for k, c := range t.m {
		if end, ok := over(k); ok {
			list = append(list, closing{k, c, end})
			delete(t.m, k)
			t.octets -= c.octets
			if end.Before(k.day.Add(r.o.Day)) {
				t.m[k] = &tally{start: end, wanted: c.wanted} // the rest of the day is another report
			}
		}
	}
	t.mu.Unlock()
	for i := range list {
		if err := r.makeReport(ctx, list[i].key, list[i].tally, list[i].end, delay); err != nil {
			t.mu.Lock()
			for _, c := range list[i:] {
				if old := t.m[c.key]; old != nil {
					t.octets -= old.octets // the few results that came meanwhile are not worth a merge
				}
				t.m[c.key] = c.tally
				t.octets += c.tally.octets
			}
			t.mu.Unlock()
			return err
		}
	}
	return nil
}

// makeReport turns counts into a report to be sent. In the store one takes the place of the other in one step.
func (r *Reports) makeReport(ctx context.Context, k tallyKey, c *tally, end time.Time, delay func(string) time.Duration) error {
	var b store.Batch
	if c.stored {
		b.Delete(k.store())
	}
	var out *outgoing
	if c.wanted != wantsNot && len(c.policies) > 0 {
		id := r.reportID(k, c)
		due := end.Add(delay(id))
		out = &outgoing{
			ID: id, Domain: k.domain, Start: c.start, End: end, Policies: c.policies, Omitted: c.omitted,
			State: waiting, Next: due, GiveUp: due.Add(r.o.GiveUp),
		}
		p, err := json.Marshal(out)
		if err != nil {
			return err
		}
		b.Expect(outPrefix+out.ID, 0)
		b.Put(outPrefix+out.ID, p)
	} else if !c.stored {
		return nil
	}
	_, err := r.o.Store.Apply(ctx, &b)
	if errors.Is(err, store.ErrConflict) {
		r.log.Warn("results came after their day's TLS report was made", "domain", k.domain)
		return nil
	}
	if err != nil {
		return err
	}
	if out != nil {
		r.due.put(out.ID, out.Next)
	}
	return nil
}

// spread is how long after its day a report goes out: it differs between servers and domains, and is the same after a restart.
func (r *Reports) spread(id string) time.Duration {
	if r.o.Spread == 0 {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(id)) // cannot fail
	return time.Duration(h.Sum64() % uint64(r.o.Spread))
}
