package daemon_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/daemon"
	"github.com/godwit-mta/godwit/internal/daemon/daemontest"
	"github.com/godwit-mta/godwit/internal/delivery/tlspolicy"
	"github.com/godwit-mta/godwit/internal/dns/dnstest"
	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/smtpclient"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// issued is a certificate with its key.
type issued struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// pair returns the certificate as package tls takes it.
func (c *issued) pair() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{c.cert.Raw}, PrivateKey: c.key}
}

// issue makes a certificate, by an authority or self-signed.
func issue(t *testing.T, by *issued, change func(*x509.Certificate)) *issued {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<60))
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-48 * time.Hour),
		NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true}
	change(c)
	signer, parent := crypto.Signer(key), c
	if by != nil {
		signer, parent = by.key, by.cert
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &issued{parsed, key}
}

// downgradeHost is a mail host of a case.
type downgradeHost struct {
	cert       string // good, expired, self-signed, wrong name; none: no STARTTLS; broken: the handshake fails
	requireTLS bool
	tlsa       string // fits, other, unusable, bogus; empty: none
}

// downgradeCase is one way in which TLS is not what it should be, or is.
type downgradeCase struct {
	name, published, attack string
	sts                     string // mode and hosts: "enforce mx1 mx2"; empty: none
	policyHost              string // missing, self-signed; empty: in order
	signed                  bool
	hosts                   []downgradeHost
	requireTLS              bool
	optional                bool // TLS-Required: No
	later                   bool // the mail of the row is a second one, after a restart, when the policy cannot be had any more
	noRecord                bool // its TXT record has gone too

	want string // what arrives: clear, tls, verified, nothing
	rpt  tlspolicy.FailureType
}

