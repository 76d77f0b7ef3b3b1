package tlspolicy

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/godwit-mta/godwit/internal/dns"
	"github.com/godwit-mta/godwit/internal/fetch"
	"github.com/godwit-mta/godwit/internal/store"
)

func TestParsePolicy(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, text string
		want       *stsPolicy // without lines; nil: refused
	}{
		{"as in RFC 8461", "version: STSv1\nmode: enforce\nmx: mail.example.com\nmx: *.example.net\nmx: backupmx.example.com\nmax_age: 604800\n",
			&stsPolicy{mode: modeEnforce, patterns: []string{"mail.example.com", "*.example.net", "backupmx.example.com"}, maxAge: 604800 * time.Second}},
		{"CRLF, no final line end", "version: STSv1\r\nmode: testing\r\nmx: A.Example\r\nmax_age: 1", &stsPolicy{mode: modeTesting, patterns: []string{"a.example"}, maxAge: time.Second}},
		{"none without mx", "version: STSv1\nmode: none\nmax_age: 86400\n", &stsPolicy{mode: modeNone, maxAge: 24 * time.Hour}},
		{"first one counts", "version: STSv1\nmode: enforce\nmode: none\nmax_age: 60\nmax_age: 5\nmx: a.b\n", &stsPolicy{mode: modeEnforce, patterns: []string{"a.b"}, maxAge: time.Minute}},
		{"unknown field", "version: STSv1\nmode: enforce\nnew_thing: x y\nmax_age: 60\nmx: a.b\n", &stsPolicy{mode: modeEnforce, patterns: []string{"a.b"}, maxAge: time.Minute}},
		{"more than a year", "version: STSv1\nmode: enforce\nmax_age: 9999999999\nmx: a.b\n", &stsPolicy{mode: modeEnforce, patterns: []string{"a.b"}, maxAge: maxMaxAge}},
		{"empty lines", "\nversion: STSv1\n\nmode: enforce\nmax_age: 60\nmx: a.b\n\n", &stsPolicy{mode: modeEnforce, patterns: []string{"a.b"}, maxAge: time.Minute}},
		{"no space after colon", "version:STSv1\nmode:enforce\nmax_age:60\nmx:a.b\n", &stsPolicy{mode: modeEnforce, patterns: []string{"a.b"}, maxAge: time.Minute}},
		{"empty", "", nil},
		{"no version", "mode: enforce\nmax_age: 60\nmx: a.b\n", nil},
		{"other version", "version: STSv2\nmode: enforce\nmax_age: 60\nmx: a.b\n", nil},
		{"no mode", "version: STSv1\nmax_age: 60\nmx: a.b\n", nil},
		{"other mode", "version: STSv1\nmode: Enforce\nmax_age: 60\nmx: a.b\n", nil},
		{"no max_age", "version: STSv1\nmode: enforce\nmx: a.b\n", nil},
		{"negative", "version: STSv1\nmode: enforce\nmax_age: -1\nmx: a.b\n", nil},
		{"11 digits", "version: STSv1\nmode: enforce\nmax_age: 00000000060\nmx: a.b\n", nil},
		{"no mx", "version: STSv1\nmode: enforce\nmax_age: 60\n", nil},
		{"wildcard inside", "version: STSv1\nmode: enforce\nmax_age: 60\nmx: a.*.b\n", nil},
		{"wildcard alone", "version: STSv1\nmode: enforce\nmax_age: 60\nmx: *\n", nil},
		{"two wildcards", "version: STSv1\nmode: enforce\nmax_age: 60\nmx: *.*.b\n", nil},
		{"U-label", "version: STSv1\nmode: enforce\nmax_age: 60\nmx: bücher.example\n", nil},
		{"html", "<html>\n<body>version: STSv1</body>\n", nil},
		{"NUL", "version: STSv1\nmode: enforce\nmax_age: 60\nmx: a.b\nx: a\x00b\n", nil},
		{"not UTF-8", "version: STSv1\nmode: enforce\nmax_age: 60\nmx: a.b\nx: \xff\n", nil},
	} {
		got, err := parsePolicy(tc.text)
		if (err == nil) != (tc.want != nil) {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		if err != nil {
			continue
		}
		got.lines = nil
		if d := cmp.Diff(tc.want, got, cmp.AllowUnexported(stsPolicy{})); d != "" {
			t.Errorf("%s: %s", tc.name, d)
		}
	}
}

