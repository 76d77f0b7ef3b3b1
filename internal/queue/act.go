package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

// Selection says which entries an operator means. Fields that are set must all match; at least one must be, or All.
type Selection struct {
	Entry     spool.EntryID
	Message   message.ID
	Tenant    string
	Domain    string // of the queue, any tenant unless Tenant is set
	Sender    string // address, or @domain
	Recipient string // address
	State     spool.State
	All       bool // every entry there is
}

// ErrSelection is what actions return for a selection that names nothing, or contradicts itself.
var ErrSelection = errors.New("selection")

// Changed says what an action did.
type Changed struct {
	Entries int
	// Rules that the action set (Hold) or removed (Release), or that still hold mail like that which was released.
	Set, Removed, Left []Rule
}

// Hold stops entries until they are released. A selection by tenant, domain and sender alone also makes a rule that
// holds such mail when it is accepted from now on. An attempt that is under way goes on; if it ends without a final
// outcome its entries are held then. Held entries do not grow too old. Durable when Hold returns.
func (s *Scheduler) Hold(ctx context.Context, sel Selection, reason string) (Changed, error) {
	var c Changed
	if err := sel.check(); err != nil {
		return c, err
	}
	if rule, ok := sel.rule(); ok {
		rule.Reason, rule.Since = reason, time.Now()
		if err := s.addRule(ctx, rule); err != nil {
			return c, err
		}
		c.Set = []Rule{rule}
	}
	err := s.act(ctx, sel, &c, func(f spool.Filter) (int, error) { return s.o.Spool.Hold(ctx, f, reason) })
	s.log.Info("entries held", "selection", sel.String(), "reason", reason, "entries", c.Entries)
	return c, err
}

// Release lets held entries go on, when they were due or at once, and removes the rules that hold such mail. Rules
// that hold more than the selection says stay and are named. Durable when Release returns.
func (s *Scheduler) Release(ctx context.Context, sel Selection) (Changed, error) {
	var c Changed
	if err := sel.check(); err != nil {
		return c, err
	}
	if rule, ok := sel.rule(); ok {
		var err error
		if c.Removed, err = s.dropRules(ctx, rule); err != nil {
			return c, err
		}
		for _, r := range s.Rules() {
			if r.covers(&rule) {
				c.Left = append(c.Left, r)
			}
		}
	}
	err := s.act(ctx, sel, &c, func(f spool.Filter) (int, error) { return s.o.Spool.Release(ctx, f) })
	s.log.Info("entries released", "selection", sel.String(), "entries", c.Entries)
	return c, err
}

// Retry makes waiting entries due now, and lifts the suspension of the queues that the selection names, so that one
// entry is tried at once. Durable when Retry returns.
func (s *Scheduler) Retry(ctx context.Context, sel Selection) (Changed, error) {
	var c Changed
	if err := sel.check(); err != nil {
		return c, err
	}
	err := s.act(ctx, sel, &c, func(f spool.Filter) (int, error) { return s.o.Spool.Reschedule(ctx, f, time.Now()) })
	s.unsuspend(ctx, sel)
	s.log.Info("entries made due", "selection", sel.String(), "entries", c.Entries)
	return c, err
}

// Bounce makes entries final as failed; senders who did not forbid it get a report. What is in flight and delivered by
// that attempt stays delivered. Durable when Bounce returns.
func (s *Scheduler) Bounce(ctx context.Context, sel Selection, reason string) (Changed, error) {
	if reason == "" {
		reason = "an administrator of this server gave up delivery"
	}
	return s.finish(ctx, sel, spool.Result{Outcome: spool.Bounced, Reason: event.Operator, Explanation: reason})
}

// Cancel makes entries final without a report. What is in flight and delivered by that attempt stays delivered.
// Durable when Cancel returns.
func (s *Scheduler) Cancel(ctx context.Context, sel Selection, reason string) (Changed, error) {
	if reason == "" {
		reason = "cancelled by an administrator of this server"
	}
	return s.finish(ctx, sel, spool.Result{Outcome: spool.Cancelled, Reason: event.Operator, Explanation: reason})
}