func downgradeCases() []downgradeCase {
	one := func(cert string) []downgradeHost { return []downgradeHost{{cert: cert}} }
	dane := func(cert, tlsa string) []downgradeHost { return []downgradeHost{{cert: cert, tlsa: tlsa}} }
	const none, sts, testing, signed = "nothing", "MTA-STS, enforce", "MTA-STS, testing", "DANE"
	return []downgradeCase{
		{name: "plain-tls", published: none, attack: "-", hosts: one("good"), want: "tls"},
		{name: "plain-selfsigned", published: none, attack: "self-signed certificate", hosts: one("self-signed"), want: "tls"},
		{name: "plain-expired", published: none, attack: "expired certificate", hosts: one("expired"), want: "tls"},
		{name: "plain-stripped", published: none, attack: "STARTTLS stripped", hosts: one("none"), want: "clear", rpt: tlspolicy.STARTTLSNotSupported},
		{name: "plain-handshake", published: none, attack: "handshake fails", hosts: one("broken"), want: "clear", rpt: tlspolicy.ValidationFailure},

		{name: "sts-good", published: sts, attack: "-", sts: "enforce mx1", hosts: one("good"), want: "verified"},
		{name: "sts-stripped", published: sts, attack: "STARTTLS stripped", sts: "enforce mx1", hosts: one("none"), want: "nothing", rpt: tlspolicy.STARTTLSNotSupported},
		{name: "sts-handshake", published: sts, attack: "handshake fails", sts: "enforce mx1", hosts: one("broken"), want: "nothing", rpt: tlspolicy.ValidationFailure},
		{name: "sts-expired", published: sts, attack: "expired certificate", sts: "enforce mx1", hosts: one("expired"), want: "nothing", rpt: tlspolicy.CertificateExpired},
		{name: "sts-selfsigned", published: sts, attack: "self-signed certificate", sts: "enforce mx1", hosts: one("self-signed"), want: "nothing", rpt: tlspolicy.CertificateNotTrusted},
		{name: "sts-wrongname", published: sts, attack: "certificate for another name", sts: "enforce mx1", hosts: one("wrong name"), want: "nothing", rpt: tlspolicy.CertificateHostMismatch},
		{name: "sts-othermx", published: sts, attack: "MX not in the policy", sts: "enforce mx2", hosts: one("good"), want: "nothing", rpt: tlspolicy.ValidationFailure},
		{name: "sts-secondmx", published: sts, attack: "first MX not in the policy", sts: "enforce mx2", hosts: []downgradeHost{{cert: "good"}, {cert: "good"}}, want: "verified", rpt: tlspolicy.ValidationFailure},
		{name: "sts-nopolicy", published: sts + ", never seen", attack: "policy cannot be fetched", sts: "enforce mx1", policyHost: "missing", hosts: one("good"), want: "tls", rpt: tlspolicy.STSPolicyFetchError},
		{name: "sts-webpki", published: sts + ", never seen", attack: "policy host with a self-signed certificate", sts: "enforce mx1", policyHost: "self-signed", hosts: one("good"), want: "tls", rpt: tlspolicy.STSWebPKIInvalid},
		{name: "sts-cached", published: sts + ", kept", attack: "policy cannot be fetched any more, STARTTLS stripped", sts: "enforce mx1", hosts: one("good"), later: true, want: "nothing", rpt: tlspolicy.STARTTLSNotSupported},
		{name: "sts-removed", published: sts + ", kept", attack: "TXT record and policy removed, STARTTLS stripped", sts: "enforce mx1", hosts: one("good"), later: true, noRecord: true, want: "nothing", rpt: tlspolicy.STARTTLSNotSupported},

		{name: "testing-stripped", published: testing, attack: "STARTTLS stripped", sts: "testing mx1", hosts: one("none"), want: "clear", rpt: tlspolicy.STARTTLSNotSupported},
		{name: "testing-selfsigned", published: testing, attack: "self-signed certificate", sts: "testing mx1", hosts: one("self-signed"), want: "tls", rpt: tlspolicy.CertificateNotTrusted},
		{name: "testing-othermx", published: testing, attack: "MX not in the policy", sts: "testing mx2", hosts: one("good"), want: "tls", rpt: tlspolicy.ValidationFailure},

		{name: "dane-good", published: signed, attack: "expired self-signed certificate of the right key", signed: true, hosts: dane("expired self-signed", "fits"), want: "verified"},
		{name: "dane-stripped", published: signed, attack: "STARTTLS stripped", signed: true, hosts: dane("none", "other"), want: "nothing", rpt: tlspolicy.STARTTLSNotSupported},
		{name: "dane-handshake", published: signed, attack: "handshake fails", signed: true, hosts: dane("broken", "other"), want: "nothing", rpt: tlspolicy.ValidationFailure},
		{name: "dane-mismatch", published: signed, attack: "certificate of another key", signed: true, hosts: dane("good", "other"), want: "nothing", rpt: tlspolicy.CertificateNotTrusted},
		{name: "dane-bogus", published: signed, attack: "TLSA answer forged (SERVFAIL)", signed: true, hosts: dane("good", "bogus"), want: "nothing", rpt: tlspolicy.DNSSECInvalid},
		{name: "dane-second", published: signed, attack: "TLSA of the first MX forged", signed: true, hosts: []downgradeHost{{cert: "good", tlsa: "bogus"}, {cert: "self-signed", tlsa: "fits"}}, want: "verified", rpt: tlspolicy.DNSSECInvalid},
		{name: "dane-unusable", published: signed + ", no record of use", attack: "self-signed certificate", signed: true, hosts: dane("self-signed", "unusable"), want: "tls", rpt: tlspolicy.TLSAInvalid},
		{name: "dane-unusable-stripped", published: signed + ", no record of use", attack: "STARTTLS stripped", signed: true, hosts: dane("none", "unusable"), want: "nothing", rpt: tlspolicy.STARTTLSNotSupported},
		{name: "dane-insecure", published: "TLSA without DNSSEC", attack: "certificate of another key", hosts: dane("self-signed", "other"), want: "tls"},
		{name: "both", published: signed + " and " + sts, attack: "certificate that MTA-STS would take, of another key", signed: true, sts: "enforce mx1", hosts: dane("good", "other"), want: "nothing", rpt: tlspolicy.CertificateNotTrusted},

		{name: "require-good", published: signed, attack: "-, mail with REQUIRETLS", signed: true, requireTLS: true, hosts: []downgradeHost{{cert: "self-signed", tlsa: "fits", requireTLS: true}}, want: "verified"},
		{name: "require-missing", published: signed, attack: "host without REQUIRETLS, mail with it", signed: true, requireTLS: true, hosts: dane("self-signed", "fits"), want: "nothing"},
		{name: "require-stripped", published: none, attack: "STARTTLS stripped, mail with REQUIRETLS", signed: true, requireTLS: true, hosts: one("none"), want: "nothing"},
		{name: "optional-stripped", published: sts, attack: "STARTTLS stripped, mail with TLS-Required: No", sts: "enforce mx1", optional: true, hosts: one("none"), want: "clear", rpt: tlspolicy.STARTTLSNotSupported},
		{name: "optional-mismatch", published: signed, attack: "certificate of another key, mail with TLS-Required: No", signed: true, optional: true, hosts: dane("good", "other"), want: "tls"},
	}
}