func TestRecordID(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		records []string
		id      string
		why     bool
	}{
		{[]string{"v=STSv1; id=20160831085700Z;"}, "20160831085700Z", false},
		{[]string{"v=STSv1;id=a"}, "a", false},
		{[]string{"v=STSv1 ; id=a ; x=y"}, "a", false},
		{[]string{"v=spf1 -all", "v=STSv1; id=a;", "unrelated"}, "a", false},
		{nil, "", false},
		{[]string{"v=STSv10; id=a;", "v=stsv1; id=a;", "id=a; v=STSv1;", "v=STSv1"}, "", false},
		{[]string{"v=STSv1; id=a;", "v=STSv1; id=b;"}, "", true},
		{[]string{"v=STSv1;"}, "", true},
		{[]string{"v=STSv1; id=;"}, "", true},
		{[]string{"v=STSv1; id=a-b;"}, "", true},
		{[]string{"v=STSv1; id=" + strings.Repeat("a", 33)}, "", true},
		{[]string{"v=STSv1; id=a b;"}, "", true},
		{[]string{"v=STSv1;; id=a;"}, "", true},
	} {
		id, why := recordID(tc.records)
		if id != tc.id || (why != "") != tc.why {
			t.Errorf("%q: id %q, why %q", tc.records, id, why)
		}
	}
}

// TestT_STS_4: a wildcard stands for one label (RFC 8461, 4.1).
func TestT_STS_4(t *testing.T) {
	t.Parallel()
	p, err := parsePolicy(policyText("enforce", 60, "*.x.test", "mx.y.test"))
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]bool{
		"a.x.test": true, "b.a.x.test": false, "x.test": false, ".x.test": true, "ax.test": false, "mx.y.test": true, "a.mx.y.test": false, "y.test": false, "": false,
	} {
		if p.matches(host) != want {
			t.Errorf("%q: %v", host, !want)
		}
	}
}

// bed is policies over a zone and a web, in fake time.
type bed struct {
	*Policies
	zone *zone
	web  *web
}

func newBed(t *testing.T, change func(*Options)) *bed {
	t.Helper()
	b := &bed{zone: newZone(), web: newWeb()}
	o := Options{Resolver: b.zone, Fetch: b.web}
	if change != nil {
		change(&o)
	}
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	b.Policies = p
	return b
}

// run runs the background work until the test ends.
func (b *bed) run(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { _ = b.Run(ctx) })
	t.Cleanup(func() { cancel(); all.Wait() })
}

func (b *bed) mode(t *testing.T, domain string) string {
	t.Helper()
	if d := b.Domain(t.Context(), domain); d.sts != nil {
		return string(d.sts.mode)
	}
	return "-"
}

func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

const week = 7 * 24 * 3600

