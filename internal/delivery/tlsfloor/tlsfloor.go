// Package tlsfloor remembers mail hosts whose sessions used to be encrypted, so that the day on which TLS is suddenly gone
// does not pass in silence.
//
// Opportunistic TLS (RFC 7435) goes on in the clear where TLS cannot be had, and whoever sits on the way can take the
// offer of STARTTLS out of a dialog. For hosts that never published anything about it (MTA-STS, DANE) there is no proof
// against that on first sight, but there is experience: a host that had TLS on several days, and never was without, has a
// floor. If TLS is missing there, mail waits for some hours (reason tls_downgrade, with retries as usual). If it comes
// back, nothing has happened. If it does not, the floor is given up with a warning, a metric and an entry in the audit
// log, and mail goes in the clear; or it goes on waiting, as configured.
//
// Floors are kept for each host (the name in the MX record) and not for domains or sites: it is the host that does or does
// not do TLS, a second host without TLS costs its domain nothing, and a domain that moves to other hosts takes no floor
// along. Hosts of routes have none, since a route says what it demands.
//
//	f, err := tlsfloor.New(ctx, tlsfloor.Options{Store: store})
//	go f.Run(ctx)                       // writes what was learnt, forgets what is old
//	f.Worked("mx1.example.com")
//	if f.Missing("mx1.example.com", "does not offer STARTTLS") { ... } // wait
package tlsfloor

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/godwit-mta/godwit/internal/store"
)

// Settings say when a floor is there, and what it does. Zero values mean the defaults named beside each field.
type Settings struct {
	Off  bool          // nothing is learnt, nothing waits
	Days int           // different days with TLS, and none without, until a host has a floor; 3
	Hold time.Duration // how long mail waits for TLS to come back; 4 h
	// Forever lets mail wait until it expires, or an operator resets the floor, instead of going in the clear after Hold.
	Forever bool
	Forget  time.Duration // how long after the last session over TLS a host is forgotten; 30 d
}

func (s Settings) withDefaults() Settings {
	s.Days = cmp.Or(s.Days, 3)
	s.Hold = cmp.Or(s.Hold, 4*time.Hour)
	s.Forget = cmp.Or(s.Forget, 30*24*time.Hour)
	return s
}

// Options make Floors. Store is required.
type Options struct {
	Store    store.Store // keys below "tlsfloor/"
	Settings Settings
	Max      int // hosts remembered, 100,000: no more are learnt then
	// GivenUp is told of a floor that is given up: mail goes in the clear from now on. It must not block.
	GivenUp func(Floor)

	Logger     *slog.Logger          // nil discards
	Registerer prometheus.Registerer // nil registers nothing
}

// Floor is what is remembered of one host.
type Floor struct {
	Host  string    `json:"host"`
	Days  int       `json:"days"`  // different days with TLS, counted up to the number that makes a floor
	Since time.Time `json:"since"` // first session over TLS of this series
	Last  time.Time `json:"last"`  // a session over TLS on the last day with one
	// Missing is when TLS was first found missing, zero if it is there; Seen when it was last; Why in words.
	Missing time.Time `json:"missing,omitzero"`
	Seen    time.Time `json:"seen,omitzero"`
	Why     string    `json:"why,omitempty"`
}

// Floors remembers hosts. It is safe for concurrent use.
type Floors struct {
	o       Options
	metrics metrics

	mu struct {
		sync.Mutex
		settings Settings
		hosts    map[string]*Floor
		dirty    map[string]struct{} // to be written
	}
}

const prefix = "tlsfloor/"

// New reads what the store holds.
func New(ctx context.Context, o Options) (*Floors, error) {
	if o.Store == nil {
		return nil, errors.New("tlsfloor: no store")
	}
	o.Max = cmp.Or(o.Max, 100_000)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	f := &Floors{o: o}
	f.mu.settings = o.Settings.withDefaults()
	f.mu.hosts, f.mu.dirty = make(map[string]*Floor), make(map[string]struct{})
	for kv, err := range o.Store.Scan(ctx, prefix) {
		if err != nil {
			return nil, fmt.Errorf("tlsfloor: read: %w", err)
		}
		host := strings.TrimPrefix(kv.Key, prefix)
		one := new(Floor)
		if err := json.Unmarshal(kv.Value, one); err != nil || one.Host != host {
			o.Logger.Warn("a remembered TLS floor cannot be read and is forgotten", slog.String("host", host))
			f.mu.dirty[host] = struct{}{}
			continue
		}
		f.mu.hosts[host] = one
	}
	f.metrics = newMetrics(o.Registerer, f.counts)
	return f, nil
}

// SetSettings puts other settings in place.
func (f *Floors) SetSettings(s Settings) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.settings = s.withDefaults()
}

// established reports whether a host has a floor.
func (f *Floor) established(s *Settings) bool { return f.Days >= s.Days }

// Worked notes a session over TLS.
func (f *Floors) Worked(host string) { f.worked(host, time.Now().UTC()) }

func (f *Floors) worked(host string, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &f.mu.settings
	if s.Off {
		return
	}
	one := f.mu.hosts[host]
	if one == nil {
		if len(f.mu.hosts) >= f.o.Max {
			return
		}
		one = &Floor{Host: host, Since: now}
		f.mu.hosts[host] = one
	}
	if one.Missing.IsZero() && sameDay(one.Last, now) {
		return
	}
	if !one.Missing.IsZero() {
		one.Missing, one.Seen, one.Why = time.Time{}, time.Time{}, ""
		f.o.Logger.Info("TLS is back at a mail host", slog.String("host", host))
	}
	if !sameDay(one.Last, now) {
		one.Days = min(one.Days+1, s.Days)
	}
	one.Last = now
	f.mu.dirty[host] = struct{}{}
}

