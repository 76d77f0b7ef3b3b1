package submission_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"crypto/rand"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/internal/submission"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/smtpserver"
)

// keeper is a spool that remembers what it was given, or refuses it.
type keeper struct {
	err  error
	msgs []*spool.Message
	text []string
}

func (k *keeper) Accept(_ context.Context, m *spool.Message, body *smtp.Body) error {
	if k.err != nil {
		return k.err
	}
	p, err := io.ReadAll(body.Reader())
	k.msgs, k.text = append(k.msgs, m), append(k.text, string(p))
	return err
}

type world struct {
	t       *testing.T
	keeper  *keeper
	refused []event.Event
	options submission.Options
	door    *submission.Door
}

func newWorld(t *testing.T, p submission.Policy) *world {
	t.Helper()
	w := &world{t: t, keeper: &keeper{}}
	if p.MaxAge == 0 {
		p.MaxAge = time.Hour
	}
	w.options = submission.Options{
		Hostname: "mx.test", Listener: "app", Policy: p, Spool: w.keeper, IDs: message.NewIDs(rand.Reader),
		Refused: func(e *event.Event) { w.refused = append(w.refused, *e) },
	}
	w.open()
	return w
}

func (w *world) open() {
	w.t.Helper()
	var err error
	if w.door, err = submission.New(w.options); err != nil {
		w.t.Fatal(err)
	}
}

// sign opens the door anew, with a signer behind it.
func (w *world) sign(s submission.Signer) {
	w.t.Helper()
	w.options.Signer = s
	w.open()
}

func (w *world) session(client string) smtpserver.Session {
	w.t.Helper()
	s, r := w.door.NewSession(w.t.Context(), &smtpserver.Peer{
		Session: "s1", Remote: netip.AddrPortFrom(netip.MustParseAddr(client), 4000), Hello: "app.test", ESMTP: true,
	})
	if !r.IsZero() {
		w.t.Fatalf("greeted with %v", r)
	}
	w.t.Cleanup(s.Close)
	return s
}

// send runs one transaction as the engine would, and returns the first reply that is not an acceptance, or the last one.
func (w *world) send(s smtpserver.Session, from smtp.Sender, body string, to ...string) smtp.Reply {
	w.t.Helper()
	env := &smtp.Envelope{From: from}
	if r := s.Mail(w.t.Context(), &env.From); !r.IsZero() {
		return r
	}
	for _, a := range to {
		rcpt := smtp.Recipient{Path: smtp.Path{Local: a}}
		if at := strings.LastIndexByte(a, '@'); at >= 0 {
			rcpt.Path = smtp.Path{Local: a[:at], Domain: a[at+1:]}
		}
		if r := s.Rcpt(w.t.Context(), env, &rcpt); !r.IsZero() {
			s.Reset()
			return r
		}
		env.Recipients = append(env.Recipients, rcpt)
	}
	b := smtp.BodyOf([]byte(body))
	defer b.Release()
	return s.Data(w.t.Context(), env, b)
}

var me = smtp.Sender{Path: smtp.Path{Local: "me", Domain: "app.test"}}

func TestTrust(t *testing.T) {
	t.Parallel()
	w := newWorld(t, submission.Policy{TrustedNetworks: []netip.Prefix{
		netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32"),
	}})
	for client, want := range map[string]int{
		"192.0.2.7": 250, "192.0.3.7": 550, "127.0.0.1": 550, "::1": 550, "2001:db8::9": 250, "2001:db9::9": 550,
		"::ffff:192.0.2.7":  250, // the IPv4 client, over an IPv6 socket
		"::ffff:127.0.0.1":  550,
		"fe80::1%eth0":      550,
		"2001:db8::9%other": 250,
	} {
		if r := w.send(w.session(client), me, "\r\nhi\r\n", "a@one.test"); r.Code != want {
			t.Errorf("%s: %v, want %d", client, r, want)
		}
	}
	if len(w.refused) != 6 {
		t.Errorf("%d refusals told", len(w.refused))
	}
}

