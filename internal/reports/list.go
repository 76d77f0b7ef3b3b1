package reports

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/internal/store"
)

// ErrNotFound says that there is no such report.
var ErrNotFound = errors.New("reports: no such report")

const defaultListed = 100

// heads yields what came in, in no order.
func (r *Reports) heads(ctx context.Context, each func(*api.Report)) error {
	for kv, err := range r.o.Store.Scan(ctx, headPrefix) {
		if err != nil {
			return fmt.Errorf("reports: %w", err)
		}
		var rep api.Report
		if err := json.Unmarshal(kv.Value, &rep); err != nil {
			return fmt.Errorf("reports: %s: %w", kv.Key, err)
		}
		each(&rep)
	}
	return nil
}

func selected(rep *api.Report, kind, domain string, since time.Time) bool {
	return (kind == "" || rep.Kind == kind) && (domain == "" || rep.Domain == domain) && (since.IsZero() || rep.End.After(since))
}

// List returns reports that came in, the latest first.
func (r *Reports) List(ctx context.Context, q api.ReportQuery) (api.ReportList, error) {
	out := api.ReportList{Reports: []api.Report{}}
	limit := cmp.Or(q.Limit, defaultListed)
	err := r.heads(ctx, func(rep *api.Report) {
		if selected(rep, q.Kind, q.Domain, q.Since) {
			out.Reports = append(out.Reports, *rep)
		}
	})
	slices.SortFunc(out.Reports, latest)
	if len(out.Reports) > limit {
		out.Reports, out.More = slices.Clone(out.Reports[:limit]), true
	}
	return out, err
}

func latest(a, b api.Report) int {
	return cmp.Or(b.End.Compare(a.End), b.Received.Compare(a.Received), strings.Compare(a.ID, b.ID))
}

// Show returns one report with all that is kept of it, or ErrNotFound. id may be the begin of one, if no other begins so.
func (r *Reports) Show(ctx context.Context, id string) (api.Report, error) {
	var found []string
	if len(id) >= 4 {
		for kv, err := range r.o.Store.Scan(ctx, headPrefix+id) {
			if err != nil {
				return api.Report{}, fmt.Errorf("reports: %w", err)
			}
			found = append(found, strings.TrimPrefix(kv.Key, headPrefix))
		}
	}
	if len(found) != 1 {
		return api.Report{}, ErrNotFound
	}
	var out api.Report
	for _, prefix := range []string{headPrefix, bodyPrefix} {
		kv, err := r.o.Store.Get(ctx, prefix+found[0])
		if errors.Is(err, store.ErrNotFound) {
			return api.Report{}, ErrNotFound
		}
		if err != nil {
			return api.Report{}, fmt.Errorf("reports: %w", err)
		}
		var part api.Report
		if err := json.Unmarshal(kv.Value, &part); err != nil {
			return api.Report{}, fmt.Errorf("reports: %s: %w", kv.Key, err)
		}
		if prefix == headPrefix {
			out = part
		} else {
			out.DMARC, out.TLS = part.DMARC, part.TLS
		}
	}
	return out, nil
}

// Unread returns what could not be read, the latest first.
func (r *Reports) Unread(ctx context.Context) (api.UnreadReportList, error) {
	out := api.UnreadReportList{Unread: []api.UnreadReport{}}
	for kv, err := range r.o.Store.Scan(ctx, unreadPrefix) {
		if err != nil {
			return out, fmt.Errorf("reports: %w", err)
		}
		var u api.UnreadReport
		if err := json.Unmarshal(kv.Value, &u); err != nil {
			return out, fmt.Errorf("reports: %s: %w", kv.Key, err)
		}
		out.Unread = append(out.Unread, u)
	}
	slices.Reverse(out.Unread)
	return out, nil
}

// prune removes what is too old, and the oldest of what is too much.
func (r *Reports) prune(ctx context.Context, now time.Time) error {
	keep := r.settings.Load().Keep
	type old struct {
		id string
		at time.Time
	}
	var all []old
	if err := r.heads(ctx, func(rep *api.Report) { all = append(all, old{rep.ID, rep.Received}) }); err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b old) int { return b.at.Compare(a.at) })
	var gone []string
	for i, o := range all {
		if i >= r.o.MaxReports || now.Sub(o.at) > keep {
			gone = append(gone, headPrefix+o.id, bodyPrefix+o.id)
		}
	}
	all = all[:0]
	err := r.outgoing(ctx, func(o *outgoing) {
		if o.State != waiting {
			all = append(all, old{o.ID, o.End})
		}
	})
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b old) int { return b.at.Compare(a.at) })
	for i, o := range all {
		if i >= r.o.MaxReports || now.Sub(o.at) > keep {
			gone = append(gone, outPrefix+o.id)
		}
	}
	for part := range slices.Chunk(gone, 1000) {
		var b store.Batch
		for _, key := range part {
			b.Delete(key)
		}
		if _, err := r.o.Store.Apply(ctx, &b); err != nil {
			return err
		}
	}
	return nil
}
