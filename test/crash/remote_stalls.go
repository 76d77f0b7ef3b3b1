package crash

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/daemon"
	"github.com/godwit-mta/godwit/smtp/smtpclient"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// stallRemotes fall silent at a point of the dialog, or answer at 90 % of what RFC 5321, 4.5.3.2 lets them have.
func stallRemotes(limit smtpclient.Timeouts) []*remote {
	var list []*remote
	late := func(d time.Duration) smtptest.Duration { return smtptest.Duration(d * 9 / 10) }
	// Where each reply is late, a busy machine makes one of them too late if nothing is left for it.
	rather := func(d time.Duration) smtptest.Duration { return smtptest.Duration(d * 3 / 4) }
	silent := func(name string, at smtptest.Point, without ...string) {
		list = append(list, &remote{
			name: name, reasons: []event.Reason{event.ReplyTimeout}, script: smtptest.Script{
				Without: without, Rules: []smtptest.Rule{{At: at, Stall: true, Times: 2}},
			},
		})
	}
	silent("silent-banner", smtptest.AtBanner)
	silent("silent-ehlo", smtptest.AtEhlo)
	silent("silent-mail", smtptest.AtMail)
	silent("silent-rcpt", smtptest.AtRcpt)
	silent("silent-data", smtptest.AtData, "CHUNKING")
	silent("silent-dot", smtptest.AtFinal)
	silent("silent-dot-data", smtptest.AtFinal, "CHUNKING", "PIPELINING")
	deaf := &remote{name: "deaf", large: true, reasons: []event.Reason{event.ReplyTimeout, event.ConnectionLost}}
	deaf.script.Rules = []smtptest.Rule{{At: smtptest.AtBody, Octets: 1, Stall: true, Times: 2}}
	slow := func(name string, m remote, rules ...smtptest.Rule) {
		m.name, m.script.Rules = name, rules
		list = append(list, &m)
	}
	// A reply to the dot after 9 of 10 minutes is a delivery, and no duplicate.
	slow("late-dot", remote{direct: true}, smtptest.Rule{At: smtptest.AtFinal, Delay: late(limit.DataDone)})
	slow("late-everywhere", remote{direct: true},
		smtptest.Rule{At: smtptest.AtBanner, Delay: rather(limit.Greeting)},
		smtptest.Rule{At: smtptest.AtEhlo, Delay: rather(limit.Hello)},
		smtptest.Rule{At: smtptest.AtMail, Delay: rather(limit.Mail)},
		smtptest.Rule{At: smtptest.AtFinal, Delay: rather(limit.DataDone)},
	)
	// One that comes after it is too late: the message has been taken, and comes again.
	slow("too-late-dot", remote{twice: true, reasons: []event.Reason{event.ReplyTimeout}},
		smtptest.Rule{At: smtptest.AtFinal, Times: 2, Delay: smtptest.Duration(limit.DataDone * 3 / 2)})
	return append(list, deaf)
}

// runStalls is row K-2. The server runs in this process, where its time limits can be scaled down.
func runStalls(ctx context.Context, t *Trial) (*Verdict, error) {
	scale := t.pick(150, 60)
	list := stallRemotes(smtpclient.DefaultTimeouts().Divided(scale))
	n := t.runs(4, 8)
	providers, zones := remoteWorld(list)
	o := rigOptions{
		providers: providers, zones: zones, unheard: unheard(list), drain: 2 * time.Minute, hasty: true, scale: scale,
	}
	v, e, err := withRig(ctx, t, o, func(ctx context.Context, r *rig) error {
		defer r.nudge(ctx, 300*time.Millisecond)()
		sum := r.feed(ctx, feed{
			n: n * len(list), sessions: 8, to: func(i int) []string { return list[i%len(list)].to(i / len(list)) },
			large: func(i int) bool { return list[i%len(list)].large },
		})
		r.v.note("%d remotes, time scaled 1:%d; %s", len(list), scale, sum)
		return r.drain(ctx, r.p)
	})
	if err != nil {
		return nil, err
	}
	for _, m := range list {
		judgeRemote(v, e, m, n)
	}
	return v, nil
}

// within starts the server in this process.
func (r *rig) within(scale int) error {
	c := config.Default()
	c.Hostname, c.DataDir, c.DrainTimeout = "godwit.crash.example", r.o.data, 5*time.Second
	c.Events.Dir = filepath.Join(c.DataDir, "events")
	c.DNS.Servers = []string{r.world.dns.Addr().String()}
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	c.Listeners = []config.Listener{{
		Name: listenerName, Address: "127.0.0.1:0", TrustedNetworks: loopback, Limits: c.Limits, Tenant: config.DefaultTenant,
		Stream: config.DefaultStream,
	}}
	c.Delivery.Port, c.Delivery.AllowedNetworks = r.world.port, loopback
	c.Delivery.Retry = []time.Duration{time.Second}
	d, err := daemon.New(daemon.Options{
		Config: c, Scale: scale, Logger: slog.New(slog.NewJSONHandler(r.log.file, nil)),
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{started: time.Now(), gone: make(chan struct{})}
	go func() {
		defer close(p.gone)
		p.err = d.Run(ctx)
	}()
	r.p = p
	r.leave = sync.OnceValue(func() error {
		cancel()
		<-p.gone
		return p.err
	})
	select {
	case <-d.Ready():
	case <-p.gone:
		return fmt.Errorf("the server did not start: %w", p.err)
	case <-time.After(2 * readyLimit):
		return errors.Join(fmt.Errorf("the server is not ready after %s", 2*readyLimit), r.leave())
	}
	p.readyAt = time.Now()
	r.address = d.Addresses()[listenerName]
	return nil
}
