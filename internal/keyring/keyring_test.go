package keyring

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/godwit-mta/godwit/internal/seal"
)

// houses says whose domains are: tenant by domain, what is below included.
type houses map[string]string

func (h houses) owner(domain string) string {
	for name := domain; name != ""; {
		if t := h[name]; t != "" {
			return t
		}
		_, name, _ = strings.Cut(name, ".")
	}
	return ""
}

func (h houses) Owns(tenant, domain string) bool { return h.owner(domain) == tenant && tenant != "" }
func (h houses) Owned(domain string) bool        { return h.owner(domain) != "" }

// signing makes keys that sign.
func signing(t *testing.T, k *Keyring, domain, tenant string, a ...Algorithm) []Key {
	t.Helper()
	list, err := k.Create(t.Context(), NewKeys{Domain: domain, Tenant: tenant, Algorithms: a})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range list {
		if d.State != Signing || !d.Signs {
			t.Fatalf("%+v", d)
		}
	}
	return list
}

func domains(t *testing.T, k *Keyring, domain, tenant string) string {
	t.Helper()
	keys, err := k.Keys(domain, tenant)
	if err != nil {
		return err.Error()
	}
	var list []string
	for _, key := range keys {
		list = append(list, key.Domain+" "+key.Algorithm())
	}
	return strings.Join(list, ", ")
}

