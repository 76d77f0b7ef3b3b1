package daemon

import (
	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/dns"
	"github.com/godwit-mta/godwit/internal/submission/inbound"
)

// newInbound makes what finds out who mail from outside is from. keys may be nil: then nothing is sealed.
func (d *Daemon) newInbound(cfg *config.Config, r *dns.Resolver, keys inbound.Keys) (*inbound.Checker, error) {
	return inbound.New(inbound.Options{
		Hostname:   cfg.Hostname,
		Resolver:   inbound.DNS(r),
		Keys:       keys,
		InFlight:   cfg.Inbound.ChecksInFlight,
		Timeout:    cfg.Inbound.Timeout,
		Config:     inboundConfig(cfg),
		Logger:     d.log,
		Registerer: d.metrics,
	})
}

func inboundConfig(cfg *config.Config) inbound.Config {
	in := &cfg.Inbound
	return inbound.Config{
		TrustedSealers: in.TrustedSealers, RejectSPF: in.RejectSPF, Seal: in.ARC.Domain, Selector: in.ARC.Selector,
	}
}

var verifyModes = map[string]inbound.Mode{"off": inbound.Off, "report": inbound.Report, "mark": inbound.Mark, "reject": inbound.Reject}

// verifyMode is what a listener does about mail from outside.
func verifyMode(l *config.Listener) inbound.Mode { return verifyModes[l.VerifyMode()] }
