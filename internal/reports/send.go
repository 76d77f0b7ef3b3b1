package reports

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/internal/store"
	"github.com/godwit-mta/godwit/mailauth/tlsrpt"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

// state is how far a report, or one way it goes, has come.
type state string

const (
	waiting  state = "waiting"
	sent     state = "sent" // by mail: accepted into the spool
	failed   state = "failed"
	unwanted state = "unwanted" // the domain asks for no reports
)

// outgoing is a report on its way, or that went.
type outgoing struct {
	ID         string          `json:"id"`
	Domain     string          `json:"domain"`
	Start      time.Time       `json:"start"`
	End        time.Time       `json:"end"`
	Policies   []tlsrpt.Policy `json:"policies,omitempty"` // until it is sent
	Omitted    bool            `json:"omitted,omitempty"`
	Successful int64           `json:"successful,omitempty"` // from then on
	Failed     int64           `json:"failed,omitempty"`

	State   state     `json:"state"`
	Tries   int       `json:"tries,omitempty"`
	Next    time.Time `json:"next"`
	GiveUp  time.Time `json:"give_up"`
	Problem string    `json:"problem,omitempty"`
	Targets []target  `json:"targets,omitempty"`
}

// target is one way a report goes.
type target struct {
	To      string    `json:"to"` // URI
	State   state     `json:"state"`
	Time    time.Time `json:"time,omitzero"`
	Message string    `json:"message,omitempty"` // id in the spool
	Problem string    `json:"problem,omitempty"`
}

// schedule knows when reports are due, and which are being sent.
type schedule struct {
	mu   sync.Mutex
	m    map[string]time.Time
	busy map[string]bool
}

// claim gives a report to one sender; false: another has it. Who has it gives it back.
func (s *schedule) claim(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[id] {
		return false
	}
	s.busy[id] = true
	return true
}

func (s *schedule) giveBack(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.busy, id)
}

func (s *schedule) put(id string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m[id] = at
}

func (s *schedule) drop(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, id)
}

func (s *schedule) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.m)
}

// until returns the reports that are due at now, oldest first; the zero time means all.
func (s *schedule) until(now time.Time) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []string
	for id, at := range s.m {
		if now.IsZero() || !at.After(now) {
			list = append(list, id)
		}
	}
	slices.SortFunc(list, func(a, b string) int { return s.m[a].Compare(s.m[b]) })
	return list
}

// senders is how many reports are sent at once: a slow HTTPS host holds one up.
const senders = 4

func (r *Reports) sendLoop(ctx context.Context) {
	tick := time.NewTicker(r.o.Flush)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if _, err := r.sendAll(ctx, r.due.until(time.Now())); err != nil && ctx.Err() == nil {
			r.log.Warn("TLS reports are not sent", "error", err)
		}
	}
}

// sendAll tries to send reports and returns what became of them.
func (r *Reports) sendAll(ctx context.Context, ids []string) ([]outgoing, error) {
	out := make([]outgoing, len(ids))
	errs := make([]error, len(ids))
	next := make(chan int)
	var workers sync.WaitGroup
	for range min(senders, len(ids)) {
		workers.Go(func() {
			for i := range next {
				if ctx.Err() == nil {
					errs[i] = r.sendOne(ctx, ids[i], &out[i])
				}
			}
		})
	}
	for i := range ids {
		next <- i
	}
	close(next)
	workers.Wait()
	return slices.DeleteFunc(out, func(o outgoing) bool { return o.ID == "" }), errors.Join(errs...)
}

// sendOne makes one try of one report and writes down what became of it. What a crash leaves behind is a report that may go out twice,
// with the same id and Message-ID.
func (r *Reports) sendOne(ctx context.Context, id string, out *outgoing) error {
	if !r.due.claim(id) {
		return nil
	}
	defer r.due.giveBack(id)
	kv, err := r.o.Store.Get(ctx, outPrefix+id)
	if errors.Is(err, store.ErrNotFound) {
		r.due.drop(id)
		return nil
	}
	if err != nil {
		return err
	}
	var o outgoing
	if err := json.Unmarshal(kv.Value, &o); err != nil {
		r.due.drop(id)
		return fmt.Errorf("report %s cannot be read: %w", id, err)
	}
	if o.State != waiting { // somebody was faster
		r.due.drop(id)
		return nil
	}
	r.try(ctx, &o, time.Now())
	if ctx.Err() != nil && o.State == waiting {
		return nil // the next start tries
	}
	if o.State != waiting {
		s := (&tlsrpt.Report{Policies: o.Policies}).Totals()
		o.Successful, o.Failed, o.Policies = s.Successful, s.Failed, nil
	}
	p, err := json.Marshal(&o)
	if err != nil {
		return err
	}
	var b store.Batch
	b.Expect(outPrefix+id, kv.Revision)
	b.Put(outPrefix+id, p)
	if _, err := r.o.Store.Apply(ctx, &b); err != nil {
		return err
	}
	if *out = o; o.State == waiting {
		r.due.put(id, o.Next)
	} else {
		r.due.drop(id)
	}
	return nil
}

