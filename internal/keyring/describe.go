package keyring

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Key is what may be told of a key.
type Key struct {
	Domain    string
	Selector  string
	Tenant    string // empty: the operator's
	Algorithm Algorithm
	Bits      int
	State     State
	Place     string // of the private key: "configuration", "command", "store" (encrypted), "file"; empty: it is gone
	Signs     bool   // now
	Instead   bool   // it signs in place of another one whose record is not in DNS

	Created, Published, Verified, Activated, Retired, Revoked time.Time // states were reached; zero: not yet
	Checked                                                   time.Time // DNS was asked last
	Good                                                      time.Time // all resolvers had the record last
	Problem                                                   string    // what the last check found, or why the key cannot be used; empty: nothing
	PublishError                                              string    // why the record could not be published

	Record Record // as it is to stand in DNS now; Text is empty if there is to be none
	Task   Task
}

// Act is what is to be done in DNS. The set is closed.
type Act string

// The acts.
const (
	Put     Act = "put"     // the record is to be made
	Keep    Act = "keep"    // it is to stay as it is
	Replace Act = "replace" // it is to get the text of Record
	Remove  Act = "remove"  // it is to be removed
)

// Task is what is to be done about the record of a key.
type Task struct {
	Act Act
	// Until is how long the record is to be kept, or from when on it can be removed; zero: it is not known yet.
	Until time.Time
	// Automatic says that the server does it.
	Automatic bool
}

func order(a, b *record) int {
	return cmp.Or(strings.Compare(a.Domain, b.Domain), strings.Compare(a.Tenant, b.Tenant), slices.Index(States(), a.State)-slices.Index(States(), b.State),
		slices.Index(Algorithms(), a.Algorithm)-slices.Index(Algorithms(), b.Algorithm), a.index()-b.index(), strings.Compare(a.Selector, b.Selector))
}

// List returns the keys of a domain, or of all if it is empty, that match wants; nil: all.
func (k *Keyring) List(domain string, match func(*Key) bool) ([]Key, error) {
	if domain != "" {
		var err error
		if domain, err = DomainName(domain); err != nil {
			return nil, err
		}
	}
	list := slices.DeleteFunc(k.all(), func(r *record) bool { return domain != "" && r.Domain != domain })
	slices.SortFunc(list, order)
	out := make([]Key, 0, len(list))
	for _, r := range list {
		if d := k.describe(r); match == nil || match(&d) {
			out = append(out, d)
		}
	}
	return out, nil
}

// Show returns one key. Errors: *InputError, ErrNotFound.
func (k *Keyring) Show(domain, selector string) (Key, error) {
	r, err := k.named(domain, selector)
	if err != nil {
		return Key{}, err
	}
	return k.describe(r), nil
}

func (k *Keyring) describe(r *record) Key {
	snap := k.now.Load()
	d := Key{
		Domain: r.Domain, Selector: r.Selector, Tenant: r.Tenant, Algorithm: r.Algorithm, Bits: r.Bits, State: r.State,
		Signs: snap.chosen[r.name()], Instead: snap.instead[r.name()],
		Created: r.Created, Published: r.Published, Verified: r.Verified, Activated: r.Activated, Retired: r.Retired, Revoked: r.Revoked,
		Checked: r.Checked, Good: r.Good, Problem: r.Problem, PublishError: r.WriteError, Record: r.record(), Task: k.task(r),
	}
	switch {
	case r.static != nil && len(r.static.Command) > 0:
		d.Place = "command"
	case r.static != nil:
		d.Place = "configuration"
	case len(r.Sealed) > 0:
		d.Place = "store"
	case r.File != "":
		d.Place = "file"
	}
	switch {
	case d.Task.Act == Remove:
		d.Record.Text = ""
	case r.State == Revoked:
		d.Record = r.revocation()
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	if s, known := k.mu.signers[r.identity()]; known && s.err != nil && r.State != Revoked {
		d.Problem = strings.TrimPrefix(fmt.Sprintf("%s; it cannot sign: %v", d.Problem, s.err), "; ")
	}
	return d
}

// task says what is to be done about a record.
func (k *Keyring) task(r *record) Task {
	t := Task{Act: Keep, Automatic: !r.Static && k.covers(r)}
	switch now := time.Now(); {
	case r.State == Revoked:
		t.Act, t.Until = Replace, r.Revoked.Add(k.o.Times.Keep)
		if !now.Before(t.Until) || r.Published.IsZero() && r.Good.IsZero() && r.Written == "" {
			t.Act = Remove
		}
	case r.State == Retiring:
		t.Until = r.Retired.Add(k.settings().RetireAfter)
	case !r.shown():
		t.Act = Put
	}
	return t
}
