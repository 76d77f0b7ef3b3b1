package reports

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/dns"
	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/internal/store"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

// Protocol is that of our report messages in the spool. Sessions that carry only such mail are not to be recorded.
const Protocol = spool.ProtocolTLSReport

// Resolver looks up TLSRPT records; *dns.Resolver is one.
type Resolver interface {
	LookupTXT(ctx context.Context, name string) (dns.TXT, error)
}

// Options make Reports. Store, Resolver, IDs and Hostname are required; for all else zero means the default.
type Options struct {
	Store    store.Store // below "reports/"
	Resolver Resolver
	IDs      *message.IDs // names the messages
	Hostname string       // who submits reports, in A-labels
	Settings Settings

	// Accept takes a message of ours to be delivered; (*spool.Spool).Accept is one. Nil: nothing goes out by mail.
	Accept func(ctx context.Context, m *spool.Message, body *smtp.Body) error
	// Sign appends the signatures of a message to dst, as signing.Signer does. Nil, or nothing appended: reports do not go by mail,
	// since who gets them must not believe those without (RFC 8460, 3).
	Sign func(ctx context.Context, dst []byte, pieces [][]byte, domain, tenant string) ([]byte, error)
	// Post sends a document to an https URL and returns nil if it was taken. Nil: nothing goes by HTTPS.
	Post func(ctx context.Context, url, contentType string, body []byte) error
	// Verify returns the domains whose DKIM signatures of a message hold; nil: not looked at.
	Verify func(ctx context.Context, pieces [][]byte) []string
	// Event is told what was taken in; it must not block or keep the event. May be nil.
	Event func(*event.Event)

	Flush  time.Duration   // between two writes of what was counted; 1 min
	Day    time.Duration   // one report is about; 24 h, and shorter in tests only
	Spread time.Duration   // after a day within which its reports go out; 4 h, negative: none
	Retry  []time.Duration // pauses between tries, the last repeats; 5 min to 4 h
	GiveUp time.Duration   // after which a report is tried no more; 24 h

	MaxReports int // kept of those that came in, the oldest go first; 20,000
	MaxPerDay  int // taken in by mail in a day; further ones are counted and dropped; 5,000

	Logger     *slog.Logger          // nil discards
	Registerer prometheus.Registerer // nil registers nothing
}

// Settings are the options that can be replaced while it runs.
type Settings struct {
	Organization string // who reports; empty: Hostname
	Contact      string // address in reports and of their sender; empty: no reports go out and nothing is counted
	TLS          bool   // whether TLS reports go out
	// Addresses are where reports come in.
	Addresses []smtp.Path
	Keep      time.Duration // how long what came in, and what went out, is kept; 90 days
}

const defaultKeep = 90 * 24 * time.Hour

func (s *Settings) sends() bool { return s.TLS && s.Contact != "" }

func (o *Options) fill() {
	set(&o.Flush, time.Minute)
	set(&o.Day, 24*time.Hour)
	set(&o.Spread, 4*time.Hour)
	o.Spread = max(o.Spread, 0)
	set(&o.GiveUp, 24*time.Hour)
	set(&o.MaxReports, 20_000)
	set(&o.MaxPerDay, 5_000)
	if len(o.Retry) == 0 {
		o.Retry = []time.Duration{5 * time.Minute, 15 * time.Minute, time.Hour, 2 * time.Hour, 4 * time.Hour}
	}
	if o.Event == nil {
		o.Event = func(*event.Event) {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

func set[T comparable](p *T, value T) {
	var zero T
	if *p == zero {
		*p = value
	}
}

func (o *Options) validate() error {
	var errs []error
	need := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	need(o.Store != nil, "no Store")
	need(o.Resolver != nil, "no Resolver")
	need(o.IDs != nil, "no IDs")
	need(o.Hostname != "", "no Hostname")
	need(o.Flush > 0, "Flush %v is not positive", o.Flush)
	need(o.Day >= time.Second, "Day %v is below a second", o.Day)
	need(o.GiveUp > 0, "GiveUp %v is not positive", o.GiveUp)
	need(o.MaxReports > 0, "MaxReports %d is not positive", o.MaxReports)
	need(o.MaxPerDay > 0, "MaxPerDay %d is not positive", o.MaxPerDay)
	for i, d := range o.Retry {
		need(d > 0, "Retry[%d] %v is not positive", i, d)
	}
	return errors.Join(errs...)
}

// settings is Settings as they are used.
type settings struct {
	Settings
	from      message.Address
	addresses map[string]struct{}
	domains   map[string]struct{} // of these
}

func (o *Options) settings(s Settings) (*settings, error) {
	set(&s.Keep, defaultKeep)
	if s.Organization == "" {
		s.Organization = o.Hostname
	}
	out := &settings{Settings: s, addresses: make(map[string]struct{}), domains: make(map[string]struct{})}
	if s.Contact != "" {
		list, err := message.ParseAddresses(s.Contact)
		if err != nil || len(list) != 1 {
			return nil, fmt.Errorf("reports: contact %q is not one address", s.Contact)
		}
		if list[0].Domain, err = smtp.DomainToASCII(list[0].Domain); err != nil {
			return nil, fmt.Errorf("reports: contact %q: %w", s.Contact, err)
		}
		out.from = message.Address{Name: s.Organization, Local: list[0].Local, Domain: list[0].Domain}
	}
	for _, p := range s.Addresses {
		domain, err := smtp.DomainToASCII(p.Domain)
		if err != nil || p.Local == "" {
			return nil, fmt.Errorf("reports: %q is no address", p.String())
		}
		out.addresses[addressKey(p.Local, domain)] = struct{}{}
		out.domains[domain] = struct{}{}
	}
	return out, nil
}

// addressKey is how addresses are compared: the names of our own mailboxes mean the same in any case.
func addressKey(local, domain string) string {
	return strings.ToLower(local) + "@" + strings.ToLower(domain)
}
