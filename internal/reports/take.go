package reports

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/store"
	"github.com/godwit-mta/godwit/mailauth/dmarc/aggregate"
	"github.com/godwit-mta/godwit/mailauth/enclosure"
	"github.com/godwit-mta/godwit/mailauth/tlsrpt"
	"github.com/godwit-mta/godwit/smtp"
)

// What came in is kept as a head, which lists are made of, a body with the counts, and the begin of what could not be read.
const (
	headPrefix   = "reports/in/head/"
	bodyPrefix   = "reports/in/body/"
	unreadPrefix = "reports/in/unread/"
)

// Kinds of reports.
const (
	kindTLS   = "tls"
	kindDMARC = "dmarc"
)

// Bounds on what is kept of one report.
const (
	maxRows   = 1000 // of DMARC
	maxKept   = 300  // policies, and failures, of TLS
	maxName   = 200  // octets of names
	maxUnread = 20
	maxSample = 2 << 10
)

// Incoming is a message to one of the addresses for reports.
type Incoming struct {
	Message   string    // its id
	Sender    string    // reverse-path
	Recipient string    // the address
	Received  time.Time // when it was accepted
	Body      *smtp.Body
}

// Taken says what became of it.
type Taken struct {
	Reports    []api.Report // new ones
	Duplicates int
	Problem    string // why nothing was taken; empty: something was
}

// String tells it in one line.
func (t *Taken) String() string {
	var lines []string
	for i := range t.Reports {
		lines = append(lines, describe(&t.Reports[i]))
	}
	if t.Duplicates > 0 {
		lines = append(lines, fmt.Sprintf("%d known already", t.Duplicates))
	}
	if t.Problem != "" {
		lines = append(lines, "not read: "+t.Problem)
	}
	return strings.Join(lines, "; ")
}

func describe(r *api.Report) string {
	what, bad := "messages", "did not pass"
	if r.Kind == kindTLS {
		what, bad = "sessions", "failed"
	}
	return fmt.Sprintf("%s report of %s about %s, %s: %d %s, %d %s", r.Kind, r.Organization, r.Domain,
		r.Begin.Format(time.DateOnly), r.Total, what, r.Failed, bad)
}

// Takes reports whether mail to this address is taken in. The domain is in lower case, in A-labels. It is asked for every entry, and
// allocates only for those in a domain that has such an address.
func (r *Reports) Takes(local, domain string) bool {
	s := r.settings.Load()
	if _, ok := s.domains[domain]; !ok {
		return false
	}
	_, ok := s.addresses[addressKey(local, domain)]
	return ok
}

// Take reads a message and keeps what it reports. What is no report is noted, in part, and is no error: the error says that nothing
// could be kept now. One message is read at a time.
func (r *Reports) Take(ctx context.Context, in *Incoming) (Taken, error) {
	select {
	case r.reading <- struct{}{}:
		defer func() { <-r.reading }()
	case <-ctx.Done():
		return Taken{}, ctx.Err()
	}
	if !r.admit(time.Now()) {
		r.metrics.taken.WithLabelValues("dropped").Inc()
		return Taken{Problem: "more reports came in today than are taken in a day"}, nil
	}
	found, fault := read(func(visit func(*enclosure.Document) error) error {
		return enclosure.FromMessage(in.Body.Reader(), enclosure.Limits{}, visit)
	})
	var signed []string
	if r.o.Verify != nil && len(found) > 0 {
		signed = r.o.Verify(ctx, in.Body.AppendPieces(nil))
		signed = signed[:min(len(signed), 10)]
	}
	for i := range found {
		found[i].Sender, found[i].Message, found[i].SignedBy = clipTo(in.Sender, maxName), in.Message, signed
	}
	t, err := r.keep(ctx, found)
	if err != nil {
		return t, err
	}
	if fault != nil && len(found) == 0 {
		t.Problem = clip(fault.Error())
		r.metrics.taken.WithLabelValues("unreadable").Inc()
		sample, _ := io.ReadAll(io.LimitReader(in.Body.Reader(), maxSample)) // what can be read of it
		if err := r.noteUnread(ctx, in, t.Problem, sample); err != nil {
			return t, err
		}
	}
	for i := range t.Reports {
		r.tell(&t.Reports[i], in.Recipient)
	}
	return t, nil
}

