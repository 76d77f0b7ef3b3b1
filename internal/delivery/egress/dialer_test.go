package egress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

var (
	six  = Target{Host: "mx.test", Addr: netip.MustParseAddrPort("[2620:fe::fe]:25")}
	four = Target{Host: "mx.test", Addr: netip.MustParseAddrPort("9.9.9.9:25")}
)

// nets answers dials by address, after a delay.
type nets struct {
	mu    sync.Mutex
	log   []string
	began time.Time
	after map[string]time.Duration
	err   map[string]error
	peers []net.Conn
}

func (n *nets) dial(ctx context.Context, _ netip.Addr, to netip.AddrPort, _ ControlFunc) (net.Conn, error) {
	a := to.Addr().String()
	n.mu.Lock()
	n.log = append(n.log, fmt.Sprintf("%s@%v", a, time.Since(n.began)))
	n.mu.Unlock()
	timer := time.NewTimer(n.after[a])
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := n.err[a]; err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
	}
	client, server := smtptest.Pipe()
	n.mu.Lock()
	n.peers = append(n.peers, server)
	n.mu.Unlock()
	return client, nil
}

func TestRace(t *testing.T) {
	t.Parallel()
	const a6, a4 = "2620:fe::fe", "9.9.9.9"
	const never = time.Hour
	for _, c := range []struct {
		name   string
		after  map[string]time.Duration
		err    map[string]error
		winner Target // zero: none
		log    string
		takes  time.Duration
		says   []string
	}{
		{"first-at-once", nil, nil, six, "2620:fe::fe@0s", 0, nil},
		{"first-within-delay", map[string]time.Duration{a6: 900 * time.Millisecond}, nil, six, "2620:fe::fe@0s",
			900 * time.Millisecond, nil},
		{"N-3/black-hole", map[string]time.Duration{a6: never}, nil, four, "2620:fe::fe@0s 9.9.9.9@1s", time.Second, nil},
		{"first-late-but-first", map[string]time.Duration{a6: 2 * time.Second, a4: 5 * time.Second}, nil, six,
			"2620:fe::fe@0s 9.9.9.9@1s",
			2 * time.Second, nil},
		{"first-refused", nil, map[string]error{a6: syscall.ECONNREFUSED}, four, "2620:fe::fe@0s 9.9.9.9@0s", 0, nil},
		{"both-fail", map[string]time.Duration{a6: 3 * time.Second}, map[string]error{a6: syscall.ECONNREFUSED,
			a4: syscall.EHOSTUNREACH}, Target{},
			"2620:fe::fe@0s 9.9.9.9@1s", 3 * time.Second,
			[]string{"connection refused by mx.test [2620:fe::fe]:25\n", "no network path to mx.test [9.9.9.9]:25"}},
		{"both-hang", map[string]time.Duration{a6: never, a4: never}, nil, Target{}, "2620:fe::fe@0s 9.9.9.9@1s",
			31 * time.Second,
			[]string{"mx.test [2620:fe::fe]:25 timed out", "[9.9.9.9]:25 timed out"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := &nets{began: time.Now(), after: c.after, err: c.err}
				d := NewDialer(DialerOptions{Dial: n.dial})
				conn, target, err := d.Dial(t.Context(), new(Source), six, four)
				if took := time.Since(n.began); took != c.takes {
					t.Errorf("took %v, want %v", took, c.takes)
				}
				if got := strings.Join(n.log, " "); got != c.log {
					t.Errorf("dialled %q, want %q", got, c.log)
				}
				if (c.winner == Target{}) {
					if err == nil {
						t.Fatal("no error")
					}
					for _, part := range c.says {
						if !strings.Contains(err.Error(), part) {
							t.Errorf("%q does not say %q", err, part)
						}
					}
					return
				}
				if err != nil || target != c.winner {
					t.Fatalf("reached %v, %v", target, err)
				}
				_ = conn.Close()
				if len(n.peers) != 1 {
					t.Errorf("%d connections were made", len(n.peers))
				}
				_ = n.peers[0].Close()
			})
		})
	}
}

// TestRaceBothConnect: the loser of a close race is closed, not leaked.
func TestRaceBothConnect(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		late := make(chan struct{})
		var n nets
		n.began = time.Now()
		d := NewDialer(DialerOptions{Dial: func(ctx context.Context, l netip.Addr, to netip.AddrPort,
			control ControlFunc) (net.Conn, error) {
			if to == six.Addr {
				<-late // deaf to ctx: the connection is made all the same
				return n.dial(context.WithoutCancel(ctx), l, to, control)
			}
			defer close(late)
			return n.dial(ctx, l, to, control)
		}})
		conn, target, err := d.Dial(t.Context(), new(Source), six, four)
		if err != nil {
			t.Fatal(err)
		}
		open := 0
		for _, peer := range n.peers {
			_ = peer.SetReadDeadline(time.Now().Add(time.Second))
			if _, err := peer.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
				open++
			} else if !errors.Is(err, io.EOF) {
				t.Error(err)
			}
			_ = peer.Close()
		}
		if open != 1 || len(n.peers) != 2 {
			t.Errorf("%d of %d connections are open; %v won", open, len(n.peers), target)
		}
		_ = conn.Close()
	})
}

