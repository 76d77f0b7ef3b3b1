package delivery

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/delivery/tlspolicy"
	"github.com/godwit-mta/godwit/internal/dns"
	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// authority is what certificates of tests are issued by.
var authority = sync.OnceValues(func() (tls.Certificate, error) {
	return smtptest.NewCertificate(smtptest.CertificateOptions{Names: []string{"authority.test"}, CA: true})
})

// issue makes a certificate for names by the authority, and the pool that trusts it.
func issue(t testing.TB, names ...string) (*tls.Config, *x509.CertPool) {
	t.Helper()
	ca, err := authority()
	if err != nil {
		t.Fatal(err)
	}
	c, err := smtptest.NewCertificate(smtptest.CertificateOptions{Names: names, Issuer: &ca})
	if err != nil {
		t.Fatal(err)
	}
	root, err := x509.ParseCertificate(ca.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(root)
	return &tls.Config{Certificates: []tls.Certificate{c}}, pool
}

func pinOf(t testing.TB, c *tls.Config) Pin {
	t.Helper()
	leaf, err := x509.ParseCertificate(c.Certificates[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
}

// policies are fixed ones, by domain, and what was recorded.
type policies struct {
	plans map[string]tlspolicy.Plan
	mx    bool // MX answers count as validated
	mu    sync.Mutex
	got   []tlspolicy.Result
}

type policyOf struct {
	p      *policies
	domain string
}

func (p *policies) Domain(_ context.Context, domain string) DomainPolicy { return policyOf{p, domain} }
func (d policyOf) Findings() []*tlspolicy.Failure                        { return nil }
func (d policyOf) Host(_ context.Context, mx *dns.MX, _ string, _ *dns.Addrs) tlspolicy.Plan {
	if d.p.mx {
		mx.Authentic = true
	}
	return d.p.plans[d.domain]
}

func (p *policies) Record(r tlspolicy.Result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.got = append(p.got, r)
}

// results are what was recorded, in words.
func (p *policies) results() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var words []string
	for _, r := range p.got {
		what := "success"
		if r.Failure != nil {
			what = string(r.Failure.Type)
		}
		words = append(words, string(r.Policy)+" "+what)
	}
	return strings.Join(words, ", ")
}

// accepts is a plan that demands TLS and takes every certificate, under a key.
func accepts(key string) tlspolicy.Plan {
	return tlspolicy.Plan{Policy: tlspolicy.KindSTS, Required: true, Key: key,
		Verify: func(*tls.ConnectionState) *tlspolicy.Failure { return nil }}
}

func rejects(key string) tlspolicy.Plan {
	p := accepts(key)
	p.Verify = func(*tls.ConnectionState) *tlspolicy.Failure {
		return &tlspolicy.Failure{Type: tlspolicy.CertificateHostMismatch, Detail: "it is another"}
	}
	return p
}

// TestEnforced is the other half of T-7, and T-8: where TLS is demanded mail is deferred and never leaves in the clear.
func TestEnforced(t *testing.T) {
	t.Parallel()
	peers, err := smtptest.LegacyPeers("mx1.example.test")
	if err != nil {
		t.Fatal(err)
	}
	good, _ := issue(t, "mx1.example.test")
	peers = append(peers,
		smtptest.LegacyPeer{Name: "no STARTTLS", Clear: true},
		smtptest.LegacyPeer{Name: "HELO only", Clear: true, Options: smtptest.SinkOptions{TLS: good}, Script: smtptest.Script{Without: []string{"ESMTP"}}})
	for _, p := range peers {
		if !p.Clear {
			continue
		}
		for how, change := range map[string]func(*Options){
			"policy": func(o *Options) {
				o.Policies = &policies{plans: map[string]tlspolicy.Plan{"example.test": accepts("k")}}
			},
			"operator": func(o *Options) { o.TLS.Default = LevelEncrypted },
			"tenant":   func(o *Options) { o.TLS.Tenant = func(string) Level { return LevelEncrypted } },
		} {
			t.Run(p.Name+", "+how, func(t *testing.T) {
				t.Parallel()
				options := p.Options
				options.Keep = true
				w, sinks := newWorldOf(t, oneZone, func(o *Options) { quick(o); change(o) }, options, mx{"127.0.0.2", &p.Script})
				v := w.deliver("u@example.test")
				expect(t, v, "deferred tls_required tls")
				if v.Attempt.Results[0].Class != event.ClassTLS {
					t.Errorf("class %s", v.Attempt.Results[0].Class)
				}
				if c := sinks[0].Counters(); c.Transactions != 0 {
					t.Errorf("%d transactions were begun", c.Transactions)
				}
			})
		}
	}
}

// TestUntrustedHost: a host that does not prove who it is gets no mail, and the next one may.
func TestUntrustedHost(t *testing.T) {
	t.Parallel()
	config, _ := issue(t, "mx1.example.test")
	p := &policies{plans: map[string]tlspolicy.Plan{"example.test": rejects("k")}}
	w, sinks := newWorldOf(t, oneZone, func(o *Options) { o.Policies, o.Recorder = p, p }, smtptest.SinkOptions{TLS: config, Keep: true},
		mx{"127.0.0.2", new(smtptest.Script)})
	v := w.deliver("u@example.test")
	expect(t, v, "deferred tls_untrusted tls")
	contains(t, v.Attempt.Results[0].Explanation, "did not prove who it is", "it is another", "MTA-STS")
	if c := sinks[0].Counters(); c.Transactions != 0 || c.Connections != 1 {
		t.Errorf("%d connections, %d transactions", c.Connections, c.Transactions)
	}
	if got := p.results(); got != "sts certificate-host-mismatch" {
		t.Errorf("recorded: %s", got)
	}
}

// TestSkipped: a host that the policy does not name is not connected to; the others are.
func TestSkipped(t *testing.T) {
	t.Parallel()
	skip := tlspolicy.Plan{Policy: tlspolicy.KindSTS, Skip: &tlspolicy.Failure{Type: tlspolicy.ValidationFailure, Detail: "not in the policy"}}
	p := &policies{plans: map[string]tlspolicy.Plan{"example.test": skip}}
	w, sinks := newWorld(t, oneZone, func(o *Options) { o.Policies, o.Recorder = p, p }, oneMX(smtptest.Script{})...)
	v := w.deliver("u@example.test")
	expect(t, v, "deferred tls_policy tls")
	if c := sinks[0].Counters(); c.Connections != 0 {
		t.Errorf("%d connections", c.Connections)
	}
	if got := p.results(); got != "sts validation-failure" {
		t.Errorf("recorded: %s", got)
	}
}

// TestTestingPolicy: what does not hold is recorded, and mail goes on.
func TestTestingPolicy(t *testing.T) {
	t.Parallel()
	config, _ := issue(t, "mx1.example.test")
	plan := rejects("k")
	plan.Testing = true
	for name, one := range map[string]struct {
		options smtptest.SinkOptions
		want    string
	}{
		"wrong certificate": {smtptest.SinkOptions{TLS: config, Keep: true}, "sts certificate-host-mismatch"},
		"no TLS":            {smtptest.SinkOptions{Keep: true}, "sts starttls-not-supported"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &policies{plans: map[string]tlspolicy.Plan{"example.test": plan}}
			w, _ := newWorldOf(t, oneZone, func(o *Options) { o.Policies, o.Recorder = p, p }, one.options, mx{"127.0.0.2", new(smtptest.Script)})
			expect(t, w.deliver("u@example.test"), delivers)
			if got := p.results(); got != one.want {
				t.Errorf("recorded: %s, want %s", got, one.want)
			}
		})
	}
}

const sharedZone = `
a.test.           MX 10 mx1.example.test.
b.test.           MX 10 mx1.example.test.
c.test.           MX 10 mx1.example.test.
mx1.example.test. A  127.0.0.2
`

// TestSharedHost is R-18 and T-STS-8: domains with one host and different policies never share a session that was made
// for a weaker one, and those with the same demand do.
func TestSharedHost(t *testing.T) {
	t.Parallel()
	config, _ := issue(t, "mx1.example.test")
	p := &policies{plans: map[string]tlspolicy.Plan{"b.test": rejects("policy of b"), "c.test": accepts("policy of c")}}
	w, sinks := newWorldOf(t, sharedZone, func(o *Options) { o.Policies, o.Recorder = p, p }, smtptest.SinkOptions{TLS: config, Keep: true},
		mx{"127.0.0.2", new(smtptest.Script)})
	for range 2 {
		expect(t, w.deliver("u@a.test"), delivers) // leaves a session that nobody vouches for
		expect(t, w.deliver("u@b.test"), "deferred tls_untrusted tls")
		expect(t, w.deliver("u@c.test"), delivers)
	}
	awaitReceived(t, sinks[0], 4)
	if n := sinks[0].Counters().Connections; n != 4 {
		t.Errorf("%d connections, want one for a, one for c, and two that failed for b", n)
	}
	if got, want := p.results(), "no-policy-found success, sts certificate-host-mismatch, sts success, sts certificate-host-mismatch"; got != want {
		t.Errorf("recorded: %s, want %s", got, want)
	}
}

// TestOptionalTLS is "TLS-Required: No": it lets policies be ignored, and not what the operator demands (RFC 8689, 3).
func TestOptionalTLS(t *testing.T) {
	t.Parallel()
	config, _ := issue(t, "mx1.example.test")
	p := &policies{plans: map[string]tlspolicy.Plan{"example.test": rejects("k")}}
	w, _ := newWorldOf(t, oneZone, func(o *Options) { o.Policies = p }, smtptest.SinkOptions{TLS: config, Keep: true},
		mx{"127.0.0.2", new(smtptest.Script)})
	j := w.job("u@example.test")
	j.Message.TLSOptional = true
	expect(t, w.run(t.Context(), j), delivers)
	expect(t, w.deliver("u@example.test"), "deferred tls_untrusted tls")

	w, _ = newWorld(t, oneZone, func(o *Options) { o.TLS.Default = LevelEncrypted }, oneMX(smtptest.Script{})...)
	j = w.job("u@example.test")
	j.Message.TLSOptional = true
	expect(t, w.run(t.Context(), j), "deferred tls_required tls")
}

// toSink is a route for example.org to the sink of a world.
func toSink(t RouteTLS, name string) func(*Options) {
	return func(o *Options) {
		host := "127.0.0.2"
		if name != "" {
			host = name
		}
		o.Routes = []Route{{Domains: []string{"example.org"}, Hosts: []string{net.JoinHostPort(host, strconv.Itoa(int(o.Port)))}, TLS: t}}
	}
}

// TestRouteLevels: what a route demands of its hosts, and a tenant beside it.
func TestRouteLevels(t *testing.T) {
	t.Parallel()
	config, roots := issue(t, "mx1.example.test")
	pin := pinOf(t, config)
	plain := smtptest.SinkOptions{Keep: true}
	secure := smtptest.SinkOptions{Keep: true, TLS: config}
	implicit := smtptest.SinkOptions{Keep: true, TLS: config, ImplicitTLS: true}
	for name, one := range map[string]struct {
		tls    RouteTLS
		host   string
		tenant Level
		sink   smtptest.SinkOptions
		want   string
		words  string // of TLS, at the end
	}{
		"none":                    {tls: RouteTLS{Level: LevelNone}, sink: secure, want: delivers},
		"none, tenant encrypted":  {tls: RouteTLS{Level: LevelNone}, tenant: LevelEncrypted, sink: secure, want: delivers, words: "unverified"},
		"tenant none":             {tls: RouteTLS{Level: LevelEncrypted}, tenant: LevelNone, sink: plain, want: "deferred tls_required tls"},
		"opportunistic":           {tls: RouteTLS{Level: LevelOpportunistic}, sink: plain, want: delivers},
		"encrypted":               {tls: RouteTLS{Level: LevelEncrypted}, sink: secure, want: delivers, words: "unverified"},
		"encrypted, none there":   {tls: RouteTLS{Level: LevelEncrypted}, sink: plain, want: "deferred tls_required tls"},
		"verified":                {tls: RouteTLS{Level: LevelVerified, Roots: roots}, host: "mx1.example.test", sink: secure, want: delivers, words: "pkix"},
		"verified by name":        {tls: RouteTLS{Level: LevelVerified, Roots: roots, Name: "mx1.example.test"}, sink: secure, want: delivers, words: "pkix"},
		"verified, other name":    {tls: RouteTLS{Level: LevelVerified, Roots: roots, Name: "mx2.example.test"}, sink: secure, want: "deferred tls_untrusted tls"},
		"verified, address":       {tls: RouteTLS{Level: LevelVerified, Roots: roots}, sink: secure, want: "deferred tls_untrusted tls"},
		"verified, other root":    {tls: RouteTLS{Level: LevelVerified, Name: "mx1.example.test"}, sink: secure, want: "deferred tls_untrusted tls"},
		"verified, none there":    {tls: RouteTLS{Level: LevelVerified, Roots: roots}, sink: plain, want: "deferred tls_required tls"},
		"pinned":                  {tls: RouteTLS{Level: LevelPinned, Pins: []Pin{{1}, pin}}, sink: secure, want: delivers, words: "pinned"},
		"pinned, another":         {tls: RouteTLS{Level: LevelPinned, Pins: []Pin{{1}}}, sink: secure, want: "deferred tls_untrusted tls"},
		"implicit":                {tls: RouteTLS{Implicit: true}, sink: implicit, want: delivers, words: "unverified"},
		"implicit, verified":      {tls: RouteTLS{Implicit: true, Level: LevelVerified, Roots: roots, Name: "mx1.example.test"}, sink: implicit, want: delivers, words: "pkix"},
		"implicit, clear there":   {tls: RouteTLS{Implicit: true}, sink: plain, want: "deferred tls_required tls"},
		"tenant verified":         {tls: RouteTLS{Level: LevelEncrypted, Roots: roots, Name: "mx1.example.test"}, tenant: LevelVerified, sink: secure, want: delivers, words: "pkix"},
		"tenant verified, cannot": {tls: RouteTLS{Roots: roots}, tenant: LevelVerified, sink: secure, want: "deferred tls_untrusted tls"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, sinks := newWorldOf(t, oneZone, func(o *Options) {
				quick(o)
				toSink(one.tls, one.host)(o)
				if one.tenant != 0 {
					o.TLS.Tenant = func(string) Level { return one.tenant }
				}
			}, one.sink, mx{"127.0.0.2", new(smtptest.Script)})
			for range 2 { // the second one over a kept session
				v := w.deliver("u@example.org")
				expect(t, v, one.want)
				if words := v.Attempt.Results[0].TLS; !strings.HasSuffix(words, one.words) || one.words == "" && words != "" {
					t.Errorf("the result says %q", words)
				}
			}
			if one.want == delivers {
				awaitReceived(t, sinks[0], 2)
				if n := sinks[0].Counters().Connections; n != 1 {
					t.Errorf("%d connections for two messages", n)
				}
			} else if n := sinks[0].Counters().Transactions; n != 0 {
				t.Errorf("%d transactions were begun", n)
			}
		})
	}
}