// TestT_STS_1: what cannot be fetched in order is no policy, and says why; the rules of HTTPS themselves are held in package
// fetch.
func TestT_STS_1(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, nil)
		good := policyText("enforce", week, "mx.test")
		for domain, tc := range map[string]struct {
			prepare func()
			mode    string
			note    FailureType
			within  time.Duration
		}{
			"good.test":     {func() { b.web.pages["good.test"] = good }, "enforce", "", 0},
			"norecord.test": {func() { b.web.pages["norecord.test"] = good }, "-", "", 0},
			"missing.test":  {func() {}, "-", STSPolicyFetchError, 0},
			"html.test":     {func() { b.web.pages["html.test"], b.web.types["html.test"] = good, "text/html" }, "-", STSPolicyFetchError, 0},
			"notype.test":   {func() { b.web.pages["notype.test"], b.web.types["notype.test"] = good, "nonsense/" }, "-", STSPolicyFetchError, 0},
			"broken.test":   {func() { b.web.pages["broken.test"] = "mode: enforce\n" }, "-", STSPolicyInvalid, 0},
			"redirect.test": {func() {
				b.web.errs["redirect.test"] = &fetch.Error{Kind: fetch.Redirect, Status: 301, Detail: "a redirect"}
			}, "-", STSPolicyFetchError, 0},
			"large.test":     {func() { b.web.errs["large.test"] = &fetch.Error{Kind: fetch.TooLarge, Detail: "too large"} }, "-", STSPolicyFetchError, 0},
			"untrusted.test": {func() { b.web.errs["untrusted.test"] = &fetch.Error{Kind: fetch.Certificate, Detail: "self-signed"} }, "-", STSWebPKIInvalid, 0},
			"slow.test":      {func() { b.web.pages["slow.test"], b.web.slow["slow.test"] = good, time.Hour }, "-", STSPolicyFetchError, 15 * time.Second},
		} {
			b.web.set(tc.prepare)
			if domain != "norecord.test" {
				b.zone.publish(domain, "1")
			}
			began := time.Now()
			d := b.Domain(t.Context(), domain)
			if took := time.Since(began); took != tc.within {
				t.Errorf("%s: mail waited %v", domain, took)
			}
			expect(t, domain, b.mode(t, domain), tc.mode)
			note := FailureType("")
			if len(d.Notes) == 1 {
				note = d.Notes[0].Type
			}
			expect(t, domain+" note", string(note), string(tc.note))
		}
		if n := b.web.count("norecord.test"); n != 0 {
			t.Errorf("without record there were %d fetches", n)
		}
		for _, odd := range []string{"[192.0.2.1]", "", "a_b.test", "-.test"} {
			expect(t, odd, b.mode(t, odd), "-")
		}
	})
}

// TestT_STS_2: a kept policy survives removal of the record, DNS trouble and fetch trouble, and a restart, until max_age.
func TestT_STS_2(t *testing.T) {
	t.Parallel()
	for name, break_ := range map[string]func(*bed){
		"record removed": func(b *bed) { b.zone.set(func() { delete(b.zone.txt, "_mta-sts.a.test") }) },
		"two records": func(b *bed) {
			b.zone.set(func() { b.zone.txt["_mta-sts.a.test"] = dns.TXT{Records: []string{"v=STSv1; id=1;", "v=STSv1; id=2;"}} })
		},
		"DNS fails":     func(b *bed) { b.zone.set(func() { b.zone.fail["TXT _mta-sts.a.test"] = dns.Temporary }) },
		"DNS hangs":     func(b *bed) { b.zone.set(func() { b.zone.delay = time.Hour }) },
		"new id, 404":   func(b *bed) { b.zone.publish("a.test", "2"); b.web.set(func() { delete(b.web.pages, "a.test") }) },
		"new id, hangs": func(b *bed) { b.zone.publish("a.test", "2"); b.web.set(func() { b.web.slow["a.test"] = time.Hour }) },
		"new id, invalid": func(b *bed) {
			b.zone.publish("a.test", "2")
			b.web.set(func() { b.web.pages["a.test"] = "mode: none" })
		},
		"certificate": func(b *bed) {
			b.zone.publish("a.test", "2")
			b.web.set(func() { b.web.errs["a.test"] = &fetch.Error{Kind: fetch.Certificate, Detail: "expired"} })
		},
	} {
		for _, running := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%v", name, running), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					kept := newKept()
					b := newBed(t, func(o *Options) { o.Store = kept })
					b.zone.publish("a.test", "1")
					b.web.set(func() { b.web.pages["a.test"] = policyText("enforce", week, "mx.test") })
					expect(t, "at first", b.mode(t, "a.test"), "enforce")
					fetched := time.Now()
					if running {
						b.run(t)
					}
					break_(b)
					if running { // what Run cannot refresh must hold too
						b.web.set(func() { b.web.errs["a.test"] = &fetch.Error{Kind: fetch.Connect, Detail: "unreachable"} })
					}
					for time.Since(fetched) < week*time.Second-time.Hour {
						time.Sleep(5 * time.Hour)
						if time.Since(fetched) >= week*time.Second {
							break
						}
						began := time.Now()
						expect(t, time.Since(fetched).String(), b.mode(t, "a.test"), "enforce")
						if took := time.Since(began); took > 5*time.Second {
							t.Errorf("mail waited %v although the policy is known", took)
						}
						if time.Since(fetched) > 72*time.Hour && !running {
							// A restart.
							zone, web := b.zone, b.web
							b = newBed(t, func(o *Options) { o.Store, o.Resolver, o.Fetch = kept, zone, web })
							b.zone, b.web = zone, web
						}
					}
					time.Sleep(time.Until(fetched.Add(week*time.Second + time.Second)))
					expect(t, "after max_age", b.mode(t, "a.test"), "-")
					time.Sleep(2 * time.Minute)
					if running && kept.count() != 0 {
						t.Errorf("the store still holds %d policies", kept.count())
					}
				})
			})
		}
	}
}

