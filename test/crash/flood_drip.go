package crash

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
)

// drips are the phases of C-3: what is sent at once, and what then comes an octet at a time.
var drips = []struct{ name, before, slowly string }{
	{"hello", "", "EHLO drip.example with a very long name that takes its time"},
	{"command", "EHLO drip.example\r\n", "MAIL FROM:<someone.with.a.long.name@home.example> SIZE=1"},
	{"DATA", "EHLO drip.example\r\nMAIL FROM:<a@home.example>\r\nRCPT TO:<user@good.example>\r\nDATA\r\n",
		"Subject: slowly\r\n\r\n" + strings.Repeat("x", 60)},
	{"BDAT", "EHLO drip.example\r\nMAIL FROM:<a@home.example>\r\nRCPT TO:<user@good.example>\r\nBDAT 100000\r\n",
		strings.Repeat("x", 90)},
}

// runDrips is row C-3: clients that send an octet at a time, at each phase. Time limits are 1:30 of what they are.
func runDrips(ctx context.Context, t *Trial) (*Verdict, error) {
	n := t.runs(100, 5000)
	const limit, every = 10 * time.Second, time.Second
	v, _, err := withRig(ctx, t, rigOptions{
		providers: goodWorld(),
		listener:  fmt.Sprintf("command_timeout: %s, data_timeout: %s, sessions: 60000, sessions_per_client: 20000", limit, limit),
	}, func(ctx context.Context, r *rig) error {
		mail := r.traffic(ctx, "calm", 200)
		pause(ctx, 3*time.Second)
		calm := mail.end("before")
		c := &crowd{address: r.address}
		defer c.disperse()
		if err := c.gather(ctx, n, false); err != nil {
			return fmt.Errorf("connect %d clients: %w", n, err)
		}
		mail = r.traffic(ctx, "drip", 200)
		began := time.Now()
		dripping, cancel := context.WithCancel(ctx)
		var all sync.WaitGroup
		for i, nc := range c.conns {
			all.Go(func() { drip(dripping, nc, drips[i%len(drips)].before, drips[i%len(drips)].slowly, every) })
		}
		_, last, left := c.awaitEnds(began, 3*limit)
		cancel()
		all.Wait()
		beside := mail.end("beside slow clients")
		r.v.note("%d slow clients are cut within %s; the limit is %s", n, last.Round(time.Millisecond), limit)
		if left > 0 || last > limit*9/8+5*time.Second {
			r.v.breach(Row, "%d slow clients are not cut, the last was after %s", left, last)
		}
		// The machine serves the harness too, so a difference of some ms tells nothing.
		if a, b := calm.quantile(0.99), beside.quantile(0.99); b > 2*a+100*time.Millisecond {
			r.v.breach(Row, "mail is accepted in %s (99 %%) beside slow clients, and in %s without", b, a)
		}
		return nil
	})
	return v, err
}

// drip sends what comes before at once and the rest an octet at a time, until it may not.
func drip(ctx context.Context, nc net.Conn, before, slowly string, every time.Duration) {
	if _, err := nc.Write([]byte(before)); err != nil {
		return
	}
	for i := range slowly {
		if !pause(ctx, every) {
			return
		}
		if _, err := nc.Write([]byte{slowly[i]}); err != nil {
			return
		}
	}
}
