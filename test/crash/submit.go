package crash

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// sender is who all mail is from: reports come back to it.
const sender = "app@" + homeDomain

// mostPending is how many recipients may be acknowledged and not delivered before submitters wait: enough to keep all
// parts of the server busy, and little enough to be delivered between two kills.
const mostPending = 3000

// door tells submitters where the server listens now.
type door struct {
	mu      sync.Mutex
	address string        // empty: nowhere
	changed chan struct{} // closed when address changes
	pending atomic.Int64  // recipients acknowledged and not delivered
	most    int64         // of them at which submitters wait; negative: never
	replies replies
}

func newDoor(most int64) *door {
	if most == 0 {
		most = mostPending
	}
	return &door{changed: make(chan struct{}), most: most}
}

func (d *door) set(address string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.address = address
	d.pending.Store(0)
	close(d.changed)
	d.changed = make(chan struct{})
}

// wait returns the address of a server that runs, or an error at the end of ctx.
func (d *door) wait(ctx context.Context) (string, error) {
	for {
		d.mu.Lock()
		address, changed := d.address, d.changed
		d.mu.Unlock()
		if address != "" {
			return address, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// submitter hands mail in, one session after another. It is one goroutine.
type submitter struct {
	door   *door
	ledger *ledger
	shaper *shaper
	rand   *rand.Rand
}

// run submits until ctx ends. The submission that is under way then comes to its end.
func (s *submitter) run(ctx context.Context) {
	for {
		address, err := s.door.wait(ctx)
		if err != nil {
			return
		}
		if err := s.serve(ctx, address); err != nil && !pause(ctx, 2*time.Millisecond) {
			return
		}
	}
}

// serve opens a session and uses it for some submissions.
func (s *submitter) serve(ctx context.Context, address string) error {
	c, err := dial(ctx, address, "submitter.example")
	if err != nil {
		return err
	}
	defer c.nc.Close()
	for range 1 + s.rand.IntN(20) {
		for s.door.most >= 0 && s.door.pending.Load() > s.door.most {
			if !pause(ctx, 5*time.Millisecond) {
				return nil
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		p := s.shaper.plan()
		begin := p.submission
		begin.Time = time.Now()
		s.ledger.add(begin)
		end, err := p.submit(c)
		end.Token, end.Time = p.Token, time.Now()
		s.door.replies.note(&end, p.waited)
		if err != nil {
			end.Err = err.Error()
		}
		s.ledger.add(end)
		if end.Outcome == accepted {
			s.door.pending.Add(int64(len(p.To)))
		}
		if err != nil || p.fate == breakOff {
			return err
		}
	}
	_, err = c.ask("QUIT\r\n")
	return err
}

// submit carries the plan out and says what the submitter knows afterwards. With an error the session is over.
func (p *plan) submit(c *session) (submission, error) {
	if p.chunks > 0 {
		return p.submitChunks(c)
	}
	return p.submitData(c)
}

// envelope returns MAIL and RCPT commands, one string each.
func (p *plan) envelope() []string {
	commands := []string{"MAIL FROM:<" + sender + "> BODY=8BITMIME\r\n"}
	notify := ""
	if p.Silent {
		notify = " NOTIFY=NEVER"
	}
	for _, to := range append(p.bad, p.To...) {
		commands = append(commands, "RCPT TO:<"+to+">"+notify+"\r\n")
	}
	return commands
}

// introduce gives the envelope. goOn is false if the transaction came to its end here.
func (p *plan) introduce(c *session, and string) (end submission, goOn bool, err error) {
	end.Outcome = aborted
	commands := p.envelope()
	if p.pipelined {
		if err := c.send([]byte(strings.Join(commands, "") + and)); err != nil {
			return end, false, err
		}
	}
	taken := 0
	for i, command := range commands {
		if p.pipelined {
			command = ""
		}
		r, err := c.ask(command)
		if err != nil {
			return end, false, err
		}
		switch {
		case i == 0 && !r.positive():
			return p.refuse(c, r)
		case i == 0:
		case r.positive():
			taken++
		case i > len(p.bad):
			end.Dropped = append(end.Dropped, p.To[i-1-len(p.bad)])
			end.Code = r.code
		}
	}
	if taken == 0 {
		return p.refuse(c, reply{code: end.Code})
	}
	return end, true, nil
}

// refuse ends a transaction that the server does not want. With commands in flight that need an answer of another
// kind, the session ends too.
func (p *plan) refuse(c *session, r reply) (submission, bool, error) {
	end := submission{Outcome: refused, Code: r.code, Enhanced: r.enhanced()}
	if p.pipelined {
		return end, false, fmt.Errorf("refused: %d %s", r.code, r.text)
	}
	if r.code == 421 {
		return end, false, fmt.Errorf("server closes: %s", r.text)
	}
	_, err := c.ask("RSET\r\n")
	return end, false, err
}

func (p *plan) submitData(c *session) (submission, error) {
	if p.fate == reset {
		return p.takeBack(c)
	}
	command := "DATA\r\n"
	and := ""
	if p.pipelined {
		command, and = "", command
	}
	end, goOn, err := p.introduce(c, and)
	if !goOn {
		return end, err
	}
	r, err := c.ask(command)
	if err != nil {
		return end, err
	}
	if r.code != 354 {
		end.Outcome, end.Code, end.Enhanced = refused, r.code, r.enhanced()
		return end, nil
	}
	stuffed := bytes.ReplaceAll(p.content, []byte("\r\n."), []byte("\r\n.."))
	if p.fate == breakOff {
		return end, c.send(stuffed[:len(stuffed)*2/3])
	}
	if err := c.send(append(stuffed, ".\r\n"...)); err != nil {
		return end, err
	}
	p.left = time.Now()
	return p.conclude(c, end)
}

// takeBack gives the envelope and resets.
func (p *plan) takeBack(c *session) (submission, error) {
	end, goOn, err := p.introduce(c, "")
	if !goOn {
		return end, err
	}
	_, err = c.ask("RSET\r\n")
	return end, err
}

func (p *plan) submitChunks(c *session) (submission, error) {
	if p.fate == reset {
		return p.takeBack(c)
	}
	last := p.fate != breakOff && p.fate != forget
	chunks := p.cut(last)
	if p.pipelined && len(chunks) == 1 && last {
		return p.submitAtOnce(c, chunks[0])
	}
	end, goOn, err := p.introduce(c, "")
	if !goOn {
		return end, err
	}
	for i, chunk := range chunks {
		if err := c.send(chunk); err != nil {
			return end, err
		}
		if i == len(chunks)-1 && last {
			p.left = time.Now()
			break
		}
		r, err := c.reply()
		if err != nil {
			return end, err
		}
		if !r.positive() {
			end.Outcome, end.Code, end.Enhanced = refused, r.code, r.enhanced()
			_, err := c.ask("RSET\r\n")
			return end, err
		}
	}
	if !last {
		if p.fate == forget {
			_, err = c.ask("RSET\r\n")
		}
		return end, err
	}
	return p.conclude(c, end)
}

// submitAtOnce writes the whole transaction before the first reply is read.
func (p *plan) submitAtOnce(c *session, chunk []byte) (submission, error) {
	all := append([]byte(strings.Join(p.envelope(), "")), chunk...)
	if err := c.send(all); err != nil {
		return submission{Outcome: aborted}, err
	}
	p.left = time.Now()
	end, goOn, err := p.introduceReplies(c)
	if !goOn {
		return end, err
	}
	return p.conclude(c, end)
}

// introduceReplies reads the replies to an envelope whose message has left too.
func (p *plan) introduceReplies(c *session) (end submission, goOn bool, err error) {
	end.Outcome = unknown
	for i := range 1 + len(p.bad) + len(p.To) {
		r, err := c.reply()
		if err != nil {
			return end, false, err
		}
		if i > len(p.bad) && !r.positive() {
			end.Dropped = append(end.Dropped, p.To[i-1-len(p.bad)])
			end.Code = r.code
		}
	}
	return end, true, nil
}

// cut parts the content into BDAT commands with their octets. last says that the last one says so.
func (p *plan) cut(last bool) [][]byte {
	var chunks [][]byte
	rest := p.content
	for i := range p.chunks {
		n := len(rest) / (p.chunks - i)
		word := ""
		if last && i == p.chunks-1 {
			word = " LAST"
		}
		chunks = append(chunks, append(fmt.Appendf(nil, "BDAT %d%s\r\n", n, word), rest[:n]...))
		rest = rest[n:]
	}
	return chunks
}

// conclude reads the final reply to a message that has left in full.
func (p *plan) conclude(c *session, end submission) (submission, error) {
	end.Outcome = unknown
	r, err := c.reply()
	p.waited = time.Since(p.left)
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

// queuedAs returns the id that a 250 tells.
func queuedAs(r reply) string {
	_, id, _ := strings.Cut(r.text, "queued as ")
	return id
}

// pause waits, and reports false if ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