// Import reads a file and keeps what it reports. The error says that it holds no report, or that nothing could be kept.
func (r *Reports) Import(ctx context.Context, name string, file []byte) (Taken, error) {
	select {
	case r.reading <- struct{}{}:
		defer func() { <-r.reading }()
	case <-ctx.Done():
		return Taken{}, ctx.Err()
	}
	found, fault := read(func(visit func(*enclosure.Document) error) error {
		return enclosure.FromFile(name, bytes.NewReader(file), enclosure.Limits{}, visit)
	})
	if fault != nil && len(found) == 0 {
		return Taken{}, &UnreadableError{fault}
	}
	t, err := r.keep(ctx, found)
	if err != nil {
		return t, err
	}
	for i := range t.Reports {
		r.tell(&t.Reports[i], "")
	}
	return t, nil
}

// UnreadableError says that what was to be imported is no report.
type UnreadableError struct{ err error }

func (e *UnreadableError) Error() string { return e.err.Error() }

// Unwrap returns the reason.
func (e *UnreadableError) Unwrap() error { return e.err }

// admit counts what comes by mail against the bound of a day.
func (r *Reports) admit(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if day := now.UTC().Truncate(24 * time.Hour); !day.Equal(r.mu.day) {
		r.mu.day, r.mu.taken, r.mu.dropped = day, 0, 0
	}
	if r.mu.taken >= r.o.MaxPerDay {
		r.mu.dropped++
		return false
	}
	r.mu.taken++
	return true
}

// read returns the reports that walk finds. One that is good counts, whatever else is wrong; the error says what was wrong first.
func read(walk func(func(*enclosure.Document) error) error) (found []api.Report, fault error) {
	err := walk(func(d *enclosure.Document) error {
		rep, err := parse(d)
		switch {
		case err == nil:
			found = append(found, rep)
		case errors.Is(err, enclosure.ErrTooLarge):
			return err
		case fault == nil:
			fault = err
		}
		return nil
	})
	if fault == nil {
		fault = err
	}
	return found, fault
}

func parse(d *enclosure.Document) (api.Report, error) {
	if d.Format == enclosure.JSON {
		rep, err := tlsrpt.Parse(d)
		if err != nil {
			return api.Report{}, err
		}
		return fromTLS(rep), nil
	}
	rep, err := aggregate.Parse(d)
	if err != nil {
		return api.Report{}, err
	}
	return fromDMARC(rep), nil
}

func fromTLS(in *tlsrpt.Report) api.Report {
	out := api.Report{
		Kind: kindTLS, Organization: clipTo(in.Organization, maxName), ReportID: clipTo(in.ID, maxName), Contact: clipTo(in.Contact, maxName),
		Begin: in.Range.Start, End: in.Range.End, TLS: &api.TLSReport{Policies: []api.TLSPolicy{}, Failures: []api.TLSFailure{}},
	}
	for i := range in.Policies {
		p := &in.Policies[i]
		domain := domainName(p.Policy.Domain)
		if out.Domain == "" {
			out.Domain = domain
		}
		out.Total += p.Summary.Successful + p.Summary.Failed
		out.Failed += p.Summary.Failed
		detailed := int64(0)
		if len(out.TLS.Policies) < maxKept {
			hosts := clipAll(p.Policy.Hosts)
			out.TLS.Policies = append(out.TLS.Policies, api.TLSPolicy{
				Type: clipTo(string(p.Policy.Type), maxName), Domain: domain, Hosts: hosts[:min(len(hosts), 10)],
				Successful: p.Summary.Successful, Failed: p.Summary.Failed,
			})
		}
		for j := range p.Failures {
			f := &p.Failures[j]
			if len(out.TLS.Failures) == maxKept {
				break
			}
			detailed += f.Sessions
			out.TLS.Failures = append(out.TLS.Failures, api.TLSFailure{
				Type: clipTo(string(f.Type), maxName), Host: strings.ToLower(clipTo(f.Host, maxName)), Sender: clipTo(f.SendingIP, 50),
				Reason: clipTo(strings.TrimSpace(f.Reason+" "+f.Information), maxName), Sessions: f.Sessions,
			})
		}
		out.TLS.More += max(p.Summary.Failed-detailed, 0)
	}
	return out
}

