package certs

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/godwit-mta/godwit/internal/dnspublish"
	"github.com/godwit-mta/godwit/internal/store"
	"github.com/godwit-mta/godwit/smtp"
)

// ACME says which certificates an authority that speaks ACME is asked for (RFC 8555). One certificate is got for each
// name. Account, keys and certificates are kept in the store, so a restart asks for nothing again.
type ACME struct {
	Domains   []string // host names; "*.example.com" with DNS-01 alone
	Email     string   // whom the authority writes to; may be empty
	Directory string   // URL; empty: Let's Encrypt
	Roots     string   // file with the authorities of the directory's own HTTPS (PEM); empty: those of the system

	// Challenge is "http-01" (default), "tls-alpn-01" (RFC 8737) or "dns-01" (RFC 8555, 8.4).
	Challenge string
	// Listen is where http-01 and tls-alpn-01 are answered, while a challenge is open: "[::]:80" or "[::]:443" by default.
	Listen string
	// DNS says who sets the records of dns-01. With a server of its own they are looked for there before the authority is
	// told to look.
	DNS dnspublish.Access

	Store store.Store // required; keys begin with "acme/"
}

const letsEncrypt = "https://acme-v02.api.letsencrypt.org/directory"

// retryACME is the pause after an attempt that the library says is not worth repeating. Others it repeats itself, after
// a minute at first and six hours at last.
const retryACME = time.Hour

// acme gets certificates and renews them. The library below starts goroutines when its cache is made, so that is done by
// run.
type acme struct {
	o     ACME
	log   *slog.Logger
	zap   *zap.Logger
	roots *x509.CertPool
	host  string // of Listen
	port  int

	live atomic.Pointer[live] // nil while run does not run

	mu struct {
		sync.Mutex
		failures map[string]failure // by name
	}
}

type live struct {
	config *certmagic.Config
	cache  *certmagic.Cache
}

type failure struct {
	err   string
	since time.Time
}

func newACME(o ACME, log *slog.Logger) (*acme, error) {
	o.Directory = cmp.Or(o.Directory, letsEncrypt)
	o.Challenge = cmp.Or(o.Challenge, "http-01")
	a := &acme{o: o, log: log, zap: zap.New(&zapCore{log: log})}
	a.mu.failures = make(map[string]failure)
	var errs []error
	if o.Store == nil {
		errs = append(errs, errors.New("acme: no store"))
	}
	if len(o.Domains) == 0 {
		errs = append(errs, errors.New("acme: no domains"))
	}
	a.o.Domains = make([]string, len(o.Domains))
	for i, d := range o.Domains {
		rest, wild := strings.CutPrefix(d, "*.")
		name, err := smtp.DomainToASCII(rest)
		if err != nil || wild && o.Challenge != "dns-01" {
			errs = append(errs, fmt.Errorf("acme: %q is no host name that %s can prove", d, o.Challenge))
		}
		if wild {
			name = "*." + name
		}
		a.o.Domains[i] = strings.ToLower(name)
	}
	var err error
	if o.Roots != "" {
		if a.roots, err = loadPool(o.Roots); err != nil {
			errs = append(errs, fmt.Errorf("acme: %w", err))
		}
	}
	switch o.Challenge {
	case "http-01", "tls-alpn-01":
		errs = append(errs, a.parseListen())
	case "dns-01":
		if _, err := o.DNS.Challenger(); err != nil {
			errs = append(errs, fmt.Errorf("acme: %w", err))
		}
	default:
		errs = append(errs, fmt.Errorf("acme: challenge %q is not known", o.Challenge))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return a, nil
}

func (a *acme) parseListen() error {
	listen := cmp.Or(a.o.Listen, map[string]string{"http-01": "[::]:80", "tls-alpn-01": "[::]:443"}[a.o.Challenge])
	host, port, err := net.SplitHostPort(listen)
	if err == nil {
		a.host = host
		a.port, err = strconv.Atoi(port)
	}
	if err != nil || a.port < 1 || a.port > 65535 {
		return fmt.Errorf("acme: listen %q is not an address with a port", listen)
	}
	return nil
}

// run gets what is missing and keeps all fresh until ctx is done.
func (a *acme) run(ctx context.Context) {
	l := &live{}
	l.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return l.config, nil },
		Logger:           a.zap,
	})
	defer l.cache.Stop()
	l.config = certmagic.New(l.cache, certmagic.Config{
		Storage: newStorage(a.o.Store), Logger: a.zap, OnEvent: a.event, DisableStorageCheck: true,
		// Hello of clients that name no host, or one that we do not have.
		DefaultServerName: a.o.Domains[0], FallbackServerName: a.o.Domains[0],
		OCSP: certmagic.OCSPConfig{DisableStapling: true}, // SMTP clients do not look at it
	})
	l.config.Issuers = []certmagic.Issuer{certmagic.NewACMEIssuer(l.config, a.issuer())}
	a.live.Store(l)
	defer a.live.Store(nil)
	var wg sync.WaitGroup
	for _, name := range a.o.Domains {
		wg.Go(func() { a.keep(ctx, l.config, name) })
	}
	wg.Wait()
	<-ctx.Done()
}

