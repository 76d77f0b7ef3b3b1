package delivery

import (
	"crypto/tls"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godwit-mta/godwit/internal/delivery/tlspolicy"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// floors are fixed ones, and what was noted.
type floors struct {
	mu    sync.Mutex
	has   bool
	notes []string
}

func (f *floors) Worked(host string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.notes = append(f.notes, "worked "+host)
}

func (f *floors) Missing(host, why string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.notes = append(f.notes, "missing "+host)
	return f.has
}

// TestFloor: a host that used to have TLS gets no mail in the clear while its floor says so, whatever the way in which TLS
// is missing; a route's hosts have none.
func TestFloor(t *testing.T) {
	t.Parallel()
	config, _ := issue(t, "mx1.example.test")
	for name, one := range map[string]struct {
		tls    *tls.Config
		script smtptest.Script
	}{
		"not offered": {},
		"refused":     {config, smtptest.Script{Rules: []smtptest.Rule{{At: smtptest.AtStartTLS, Reply: "454 4.7.0 no"}}}},
		"closed":      {config, smtptest.Script{Rules: []smtptest.Rule{{At: smtptest.AtStartTLS, Drop: smtptest.DropFIN}}}},
		"HELO only":   {config, smtptest.Script{Without: []string{"ESMTP"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &floors{has: true}
			w, sinks := newWorldOf(t, oneZone, func(o *Options) {
				quick(o)
				o.Floors = f
				toSink(RouteTLS{}, "")(o)
			}, smtptest.SinkOptions{TLS: one.tls, Keep: true}, mx{"127.0.0.2", &one.script})
			v := w.deliver("u@example.test")
			expect(t, v, "deferred tls_downgrade tls")
			contains(t, v.Attempt.Results[0].Explanation, "it used to", "godwit tls floor")
			if n := sinks[0].Counters().Transactions; n != 0 {
				t.Errorf("%d transactions were begun", n)
			}
			f.has = false
			expect(t, w.deliver("u@example.test"), delivers)
			expect(t, w.deliver("u@example.org"), delivers)
			if got := strings.Join(f.notes, ", "); got != "missing mx1.example.test, missing mx1.example.test" {
				t.Errorf("noted: %s", got)
			}
		})
	}
	t.Run("worked", func(t *testing.T) {
		t.Parallel()
		f := &floors{has: true}
		w, _ := newWorldOf(t, oneZone, func(o *Options) { o.Floors = f }, smtptest.SinkOptions{TLS: config, Keep: true},
			mx{"127.0.0.2", new(smtptest.Script)})
		expect(t, w.deliver("u@example.test"), delivers)
		expect(t, w.deliver("u@example.test"), delivers)
		if got := strings.Join(f.notes, ", "); got != "worked mx1.example.test" {
			t.Errorf("noted: %s", got)
		}
	})
}

// TestVerifiedMX: "verified" for MX hosts wants a name that nobody could forge: vouched for by a policy, validated by
// DNSSEC, or within the recipient's domain.
func TestVerifiedMX(t *testing.T) {
	t.Parallel()
	const zone = oneZone + `
elsewhere.test.   MX 10 mx1.example.test.
`
	config, roots := issue(t, "mx1.example.test")
	for name, one := range map[string]struct {
		domain    string
		authentic bool
		plan      tlspolicy.Plan
		want      bool
	}{
		"within the domain":    {domain: "example.test", want: true},
		"elsewhere":            {domain: "elsewhere.test"},
		"elsewhere, validated": {domain: "elsewhere.test", authentic: true, want: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &policies{mx: one.authentic, plans: map[string]tlspolicy.Plan{one.domain: one.plan}}
			w, _ := newWorldOf(t, zone, func(o *Options) {
				o.Policies, o.TLS.Default, o.Roots = p, LevelVerified, roots
			}, smtptest.SinkOptions{TLS: config, Keep: true}, mx{"127.0.0.2", new(smtptest.Script)})
			want := "deferred tls_untrusted tls"
			if one.want {
				want = delivers
			}
			expect(t, w.deliver("u@"+one.domain), want)
		})
	}
}

// TestResumption: the second session with a host resumes the first, under its own demand alone.
func TestResumption(t *testing.T) {
	t.Parallel()
	config, _ := issue(t, "mx1.example.test")
	var mu sync.Mutex
	var resumed []bool
	seen := config.Clone()
	seen.VerifyConnection = func(s tls.ConnectionState) error {
		mu.Lock()
		defer mu.Unlock()
		resumed = append(resumed, s.DidResume)
		return nil
	}
	p := &policies{plans: map[string]tlspolicy.Plan{"other.test": accepts("k")}}
	w, _ := newWorldOf(t, twoDomains, func(o *Options) { o.Policies = p }, smtptest.SinkOptions{TLS: seen, Keep: true},
		mx{"127.0.0.2", new(smtptest.Script)})
	for _, to := range []string{"u@example.test", "u@example.test", "u@other.test", "u@other.test"} {
		expect(t, w.deliver(to), delivers)
		w.drop("")
		w.drop("k")
	}
	mu.Lock()
	defer mu.Unlock()
	want := []bool{false, true, false, true}
	for i := range want {
		if len(resumed) != len(want) || resumed[i] != want[i] {
			t.Fatalf("resumed: %v, want %v", resumed, want)
		}
	}
}

func addrPort(a [4]byte) netip.AddrPort { return netip.AddrPortFrom(netip.AddrFrom4(a), 25) }

// TestManners: what is remembered of addresses ages and is bounded.
func TestManners(t *testing.T) {
	t.Parallel()
	var m manners
	now := time.Now()
	at := func(i int) [4]byte { return [4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)} }
	for i := range maxManners + 100 {
		m.set(addrPort(at(i)), mannerPlain, now)
	}
	if len(m.all) != maxManners {
		t.Errorf("%d are remembered", len(m.all))
	}
	a := addrPort([4]byte{192, 0, 2, 1})
	m.set(a, mannerClear, now)
	if m.get(a, now.Add(clearMemory-1)) != mannerClear || m.get(a, now.Add(clearMemory+1)) != mannerFull {
		t.Error("clear is not remembered as long as it should")
	}
	m.set(a, mannerPlain, now)
	m.set(a, mannerFull, now)
	if m.get(a, now) != mannerFull {
		t.Error("what works is not forgotten to have failed")
	}
}
