package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/audit"
	"github.com/godwit-mta/godwit/internal/queue"
	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

// maxTimeline bounds the events shown of one message.
const maxTimeline = 2000

// admin answers the administrators' interface: it asks the parts and puts their answers into the words of package api.
type admin struct {
	d *Daemon
	r *running
}

func (a *admin) Status() api.Status { return a.d.Status() }

func (a *admin) Reload(ctx context.Context, by audit.Act) (api.ReloadResult, error) {
	return a.d.Reload(ctx, by)
}

func (a *admin) Queues(_ context.Context, q api.QueueQuery) (api.QueueList, error) {
	domain, err := queueDomain(q.Domain)
	if err != nil {
		return api.QueueList{}, err
	}
	list := a.r.queue.List(queue.Query{
		Tenant: q.Tenant, Domain: domain, State: stateOf(q.State), Order: queue.ByEntries, Limit: q.Limit,
	})
	out := api.QueueList{Queues: make([]api.Queue, len(list.Queues)), Total: list.Total, Entries: list.Entries}
	for i := range list.Queues {
		out.Queues[i] = apiQueue(&list.Queues[i])
	}
	return out, nil
}

func (a *admin) Queue(ctx context.Context, domain, tenant string, limit int) ([]api.QueueDetail, error) {
	domain, err := queueDomain(domain)
	if err != nil {
		return nil, err
	}
	list := a.r.queue.List(queue.Query{Tenant: tenant, Domain: domain, Order: queue.ByName})
	out := make([]api.QueueDetail, 0, len(list.Queues))
	for i := range list.Queues {
		info := &list.Queues[i]
		entries, err := a.entries(ctx, spool.Filter{Queue: info.Key}, limit)
		if err != nil {
			return nil, err
		}
		out = append(out, api.QueueDetail{Queue: apiQueue(info), Entries: entries, More: info.Total() > len(entries)})
	}
	if len(out) == 0 {
		return nil, notFound("nothing waits for %s", domain)
	}
	return out, nil
}

// entries returns up to limit entries with the reason why each is still there.
func (a *admin) entries(ctx context.Context, f spool.Filter, limit int) ([]api.Entry, error) {
	var found []*spool.Entry
	for e, err := range a.r.spool.Entries(ctx, f, limit, spool.EntryID{}) {
		if err != nil {
			return nil, fmt.Errorf("list entries: %w", err)
		}
		found = append(found, e)
	}
	return a.explained(found), nil
}

func (a *admin) explained(found []*spool.Entry) []api.Entry {
	why := a.r.queue.Explain(found...)
	out := make([]api.Entry, len(found))
	for i, e := range found {
		out[i] = apiEntry(e, why[i])
	}
	return out
}

func (a *admin) Message(ctx context.Context, text string) (api.Message, error) {
	id, err := message.ParseID(text)
	if err != nil {
		return api.Message{}, &api.Problem{Status: http.StatusUnprocessableEntity, Title: "Bad message id",
			Detail: fmt.Sprintf("%q is no message id; it stands in the 250 reply and in the Received field", text)}
	}
	out := api.Message{ID: text, Entries: []api.Entry{}, Events: []api.TimelineEvent{}}
	m, entries, err := a.r.spool.Message(ctx, id)
	switch {
	case err == nil:
		out.InSpool = true
		a.fill(&out, m, entries)
	case !errors.Is(err, spool.ErrNotFound):
		return api.Message{}, fmt.Errorf("read message: %w", err)
	}
	events, err := a.r.events.Find(ctx, id, maxTimeline+1)
	if err != nil {
		return api.Message{}, fmt.Errorf("search event log: %w", err)
	}
	if len(events) > maxTimeline {
		events, out.More = events[:maxTimeline], true
	}
	for i := range events {
		out.Events = append(out.Events, timelineEvent(&events[i]))
		if e := &events[i]; e.Type == event.Accepted && !out.InSpool {
			out.Tenant, out.Sender, out.Size, out.Received = e.Tenant, e.Sender, e.Size, &e.Time
			out.Headers = headers(e.HeaderFrom, "", e.MessageID)
		}
	}
	if !out.InSpool && len(events) == 0 {
		return api.Message{}, notFound("no message %s: it was never accepted here, or its events are older than the event log keeps", text)
	}
	return out, nil
}

