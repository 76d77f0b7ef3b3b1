package submission_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/submission"
	"github.com/godwit-mta/godwit/internal/submission/auth"
	"github.com/godwit-mta/godwit/internal/submission/limits"
)

func limiter(t *testing.T, kind limits.Kind, subject, span string, most int64, hard bool) *limits.Limiter {
	t.Helper()
	q := limits.Quota{RefuseDay: hard}
	if !q.Set(subject, span, most) {
		t.Fatal("no such limit")
	}
	var c limits.Config
	switch kind {
	case limits.Tenant:
		c.Tenant = q
	case limits.Credential:
		c.Credential = q
	case limits.Client:
		c.Client = q
	}
	l, err := limits.New(limits.Options{Config: c})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestLimits: a used-up limit is refused where the client loses least by it, in words that say which one it is.
func TestLimits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind          limits.Kind
		subject, span string
		most          int64
		hard          bool
		size          int
		want          string
	}{
		{limits.Tenant, "messages", "minute", 2, false, 10, "451 4.7.1 Limit reached: the messages of this tenant in one minute are used up, try again later"},
		{limits.Credential, "messages", "hour", 2, false, 10, "451 4.7.1 Limit reached: the messages of this credential in one hour are used up, try again later"},
		{limits.Client, "messages", "day", 2, false, 10, "451 4.7.1 Limit reached: the messages of this client in one day are used up, try again later"},
		{limits.Client, "messages", "day", 2, true, 10, "550 5.7.1 Limit reached: the messages of this client in one day are used up"},
		{limits.Tenant, "recipients", "hour", 4, false, 10, "451 4.7.1 Limit reached: the recipients of this tenant in one hour are used up, try again later"},
		{limits.Tenant, "recipients", "hour", 5, false, 10, "452 4.7.1 Limit reached: the recipients of this tenant in one hour are used up, try again later"},
		{limits.Tenant, "unique_recipients", "day", 4, false, 10, "452 4.7.1 Limit reached: the unique_recipients of this tenant in one day are used up, try again later"},
		{limits.Tenant, "bytes", "day", 5000, false, 2000, "451 4.7.1 Limit reached: the bytes of this tenant in one day are used up, try again later"},
	} {
		t.Run(fmt.Sprintf("%s %s %s", c.kind, c.subject, c.span), func(t *testing.T) {
			t.Parallel()
			f := newFront(t, frontOptions{
				policy: submission.Policy{Login: submission.LoginRequired, Auth: auth.Policy{InsecureAuth: true}},
				door:   func(o *submission.Options) { o.Limits = limiter(t, c.kind, c.subject, c.span, c.most, c.hard) },
			})
			cl := f.connect("198.51.100.7")
			cl.login("app", password)
			text := "From: a@shop.example\r\n\r\n" + strings.Repeat("x", c.size-1)
			for i := range 2 {
				r := cl.send("a@shop.example", text, fmt.Sprintf("u%d@far.example", i), fmt.Sprintf("v%d@far.example", i))
				if r[:3] != "250" {
					t.Fatal(r)
				}
			}
			if r := cl.send("a@shop.example", text, "u8@far.example", "u9@far.example"); r != c.want {
				t.Errorf("%s, want %s", r, c.want)
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			if len(f.kept) != 2 || len(f.refused) != 1 || f.refused[0].Reason != event.LimitExceeded || f.refused[0].Tenant != "shop" {
				t.Errorf("%d accepted, told %+v", len(f.kept), f.refused)
			}
		})
	}
}

// TestRefusedMailCostsNothing: what is not accepted is not counted, but for the octets that came.
func TestRefusedMailCostsNothing(t *testing.T) {
	t.Parallel()
	l := limiter(t, limits.Tenant, "messages", "day", 1, false)
	f := newFront(t, frontOptions{
		policy: submission.Policy{Login: submission.LoginRequired, Auth: auth.Policy{InsecureAuth: true}},
		door:   func(o *submission.Options) { o.Limits = l },
	})
	cl := f.connect("198.51.100.7")
	cl.login("app", password)
	for range 5 {
		if r := cl.send("a@shop.example", "From: ceo@bank.example\r\n\r\nhi", "u@far.example"); !strings.HasPrefix(r, "550 5.7.1 Sender") {
			t.Fatal(r)
		}
	}
	if r := cl.send("a@shop.example", "From: a@shop.example\r\n\r\nhi", "u@far.example"); r[:3] != "250" {
		t.Error(r)
	}
}

// TestIPv6ClientsShareALimit: a /64 is one client.
func TestIPv6ClientsShareALimit(t *testing.T) {
	t.Parallel()
	l := limiter(t, limits.Client, "messages", "day", 1, false)
	f := newFront(t, frontOptions{
		policy: submission.Policy{TrustedNetworks: []netip.Prefix{netip.MustParsePrefix("2001:db8::/32")}},
		door:   func(o *submission.Options) { o.Limits = l },
	})
	for from, want := range map[string]string{"2001:db8:1::1": "250", "2001:db8:2::1": "250"} {
		if r := f.connect(from).send("a@b.example", "x: y\r\n\r\nhi", "u@far.example"); r[:3] != want {
			t.Errorf("%s: %s", from, r)
		}
	}
	if r := f.connect("2001:db8:1::2").send("a@b.example", "x: y\r\n\r\nhi", "u@far.example"); r[:3] != "451" {
		t.Error(r)
	}
}

// TestBandwidth: who has sent too many octets waits, and is refused if the wait is too long.
func TestBandwidth(t *testing.T) {
	t.Parallel()
	var b limits.Bandwidth
	b.Set(10)
	f := newFront(t, frontOptions{
		policy: submission.Policy{TrustedNetworks: everywhere},
		door:   func(o *submission.Options) { o.Bandwidth = &b },
	})
	cl := f.connect("198.51.100.7")
	if r := cl.send("a@b.example", "x: y\r\n\r\n"+strings.Repeat("x", 2000), "u@far.example"); r[:3] != "250" {
		t.Fatal(r)
	}
	if r := cl.ask("MAIL FROM:<a@b.example>"); !strings.HasPrefix(r, "451 4.7.1 Limit reached: too many octets") {
		t.Error(r)
	}
	b.Set(0)
	if r := cl.ask("MAIL FROM:<a@b.example>"); r[:3] != "250" {
		t.Error(r)
	}
}
