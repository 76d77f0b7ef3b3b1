package reports

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/api"
)

// Bounds on a summary.
const (
	maxSummed    = 5_000  // reports that are read for it, the latest ones
	maxSources   = 1_000  // told of one domain
	maxGathered  = 50_000 // sources counted, of all domains
	defaultSpan  = 30 * 24 * time.Hour
	maxToldTypes = 200
)

// Summary sums up what reports say, for each domain.
func (r *Reports) Summary(ctx context.Context, q api.ReportSummaryQuery) (api.ReportSummaryList, error) {
	if q.Since.IsZero() {
		q.Since = time.Now().Add(-defaultSpan)
	}
	out := api.ReportSummaryList{Since: q.Since.UTC().Truncate(time.Second), Domains: []api.ReportSummary{}}
	list, err := r.List(ctx, api.ReportQuery{Domain: q.Domain, Since: q.Since, Limit: maxSummed})
	if err != nil {
		return out, err
	}
	out.More = list.More
	sums := make(map[string]*sum)
	gathered := 0
	for i := range list.Reports {
		rep, err := r.Show(ctx, list.Reports[i].ID)
		if err != nil {
			continue // removed meanwhile
		}
		s := sums[rep.Domain]
		if s == nil {
			s = &sum{sources: make(map[string]*api.DMARCSource), failures: make(map[api.TLSFailure]int64)}
			sums[rep.Domain] = s
		}
		before := len(s.sources) + len(s.failures)
		s.add(&rep, maxGathered-gathered)
		gathered += len(s.sources) + len(s.failures) - before
	}
	for domain, s := range sums {
		out.Domains = append(out.Domains, s.summary(domain))
	}
	slices.SortFunc(out.Domains, func(a, b api.ReportSummary) int { return strings.Compare(a.Domain, b.Domain) })
	return out, nil
}

// sum is a summary under way.
type sum struct {
	dmarc    api.DMARCSummary
	tls      api.TLSSummary
	sources  map[string]*api.DMARCSource
	failures map[api.TLSFailure]int64
}

func (s *sum) add(rep *api.Report, room int) {
	if d := rep.DMARC; d != nil {
		s.dmarc.Reports++
		s.dmarc.Messages += rep.Total
		s.dmarc.Passed += rep.Total - rep.Failed
		s.dmarc.More += d.More
		for i := range d.Rows {
			s.row(&d.Rows[i], room)
		}
	}
	if t := rep.TLS; t != nil {
		s.tls.Reports++
		s.tls.Successful += rep.Total - rep.Failed
		s.tls.Failed += rep.Failed
		for i := range t.Failures {
			f := t.Failures[i]
			key := api.TLSFailure{Type: f.Type, Host: f.Host}
			if _, ok := s.failures[key]; ok || len(s.failures)+len(s.sources) < room {
				s.failures[key] += f.Sessions
			}
		}
	}
}

func (s *sum) row(row *api.DMARCRow, room int) {
	if row.DKIM {
		s.dmarc.DKIM += row.Messages
	}
	if row.SPF {
		s.dmarc.SPF += row.Messages
	}
	src := s.sources[row.Source]
	if src == nil {
		if len(s.sources)+len(s.failures) >= room {
			s.dmarc.More += row.Messages
			return
		}
		src = &api.DMARCSource{Source: row.Source}
		s.sources[row.Source] = src
	}
	src.Messages += row.Messages
	if row.DKIM {
		src.DKIM += row.Messages
	}
	if row.SPF {
		src.SPF += row.Messages
	}
	if row.DKIM || row.SPF {
		src.Passed += row.Messages
	}
	if row.Disposition == "quarantine" || row.Disposition == "reject" {
		src.Refused += row.Messages
	}
}

func (s *sum) summary(domain string) api.ReportSummary {
	out := api.ReportSummary{Domain: domain}
	if s.dmarc.Reports > 0 {
		d := s.dmarc
		d.Sources = []api.DMARCSource{}
		for _, src := range s.sources {
			d.Sources = append(d.Sources, *src)
		}
		slices.SortFunc(d.Sources, func(a, b api.DMARCSource) int {
			return cmp.Or(cmp.Compare(b.Messages, a.Messages), strings.Compare(a.Source, b.Source))
		})
		for _, src := range d.Sources[min(len(d.Sources), maxSources):] {
			d.More += src.Messages
		}
		d.Sources = d.Sources[:min(len(d.Sources), maxSources)]
		out.DMARC = &d
	}
	if s.tls.Reports > 0 {
		t := s.tls
		t.Failures = []api.TLSFailure{}
		for f, n := range s.failures {
			f.Sessions = n
			t.Failures = append(t.Failures, f)
		}
		slices.SortFunc(t.Failures, func(a, b api.TLSFailure) int {
			return cmp.Or(cmp.Compare(b.Sessions, a.Sessions), strings.Compare(a.Type, b.Type), strings.Compare(a.Host, b.Host))
		})
		t.Failures = t.Failures[:min(len(t.Failures), maxToldTypes)]
		out.TLS = &t
	}
	return out
}