func (a *admin) fill(out *api.Message, m *spool.Message, entries []*spool.Entry) {
	out.Tenant, out.Sender, out.Size = m.Tenant, m.From.Path.String(), m.Size
	out.Received, out.Expires = timeOrNil(m.Received), timeOrNil(m.Expires)
	out.Headers = headers(m.HeaderFrom, m.Subject, m.MessageID)
	open := entries[:0]
	for _, e := range entries {
		if e.State != spool.Final {
			open = append(open, e)
		}
	}
	out.Entries = a.explained(open)
}

func headers(from, subject, id string) map[string]string {
	h := make(map[string]string, 3)
	for name, value := range map[string]string{"From": from, "Subject": subject, "Message-ID": id} {
		if value != "" {
			h[name] = value
		}
	}
	return h
}

func (a *admin) Act(ctx context.Context, act api.Action) (api.ActionResult, error) {
	sel, err := selection(act.Selection)
	if err != nil {
		return api.ActionResult{}, err
	}
	q := a.r.queue
	var c queue.Changed
	switch act.Verb {
	case api.Hold:
		c, err = q.Hold(ctx, sel, act.Reason)
	case api.Release:
		c, err = q.Release(ctx, sel)
	case api.Retry:
		c, err = q.Retry(ctx, sel)
	case api.Bounce:
		c, err = q.Bounce(ctx, sel, act.Reason)
	case api.Cancel:
		c, err = q.Cancel(ctx, sel, act.Reason)
	}
	if errors.Is(err, queue.ErrSelection) {
		return api.ActionResult{}, &api.Problem{Status: http.StatusUnprocessableEntity, Title: "Bad selection", Detail: err.Error()}
	}
	if err != nil {
		return api.ActionResult{}, fmt.Errorf("%s: %w", act.Verb, err)
	}
	return api.ActionResult{Changed: c.Entries, Rule: rulesInWords(c)}, nil
}

// rulesInWords says what an action did to the rules for mail yet to come.
func rulesInWords(c queue.Changed) string {
	var lines []string
	add := func(rules []queue.Rule, text string) {
		for i := range rules {
			lines = append(lines, fmt.Sprintf(text, rules[i].String()))
		}
	}
	add(c.Set, "From now on %s is held when it is accepted.")
	add(c.Removed, "From now on %s is no longer held.")
	add(c.Left, "Still in force: %s is held when it is accepted.")
	return strings.Join(lines, "\n")
}

func selection(s api.Selection) (queue.Selection, error) {
	bad := func(format string, args ...any) (queue.Selection, error) {
		return queue.Selection{}, &api.Problem{Status: http.StatusUnprocessableEntity, Title: "Bad selection",
			Detail: fmt.Sprintf(format, args...)}
	}
	out := queue.Selection{Tenant: s.Tenant, Sender: s.Sender, Recipient: s.Recipient, State: stateOf(s.State), All: s.All}
	if s.State != "" && out.State == 0 {
		return bad("state %q is not one of waiting, claimed, held", s.State)
	}
	var err error
	if s.Message != "" {
		if out.Message, err = message.ParseID(s.Message); err != nil {
			return bad("%q is no message id", s.Message)
		}
	}
	if s.Entry != "" {
		if out.Entry, err = spool.ParseEntryID(s.Entry); err != nil {
			return bad("%q is no entry id: a message id, a dot and the number of the recipient", s.Entry)
		}
	}
	out.Domain, err = queueDomain(s.Queue)
	return out, err
}

// queueDomain brings a domain as a person writes it into the form that queues have.
func queueDomain(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	d, err := smtp.DomainToASCII(s)
	if err != nil {
		return "", &api.Problem{Status: http.StatusUnprocessableEntity, Title: "Bad domain", Detail: fmt.Sprintf("%q is no domain", s)}
	}
	return d, nil
}

