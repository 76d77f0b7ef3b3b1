package api

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// ReportQuery selects reports that came in. The zero value asks for the latest 100 of all kinds.
type ReportQuery struct {
	Kind   string    // tls or dmarc
	Domain string    // that they are about
	Since  time.Time // whose time ends later
	Limit  int       // 1 to 1000; 0 is 100
}

// ReportList is reports that came in, the latest first.
type ReportList struct {
	Reports []Report `json:"reports"`
	More    bool     `json:"more"` // there are others
}

// Report is one report that came in. DMARC or TLS is set where one report is shown.
type Report struct {
	ID           string    `json:"id"`
	Kind         string    `json:"kind"` // tls or dmarc
	Organization string    `json:"organization"`
	ReportID     string    `json:"report_id"`
	Contact      string    `json:"contact,omitempty"`
	Domain       string    `json:"domain"`
	Begin        time.Time `json:"begin"`
	End          time.Time `json:"end"`
	Received     time.Time `json:"received"`
	Sender       string    `json:"sender,omitempty"`    // of the message it came in, as it claims; empty: imported
	SignedBy     []string  `json:"signed_by,omitempty"` // domains whose DKIM signature held
	Message      string    `json:"message,omitempty"`   // id of the message
	Total        int64     `json:"total"`               // messages, or sessions
	Failed       int64     `json:"failed"`              // of these, messages that did not pass DMARC, or sessions that failed

	DMARC *DMARCReport `json:"dmarc,omitempty"`
	TLS   *TLSReport   `json:"tls,omitempty"`
}

// DMARCReport is what a DMARC aggregate report says.
type DMARCReport struct {
	Policy     string     `json:"policy,omitempty"`     // p
	Subdomains string     `json:"subdomains,omitempty"` // sp
	DKIM       string     `json:"adkim,omitempty"`
	SPF        string     `json:"aspf,omitempty"`
	Errors     []string   `json:"errors,omitempty"`
	Rows       []DMARCRow `json:"rows"`
	More       int64      `json:"more,omitempty"` // messages of rows that are not kept
}

// DMARCRow is messages that were alike.
type DMARCRow struct {
	Source      string `json:"source"` // address they came from
	HeaderFrom  string `json:"header_from,omitempty"`
	Messages    int64  `json:"messages"`
	DKIM        bool   `json:"dkim"` // passed and aligned
	SPF         bool   `json:"spf"`  // passed and aligned
	Disposition string `json:"disposition,omitempty"`
	Reason      string `json:"reason,omitempty"` // why the policy was not applied
}

// TLSReport is what a TLS report says.
type TLSReport struct {
	Policies []TLSPolicy  `json:"policies"`
	Failures []TLSFailure `json:"failures"`
	More     int64        `json:"more,omitempty"` // failed sessions of details that are not kept
}

// TLSPolicy is sessions under one policy.
type TLSPolicy struct {
	Type       string   `json:"type"` // tlsa, sts, no-policy-found
	Domain     string   `json:"domain"`
	Hosts      []string `json:"hosts,omitempty"`
	Successful int64    `json:"successful"`
	Failed     int64    `json:"failed"`
}

// TLSFailure is sessions that failed in one way.
type TLSFailure struct {
	Type     string `json:"type"`             // result type of RFC 8460, 4.3
	Host     string `json:"host,omitempty"`   // the receiving one
	Sender   string `json:"sender,omitempty"` // address of the sending host
	Reason   string `json:"reason,omitempty"`
	Sessions int64  `json:"sessions"`
}

// ReportSummaryQuery selects what is summed up. The zero value is all domains over 30 days.
type ReportSummaryQuery struct {
	Domain string
	Since  time.Time
}

// ReportSummaryList has one summary for each domain that reports are about.
type ReportSummaryList struct {
	Since   time.Time       `json:"since"`
	Domains []ReportSummary `json:"domains"`
	More    bool            `json:"more"` // there is more than was read
}

// ReportSummary is what all reports say about one domain.
type ReportSummary struct {
	Domain string        `json:"domain"`
	DMARC  *DMARCSummary `json:"dmarc,omitempty"`
	TLS    *TLSSummary   `json:"tls,omitempty"`
}

// DMARCSummary counts messages.
type DMARCSummary struct {
	Reports  int           `json:"reports"`
	Messages int64         `json:"messages"`
	Passed   int64         `json:"passed"`
	DKIM     int64         `json:"dkim"` // passed and aligned
	SPF      int64         `json:"spf"`
	Sources  []DMARCSource `json:"sources"`        // the most messages first
	More     int64         `json:"more,omitempty"` // messages from sources that are not listed
}

// DMARCSource counts the messages of one address.
type DMARCSource struct {
	Source   string `json:"source"`
	Messages int64  `json:"messages"`
	Passed   int64  `json:"passed"`
	DKIM     int64  `json:"dkim"`
	SPF      int64  `json:"spf"`
	Refused  int64  `json:"refused"` // put into quarantine or rejected
}

