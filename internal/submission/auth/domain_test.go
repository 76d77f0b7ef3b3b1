package auth_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/godwit-mta/godwit/internal/dns"
	"github.com/godwit-mta/godwit/internal/dns/dnstest"
	"github.com/godwit-mta/godwit/internal/submission/auth"
)

// withZones gives a Directory a resolver of these zones that keeps nothing, as the daemon's does.
func withZones(t *testing.T, zones string) (*dnstest.Server, func(*auth.Options)) {
	t.Helper()
	s := dnstest.Start(t, zones)
	r, err := dns.New(dns.Options{
		Servers: []netip.AddrPort{s.Addr()}, Timeout: 200 * time.Millisecond, Tries: 1,
		MaxTTL: time.Nanosecond, MaxNegativeTTL: time.Nanosecond, FailureTTL: time.Nanosecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, func(o *auth.Options) { o.Resolver = r }
}

func (w *world) claim(name string) (auth.Domain, auth.Challenge) {
	w.t.Helper()
	d, err := w.AddDomain(w.t.Context(), name, "default", false, false)
	if err != nil {
		w.t.Fatal(err)
	}
	ch, ok := w.Challenge(&d)
	if !ok || d.State != auth.Pending || d.Usable() {
		w.t.Fatalf("%+v", d)
	}
	return d, ch
}

func (w *world) verify(name string) auth.Domain {
	w.t.Helper()
	d, err := w.VerifyDomain(w.t.Context(), name, "default")
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

func TestProofByDNS(t *testing.T) {
	t.Parallel()
	zone, edit := withZones(t, "")
	w := newWorld(t, edit)
	_, ch := w.claim("Shop.Example")
	if ch.Name != "_godwit-challenge.shop.example" || !strings.HasPrefix(ch.Text, "godwit-verify=") || len(ch.Text) < 40 ||
		!strings.HasSuffix(ch.Alias, ".godwit-verify.mta1.example.com") {
		t.Errorf("%+v", ch)
	}
	for _, c := range []struct {
		name, zone string
		fault      dnstest.Behaviour
		problem    string // part of it
	}{
		{"nothing", "", dnstest.Behaviour{}, "no TXT record at _godwit-challenge.shop.example"},
		{"other records", `_godwit-challenge.shop.example. A 192.0.2.1`, dnstest.Behaviour{}, "no TXT record"},
		{"other text", `_godwit-challenge.shop.example. TXT "godwit-verify=somethingelse"`, dnstest.Behaviour{}, "other text"},
		{"part of the text", `_godwit-challenge.shop.example. TXT "` + ch.Text[:len(ch.Text)-1] + `"`, dnstest.Behaviour{}, "other text"},
		{"at the domain itself", `shop.example. TXT "` + ch.Text + `"`, dnstest.Behaviour{}, "no TXT record"},
		{"SERVFAIL", "", dnstest.Behaviour{Rcode: "SERVFAIL"}, "no answer"},
		{"silence", "", dnstest.Behaviour{Drop: true}, "no answer"},
		{"an alias of something else", "_godwit-challenge.shop.example. CNAME x.godwit-verify.mta1.example.com.", dnstest.Behaviour{}, "is an alias of"},
	} {
		if err := zone.Set(c.zone); err != nil {
			t.Fatal(err)
		}
		zone.Fail("_godwit-challenge.shop.example", c.fault)
		d := w.verify("shop.example")
		if d.State != auth.Pending || !strings.Contains(d.Problem, c.problem) || d.Checked.IsZero() {
			t.Errorf("%s: %+v", c.name, d)
		}
		if w.Owns("default", "mail.shop.example") {
			t.Errorf("%s: owned", c.name)
		}
	}
	// A record of before does not prove a new claim.
	if err := zone.Set(ch.Name + `. TXT "` + ch.Text + `"`); err != nil {
		t.Fatal(err)
	}
	if d := w.verify("shop.example"); d.State != auth.Proven || !w.Owns("default", "mail.shop.example") {
		t.Errorf("%+v", d)
	}
	if _, err := w.RemoveDomain(t.Context(), "shop.example", "default"); err != nil {
		t.Fatal(err)
	}
	if w.Owns("default", "shop.example") {
		t.Error("still owned after it was removed")
	}
	if _, next := w.claim("shop.example"); next.Text == ch.Text {
		t.Fatal("the same token again")
	}
	if d := w.verify("shop.example"); d.State == auth.Proven {
		t.Error("the old record proves a new claim")
	}
}

// TestEachRecordProves: the ways in which a proof can stand in DNS.
func TestEachRecordProves(t *testing.T) {
	t.Parallel()
	zone, edit := withZones(t, "")
	w := newWorld(t, edit)
	for name, record := range map[string]func(n string, ch auth.Challenge) string{
		"plain.example":  func(n string, ch auth.Challenge) string { return n + ` TXT "` + ch.Text + `"` },
		"others.example": func(n string, ch auth.Challenge) string { return n + " TXT \"v=x\"\n" + n + ` TXT "` + ch.Text + `"` },
		"two.example": func(n string, ch auth.Challenge) string {
			return n + ` TXT "` + ch.Text[:20] + `" "` + ch.Text[20:] + `"`
		},
		"behind.example": func(n string, ch auth.Challenge) string {
			return n + " CNAME p.provider.example.\np.provider.example. TXT \"" + ch.Text + `"`
		},
		"alias.example":  func(n string, ch auth.Challenge) string { return n + " CNAME " + ch.Alias + "." },
		"bücher.example": func(n string, ch auth.Challenge) string { return n + ` TXT "` + ch.Text + `"` },
	} {
		d, ch := w.claim(name)
		if err := zone.Set(record(ch.Name+".", ch)); err != nil {
			t.Fatal(name, err)
		}
		if got := w.verify(strings.ToUpper(name)); got.State != auth.Proven || got.Problem != "" || got.Proven.IsZero() {
			t.Errorf("%s: %+v", name, got)
		}
		if !w.Owns("default", d.Name) || w.Owns("other", d.Name) {
			t.Errorf("%s is not owned as it should be", name)
		}
	}
}

// TestProofThatGoesAway: a proven domain stays proven, and what DNS says is on record.
func TestProofThatGoesAway(t *testing.T) {
	t.Parallel()
	zone, edit := withZones(t, "")
	w := newWorld(t, edit)
	_, ch := w.claim("shop.example")
	record := ch.Name + `. TXT "` + ch.Text + `"`
	if err := zone.Set(record); err != nil {
		t.Fatal(err)
	}
	w.verify("shop.example")
	zone.Fail("*", dnstest.Behaviour{Rcode: "SERVFAIL"})
	if d := w.verify("shop.example"); d.State != auth.Proven || !d.Missing.IsZero() || d.Problem == "" {
		t.Errorf("passing trouble: %+v", d)
	}
	zone.Fail("*", dnstest.Behaviour{})
	if err := zone.Set(""); err != nil {
		t.Fatal(err)
	}
	if d := w.verify("shop.example"); d.State != auth.Proven || d.Missing.IsZero() || !w.Owns("default", "shop.example") {
		t.Errorf("gone: %+v", d)
	}
	if err := zone.Set(record); err != nil {
		t.Fatal(err)
	}
	if d := w.verify("shop.example"); !d.Missing.IsZero() || d.Problem != "" {
		t.Errorf("back: %+v", d)
	}
}

func TestClaims(t *testing.T) {
	t.Parallel()
	zone, edit := withZones(t, "")
	w := newWorld(t, edit, func(o *auth.Options) { o.ChallengeTime = time.Hour })
	if _, err := w.CreateTenant(t.Context(), auth.Tenant{ID: "other"}); err != nil {
		t.Fatal(err)
	}
	mine, ch := w.claim("both.example")
	// Asking again shows the same record.
	again, err := w.AddDomain(t.Context(), "BOTH.example", "default", false, false)
	if !errors.Is(err, auth.ErrExists) || again.Token != mine.Token {
		t.Errorf("%+v, %v", again, err)
	}
	// A claim keeps nobody else from proving the domain, and one's record does not prove for another.
	theirs, err := w.AddDomain(t.Context(), "both.example", "other", false, false)
	if err != nil || theirs.Token == mine.Token {
		t.Fatal(theirs, err)
	}
	if err := zone.Set(ch.Name + `. TXT "` + ch.Text + `"`); err != nil {
		t.Fatal(err)
	}
	if d, err := w.VerifyDomain(t.Context(), "both.example", "other"); err != nil || d.State != auth.Pending {
		t.Errorf("%+v, %v", d, err)
	}
	if d := w.verify("both.example"); d.State != auth.Proven {
		t.Errorf("%+v", d)
	}
	if w.Owns("other", "both.example") || !w.Owns("default", "both.example") {
		t.Error("the wrong tenant owns it")
	}
	// The operator's word needs no proof, and takes its place.
	d, err := w.AddDomain(t.Context(), "both.example", "other", true, true)
	if err != nil || d.State != auth.Assigned || !w.Owns("other", "both.example") || w.Owns("other", "x.both.example") {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := w.VerifyDomain(t.Context(), "both.example", "other"); err == nil {
		t.Error("an assigned domain is verified")
	}
	var input *auth.InputError
	for _, name := range []string{"", "com", "[192.0.2.1]", "exa mple.com", "-x.example", "_x.example.com", "xn---.example", strings.Repeat("x", 64) + ".example", "a..example"} {
		if _, err := w.AddDomain(t.Context(), name, "default", false, false); !errors.As(err, &input) || input.Field != "name" {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := w.AddDomain(t.Context(), "x.example", "nobody", false, false); !errors.As(err, &input) || input.Field != "tenant" {
		t.Errorf("%v", err)
	}
	if _, err := w.VerifyDomain(t.Context(), "x.example", "default"); !errors.Is(err, auth.ErrNotFound) {
		t.Errorf("%v", err)
	}
	if _, err := w.RemoveDomain(t.Context(), "x.example", "default"); !errors.Is(err, auth.ErrNotFound) {
		t.Errorf("%v", err)
	}
}

// TestClaimExpires: a token that was not used in time proves nothing any more.
func TestClaimExpires(t *testing.T) {
	t.Parallel()
	zone, edit := withZones(t, "")
	w := newWorld(t, edit, func(o *auth.Options) { o.ChallengeTime = time.Nanosecond })
	d, err := w.AddDomain(t.Context(), "late.example", "default", false, false)
	if err != nil {
		t.Fatal(err)
	}
	ch, _ := w.Challenge(&d)
	if err := zone.Set(ch.Name + `. TXT "` + ch.Text + `"`); err != nil {
		t.Fatal(err)
	}
	if d, err := w.Domain("late.example", "default"); err != nil || d.State != auth.Expired {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := w.VerifyDomain(t.Context(), "late.example", "default"); err == nil || !strings.Contains(err.Error(), "domain add") {
		t.Errorf("%v", err)
	}
	if w.Owns("default", "late.example") {
		t.Error("owned")
	}
	if next, err := w.AddDomain(t.Context(), "late.example", "default", false, false); err != nil || next.Token == d.Token {
		t.Errorf("%+v, %v", next, err)
	}
}
