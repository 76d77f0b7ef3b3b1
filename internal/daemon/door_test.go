package daemon_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/netip"
	"net/smtp"
	"net/textproto"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/internal/certs"
	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/daemon/daemontest"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// doorWorld is a world with a listener that applications log in to over TLS, and a configuration that can be loaded again.
type doorWorld struct {
	*daemontest.World
	t        *testing.T
	password string

	mu  sync.Mutex
	cfg *config.Config
}

func newDoorWorld(t *testing.T, change func(*config.Config)) *doorWorld {
	t.Helper()
	d := &doorWorld{t: t}
	d.World = daemontest.New(t, daemontest.Options{
		Zones: "ok.test. IN MX 10 mx.ok.test.\nmx.ok.test. IN A 127.0.2.1\n",
		Config: func(c *config.Config) {
			c.TLS.Certificates = []config.Certificate{{Name: "main", Certificate: filepath.Join(c.DataDir, "cert.pem"), Key: filepath.Join(c.DataDir, "key.pem")}}
			l := config.DefaultListener()
			l.Name, l.Address, l.TLS, l.Auth, l.Limits = "submission", "127.0.0.1:0", "starttls", "required", c.Limits
			c.Listeners = append(c.Listeners, l)
			c.Tenants = []config.Tenant{{ID: "shop", Domains: []string{"shop.example"}}}
			if change != nil {
				change(c)
			}
			d.cfg = c
		},
		Load: func() (*config.Config, error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			return d.cfg, nil
		},
	})
	d.writePair("mail.example")
	d.Host("127.0.2.1", smtptest.Script{})
	d.Start()
	made, err := d.Client().CreateCredential(t.Context(), api.NewCredential{Tenant: "shop", Login: "app", Kind: "password", Scopes: []string{"smtp"}})
	if err != nil {
		t.Fatal(err)
	}
	d.password = made.Secret
	return d
}

func (d *doorWorld) writePair(host string) {
	d.t.Helper()
	cert, key, err := certs.SelfSigned([]string{host}, time.Hour)
	if err != nil {
		d.t.Fatal(err)
	}
	for name, p := range map[string][]byte{"cert.pem": cert, "key.pem": key} {
		if err := os.WriteFile(filepath.Join(d.Dir, name), p, 0o600); err != nil {
			d.t.Fatal(err)
		}
	}
}

// reload changes a copy of the configuration and has the server take it.
func (d *doorWorld) reload(change func(*config.Config)) error {
	d.mu.Lock()
	next := *d.cfg
	next.Listeners = append([]config.Listener(nil), d.cfg.Listeners...)
	next.Tenants = append([]config.Tenant(nil), d.cfg.Tenants...)
	change(&next)
	d.cfg = &next
	d.mu.Unlock()
	_, err := d.Client().Reload(d.t.Context())
	return err
}

