package daemon

import (
	"fmt"
	"net"
	"time"

	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/submission"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp/smtpserver"
)

// inlet is one listener: its socket, the door behind it, and the engine between.
type inlet struct {
	name   string
	socket net.Listener
	door   *submission.Door
	server *smtpserver.Server
	part   *part
}

func (in *inlet) assemble(d *Daemon, cfg *config.Config, r *running, ids *message.IDs) error {
	l, ok := listenerNamed(cfg, in.name)
	if !ok {
		return fmt.Errorf("listener %s is not in the configuration", in.name)
	}
	var err error
	in.door, err = submission.New(submission.Options{
		Hostname: cfg.Hostname,
		Listener: in.name,
		Policy:   policy(cfg, l),
		Spool:    r.spool,
		IDs:      ids,
		Refused:  r.refused,
		Logger:   d.log,
	})
	if err != nil {
		return fmt.Errorf("listener %s: %w", in.name, err)
	}
	in.server, err = smtpserver.New(smtpserver.Options{
		Hostname:     cfg.Hostname,
		Backend:      in.door,
		Limits:       limits(l),
		Memory:       d.memory,
		Normalize:    l.Normalize,
		DrainTimeout: cfg.DrainTimeout,
		Logger:       d.log,
		Registerer:   d.metrics,
		Name:         in.name,
	})
	if err != nil {
		return fmt.Errorf("listener %s: %w", in.name, err)
	}
	return nil
}

// follow takes over what of a new configuration can change while the listener is open.
func (in *inlet) follow(cfg *config.Config) error {
	l, ok := listenerNamed(cfg, in.name)
	if !ok {
		return nil // it goes with the next restart
	}
	if err := in.door.SetPolicy(policy(cfg, l)); err != nil {
		return err
	}
	return in.server.SetLimits(limits(l))
}

func listenerNamed(cfg *config.Config, name string) (config.Listener, bool) {
	for _, l := range cfg.Listeners {
		if l.Name == name {
			return l, true
		}
	}
	return config.Listener{}, false
}

func policy(cfg *config.Config, l config.Listener) submission.Policy {
	p := submission.Policy{
		TrustedNetworks: l.TrustedNetworks,
		Tenant:          l.Tenant,
		Stream:          l.Stream,
		MaxAge:          maxAge(cfg, l.Stream),
		MaxHops:         l.Limits.Hops,
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

func limits(l config.Listener) smtpserver.Limits {
	c := l.Limits
	return smtpserver.Limits{
		CommandLine:       int(c.CommandLine),
		TextLine:          int(c.TextLine),
		HeaderBytes:       int(c.HeaderSize),
		MessageBytes:      int64(c.MessageSize),
		Recipients:        c.Recipients,
		BadCommands:       c.BadCommands,
		CommandTimeout:    c.CommandTimeout,
		DataTimeout:       c.DataTimeout,
		MinDataRate:       int(c.MinDataRate),
		WriteTimeout:      c.WriteTimeout,
		SessionAge:        c.SessionAge,
		Sessions:          c.Sessions,
		SessionsPerClient: c.SessionsPerClient,
	}
}