func TestSingleTarget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &nets{began: time.Now(), after: map[string]time.Duration{"9.9.9.9": time.Hour}}
		d := NewDialer(DialerOptions{Dial: n.dial, ConnectTimeout: 7 * time.Second})
		_, target, err := d.Dial(t.Context(), new(Source), four, Target{})
		var failed *DialError
		if !errors.As(err, &failed) || failed.Reason() != event.ConnectionTimeout || target != four ||
			time.Since(n.began) != 7*time.Second {
			t.Errorf("got %v after %v", err, time.Since(n.began))
		}
	})
}

// TestPolicy holds both checks of an address: when it is chosen, and at the socket (D-3).
func TestPolicy(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	inside := Target{Host: "mx.test", Addr: netip.MustParseAddrPort(listener.Addr().String())}
	dialled := 0
	d := NewDialer(DialerOptions{Dial: func(ctx context.Context, l netip.Addr, to netip.AddrPort,
		control ControlFunc) (net.Conn, error) {
		dialled++
		return DialTCP(ctx, l, to, control)
	}})
	forbidden := func(err error) {
		t.Helper()
		var failed *DialError
		if !errors.As(err, &failed) || failed.Reason() != event.NoUsableAddress || !strings.Contains(err.Error(),
			"loopback") {
			t.Errorf("got %v", err)
		}
	}
	_, _, err = d.Dial(t.Context(), new(Source), inside, Target{})
	forbidden(err)
	if dialled != 0 {
		t.Error("a forbidden address was dialled")
	}
	exempt := inside
	exempt.Exempt = true
	c, _, err := d.Dial(t.Context(), new(Source), exempt, Target{})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	d.SetAllowedNetworks([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")})
	if c, _, err = d.Dial(t.Context(), new(Source), inside, Target{}); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if _, bad := d.Unusable(netip.MustParseAddr("::ffff:127.0.0.1")); !bad {
		t.Error("a mapped address passes for the one in it")
	}

	// D-3: whatever put another address into the socket, it is not connected to.
	rebound := NewDialer(DialerOptions{Dial: func(ctx context.Context, l netip.Addr, _ netip.AddrPort,
		control ControlFunc) (net.Conn, error) {
		return DialTCP(ctx, l, inside.Addr, control)
	}})
	_, _, err = rebound.Dial(t.Context(), new(Source), four, Target{})
	forbidden(err)
	routed := four
	routed.Exempt = true
	if _, _, err = rebound.Dial(t.Context(), new(Source), routed, Target{}); err == nil || !strings.Contains(err.Error(),
		"in place of") {
		t.Errorf("got %v", err)
	}
}

func TestSource(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	to := Target{Addr: netip.MustParseAddrPort(listener.Addr().String()), Exempt: true}
	d := NewDialer(DialerOptions{})
	source := &Source{IPv4: netip.MustParseAddr("127.0.0.7")}
	c, _, err := d.Dial(t.Context(), source, to, Target{})
	if err != nil {
		t.Fatal(err)
	}
	if from := c.LocalAddr().String(); !strings.HasPrefix(from, "127.0.0.7:") {
		t.Errorf("from %s", from)
	}
	_ = c.Close()
	_, _, err = d.Dial(t.Context(), source, six, Target{})
	var failed *DialError
	if !errors.As(err, &failed) || failed.Reason() != event.NetworkUnreachable {
		t.Errorf("got %v", err)
	}
	source = &Source{IPv4: netip.MustParseAddr("192.0.2.1")} // not ours
	_, _, err = d.Dial(t.Context(), source, to, Target{})
	if !errors.As(err, &failed) || failed.Reason() != event.LocalError {
		t.Errorf("got %v", err)
	}
}

func TestDialErrors(t *testing.T) {
	t.Parallel()
	op := func(err error) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", err)}
	}
	for _, c := range []struct {
		err  error
		want event.Reason
		says string
	}{
		{op(syscall.ECONNREFUSED), event.ConnectionRefused, "connection refused by mx.test [9.9.9.9]:25"},
		{op(syscall.ETIMEDOUT), event.ConnectionTimeout, "connection to mx.test [9.9.9.9]:25 timed out"},
		{context.DeadlineExceeded, event.ConnectionTimeout, "timed out"},
		{op(syscall.EHOSTUNREACH), event.NetworkUnreachable, "no network path to mx.test [9.9.9.9]:25"},
		{op(syscall.ENETUNREACH), event.NetworkUnreachable, "no network path"},
		{op(syscall.ECONNRESET), event.ConnectionLost, "connection reset by peer"},
		{op(syscall.EMFILE), event.LocalError, "too many open files"},
		{op(syscall.EADDRNOTAVAIL), event.LocalError, "cannot assign requested address"},
		{op(syscall.EACCES), event.ConnectionFailed, "permission denied"},
		{context.Canceled, event.Interrupted, "canceled"},
		{&ForbiddenError{Addr: four.Addr.Addr(), Reason: "because"}, event.NoUsableAddress,
			"9.9.9.9 is not allowed: because"},
	} {
		e := &DialError{Target: four, Err: c.err}
		if e.Reason() != c.want || !strings.Contains(e.Error(), c.says) {
			t.Errorf("%v: got %s, %q", c.err, e.Reason(), e)
		}
	}
	for _, c := range []struct{ host, want string }{{"", "[9.9.9.9]:25"}, {"9.9.9.9", "[9.9.9.9]:25"}, {"mx",
		"mx [9.9.9.9]:25"}} {
		if got := (Target{Host: c.host, Addr: four.Addr}).String(); got != c.want {
			t.Errorf("%q: got %q", c.host, got)
		}
	}
}
