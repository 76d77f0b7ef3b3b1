package daemon

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/internal/audit"
	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/delivery"
	"github.com/godwit-mta/godwit/internal/delivery/tlsfloor"
	"github.com/godwit-mta/godwit/internal/delivery/tlspolicy"
	"github.com/godwit-mta/godwit/internal/dns"
	"github.com/godwit-mta/godwit/internal/fetch"
	"github.com/godwit-mta/godwit/internal/httpapi"
	"github.com/godwit-mta/godwit/internal/submission/auth"
)

// transport is what is known of the TLS of others: what receivers published, and what hosts have always had.
type transport struct {
	d        *Daemon
	policies *tlspolicy.Policies // nil: not to be obeyed
	fetch    *fetch.Client
	floors   *tlsfloor.Floors
	givenUp  chan tlsfloor.Floor // to be put on record
}

func (d *Daemon) newTransport(ctx context.Context, cfg *config.Config, resolver *dns.Resolver) (*transport, error) {
	t := &transport{d: d, givenUp: make(chan tlsfloor.Floor, 64)}
	var err error
	t.floors, err = tlsfloor.New(ctx, tlsfloor.Options{
		Store: d.store, Settings: floorSettings(cfg), GivenUp: t.giveUp, Logger: d.log, Registerer: d.metrics,
	})
	if err != nil {
		return nil, err
	}
	if !cfg.Delivery.TLSPolicies {
		return t, nil
	}
	if t.fetch, err = d.newFetcher(cfg, resolver); err != nil {
		return nil, err
	}
	t.policies, err = tlspolicy.New(tlspolicy.Options{
		Resolver: resolver, Store: d.store, Fetch: t.fetch, Port: uint16(cfg.Delivery.Port), Roots: d.o.Internet.Roots,
		Logger: d.log, Registerer: d.metrics,
	})
	return t, err
}

// published is what receivers demand, nil if it is not to be obeyed.
func (t *transport) published() delivery.Policies {
	if t.policies == nil {
		return nil
	}
	return delivery.Published(t.policies)
}

// run keeps policies fresh and floors on the disk until ctx ends.
func (t *transport) run(ctx context.Context) error {
	var all sync.WaitGroup
	errs := make([]error, 2)
	all.Go(func() { errs[0] = t.floors.Run(ctx) })
	if t.policies != nil {
		all.Go(func() { errs[1] = t.policies.Run(ctx) })
	}
	all.Go(func() {
		for {
			select {
			case f := <-t.givenUp:
				t.record(ctx, f)
			case <-ctx.Done():
				return
			}
		}
	})
	all.Wait()
	return errors.Join(errs...)
}

// giveUp hands a floor on to be put on record. It does not block; the log has a line in any case.
func (t *transport) giveUp(f tlsfloor.Floor) {
	select {
	case t.givenUp <- f:
	default:
	}
}

func (t *transport) record(ctx context.Context, f tlsfloor.Floor) {
	err := t.d.audit.Append(ctx, audit.Act{
		Actor: "godwit", Source: "delivery", Action: "tls.floor.give-up", Target: f.Host, Before: apiFloor(&f),
	})
	if err != nil {
		t.d.log.WarnContext(ctx, "a TLS floor that was given up is not on record", slog.String("host", f.Host), slog.Any("error", err))
	}
}

// served is what the administrators' interface shows of policies.
func (t *transport) served() httpapi.TLSPolicies {
	if t.policies == nil {
		return nil
	}
	return t.policies
}

// followTransport hands delivery its routes and demands.
func (r *running) followTransport(cfg *config.Config) error {
	list, err := routes(cfg)
	if err != nil {
		return err
	}
	demands, err := tlsSettings(cfg, r.door.directory)
	if err != nil {
		return err
	}
	if err := r.deliver.SetTLS(demands); err != nil {
		return err
	}
	r.transport.follow(cfg)
	return r.deliver.SetRoutes(list, cfg.Delivery.AllowedNetworks)
}

// follow takes over what can change while the server runs.
func (t *transport) follow(cfg *config.Config) {
	t.floors.SetSettings(floorSettings(cfg))
	if t.fetch != nil {
		t.fetch.SetAllowedNetworks(cfg.Delivery.AllowedNetworks)
	}
}

func floorSettings(cfg *config.Config) tlsfloor.Settings {
	f := cfg.Delivery.TLSFloor
	return tlsfloor.Settings{Off: !f.Learn, Days: f.Days, Hold: f.Hold, Forever: f.Then == "wait", Forget: f.Forget}
}

