package crash

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// runDeaf is row C-5: clients that never read replies, and remotes that never read a message. What cuts the remotes is
// looked at in K-2, with its time limits scaled down.
func runDeaf(ctx context.Context, t *Trial) (*Verdict, error) {
	const deaf, limit = 20, 3 * time.Second
	var stalled []*provider
	for i := range deaf {
		stalled = append(stalled, &provider{
			domain: fmt.Sprintf("deaf%d.example", i), address: fmt.Sprintf("127.0.3.%d", 10+i),
			script: smtptest.Script{Rules: []smtptest.Rule{{At: smtptest.AtBody, Octets: 1, Stall: true}}},
		})
	}
	v, _, err := withRig(ctx, t, rigOptions{
		providers: append(goodWorld(), stalled...), hasty: true,
		listener: fmt.Sprintf("write_timeout: %s, message_size: 16MiB", limit),
	}, func(ctx context.Context, r *rig) error {
		before, err := r.p.use(ctx)
		if err != nil {
			return err
		}
		r.feed(ctx, feed{name: "deaf", n: deaf, sessions: 4, size: 400 << 10, to: func(i int) []string {
			return []string{fmt.Sprintf("user@deaf%d.example", i)}
		}})
		mail := r.traffic(ctx, "beside", 200)
		var cut time.Duration
		var left int
		var clients sync.WaitGroup
		clients.Go(func() { cut, left = r.deafClients(ctx, deaf, limit) })
		pause(ctx, limit*2/3) // all of them are waited for now
		during, err := r.p.use(ctx)
		clients.Wait()
		if err != nil {
			return err
		}
		sum := mail.end("beside those who do not read")
		heap := during.heap - before.heap
		// The messages for remotes that do not read stay in memory, once each; buffers come on top.
		bodies := int64(deaf * 600 << 10)
		r.v.note("%d clients that do not read are cut within %s; %d KiB of heap more, bodies at most %d", deaf,
			cut.Round(time.Millisecond), heap>>10, bodies>>10)
		if left > 0 || cut < limit/2 || cut > 2*limit+2*time.Second {
			r.v.breach(Row, "%d clients that never read are not cut, and the last was after %s; the limit is %s", left, cut, limit)
		}
		if heap > bodies+2*deaf*64<<10+8<<20 {
			r.v.breach(Row, "those who do not read cost %d KiB of heap", heap>>10)
		}
		if sum.accepted == 0 || sum.refused+sum.unknown > 0 {
			r.v.breach(Row, "beside those who do not read: %s", sum)
		}
		for _, p := range stalled { // they listen again from the next session on
			if err := p.sink.SetScript(smtptest.Script{}); err != nil {
				return err
			}
		}
		// A stop does not wait ten minutes for the replies to what such remotes have in their sockets.
		if err := r.down(); err != nil {
			return err
		}
		return r.up(ctx)
	})
	return v, err
}

// deafClients opens sessions that ask and ask and never read. It returns when the last was cut, and how many were not.
func (r *rig) deafClients(ctx context.Context, n int, limit time.Duration) (last time.Duration, left int) {
	// Some 15 MB of replies, which is more than the system keeps for a connection.
	all := []byte("EHLO deaf.example\r\n" + strings.Repeat("MAIL FROM:<a@home.example>\r\n"+
		strings.Repeat("RCPT TO:<user@good.example>\r\n", 5000)+"RSET\r\n", 90))
	var mu sync.Mutex
	var clients sync.WaitGroup
	for range n {
		clients.Go(func() {
			d := net.Dialer{Timeout: patience, Control: func(_, _ string, raw syscall.RawConn) error {
				return raw.Control(func(fd uintptr) { // what does not fit here stays with the server
					_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<10)
				})
			}}
			nc, err := d.DialContext(ctx, "tcp", r.address)
			if err != nil {
				return
			}
			defer nc.Close()
			question := all
			began, blocked := time.Now(), time.Time{}
			for time.Since(began) < 10*limit && len(question) > 0 {
				_ = nc.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
				k, err := nc.Write(question)
				question = question[k:]
				if errors.Is(err, os.ErrDeadlineExceeded) {
					if k == 0 && blocked.IsZero() {
						blocked = time.Now() // the server reads no more, for it cannot write
					}
					continue
				}
				if err != nil {
					mu.Lock()
					defer mu.Unlock()
					if !blocked.IsZero() {
						last = max(last, time.Since(blocked))
					}
					return
				}
			}
			mu.Lock()
			defer mu.Unlock()
			left++
		})
	}
	clients.Wait()
	return last, left
}