// try sends a report to each destination that has not got it.
func (r *Reports) try(ctx context.Context, o *outgoing, now time.Time) {
	o.Tries++
	o.Problem = ""
	if o.Targets == nil {
		rec, err := r.record(ctx, o.Domain)
		switch {
		case err == nil:
			for _, d := range rec.Destinations {
				o.Targets = append(o.Targets, target{To: d.String(), State: waiting})
			}
		case errors.Is(err, tlsrpt.ErrNoRecord):
			o.State = unwanted
			return
		default:
			o.Problem = clip(err.Error())
		}
	}
	open, good := len(o.Targets) == 0, false
	for i := range o.Targets {
		t := &o.Targets[i]
		if t.State == waiting {
			r.deliver(ctx, o, t, now)
		}
		open = open || t.State == waiting
		good = good || t.State == sent
	}
	switch {
	case !open && good:
		o.State = sent
	case !open:
		o.State = failed
	case !now.Before(o.GiveUp): // RFC 8460, 5.4
		for i := range o.Targets {
			if o.Targets[i].State == waiting {
				o.Targets[i].State = failed
			}
		}
		if o.State = failed; good {
			o.State = sent
		}
	default:
		o.Next = now.Add(r.o.Retry[min(o.Tries-1, len(r.o.Retry)-1)])
		if o.Next.After(o.GiveUp) {
			o.Next = o.GiveUp
		}
	}
	if o.State != waiting {
		r.log.Info("TLS report", "domain", o.Domain, "report", o.ID, "state", string(o.State), "tries", o.Tries)
	}
}

// errUnsigned says that a report cannot go by mail for want of a key.
var errUnsigned = errors.New("no key signs for the domain of reports.contact")

// deliver makes one try of one way.
func (r *Reports) deliver(ctx context.Context, o *outgoing, t *target, now time.Time) {
	d := tlsrpt.ParseDestination(t.To)
	way := "https"
	var err error
	switch {
	case d.Address != "":
		way = "mail"
		t.Message, err = r.mail(ctx, o, d.Address, now)
		r.noteUnsigned(err)
	case d.URL != "" && r.o.Post != nil:
		var file []byte
		if file, err = r.report(o).Gzip(); err == nil {
			err = r.o.Post(ctx, d.URL, tlsrpt.MediaType, file)
		}
	default:
		t.State, t.Problem = failed, "there is no way to send it there"
		return
	}
	result := "ok"
	if err != nil {
		result, t.Problem = "failed", clip(err.Error())
		r.log.Warn("a TLS report is not sent yet", "domain", o.Domain, "to", t.To, "error", err)
	} else {
		t.State, t.Time, t.Problem = sent, now, ""
	}
	r.metrics.sent.WithLabelValues(way, result).Inc()
}

func (r *Reports) noteUnsigned(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.unsigned = ""
	if errors.Is(err, errUnsigned) {
		r.mu.unsigned = err.Error()
	}
}

// report is the report as it is told.
func (r *Reports) report(o *outgoing) *tlsrpt.Report {
	s := r.settings.Load()
	return &tlsrpt.Report{
		Organization: s.Organization, Contact: s.Contact, ID: o.ID,
		Range:    tlsrpt.DateRange{Start: o.Start, End: o.End.Add(-time.Second)}, // the last second of it, as all others write
		Policies: o.Policies,
	}
}

// mail hands a report to the spool, signed. It is sent as what its contact is, so that SPF and DMARC hold, and asks that nobody is told
// if it fails.
func (r *Reports) mail(ctx context.Context, o *outgoing, to string, now time.Time) (id string, err error) {
	s := r.settings.Load()
	if r.o.Accept == nil || s.Contact == "" {
		return "", errors.New("reports.contact is not set")
	}
	rcpt, err := smtp.ParseMailbox(to)
	if err != nil {
		return "", fmt.Errorf("%q is no address: %w", to, err)
	}
	domain, err := smtp.DomainToASCII(rcpt.Domain)
	if err != nil {
		return "", fmt.Errorf("%q is no address: %w", to, err)
	}
	mid := r.o.IDs.New(now)
	mail := tlsrpt.Mail{
		Report: r.report(o), Domain: o.Domain, Submitter: r.o.Hostname, From: s.from, To: to, MessageID: o.ID, Date: now,
	}
	p, err := mail.Compose()
	if err != nil {
		return "", err
	}
	body := smtp.BodyOf(p)
	defer body.Release()
	if r.o.Sign == nil {
		return "", errUnsigned
	}
	fields, err := r.o.Sign(ctx, nil, body.AppendPieces(nil), s.from.Domain, "")
	if err != nil {
		return "", fmt.Errorf("%w: %w", errUnsigned, err)
	}
	if len(fields) == 0 {
		return "", errUnsigned
	}
	body.Prepend(fields)
	m := r.envelope(mid, s.from, rcpt, domain, now)
	m.Size, m.EightBit, m.DotLine = body.Size(), body.EightBit, body.DotLine
	m.HeaderFrom, m.Subject, m.MessageID = s.from.Mailbox(), "TLS report about "+o.Domain, "<"+o.ID+">"
	if err := r.o.Accept(ctx, m, body); err != nil {
		return "", err
	}
	return mid.String(), nil
}

func (r *Reports) envelope(id message.ID, from message.Address, to smtp.Path, domain string, now time.Time) *spool.Message {
	return &spool.Message{
		ID: id, Tenant: ownTenant, Stream: ownTenant, Received: now, Expires: now.Add(r.o.GiveUp),
		Protocol: Protocol, Hello: r.o.Hostname, Report: true, TLSOptional: true,
		From:       smtp.Sender{Path: smtp.Path{Local: from.Local, Domain: from.Domain}},
		Recipients: []smtp.Recipient{{Path: to, Notify: smtp.NotifyNever}},
		Queues:     []spool.QueueKey{{Tenant: ownTenant, Domain: domain}},
	}
}

// ownTenant owns what the server itself sends, and is its stream.
const ownTenant = "default"
