package keyring

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
	"sync"
	"time"

	"github.com/godwit-mta/godwit/internal/store"
)

// tending is how many keys are looked after at once.
const tending = 8

// Run follows the store, checks and publishes records, and moves keys on, until ctx ends. It returns an error if the store
// fails.
func (k *Keyring) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, p := range []string{prefix, seenPrefix} {
		wg.Go(func() {
			if err := k.follow(ctx, p); err != nil {
				cancel(err)
			}
		})
	}
	for ctx.Err() == nil {
		k.wait(ctx, k.round(ctx))
	}
	wg.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// wait returns when something is due, or may be. The clock can be set, which timers do not notice: so it is looked at often.
func (k *Keyring) wait(ctx context.Context, next time.Time) {
	k.mu.RLock()
	// To look through very many keys takes time, so it is done less often.
	least := max(time.Duration(len(k.mu.records))*100*time.Microsecond, time.Millisecond)
	k.mu.RUnlock()
	for last := time.Now().Round(0); ; {
		pause := k.o.Times.Poll
		if !next.IsZero() {
			pause = min(time.Until(next.Round(0)), pause)
		}
		pause = max(pause, least)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-k.kick:
			timer.Stop()
			return
		case <-ctx.Done():
			timer.Stop()
			return
		}
		now := time.Now().Round(0) // by the wall clock
		if !next.IsZero() && !next.Round(0).After(now) || now.Before(last) {
			return
		}
		last = now
	}
}

// follow takes over what others change in the store.
func (k *Keyring) follow(ctx context.Context, p string) error {
	for c, err := range k.o.Store.Watch(ctx, p) {
		matters := false
		switch {
		case err != nil:
			return fmt.Errorf("keyring: follow %s: %w", p, err)
		case c.Current:
		case c.Deleted:
			matters = k.learn(c.Key, nil, c.Revision)
		default:
			matters = k.learn(c.Key, c.Value, c.Revision)
		}
		if matters {
			k.rebuild()
		}
	}
	return nil
}

// round does what is due and returns when the next thing will be.
func (k *Keyring) round(ctx context.Context) (next time.Time) {
	k.rotateOld(ctx)
	k.tidy(ctx)
	now := time.Now()
	var wg sync.WaitGroup
	turns := make(chan struct{}, tending)
	for _, r := range k.all() {
		if k.due(r, now).After(now) {
			continue
		}
		select {
		case turns <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-turns }()
			if err := k.tend(ctx, r); err != nil && ctx.Err() == nil {
				k.o.Logger.WarnContext(ctx, "a key could not be looked after", "domain", r.Domain, "selector", r.Selector, "error", err)
			}
		})
	}
	wg.Wait()
	now = time.Now()
	for _, r := range k.all() {
		if at := k.due(r, now); next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return next
}

// tend publishes a key's record if it has to be, looks at it, and moves the key on.
func (k *Keyring) tend(ctx context.Context, r *record) error {
	if at, is := k.unwritten(r, time.Now()); is && !at.After(time.Now()) {
		if err := k.write(ctx, r); err != nil && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if r = k.get(r.name()); r == nil {
			return nil
		}
	}
	s := k.look(ctx, r)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return k.judge(ctx, r, s)
}

// due returns when a key is to be looked after.
func (k *Keyring) due(r *record, now time.Time) time.Time {
	at := k.lookDue(r, now)
	if w, is := k.unwritten(r, now); is && w.Before(at) {
		at = w
	}
	return at
}