// TestT_STS_3: a changed id fetches anew, and Run does so before expiry whether mail comes or not.
func TestT_STS_3(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, nil)
		b.zone.publish("a.test", "1")
		b.web.set(func() { b.web.pages["a.test"] = policyText("testing", week, "mx.test") })
		expect(t, "at first", b.mode(t, "a.test"), "testing")
		b.web.set(func() { b.web.pages["a.test"] = policyText("enforce", week, "mx.test") })
		time.Sleep(10 * time.Minute)
		expect(t, "same id", b.mode(t, "a.test"), "testing")
		b.zone.publish("a.test", "2")
		expect(t, "new id, not looked at yet", b.mode(t, "a.test"), "testing")
		time.Sleep(5 * time.Minute)
		expect(t, "new id", b.mode(t, "a.test"), "enforce")
		if n := b.web.count("a.test"); n != 2 {
			t.Errorf("%d fetches", n)
		}

		b.run(t)
		began := time.Now()
		time.Sleep(21 * 24 * time.Hour) // three times max_age
		n := b.web.count("a.test") - 2
		if n < 20 || n > 29 {
			t.Errorf("%d fetches in %v", n, time.Since(began))
		}
		b.web.set(func() { b.web.errs["a.test"] = &fetch.Error{Kind: fetch.Connect, Detail: "unreachable"} })
		expect(t, "still", b.mode(t, "a.test"), "enforce")
		// Nobody sends there any more: after a while nobody asks either, and the policy runs out.
		b.web.set(func() { delete(b.web.errs, "a.test") })
		time.Sleep(60 * 24 * time.Hour)
		n = b.web.count("a.test")
		time.Sleep(7 * 24 * time.Hour)
		if b.web.count("a.test") != n {
			t.Error("a domain without mail is asked for ever")
		}
		if b.cache.count() != 0 {
			t.Error("the policy of a domain without mail is kept for ever")
		}
	})
}

// TestT_STS_3_Background: a policy for which mail could not wait is there for the next.
func TestT_STS_3_Background(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, nil)
		b.run(t)
		b.zone.publish("a.test", "1")
		b.web.set(func() {
			b.web.pages["a.test"], b.web.slow["a.test"] = policyText("enforce", week, "mx.test"), 40*time.Second
		})
		expect(t, "at first", b.mode(t, "a.test"), "-")
		time.Sleep(7*time.Minute + 41*time.Second)
		began := time.Now()
		expect(t, "later", b.mode(t, "a.test"), "enforce")
		if time.Since(began) != 0 {
			t.Errorf("the second mail waited %v", time.Since(began))
		}
	})
}

// TestT_STS_5: a host that the policy does not name is left out.
func TestT_STS_5(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, nil)
		b.zone.publish("a.test", "1")
		b.web.set(func() { b.web.pages["a.test"] = policyText("enforce", week, "mx1.a.test") })
		d := b.Domain(t.Context(), "a.test")
		mx, addrs := &dns.MX{Name: "a.test"}, &dns.Addrs{}
		plan := d.Host(t.Context(), mx, "mx2.a.test", addrs)
		if typeOf(plan.Skip) != ValidationFailure || !plan.Required || plan.Policy != KindSTS || plan.Testing {
			t.Errorf("other host: %+v", plan)
		}
		plan = d.Host(t.Context(), mx, "MX1.a.test.", addrs)
		if plan.Skip != nil || !plan.Required || plan.Verify == nil || plan.ServerName != "mx1.a.test" || plan.Domain != "a.test" {
			t.Errorf("its host: %+v", plan)
		}
		if d := cmp.Diff([]string{"version: STSv1", "mode: enforce", "max_age: 604800", "mx: mx1.a.test"}, plan.Strings); d != "" {
			t.Error(d)
		}
	})
}

