package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/dns"
	"github.com/godwit-mta/godwit/internal/keyring"
	"github.com/godwit-mta/godwit/internal/signing"
	"github.com/godwit-mta/godwit/internal/submission/auth"
	"github.com/godwit-mta/godwit/internal/submission/inbound"
	"github.com/godwit-mta/godwit/mailauth/dkim"
)

// signatures is what puts DKIM signatures on mail: the keys, and who uses them.
type signatures struct {
	ring   *keyring.Keyring
	signer *signing.Signer
}

// newSignatures reads the keys. It starts nothing and asks nobody.
func (d *Daemon) newSignatures(cfg *config.Config, directory *auth.Directory) (*signatures, error) {
	primitive := signing.NewPrimitive(d.log)
	d.log.Info("RSA signatures", "by", primitive.String())
	looks, err := d.viewpoints(cfg)
	if err != nil {
		return nil, err
	}
	o := keyring.Options{
		Store: d.store, Dir: filepath.Join(cfg.DataDir, "dkim"), Resolvers: looks, Owners: directory, Settings: keyringSettings(cfg),
		RSA: primitive.RSA, Times: keyring.DefaultTimes().Divided(d.o.Scale), Logger: d.log, Registerer: d.metrics,
	}
	if d.keys != nil {
		o.Sealer = d.keys
	}
	if o.Publisher, err = publisher(cfg); err != nil {
		return nil, err
	}
	s := &signatures{}
	if s.ring, err = keyring.New(o); err != nil {
		return nil, err
	}
	s.signer, err = signing.New(signing.Options{Keys: signers{s.ring}, Fields: signedFields(cfg), Logger: d.log, Registerer: d.metrics})
	return s, err
}

// signers tells the signer which failures pass by themselves.
type signers struct{ *keyring.Keyring }

func (s signers) Keys(domain, tenant string) ([]*dkim.Key, error) {
	keys, err := s.Keyring.Keys(domain, tenant)
	if errors.Is(err, keyring.ErrNone) {
		return nil, fmt.Errorf("%w: %w", signing.ErrNone, err)
	}
	return keys, err
}

// follow takes over what of a new configuration is about keys.
func (s *signatures) follow(cfg *config.Config) error {
	return errors.Join(s.signer.SetFields(signedFields(cfg)), s.ring.SetSettings(keyringSettings(cfg)))
}

func (s *signatures) start(ctx context.Context, p *parts) *part {
	s.prepare(ctx)
	return p.start(ctx, "keyring", s.ring.Run)
}

// viewpoints are the DNS servers that key records are looked for at, each alone, so that a record that only some have is seen as
// such. Answers are kept for a second: what is asked is what there is now.
func (d *Daemon) viewpoints(cfg *config.Config) ([]keyring.Viewpoint, error) {
	var servers [][]netip.AddrPort
	var names []string
	if len(cfg.DNS.Servers) == 0 {
		servers, names = append(servers, nil), append(names, "the system's resolver")
	}
	for _, s := range slices.Concat(cfg.DNS.Servers, recordServers(cfg)) {
		a, err := config.ParseServer(s)
		if err != nil {
			return nil, fmt.Errorf("dns server %q: %w", s, err)
		}
		servers, names = append(servers, []netip.AddrPort{a}), append(names, s)
	}
	list := make([]keyring.Viewpoint, len(servers))
	for i, s := range servers {
		r, err := dns.New(dns.Options{
			Servers: s, Timeout: cfg.DNS.Timeout, Logger: d.log, Concurrency: 8, CacheEntries: 64,
			MaxTTL: time.Second, MaxNegativeTTL: time.Second, FailureTTL: time.Second,
		})
		if err != nil {
			return nil, fmt.Errorf("resolver for DKIM records: %w", err)
		}
		list[i] = keyring.Viewpoint{Name: names[i], Resolver: inbound.DNS(r)}
	}
	return list, nil
}
