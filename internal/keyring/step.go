package keyring

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/godwit-mta/godwit/internal/store"
)

// view is what a key's next step depends on besides itself.
type view struct {
	Settings
	now     time.Time
	keep    time.Duration // of records that say revoked
	peers   []*record     // the others of its lane
	instead bool          // it signs in place of another one
	covered bool          // the publisher writes its record
}

// step moves a key on after a look at DNS, as far as it goes. It returns the others that it moves with it, and whether the key
// is to be forgotten.
func (r *record) step(s sighting, v *view) (others []*record, forget bool) {
	if r.Static {
		return nil, false
	}
	if r.State == Created && s.count(matches) > 0 {
		r.State, r.Published = Published, v.now
	}
	if r.State == Published && s.everywhere() {
		r.State, r.Verified = Verified, v.now
	}
	if r.State == Verified {
		if s.contradicts() {
			r.State, r.Verified = Published, time.Time{}
		} else if s.everywhere() && r.turn(v) {
			others = r.activate(v)
		}
	}
	switch {
	case r.State == Retiring && v.instead:
		r.Retired = v.now
	case r.State == Retiring && v.now.Sub(r.Retired) >= v.RetireAfter:
		r.revoke(v.now)
	case r.State == Revoked && s.gone():
		forget = !v.covered || r.Written == "" || r.Written == removed && v.now.Sub(r.Revoked) >= v.keep
	}
	return others, forget
}

// turn says that a verified key is to sign: nobody of its lane does, or all have had time to see its record. A key that is older
// than the one that signs waits to be activated by hand.
func (r *record) turn(v *view) bool {
	alone := true
	for _, p := range v.peers {
		if p.State == Signing {
			alone = false
			if !p.Static && p.Created.After(r.Created) {
				return false
			}
		}
	}
	return alone || v.now.Sub(r.Verified) >= v.Settle
}

// activate lets a key sign and returns those of its lane that retire.
func (r *record) activate(v *view) (retired []*record) {
	r.State, r.Activated = Signing, v.now
	for _, p := range v.peers {
		if p.State == Signing && !p.Static {
			n := *p
			n.State, n.Retired = Retiring, v.now
			retired = append(retired, &n)
		}
	}
	return retired
}

// revoke ends a key. Its private key goes with the next write.
func (r *record) revoke(now time.Time) {
	r.State, r.Revoked, r.Problem = Revoked, now, ""
	r.Doubt, r.Bad, r.Unknown = time.Time{}, time.Time{}, time.Time{}
	r.Sealed, r.File = nil, ""
}

// view collects what a key's step depends on.
func (k *Keyring) view(r *record) *view {
	v := &view{now: time.Now(), keep: k.o.Times.Keep, covered: k.covers(r), instead: k.now.Load().instead[r.name()]}
	k.mu.RLock()
	defer k.mu.RUnlock()
	v.Settings = k.mu.settings
	for _, p := range k.mu.records {
		if p.lane() == r.lane() && p.name() != r.name() {
			v.peers = append(v.peers, p)
		}
	}
	return v
}

func (k *Keyring) covers(r *record) bool {
	return k.o.Publisher != nil && k.o.Publisher.Covers(r.dnsName())
}

// judge writes down what DNS showed of a key, and moves it on.
func (k *Keyring) judge(ctx context.Context, checked *record, s sighting) error {
	end, err := k.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	r := k.get(checked.name())
	if r == nil || string(r.Public) != string(checked.Public) || r.State != checked.State {
		return nil // what was looked for is not what there is now
	}
	n, v := *r, k.view(r)
	line := n.note(s, v.now, &k.o.Times)
	others, forget := n.step(s, v)
	if line != "" {
		level := slog.LevelInfo
		if !n.Bad.IsZero() {
			level = slog.LevelError
		}
		k.o.Logger.Log(ctx, level, line, "domain", n.Domain, "selector", n.Selector, "found", n.Problem)
	}
	return k.replace(ctx, forget, append(others, &n)...)
}

