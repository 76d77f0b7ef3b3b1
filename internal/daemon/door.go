package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/internal/certs"
	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/submission"
	"github.com/godwit-mta/godwit/internal/submission/auth"
	"github.com/godwit-mta/godwit/internal/submission/inbound"
	"github.com/godwit-mta/godwit/internal/submission/limits"
	"github.com/godwit-mta/godwit/smtp/smtpserver"
)

// frontDoor is what all listeners share: certificates, who may log in, what was sent.
type frontDoor struct {
	certs     *certs.Manager // nil: no listener speaks TLS
	directory *auth.Directory
	limits    *limits.Limiter
	bandwidth tenantBandwidth
	inbound   *inbound.Checker
	signs     *signatures

	parts []*part
}

// openDoor makes the shared parts. It starts nothing.
func (d *Daemon) openDoor(ctx context.Context, cfg *config.Config, r *running) (*frontDoor, error) {
	f := &frontDoor{}
	var err error
	if usesTLS(cfg) {
		o := certs.Options{Pairs: pairs(cfg), Logger: d.log, Registerer: d.metrics}
		if o.ACME, err = acme(cfg, d.store); err != nil {
			return nil, err
		}
		if f.certs, err = certs.New(o); err != nil {
			return nil, fmt.Errorf("certificates: %w", err)
		}
	}
	if f.directory, err = d.newDirectory(cfg); err != nil {
		return nil, err
	}
	f.limits, err = limits.New(limits.Options{Config: quotas(cfg), Store: d.store, Logger: d.log, Registerer: d.metrics})
	if err != nil {
		return nil, err
	}
	if err := f.limits.Load(ctx); err != nil {
		return nil, err
	}
	f.bandwidth.set(cfg)
	if f.signs, err = d.newSignatures(cfg, f.directory); err != nil {
		return nil, err
	}
	f.inbound, err = d.newInbound(cfg, r.resolver, f.signs.ring)
	return f, err
}

func usesTLS(cfg *config.Config) bool {
	for i := range cfg.Listeners {
		if cfg.Listeners[i].TLS != "off" && cfg.Listeners[i].TLS != "" {
			return true
		}
	}
	return false
}

func (f *frontDoor) start(ctx context.Context, p *parts) {
	if f.certs != nil {
		f.parts = append(f.parts, p.start(ctx, "certificates", f.certs.Run))
	}
	f.parts = append(f.parts, p.start(ctx, "directory", f.directory.Run), p.start(ctx, "limits", f.limits.Run),
		f.signs.start(ctx, p))
}

func (f *frontDoor) end() error {
	var errs []error
	for _, t := range f.parts {
		errs = append(errs, t.end())
	}
	return errors.Join(errs...)
}

// follow takes over a new configuration. A certificate that was there and is broken now does not hinder it: the old one
// stays in use and a finding says so.
func (f *frontDoor) follow(cfg *config.Config, log *slog.Logger) error {
	if f.certs != nil {
		if err := f.certs.SetPairs(pairs(cfg)); err != nil {
			return fmt.Errorf("certificates: %w", err)
		}
		if err := f.certs.Reload(); err != nil {
			log.Warn("a certificate stays as it was", "error", err)
		}
	}
	if err := f.signs.follow(cfg); err != nil {
		return err
	}
	issuers, err := tokenIssuers(cfg)
	if err != nil {
		return err
	}
	if err := errors.Join(f.directory.SetConfigured(configuredTenants(cfg)), f.directory.SetIssuers(issuers)); err != nil {
		return err
	}
	f.limits.SetConfig(quotas(cfg))
	f.bandwidth.set(cfg)
	f.inbound.SetConfig(inboundConfig(cfg))
	return nil
}

func pairs(cfg *config.Config) []certs.Pair {
	list := make([]certs.Pair, len(cfg.TLS.Certificates))
	for i, c := range cfg.TLS.Certificates {
		list[i] = certs.Pair{Name: c.Name, Certificate: c.Certificate, Key: c.Key}
	}
	return list
}

func configuredTenants(cfg *config.Config) []auth.ConfiguredTenant {
	list := make([]auth.ConfiguredTenant, len(cfg.Tenants))
	for i := range cfg.Tenants {
		t := &cfg.Tenants[i]
		list[i] = auth.ConfiguredTenant{ID: t.ID, Name: t.Name, Domains: t.Domains}
		if t.TLS != config.DefaultTLS {
			list[i].TLS = t.TLS
		}
	}
	return list
}

func quotas(cfg *config.Config) limits.Config {
	c := limits.Config{
		Tenant: quota(&cfg.Quotas.Tenant), Credential: quota(&cfg.Quotas.Credential), Client: quota(&cfg.Quotas.Client),
		Tenants: make(map[string]limits.Quota, len(cfg.Tenants)),
	}
	for i := range cfg.Tenants {
		c.Tenants[cfg.Tenants[i].ID] = quota(&cfg.Tenants[i].Quota)
	}
	return c
}

