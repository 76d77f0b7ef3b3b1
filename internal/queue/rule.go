package queue

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/internal/store"
	"github.com/godwit-mta/godwit/smtp"
)

// rulePrefix is where the store keeps rules, one key each.
const rulePrefix = "queue/hold/"

// Rule holds mail that is accepted after it was made: the lasting part of a hold on a queue, a tenant or a sender.
// Fields that are set must all match; a rule without any holds everything.
type Rule struct {
	Tenant string    `json:"tenant,omitempty"`
	Domain string    `json:"domain,omitempty"` // of the queue
	Sender string    `json:"sender,omitempty"` // address, or @domain
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since"`
}

// String returns the rule in words: "mail of tenant t to example.com from @example.org".
func (r *Rule) String() string {
	text := "all mail"
	if r.Tenant != "" {
		text = "mail of tenant " + r.Tenant
	}
	if r.Domain != "" {
		text += " to " + r.Domain
	}
	if r.Sender != "" {
		text += " from " + r.Sender
	}
	return text
}

func (r *Rule) matches(m *spool.Message, key spool.QueueKey) bool {
	return (r.Tenant == "" || r.Tenant == m.Tenant) && (r.Domain == "" || r.Domain == key.Domain) &&
		(r.Sender == "" || sentBy(m, r.Sender))
}

// covers reports whether everything that other matches, r matches too.
func (r *Rule) covers(other *Rule) bool {
	return (r.Tenant == "" || r.Tenant == other.Tenant) && (r.Domain == "" || r.Domain == other.Domain) &&
		(r.Sender == "" || r.Sender == other.Sender || r.Sender[0] == '@' && strings.HasSuffix(other.Sender, r.Sender))
}

// sentBy reports whether m's reverse-path is the address sender, or at the domain if sender is "@domain". Domains are
// compared without case, local parts exactly (RFC 5321, 2.4).
func sentBy(m *spool.Message, sender string) bool {
	local, domain := cutAddress(sender)
	from := m.From.Path
	return strings.EqualFold(from.Domain, domain) && (sender[0] == '@' || from.Local == local)
}

// cutAddress parts an address at its last "@"; the local part of "@domain" is empty.
func cutAddress(address string) (local, domain string) {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return address, ""
	}
	if p, err := smtp.ParseMailbox(address); err == nil {
		return p.Local, p.Domain
	}
	return address[:at], address[at+1:]
}

// key names the rule in the store: rules that match the same have the same.
func (r *Rule) key() string {
	sum := sha256.Sum256([]byte(r.Tenant + "\x00" + r.Domain + "\x00" + r.Sender))
	return rulePrefix + hex.EncodeToString(sum[:16])
}

// Rules returns the rules in force, oldest first.
func (s *Scheduler) Rules() []Rule {
	s.mu.Lock()
	defer s.mu.Unlock()
	rules := make([]Rule, 0, len(s.mu.rules))
	for _, r := range s.mu.rules {
		rules = append(rules, *r)
	}
	slices.SortFunc(rules, func(a, b Rule) int { return a.Since.Compare(b.Since) })
	return rules
}

// addRule puts a rule in force. It is durable when addRule returns; what was accepted before is not its business.
func (s *Scheduler) addRule(ctx context.Context, r Rule) error {
	value, err := json.Marshal(&r)
	if err != nil {
		return fmt.Errorf("encode rule: %w", err)
	}
	var b store.Batch
	b.Put(r.key(), value)
	if _, err := s.o.Store.Apply(ctx, &b); err != nil {
		return fmt.Errorf("keep rule: %w", err)
	}
	s.setRule(r.key(), &r)
	return nil
}

// dropRules removes the rules that covered covers, and returns them.
func (s *Scheduler) dropRules(ctx context.Context, covering Rule) ([]Rule, error) {
	var gone []Rule
	var b store.Batch
	for _, r := range s.Rules() {
		if covering.covers(&r) {
			gone = append(gone, r)
			b.Delete(r.key())
		}
	}
	if len(gone) == 0 {
		return nil, nil
	}
	if _, err := s.o.Store.Apply(ctx, &b); err != nil {
		return nil, fmt.Errorf("remove rules: %w", err)
	}
	for _, r := range gone {
		s.setRule(r.key(), nil)
	}
	return gone, nil
}

func (s *Scheduler) setRule(key string, r *Rule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r == nil {
		delete(s.mu.rules, key)
		return
	}
	s.mu.rules[key] = r
}

// loadRules reads the rules before anything is delivered.
func (s *Scheduler) loadRules(ctx context.Context) error {
	for kv, err := range s.o.Store.Scan(ctx, rulePrefix) {
		if err != nil {
			return fmt.Errorf("read the rules that hold mail: %w", err)
		}
		if err := s.learnRule(kv); err != nil {
			return err
		}
	}
	return nil
}

// followRules takes over what others change in the store, until ctx ends.
func (s *Scheduler) followRules(ctx context.Context) {
	for change, err := range s.o.Store.Watch(ctx, rulePrefix) {
		switch {
		case err != nil:
			if !errors.Is(err, store.ErrClosed) {
				s.log.Error("rules that hold mail can no longer be followed", "error", err)
			}
			return
		case change.Current:
		case change.Deleted:
			s.setRule(change.Key, nil)
		default:
			if err := s.learnRule(change.KV); err != nil {
				s.log.Error("a rule that holds mail cannot be read", "error", err)
			}
		}
	}
}

func (s *Scheduler) learnRule(kv store.KV) error {
	r := new(Rule)
	if err := json.Unmarshal(kv.Value, r); err != nil {
		return fmt.Errorf("rule %s: %w", kv.Key, err)
	}
	s.setRule(kv.Key, r)
	return nil
}

// ruledLocked returns the rule that holds m in the queue of key, or nil.
func (s *Scheduler) ruledLocked(m *spool.Message, key spool.QueueKey) *Rule {
	for _, r := range s.mu.rules {
		if r.matches(m, key) {
			return r
		}
	}
	return nil
}