// TestT_STS_6: testing reports and lets go; none ends a policy.
func TestT_STS_6(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		kept := newKept()
		b := newBed(t, func(o *Options) { o.Store = kept })
		b.zone.publish("a.test", "1")
		b.web.set(func() { b.web.pages["a.test"] = policyText("testing", week, "mx1.a.test") })
		d := b.Domain(t.Context(), "a.test")
		plan := d.Host(t.Context(), &dns.MX{}, "mx2.a.test", &dns.Addrs{})
		if !plan.Testing || plan.Skip != nil || plan.Required || typeOf(plan.Note) != ValidationFailure || plan.Verify == nil {
			t.Errorf("testing: %+v", plan)
		}
		b.web.set(func() { b.web.pages["a.test"] = policyText("none", week) })
		b.zone.publish("a.test", "2")
		time.Sleep(6 * time.Minute)
		d = b.Domain(t.Context(), "a.test")
		if plan = d.Host(t.Context(), &dns.MX{}, "mx2.a.test", &dns.Addrs{}); plan.Policy != KindNone || plan.Demands() || plan.Verify != nil || plan.Key != "" {
			t.Errorf("none: %+v", plan)
		}
		// That it is "none" is kept too, so that an old copy does not come back.
		b = newBed(t, func(o *Options) { o.Store = kept })
		b.zone.set(func() { b.zone.fail["TXT _mta-sts.a.test"] = dns.Temporary })
		expect(t, "after a restart", b.mode(t, "a.test"), "-")
	})
}

// TestT_STS_7: the certificate is trusted, of these days, and for the host by its subject alternative names.
func TestT_STS_7(t *testing.T) {
	t.Parallel()
	ca := certificate(t, nil, issuer)
	middle := certificate(t, ca, issuer)
	verify := verifyPKIX("mx1.a.test", pool(ca))
	client := certificate(t, ca, forNames("mx1.a.test"))
	for name, tc := range map[string]struct {
		chain []*authority
		want  FailureType
	}{
		"good":           {[]*authority{certificate(t, ca, forNames("mx1.a.test"))}, ""},
		"wildcard":       {[]*authority{certificate(t, ca, forNames("*.a.test"))}, ""},
		"with middle":    {[]*authority{certificate(t, middle, forNames("mx1.a.test")), middle}, ""},
		"middle missing": {[]*authority{certificate(t, middle, forNames("mx1.a.test"))}, CertificateNotTrusted},
		"expired":        {[]*authority{certificate(t, ca, expired("mx1.a.test"))}, CertificateExpired},
		"self-signed":    {[]*authority{certificate(t, nil, forNames("mx1.a.test"))}, CertificateNotTrusted},
		"wrong name":     {[]*authority{certificate(t, ca, forNames("mx2.a.test"))}, CertificateHostMismatch},
		"domain's name":  {[]*authority{certificate(t, ca, forNames("a.test"))}, CertificateHostMismatch},
		"common name alone": {[]*authority{certificate(t, ca, func(c *x509Certificate) {
			c.Subject.CommonName = "mx1.a.test"
		})}, CertificateHostMismatch},
		"not for servers": {[]*authority{certificate(t, ca, func(c *x509Certificate) {
			c.DNSNames, c.ExtKeyUsage = []string{"mx1.a.test"}, []x509ExtKeyUsage{x509ClientAuth}
		})}, CertificateNotTrusted},
		"no issuer": {[]*authority{certificate(t, client, forNames("mx1.a.test")), client}, CertificateNotTrusted},
		"nothing":   {nil, CertificateNotTrusted},
	} {
		fail := verify(state(tc.chain...))
		if typeOf(fail) != tc.want {
			t.Errorf("%s: %v, want %v", name, fail, tc.want)
		}
		if fail != nil && (fail.Detail == "" || len(fail.Detail) > 255) {
			t.Errorf("%s: detail %q", name, fail.Detail)
		}
	}
}

