package httpapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/internal/httpapi"
	ring "github.com/godwit-mta/godwit/internal/keyring"
	"github.com/godwit-mta/godwit/internal/store"
)

// records is a DNS of TXT records that the keyring writes and reads.
type records map[string]string

func (r records) Covers(name string) bool { return !strings.HasSuffix(name, "acme.example") }
func (r records) SetTXT(_ context.Context, name, text string) error {
	if strings.HasSuffix(name, "broken.example") {
		return fmt.Errorf("dns response error code REFUSED")
	}
	r[name] = text
	return nil
}
func (r records) RemoveTXT(_ context.Context, name string) error { delete(r, name); return nil }
func (r records) TXT(_ context.Context, name string) ([]string, error) {
	if r[name] == "" {
		return nil, nil
	}
	return []string{r[name]}, nil
}

// newKeys puts a keyring behind an office: acme and other have keys, and so has the operator.
func newKeys(t *testing.T) (*office, *ring.Keyring) {
	t.Helper()
	o := newOffice(t)
	s, err := store.Open(store.Options{Dir: "keys", FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	dns := records{}
	k, err := ring.New(ring.Options{
		Store: s, Dir: t.TempDir(), Owners: o.directory, Resolvers: []ring.Viewpoint{{Name: "all", Resolver: dns}}, Publisher: dns,
		Settings: ring.Settings{Algorithms: []ring.Algorithm{ring.Ed25519}},
	})
	if err != nil {
		t.Fatal(err)
	}
	o.handler = httpapi.New(httpapi.Options{Server: &world{ledger: o.ledger}, Auditor: o.ledger, Keys: keyring{}, Directory: o.directory, DKIM: k})
	o.must("admin", "POST", "/v1/dkim", `{"domain":"acme.example","tenant":"acme","selector":"s"}`)
	o.must("admin", "POST", "/v1/dkim", `{"domain":"other.example","tenant":"other","selector":"s"}`)
	o.must("admin", "POST", "/v1/dkim", `{"domain":"operator.example","selector":"s"}`)
	return o, k
}

// TestTenantsDoNotReachOthersKeys is H-IDOR for keys: for each route, with each role, the keys of another tenant and those of
// the operator are not there, are not changed, and are not on record as changed.
func TestTenantsDoNotReachOthersKeys(t *testing.T) {
	t.Parallel()
	o, k := newKeys(t)
	state := func() string {
		list, err := k.List("", nil)
		return fmt.Sprint(list, err)
	}
	before, acts := state(), len(o.ledger.acts)
	n := 0
	for _, r := range httpapi.Routes(httpapi.Options{DKIM: k}) {
		method, path, _ := strings.Cut(r.Pattern, " ")
		if !strings.HasPrefix(path, "/v1/dkim") {
			continue
		}
		for _, domain := range []string{"other.example", "operator.example"} {
			for _, role := range []string{"viewer", "operator", "admin"} {
				body := "{}"
				switch path {
				case "/v1/dkim":
					body = `{"domain":"` + domain + `"}`
				case "/v1/dkim/import":
					body = `{"domain":"` + domain + `","selector":"x","private_key":"nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="}`
				}
				status, text := o.ask(role+"@acme", method, strings.NewReplacer("{domain}", domain, "{selector}", "s").Replace(path), body)
				n++
				if method == "GET" && path == "/v1/dkim" {
					if status != http.StatusOK || strings.Contains(text, domain) || !strings.Contains(text, "acme.example") {
						t.Errorf("%s as %s: %d %s", r.Pattern, role, status, text)
					}
					continue
				}
				if path == "/v1/dkim/{domain}/rotation" && role == "admin" { // on record, and in vain: its own key is not of that domain
					acts++
				}
				if status < 400 {
					t.Errorf("%s of %s as %s: %d %s", r.Pattern, domain, role, status, text)
				}
			}
		}
	}
	if n < 50 {
		t.Errorf("only %d requests", n)
	}
	if after := state(); after != before || len(o.ledger.acts) != acts {
		t.Errorf("something was done: %d records more\n%s\n%s", len(o.ledger.acts)-acts, before, after)
	}
}

func TestDKIM(t *testing.T) {
	t.Parallel()
	o, _ := newKeys(t)
	// A tenant keeps its own keys; nobody publishes for it.
	var key api.DKIMKey
	if err := json.Unmarshal([]byte(o.must("viewer@acme", "GET", "/v1/dkim/acme.example/s", "")), &key); err != nil {
		t.Fatal(err)
	}
	if key.State != "created" || key.Task.Act != "put" || key.Task.Automatic || key.Record.Name != "s._domainkey.acme.example" || key.Tenant != "acme" {
		t.Errorf("%+v", key)
	}
	if text := o.must("admin", "GET", "/v1/dkim/operator.example/s", ""); !strings.Contains(text, `"state":"signing"`) ||
		!strings.Contains(text, `"automatic":true`) {
		t.Error(text)
	}
	for _, c := range []struct {
		key, method, path, body string
		status                  int
		says                    string
	}{
		{"viewer@acme", "POST", "/v1/dkim/acme.example/check", "{}", 403, "needs the role operator"},
		{"operator@acme", "POST", "/v1/dkim/acme.example/check", `{}`, 200, "there is no record"},
		{"operator@acme", "POST", "/v1/dkim/acme.example/check", `{"selector":"none"}`, 404, "no DKIM key none of acme.example"},
		{"operator", "POST", "/v1/dkim/acme.example/rotation", `{}`, 403, "needs the role admin"},
		{"admin@acme", "POST", "/v1/dkim/acme.example/publication", `{}`, 422, "nothing is configured to publish"},
		{"admin@acme", "POST", "/v1/dkim/acme.example/s/activation", `{}`, 422, "not all resolvers see"},
		{"admin@acme", "POST", "/v1/dkim/acme.example/s/retirement", `{}`, 422, "has never signed"},
		{"admin", "POST", "/v1/dkim", `{"domain":"operator.example"}`, 409, "has DKIM keys already"},
		{"admin", "POST", "/v1/dkim", `{"domain":"other.example","tenant":"acme"}`, 422, "is not tenant acme's"},
		{"admin", "POST", "/v1/dkim", `{"domain":"x.example","algorithms":["dsa"]}`, 422, "is not one of"},
		{"admin", "POST", "/v1/dkim", `{"domain":"x"}`, 422, "is no domain"},
		{"admin", "POST", "/v1/dkim", `{"domain":"broken.example"}`, 200, "code REFUSED"},
		{"admin", "POST", "/v1/dkim/broken.example/publication", `{}`, 502, "code REFUSED"},
		{"admin", "POST", "/v1/dkim/operator.example/s/retirement", `{}`, 422, "the last key that signs"},
		{"admin", "POST", "/v1/dkim/operator.example/rotation", `{}`, 200, `"state":"verified"`},
		{"admin", "POST", "/v1/dkim/operator.example/publication", `{"selector":"s"}`, 200, `"signs":true`},
		{"admin", "POST", "/v1/dkim/operator.example/s/revocation", `{}`, 200, `"state":"revoked"`},
		{"admin", "POST", "/v1/dkim/import", `{"domain":"in.example","selector":"s","private_key":"nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="}`, 200,
			"11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="},
		{"admin", "POST", "/v1/dkim/import", `{"domain":"in.example","selector":"t","private_key":"canary"}`, 422, "no private key"},
	} {
		status, text := o.ask(c.key, c.method, c.path, c.body)
		if status != c.status || !strings.Contains(text, c.says) {
			t.Errorf("%s %s %s as %s: %d %s", c.method, c.path, c.body, c.key, status, text)
		}
	}
	for _, v := range []any{o.ledger.acts, o.ledger.ends} {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{"nWGxne", "canary", "PRIVATE"} {
			if strings.Contains(string(text), secret) {
				t.Errorf("%s is on record", secret)
			}
		}
	}
	last := o.ledger.acts[len(o.ledger.acts)-1]
	if last.Action != "dkim.import" || last.Target != "in.example" || last.Actor != "key admin" {
		t.Errorf("%+v", last)
	}
}