func stateOf(s string) spool.State {
	for _, st := range []spool.State{spool.Waiting, spool.Claimed, spool.Held} {
		if st.String() == s {
			return st
		}
	}
	return 0
}

func (a *admin) SpoolStats() api.SpoolStats {
	s := a.r.spool.Stats()
	out := api.SpoolStats{
		Accepted: s.Accepted, Delivered: s.Delivered, Bounced: s.Bounced, Expired: s.Expired, Suppressed: s.Suppressed,
		Cancelled: s.Cancelled, Queued: uint64(s.Queued()), Segments: s.Extents, JournalSize: s.JournalBytes,
		LiveSize: s.LiveBytes, MemoryBody: s.BodyBytes, MemoryIndex: a.r.spool.IndexMemory(), Damaged: len(a.d.journal.Damage()),
	}
	return out
}

func apiQueue(q *queue.Info) api.Queue {
	return api.Queue{
		Tenant: q.Key.Tenant, Domain: q.Key.Domain, Waiting: q.Waiting, Claimed: q.Claimed, Held: q.Held,
		Oldest: timeOrNil(q.Oldest), NextDue: timeOrNil(q.NextDue), Sessions: q.Active, Why: apiWhy(q.Why),
	}
}

func apiWhy(w queue.Why) api.Why {
	return api.Why{Code: w.Code.String(), Text: w.Text, Until: timeOrNil(w.Until)}
}

func apiEntry(e *spool.Entry, why queue.Why) api.Entry {
	m := e.Message
	out := api.Entry{
		ID: e.ID().String(), Message: m.ID.String(), Tenant: m.Tenant, Queue: e.Queue().Domain,
		Sender: m.From.Path.String(), Recipient: e.Recipient().Path.String(), State: e.State.String(),
		Size: m.Size, Received: m.Received, Expires: m.Expires, Attempts: e.Attempts, LastAttempt: timeOrNil(e.LastAttempt),
		LastReply: e.Last.Reply.String(), LastHost: e.Last.Host, Why: apiWhy(why),
	}
	if e.Last.Reason != 0 {
		out.LastReason = e.Last.Reason.String()
	}
	if out.LastReply == "" {
		out.LastReply = e.Last.Explanation
	}
	if e.State == spool.Waiting {
		out.NextAttempt = timeOrNil(e.Due)
	}
	return out
}

// timelineEvent tells an event to a person.
func timelineEvent(e *event.Event) api.TimelineEvent {
	var text []string
	add := func(format string, args ...any) { text = append(text, fmt.Sprintf(format, args...)) }
	switch e.Type {
	case event.Accepted:
		add("from %s, %d bytes, by %s from %s", e.Sender, e.Size, e.Listener, e.Client)
		if e.Auth != "" {
			add("%s", e.Auth)
		}
	case event.Attempted:
		add("attempt %d", e.Attempt)
	}
	if e.MX != "" {
		add("%s [%s]", e.MX, e.Address)
	}
	if e.Reply.Code != 0 {
		add("answered %s", strings.TrimSpace(fmt.Sprintf("%d %s %s", e.Reply.Code, e.Reply.Enhanced, e.Reply.Text)))
	} else if e.Explanation != "" {
		add("%s", e.Explanation)
	} else if e.Reason != 0 && e.Type != event.Accepted && e.Type != event.Delivered {
		add("%s", e.Reason.Explain())
	}
	if !e.NextAttempt.IsZero() {
		add("next attempt in %s", e.NextAttempt.Sub(e.Time).Round(100*time.Millisecond))
	}
	if t := time.Duration(e.Timings.Total); t > 0 {
		add("took %s", t.Round(100*time.Microsecond))
	}
	return api.TimelineEvent{Time: e.Time, Type: e.Type.String(), Recipient: e.Recipient, Text: strings.Join(text, ", "), Raw: e}
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func notFound(format string, args ...any) *api.Problem {
	return &api.Problem{Status: http.StatusNotFound, Title: "Not found", Detail: fmt.Sprintf(format, args...)}
}