// downgrades is the world of TestDowngrades.
type downgrades struct {
	*daemontest.World
	t     *testing.T
	ca    *issued
	port  int
	sinks map[string]*smtptest.Sink // by host name
	pages sync.Map                  // policies by domain

	mu       sync.Mutex
	arrived  map[string]*smtptest.Received // by domain of the recipient, the latest
	results  []tlspolicy.Result
	policies string // address of the HTTPS server
}

// TestDowngrades runs each way to take TLS away against live mail hosts, a live resolver and a live policy host, through
// the whole server, and holds what was sent, over what, what became of the entry, and what is reported (RFC 8460). The table
// is docs/downgrades.md; -update writes it anew.
func TestDowngrades(t *testing.T) {
	t.Parallel()
	d := &downgrades{t: t, sinks: map[string]*smtptest.Sink{}, arrived: map[string]*smtptest.Received{}}
	d.ca = issue(t, nil, func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign })
	roots := x509.NewCertPool()
	roots.AddCert(d.ca.cert)
	d.servePolicies()
	d.World = daemontest.New(t, daemontest.Options{
		Config: func(c *config.Config) {
			c.Delivery.Retry = []time.Duration{time.Hour} // one attempt is all that is looked at
			c.Delivery.TLSFloor.Learn = false
			c.TLS.Certificates = []config.Certificate{{Name: "main", Certificate: filepath.Join(c.DataDir, "cert.pem"), Key: filepath.Join(c.DataDir, "key.pem")}}
			l := c.Listeners[0]
			l.Name, l.TLS = "secure", "starttls"
			c.Listeners = append(c.Listeners, l)
		},
		Internet: daemon.Internet{
			Roots: roots,
			DialWeb: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, d.policies)
			},
			Results: func(r tlspolicy.Result) {
				d.mu.Lock()
				defer d.mu.Unlock()
				d.results = append(d.results, r)
			},
		},
	})
	d.writeListenerPair()
	cases := downgradeCases()
	var zones strings.Builder
	for i := range cases {
		d.prepare(i, &cases[i], &zones)
	}
	d.Port = d.port
	if err := d.DNS.Set(zones.String()); err != nil {
		t.Fatal(err)
	}
	d.Start()
	for i := range cases {
		d.submit(&cases[i])
	}
	d.await(cases, func(*downgradeCase) int { return 1 })

	rows := make([]string, len(cases))
	for i := range cases {
		if !cases[i].later {
			rows[i] = d.row(&cases[i])
		}
	}
	d.show()
	d.Stop()
	gone := zones.String()
	for i := range cases {
		if c := &cases[i]; c.later {
			d.takeAway(c)
			if c.noRecord {
				gone = regexp.MustCompile(`(?m)^_mta-sts\.`+c.name+`\.test\. .*$`).ReplaceAllString(gone, "")
			} else {
				gone = strings.Replace(gone, `_mta-sts.`+c.name+`.test. TXT "v=STSv1; id=1;"`, `_mta-sts.`+c.name+`.test. TXT "v=STSv1; id=2;"`, 1)
			}
		}
	}
	if err := d.DNS.Set(gone); err != nil {
		t.Fatal(err)
	}
	d.Start()
	for i := range cases {
		if cases[i].later {
			d.submit(&cases[i])
		}
	}
	d.await(cases, func(c *downgradeCase) int {
		if c.later {
			return 2
		}
		return 1
	})
	for i := range cases {
		if cases[i].later {
			rows[i] = d.row(&cases[i])
		}
	}
	d.compare(rows)
}

