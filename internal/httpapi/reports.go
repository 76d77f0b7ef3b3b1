package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/internal/reports"
	"github.com/godwit-mta/godwit/smtp"
)

// Reports is what is asked of reports; *reports.Reports is one.
type Reports interface {
	List(ctx context.Context, q api.ReportQuery) (api.ReportList, error)
	Show(ctx context.Context, id string) (api.Report, error)
	Summary(ctx context.Context, q api.ReportSummaryQuery) (api.ReportSummaryList, error)
	Unread(ctx context.Context) (api.UnreadReportList, error)
	Outgoing(ctx context.Context, limit int) (api.SentReportList, error)
	Send(ctx context.Context, s api.SendReports) (api.SentReportList, error)
	Import(ctx context.Context, name string, file []byte) (reports.Taken, error)
}

// maxReportFile bounds a file to be imported.
const maxReportFile = 25 << 20

// reportRoutes are the lines of the table for reports. They are about all domains, so callers of one tenant see none.
func (h *handler) reportRoutes() []route {
	if h.reports == nil {
		return nil
	}
	return []route{
		{"GET /v1/reports", Viewer, false, h.listReports},
		{"GET /v1/reports/{id}", Viewer, false, h.showReport},
		{"GET /v1/report-summary", Viewer, false, h.summarizeReports},
		{"GET /v1/reports-unread", Viewer, false, func(c *call) (any, error) { return h.reports.Unread(c.Context()) }},
		{"GET /v1/reports-sent", Viewer, false, h.sentReports},
		{"POST /v1/reports-sent", Operator, false, h.sendReports},
		{"POST /v1/reports", Operator, false, h.importReport},
	}
}

func reportDomain(v url.Values) (string, error) {
	s := v.Get("domain")
	if s == "" {
		return "", nil
	}
	d, err := smtp.DomainToASCII(s)
	if err != nil {
		return "", problem(http.StatusUnprocessableEntity, "%q is no domain", s)
	}
	return d, nil
}

func since(v url.Values) (time.Time, error) {
	s := v.Get("since")
	if s == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return t, problem(http.StatusUnprocessableEntity, "since %q is not a time such as 2026-11-22T10:00:00Z", s)
	}
	return t, nil
}

func (h *handler) listReports(c *call) (any, error) {
	v := c.URL.Query()
	q := api.ReportQuery{Kind: v.Get("kind")}
	if q.Kind != "" && q.Kind != "tls" && q.Kind != "dmarc" {
		return nil, problem(http.StatusUnprocessableEntity, "kind %q is not one of tls, dmarc", q.Kind)
	}
	var err error
	if q.Limit, err = number(v.Get("limit"), 100, maxShown); err != nil {
		return nil, err
	}
	if q.Domain, err = reportDomain(v); err != nil {
		return nil, err
	}
	if q.Since, err = since(v); err != nil {
		return nil, err
	}
	return h.reports.List(c.Context(), q)
}

func (h *handler) showReport(c *call) (any, error) {
	rep, err := h.reports.Show(c.Context(), c.PathValue("id"))
	if errors.Is(err, reports.ErrNotFound) {
		return nil, problem(http.StatusNotFound, "no report %s, or the ids of several begin like this", c.PathValue("id"))
	}
	return rep, err
}

func (h *handler) summarizeReports(c *call) (any, error) {
	v := c.URL.Query()
	var q api.ReportSummaryQuery
	var err error
	if q.Domain, err = reportDomain(v); err != nil {
		return nil, err
	}
	if q.Since, err = since(v); err != nil {
		return nil, err
	}
	return h.reports.Summary(c.Context(), q)
}

func (h *handler) sentReports(c *call) (any, error) {
	n, err := number(c.URL.Query().Get("limit"), 100, maxShown)
	if err != nil {
		return nil, err
	}
	return h.reports.Outgoing(c.Context(), n)
}

// sendReports sends what waits for its time; that somebody did is on record. A dry run changes nothing and is not.
func (h *handler) sendReports(c *call) (any, error) {
	var s api.SendReports
	dec := json.NewDecoder(http.MaxBytesReader(nil, c.Body, maxRequest))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return nil, problem(http.StatusBadRequest, "the request cannot be read: %v", err)
	}
	if s.Domain != "" {
		d, err := smtp.DomainToASCII(s.Domain)
		if err != nil {
			return nil, problem(http.StatusUnprocessableEntity, "%q is no domain", s.Domain)
		}
		s.Domain = d
	}
	if s.DryRun {
		return h.reports.Send(c.Context(), s)
	}
	act := c.Caller.Act("reports.send", s.Domain)
	act.After = s
	var out api.SentReportList
	err := h.auditor.Do(c.Context(), act, func(ctx context.Context) (any, error) {
		var err error
		out, err = h.reports.Send(ctx, s)
		return struct {
			Reports int `json:"reports"`
		}{len(out.Sent)}, err
	})
	return out, err
}

// importReport takes in a file.
func (h *handler) importReport(c *call) (any, error) {
	file, err := io.ReadAll(http.MaxBytesReader(nil, c.Body, maxReportFile))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return nil, problem(http.StatusRequestEntityTooLarge, "the file is larger than %d MiB", maxReportFile>>20)
	}
	if err != nil {
		return nil, problem(http.StatusBadRequest, "the file was not read: %v", err)
	}
	name := c.URL.Query().Get("name")
	if i := strings.LastIndexAny(name, `/\`); i >= 0 {
		name = name[i+1:]
	}
	name = strings.ToValidUTF8(name[:min(len(name), 200)], "?")
	out := api.ReportImport{Reports: []api.Report{}}
	err = h.auditor.Do(c.Context(), c.Caller.Act("reports.import", name), func(ctx context.Context) (any, error) {
		t, err := h.reports.Import(ctx, name, file)
		out.Reports = append(out.Reports, t.Reports...)
		out.Duplicates = t.Duplicates
		return struct {
			Reports    int `json:"reports"`
			Duplicates int `json:"duplicates"`
		}{len(out.Reports), t.Duplicates}, err
	})
	var unreadable *reports.UnreadableError
	if errors.As(err, &unreadable) {
		return nil, problem(http.StatusUnprocessableEntity, "%v", unreadable)
	}
	return out, err
}
