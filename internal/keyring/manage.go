package keyring

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/mailauth/dkim"
	"github.com/godwit-mta/godwit/smtp"
)

// maxKeys bounds the keys of one domain, revoked ones included.
const maxKeys = 64

// NewKeys says which keys to make.
type NewKeys struct {
	Domain string
	Tenant string // empty: the operator's
	// Selector is that of the key; empty: one is made up. With one only one algorithm can be.
	Selector   string
	Algorithms []Algorithm // none: those of the settings
}

// DomainName brings a domain as people write it into its one form. The error is an *InputError.
func DomainName(s string) (string, error) {
	name, err := smtp.DomainToASCII(strings.TrimSpace(s))
	if err != nil || !dkim.IsKeyName(name, "s") {
		return "", invalid("domain", "%q is no domain such as example.com", s)
	}
	return strings.ToLower(name), nil
}

// Create makes the first keys of a domain, has them published if somebody can, and looks for them. Errors: *InputError,
// ErrExists.
func (k *Keyring) Create(ctx context.Context, n NewKeys) ([]Key, error) {
	domain, err := DomainName(n.Domain)
	if err != nil {
		return nil, err
	}
	algorithms := n.Algorithms
	if len(algorithms) == 0 {
		algorithms = k.settings().Algorithms
	}
	for i, a := range algorithms {
		if !slices.Contains(Algorithms(), a) || slices.Contains(algorithms[:i], a) {
			return nil, invalid("algorithms", "%q is not one of rsa-sha256 and ed25519-sha256, or there twice", a)
		}
	}
	if n.Selector != "" && len(algorithms) > 1 {
		return nil, invalid("selector", "keys of two algorithms cannot have one selector: name one algorithm, or no selector")
	}
	for _, r := range k.all() {
		if r.Domain == domain && r.Tenant == n.Tenant && slices.Contains(algorithms, r.Algorithm) && !r.Static && r.State != Revoked {
			return nil, fmt.Errorf("%w: %s of %s", ErrExists, r.Selector, domain)
		}
	}
	var list []*record
	for _, a := range algorithms {
		r, err := k.mint(ctx, lane{domain, n.Tenant, a}, n.Selector, false)
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return k.tended(ctx, list)
}

// Rotate makes a new key for each of a domain and tenant that signs. The old ones go on until the new ones are seen, and then
// retire. Where a new key waits already it stays. Errors: *InputError, ErrNotFound.
func (k *Keyring) Rotate(ctx context.Context, domain, tenant string) ([]Key, error) {
	domain, err := DomainName(domain)
	if err != nil {
		return nil, err
	}
	signing, waiting := make(map[Algorithm]bool), make(map[Algorithm]*record)
	for _, r := range k.all() {
		switch {
		case r.Domain != domain || r.Tenant != tenant || r.Static:
		case r.State == Signing:
			signing[r.Algorithm] = true
		case r.pending():
			waiting[r.Algorithm] = r
		}
	}
	var list []*record
	for _, a := range Algorithms() {
		r := waiting[a]
		if r == nil && signing[a] {
			if r, err = k.mint(ctx, lane{domain, tenant, a}, "", true); err != nil {
				return nil, err
			}
		}
		if r != nil {
			list = append(list, r)
		}
	}
	if len(list) == 0 {
		return nil, ErrNotFound
	}
	return k.tended(ctx, list)
}

// Imported is a key that was made elsewhere.
type Imported struct {
	Domain, Selector, Tenant string
	Private                  []byte // as ParsePrivate takes it
}

// Import takes over a key, which signs when its record is seen. Errors: *InputError, ErrExists.
func (k *Keyring) Import(ctx context.Context, i Imported) (Key, error) {
	domain, err := DomainName(i.Domain)
	if err != nil {
		return Key{}, err
	}
	key, err := ParsePrivate(i.Private)
	if err != nil {
		return Key{}, invalid("private_key", "%v", err)
	}
	r, err := k.add(ctx, record{Domain: domain, Selector: i.Selector, Tenant: i.Tenant}, key)
	if err != nil {
		return Key{}, err
	}
	list, err := k.tended(ctx, []*record{r})
	if err != nil {
		return Key{}, err
	}
	return list[0], nil
}

// mint makes a key and keeps it.
func (k *Keyring) mint(ctx context.Context, l lane, selector string, rotation bool) (*record, error) {
	key, err := generate(l.algorithm, k.settings().Bits)
	if err != nil {
		return nil, fmt.Errorf("keyring: make key: %w", err)
	}
	return k.add(ctx, record{Domain: l.domain, Selector: selector, Tenant: l.tenant, Rotation: rotation}, key)
}

// add keeps a new key.
func (k *Keyring) add(ctx context.Context, n record, key crypto.Signer) (*record, error) {
	var err error
	if n.Public, n.Algorithm, n.Bits, err = public(key.Public()); err != nil {
		return nil, invalid("private_key", "%v", err)
	}
	end, err := k.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	n.State, n.Created = Created, time.Now()
	count := 0
	for _, r := range k.all() {
		if r.Domain == n.Domain {
			count++
		}
	}
	if count >= maxKeys {
		return nil, invalid("domain", "%s has %d keys, which is the most there can be: revoke old ones", n.Domain, count)
	}
	if n.Selector == "" {
		n.Selector = k.selector(&n)
	}
	n.Selector = strings.ToLower(n.Selector)
	if !dkim.IsKeyName(n.Domain, n.Selector) {
		return nil, invalid("selector", "%q is no selector: use letters, digits, hyphens and dots", n.Selector)
	}
	if k.get(n.name()) != nil {
		return nil, fmt.Errorf("%w: %s of %s", ErrExists, n.Selector, n.Domain)
	}
	if err := k.keep(&n, key); err != nil {
		return nil, fmt.Errorf("keyring: keep key: %w", err)
	}
	if err := k.replace(ctx, false, &n); err != nil {
		k.discard(n.File)
		return nil, err
	}
	return k.get(n.name()), nil
}

// selector makes up a name that tells when a key was made and what it is: s202611r, then s202611r2.
func (k *Keyring) selector(n *record) string {
	base := n.Created.UTC().Format("s200601") + string(n.Algorithm[0])
	for i := 1; ; i++ {
		name := base
		if i > 1 {
			name = fmt.Sprintf("%s%d", base, i)
		}
		if k.get(n.Domain+"/"+name) == nil {
			return name
		}
	}
}

// tended looks after keys now, and returns how they are then.
func (k *Keyring) tended(ctx context.Context, list []*record) ([]Key, error) {
	out := make([]Key, 0, len(list))
	for _, r := range list {
		if err := k.tend(ctx, r); err != nil && !errors.Is(err, ErrChanged) {
			return nil, err
		}
		if now := k.get(r.name()); now != nil {
			r = now
		}
		out = append(out, k.describe(r))
	}
	k.wake()
	return out, nil
}

// named returns the key of a name, or ErrNotFound.
func (k *Keyring) named(domain, selector string) (*record, error) {
	domain, err := DomainName(domain)
	if err != nil {
		return nil, err
	}
	r := k.get(domain + "/" + strings.ToLower(selector))
	if r == nil {
		return nil, ErrNotFound
	}
	return r, nil
}

// Check looks at the record of a key now, or of all keys of a domain if selector is empty, and returns how they are then. Keys
// move on if what is seen allows it. Errors: *InputError, ErrNotFound.
func (k *Keyring) Check(ctx context.Context, domain, selector string) ([]Key, error) {
	list, err := k.some(domain, selector)
	if err != nil {
		return nil, err
	}
	return k.tended(ctx, list)
}

func (k *Keyring) some(domain, selector string) ([]*record, error) {
	if selector != "" {
		r, err := k.named(domain, selector)
		return []*record{r}, err
	}
	domain, err := DomainName(domain)
	if err != nil {
		return nil, err
	}
	var list []*record
	for _, r := range k.all() {
		if r.Domain == domain {
			list = append(list, r)
		}
	}
	if len(list) == 0 {
		return nil, ErrNotFound
	}
	slices.SortFunc(list, order)
	return list, nil
}

// Publish writes the records of a key, or of all keys of a domain, into DNS now, whatever is thought to be there. Errors:
// *InputError (nobody publishes there), ErrNotFound, those of the publisher.
func (k *Keyring) Publish(ctx context.Context, domain, selector string) ([]Key, error) {
	list, err := k.some(domain, selector)
	if err != nil {
		return nil, err
	}
	for _, r := range list {
		if !k.covers(r) {
			return nil, invalid("domain", "nothing is configured to publish records of %s: set dkim.publish with its zone, or put the "+
				"records into DNS yourself: \"godwit dkim records %s\" shows them", r.Domain, r.Domain)
		}
	}
	for _, r := range list {
		if err := k.write(ctx, r); err != nil {
			return nil, err
		}
	}
	for i, r := range list {
		if now := k.get(r.name()); now != nil {
			list[i] = now
		}
	}
	return k.tended(ctx, list)
}

// Activate lets a key sign now, without waiting for others to see its record, in place of the one that does. It must have been
// seen by all, unless force is set. Errors: *InputError, ErrNotFound.
func (k *Keyring) Activate(ctx context.Context, domain, selector string, force bool) (Key, error) {
	r, err := k.named(domain, selector)
	if err != nil {
		return Key{}, err
	}
	if err := k.tend(ctx, r); err != nil && !errors.Is(err, ErrChanged) {
		return Key{}, err
	}
	return k.change(ctx, r, func(n *record) ([]*record, error) {
		switch {
		case n.State == Signing:
			return nil, nil
		case n.State == Revoked:
			return nil, invalid("selector", "key %s is revoked for good: make another one", n.Selector)
		case !n.shown() && !force:
			return nil, invalid("selector", "not all resolvers see the record of %s: %s; with --force it is to sign all the same, "+
				"as soon as DNS shows the record", n.Selector, orUnseen(n.Problem))
		}
		n.Retired = time.Time{}
		return n.activate(k.view(n)), nil
	})
}

func orUnseen(problem string) string {
	if problem == "" {
		return "nobody has looked yet"
	}
	return problem
}

// Retire lets a key sign no more; its record stays until what it signed has been delivered. The last key that signs for a
// domain retires only with force. Errors: *InputError, ErrNotFound.
func (k *Keyring) Retire(ctx context.Context, domain, selector string, force bool) (Key, error) {
	r, err := k.named(domain, selector)
	if err != nil {
		return Key{}, err
	}
	return k.change(ctx, r, func(n *record) ([]*record, error) {
		switch {
		case n.State == Retiring || n.State == Revoked:
			return nil, nil
		case n.pending():
			return nil, invalid("selector", "key %s has never signed: revoke it", n.Selector)
		case !force && k.last(n):
			return nil, invalid("selector", "%s is the last key that signs for %s: \"godwit dkim rotate %s\" replaces it; with --force mail "+
				"leaves unsigned from now on", n.Selector, n.Domain, n.Domain)
		}
		n.State, n.Retired = Retiring, time.Now()
		return nil, nil
	})
}

// last says that no other key of a domain and tenant signs.
func (k *Keyring) last(n *record) bool {
	return !slices.ContainsFunc(k.all(), func(r *record) bool {
		return r.Domain == n.Domain && r.Tenant == n.Tenant && r.name() != n.name() && r.State == Signing && r.shown()
	})
}

// Revoke ends a key at once: it signs no more, its private key is destroyed, and its record is to say so. What it signed and is
// under way cannot be verified any more. A key that was never in DNS is forgotten. Errors: *InputError, ErrNotFound.
func (k *Keyring) Revoke(ctx context.Context, domain, selector string) (Key, error) {
	r, err := k.named(domain, selector)
	if err != nil {
		return Key{}, err
	}
	if r.Created.IsZero() || r.State == Revoked {
		return k.change(ctx, r, func(*record) ([]*record, error) { return nil, nil })
	}
	out, err := k.change(ctx, r, func(n *record) ([]*record, error) {
		n.revoke(time.Now())
		return nil, nil
	})
	if err != nil {
		return out, err
	}
	if now := k.get(r.name()); now != nil {
		if err := k.tend(ctx, now); err != nil && ctx.Err() != nil {
			return out, err
		}
		if now = k.get(r.name()); now != nil {
			out = k.describe(now)
		}
	}
	return out, nil
}

// change changes a key of the keyring's own.
func (k *Keyring) change(ctx context.Context, r *record, how func(*record) ([]*record, error)) (Key, error) {
	if r.Static {
		return Key{}, invalid("selector", "key %s of %s stands in the configuration: change it there, and reload", r.Selector, r.Domain)
	}
	end, err := k.begin(ctx)
	if err != nil {
		return Key{}, err
	}
	defer end()
	if r = k.get(r.name()); r == nil {
		return Key{}, ErrNotFound
	}
	n := *r
	others, err := how(&n)
	if err != nil {
		return Key{}, err
	}
	if n.State != r.State || len(others) > 0 {
		if err := k.replace(ctx, false, append(others, &n)...); err != nil {
			return Key{}, err
		}
		k.wake()
	}
	return k.describe(k.get(r.name())), nil
}