// TestWhoseKeys holds that nobody's mail is signed by another tenant's domain.
func TestWhoseKeys(t *testing.T) { // not parallel: it counts allocations
	z := newZone(0)
	k, err := New(Options{
		Store: openStore(t), Dir: t.TempDir(), Resolvers: z.servers(), Publisher: z,
		Owners:   houses{"shop.example": "shop", "bank.example": "bank", "two.host.example": "bank"},
		Settings: Settings{Operator: "operator.example", Algorithms: []Algorithm{Ed25519}},
	})
	if err != nil {
		t.Fatal(err)
	}
	signing(t, k, "operator.example", "")
	signing(t, k, "shop.example", "shop")
	signing(t, k, "bank.example", "")
	signing(t, k, "host.example", "")
	signing(t, k, "mail.bank.example", "bank")
	const operator = "operator.example ed25519-sha256"
	for _, tt := range []struct{ domain, tenant, want string }{
		{"shop.example", "shop", "shop.example ed25519-sha256, " + operator},
		{"a.b.shop.example", "shop", "shop.example ed25519-sha256, " + operator},
		{"shop.example", "bank", operator},                                   // another tenant's domain
		{"shop.example", "other", operator},                                  // the same
		{"shop.example", "", operator},                                       // its key is not the operator's
		{"bank.example", "bank", "bank.example ed25519-sha256, " + operator}, // the operator's key for a tenant's domain
		{"bank.example", "shop", operator},
		{"mail.bank.example", "bank", "mail.bank.example ed25519-sha256, " + operator},
		{"x.mail.bank.example", "bank", "mail.bank.example ed25519-sha256, " + operator}, // the nearest
		{"host.example", "shop", "host.example ed25519-sha256, " + operator},             // nobody's: the operator's
		{"one.host.example", "shop", "host.example ed25519-sha256, " + operator},
		{"two.host.example", "bank", "host.example ed25519-sha256, " + operator}, // the tenant's own, below the operator's
		{"two.host.example", "shop", operator},                                   // a tenant's, though the key above is the operator's
		{"host.example", "", "host.example ed25519-sha256, " + operator},         // the server's own mail
		{"operator.example", "shop", operator},                                   // once, not twice
		{"example", "shop", operator},
		{"nobody.test", "shop", operator},
		{"", "shop", operator},
	} {
		if got := domains(t, k, tt.domain, tt.tenant); got != tt.want {
			t.Errorf("%s of %s: %s, want %s", tt.domain, tt.tenant, got, tt.want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = k.Keys("a.b.shop.example", "shop") }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestRequired holds which mail may not go unsigned.
func TestRequired(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		z := newZone(0)
		k := running(t, Options{
			Store: openStore(t), Dir: t.TempDir(), Resolvers: z.servers(), Publisher: z,
			Settings: Settings{Required: true, Algorithms: []Algorithm{Ed25519}},
		})
		if _, err := k.Keys("example.com", "shop"); !errors.Is(err, ErrNone) {
			t.Errorf("%v", err)
		}
		made := signing(t, k, "example.com", "")
		if got := domains(t, k, "example.com", "shop"); got != "example.com ed25519-sha256" {
			t.Error(got)
		}
		_ = z.RemoveTXT(t.Context(), made[0].Record.Name)
		z.mu.Lock()
		z.broken = errors.New("the name server is broken")
		z.mu.Unlock()
		if _, err := k.Check(t.Context(), "example.com", ""); err != nil {
			t.Fatal(err)
		}
		if got := domains(t, k, "example.com", "shop"); got != "example.com ed25519-sha256" {
			t.Errorf("one answer stopped it: %s", got)
		}
		time.Sleep(time.Minute)
		if _, err := k.Keys("example.com", "shop"); !errors.Is(err, ErrHeld) {
			t.Errorf("%v", err)
		}
		f := k.Findings()
		if len(f) == 0 || !f[0].Grave || !strings.Contains(f[0].Problem, "not taken") {
			t.Errorf("%+v", f)
		}
	})
}

// TestRecordGone: no answer changes nothing; a record that is gone stops its key, and the other one, or an older one, goes on.
func TestRecordGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		z := newZone(0, 0)
		var log bytes.Buffer
		k := running(t, Options{
			Store: openStore(t), Dir: t.TempDir(), Resolvers: z.servers(), Times: Times{Poll: time.Minute},
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
		})
		put := func(list []Key) {
			for _, d := range list {
				_ = z.SetTXT(t.Context(), d.Record.Name, d.Record.Text)
			}
		}
		old, err := k.Create(t.Context(), NewKeys{Domain: "example.com"})
		if err != nil {
			t.Fatal(err)
		}
		put(old)
		time.Sleep(2 * time.Minute)
		mail(t, k, z.servers())

		z.set(true, 0) // a week without DNS
		z.set(true, 1)
		time.Sleep(7 * day)
		if got := domains(t, k, "example.com", ""); got != "example.com rsa-sha256, example.com ed25519-sha256" {
			t.Fatal(got)
		}
		if f := k.Findings(); len(f) != 2 || f[0].Grave || !strings.Contains(f[0].Problem, "could not be looked at") {
			t.Errorf("%+v", f)
		}
		z.set(false, 0)
		z.set(false, 1)
		time.Sleep(10 * time.Minute)
		if f := k.Findings(); len(f) != 0 {
			t.Errorf("%+v", f)
		}

		// New keys take over; then the record of one is lost, and the older one, whose record is there still, steps in.
		fresh, err := k.Rotate(t.Context(), "example.com", "")
		if err != nil || len(fresh) != 2 {
			t.Fatalf("%+v %v", fresh, err)
		}
		if again, err := k.Rotate(t.Context(), "example.com", ""); err != nil || len(again) != 2 || again[0].Selector != fresh[0].Selector {
			t.Errorf("asked twice: %+v %v", again, err)
		}
		put(fresh)
		time.Sleep(2 * time.Hour)
		mail(t, k, z.servers())
		show := func(d Key) Key {
			now, err := k.Show(d.Domain, d.Selector)
			if err != nil {
				t.Fatal(err)
			}
			return now
		}
		if a, b := show(old[0]), show(fresh[0]); a.State != Retiring || b.State != Signing {
			t.Fatalf("%s %s", a.State, b.State)
		}
		_ = z.RemoveTXT(t.Context(), fresh[0].Record.Name)
		time.Sleep(25 * time.Hour)
		if a := show(old[0]); !a.Signs || !a.Instead || a.State != Retiring {
			t.Errorf("%+v", a)
		}
		mail(t, k, z.servers())
		f := k.Findings()
		if len(f) != 1 || f[0].Grave || f[0].Selector != fresh[0].Selector || !strings.Contains(f[0].Advice, "godwit dkim records example.com") {
			t.Errorf("%+v", f)
		}
		time.Sleep(20 * day) // while it steps in it does not come to its end
		mail(t, k, z.servers())
		put(fresh[:1])
		time.Sleep(time.Hour)
		if a := show(fresh[0]); !a.Signs || show(old[0]).Signs {
			t.Errorf("%+v", a)
		}

		// A record that became another one's stops its key as well. Both ways are in the log.
		_ = z.SetTXT(t.Context(), fresh[1].Record.Name, old[0].Record.Text)
		time.Sleep(25 * time.Hour)
		if a := show(fresh[1]); a.Signs || !strings.Contains(a.Problem, "another key") {
			t.Errorf("%+v", a)
		}
		for _, line := range []string{"DNS does not show the record of a key any more", "DNS shows the record of a key again"} {
			if !strings.Contains(log.String(), line) {
				t.Errorf("the log does not say %q", line)
			}
		}
		if strings.Contains(log.String(), "PRIVATE") {
			t.Error("the log has a private key")
		}
	})
}