// show holds what an operator is told against what mail met.
func (d *downgrades) show() {
	for domain, want := range map[string]string{
		"sts-good.test":    "sts used required verified: TLS with a trusted certificate for mx1.sts-good.test, or the mail waits",
		"sts-othermx.test": "sts required verified: not used: the MX host mx1.sts-othermx.test is not in the MTA-STS policy of sts-othermx.test",
		"testing-othermx.test": "sts used testing: TLS if it can be had; what an enforced policy would not let through is reported; " +
			"the MX host mx1.testing-othermx.test is not in the MTA-STS policy of testing-othermx.test",
		"dane-good.test": "tlsa used required verified: TLS with a certificate that fits the TLSA records of mx1.dane-good.test, or the mail waits",
		"dane-unusable.test": "tlsa used required: TLS, whoever answers, or the mail waits; no TLSA record of mx1.dane-unusable.test can be used, " +
			"the last since its usage is 1, which SMTP does not use",
		"plain-tls.test": "no-policy-found used: TLS if it can be had, whoever answers",
	} {
		p, err := d.Client().TLSPolicy(d.t.Context(), domain)
		if err != nil || len(p.Hosts) != 1 || p.Error != "" {
			d.t.Errorf("%s: %+v, %v", domain, p, err)
			continue
		}
		h := &p.Hosts[0]
		got := h.Policy
		for _, w := range []struct {
			is   bool
			word string
		}{{h.Used, "used"}, {h.Required, "required"}, {h.Verified, "verified"}, {h.Testing, "testing"}} {
			if w.is {
				got += " " + w.word
			}
		}
		if got += ": " + h.Meaning; got != want {
			d.t.Errorf("%s: %s\nwant %s", domain, got, want)
		}
		if p.Signed != strings.HasPrefix(domain, "dane") || (p.STS != nil) != (h.Policy == "sts") || (len(h.Records) > 0) != (h.Policy == "tlsa") {
			d.t.Errorf("%s: %+v", domain, p)
		}
	}
	for _, forgotten := range []bool{true, false} {
		r, err := d.Client().ResetTLSPolicy(d.t.Context(), "STS-Stripped.test")
		if err != nil || r.Forgotten != forgotten {
			d.t.Errorf("reset: %+v, %v", r, err)
		}
	}
}

// servePolicies runs the HTTPS server of all policies.
func (d *downgrades) servePolicies() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		d.t.Fatal(err)
	}
	d.policies = l.Addr().String()
	s := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			page, ok := d.pages.Load(r.Host)
			if !ok || r.URL.Path != "/.well-known/mta-sts.txt" {
				http.NotFound(w, r)
				return
			}
			w.Header().Set("Content-Type", "text/plain")
			fmt.Fprint(w, page)
		}),
		TLSConfig: &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			by := d.ca
			if strings.Contains(h.ServerName, "webpki") {
				by = nil
			}
			p := issue(d.t, by, func(c *x509.Certificate) { c.DNSNames = []string{h.ServerName} }).pair()
			return &p, nil
		}},
		ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute,
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.ServeTLS(l, "", "") }()
	d.t.Cleanup(func() { s.Close(); <-done })
}

