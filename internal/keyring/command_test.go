package keyring

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestCommand: a program that holds the key signs, and one that does not is found out before its signature leaves.
func TestCommand(t *testing.T) {
	t.Parallel()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is missing, which signs here as any other program would")
	}
	dir, z := t.TempDir(), newZone(0)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	private, public := filepath.Join(dir, "key.pem"), filepath.Join(dir, "public.pem")
	writeKey(t, private, key)
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(public, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	good := []string{openssl, "pkeyutl", "-sign", "-inkey", private, "-pkeyopt", "rsa_padding_mode:pkcs1", "-pkeyopt", "digest:sha256"}
	for _, tt := range []struct {
		name    string
		command []string
		problem string // empty: it signs
	}{
		{"good", good, ""},
		{"nonsense", []string{"/bin/echo", "signed"}, "no signature by this key"},
		{"fails", []string{"/bin/false"}, "exit status 1"},
		{"is not there", []string{"/nowhere/sign"}, "no such file"},
		{"hangs", []string{"/bin/sleep", "60"}, "no signature in 300ms"},
		{"floods", []string{"/usr/bin/yes"}, "/usr/bin/yes: "},
	} {
		timeout := 300 * time.Millisecond
		if tt.problem == "" {
			timeout = 30 * time.Second // the machine may be busy
		}
		k, err := New(Options{Store: openStore(t), Resolvers: z.servers(), Settings: Settings{Static: []StaticKey{{
			Domain: "example.com", Selector: "s", Command: tt.command, Public: public, Timeout: timeout,
		}}}})
		if err != nil {
			t.Fatal(err)
		}
		d, err := k.Show("example.com", "s")
		if err != nil || d.Place != "command" {
			t.Fatalf("%+v %v", d, err)
		}
		_ = z.SetTXT(t.Context(), d.Record.Name, d.Record.Text)
		k.Prepare(t.Context())
		keys, err := k.Keys("example.com", "")
		if err != nil || len(keys) != 1 {
			t.Fatalf("%s: %d keys, %v", tt.name, len(keys), err)
		}
		sig, err := keys[0].SignHash(make([]byte, 32))
		if tt.problem == "" && (err != nil || len(sig) != 256) || tt.problem != "" && (err == nil || !strings.Contains(err.Error(), tt.problem)) {
			t.Errorf("%s: %d octets, %v", tt.name, len(sig), err)
		}
	}
}