// replace writes records in place of those they were made from, and logs which have changed their state. With forget the
// last one is removed. The caller holds the right to change.
func (k *Keyring) replace(ctx context.Context, forget bool, list ...*record) error {
	var b store.Batch
	var files []string
	for i, n := range list {
		old := k.get(n.name())
		if forget && i == len(list)-1 {
			b.Expect(n.key(), n.revision)
			b.Delete(n.key())
			files = append(files, n.File)
			k.o.Logger.InfoContext(ctx, "key removed", "domain", n.Domain, "selector", n.Selector, "was", n.State)
			continue
		}
		if err := put(&b, n); err != nil {
			return err
		}
		if old != nil && old.File != n.File {
			files = append(files, old.File)
		}
		if old == nil || old.State != n.State {
			from := State("none")
			if old != nil {
				from = old.State
			}
			k.o.Logger.InfoContext(ctx, "key moves on", "domain", n.Domain, "selector", n.Selector, "tenant", n.Tenant, "from", from, "to", n.State)
		}
	}
	if err := k.apply(ctx, &b); err != nil {
		return err
	}
	for _, f := range files {
		k.discard(f)
	}
	return nil
}

// removed stands for the text of a record that was removed.
const removed = "-"

// wanted returns the text that the publisher is to have written.
func (r *record) wanted(now time.Time, keep time.Duration) string {
	switch {
	case r.State != Revoked:
		t := r.record()
		return t.Text
	case r.Written == "" && r.Published.IsZero():
		return "" // there is nothing to revoke
	case now.Sub(r.Revoked) < keep:
		t := r.revocation()
		return t.Text
	}
	return removed
}

// unwritten says that the publisher has something to do for a key, and when.
func (k *Keyring) unwritten(r *record, now time.Time) (at time.Time, is bool) {
	if r.Static || !k.covers(r) {
		return at, false
	}
	t := &k.o.Times
	switch want := r.wanted(now, t.Keep); {
	case want == "":
		return at, false
	case want != r.Written && r.WriteError == "":
		return now, true
	case want != r.Written:
		return r.WriteTried.Add(t.Again), true
	case !r.Doubt.IsZero(): // somebody else has changed it, or a server has lost it
		return r.WriteTried.Add(2 * t.Again), true
	}
	return at, false
}

// write has the publisher write what is to be in DNS of a key.
func (k *Keyring) write(ctx context.Context, r *record) error {
	want := r.wanted(time.Now(), k.o.Times.Keep)
	ctx, cancel := context.WithTimeout(ctx, k.o.Times.Write)
	defer cancel()
	var err error
	switch want {
	case "":
		return nil
	case removed:
		err = k.o.Publisher.RemoveTXT(ctx, r.dnsName())
	default:
		err = k.o.Publisher.SetTXT(ctx, r.dnsName(), want)
	}
	if err != nil {
		err = &PublishError{Name: r.dnsName(), Text: err.Error()}
	}
	return errors.Join(err, k.wrote(context.WithoutCancel(ctx), r, want, err))
}

// wrote writes down what came of a publication.
func (k *Keyring) wrote(ctx context.Context, r *record, text string, failure error) error {
	end, err := k.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	old := k.get(r.name())
	if old == nil || old.State != r.State {
		return nil // to be done again, for what the key is now
	}
	n := *old
	n.WriteTried = time.Now()
	if failure != nil {
		k.metrics.failures.Inc()
		if n.WriteError = failure.Error(); n.WriteFailed.IsZero() {
			n.WriteFailed = n.WriteTried
		}
		k.o.Logger.ErrorContext(ctx, "the record of a key could not be published", "domain", n.Domain, "selector", n.Selector, "error", failure)
	} else {
		n.Written, n.WrittenAt, n.WriteError, n.WriteFailed = text, n.WriteTried, "", time.Time{}
		k.o.Logger.InfoContext(ctx, "record published", "domain", n.Domain, "selector", n.Selector, "state", n.State, "removed", text == removed)
	}
	return k.replace(ctx, false, &n)
}
