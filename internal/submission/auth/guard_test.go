package auth

import (
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

func testGuard(t *testing.T) *guard {
	t.Helper()
	b, err := Budgets{
		Address:  Budget{Failures: 5, Window: 10 * time.Minute, Ban: 10 * time.Minute, Longest: 24 * time.Hour},
		Account:  Budget{Failures: 8, Window: 10 * time.Minute, Ban: 10 * time.Minute, Longest: time.Hour},
		Home:     Budget{Failures: 8, Window: 10 * time.Minute, Ban: 5 * time.Minute, Longest: 15 * time.Minute},
		Global:   Budget{Failures: 50, Window: time.Minute},
		Subjects: 100,
	}.filled()
	if err != nil {
		t.Fatal(err)
	}
	return newGuard(b)
}

func addr(s string) netip.Prefix { return network(netip.MustParseAddr(s)) }

func TestNetwork(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"192.0.2.7": "192.0.2.7/32", "::ffff:192.0.2.7": "192.0.2.7/32", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
		"2001:db8:1:2::9": "2001:db8:1:2::/64", "fe80::1%eth0": "fe80::/64",
	} {
		if got := addr(in).String(); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
	if network(netip.Addr{}).IsValid() {
		t.Error("no address is a network")
	}
}

func TestBanOfAddressEndsAndDoubles(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, a := testGuard(t), addr("192.0.2.1")
		want := 10 * time.Minute
		for range 10 {
			begin := time.Now()
			for n := range 5 {
				if g.shut(a) {
					t.Fatalf("banned after %d failures", n)
				}
				g.failed(a, fmt.Sprint("name", n), "", false)
			}
			if !g.shut(a) {
				t.Fatal("not banned")
			}
			bans := g.list()
			if len(bans) != 1 || bans[0].Kind != BanAddress || !bans[0].Since.Equal(begin) || bans[0].Until.Sub(begin) != want {
				t.Fatalf("%+v, want %v", bans, want)
			}
			time.Sleep(want - time.Second)
			if !g.shut(a) {
				t.Fatal("ended too soon")
			}
			time.Sleep(time.Second)
			if g.shut(a) {
				t.Fatal("does not end")
			}
			want = min(2*want, 24*time.Hour)
		}
		time.Sleep(48 * time.Hour)
		for range 5 {
			g.failed(a, "", "", false)
		}
		if b := g.list(); len(b) != 1 || b[0].Count != 1 {
			t.Errorf("after days of peace: %+v", b)
		}
		if g.shut(addr("192.0.2.2")) {
			t.Error("the neighbour is banned too")
		}
	})
}

// TestFailuresAreForgotten: few mistakes over a long time are no attack.
func TestFailuresAreForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, a := testGuard(t), addr("192.0.2.1")
		for range 1000 {
			g.failed(a, "app1", "", false)
			if g.shut(a) {
				t.Fatal("banned")
			}
			time.Sleep(2*time.Minute + time.Second)
		}
		time.Sleep(48 * time.Hour)
		g.sweep()
		if len(g.counters) != 0 {
			t.Errorf("%d counters are kept", len(g.counters))
		}
	})
}

// TestAttackerCannotLockOut: whoever exhausts the budgets of an account and of addresses does not touch its homes.
func TestAttackerCannotLockOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := testGuard(t)
		home := addr("198.51.100.1")
		g.moved([]netip.Prefix{home}, nil)
		for i := range 20 { // from everywhere, and from the home's own address under other names
			g.failed(addr(fmt.Sprintf("203.0.113.%d", i)), "app1", "default", false)
			g.failed(home, "other", "", false)
		}
		if _, ok := g.allows(addr("192.0.2.99"), "app1", false); ok {
			t.Error("the account is not banned elsewhere")
		}
		if g.shut(home) {
			t.Error("nobody comes in at the home any more")
		}
		if _, ok := g.allows(home, "app1", true); !ok {
			t.Error("the account is locked out of its home")
		}
		if _, ok := g.allows(home, "app2", false); ok {
			t.Error("another account that is not at home there is not banned with the address")
		}
		// Its own failures at home count, for it alone and not for long.
		for range 8 {
			g.failed(home, "app1", "default", true)
		}
		if why, ok := g.allows(home, "app1", true); ok || why != outcomeAccountOver {
			t.Error("not banned at home")
		}
		time.Sleep(5 * time.Minute)
		if _, ok := g.allows(home, "app1", true); !ok {
			t.Error("the ban at home does not end")
		}
		g.moved(nil, []netip.Prefix{home})
		if !g.shut(home) {
			t.Error("the address is open though it is nobody's home any more")
		}
	})
}

// TestSuccessKeepsOthers: an attacker who has one account does not get guesses at others by using it (2.3).
func TestSuccessKeepsOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, a := testGuard(t), addr("192.0.2.1")
		for range 5 {
			g.failed(a, "victim", "default", false)
			g.succeeded(a, "mine")
		}
		if _, ok := g.allows(a, "victim", false); ok {
			t.Error("success reset the counter of the address")
		}
	})
}

func TestGlobalBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := testGuard(t)
		for i := range 50 {
			if g.crowded() {
				t.Fatalf("crowded after %d", i)
			}
			g.failed(addr(fmt.Sprintf("203.0.113.%d", i)), fmt.Sprint("n", i), "", false)
		}
		if !g.crowded() {
			t.Error("not crowded")
		}
		time.Sleep(10 * time.Second)
		if g.crowded() {
			t.Error("the rate does not come back")
		}
		for range 1000 { // at home: those are not counted
			g.failed(addr("198.51.100.1"), "app1", "default", true)
		}
		if g.crowded() {
			t.Error("failures at home count for all")
		}
	})
}

func TestGuardIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, a := testGuard(t), addr("192.0.2.1")
		for range 5 {
			g.failed(a, "", "", false)
		}
		for i := range 50_000 {
			g.failed(addr(fmt.Sprintf("2001:db8:%x:%x::1", i>>8, i&0xff)), fmt.Sprint("n", i), "", false)
		}
		if n := len(g.counters); n > 200 {
			t.Errorf("%d counters", n)
		}
	})
}

func TestClearBans(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, a := testGuard(t), addr("192.0.2.1")
		for range 8 {
			g.failed(a, "app1", "default", false)
		}
		if n := g.banned(); n != 2 {
			t.Fatalf("%d bans", n)
		}
		lifted := g.clear(func(b Ban) bool { return b.Address == a })
		if len(lifted) != 1 || lifted[0].Kind != BanAddress || g.shut(a) || g.banned() != 1 {
			t.Errorf("%+v, %d left", lifted, g.banned())
		}
		if lifted := g.clear(func(b Ban) bool { return b.Login == "app1" }); len(lifted) != 1 || g.banned() != 0 {
			t.Errorf("%+v", lifted)
		}
	})
}

func TestBansAreTold(t *testing.T) {
	t.Parallel()
	g := testGuard(t)
	for i := range 2000 {
		a := addr(fmt.Sprintf("203.%d.%d.1", i>>8, i&0xff))
		for range 5 {
			g.failed(a, "", "", false)
		}
	}
	if n := len(g.told); n != cap(g.told) {
		t.Errorf("%d bans wait to be told, room for %d", n, cap(g.told))
	}
}
