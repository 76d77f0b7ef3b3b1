package smtpclient_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/smtpclient"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ledger is what a sink has accepted: for each recipient the bodies it got.
type ledger struct {
	mu       sync.Mutex
	messages []*smtptest.Received
}

func (l *ledger) add(m *smtptest.Received) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.messages = append(l.messages, m)
}

// accepted counts the messages answered with 2yz that name the recipient.
func (l *ledger) accepted(recipient string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, m := range l.messages {
		for i, r := range m.Recipients {
			reply := m.Replies[0]
			if len(m.Replies) > 1 {
				reply = m.Replies[i]
			}
			if r == recipient && strings.HasPrefix(reply, "2") {
				n++
			}
		}
	}
	return n
}

// peer is a scripted sink, with the ledger of what it took.
type peer struct {
	*smtptest.Sink
	script smtptest.Script
	ledger ledger
	dial   func() (net.Conn, error)
	wait   func() // for all sessions to end
}

func newPeer(t testing.TB, script smtptest.Script, source rand.Source) *peer {
	t.Helper()
	p := &peer{script: script}
	sink, err := smtptest.NewSink(smtptest.SinkOptions{
		Script: script, KeepBody: true, OnMessage: p.ledger.add, Rand: source,
	})
	if err != nil {
		t.Fatal(err)
	}
	p.Sink = sink
	return p
}

// loopback serves the peer over TCP.
func loopback(t testing.TB, script smtptest.Script) *peer {
	t.Helper()
	p := newPeer(t, script, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx, l) }()
	p.wait = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(p.wait)
	p.dial = func() (net.Conn, error) { return net.Dial("tcp", l.Addr().String()) }
	return p
}

// piped serves the peer over connections in memory, fit for fake time.
func piped(t testing.TB, script smtptest.Script) *peer {
	t.Helper()
	return pipedBy(t, script, nil)
}

// pipedBy is piped with chances that can be repeated.
func pipedBy(t testing.TB, script smtptest.Script, source rand.Source) *peer {
	t.Helper()
	p := newPeer(t, script, source)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	p.wait = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	t.Cleanup(p.wait)
	p.dial = func() (net.Conn, error) {
		client, server := smtptest.Pipe()
		running.Go(func() { p.ServeConn(ctx, server) })
		return client, nil
	}
	return p
}

