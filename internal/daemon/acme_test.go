package daemon

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/godwit-mta/godwit/internal/config"
)

func TestACMEFromFile(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(secret, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	if a, err := acme(cfg, nil); a != nil || err != nil {
		t.Errorf("without domains: %+v, %v", a, err)
	}
	cfg.TLS.ACME.Domains = []string{"mx.example.org"}
	cfg.TLS.ACME.DNSSecretFile = secret
	a, err := acme(cfg, nil)
	if err != nil || a.DNS.Secret != "s3cret" || a.Listen != "[::]:80" || a.Challenge != "http-01" {
		t.Errorf("%+v, %v", a, err)
	}
	cfg.TLS.ACME.Challenge = "tls-alpn-01"
	if a, _ := acme(cfg, nil); a.Listen != "" {
		t.Errorf("tls-alpn-01 on %s", a.Listen)
	}
	cfg.TLS.ACME.DNSSecretFile = secret + "x"
	if _, err := acme(cfg, nil); err == nil {
		t.Error("a secret that is not there")
	}
}