func fromDMARC(in *aggregate.Report) api.Report {
	out := api.Report{
		Kind: kindDMARC, Organization: clipTo(in.Organization, maxName), ReportID: clipTo(in.ID, maxName),
		Contact: clipTo(in.Email, maxName), Domain: domainName(in.Policy.Domain), Begin: in.Begin, End: in.End,
	}
	d := &api.DMARCReport{
		Policy: clipTo(in.Policy.Policy, 20), Subdomains: clipTo(in.Policy.Subdomains, 20), DKIM: clipTo(in.Policy.DKIMAlignment, 20),
		SPF: clipTo(in.Policy.SPFAlignment, 20), Rows: []api.DMARCRow{},
	}
	for _, e := range in.Errors[:min(len(in.Errors), 5)] {
		d.Errors = append(d.Errors, clipTo(e, maxName))
	}
	out.DMARC = d
	at := make(map[api.DMARCRow]int) // rows that are alike become one
	for i := range in.Records {
		rec := &in.Records[i]
		out.Total += rec.Count
		if !rec.Pass() {
			out.Failed += rec.Count
		}
		row := api.DMARCRow{
			Source: addressText(rec.Source), HeaderFrom: domainName(rec.HeaderFrom), DKIM: rec.DKIM, SPF: rec.SPF,
			Disposition: clipTo(rec.Disposition, 20),
		}
		if len(rec.Reasons) > 0 {
			row.Reason = clipTo(rec.Reasons[0].Type, 50)
		}
		n, known := at[row]
		if !known {
			if len(d.Rows) == maxRows {
				d.More += rec.Count
				continue
			}
			n = len(d.Rows)
			at[row] = n
			d.Rows = append(d.Rows, row)
		}
		d.Rows[n].Messages += rec.Count
	}
	return out
}

// domainName brings a domain that a stranger wrote into the form that domains are compared in, as far as it is one.
func domainName(s string) string {
	s = strings.TrimSuffix(strings.TrimSpace(s), ".")
	if d, err := smtp.DomainToASCII(s); err == nil {
		return d
	}
	return strings.ToLower(clipTo(s, maxName))
}

func clipTo(s string, n int) string {
	return strings.ToValidUTF8(s[:min(len(s), n)], "")
}

// idOf names a report by what makes it one: a report that comes again, by another way or the same, has the same id.
func idOf(r *api.Report) string {
	h := sha256.New()
	for _, s := range []string{r.Kind, strings.ToLower(r.Organization), r.ReportID, r.Domain} {
		fmt.Fprintf(h, "%d:%s", len(s), s)
	}
	return hex.EncodeToString(h.Sum(nil)[:10])
}

// keep writes reports that are new to the store.
func (r *Reports) keep(ctx context.Context, found []api.Report) (t Taken, err error) {
	for i := range found {
		rep := &found[i]
		rep.Received = time.Now().UTC().Truncate(time.Millisecond)
		rep.ID = idOf(rep)
		fresh, err := r.keepOne(ctx, rep)
		if err != nil {
			return t, err
		}
		kind := rep.Kind
		if !fresh {
			kind = "duplicate"
			t.Duplicates++
		} else {
			t.Reports = append(t.Reports, *rep)
		}
		r.metrics.taken.WithLabelValues(kind).Inc()
	}
	return t, nil
}

func (r *Reports) keepOne(ctx context.Context, rep *api.Report) (fresh bool, err error) {
	head := *rep
	head.DMARC, head.TLS = nil, nil
	h, err := json.Marshal(&head)
	if err != nil {
		return false, err
	}
	body, err := json.Marshal(&api.Report{DMARC: rep.DMARC, TLS: rep.TLS})
	if err != nil {
		return false, err
	}
	var b store.Batch
	b.Expect(headPrefix+rep.ID, 0)
	b.Put(headPrefix+rep.ID, h)
	b.Put(bodyPrefix+rep.ID, body)
	_, err = r.o.Store.Apply(ctx, &b)
	if errors.Is(err, store.ErrConflict) {
		return false, nil
	}
	return err == nil, err
}

// noteUnread keeps the begin of what could not be read, the last few of them.
func (r *Reports) noteUnread(ctx context.Context, in *Incoming, problem string, sample []byte) error {
	u := api.UnreadReport{
		Received: in.Received.UTC(), Sender: clipTo(in.Sender, maxName), Message: in.Message, Problem: problem,
		Sample: strings.ToValidUTF8(string(sample), "?"),
	}
	p, err := json.Marshal(&u)
	if err != nil {
		return err
	}
	var keys []string
	for kv, err := range r.o.Store.Scan(ctx, unreadPrefix) {
		if err != nil {
			return err
		}
		keys = append(keys, kv.Key)
	}
	var b store.Batch
	key := unreadPrefix + time.Now().UTC().Format("20060102T150405.000000000")
	b.Put(key, p)
	slices.Sort(keys)
	for _, old := range keys[:max(len(keys)+1-maxUnread, 0)] {
		b.Delete(old)
	}
	_, err = r.o.Store.Apply(ctx, &b)
	r.log.Warn("what came in as a report cannot be read", "message", in.Message, "error", problem)
	return err
}

// tell makes an event of a report.
func (r *Reports) tell(rep *api.Report, to string) {
	r.o.Event(&event.Event{
		Time: time.Now(), Type: event.ReportReceived, Message: rep.Message, Sender: rep.Sender, Recipient: to, Queue: rep.Domain,
		Explanation: describe(rep),
	})
}