// writeListenerPair writes the server's own certificate.
func (d *downgrades) writeListenerPair() {
	own := issue(d.t, nil, func(c *x509.Certificate) { c.DNSNames = []string{"godwit.test"} })
	der, err := x509.MarshalPKCS8PrivateKey(own.key)
	if err != nil {
		d.t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: own.cert.Raw}, "key.pem": {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(filepath.Join(d.Dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			d.t.Fatal(err)
		}
	}
}

// prepare makes the hosts and records of a case.
func (d *downgrades) prepare(i int, c *downgradeCase, zones *strings.Builder) {
	domain := c.name + ".test"
	secure := func(name string) {
		if c.signed {
			d.DNS.Fail(name, dnstest.Behaviour{Authentic: true})
		}
	}
	secure(domain)
	secure("*." + domain)
	for n := range c.hosts {
		h := &c.hosts[n]
		name, address := fmt.Sprintf("mx%d.%s", n+1, domain), fmt.Sprintf("127.6.%d.%d", i+1, n+1)
		fmt.Fprintf(zones, "%s. MX %d %s.\n%s. A %s\n", domain, 10*(n+1), name, name, address)
		cert := issue(d.t, map[bool]*issued{false: d.ca}[strings.Contains(h.cert, "self-signed")], func(x *x509.Certificate) {
			x.DNSNames = []string{name}
			if h.cert == "wrong name" {
				x.DNSNames = []string{"elsewhere.test"}
			}
			if strings.HasPrefix(h.cert, "expired") {
				x.NotAfter = time.Now().Add(-24 * time.Hour)
			}
		})
		d.listen(c, h, name, address, cert)
		at := fmt.Sprintf("_%d._tcp.%s", d.port, name)
		sum := sha256.Sum256(cert.cert.RawSubjectPublicKeyInfo)
		switch h.tlsa {
		case "fits":
			fmt.Fprintf(zones, "%s. TLSA 3 1 1 %x\n", at, sum)
		case "other":
			fmt.Fprintf(zones, "%s. TLSA 3 1 1 %x\n", at, sha256.Sum256([]byte("another key")))
		case "unusable":
			fmt.Fprintf(zones, "%s. TLSA 1 1 1 %x\n", at, sum)
		case "bogus":
			d.DNS.Fail(at, dnstest.Behaviour{Rcode: "SERVFAIL"})
		}
	}
	if c.sts == "" {
		return
	}
	fmt.Fprintf(zones, "_mta-sts.%s. TXT \"v=STSv1; id=1;\"\nmta-sts.%s. A 127.0.0.1\n", domain, domain)
	if c.policyHost == "missing" {
		return
	}
	words := strings.Fields(c.sts)
	text := "version: STSv1\nmode: " + words[0] + "\nmax_age: 604800\n"
	for _, h := range words[1:] {
		text += "mx: " + h + "." + domain + "\n"
	}
	d.pages.Store("mta-sts."+domain, text)
}

// listen opens a mail host.
func (d *downgrades) listen(c *downgradeCase, h *downgradeHost, name, address string, cert *issued) {
	o := smtptest.SinkOptions{Script: smtptest.Script{Hostname: name}, RequireTLS: h.requireTLS, OnMessage: func(r *smtptest.Received) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.arrived[c.name] = r
	}}
	if h.cert != "none" {
		o.TLS = &tls.Config{Certificates: []tls.Certificate{cert.pair()}}
	}
	if h.cert == "broken" {
		o.TLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, fmt.Errorf("no TLS today") }
	}
	sink, err := smtptest.NewSink(o)
	if err != nil {
		d.t.Fatal(err)
	}
	l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", address, d.port))
	if err != nil {
		d.t.Fatal(err)
	}
	d.port = l.Addr().(*net.TCPAddr).Port
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- sink.Run(ctx, l) }()
	d.t.Cleanup(func() { cancel(); <-done })
	d.sinks[name] = sink
}

