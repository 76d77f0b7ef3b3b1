package reports

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/mailauth/tlsrpt"
)

// outgoing yields the reports that are made, in no order.
func (r *Reports) outgoing(ctx context.Context, each func(*outgoing)) error {
	for kv, err := range r.o.Store.Scan(ctx, outPrefix) {
		if err != nil {
			return fmt.Errorf("reports: %w", err)
		}
		var o outgoing
		if err := json.Unmarshal(kv.Value, &o); err != nil {
			return fmt.Errorf("reports: %s: %w", kv.Key, err)
		}
		each(&o)
	}
	return nil
}

// Outgoing returns reports that go out or went, the latest first, after those of the day that is not over.
func (r *Reports) Outgoing(ctx context.Context, limit int) (api.SentReportList, error) {
	out := api.SentReportList{Sent: []api.SentReport{}}
	for _, o := range r.counting("", time.Now()) {
		out.Sent = append(out.Sent, apiSent(&o, "counting"))
	}
	err := r.outgoing(ctx, func(o *outgoing) { out.Sent = append(out.Sent, apiSent(o, string(o.State))) })
	slices.SortFunc(out.Sent, func(a, b api.SentReport) int {
		return cmp.Or(b.End.Compare(a.End), strings.Compare(a.Domain, b.Domain), strings.Compare(a.ID, b.ID))
	})
	if limit = cmp.Or(limit, defaultListed); len(out.Sent) > limit {
		out.Sent, out.More = slices.Clone(out.Sent[:limit]), true
	}
	return out, err
}

// counting returns what would be the reports of what is counted now.
func (r *Reports) counting(domain string, now time.Time) []outgoing {
	t := &r.tallies
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []outgoing
	for k, c := range t.m {
		if c.wanted == wantsNot || len(c.policies) == 0 || domain != "" && k.domain != domain {
			continue
		}
		end := k.day.Add(r.o.Day)
		if now.Before(end) {
			end = now.Truncate(time.Second)
		}
		policies := make([]tlsrpt.Policy, len(c.policies))
		for i, p := range c.policies {
			p.Failures = slices.Clone(p.Failures)
			policies[i] = p
		}
		list = append(list, outgoing{ID: r.reportID(k, c), Domain: k.domain, Start: c.start, End: end, Policies: policies, Omitted: c.omitted})
	}
	slices.SortFunc(list, func(a, b outgoing) int { return strings.Compare(a.ID, b.ID) })
	return list
}

func (r *Reports) reportID(k tallyKey, c *tally) string {
	return c.start.Format("20060102T150405Z") + "." + k.domain + "@" + r.o.Hostname
}

func apiSent(o *outgoing, state string) api.SentReport {
	out := api.SentReport{
		ID: o.ID, Domain: o.Domain, Begin: o.Start, End: o.End, Successful: o.Successful, Failed: o.Failed, State: state,
		Tries: o.Tries, Problem: o.Problem, To: []api.SentTo{},
	}
	if len(o.Policies) > 0 {
		s := (&tlsrpt.Report{Policies: o.Policies}).Totals()
		out.Successful, out.Failed = s.Successful, s.Failed
	}
	if o.State == waiting {
		out.Next = &o.Next
	}
	for _, t := range o.Targets {
		out.To = append(out.To, api.SentTo{URI: t.To, State: string(t.State), Message: t.Message, Problem: t.Problem})
	}
	return out
}

// maxDryRun bounds what a dry run shows.
const maxDryRun = 200

// Send sends at once what waits for its time, and, if today is asked for, what was counted since midnight; then the rest of
// the day is a report of its own. With DryRun nothing is sent, and the answer has the reports as they would go.
func (r *Reports) Send(ctx context.Context, s api.SendReports) (api.SentReportList, error) {
	out := api.SentReportList{Sent: []api.SentReport{}}
	if s.DryRun {
		return r.dryRun(ctx, s)
	}
	now := time.Now()
	if err := r.closeDays(ctx, now); err != nil {
		return out, err
	}
	if s.Today {
		if err := r.closeToday(ctx, s.Domain, now.UTC().Truncate(time.Second)); err != nil {
			return out, err
		}
	}
	ids := r.due.until(time.Time{})
	if s.Domain != "" {
		ids = slices.DeleteFunc(ids, func(id string) bool { return domainOf(id) != s.Domain })
	}
	list, err := r.sendAll(ctx, ids)
	for i := range list {
		out.Sent = append(out.Sent, apiSent(&list[i], string(list[i].State)))
	}
	return out, err
}

// domainOf takes the domain out of the id of a report of ours.
func domainOf(id string) string {
	_, rest, _ := strings.Cut(id, ".")
	domain, _, _ := strings.Cut(rest, "@")
	return domain
}

// closeToday makes reports of what was counted so far.
func (r *Reports) closeToday(ctx context.Context, domain string, now time.Time) error {
	done, err := r.hold(ctx)
	if err != nil {
		return err
	}
	defer done()
	over := func(k tallyKey) (time.Time, bool) {
		return now, (domain == "" || k.domain == domain) && now.Sub(k.day) >= time.Second
	}
	return r.closeHeld(ctx, over, func(string) time.Duration { return 0 })
}

func (r *Reports) dryRun(ctx context.Context, s api.SendReports) (api.SentReportList, error) {
	out := api.SentReportList{Sent: []api.SentReport{}}
	list := r.counting(s.Domain, time.Now())
	err := r.outgoing(ctx, func(o *outgoing) {
		if o.State == waiting && (s.Domain == "" || o.Domain == s.Domain) && len(list) < maxDryRun {
			list = append(list, *o)
		}
	})
	if err != nil {
		return out, err
	}
	out.More = len(list) > maxDryRun
	for i := range list[:min(len(list), maxDryRun)] {
		o := &list[i]
		sent := apiSent(o, string(cmp.Or(o.State, "counting")))
		if len(o.Targets) == 0 {
			rec, err := r.record(ctx, o.Domain)
			if err != nil {
				sent.Problem = clip(err.Error())
			} else {
				for _, d := range rec.Destinations {
					sent.To = append(sent.To, api.SentTo{URI: d.String(), State: string(waiting)})
				}
			}
		}
		if sent.Report, err = r.report(o).JSON(); err != nil {
			return out, err
		}
		out.Sent = append(out.Sent, sent)
	}
	return out, nil
}