func (s *Scheduler) finish(ctx context.Context, sel Selection, r spool.Result) (Changed, error) {
	var c Changed
	if err := sel.check(); err != nil {
		return c, err
	}
	err := s.act(ctx, sel, &c, func(f spool.Filter) (int, error) { return s.o.Spool.Finish(ctx, f, r) })
	s.log.Info("entries "+r.Outcome.String(), "selection", sel.String(), "reason", r.Explanation, "entries", c.Entries)
	s.remind()
	return c, err
}

// batch is how many entries an action that must look at each of them changes at a time.
const batch = 512

// act does what the operator wants with the entries of sel. Claimed entries that nobody has begun are given back
// before, so that they are changed like waiting ones, and after, for those claimed meanwhile, of which the spool has
// noted what is to become.
func (s *Scheduler) act(ctx context.Context, sel Selection, c *Changed, do func(spool.Filter) (int, error)) error {
	if sel.State == 0 {
		s.giveBack(sel)
	}
	if sel.State == 0 || sel.State == spool.Claimed {
		defer s.giveBack(sel)
	}
	filter := sel.filter()
	if !sel.needsLook() {
		n, err := do(filter)
		c.Entries += n
		return err
	}
	ids := make([]spool.EntryID, 0, batch)
	flush := func() error {
		if len(ids) == 0 {
			return nil
		}
		n, err := do(spool.Filter{Entries: ids})
		c.Entries += n
		ids = ids[:0]
		return err
	}
	for e, err := range s.o.Spool.Entries(ctx, filter, 0, spool.EntryID{}) {
		if err != nil {
			return fmt.Errorf("look for entries: %w", err)
		}
		if !sel.matches(e) {
			continue
		}
		if ids = append(ids, e.ID()); len(ids) == batch {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// giveBack returns what is selected from the windows to the spool.
func (s *Scheduler) giveBack(sel Selection) {
	var back []*spool.Entry
	s.mu.Lock()
	now := time.Now()
	for _, q := range s.mu.queues {
		if q.groups == 0 || sel.Tenant != "" && q.key.Tenant != sel.Tenant || sel.Domain != "" && q.key.Domain != sel.Domain {
			continue
		}
		for n := q.window.head; n != q.window.tail; n++ {
			g := q.window.At(n)
			if g.entries == nil || !anyMatch(g.entries, &sel) {
				continue
			}
			taken, _ := s.takeLocked(place{q, n})
			back = append(back, taken.entries...)
		}
		s.arrangeLocked(q, now)
	}
	s.mu.Unlock()
	if len(back) > 0 {
		s.o.Spool.Return(back)
	}
}

func anyMatch(entries []*spool.Entry, sel *Selection) bool {
	for _, e := range entries {
		if sel.claimedMatches(e) {
			return true
		}
	}
	return false
}

// unsuspend lets the queues that are named, or that hold what is named, try again now.
func (s *Scheduler) unsuspend(ctx context.Context, sel Selection) {
	keys := make(map[spool.QueueKey]bool)
	if id := sel.message(); !id.IsZero() {
		if _, entries, err := s.o.Spool.Message(ctx, id); err == nil {
			for _, e := range entries {
				keys[e.Queue()] = sel.claimedMatches(e)
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, q := range s.mu.queues {
		if q.health.until.IsZero() {
			continue
		}
		if len(keys) > 0 {
			if !keys[q.key] {
				continue
			}
		} else if sel.Tenant != "" && q.key.Tenant != sel.Tenant || sel.Domain != "" && q.key.Domain != sel.Domain {
			continue
		}
		q.health.until = now
		s.arrangeLocked(q, now)
	}
}

func (sel *Selection) check() error {
	switch {
	case *sel == Selection{}:
		return fmt.Errorf("%w: nothing is selected", ErrSelection)
	case *sel == Selection{State: sel.State}:
		return fmt.Errorf("%w: a state alone selects nothing; say that all entries are meant", ErrSelection)
	case sel.All && *sel != Selection{All: true, State: sel.State}:
		return fmt.Errorf("%w: all entries and some of them", ErrSelection)
	case sel.Sender != "" && !strings.Contains(sel.Sender, "@"):
		return fmt.Errorf("%w: sender %q is no address, and no @domain", ErrSelection, sel.Sender)
	}
	return nil
}

// rule returns the rule that does to later mail what a hold does to what is here, if the selection can be one.
func (sel *Selection) rule() (Rule, bool) {
	if *sel != (Selection{Tenant: sel.Tenant, Domain: sel.Domain, Sender: sel.Sender, All: sel.All}) {
		return Rule{}, false
	}
	return Rule{Tenant: sel.Tenant, Domain: sel.Domain, Sender: sel.Sender}, true
}

func (sel *Selection) message() message.ID {
	if sel.Entry != (spool.EntryID{}) {
		return sel.Entry.Message
	}
	return sel.Message
}

// filter returns what the spool can tell apart by itself.
func (sel *Selection) filter() spool.Filter {
	f := spool.Filter{Tenant: sel.Tenant, Domain: sel.Domain}
	if sel.Entry != (spool.EntryID{}) {
		f.Entries = []spool.EntryID{sel.Entry}
	}
	if !sel.Message.IsZero() {
		f.Messages = []message.ID{sel.Message}
	}
	if sel.State != 0 {
		f.States = []spool.State{sel.State}
	}
	if sel.Sender != "" && sel.Sender[0] != '@' {
		local, domain := cutAddress(sel.Sender)
		f.Sender = &smtp.Path{Local: local, Domain: domain}
	}
	return f
}

// needsLook reports whether the spool's filter says less than the selection.
func (sel *Selection) needsLook() bool {
	return sel.Recipient != "" || sel.Sender != "" && sel.Sender[0] == '@'
}

// matches reports whether e is selected.
func (sel *Selection) matches(e *spool.Entry) bool {
	return (sel.State == 0 || sel.State == e.State) && sel.claimedMatches(e)
}

// claimedMatches is matches but for the state. It reads only what never changes, so that e may be somebody's claim.
func (sel *Selection) claimedMatches(e *spool.Entry) bool {
	m, key := e.Message, e.Queue()
	switch {
	case sel.Entry != (spool.EntryID{}) && sel.Entry != e.ID():
	case !sel.Message.IsZero() && sel.Message != m.ID:
	case sel.Tenant != "" && sel.Tenant != key.Tenant:
	case sel.Domain != "" && sel.Domain != key.Domain:
	case sel.Sender != "" && !sentBy(m, sel.Sender):
	case sel.Recipient != "" && !addressed(e, sel.Recipient):
	default:
		return true
	}
	return false
}

func addressed(e *spool.Entry, recipient string) bool {
	local, domain := cutAddress(recipient)
	to := e.Recipient()
	return to.Local == local && strings.EqualFold(to.Domain, domain)
}

// String returns the selection in words, for logs.
func (sel *Selection) String() string {
	var parts []string
	add := func(name, value string) {
		if value != "" {
			parts = append(parts, name+" "+value)
		}
	}
	if sel.Entry != (spool.EntryID{}) {
		add("entry", sel.Entry.String())
	}
	if !sel.Message.IsZero() {
		add("message", sel.Message.String())
	}
	add("tenant", sel.Tenant)
	add("domain", sel.Domain)
	add("sender", sel.Sender)
	add("recipient", sel.Recipient)
	add("state", sel.State.String())
	if sel.All {
		parts = append(parts, "all entries")
	}
	return strings.Join(parts, ", ")
}