// TestT_STS_8: two domains with one host and different policies make demands of their own, that kept sessions tell apart
//
func TestT_STS_8(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, nil)
		for domain, text := range map[string]string{
			"a.test": policyText("enforce", week, "mx.host.test"), "b.test": policyText("enforce", week, "mx.b.test"),
			"c.test": policyText("testing", week, "mx.host.test"), "d.test": policyText("enforce", week, "*.host.test"),
		} {
			b.zone.publish(domain, "1")
			b.web.set(func() { b.web.pages[domain] = text })
		}
		plans := map[string]Plan{}
		for _, domain := range []string{"a.test", "b.test", "c.test", "d.test", "e.test"} {
			plans[domain] = b.Domain(t.Context(), domain).Host(t.Context(), &dns.MX{}, "mx.host.test", &dns.Addrs{})
		}
		if plans["a.test"].Skip != nil || plans["b.test"].Skip == nil || plans["c.test"].Skip != nil || plans["e.test"].Demands() {
			t.Errorf("%+v", plans)
		}
		if k := plans["a.test"].Key; k == "" || k == plans["c.test"].Key || k == plans["e.test"].Key || k != plans["d.test"].Key {
			t.Errorf("keys %q %q %q %q", k, plans["c.test"].Key, plans["d.test"].Key, plans["e.test"].Key)
		}
	})
}

// TestOneQuestion: many messages to a domain at once ask once, and one that gives up does not take the others with it.
func TestOneQuestion(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, nil)
		b.zone.publish("a.test", "1")
		b.web.set(func() {
			b.web.pages["a.test"], b.web.slow["a.test"] = policyText("enforce", week, "mx.test"), 3*time.Second
		})
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var all sync.WaitGroup
		all.Go(func() {
			if d := b.Domain(impatient, "a.test"); d.sts != nil || len(d.Notes) != 0 {
				t.Errorf("who gave up got %+v", d)
			}
		})
		synctest.Wait()
		for range 50 {
			all.Go(func() { expect(t, "mode", b.mode(t, "a.test"), "enforce") })
		}
		all.Wait()
		if n := b.web.count("a.test"); n != 2 {
			t.Errorf("%d fetches", n)
		}
	})
}

// TestBounds: domains without policy come and go; a policy that is obeyed is not driven out by others.
func TestBounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		kept := newKept()
		b := newBed(t, func(o *Options) { o.Store, o.MaxPolicies, o.MaxWithout = kept, 10, 20 })
		for i := range 100 {
			b.Domain(t.Context(), fmt.Sprintf("none%d.test", i))
		}
		if n := len(b.cache.others); n != 20 {
			t.Errorf("%d domains without policy are remembered", n)
		}
		add := func(mode string, i int) string {
			name := fmt.Sprintf("%s%d.test", mode, i)
			b.zone.publish(name, "1")
			b.web.set(func() { b.web.pages[name] = policyText(mode, week, "mx.test") })
			expect(t, name, b.mode(t, name), mode)
			return name
		}
		for i := range 10 {
			add("testing", i)
		}
		for i := range 30 {
			add("enforce", i)
		}
		if n := b.cache.count(); n != 10 || kept.count() != 10 {
			t.Errorf("%d policies in memory, %d in the store", n, kept.count())
		}
		for i := range 10 { // the first to come are protected
			e := b.cache.get(fmt.Sprintf("enforce%d.test", i))
			if !e.holds(time.Now()) || b.cache.policies[e.domain.Name] == nil {
				t.Errorf("enforce%d was driven out", i)
			}
		}
		n := b.web.count("enforce29.test")
		expect(t, "not kept", b.mode(t, "enforce29.test"), "enforce")
		if b.web.count("enforce29.test") != n {
			t.Error("a policy for which there was no room is fetched for each message")
		}
		time.Sleep((week + 1) * time.Second)
		add("enforce", 100)
		if n := b.cache.count(); n != 10 {
			t.Errorf("%d policies after all but one have expired", n)
		}
	})
}

