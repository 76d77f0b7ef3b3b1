package daemon

import (
	"errors"
	"fmt"
	"net"

	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/submission"
	"github.com/godwit-mta/godwit/internal/submission/limits"
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

	bandwidth limits.Bandwidth
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

		Directory: r.door.directory,
		Inbound:   r.door.inbound,
		Signer:    r.door.signs.signer,
		Limits:    r.door.limits,
		Bandwidth: &in.bandwidth,
		Tenants:   r.door.bandwidth.of,
		Own:       r.check.isOwn,
	})
	if err != nil {
		return fmt.Errorf("listener %s: %w", in.name, err)
	}
	o := smtpserver.Options{
		Hostname:     cfg.Hostname,
		Backend:      in.door,
		Limits:       sessionLimits(l),
		Memory:       d.memory,
		Normalize:    l.Normalize,
		DrainTimeout: cfg.DrainTimeout,
		Logger:       d.log,
		Registerer:   d.metrics,
		Name:         in.name,
	}
	if err := r.door.secure(&o, l); err != nil {
		return fmt.Errorf("listener %s: %w", in.name, err)
	}
	in.bandwidth.Set(int64(l.Bandwidth))
	if in.server, err = smtpserver.New(o); err != nil {
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
	in.bandwidth.Set(int64(l.Bandwidth))
	return errors.Join(in.server.SetAccess(l.AllowNetworks, l.DenyNetworks), in.server.SetLimits(sessionLimits(l)))
}

func listenerNamed(cfg *config.Config, name string) (*config.Listener, bool) {
	for i := range cfg.Listeners {
		if cfg.Listeners[i].Name == name {
			return &cfg.Listeners[i], true
		}
	}
	return nil, false
}

func sessionLimits(l *config.Listener) smtpserver.Limits {
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