// tlsSettings is what is demanded of sessions where no route says more.
func tlsSettings(cfg *config.Config, directory *auth.Directory) (s delivery.TLSSettings, err error) {
	if s.Default, err = level(cfg.Delivery.TLS); err != nil {
		return s, fmt.Errorf("delivery.tls: %w", err)
	}
	s.Tenant = func(id string) delivery.Level { return tenantLevel(directory, id) }
	return s, nil
}

// tenantLevel returns what a tenant demands for its mail. Of a tenant that is no more nobody knows; a word that an older version
// does not know is taken for the strictest.
func tenantLevel(directory *auth.Directory, id string) delivery.Level {
	t, err := directory.Tenant(id)
	if err != nil {
		return delivery.LevelUnset
	}
	l, err := delivery.ParseLevel(t.TLS)
	if err != nil {
		return delivery.LevelVerified
	}
	return l
}

func level(word string) (delivery.Level, error) {
	if word == config.DefaultTLS {
		return delivery.LevelUnset, nil
	}
	return delivery.ParseLevel(word)
}

// routes makes delivery's routes, with the secrets and certificates that they name.
func routes(cfg *config.Config) ([]delivery.Route, error) {
	list := make([]delivery.Route, len(cfg.Routes))
	for i := range cfg.Routes {
		r := &cfg.Routes[i]
		list[i] = delivery.Route{Domains: r.Domains, Hosts: r.Hosts}
		if r.Protocol == "lmtp" {
			list[i].Protocol = delivery.LMTP
		}
		var err error
		if list[i].TLS, err = routeTLS(r); err != nil {
			return nil, fmt.Errorf("routes[%d]: %w", i, err)
		}
	}
	return list, nil
}

func routeTLS(r *config.Route) (t delivery.RouteTLS, err error) {
	if t.Level, err = level(r.TLS); err != nil {
		return t, fmt.Errorf("tls: %w", err)
	}
	t.Name, t.Implicit = r.TLSName, r.ImplicitTLS()
	for _, p := range r.TLSPins {
		pin, err := config.ParsePin(p)
		if err != nil {
			return t, fmt.Errorf("tls_pins: %w", err)
		}
		t.Pins = append(t.Pins, pin)
	}
	if r.TLSCAFile != "" {
		text, err := os.ReadFile(r.TLSCAFile)
		if err != nil {
			return t, fmt.Errorf("tls_ca_file: %w", err)
		}
		t.Roots = x509.NewCertPool()
		if !t.Roots.AppendCertsFromPEM(text) {
			return t, fmt.Errorf("tls_ca_file: no certificate in PEM is in %s", r.TLSCAFile)
		}
	}
	if r.Login.Username != "" {
		password, err := loginPassword(&r.Login)
		if err != nil {
			return t, err
		}
		t.Login = &delivery.Login{Username: r.Login.Username, Password: password}
	}
	return t, nil
}

// loginPassword reads the password that a login refers to.
func loginPassword(l *config.Login) (string, error) {
	if l.PasswordEnv != "" {
		if p := os.Getenv(l.PasswordEnv); p != "" {
			return p, nil
		}
		return "", fmt.Errorf("login.password_env: the variable %s is not set", l.PasswordEnv)
	}
	text, err := os.ReadFile(l.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("login.password_file: %w", err)
	}
	p := strings.TrimRight(string(text), "\r\n")
	if p == "" || strings.ContainsAny(p, "\r\n\x00") {
		return "", fmt.Errorf("login.password_file: %s does not hold one line with a password", l.PasswordFile)
	}
	return p, nil
}

// Floors lists what was learnt of hosts.
func (t *transport) Floors(all bool) []api.TLSFloor { return apiFloors(t.floors.List(all)) }

// ResetFloors forgets a host, or all of them, and returns what was known.
func (t *transport) ResetFloors(ctx context.Context, host string) ([]api.TLSFloor, error) {
	list, err := t.floors.Reset(ctx, host)
	return apiFloors(list), err
}

func apiFloors(list []tlsfloor.Floor) []api.TLSFloor {
	out := make([]api.TLSFloor, len(list))
	for i := range list {
		out[i] = apiFloor(&list[i])
	}
	return out
}

func apiFloor(f *tlsfloor.Floor) api.TLSFloor {
	return api.TLSFloor{
		Host: f.Host, Days: f.Days, Since: f.Since, Last: f.Last, Missing: timeOrNil(f.Missing), Why: f.Why,
	}
}