// TestUnchecked: with Unchecked keys sign although nothing shows their record.
func TestUnchecked(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "key.pem")
	writeKey(t, file, newEd25519(t))
	for _, unchecked := range []bool{false, true} {
		k, err := New(Options{Store: openStore(t), Settings: Settings{
			Unchecked: unchecked, Static: []StaticKey{{Domain: "example.com", Selector: "s", File: file}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		want := map[bool]string{true: "example.com ed25519-sha256"}[unchecked]
		if got := domains(t, k, "example.com", ""); got != want {
			t.Errorf("unchecked %v: %s", unchecked, got)
		}
		if f := k.Findings(); len(f) != 1 || f[0].Grave == unchecked {
			t.Errorf("%+v", f)
		}
	}
}

func newEd25519(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func writeKey(t *testing.T, file string, key any) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestStatic: of several keys of the configuration the first one signs whose record is there, what DNS said outlives a restart,
// and a reload takes over.
func TestStatic(t *testing.T) {
	t.Parallel()
	dir, s, z := t.TempDir(), openStore(t), newZone(0)
	var static []StaticKey
	for _, selector := range []string{"new", "old"} {
		file := filepath.Join(dir, selector)
		writeKey(t, file, newEd25519(t))
		static = append(static, StaticKey{Domain: "example.com", Selector: selector, File: file})
	}
	o := Options{Store: s, Resolvers: z.servers(), Settings: Settings{Static: static}}
	k, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	selector := func() string {
		keys, _ := k.Keys("example.com", "")
		if len(keys) == 0 {
			return ""
		}
		return keys[0].Selector
	}
	publish := func(name string) {
		d, err := k.Show("example.com", name)
		if err != nil {
			t.Fatal(err)
		}
		_ = z.SetTXT(t.Context(), d.Record.Name, d.Record.Text)
	}
	if selector() != "" {
		t.Error("one signs that nobody looked at")
	}
	publish("old")
	k.Prepare(t.Context())
	if got := selector(); got != "old" {
		t.Errorf("%q signs", got)
	}
	publish("new")
	if _, err := k.Check(t.Context(), "example.com", "new"); err != nil {
		t.Fatal(err)
	}
	if got := selector(); got != "new" {
		t.Errorf("%q signs", got)
	}
	if k, err = New(o); err != nil { // a restart asks nobody
		t.Fatal(err)
	}
	if got := selector(); got != "new" {
		t.Errorf("%q signs after a restart", got)
	}
	for _, do := range []func() error{
		func() error { _, err := k.Retire(t.Context(), "example.com", "new", true); return err },
		func() error { _, err := k.Revoke(t.Context(), "example.com", "new"); return err },
	} {
		var input *InputError
		if err := do(); !errors.As(err, &input) || !strings.Contains(err.Error(), "stands in the configuration") {
			t.Errorf("%v", err)
		}
	}
	if err := k.SetSettings(Settings{Static: static[1:]}); err != nil {
		t.Fatal(err)
	}
	if got := selector(); got != "old" {
		t.Errorf("%q signs after a reload", got)
	}
	if err := k.SetSettings(Settings{Static: []StaticKey{{Domain: "example.com", Selector: "x", File: filepath.Join(dir, "none")}}}); err == nil {
		t.Error("a file that is not there was taken")
	}
	if got := selector(); got != "old" {
		t.Errorf("%q signs after a reload that failed", got)
	}
	again := Imported{Domain: "example.com", Selector: "old", Private: []byte("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")}
	if _, err := k.Import(t.Context(), again); !errors.Is(err, ErrExists) {
		t.Errorf("%v", err)
	}
}

// TestPrivateKeys: sealed in the store, or in a file for the server alone; from a file into the store when encryption is turned
// on; gone when the key is revoked.
func TestPrivateKeys(t *testing.T) {
	t.Parallel()
	s, z, dir := openStore(t), newZone(0), t.TempDir()
	masters, err := seal.ParseMasters([]byte(seal.NewMaster()))
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := seal.Open(seal.Options{Dir: t.TempDir(), Masters: masters, Seal: true})
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Store: s, Dir: dir, Resolvers: z.servers(), Publisher: z, Registerer: prometheus.NewRegistry()}
	k, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	made := signing(t, k, "example.com", "")
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	if len(files) != 2 {
		t.Fatalf("%v", files)
	}
	for _, f := range files {
		if i, err := os.Stat(f); err != nil || i.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", f, i.Mode(), err)
		}
	}
	o.Sealer, o.Registerer = sealer, nil
	if k, err = New(o); err != nil {
		t.Fatal(err)
	}
	k.tidy(t.Context())
	if files, _ := filepath.Glob(filepath.Join(dir, "*")); len(files) != 0 {
		t.Errorf("%v", files)
	}
	mail(t, k, z.servers())
	if k, err = New(o); err != nil {
		t.Fatal(err)
	}
	mail(t, k, z.servers())
	for key, kv := range s.pairs {
		if bytes.Contains(kv.Value, []byte("PRIVATE")) || strings.HasPrefix(key, prefix) && !bytes.Contains(kv.Value, []byte(`"sealed"`)) {
			t.Errorf("%s: %s", key, kv.Value)
		}
	}
	o.Sealer = nil // without the master key nothing signs, and somebody is told
	if k, err = New(o); err != nil {
		t.Fatal(err)
	}
	if got := domains(t, k, "example.com", ""); got != "" {
		t.Error(got)
	}
	if f := k.Findings(); len(f) != 2 || !f[0].Grave || !strings.Contains(f[0].Problem, "no master key") {
		t.Errorf("%+v", f)
	}
	o.Sealer = sealer
	if k, err = New(o); err != nil {
		t.Fatal(err)
	}
	d, err := k.Revoke(t.Context(), "example.com", made[0].Selector)
	if err != nil || d.State != Revoked || d.Place != "" || d.Signs {
		t.Errorf("%+v %v", d, err)
	}
	if kv := s.pairs[prefix+"example.com/"+made[0].Selector]; bytes.Contains(kv.Value, []byte(`"sealed"`)) {
		t.Error("the private key of a revoked key is still there")
	}
	if _, err := k.Activate(t.Context(), "example.com", made[0].Selector, true); err == nil {
		t.Error("a revoked key was activated")
	}
}

func TestParsePrivate(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	pkcs1 := block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))
	weak := block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(small))
	for _, tt := range []struct{ name, text, problem string }{
		{"rsa", pkcs1, ""},
		{"ed25519 as dkimpy has it", "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=\n", ""},
		{"nothing", "", "neither PEM nor"},
		{"a certificate", block("CERTIFICATE", []byte("secret")), "no private key in PEM"},
		{"with a password", block("ENCRYPTED PRIVATE KEY", []byte("secret")), "protected by a password"},
		{"too small", weak, "1024 bits"},
	} {
		k, err := New(Options{Store: openStore(t), Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		_, err = k.Import(t.Context(), Imported{Domain: "example.com", Selector: "s", Private: []byte(tt.text)})
		switch {
		case tt.problem == "" && err != nil, tt.problem != "" && (err == nil || !strings.Contains(err.Error(), tt.problem)):
			t.Errorf("%s: %v", tt.name, err)
		case err != nil && strings.Contains(err.Error(), "secret"):
			t.Errorf("%s: the error tells what was read: %v", tt.name, err)
		}
	}
}

func FuzzParsePrivate(f *testing.F) {
	f.Add([]byte("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		key, err := ParsePrivate(text)
		if (key == nil) == (err == nil) {
			t.Fatalf("%v %v", key, err)
		}
		if err == nil {
			_, _, _, _ = public(key.Public())
		}
	})
}

func BenchmarkKeys(b *testing.B) {
	z := newZone(0)
	k, err := New(Options{
		Store: openStore(b), Dir: b.TempDir(), Resolvers: z.servers(), Publisher: z, Owners: houses{"shop.example": "shop"},
		Settings: Settings{Operator: "operator.example", Algorithms: []Algorithm{Ed25519}},
	})
	if err != nil {
		b.Fatal(err)
	}
	for domain, tenant := range map[string]string{"operator.example": "", "shop.example": "shop"} {
		if _, err := k.Create(b.Context(), NewKeys{Domain: domain, Tenant: tenant}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if keys, err := k.Keys("news.shop.example", "shop"); err != nil || len(keys) != 2 {
			b.Fatal(keys, err)
		}
	}
}