func (k *Keyring) lookDue(r *record, now time.Time) time.Time {
	t, set := &k.o.Times, k.settings()
	if r.Checked.IsZero() || r.Checked.After(now) { // never, or before the clock was set back
		return now
	}
	// The daily looks of many keys do not come together.
	daily := r.Checked.Add(t.Check - time.Duration(maphash.String(k.seed, r.name())%8)*t.Check/64)
	earlier := func(at time.Time) time.Time { // a moment that a step waits for, unless it is past and the look was after it
		if at.After(r.Checked) && at.Before(daily) {
			return at
		}
		return daily
	}
	switch {
	case r.State == Created || r.State == Published:
		switch age := now.Sub(r.Created); {
		case r.Written != "" && now.Sub(r.WrittenAt) < 5*t.Eager: // name servers have it in seconds
			return r.Checked.Add(t.Eager / 10)
		case age < 60*t.Eager:
			return r.Checked.Add(t.Eager)
		case age < 3*t.Check:
			return r.Checked.Add(10 * t.Eager)
		}
		return r.Checked.Add(t.Check / 24)
	case r.State == Revoked && r.Problem != "":
		return r.Checked.Add(t.Again)
	case r.State == Revoked:
		return earlier(r.Revoked.Add(t.Keep))
	case !r.Doubt.IsZero() && r.Bad.IsZero():
		return r.Checked.Add(t.Confirm)
	case !r.Doubt.IsZero() || !r.Unknown.IsZero():
		return r.Checked.Add(t.Again)
	case r.State == Verified:
		return earlier(r.Verified.Add(set.Settle))
	case r.State == Retiring:
		return earlier(r.Retired.Add(set.RetireAfter))
	}
	return daily
}

// Prepare looks at the records that nobody has looked at yet, so that the first message is signed too: of keys that are new in
// the configuration. It is called before mail is taken, and ends with ctx.
func (k *Keyring) Prepare(ctx context.Context) {
	var wg sync.WaitGroup
	for _, r := range k.all() {
		if r.State == Signing && r.Checked.IsZero() {
			wg.Go(func() {
				if err := k.tend(ctx, r); err != nil {
					k.o.Logger.WarnContext(ctx, "the record of a key was not looked at", "domain", r.Domain, "selector", r.Selector, "error", err)
				}
			})
		}
	}
	wg.Wait()
}

// rotateOld makes new keys where those that sign are old enough.
func (k *Keyring) rotateOld(ctx context.Context) {
	every := k.settings().RotateEvery
	if every <= 0 {
		return
	}
	now := time.Now()
	old := make(map[lane]bool)
	busy := make(map[lane]bool)
	for _, r := range k.all() {
		switch {
		case r.Static:
		case r.State == Signing && now.Sub(r.Activated) >= every:
			old[r.lane()] = true
		case r.pending():
			busy[r.lane()] = true
		}
	}
	for l := range old {
		if busy[l] {
			continue
		}
		k.o.Logger.InfoContext(ctx, "a key is old enough to be replaced", "domain", l.domain, "tenant", l.tenant, "algorithm", l.algorithm)
		if _, err := k.mint(ctx, l, "", true); err != nil && ctx.Err() == nil {
			k.o.Logger.ErrorContext(ctx, "no new key could be made", "domain", l.domain, "tenant", l.tenant, "error", err)
		}
	}
}

// tidy forgets what DNS said of keys that are not in the configuration any more, and takes private keys out of files once what
// is kept is encrypted.
func (k *Keyring) tidy(ctx context.Context) {
	end, err := k.begin(ctx)
	if err != nil {
		return
	}
	defer end()
	var b store.Batch
	var left, clear []*record
	k.mu.RLock()
	for name, r := range k.mu.seen {
		if now := k.mu.records[name]; now == nil || !now.Static {
			left = append(left, r)
		}
	}
	for _, r := range k.mu.records {
		if r.File != "" && k.o.Sealer != nil && k.o.Sealer.Sealing() {
			clear = append(clear, r)
		}
	}
	k.mu.RUnlock()
	for _, r := range left {
		b.Expect(r.key(), r.revision)
		b.Delete(r.key())
	}
	if len(left) > 0 {
		if err := k.apply(ctx, &b); err != nil && ctx.Err() == nil {
			k.o.Logger.WarnContext(ctx, "what is known of keys that are gone stays", "error", err)
		}
	}
	for _, r := range clear {
		key, err := k.fetch(r)
		if err == nil {
			n := *r
			n.File = ""
			if err = k.keep(&n, key); err == nil {
				err = k.replace(ctx, false, &n)
			}
		}
		if err != nil && ctx.Err() == nil {
			k.o.Logger.WarnContext(ctx, "a private key stays in its file, though what is kept is encrypted", "domain", r.Domain,
				"selector", r.Selector, "error", strings.TrimPrefix(err.Error(), "keyring: "))
		}
	}
}