func quota(q *config.Quota) limits.Quota {
	out := limits.Quota{RefuseDay: q.OverDay == "refuse"}
	out.Max[limits.Messages] = [...]int64{int64(q.MessagesPerMinute), int64(q.MessagesPerHour), int64(q.MessagesPerDay)}
	out.Max[limits.Recipients] = [...]int64{int64(q.RecipientsPerMinute), int64(q.RecipientsPerHour), int64(q.RecipientsPerDay)}
	out.Max[limits.Bytes] = [...]int64{int64(q.BytesPerMinute), int64(q.BytesPerHour), int64(q.BytesPerDay)}
	out.Max[limits.Unique] = [...]int64{
		int64(q.UniqueRecipientsPerMinute), int64(q.UniqueRecipientsPerHour), int64(q.UniqueRecipientsPerDay),
	}
	return out
}

// tenantBandwidth has the pace of each tenant of the configuration that has one.
type tenantBandwidth struct {
	mu   sync.RWMutex
	byID map[string]*limits.Bandwidth
}

func (t *tenantBandwidth) set(cfg *config.Config) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := make(map[string]*limits.Bandwidth)
	for i := range cfg.Tenants {
		id, rate := cfg.Tenants[i].ID, int64(cfg.Tenants[i].Bandwidth)
		if rate == 0 {
			continue
		}
		b := t.byID[id] // what is owed stays owed
		if b == nil {
			b = new(limits.Bandwidth)
		}
		b.Set(rate)
		next[id] = b
	}
	t.byID = next
}

func (t *tenantBandwidth) of(tenant string) *limits.Bandwidth {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.byID[tenant]
}

// secure gives the engine of a listener what the file says of TLS and of who may connect.
func (f *frontDoor) secure(o *smtpserver.Options, l *config.Listener) error {
	o.Proxies, o.XClient, o.Allow, o.Deny = l.ProxyProtocol, l.XClient, l.AllowNetworks, l.DenyNetworks
	if l.TLS == "off" || l.TLS == "" {
		return nil
	}
	s := certs.ServerOptions{Listener: l.Name, Certificate: l.Certificate, ClientCAs: l.ClientCA}
	switch l.ClientCertificates {
	case "optional":
		s.ClientAuth = tls.VerifyClientCertIfGiven
	case "required":
		s.ClientAuth = tls.RequireAndVerifyClientCert
	}
	var err error
	o.TLS, err = f.certs.Config(s)
	o.ImplicitTLS = l.TLS == "implicit"
	return err
}

// policy is what a listener allows.
func policy(cfg *config.Config, l *config.Listener) submission.Policy {
	p := submission.Policy{
		TrustedNetworks: l.TrustedNetworks,
		Verify:          verifyMode(l),
		RelayDomains:    submission.NewDomains(l.RelayDomains),
		Reports:         submission.NewAddresses(cfg.Reports.Paths()),
		ReportSize:      int64(cfg.Reports.MaxSize),
		Auth:            auth.Policy{InsecureAuth: l.InsecureAuth, Mechanisms: l.AuthMechanisms},
		Tenant:          l.Tenant,
		Stream:          l.Stream,
		MaxAge:          maxAge(cfg, l.Stream),
		MaxHops:         l.Limits.Hops,
	}
	switch l.Auth {
	case "optional":
		p.Login = submission.LoginOptional
	case "required":
		p.Login = submission.LoginRequired
	}
	switch l.Headers {
	case "submission":
		p.Headers = submission.HeadersSubmission
	case "relay":
		p.Headers = submission.HeadersRelay
	}
	for i := range cfg.Tenants {
		if cfg.Tenants[i].ID == l.Tenant {
			p.CheckTrusted = cfg.Tenants[i].CheckTrusted
		}
	}
	if cfg.Delivery.DelayNotices != "never" {
		p.DelayNotice = cfg.Delivery.DelayNoticeAfter
		p.DelayAlways = cfg.Delivery.DelayNotices == "always"
	}
	return p
}

func maxAge(cfg *config.Config, stream string) time.Duration {
	if d, ok := cfg.Delivery.MaxAge[stream]; ok {
		return d
	}
	return cfg.Delivery.MaxAge[config.DefaultStream]
}

// submissionServers tells the listeners that clients log in to, as an application has to know them.
func (d *Daemon) submissionServers() []api.SubmissionServer {
	var list []api.SubmissionServer
	cfg := d.cfg.Load()
	for _, in := range d.inlets {
		l, ok := listenerNamed(cfg, in.name)
		addr, tcp := in.socket.Addr().(*net.TCPAddr)
		if !ok || !tcp || l.Auth != "optional" && l.Auth != "required" {
			continue
		}
		host := addr.IP.String()
		if addr.IP.IsUnspecified() || l.TLS != "off" && !addr.IP.IsLoopback() {
			host = cfg.Hostname
		}
		list = append(list, api.SubmissionServer{Listener: l.Name, Host: host, Port: addr.Port, TLS: l.TLS, Login: l.Auth})
	}
	return list
}