// TLSSummary counts sessions.
type TLSSummary struct {
	Reports    int          `json:"reports"`
	Successful int64        `json:"successful"`
	Failed     int64        `json:"failed"`
	Failures   []TLSFailure `json:"failures"` // by type and receiving host, the most sessions first
}

// UnreadReportList is what came in as a report and could not be read: the latest few.
type UnreadReportList struct {
	Unread []UnreadReport `json:"unread"`
}

// UnreadReport is a message that came in as a report and could not be read.
type UnreadReport struct {
	Received time.Time `json:"received"`
	Sender   string    `json:"sender,omitempty"`
	Message  string    `json:"message,omitempty"`
	Problem  string    `json:"problem"`
	Sample   string    `json:"sample"` // its begin
}

// ReportImport says what became of a file.
type ReportImport struct {
	Reports    []Report `json:"reports"`
	Duplicates int      `json:"duplicates"` // were known already
}

// SentReportList is the reports that go out, the latest first.
type SentReportList struct {
	Sent []SentReport `json:"sent"`
	More bool         `json:"more"`
}

// SentReport is a TLS report of ours.
type SentReport struct {
	ID         string          `json:"id"`
	Domain     string          `json:"domain"`
	Begin      time.Time       `json:"begin"`
	End        time.Time       `json:"end"`
	Successful int64           `json:"successful"`
	Failed     int64           `json:"failed"`
	State      string          `json:"state"` // counting, waiting, sent, failed, unwanted
	Next       *time.Time      `json:"next,omitempty"`
	Tries      int             `json:"tries,omitempty"`
	Problem    string          `json:"problem,omitempty"`
	To         []SentTo        `json:"to"`
	Report     json.RawMessage `json:"report,omitempty"` // as it would be sent; of a dry run alone
}

// SentTo is one destination of a report.
type SentTo struct {
	URI     string `json:"uri"`
	State   string `json:"state"`
	Message string `json:"message,omitempty"` // id of the message that carries it
	Problem string `json:"problem,omitempty"`
}

// SendReports asks for TLS reports to be sent now.
type SendReports struct {
	Domain string `json:"domain,omitempty"` // only of this one
	Today  bool   `json:"today,omitempty"`  // also what was counted since midnight UTC
	DryRun bool   `json:"dry_run,omitempty"`
}

// Reports lists reports that came in.
func (c *Client) Reports(ctx context.Context, q ReportQuery) (ReportList, error) {
	v := url.Values{}
	set(v, "kind", q.Kind)
	set(v, "domain", q.Domain)
	if !q.Since.IsZero() {
		v.Set("since", q.Since.Format(time.RFC3339))
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return call[ReportList](ctx, c, http.MethodGet, "/v1/reports?"+v.Encode(), nil)
}

// Report shows one report that came in.
func (c *Client) Report(ctx context.Context, id string) (Report, error) {
	return call[Report](ctx, c, http.MethodGet, "/v1/reports/"+url.PathEscape(id), nil)
}

// ReportSummary sums up what reports say.
func (c *Client) ReportSummary(ctx context.Context, q ReportSummaryQuery) (ReportSummaryList, error) {
	v := url.Values{}
	set(v, "domain", q.Domain)
	if !q.Since.IsZero() {
		v.Set("since", q.Since.Format(time.RFC3339))
	}
	return call[ReportSummaryList](ctx, c, http.MethodGet, "/v1/report-summary?"+v.Encode(), nil)
}

// UnreadReports lists what came in as a report and could not be read.
func (c *Client) UnreadReports(ctx context.Context) (UnreadReportList, error) {
	return call[UnreadReportList](ctx, c, http.MethodGet, "/v1/reports-unread", nil)
}

// SentReports lists reports that go out, or went.
func (c *Client) SentReports(ctx context.Context, limit int) (SentReportList, error) {
	v := url.Values{}
	if limit > 0 {
		v.Set("limit", strconv.Itoa(limit))
	}
	return call[SentReportList](ctx, c, http.MethodGet, "/v1/reports-sent?"+v.Encode(), nil)
}

// SendReports sends TLS reports now, or tells what would be sent.
func (c *Client) SendReports(ctx context.Context, s SendReports) (SentReportList, error) {
	return call[SentReportList](ctx, c, http.MethodPost, "/v1/reports-sent", s)
}

// ImportReport hands the server a file with reports: a message, XML, JSON, in gzip or zip if need be.
func (c *Client) ImportReport(ctx context.Context, name string, file []byte) (ReportImport, error) {
	path := "/v1/reports?" + url.Values{"name": {name}}.Encode()
	return send[ReportImport](ctx, c, http.MethodPost, path, "application/octet-stream", bytes.NewReader(file))
}
