package tlspolicy

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/godwit-mta/godwit/internal/dns"
	"github.com/godwit-mta/godwit/internal/fetch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// zone is a resolver with answers by name, and by "TYPE name" for errors. What it does not hold does not exist.
type zone struct {
	mu    sync.Mutex
	txt   map[string]dns.TXT
	tlsa  map[string]dns.TLSA
	cname map[string]dns.CNAME
	fail  map[string]dns.Kind
	delay time.Duration // of TXT
	asked map[string]int
}

func newZone() *zone {
	return &zone{txt: map[string]dns.TXT{}, tlsa: map[string]dns.TLSA{}, cname: map[string]dns.CNAME{}, fail: map[string]dns.Kind{}, asked: map[string]int{}}
}

func (z *zone) set(f func()) {
	z.mu.Lock()
	defer z.mu.Unlock()
	f()
}

func (z *zone) count(question string) int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.asked[question]
}

func answer[T any](z *zone, typ, name string, of map[string]T) (T, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked[typ+" "+name]++
	var zero T
	if k, ok := z.fail[typ+" "+name]; ok {
		return zero, &dns.Error{Kind: k, Name: name, Type: typ, Server: "192.0.2.53:53", Detail: "answered SERVFAIL"}
	}
	v, ok := of[name]
	if !ok {
		return zero, &dns.Error{Kind: dns.NXDomain, Name: name, Type: typ}
	}
	return v, nil
}

func (z *zone) LookupTXT(ctx context.Context, name string) (dns.TXT, error) {
	z.mu.Lock()
	delay := z.delay
	z.mu.Unlock()
	select {
	case <-time.After(delay):
	case <-ctx.Done():
		return dns.TXT{}, &dns.Error{Kind: dns.Temporary, Name: name, Type: "TXT", Detail: "given up"}
	}
	return answer(z, "TXT", name, z.txt)
}

func (z *zone) LookupTLSA(_ context.Context, name string) (dns.TLSA, error) {
	return answer(z, "TLSA", name, z.tlsa)
}

func (z *zone) LookupCNAME(_ context.Context, name string) (dns.CNAME, error) {
	return answer(z, "CNAME", name, z.cname)
}

func (z *zone) LookupMX(_ context.Context, domain string) (dns.MX, error) {
	return answer(z, "MX", domain, map[string]dns.MX{})
}

func (z *zone) LookupAddrs(_ context.Context, host string) (dns.Addrs, error) {
	return answer(z, "A", host, map[string]dns.Addrs{})
}

// publish sets the MTA-STS record of a domain.
func (z *zone) publish(domain, id string) {
	z.set(func() {
		z.txt["_mta-sts."+domain] = dns.TXT{Records: []string{"v=spf1 -all", "v=STSv1; id=" + id + ";"}}
	})
}

// web is a Fetcher.
type web struct {
	mu    sync.Mutex
	pages map[string]string // by domain
	types map[string]string
	errs  map[string]error
	slow  map[string]time.Duration
	got   map[string]int
	now   int // under way
	peak  int
}

func newWeb() *web {
	return &web{pages: map[string]string{}, types: map[string]string{}, errs: map[string]error{}, slow: map[string]time.Duration{}, got: map[string]int{}}
}

func (w *web) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func (w *web) count(domain string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.got[domain]
}

func (w *web) Get(ctx context.Context, url string) ([]byte, string, error) {
	var domain string
	if _, err := fmt.Sscanf(url, "https://mta-sts.%s", &domain); err != nil {
		return nil, "", err
	}
	const path = "/.well-known/mta-sts.txt"
	domain = domain[:len(domain)-len(path)]
	w.mu.Lock()
	w.got[domain]++
	w.now++
	w.peak = max(w.peak, w.now)
	page, ok := w.pages[domain]
	typ, err, slow := w.types[domain], w.errs[domain], w.slow[domain]
	w.mu.Unlock()
	defer w.set(func() { w.now-- })
	select {
	case <-time.After(slow):
	case <-ctx.Done():
		return nil, "", &fetch.Error{Kind: fetch.Timeout, Host: "mta-sts." + domain, Detail: "did not answer in time"}
	}
	if typ == "" {
		typ = "text/plain; charset=utf-8"
	}
	switch {
	case err != nil:
		return nil, "", err
	case !ok:
		return nil, "", &fetch.Error{Kind: fetch.Status, Status: 404, Host: "mta-sts." + domain, Detail: "answered with status 404"}
	}
	return []byte(page), typ, nil
}

func policyText(mode string, maxAge int, mx ...string) string {
	text := fmt.Sprintf("version: STSv1\r\nmode: %s\r\nmax_age: %d\r\n", mode, maxAge)
	for _, m := range mx {
		text += "mx: " + m + "\r\n"
	}
	return text
}

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

var serials = func() func() *big.Int {
	var mu sync.Mutex
	n := int64(1)
	return func() *big.Int { mu.Lock(); defer mu.Unlock(); n++; return big.NewInt(n) }
}()

// certificate makes one, signed by parent, or by itself; change may be nil.
func certificate(t testing.TB, parent *authority, change func(*x509.Certificate)) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial := serials()
	c := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: fmt.Sprintf("test %d", serial)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true}
	if change != nil {
		change(c)
	}
	signer, by := crypto.Signer(key), c
	if parent != nil {
		signer, by = parent.key, parent.cert
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert: parsed, key: key}
}

func issuer(c *x509.Certificate) { c.IsCA, c.ExtKeyUsage = true, nil }

func forNames(names ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.DNSNames = names }
}

func expired(names ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.DNSNames, c.NotAfter = names, time.Now().Add(-time.Minute) }
}

func state(chain ...*authority) *tls.ConnectionState {
	s := new(tls.ConnectionState)
	for _, a := range chain {
		s.PeerCertificates = append(s.PeerCertificates, a.cert)
	}
	return s
}

func pool(a *authority) *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// tlsa makes the record of a certificate.
func tlsa(usage, selector, matching uint8, a *authority) dns.TLSARecord {
	data := a.cert.Raw
	if selector == 1 {
		data = a.cert.RawSubjectPublicKeyInfo
	}
	switch matching {
	case 1:
		d := sha256.Sum256(data)
		data = d[:]
	case 2:
		d := sha512.Sum512(data)
		data = d[:]
	}
	return dns.TLSARecord{Usage: usage, Selector: selector, Matching: matching, Data: data}
}

func typeOf(f *Failure) FailureType {
	if f == nil {
		return ""
	}
	return f.Type
}