func (a *acme) issuer() certmagic.ACMEIssuer {
	issuer := certmagic.ACMEIssuer{
		CA: a.o.Directory, Email: a.o.Email, Agreed: true, TrustedRoots: a.roots, Logger: a.zap,
		ListenHost: a.host, DisableHTTPChallenge: a.o.Challenge != "http-01", DisableTLSALPNChallenge: a.o.Challenge != "tls-alpn-01",
	}
	switch a.o.Challenge {
	case "http-01":
		issuer.AltHTTPPort = a.port
	case "tls-alpn-01":
		issuer.AltTLSALPNPort = a.port
	case "dns-01":
		provider, _ := a.o.DNS.Challenger() // was checked
		solver := &certmagic.DNS01Solver{}
		solver.DNSProvider, solver.Logger = provider, a.zap
		if a.o.DNS.Server != "" {
			solver.Resolvers = []string{a.o.DNS.Server}
		}
		issuer.DNS01Solver = solver
	}
	return issuer
}

// keep gets the certificate of a name, from the store or from the authority. Once it is in the cache the library renews it.
func (a *acme) keep(ctx context.Context, config *certmagic.Config, name string) {
	for ctx.Err() == nil {
		_, err := config.CacheManagedCertificate(ctx, name)
		if errors.Is(err, fs.ErrNotExist) {
			if err = config.ObtainCertAsync(ctx, name); err == nil {
				_, err = config.CacheManagedCertificate(ctx, name)
			}
		}
		if err == nil {
			a.succeeded(name)
			return
		}
		if ctx.Err() != nil {
			return
		}
		a.failed(name, err)
		timer := time.NewTimer(retryACME)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// event follows what the library does by itself.
func (a *acme) event(_ context.Context, event string, data map[string]any) error {
	name, _ := data["identifier"].(string)
	switch event {
	case "cert_obtained":
		a.succeeded(name)
		a.log.Info("certificate obtained", "certificate", name, "renewal", data["renewal"])
	case "cert_failed":
		if err, ok := data["error"].(error); ok {
			a.failed(name, err)
		}
	}
	return nil
}

func (a *acme) succeeded(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.mu.failures, name)
}

func (a *acme) failed(name string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f, there := a.mu.failures[name]
	if !there {
		f.since = time.Now()
	}
	f.err = err.Error()
	a.mu.failures[name] = f
	a.log.Error("certificate could not be obtained", "certificate", name, "authority", a.o.Directory, "error", f.err)
}

// certificate chooses for a handshake.
func (a *acme) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	l := a.live.Load()
	if l == nil {
		return nil, errors.New("acme: not running")
	}
	return l.config.GetCertificate(hello)
}

// held is a certificate in use.
type held struct {
	name    string
	expires time.Time
}

func (a *acme) certificates() []held {
	l := a.live.Load()
	if l == nil {
		return nil
	}
	var list []held
	for _, name := range a.o.Domains {
		for _, c := range l.cache.AllMatchingCertificates(name) {
			if c.Leaf != nil && c.Leaf.VerifyHostname(strings.Replace(name, "*.", "x.", 1)) == nil {
				list = append(list, held{name, c.Leaf.NotAfter})
				break
			}
		}
	}
	return list
}

func (a *acme) findings() []Finding {
	in := make(map[string]time.Time)
	var list []Finding
	for _, c := range a.certificates() {
		in[c.name] = c.expires
		list = append(list, expiry(c.name, c.expires, "see why it is not renewed: "+a.advice())...)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, name := range a.o.Domains {
		if f, ok := a.mu.failures[name]; ok {
			end, has := in[name]
			list = append(list, Finding{
				Certificate: name, Problem: "certificate could not be obtained: " + f.err, Advice: a.advice(), Since: f.since, Expires: end, Grave: !has,
			})
		}
	}
	return list
}

func (a *acme) advice() string {
	switch a.o.Challenge {
	case "dns-01":
		return "check the DNS provider's settings, and that the records can be seen from outside"
	case "tls-alpn-01":
		return "check that port 443 of each name leads to " + net.JoinHostPort(a.host, strconv.Itoa(a.port))
	}
	return "check that port 80 of each name leads to " + net.JoinHostPort(a.host, strconv.Itoa(a.port))
}
