package limits

import (
	"container/list"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/godwit-mta/godwit/internal/store"
)

// Config is the numbers of the configuration file.
type Config struct {
	Tenant     Quota // of each tenant without its own
	Credential Quota // of each credential without its own
	Client     Quota
	Tenants    map[string]Quota // by id, whole: nothing is taken from Tenant

	// Where these come from, for people.
	Sources map[string]string
}

// Options make a Limiter.
type Options struct {
	Config     Config
	Store      store.Store // keeps hours and days over a restart; nil: nothing does
	Holders    int         // of each kind that are remembered at once; 0 is 100,000
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Limiter counts and refuses. It is safe for concurrent use.
type Limiter struct {
	opts    Options
	config  atomic.Pointer[Config]
	tables  [kinds]table
	metrics *metrics
}

type table struct {
	mu struct {
		sync.Mutex
		holders map[string]*list.Element
		recent  *list.List // of *holder, the latest first
		gone    []string   // keys of the store whose holders were forgotten
	}
}

// holder is what one sender has used.
type holder struct {
	kind Kind
	name string

	mu struct {
		sync.Mutex
		used    [subjects][spans]window // Unique stays empty
		unique  [spans]*uniques
		refused [subjects][spans]int64 // since the start
		set     Quota                  // as it was when it was last asked, to explain
		source  string
		dirty   bool      // something was counted since it was written
		written time.Time // to the store; zero: it is not there
	}
}

// New checks the options and returns a Limiter that has counted what the store remembers.
func New(o Options) (*Limiter, error) {
	if o.Holders == 0 {
		o.Holders = 100_000
	}
	if o.Holders < 0 {
		return nil, errors.New("limits: the number of holders is negative")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	m, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, fmt.Errorf("limits: metrics: %w", err)
	}
	l := &Limiter{opts: o, metrics: m}
	for k := range l.tables {
		l.tables[k].mu.holders = make(map[string]*list.Element)
		l.tables[k].mu.recent = list.New()
	}
	l.SetConfig(o.Config)
	return l, nil
}

// SetConfig replaces the numbers; what was counted stays.
func (l *Limiter) SetConfig(c Config) { l.config.Store(&c) }

// Amount is what one message takes.
type Amount struct {
	Messages, Recipients, Bytes int64
	Unique                      []uint64 // Hash of each recipient
}

func (a *Amount) of(s Subject) int64 {
	switch s {
	case Messages:
		return a.Messages
	case Recipients:
		return a.Recipients
	case Bytes:
		return a.Bytes
	}
	return 0
}

// Refusal says which limit stands in the way.
type Refusal struct {
	Kind      Kind
	Name      string
	Subject   Subject
	Span      Span
	Used, Max int64
	Source    string
	Room      time.Time // when there will be room
	Permanent bool      // the configuration wants a used-up day refused for good
}

// Error says it for the log.
func (r *Refusal) Error() string {
	return fmt.Sprintf("%s %s has used %d of %s %d (%s), room at %s", r.Kind, r.Name, r.Used, Name(r.Subject, r.Span), r.Max, r.Source,
		r.Room.UTC().Format(time.RFC3339))
}

// Taken is what a Take has counted.
type Taken struct {
	limiter *Limiter
	holders [kinds]*holder
	at      time.Time
	amount  Amount
}

// ClientName returns the name of a client's holder.
func ClientName(a netip.Addr) string {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		p, _ := a.Prefix(64)
		return p.String()
	}
	return a.String()
}

// Take counts an amount for every holder, or for none and says who has no room. Each kind may occur once.
func (l *Limiter) Take(sets []LimitSet, a Amount) (Taken, *Refusal) {
	now := time.Now()
	t := Taken{limiter: l, at: now, amount: a}
	cfg := l.config.Load()
	for i := range sets {
		s := &sets[i]
		if !s.valid() {
			continue
		}
		quota, source := effective(cfg, s)
		if s.Kind == Client && quota == (Quota{}) {
			continue // nothing to count: an address is remembered only if somebody limits it
		}
		h := l.holder(s.Kind, s.Name)
		if r := h.take(&quota, source, &a, now); r != nil {
			t.Undo()
			l.metrics.refused[r.Kind].Inc()
			return Taken{}, r
		}
		t.holders[s.Kind] = h
	}
	return t, nil
}

// Check says whether there would be room for an amount, without counting it. Messages are asked before they are sent, so
// that they need not be sent in vain.
func (l *Limiter) Check(sets []LimitSet, a Amount) *Refusal {
	now := time.Now()
	cfg := l.config.Load()
	for i := range sets {
		s := &sets[i]
		quota, source := effective(cfg, s)
		if !s.valid() || !quota.any() {
			continue
		}
		h := l.holder(s.Kind, s.Name)
		h.mu.Lock()
		h.mu.set, h.mu.source = quota, source
		r := h.checkLocked(&quota, source, &a, now)
		h.mu.Unlock()
		if r != nil {
			l.metrics.refused[r.Kind].Inc()
			return r
		}
	}
	return nil
}

