package daemon

import (
	"context"
	"errors"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/queue"
	"github.com/godwit-mta/godwit/internal/reports"
	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/internal/submission/inbound"
	"github.com/godwit-mta/godwit/mailauth/dkim"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

// newReports makes what collects, sends and takes in reports.
func (d *Daemon) newReports(ctx context.Context, cfg *config.Config, r *running, ids *message.IDs) (*reports.Reports, error) {
	hostname, err := smtp.DomainToASCII(cfg.Hostname)
	if err != nil {
		return nil, err
	}
	https, err := d.newFetcher(cfg, r.resolver)
	if err != nil {
		return nil, err
	}
	verifier, err := dkim.NewVerifier(dkim.VerifyOptions{Resolver: inbound.DNS(r.resolver)})
	if err != nil {
		return nil, err
	}
	return reports.New(ctx, reports.Options{
		Store: d.store, Resolver: r.resolver, IDs: ids, Hostname: hostname, Settings: reportSettings(cfg),
		Accept: r.spool.Accept,
		// The signer comes later than who records results.
		Sign: func(ctx context.Context, dst []byte, pieces [][]byte, domain, tenant string) ([]byte, error) {
			return r.door.signs.signer.Sign(ctx, dst, pieces, domain, tenant)
		},
		Post: https.Post,
		Verify: func(ctx context.Context, pieces [][]byte) []string {
			results, err := verifier.Verify(ctx, pieces, time.Now())
			if err != nil {
				return nil
			}
			return passed(results)
		},
		Event:  func(e *event.Event) { r.events.Refused(e) },
		Flush:  max(time.Minute/time.Duration(d.o.Scale), 100*time.Millisecond),
		Logger: d.log, Registerer: d.metrics,
	})
}

// passed lists the domains whose signatures hold, each once.
func passed(results []dkim.Result) []string {
	var list []string
	seen := make(map[string]bool)
	for i := range results {
		if res := &results[i]; res.Status == dkim.Pass && !seen[res.Domain] {
			seen[res.Domain] = true
			list = append(list, res.Domain)
		}
	}
	return list
}

func reportSettings(cfg *config.Config) reports.Settings {
	c := &cfg.Reports
	return reports.Settings{Organization: c.Organization, Contact: c.Contact, TLS: c.TLS, Addresses: c.Paths(), Keep: c.Keep}
}

// intake is the Deliverer that the queue knows: it takes in what is for the addresses for reports, and has the rest delivered.
type intake struct {
	queue.Deliverer
	reports *reports.Reports
	host    string
}

// Deliver implements queue.Deliverer. Most jobs have no entry for such an address and pass as they are.
func (t *intake) Deliver(ctx context.Context, j *queue.Job) queue.Verdict {
	mine := 0
	for _, e := range j.Entries {
		if t.takes(e) {
			mine++
		}
	}
	if mine == 0 {
		return t.Deliverer.Deliver(ctx, j)
	}
	ours := &queue.Job{Message: j.Message, Key: j.Key, Body: j.Body, BodyNow: j.BodyNow}
	others := &queue.Job{Message: j.Message, Key: j.Key, Body: j.Body, BodyNow: j.BodyNow}
	for _, e := range j.Entries {
		if t.takes(e) {
			ours.Entries = append(ours.Entries, e)
		} else {
			others.Entries = append(others.Entries, e)
		}
	}
	j.Enter("report", t.host, time.Now())
	took := t.take(ctx, ours)
	if len(others.Entries) == 0 {
		return took
	}
	// Each half is tried by itself; the attempt on record is that of the others, who were sent somewhere.
	sent := t.Deliverer.Deliver(ctx, others)
	return merge(j, &took, &sent, t.takes)
}

func (t *intake) takes(e *spool.Entry) bool {
	return t.reports.Takes(e.Recipient().Local, e.Queue().Domain)
}

// merge makes one verdict of those on two parts of a job's entries.
func merge(j *queue.Job, took, sent *queue.Verdict, takes func(*spool.Entry) bool) queue.Verdict {
	out := *sent
	attempt := *sent.Attempt
	attempt.Entries, attempt.Results = j.Entries, make([]spool.Result, len(j.Entries))
	out.Attempt = &attempt
	if sent.RetryAfter != nil {
		out.RetryAfter = make([]time.Duration, len(j.Entries))
	}
	var a, b int
	for i, e := range j.Entries {
		if takes(e) {
			attempt.Results[i] = took.Attempt.Results[a]
			a++
			continue
		}
		attempt.Results[i] = sent.Attempt.Results[b]
		if out.RetryAfter != nil {
			out.RetryAfter[i] = sent.RetryAfter[b]
		}
		b++
	}
	return out
}

// take hands the job's message to reports, once for all of its entries. Nobody is told of it by a report of delivery: what the
// message names as its sender need not be.
func (t *intake) take(ctx context.Context, j *queue.Job) queue.Verdict {
	started := time.Now()
	res := spool.Result{Outcome: spool.None, Host: t.host, Site: "reports", Phase: "report", RemoteDSN: true}
	v := queue.Verdict{Attempt: &spool.Attempt{Message: j.Message, Entries: j.Entries, Started: started}}
	body, err := j.Body(ctx)
	if err == nil {
		defer body.Release()
		to := j.Entries[0].Recipient().Path
		var taken reports.Taken
		taken, err = t.reports.Take(ctx, &reports.Incoming{
			Message: j.Message.ID.String(), Sender: j.Message.From.Path.String(), Recipient: to.String(), Received: j.Message.Received, Body: body,
		})
		switch {
		case err == nil:
			res.Outcome, res.Reason, res.Explanation = spool.Delivered, event.ReportTaken, taken.String()
		case ctx.Err() == nil:
			res.Outcome, res.Reason, res.Explanation = spool.Deferred, event.LocalError, "The report could not be kept: "+err.Error()
		}
	} else if errors.Is(err, spool.ErrUnreadable) {
		v.Unreadable = err
	}
	v.Attempt.Ended = time.Now()
	for range j.Entries {
		v.Attempt.Results = append(v.Attempt.Results, res)
	}
	return v
}