// TestBadRouteTLS: a route that cannot be, T-RELAYAUTH among them.
func TestBadRouteTLS(t *testing.T) {
	t.Parallel()
	login := &Login{"u", "p"}
	for name, bad := range map[string]RouteTLS{
		"login unverified": {Login: login}, "login encrypted": {Level: LevelEncrypted, Login: login},
		"pins unused": {Pins: []Pin{{1}}}, "pinned without pins": {Level: LevelPinned},
		"implicit and none": {Level: LevelNone, Implicit: true}, "no level": {Level: levels},
	} {
		if _, err := newRoutes([]Route{{Domains: []string{"*"}, Hosts: []string{"x.test"}, TLS: bad}}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// TestRelayLogin is T-RELAYAUTH and R-19: a smart host learns the password only when it has proven who it is.
func TestRelayLogin(t *testing.T) {
	t.Parallel()
	const user, password = "relay", "s3cret words"
	config, roots := issue(t, "relay.example.test")
	false1, _ := issue(t, "other.example.test")
	verified := RouteTLS{Level: LevelVerified, Roots: roots, Name: "relay.example.test"}
	verified.Login = &Login{user, password}
	pinned := RouteTLS{Level: LevelPinned, Pins: []Pin{pinOf(t, config)}, Login: verified.Login}
	wrong := verified
	wrong.Login = &Login{user, "guess"}
	users := map[string]string{user: password}
	for name, one := range map[string]struct {
		tls  RouteTLS
		sink smtptest.SinkOptions
		want string
	}{
		"verified":        {verified, smtptest.SinkOptions{TLS: config, Users: users}, delivers},
		"pinned":          {pinned, smtptest.SinkOptions{TLS: config, Users: users}, delivers},
		"wrong password":  {wrong, smtptest.SinkOptions{TLS: config, Users: users}, "deferred login_failed auth"},
		"no AUTH offered": {verified, smtptest.SinkOptions{TLS: config}, "deferred login_failed auth"},
		"another host":    {verified, smtptest.SinkOptions{TLS: false1, Users: users}, "deferred tls_untrusted tls"},
		"another key":     {pinned, smtptest.SinkOptions{TLS: false1, Users: users}, "deferred tls_untrusted tls"},
		"no TLS":          {verified, smtptest.SinkOptions{Users: users}, "deferred tls_required tls"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			one.sink.Keep = true
			w, sinks := newWorldOf(t, oneZone, toSink(one.tls, ""), one.sink, mx{"127.0.0.2", new(smtptest.Script)})
			v := w.deliver("u@example.org")
			expect(t, v, one.want)
			if strings.Contains(v.Attempt.Results[0].Explanation, password) {
				t.Error("the explanation tells the password")
			}
			if one.want == delivers {
				awaitReceived(t, sinks[0], 1)
				if got := sinks[0].Messages()[0].User; got != user {
					t.Errorf("logged in as %q", got)
				}
			} else if n := sinks[0].Counters().Transactions; n != 0 {
				t.Errorf("%d transactions were begun", n)
			}
		})
	}
}

const twoDomains = oneZone + `
other.test.       MX 10 mx1.example.test.
`

// TestRequireTLS is T-REQ (RFC 8689, 4.2.1).
func TestRequireTLS(t *testing.T) {
	t.Parallel()
	config, roots := issue(t, "mx1.example.test")
	full := smtptest.SinkOptions{TLS: config, RequireTLS: true}
	const refused = "bounced requiretls_unsupported tls"
	for name, one := range map[string]struct {
		plan   tlspolicy.Plan
		route  *RouteTLS
		sink   smtptest.SinkOptions
		null   bool // a report: the null return path
		want   string
		passes bool // the parameter is sent
	}{
		"policy":              {plan: accepts("k"), sink: full, want: delivers, passes: true},
		"nobody vouches":      {sink: full, want: refused},
		"not offered":         {plan: accepts("k"), sink: smtptest.SinkOptions{TLS: config}, want: refused},
		"no TLS":              {plan: accepts("k"), want: refused},
		"not trusted":         {plan: rejects("k"), sink: full, want: "deferred tls_untrusted tls"},
		"route":               {route: &RouteTLS{Roots: roots, Name: "mx1.example.test"}, sink: full, want: delivers, passes: true},
		"route not trusted":   {route: &RouteTLS{}, sink: full, want: "deferred tls_untrusted tls"},
		"report":              {sink: smtptest.SinkOptions{}, null: true, want: delivers},
		"report, not vouched": {sink: full, null: true, want: delivers},
		"report, vouched":     {plan: accepts("k"), sink: full, null: true, want: delivers, passes: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			one.sink.Keep = true
			domain := "example.test"
			w, sinks := newWorldOf(t, twoDomains, func(o *Options) {
				o.Policies = &policies{plans: map[string]tlspolicy.Plan{"example.test": one.plan}}
				if one.route != nil {
					toSink(*one.route, "")(o)
				}
			}, one.sink, mx{"127.0.0.2", new(smtptest.Script)})
			if one.route != nil {
				domain = "example.org"
			}
			for range 2 {
				expect(t, w.deliver("u@other.test"), delivers) // leaves a session with the same host that must not be taken
				j := w.job("u@" + domain)
				j.Message.From.RequireTLS = true
				if one.null {
					j.Message.From.Path = smtp.Path{}
				}
				v := w.run(t.Context(), j)
				expect(t, v, one.want)
				if one.want == refused {
					if got := v.Attempt.Results[0].Reply; got.Code != 550 || got.Enhanced != (smtp.EnhancedCode{Class: 5, Subject: 7, Detail: 30}) {
						t.Errorf("the reply is %s", got)
					}
				}
				if v.Destination {
					t.Error("the destination is blamed for what the message wants")
				}
			}
			awaitReceived(t, sinks[0], map[bool]int{true: 4, false: 2}[one.want == delivers])
			passed := 0
			for _, m := range sinks[0].Messages() {
				if strings.Contains(m.Parameters, "REQUIRETLS") {
					passed++
				}
			}
			if want := map[bool]int{true: 2}[one.passes]; passed != want {
				t.Errorf("the parameter was sent %d times, want %d", passed, want)
			}
		})
	}
}

// TestNegativeSerial: what an unverified host is let through with is refused where a host must prove who it is.
func TestNegativeSerial(t *testing.T) {
	t.Parallel()
	c, err := smtptest.NewCertificate(smtptest.CertificateOptions{Names: []string{"mx1.example.test"}, RSA: 1024, NegativeSerial: true})
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	sink := smtptest.SinkOptions{TLS: &tls.Config{Certificates: []tls.Certificate{c}}, Keep: true}
	for _, change := range map[string]func(*Options){
		"verified": func(o *Options) { o.TLS.Default, o.Roots = LevelVerified, roots },
		"policy": func(o *Options) {
			o.Policies = &policies{plans: map[string]tlspolicy.Plan{"example.test": accepts("k")}}
		},
	} {
		w, _ := newWorldOf(t, oneZone, change, sink, mx{"127.0.0.2", new(smtptest.Script)})
		v := w.deliver("u@example.test")
		expect(t, v, "deferred tls_untrusted tls")
		contains(t, v.Attempt.Results[0].Explanation, "negative serial")
	}
}