// TestPolicyIsFollowedAtOnce: an open session follows a new policy.
func TestPolicyIsFollowedAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, submission.Policy{TrustedNetworks: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}})
	s := w.session("192.0.2.1")
	if r := w.send(s, me, "\r\n", "a@one.test"); r.Code != 250 {
		t.Fatal(r)
	}
	if err := w.door.SetPolicy(submission.Policy{MaxAge: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if r := w.send(s, me, "\r\n", "a@one.test"); r.Code != 550 {
		t.Fatal(r)
	}
	if err := w.door.SetPolicy(submission.Policy{}); err == nil {
		t.Error("a policy without a maximum age is taken")
	}
}

func TestMessage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, submission.Policy{
		TrustedNetworks: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}, Tenant: "shop", Stream: "bulk",
		MaxAge: 2 * time.Hour, DelayNotice: time.Hour, DelayAlways: true,
	})
	r := w.send(w.session("192.0.2.1"), me, "From: Me <me@app.test>\r\nSubject: h\xc3\xa4\r\n\r\n.x\r\n",
		"A@One.Test", "b@one.test", "c@BÜCHER.test", "postmaster", "d@[192.0.2.5]")
	if r.Code != 250 || len(w.keeper.msgs) != 1 {
		t.Fatal(r)
	}
	m := w.keeper.msgs[0]
	var queues []string
	for _, q := range m.Queues {
		queues = append(queues, q.String())
	}
	if got := strings.Join(queues, " "); got != "shop/one.test shop/one.test shop/xn--bcher-kva.test shop/mx.test shop/[192.0.2.5]" {
		t.Errorf("queues %s", got)
	}
	if m.Recipients[0].Local != "A" { // local parts keep their case
		t.Errorf("recipient %v", m.Recipients[0])
	}
	if !m.EightBit || !m.HeaderUTF8 || !m.DotLine || m.Size != int64(len(w.keeper.text[0])) {
		t.Errorf("flags of %+v", m)
	}
	if m.Expires.Sub(m.Received) != 2*time.Hour || m.DelayNotice.Sub(m.Received) != time.Hour || m.Stream != "bulk" {
		t.Errorf("times of %+v", m)
	}
	if !strings.HasSuffix(r.Text, m.ID.String()) {
		t.Errorf("the reply %v does not name %s", r, m.ID)
	}
}

// TestDelayNotice: only who asked is told, unless everybody is.
func TestDelayNotice(t *testing.T) {
	t.Parallel()
	w := newWorld(t, submission.Policy{
		TrustedNetworks: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}, DelayNotice: time.Hour,
	})
	s := w.session("192.0.2.1")
	w.send(s, me, "\r\n", "a@one.test")
	if m := w.keeper.msgs[0]; !m.DelayNotice.IsZero() {
		t.Error("a notice is due that nobody asked for")
	}
	env := &smtp.Envelope{From: me}
	s.Mail(t.Context(), &env.From)
	rcpt := smtp.Recipient{Path: smtp.Path{Local: "a", Domain: "one.test"}, Notify: smtp.NotifyDelay}
	s.Rcpt(t.Context(), env, &rcpt)
	env.Recipients = append(env.Recipients, rcpt)
	s.Data(t.Context(), env, smtp.BodyOf([]byte("\r\n")))
	if m := w.keeper.msgs[1]; m.DelayNotice.Sub(m.Received) != time.Hour {
		t.Errorf("a notice was asked for, and is due at %v", m.DelayNotice)
	}
}

// TestEightBitBodyIsNoUTF8Header: only the header section needs SMTPUTF8.
func TestEightBitBodyIsNoUTF8Header(t *testing.T) {
	t.Parallel()
	w := newWorld(t, submission.Policy{TrustedNetworks: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}})
	w.send(w.session("192.0.2.1"), me, "Subject: x\r\n\r\n\xc3\xa4\r\n", "a@one.test")
	if m := w.keeper.msgs[0]; !m.EightBit || m.HeaderUTF8 {
		t.Errorf("8-bit %v, header %v", m.EightBit, m.HeaderUTF8)
	}
}

