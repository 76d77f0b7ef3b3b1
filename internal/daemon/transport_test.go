package daemon_test

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/daemon/daemontest"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// secureSink is a smart host with a certificate of its own, whose file is returned too.
func secureSink(t *testing.T, o smtptest.SinkOptions) (sink *smtptest.Sink, address, certificate string) {
	t.Helper()
	c, err := smtptest.NewCertificate(smtptest.CertificateOptions{Names: []string{"relay.test"}, CA: true})
	if err != nil {
		t.Fatal(err)
	}
	certificate = filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})
	if err := os.WriteFile(certificate, text, 0o600); err != nil {
		t.Fatal(err)
	}
	o.TLS, o.Keep = &tls.Config{Certificates: []tls.Certificate{c}}, true
	if sink, err = smtptest.NewSink(o); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- sink.Run(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return sink, l.Addr().String(), certificate
}

// TestSmartHost: from the file to the wire: a verified smart host is logged in at, and events say how mail went.
func TestSmartHost(t *testing.T) {
	t.Parallel()
	sink, address, ca := secureSink(t, smtptest.SinkOptions{Users: map[string]string{"app": "a secret"}, RequireTLS: true})
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("a secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := daemontest.New(t, daemontest.Options{Config: func(c *config.Config) {
		c.Routes = []config.Route{{
			Domains: []string{"*"}, Hosts: []string{address}, Protocol: "smtp", TLS: "verified", TLSForm: "auto", TLSName: "relay.test",
			TLSCAFile: ca, Login: config.Login{Username: "app", PasswordFile: password},
		}}
	}})
	w.Start()
	w.Submit("me@app.test", "Subject: x\r\n\r\nhi\r\n", "you@far.test")
	w.WaitEmpty()
	if all := sink.Messages(); len(all) != 1 || all[0].User != "app" || !strings.HasPrefix(all[0].TLS, "TLS 1.3") {
		t.Fatalf("the smart host got %+v", all)
	}
	for _, e := range w.Events() {
		if e.Type == event.Delivered && (!strings.HasPrefix(e.TLS, "TLSv1.3 TLS_") || !strings.HasSuffix(e.TLS, " pkix")) {
			t.Errorf("the event says %q", e.TLS)
		}
	}
}

// TestRoutesAreChecked: a file whose secrets cannot be read does not replace the one that works.
func TestRoutesAreChecked(t *testing.T) {
	t.Parallel()
	var next config.Config
	w := daemontest.New(t, daemontest.Options{Load: func() (*config.Config, error) { return &next, nil }})
	w.Start()
	notPEM := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(notPEM, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*config.Route){
		"login.password_file: open":    func(r *config.Route) { r.Login.PasswordFile = filepath.Join(t.TempDir(), "none") },
		"does not hold one line":       func(r *config.Route) { r.Login.PasswordFile = os.DevNull },
		"GODWIT_NO_SUCH is not set":    func(r *config.Route) { r.Login.PasswordEnv = "GODWIT_NO_SUCH" },
		"tls_ca_file: open":            func(r *config.Route) { r.Login, r.TLSCAFile = config.Login{}, filepath.Join(t.TempDir(), "none") },
		"no certificate in PEM is in ": func(r *config.Route) { r.Login, r.TLSCAFile = config.Login{}, notPEM },
		"sent to hosts alone that are": func(r *config.Route) { r.TLS, r.Login.PasswordFile = "encrypted", notPEM },
		"pinned, and no pins":          func(r *config.Route) { r.TLS, r.Login = "pinned", config.Login{} },
	} {
		r := config.Route{Domains: []string{"*"}, Hosts: []string{"relay.test"}, Protocol: "smtp", TLS: "verified", TLSForm: "auto",
			Login: config.Login{Username: "app"}}
		change(&r)
		next = *w.Config()
		next.Routes = []config.Route{r}
		if _, err := w.Client().Reload(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}