// open starts a session; the test fails if it does not.
func (p *peer) open(t testing.TB, o smtpclient.Options) *smtpclient.Conn {
	t.Helper()
	c, err := p.try(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func (p *peer) try(o smtpclient.Options) (*smtpclient.Conn, error) {
	nc, err := p.dial()
	if err != nil {
		return nil, err
	}
	c := smtpclient.New(nc, o)
	if err := c.Start(context.Background()); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

const letter = "From: <a@example.org>\r\nSubject: x\r\n\r\nhello\r\n.a line with a dot\r\n..\r\n.\r\nbye\r\n"

// message makes a transaction; its recipients are unique by tag.
func message(tag string, recipients int, body string) *smtpclient.Transaction {
	t := &smtpclient.Transaction{From: smtp.Sender{Path: smtp.Path{Local: "sender", Domain: "example.org"}}}
	for i := range recipients {
		t.Recipients = append(t.Recipients, smtp.Recipient{Path: smtp.Path{Local: fmt.Sprintf("%s%d", tag, i+1), Domain: "example.com"}})
	}
	t.Body = smtp.BodyOf([]byte(body))
	return t
}

// statuses writes the outcome of a transaction on one line, runs of the same as "40 * delivered 250 final".
func statuses(t *smtpclient.Transaction) string {
	var words []string
	for _, r := range t.Result.Recipients {
		word := r.Status.String()
		if !r.Reply.IsZero() {
			word += " " + fmt.Sprint(r.Reply.Code)
		}
		words = append(words, word+" "+r.Phase.String())
	}
	return runs(words)
}

func runs(words []string) string {
	var out []string
	for len(words) > 0 {
		n := 1
		for n < len(words) && words[n] == words[0] {
			n++
		}
		if n > 1 {
			out = append(out, fmt.Sprintf("%d * %s", n, words[0]))
		} else {
			out = append(out, words[0])
		}
		words = words[n:]
	}
	return strings.Join(out, ", ")
}

// judge holds the results against what the peer took: nothing delivered is missing, and nothing refused or unsent was
// taken.
func (p *peer) judge(t testing.TB, transactions ...*smtpclient.Transaction) {
	t.Helper()
	p.wait()
	for _, tx := range transactions {
		for i, r := range tx.Result.Recipients {
			name := tx.Recipients[i].String()
			n := p.ledger.accepted(name)
			switch r.Status {
			case smtpclient.Delivered:
				if n != 1 {
					t.Errorf("%s was delivered, and the peer took it %d times", name, n)
				}
				if r.Err != nil || !r.Reply.Positive() || r.Phase != smtpclient.PhaseFinal {
					t.Errorf("%s: delivered with %+v", name, r)
				}
			case smtpclient.Unknown:
				if r.Err == nil || n > 1 {
					t.Errorf("%s is unknown with error %v, and the peer took it %d times", name, r.Err, n)
				}
			case smtpclient.Unsent:
				if r.Err == nil || !r.Reply.IsZero() {
					t.Errorf("%s: unsent with %+v", name, r)
				}
				fallthrough
			default:
				if n != 0 {
					t.Errorf("%s is %s, and the peer took it %d times", name, r.Status, n)
				}
			}
		}
	}
}

// ways are the ways a transaction can go over the wire.
var ways = []struct {
	name string
	o    smtpclient.Options
}{
	{"bdat", smtpclient.Options{}},
	{"late bdat", smtpclient.Options{Eager: -1}},
	{"data", smtpclient.Options{NoChunking: true}},
	{"alone", smtpclient.Options{NoChunking: true, NoPipelining: true}},
	{"alone bdat", smtpclient.Options{NoPipelining: true}},
}

func TestSendEveryWay(t *testing.T) {
	t.Parallel()
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			p := loopback(t, smtptest.Script{})
			c := p.open(t, way.o)
			if x := c.Extensions(); !x.Chunking || !x.Pipelining || !x.SMTPUTF8 || c.Banner().Code != 220 || c.RemoteAddr() == nil || c.LocalAddr() == nil {
				t.Errorf("%+v, %s, %s, %s", x, c.Banner(), c.RemoteAddr(), c.LocalAddr())
			}
			var all []*smtpclient.Transaction
			for i := range 4 {
				tx := message(fmt.Sprintf("t%d-", i), 3, letter)
				if err := c.Send(t.Context(), tx); err != nil {
					t.Fatal(err)
				}
				if got := statuses(tx); got != "3 * delivered 250 final" {
					t.Errorf("got %s", got)
				}
				if !c.Reusable() || !c.Alive() || c.Transactions() != i+1 {
					t.Errorf("after %d: reusable %v, alive %v, transactions %d", i, c.Reusable(), c.Alive(), c.Transactions())
				}
				r := &tx.Result
				if r.Started.After(r.MailDone) || r.MailDone.After(r.Done) || r.DataStarted.IsZero() || r.DataStarted.After(r.Done) {
					t.Errorf("times out of order: %+v", r)
				}
				if r.Bytes < tx.Body.Size() {
					t.Errorf("%d octets of %d", r.Bytes, tx.Body.Size())
				}
				all = append(all, tx)
			}
			if err := c.Quit(t.Context()); err != nil {
				t.Error(err)
			}
			if c.Reusable() || c.Alive() {
				t.Error("alive after QUIT")
			}
			p.judge(t, all...)
			for _, m := range p.ledger.messages {
				if string(m.Body) != letter {
					t.Errorf("body arrived as %q", m.Body)
				}
			}
			if n := p.Counters().BadCommands; n != 0 {
				t.Errorf("%d bad commands", n)
			}
		})
	}
}

func TestSendNeedsStart(t *testing.T) {
	t.Parallel()
	p := loopback(t, smtptest.Script{})
	nc, err := p.dial()
	if err != nil {
		t.Fatal(err)
	}
	c := smtpclient.New(nc, smtpclient.Options{})
	tx := message("x", 1, letter)
	if err := c.Send(t.Context(), tx); err == nil || statuses(tx) != "unsent mail" {
		t.Errorf("%v, %s", err, statuses(tx))
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err == nil {
		t.Error("started twice")
	}
	if err := errorsJoin(c.Close(), c.Close(), c.Quit(t.Context())); err != nil {
		t.Error(err)
	}
	if err := c.Send(t.Context(), tx); err == nil || statuses(tx) != "unsent mail" {
		t.Errorf("%v, %s", err, statuses(tx))
	}
	p.judge(t, tx)
}

// TestAlive: a session that the peer has ended while it was idle is seen to be dead without a word, and one that it has not is not.
func TestAlive(t *testing.T) {
	t.Parallel()
	for _, kind := range []func(testing.TB, smtptest.Script) *peer{loopback, piped} {
		p := kind(t, smtptest.Script{Idle: smtptest.Duration(time.Second)})
		c := p.open(t, smtpclient.Options{})
		tx := message("x", 1, letter)
		if err := c.Send(t.Context(), tx); err != nil {
			t.Fatal(err)
		}
		for range 2 { // asking takes nothing away
			if !c.Alive() {
				t.Error("not alive")
			}
		}
		eventually(t, "the peer's farewell is seen", func() bool { return !c.Alive() })
		tx = message("y", 1, letter)
		err := c.Send(t.Context(), tx)
		var e *smtpclient.Error
		if !errors.As(err, &e) || !e.Temporary() {
			t.Fatalf("%s %v", statuses(tx), err)
		}
		// The farewell may be read yet, or a reset has swallowed it.
		reset := errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
		if r := tx.Result.Recipients[0]; e.Reply.Code != 421 && !reset || r.Status == smtpclient.Delivered || r.Reply.Permanent() {
			t.Errorf("%s %v", statuses(tx), err)
		}
	}
}

func errorsJoin(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// eventually waits for what happens on the other side of a socket.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not within 5 s: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}