func TestOctets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, func(o *Options) { o.MaxOctets = 100 << 10 })
		var mx []string
		for i := range 1000 {
			mx = append(mx, fmt.Sprintf("mx%d.example.test", i))
		}
		for i := range 20 {
			name := fmt.Sprintf("large%d.test", i)
			b.zone.publish(name, "1")
			b.web.set(func() { b.web.pages[name] = policyText("enforce", week, mx...) })
			expect(t, name, b.mode(t, name), "enforce")
		}
		if b.cache.octets > 100<<10 || b.cache.count() != 2 {
			t.Errorf("%d octets in %d policies", b.cache.octets, b.cache.count())
		}
		for i := range 20 {
			if _, err := b.Reset(t.Context(), fmt.Sprintf("large%d.test", i)); err != nil {
				t.Error(err)
			}
		}
		if b.cache.octets != 0 {
			t.Errorf("%d octets are left of nothing", b.cache.octets)
		}
	})
}

func TestReset(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		kept := newKept()
		b := newBed(t, func(o *Options) { o.Store = kept })
		b.zone.publish("a.test", "1")
		b.web.set(func() { b.web.pages["a.test"] = policyText("enforce", week, "mx.test") })
		expect(t, "at first", b.mode(t, "a.test"), "enforce")
		b.web.set(func() { b.web.pages["a.test"] = policyText("testing", week, "mx.test") })
		if had, err := b.Reset(t.Context(), "A.test."); !had || err != nil || kept.count() != 0 {
			t.Errorf("reset: %v %v, %d kept", had, err, kept.count())
		}
		expect(t, "then", b.mode(t, "a.test"), "testing")
		if had, err := b.Reset(t.Context(), "other.test"); had || err != nil {
			t.Errorf("reset of nothing: %v %v", had, err)
		}
	})
}

// TestStoreFails: mail goes by the policy though it cannot be kept.
func TestStoreFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		kept := newKept()
		b := newBed(t, func(o *Options) { o.Store = kept })
		kept.err = store.ErrFailed
		b.zone.publish("a.test", "1")
		b.web.set(func() { b.web.pages["a.test"] = policyText("enforce", week, "mx.test") })
		expect(t, "mode", b.mode(t, "a.test"), "enforce")
	})
}

// TestDamagedKept: what cannot be read in the store is left out, and the rest counts.
func TestDamagedKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		kept := newKept()
		b := newBed(t, func(o *Options) { o.Store = kept })
		b.zone.publish("a.test", "1")
		b.web.set(func() { b.web.pages["a.test"] = policyText("enforce", week, "mx.test") })
		b.mode(t, "a.test")
		kept.all["sts/b.test"], kept.all["sts/c.test"] = []byte("{"), []byte(`{"policy":"mode: x"}`)
		b = newBed(t, func(o *Options) { o.Store = kept })
		if b.cache.count() != 1 || b.mode(t, "a.test") != "enforce" {
			t.Errorf("%d policies", b.cache.count())
		}
	})
}

func TestClockWentBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		kept := newKept()
		kept.all["sts/a.test"] = fmt.Appendf(nil, `{"id":"1","fetched":%q,"used":%q,"policy":%q}`,
			time.Now().Add(100*24*time.Hour).Format(time.RFC3339), time.Now().Format(time.RFC3339), policyText("enforce", week, "mx.test"))
		b := newBed(t, func(o *Options) { o.Store = kept })
		expect(t, "mode", b.mode(t, "a.test"), "enforce")
		time.Sleep((week + 1) * time.Second)
		expect(t, "after max_age", b.mode(t, "a.test"), "-")
	})
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]Options{
		"no resolver": {}, "too patient": {Resolver: newZone(), Wait: 2 * time.Minute}, "negative time": {Resolver: newZone(), Recheck: -1},
		"negative limit": {Resolver: newZone(), MaxPolicies: -1},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func BenchmarkDomain(b *testing.B) {
	z, w := newZone(), newWeb()
	p, err := New(Options{Resolver: z, Fetch: w})
	if err != nil {
		b.Fatal(err)
	}
	z.publish("a.test", "1")
	w.pages["a.test"] = policyText("enforce", week, "mx.test")
	mx, addrs := &dns.MX{}, &dns.Addrs{}
	for _, domain := range []string{"a.test", "none.test"} {
		b.Run(domain, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.Domain(b.Context(), domain).Host(b.Context(), mx, "mx.test", addrs)
			}
		})
	}
}