func (q *Quota) any() bool {
	for s := range q.Max {
		for _, n := range q.Max[s] {
			if n > 0 {
				return true
			}
		}
	}
	return false
}

// effective joins what was set for a holder with what the configuration says.
func effective(cfg *Config, s *LimitSet) (Quota, string) {
	wider, source := &cfg.Client, "quotas.client"
	switch s.Kind {
	case Tenant:
		wider, source = &cfg.Tenant, "quotas.tenant"
		if own, ok := cfg.Tenants[s.Name]; ok {
			wider, source = &own, "tenants["+s.Name+"].quota"
		}
	case Credential:
		wider, source = &cfg.Credential, "quotas.credential"
	}
	if s.Source != "" {
		source = s.Source
	}
	return s.Quota.over(wider), source
}

// holder finds or makes the counters of a name.
func (l *Limiter) holder(k Kind, name string) *holder {
	t := &l.tables[k]
	t.mu.Lock()
	defer t.mu.Unlock()
	if e, ok := t.mu.holders[name]; ok {
		t.mu.recent.MoveToFront(e)
		return e.Value.(*holder)
	}
	for len(t.mu.holders) >= l.opts.Holders {
		oldest := t.mu.recent.Back()
		gone := t.mu.recent.Remove(oldest).(*holder)
		delete(t.mu.holders, gone.name)
		if gone.isStored() && len(t.mu.gone) < stored {
			t.mu.gone = append(t.mu.gone, gone.key())
		}
		l.metrics.forgotten.Inc()
	}
	h := &holder{kind: k, name: name}
	t.mu.holders[name] = t.mu.recent.PushFront(h)
	return h
}

// checkLocked finds the first limit that an amount would exceed.
func (h *holder) checkLocked(q *Quota, source string, a *Amount, now time.Time) *Refusal {
	for s := range subjects {
		for p := range spans {
			most := q.Max[s][p]
			if most <= 0 {
				continue
			}
			used, need := h.usedLocked(s, p, a, now)
			if used+need <= most {
				continue
			}
			h.mu.refused[s][p]++
			return &Refusal{
				Kind: h.kind, Name: h.name, Subject: s, Span: p, Used: used, Max: most, Source: source,
				Room: h.roomLocked(s, p, need, most), Permanent: p == Day && q.RefuseDay,
			}
		}
	}
	return nil
}

// usedLocked returns what is used of a limit and what the amount would add.
func (h *holder) usedLocked(s Subject, p Span, a *Amount, now time.Time) (used, need int64) {
	if s != Unique {
		w := &h.mu.used[s][p]
		w.move(p, partOf(p, now))
		return w.sum(), a.of(s)
	}
	u := h.mu.unique[p]
	if u == nil {
		u = new(uniques)
		h.mu.unique[p] = u
	}
	u.move(sixthOf(p, now))
	used, need = u.count(a.Unique)
	if u.sketch != nil && len(a.Unique) > 0 {
		need = 1 // a sketch cannot say who is new
	}
	return used, need
}

// roomLocked returns when need more will fit below most.
func (h *holder) roomLocked(s Subject, p Span, need, most int64) time.Time {
	if s == Unique {
		return h.mu.unique[p].room(p)
	}
	return h.mu.used[s][p].room(p, need, most)
}

func (h *holder) take(q *Quota, source string, a *Amount, now time.Time) *Refusal {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.set, h.mu.source = *q, source
	if r := h.checkLocked(q, source, a, now); r != nil {
		return r
	}
	for s := range subjects {
		for p := range spans {
			switch {
			case s == Unique && q.Max[s][p] > 0:
				h.mu.unique[p].add(a.Unique)
			case s == Unique:
				h.mu.unique[p] = nil // nobody asks any more
			case h.kind != Client || q.Max[s][p] > 0:
				h.mu.used[s][p].move(p, partOf(p, now))
				h.mu.used[s][p].add(p, a.of(s))
			}
		}
	}
	h.mu.dirty = true
	return nil
}

// Undo gives back what was taken for a message that was not accepted. Different recipients stay counted.
func (t *Taken) Undo() {
	for _, h := range t.holders {
		if h == nil {
			continue
		}
		h.mu.Lock()
		for s := range Unique {
			for p := range spans {
				if w := &h.mu.used[s][p]; w.count != nil {
					w.undo(p, partOf(p, t.at), t.amount.of(s))
				}
			}
		}
		h.mu.Unlock()
	}
	*t = Taken{}
}