// dial opens a session at a listener, secured and logged in if it is the submission one.
func (d *doorWorld) dial(listener string) *smtp.Client {
	d.t.Helper()
	s, err := d.Client().Status(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	c, err := smtp.Dial(s.Listeners[listener])
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	if listener == "submission" {
		if err := c.StartTLS(&tls.Config{InsecureSkipVerify: true, ServerName: "mail.example"}); err != nil {
			d.t.Fatal(err)
		}
		if err := c.Auth(smtp.PlainAuth("", "app", d.password, "127.0.0.1")); err != nil {
			d.t.Fatal(err)
		}
	}
	return c
}

func send(c *smtp.Client, from, header string) error {
	if err := c.Mail(from); err != nil {
		return err
	}
	if err := c.Rcpt("you@ok.test"); err != nil {
		_ = c.Reset() // the refusal is what counts
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write([]byte(header + "\r\n\r\nhi\r\n")); err != nil {
		return err
	}
	return w.Close()
}

// saidNo reports a refusal with a code and words that begin so.
func saidNo(err error, code, words string) bool {
	var e *textproto.Error
	return errors.As(err, &e) && strconv.Itoa(e.Code) == code && strings.HasPrefix(e.Msg, words)
}

func leaf(t *testing.T, c *smtp.Client) *x509.Certificate {
	t.Helper()
	state, ok := c.TLSConnectionState()
	if !ok {
		t.Fatal("no TLS")
	}
	return state.PeerCertificates[0]
}

// TestSubmission is the whole road of an application: STARTTLS, a login, a message that is its tenant's, delivered.
func TestSubmission(t *testing.T) {
	t.Parallel()
	d := newDoorWorld(t, nil)
	c := d.dial("submission")
	if err := send(c, "a@bank.example", "From: a@shop.example"); !saidNo(err, "550", "5.7.1 Sender refused") {
		t.Errorf("a foreign sender: %v", err)
	}
	if err := send(c, "a@shop.example", "From: a@shop.example\r\nBcc: secret@ok.test"); err != nil {
		t.Fatal(err)
	}
	d.WaitEmpty()
	got := d.Received()
	if len(got) != 1 {
		t.Fatalf("%d messages arrived", len(got))
	}
	text := string(got[0].Body)
	if !strings.Contains(text, "with UTF8SMTPSA id") || strings.Contains(text, "secret@") || !strings.Contains(text, "\r\nMessage-ID: <") {
		t.Errorf("%q", text)
	}
	for _, e := range d.Events() {
		if e.Tenant != "shop" {
			t.Errorf("event of tenant %q: %+v", e.Tenant, e)
		}
	}
	list, err := d.Client().Limits(t.Context(), api.LimitQuery{Holder: "tenant", Name: "shop", All: true})
	if err != nil || len(list.Limits) != 9 || list.Limits[0].Used != 1 {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestReloadDropsNobody: certificates, policy, networks and limits change under a session that goes on.
func TestReloadDropsNobody(t *testing.T) {
	t.Parallel()
	d := newDoorWorld(t, nil)
	open, relay := d.dial("submission"), d.dial("app")
	before := leaf(t, open)
	if err := send(open, "a@shop.example", "From: a@shop.example"); err != nil {
		t.Fatal(err)
	}
	d.writePair("new.example")
	err := d.reload(func(c *config.Config) {
		c.Listeners[0].TrustedNetworks = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
		c.Listeners[1].DenyNetworks = []netip.Prefix{netip.MustParsePrefix("127.9.0.0/16")}
		c.Tenants[0].Domains = []string{"shop.example", "new.example"}
		c.Tenants[0].Quota.MessagesPerHour = 2
	})
	if err != nil {
		t.Fatal(err)
	}
	// The sessions are still there, and follow what is new.
	if err := send(relay, "a@any.example", "From: a@any.example"); !saidNo(err, "550", "5.7.1 Relaying denied") {
		t.Errorf("no longer trusted: %v", err)
	}
	if err := send(open, "a@new.example", "From: a@new.example"); err != nil {
		t.Errorf("a domain of today: %v", err)
	}
	if err := send(open, "a@shop.example", "From: a@shop.example"); !saidNo(err, "451", "4.7.1 Limit reached: the messages of this tenant in one hour") {
		t.Errorf("the third message: %v", err)
	}
	if after := leaf(t, d.dial("submission")); after.DNSNames[0] != "new.example" || before.DNSNames[0] != "mail.example" {
		t.Errorf("certificate for %v, before for %v", after.DNSNames, before.DNSNames)
	}

	// A pair that is broken leaves the old one, and a person is told.
	if err := os.WriteFile(filepath.Join(d.Dir, "cert.pem"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.reload(func(c *config.Config) { c.Tenants[0].Quota.MessagesPerHour = 3 }); err != nil {
		t.Errorf("a broken certificate hinders a reload: %v", err)
	}
	if after := leaf(t, d.dial("submission")); after.DNSNames[0] != "new.example" {
		t.Errorf("certificate for %v", after.DNSNames)
	}
	list, err := d.Client().Findings(t.Context())
	if err != nil || len(list.Findings) == 0 || list.Findings[0].Subject != "certificate" {
		t.Errorf("findings %+v, %v", list, err)
	}
	if err := send(open, "a@shop.example", "From: a@shop.example"); err != nil {
		t.Errorf("after the limit was raised: %v", err)
	}
	d.WaitEmpty()
}

// TestLimitsSurviveARestart: what was sent today counts tomorrow's process too.
func TestLimitsSurviveARestart(t *testing.T) {
	t.Parallel()
	d := newDoorWorld(t, func(c *config.Config) { c.Tenants[0].Quota.MessagesPerDay = 2 })
	c := d.dial("submission")
	for range 2 {
		if err := send(c, "a@shop.example", "From: a@shop.example"); err != nil {
			t.Fatal(err)
		}
	}
	d.WaitEmpty()
	d.Stop()
	d.Start()
	if err := send(d.dial("submission"), "a@shop.example", "From: a@shop.example"); !saidNo(err, "451", "4.7.1 Limit") {
		t.Errorf("after the restart: %v", err)
	}
}

// TestSelfCheck: nobody is told of what the self-check is refused, and the listeners are closed.
func TestSelfCheck(t *testing.T) {
	t.Parallel()
	d := newDoorWorld(t, nil)
	report, err := d.Client().DoctorRelay(t.Context())
	if err != nil || report.Open || len(report.Listeners) != 2 {
		t.Fatalf("%+v, %v", report, err)
	}
	for _, l := range report.Listeners {
		if l.Error != "" || l.Probes < 40 {
			t.Errorf("%+v", l)
		}
	}
	if events := d.Events(); len(events) > 0 {
		t.Errorf("told %+v", events[0])
	}
}
