package crash

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Sizes of row M-3.
const (
	groupMiB   = 512
	bigMessage = 25 << 20
	bigWithin  = 4 * time.Minute
)

// runMemory is row M-3: many messages of 25 MB at once, in a process that may use 512 MB. What does not fit is
// refused for the time being, and sent again until it is taken. Small mail goes on beside it.
func runMemory(ctx context.Context, t *Trial) (_ *Verdict, err error) {
	group, err := newMemoryGroup(groupMiB)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, group.remove()) }()
	o := setting{
		binary: t.Binary, dir: t.Dir, seed: t.Seed, prefix: group.prefix(), profile: true, submitters: 2, plain: true,
		drain:  3 * time.Minute,
		config: serverConfig{segment: "64MiB", messageSize: bigMessage + 1<<20, drain: "60s"},
	}
	return perform(ctx, o, func(ctx context.Context, s *stage) error {
		s.v.checks(Row)
		p, err := s.start()
		if err != nil {
			return err
		}
		before, err := p.use(ctx)
		if err == nil {
			s.door.set(p.address)
			err = s.sendBig(ctx, p, t.runs(60, 200))
		}
		limited, killed := group.events()
		if killed > 0 {
			s.v.breach(Row, "the system killed %d times for want of memory", killed)
		}
		if err != nil {
			return errors.Join(err, p.end())
		}
		peak, err := p.memory("VmHWM")
		if err != nil {
			return errors.Join(err, p.end())
		}
		s.v.note("most memory resident: %.0f MiB of %d; with the page cache the group was at its limit %d times",
			mib(peak), groupMiB, limited)
		return s.finish(ctx, p, before)
	})
}

// bigMail is one large message: all of them share their text.
type bigMail struct {
	submission
	header, text []byte
	declare      bool // says its size at MAIL
}

// bigMails makes so many of them.
func (s *stage) bigMails(n int) []*bigMail {
	text := make([]byte, 0, bigMessage+1024)
	r := rand.New(rand.NewPCG(s.o.seed, 2))
	for len(text) < bigMessage {
		line := appendLine(nil, r)
		if line[0] != '.' {
			text = append(text, line...)
		}
	}
	mails := make([]*bigMail, n)
	for i := range mails {
		m := &bigMail{text: text, declare: i%2 == 0}
		m.Token = fmt.Sprintf("big.%d@%s", i, homeDomain)
		m.To = []string{fmt.Sprintf("user%d@quick.example", i)}
		m.header = fmt.Appendf(nil, "Message-ID: <%s>\r\nSubject: big\r\n\r\n", m.Token)
		m.Mode, m.Size = "DATA", len(m.header)+len(text)
		sum := sha256.New()
		sum.Write(m.header)
		sum.Write(text)
		m.Hash = hex.EncodeToString(sum.Sum(nil))
		mails[i] = m
	}
	return mails
}

// sendBig sends all the messages at once, again and again until each is taken.
func (s *stage) sendBig(ctx context.Context, p *process, n int) error {
	mails := s.bigMails(n)
	var all sync.WaitGroup
	var taken, later atomic.Int64
	var mu sync.Mutex
	strange := make(map[string]int)
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, bigWithin)
	defer cancel()
	for i, m := range mails {
		begin := m.submission
		begin.Time = time.Now()
		s.submit.add(begin)
		all.Go(func() {
			for limited.Err() == nil && p.alive() {
				end, err := m.send(limited, p.address)
				end.Token, end.Time = m.Token, time.Now()
				if err != nil {
					end.Err = err.Error()
				}
				s.submit.add(end)
				switch {
				case end.Outcome == accepted:
					taken.Add(1)
					return
				case end.Outcome == unknown: // sent again it might come twice
					return
				case end.Code == 452:
					later.Add(1)
				default:
					mu.Lock()
					strange[fmt.Sprint(end.Outcome, " ", end.Code, " ", end.Enhanced, " ", end.Err)]++
					mu.Unlock()
				}
				pause(limited, 200*time.Millisecond+time.Duration(i)*2*time.Millisecond)
			}
		})
	}
	all.Wait()
	if !p.alive() {
		return fmt.Errorf("with %d large messages at once %w: %v", n, errDied, p.err)
	}
	s.v.note("%d messages of 25 MB at once: %d taken after %s; 452 was said %d times", n, taken.Load(),
		time.Since(began).Round(100*time.Millisecond), later.Load())
	if missing := n - int(taken.Load()); missing > 0 {
		s.v.breach(Row, "%d of %d large messages were not taken within %s", missing, n, bigWithin)
	}
	if len(strange) > 0 {
		s.v.note("ended otherwise: %v", strange)
	}
	return context.Cause(ctx)
}

// send hands the message in once.
func (m *bigMail) send(ctx context.Context, address string) (end submission, err error) {
	end.Outcome = aborted
	c, err := dial(ctx, address, "big.example")
	if err != nil {
		return end, err
	}
	defer c.nc.Close()
	mail := "MAIL FROM:<" + sender + ">"
	if m.declare {
		mail += fmt.Sprintf(" SIZE=%d", m.Size)
	}
	for _, command := range []string{mail, "RCPT TO:<" + m.To[0] + ">", "DATA"} {
		r, err := c.ask(command + "\r\n")
		if err != nil {
			return end, err
		}
		if r.code/100 > 3 {
			end.Outcome, end.Code, end.Enhanced = refused, r.code, r.enhanced()
			return end, nil
		}
	}
	for _, part := range [][]byte{m.header, m.text} {
		if err := c.send(part); err != nil {
			return m.early(c, end, err)
		}
	}
	if err := c.send([]byte(".\r\n")); err != nil {
		return m.early(c, end, err)
	}
	end.Outcome = unknown
	r, err := c.reply()
	if err != nil {
		return end, err
	}
	end.Code, end.Enhanced = r.code, r.enhanced()
	if end.Outcome = refused; r.code == 250 {
		end.Outcome = accepted
		end.Message = queuedAs(r)
	}
	return end, nil
}

// early reads what a server said that closed before it had the whole message.
func (m *bigMail) early(c *session, end submission, err error) (submission, error) {
	if r, again := c.reply(); again == nil && r.code >= 400 {
		end.Outcome, end.Code, end.Enhanced = refused, r.code, r.enhanced()
		return end, nil
	}
	return end, err
}