func TestTrace(t *testing.T) {
	t.Parallel()
	w := newWorld(t, submission.Policy{TrustedNetworks: []netip.Prefix{netip.MustParsePrefix("::/0"), netip.MustParsePrefix("0.0.0.0/0")}})
	for client, want := range map[string]string{
		"192.0.2.1":   "Received: from app.test ([192.0.2.1])\r\n\tby mx.test with ESMTP id ",
		"2001:db8::1": "Received: from app.test ([IPv6:2001:db8::1])\r\n\tby mx.test with ESMTP id ",
	} {
		w.send(w.session(client), me, "\r\n", "a@one.test")
		got := w.keeper.text[len(w.keeper.text)-1]
		if !strings.HasPrefix(got, want) || !strings.Contains(got, "\r\n\tfor <a@one.test>;\r\n\t") {
			t.Errorf("trace %q", got)
		}
	}
	w.send(w.session("192.0.2.1"), me, "\r\n", "a@one.test", "secret@one.test")
	if got := w.keeper.text[len(w.keeper.text)-1]; strings.Contains(got, "secret") || strings.Contains(got, "for <") {
		t.Errorf("one recipient learns of the other: %q", got)
	}
}

// TestLoop is Q-3: a message with too many trace fields is refused, even where they lie in several pieces of memory.
func TestLoop(t *testing.T) {
	t.Parallel()
	w := newWorld(t, submission.Policy{TrustedNetworks: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}})
	hop := "Received: from a by b;\r\n\t" + strings.Repeat("x", 600) + "\r\n"
	if r := w.send(w.session("192.0.2.1"), me, strings.Repeat(hop, 50)+"\r\nhi\r\n", "a@one.test"); r.Code != 250 {
		t.Errorf("50 hops: %v", r)
	}
	if r := w.send(w.session("192.0.2.1"), me, strings.Repeat(hop, 51)+"\r\nhi\r\n", "a@one.test"); r.String()[:9] != "554 5.4.6" {
		t.Errorf("51 hops: %v", r)
	}
	if r := w.send(w.session("192.0.2.1"), me, "\r\n"+strings.Repeat(hop, 51), "a@one.test"); r.Code != 250 {
		t.Errorf("51 hops in the body: %v", r)
	}
}

func TestBadDomain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, submission.Policy{TrustedNetworks: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}})
	if r := w.send(w.session("192.0.2.1"), me, "\r\n", "a@xn---.test"); r.Code != 501 {
		t.Errorf("reply %v", r)
	}
}

// TestNotKept is R-1: what could not be kept is never answered with 250.
func TestNotKept(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"451 4.3.0": errors.New("journal has failed"),
		"452 4.3.1": fmt.Errorf("accepting: %w", journal.ErrFull),
	} {
		w := newWorld(t, submission.Policy{TrustedNetworks: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}})
		w.keeper.err = err
		r := w.send(w.session("192.0.2.1"), me, "\r\n", "a@one.test")
		if r.String()[:9] != want || strings.Contains(r.Text, "journal") {
			t.Errorf("%v: %v, want %s", err, r, want)
		}
		if len(w.refused) != 1 || w.refused[0].Reply.Code != r.Code || w.refused[0].Reason != event.StorageUnavailable {
			t.Errorf("told %+v", w.refused)
		}
	}
}

// TestUncertain is R-4: what the journal may have kept is not refused, since it may be sent after a restart.
func TestUncertain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, submission.Policy{TrustedNetworks: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}})
	w.keeper.err = fmt.Errorf("accepting: %w", spool.ErrUncertain)
	if r := w.send(w.session("192.0.2.1"), me, "\r\n", "a@one.test"); r != smtpserver.HangUp() || len(w.refused) != 0 {
		t.Errorf("%v, told %+v", r, w.refused)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	if _, err := submission.New(submission.Options{}); err == nil {
		t.Error("a door without a spool")
	}
}