func sameDay(a, b time.Time) bool {
	const day = 24 * time.Hour
	return a.Truncate(day).Equal(b.Truncate(day))
}

// Missing notes that TLS could not be had at a host. wait says that it has a floor, and must not be used in the clear yet.
func (f *Floors) Missing(host, why string) (wait bool) { return f.missing(host, why, time.Now().UTC()) }

func (f *Floors) missing(host, why string, now time.Time) (wait bool) {
	f.mu.Lock()
	s := f.mu.settings
	one := f.mu.hosts[host]
	if s.Off || one == nil {
		f.mu.Unlock()
		return false
	}
	if !one.established(&s) { // it does not always have TLS: to be learnt anew
		f.dropLocked(host)
		f.mu.Unlock()
		return false
	}
	// Who looks for the first time in days has not seen TLS missing all that time.
	if one.Missing.IsZero() || now.Sub(one.Seen) > max(2*s.Hold, time.Hour) {
		one.Missing = now
		f.metrics.missing.Inc()
		f.o.Logger.Warn("TLS is gone at a mail host that used to have it: mail waits", slog.String("host", host),
			slog.String("why", why), slog.Duration("for", s.Hold), slog.Bool("forever", s.Forever))
	}
	one.Seen, one.Why = now, clip(why)
	f.mu.dirty[host] = struct{}{}
	if s.Forever || now.Sub(one.Missing) < s.Hold {
		f.mu.Unlock()
		return true
	}
	gone := *one
	f.dropLocked(host)
	f.mu.Unlock()
	f.metrics.givenUp.Inc()
	f.o.Logger.Error("TLS has not come back at a mail host that used to have it: mail goes there in the clear from now on",
		slog.String("host", host), slog.String("why", why), slog.Time("last_encrypted", gone.Last))
	if f.o.GivenUp != nil {
		f.o.GivenUp(gone)
	}
	return false
}

func clip(s string) string { return strings.ToValidUTF8(s[:min(len(s), 300)], "") }

func (f *Floors) dropLocked(host string) {
	delete(f.mu.hosts, host)
	f.mu.dirty[host] = struct{}{}
}

// List returns the hosts that have a floor, and with all those that are still being learnt, in the order of their names.
func (f *Floors) List(all bool) []Floor {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := []Floor{}
	for _, one := range f.mu.hosts {
		if all || one.established(&f.mu.settings) {
			list = append(list, *one)
		}
	}
	slices.SortFunc(list, func(a, b Floor) int { return cmp.Compare(a.Host, b.Host) })
	return list
}

// Reset forgets a host, or all of them if host is empty, durably, and returns what was known of them.
func (f *Floors) Reset(ctx context.Context, host string) ([]Floor, error) {
	f.mu.Lock()
	list := []Floor{}
	for name, one := range f.mu.hosts {
		if host == "" || name == host {
			list = append(list, *one)
			f.dropLocked(name)
		}
	}
	f.mu.Unlock()
	slices.SortFunc(list, func(a, b Floor) int { return cmp.Compare(a.Host, b.Host) })
	return list, f.write(ctx)
}

// Run writes what was learnt every few seconds, forgets what is old, and writes once more when ctx ends.
func (f *Floors) Run(ctx context.Context) error {
	const often = 10 * time.Second
	tick := time.NewTicker(often)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			f.forget(time.Now())
			if err := f.write(ctx); err != nil && ctx.Err() == nil {
				f.o.Logger.Warn("TLS floors cannot be written, they are tried again", slog.Any("error", err))
			}
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), often)
			defer cancel()
			return f.write(last)
		}
	}
}

func (f *Floors) forget(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, one := range f.mu.hosts {
		if now.Sub(one.Last) > f.mu.settings.Forget {
			f.dropLocked(name)
		}
	}
}

// maxWrite bounds the keys of one batch.
const maxWrite = 1000

// write makes durable what has changed. What cannot be written stays to be.
func (f *Floors) write(ctx context.Context) error {
	for {
		b := new(store.Batch)
		f.mu.Lock()
		taken := make([]string, 0, min(len(f.mu.dirty), maxWrite))
		for host := range f.mu.dirty {
			if len(taken) == maxWrite {
				break
			}
			taken = append(taken, host)
			if one := f.mu.hosts[host]; one == nil {
				b.Delete(prefix + host)
			} else if value, err := json.Marshal(one); err == nil { // times and strings always can
				b.Put(prefix+host, value)
			}
		}
		for _, host := range taken {
			delete(f.mu.dirty, host)
		}
		f.mu.Unlock()
		if len(taken) == 0 {
			return nil
		}
		if _, err := f.o.Store.Apply(ctx, b); err != nil {
			f.mu.Lock()
			for _, host := range taken {
				f.mu.dirty[host] = struct{}{}
			}
			f.mu.Unlock()
			return fmt.Errorf("tlsfloor: write: %w", err)
		}
	}
}

// counts returns how many hosts have a floor, and at how many of them TLS is missing now.
func (f *Floors) counts() (floors, missing int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, one := range f.mu.hosts {
		if one.established(&f.mu.settings) {
			floors++
			if !one.Missing.IsZero() {
				missing++
			}
		}
	}
	return floors, missing
}
