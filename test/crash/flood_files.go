package crash

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// runFiles is row C-2: a server that may open 512 files, and 2,000 clients.
func runFiles(ctx context.Context, t *Trial) (*Verdict, error) {
	const files, clients = 512, 2000
	later := &provider{domain: "later.example", address: "127.0.3.2", script: smtptest.Script{
		SessionMessages: 1, // each delivery needs a descriptor
		Rules:           []smtptest.Rule{{At: smtptest.AtRcpt, Reply: "451 4.7.1 Come back", Share: 0.7}},
	}}
	v, _, err := withRig(ctx, t, rigOptions{
		providers: append(goodWorld(), later), retry: "[1s]",
		prefix: []string{"/bin/sh", "-c", fmt.Sprintf("ulimit -n %d && exec \"$@\"", files), "sh"},
	}, func(ctx context.Context, r *rig) error {
		r.feed(ctx, feed{name: "later", n: 300, sessions: 4, to: func(int) []string { return []string{"user@later.example"} }})
		c := &crowd{address: r.address}
		defer c.disperse()
		if err := c.gather(ctx, clients, false); err != nil {
			return fmt.Errorf("connect %d clients: %w", clients, err)
		}
		span := time.Duration(t.pick(4, 10)) * time.Second
		used, err := r.p.cpu()
		if err != nil {
			return err
		}
		delivered := later.sink.Counters().Deliveries
		pause(ctx, span)
		after, err := r.p.cpu()
		if err != nil {
			return err
		}
		delivered = later.sink.Counters().Deliveries - delivered
		share := float64(after-used) / float64(span)
		r.v.note("%d clients, %d files: %.1f %% of a processor, %d deliveries go out within %s", clients, files, 100*share,
			delivered, span)
		if share > 0.10 {
			r.v.breach(Row, "the server uses %.0f %% of a processor while it has no descriptors", 100*share)
		}
		// Each second some 70 % of what is left is deferred again.
		if delivered < 50 {
			r.v.breach(Row, "%d deliveries go out while clients wait for descriptors", delivered)
		}
		c.disperse()
		began := time.Now()
		took, err := r.greeted(ctx, 10*time.Second)
		if err != nil {
			r.v.breach(Row, "%s after the clients left none is greeted: %v", time.Since(began), err)
			return nil
		}
		r.v.note("a new client is greeted %s after the others left", took.Round(time.Millisecond))
		if took > 1500*time.Millisecond {
			r.v.breach(Row, "a new client is greeted only %s after the others left", took)
		}
		return nil
	})
	return v, err
}

// greeted waits until a client is greeted by 220, and returns how long that took.
func (r *rig) greeted(ctx context.Context, limit time.Duration) (time.Duration, error) {
	began := time.Now()
	for {
		nc, err := net.DialTimeout("tcp", r.address, time.Second)
		if err == nil {
			_ = nc.SetReadDeadline(time.Now().Add(2 * time.Second))
			line := make([]byte, 4)
			if _, err = io.ReadFull(nc, line); err == nil && string(line) != "220 " {
				err = fmt.Errorf("the greeting is %q", line)
			}
			_ = nc.Close()
		}
		if err == nil {
			return time.Since(began), nil
		}
		if time.Since(began) > limit || !pause(ctx, 20*time.Millisecond) {
			return 0, err
		}
	}
}