// takeAway leaves nothing of a domain's policy and of its host's TLS.
func (d *downgrades) takeAway(c *downgradeCase) {
	d.pages.Delete("mta-sts." + c.name + ".test")
	for n := range c.hosts {
		script := smtptest.Script{Rules: []smtptest.Rule{{At: smtptest.AtEhlo, Reply: "250-stripped\n250 SIZE"}}}
		if err := d.sinks[fmt.Sprintf("mx%d.%s.test", n+1, c.name)].SetScript(script); err != nil {
			d.t.Fatal(err)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.arrived, c.name)
	d.results = slices.DeleteFunc(d.results, func(r tlspolicy.Result) bool { return strings.HasSuffix(r.Domain, c.name+".test") })
}

// submit hands one message in, over TLS if it requires TLS.
func (d *downgrades) submit(c *downgradeCase) {
	d.t.Helper()
	header := "Subject: " + c.name + "\r\n"
	if c.optional {
		header = "TLS-Required: No\r\n" + header
	}
	from, err := smtp.ParseMailbox("me@app.test")
	if err != nil {
		d.t.Fatal(err)
	}
	to, err := smtp.ParseMailbox("you@" + c.name + ".test")
	if err != nil {
		d.t.Fatal(err)
	}
	tx := &smtpclient.Transaction{From: smtp.Sender{Path: from, RequireTLS: c.requireTLS}, Recipients: []smtp.Recipient{{Path: to}},
		Body: smtp.BodyOf([]byte(header + "\r\nhello\r\n"))}
	ctx, cancel := context.WithTimeout(d.t.Context(), daemontest.Patience)
	defer cancel()
	nc, err := net.Dial("tcp", d.AddressOf("secure"))
	if err != nil {
		d.t.Fatal(err)
	}
	client := smtpclient.New(nc, smtpclient.Options{Hello: "app.test"})
	defer client.Close()
	if err := client.Start(ctx); err != nil {
		d.t.Fatal(err)
	}
	if err := client.StartTLS(ctx, &tls.Config{InsecureSkipVerify: true}); err != nil {
		d.t.Fatal(err)
	}
	if err := client.Send(ctx, tx); err != nil || !tx.Result.Recipients[0].Reply.Positive() {
		d.t.Fatalf("%s: %v, %+v", c.name, err, tx.Result)
	}
}

// await waits until so many messages of each case have had their first attempt.
func (d *downgrades) await(cases []downgradeCase, want func(*downgradeCase) int) {
	d.t.Helper()
	d.Until("an attempt at each", func() bool {
		tried := make(map[string]map[string]bool) // messages by recipient
		for _, e := range d.Events() {
			if e.Type == event.Accepted || e.Sender != "me@app.test" {
				continue
			}
			if tried[e.Recipient] == nil {
				tried[e.Recipient] = make(map[string]bool)
			}
			tried[e.Recipient][e.Message] = true
		}
		for i := range cases {
			if len(tried["you@"+cases[i].name+".test"]) < want(&cases[i]) {
				return false
			}
		}
		return true
	})
}

// row holds what became of a case and puts it as a line of the table.
func (d *downgrades) row(c *downgradeCase) string {
	var last *event.Event
	for _, e := range d.Events() {
		if e.Recipient == "you@"+c.name+".test" && e.Type != event.Accepted {
			last = e
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	got, sent := "nothing", "nothing"
	r := d.arrived[c.name]
	connected := int64(0)
	for n := range c.hosts {
		connected += d.sinks[fmt.Sprintf("mx%d.%s.test", n+1, c.name)].Counters().Connections
	}
	switch {
	case r == nil && connected == 0:
		sent = "nothing, no connection"
	case r == nil:
	case r.TLS == "":
		got, sent = "clear", "the message in the clear"
	default:
		got, sent = "tls", "the message over TLS, nobody authenticated"
		for _, how := range []string{"dane", "sts", "pkix"} {
			if strings.Contains(last.TLS, how) {
				got, sent = "verified", "the message over TLS, host authenticated by "+map[string]string{"dane": "DANE", "sts": "MTA-STS", "pkix": "PKIX"}[how]
			}
		}
		if strings.Contains(r.Parameters, "REQUIRETLS") {
			sent += ", with REQUIRETLS"
		}
	}
	if got != c.want {
		d.t.Errorf("%s: %s arrived, want %s (%+v)", c.name, got, c.want, last)
	}
	state := last.Type.String()
	if last.Type != event.Delivered {
		state += ", " + last.Reason.String() + ": " + last.Explanation
	}
	if waits := last.Type == event.Deferred; waits != (c.want == "nothing" && !c.requireTLS) {
		d.t.Errorf("%s: %s", c.name, state)
	}
	if c.requireTLS && c.want == "nothing" && (last.Type != event.Bounced || last.Reply.Enhanced != "5.7.30") {
		d.t.Errorf("%s: %+v", c.name, last)
	}
	var reports []string
	found := c.rpt == ""
	for i := range d.results {
		res := &d.results[i]
		if res.Domain != c.name+".test" && !strings.HasSuffix(res.Domain, "."+c.name+".test") {
			continue
		}
		line := fmt.Sprintf("`%s` %s: ", res.Policy, res.Domain)
		if res.Failure == nil {
			line += "success"
		} else {
			line += fmt.Sprintf("**%s**", res.Failure.Type)
			if res.Host != "" {
				line += " at " + res.Host
			}
			line += ", " + res.Failure.Detail
			found = found || res.Failure.Type == c.rpt
		}
		if !slices.Contains(reports, line) {
			reports = append(reports, line)
		}
	}
	if !found {
		d.t.Errorf("%s: no %s is reported: %q", c.name, c.rpt, reports)
	}
	if c.rpt == "" && c.want != "nothing" && slices.ContainsFunc(reports, func(l string) bool { return !strings.HasSuffix(l, "success") }) && !c.optional {
		d.t.Errorf("%s: a failure is reported: %q", c.name, reports)
	}
	if len(reports) == 0 {
		reports = []string{"-"}
	}
	return fmt.Sprintf("| %s | %s | %s | %s | %s |\n", c.published, c.attack, sent, d.plain(state), d.plain(strings.Join(reports, "<br>")))
}

var (
	expiryTimes = regexp.MustCompile(`: current time \S+ is after [0-9TZ:+-]+`)
	loopback    = regexp.MustCompile(`\b127\.6\.\d+\.(\d+)`)
)

// plain takes out what differs from run to run.
func (d *downgrades) plain(s string) string {
	s = strings.NewReplacer(fmt.Sprintf("_%d._tcp", d.port), "_25._tcp", fmt.Sprintf(":%d", d.port), ":25", d.DNS.Addr().String(), "127.0.0.1:53",
		"|", "\\|", "\n", " ").Replace(s)
	return loopback.ReplaceAllString(expiryTimes.ReplaceAllString(s, ""), "192.0.2.$1")
}

const downgradesHead = `# What becomes of mail when TLS is taken away

Each row is a run of the whole server against a live mail host, resolver and policy host (TestDowngrades in internal/daemon,
whose ` + "`-update`" + ` writes this file). The last column is what goes into reports on TLS (RFC 8460). What publishes what, and how
the two rank, is in [the manual](manual/transport.md).

| published | what is wrong | what was sent | what became of the entry | reported |
|---|---|---|---|---|
`

// compare holds the table against the one that is kept.
func (d *downgrades) compare(rows []string) {
	const file = "../../docs/downgrades.md"
	table := []byte(downgradesHead + strings.Join(rows, ""))
	if *update {
		if err := os.WriteFile(file, table, 0o644); err != nil {
			d.t.Fatal(err)
		}
		return
	}
	kept, err := os.ReadFile(file)
	if err != nil {
		d.t.Fatal(err)
	}
	if bytes.Equal(kept, table) {
		return
	}
	had := strings.Split(string(kept), "\n")
	for _, row := range strings.Split(string(table), "\n") {
		if !slices.Contains(had, row) {
			d.t.Errorf("docs/downgrades.md does not have (-update writes it):\n%s", row)
		}
	}
	if !d.t.Failed() {
		d.t.Error("docs/downgrades.md has other rows besides; -update writes it")
	}
}
