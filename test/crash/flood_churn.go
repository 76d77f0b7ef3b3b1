package crash

import (
	"context"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// runChurn is row C-4: clients that connect and leave, and clients that say much and mean nothing.
func runChurn(ctx context.Context, t *Trial) (*Verdict, error) {
	span := time.Duration(t.pick(3, 6)) * time.Second
	v, _, err := withRig(ctx, t, rigOptions{
		providers: goodWorld(), listener: "sessions_per_client: 20000",
	}, func(ctx context.Context, r *rig) error {
		for _, f := range []struct {
			name    string
			clients int
			visit   func(ctx context.Context, nc net.Conn) int
		}{
			{"connect and close", 8, func(context.Context, net.Conn) int { return 1 }},
			{"connect, hello and reset", 8, func(_ context.Context, nc net.Conn) int {
				_, _ = nc.Write([]byte("EHLO flood.example\r\nMAIL FROM:<a@home.example>\r\n"))
				_ = nc.(*net.TCPConn).SetLinger(0)
				return 1
			}},
			{"NOOP", 4, floodOf("NOOP\r\n")},
			{"RSET", 4, floodOf("RSET\r\n")},
			{"nonsense", 4, floodOf("XYZZY\r\n")},
		} {
			if err := r.churn(ctx, f.name, f.clients, span, f.visit); err != nil {
				return err
			}
		}
		return nil
	})
	return v, err
}

// floodOf returns a visitor that repeats a command as quickly as the server lets it.
func floodOf(command string) func(context.Context, net.Conn) int {
	block := []byte(strings.Repeat(command, 50))
	return func(ctx context.Context, nc net.Conn) int {
		answers := make([]byte, 32<<10)
		n := 0
		_ = nc.SetDeadline(time.Now().Add(patience))
		if _, err := nc.Write([]byte("EHLO flood.example\r\n")); err != nil {
			return n
		}
		for ctx.Err() == nil {
			if _, err := nc.Write(block); err != nil {
				return n
			}
			if _, err := nc.Read(answers); err != nil {
				return n
			}
			n += 50
		}
		return n
	}
}

// churn lets clients visit the server one after the other for so long, beside mail.
func (r *rig) churn(
	ctx context.Context, name string, clients int, span time.Duration, visit func(context.Context, net.Conn) int,
) error {
	used, err := r.p.cpu()
	if err != nil {
		return err
	}
	mail := r.traffic(ctx, strings.ReplaceAll(name, " ", ""), 200)
	limited, cancel := context.WithTimeout(ctx, span)
	defer cancel()
	var visits, done atomic.Int64
	var all sync.WaitGroup
	for range clients {
		c := &crowd{address: r.address}
		all.Go(func() {
			for limited.Err() == nil {
				nc, err := c.connect(limited)
				if err != nil {
					return
				}
				done.Add(int64(visit(limited, nc)))
				visits.Add(1)
				c.disperse()
				if clients == 8 && !pause(limited, 2*time.Millisecond) { // some 3,000 a second
					return
				}
			}
		})
	}
	all.Wait()
	sum := mail.end("beside " + name)
	after, err := r.p.cpu()
	if err != nil {
		return err
	}
	r.v.note("%s: %d visits, %d acts within %s, for %s of processor time", name, visits.Load(), done.Load(), span, after-used)
	if sum.accepted == 0 || sum.refused+sum.unknown > 0 {
		r.v.breach(Row, "beside %s: %s", name, sum)
	}
	return nil
}
