package httpapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/internal/httpapi"
	"github.com/godwit-mta/godwit/internal/store"
	"github.com/godwit-mta/godwit/internal/submission/auth"
)

// office is a directory with two tenants behind the administrators' interface.
type office struct {
	t         *testing.T
	directory *auth.Directory
	ledger    *ledger
	handler   http.Handler
}

func newOffice(t *testing.T) *office {
	t.Helper()
	s, err := store.Open(store.Options{Dir: "store", FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	o := &office{t: t, ledger: &ledger{}}
	o.directory, err = auth.New(auth.Options{
		Store: s, Hostname: "mta1.example.com", Cost: auth.Cost{MemoryKiB: 64, Passes: 1, Lanes: 1}, ScramIterations: 4096,
		Budgets: auth.Budgets{Account: auth.Budget{Failures: 1, Window: 1 << 40, Ban: 1 << 42, Longest: 1 << 42}},
	})
	if err != nil {
		t.Fatal(err)
	}
	o.handler = httpapi.New(httpapi.Options{
		Server: &world{ledger: o.ledger}, Auditor: o.ledger, Keys: keyring{}, Directory: o.directory,
		Submission: func() []api.SubmissionServer {
			return []api.SubmissionServer{{Listener: "submission", Host: "mta1.example.com", Port: 587, TLS: "starttls", Login: "required"}}
		},
	})
	for _, tenant := range []string{"acme", "other"} {
		o.must("admin", "POST", "/v1/tenants", `{"id":"`+tenant+`"}`)
		o.must("admin", "POST", "/v1/domains", `{"name":"`+tenant+`.example","tenant":"`+tenant+`","assigned":true}`)
		o.must("admin", "POST", "/v1/domains", `{"name":"pending.example","tenant":"`+tenant+`"}`)
		o.must("admin", "POST", "/v1/credentials", `{"tenant":"`+tenant+`","login":"`+tenant+`-app"}`)
	}
	return o
}

func (o *office) ask(key, method, path, body string) (int, string) {
	o.t.Helper()
	w := ask(o.t, o.handler, method, path, body, key)
	return w.Code, w.Body.String()
}

func (o *office) must(key, method, path, body string) string {
	o.t.Helper()
	status, text := o.ask(key, method, path, body)
	if status != 200 {
		o.t.Fatalf("%s %s as %s: %d %s", method, path, key, status, text)
	}
	return text
}

// TestTenantsDoNotReachEachOther is H-IDOR for the directory: for each of its routes, with each role, what belongs to another
// tenant is not there, is not changed, and is not on record as changed.
func TestTenantsDoNotReachEachOther(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	state := func() string {
		return fmt.Sprint(o.directory.Tenants(), o.directory.Domains(""), o.directory.Credentials(auth.CredentialQuery{}))
	}
	before, acts := state(), len(o.ledger.acts)
	id := o.directory.Credentials(auth.CredentialQuery{Tenant: "other"})[0].ID
	n := 0
	for _, r := range httpapi.Routes(httpapi.Options{Directory: o.directory}) {
		method, path, _ := strings.Cut(r.Pattern, " ")
		if !strings.HasPrefix(path, "/v1/tenants") && !strings.HasPrefix(path, "/v1/domains") && !strings.HasPrefix(path, "/v1/credentials") {
			continue
		}
		for _, name := range []string{"other-app", id} {
			for _, role := range []string{"viewer", "operator", "admin"} {
				p := strings.NewReplacer("{tenant}", "other", "{domain}", "other.example", "{credential}", name).Replace(path) + "?tenant=other"
				body := "{}"
				switch {
				case r.Pattern == "POST /v1/domains":
					body = `{"name":"new.example","tenant":"other"}`
				case r.Pattern == "POST /v1/credentials":
					body = `{"login":"new","tenant":"other"}`
				}
				status, text := o.ask(role+"@acme", method, p, body)
				n++
				switch {
				case r.Pattern == "GET /v1/tenants":
					if status != 200 || strings.Contains(text, "other") {
						t.Errorf("%s as %s: %d %s", r.Pattern, role, status, text)
					}
				case status != 404 && status != 403:
					t.Errorf("%s as %s: %d %s", r.Pattern, role, status, text)
				case status == 403 && role == "admin":
					t.Errorf("%s as admin of another tenant: it is said that there is something: %s", r.Pattern, text)
				}
			}
		}
	}
	if n < 60 {
		t.Errorf("only %d questions", n)
	}
	if after := state(); after != before || len(o.ledger.acts) != acts {
		t.Errorf("something was done: %d records\n%s\n%s", len(o.ledger.acts)-acts, before, after)
	}
	// Lists hold one's own only.
	for _, path := range []string{"/v1/tenants", "/v1/domains", "/v1/credentials"} {
		if text := o.must("viewer@acme", "GET", path, ""); strings.Contains(text, "other") || !strings.Contains(text, "acme") {
			t.Errorf("%s: %s", path, text)
		}
	}
}

// TestTenantsAdmin: what the administrator of a tenant can do within it, and cannot give itself.
func TestTenantsAdmin(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/v1/credentials", `{"login":"app2"}`, 200}, // of its own tenant, named or not
		{"PATCH", "/v1/credentials/app2", `{"note":"new"}`, 200},
		{"POST", "/v1/credentials/app2/rotation", `{}`, 200},
		{"DELETE", "/v1/credentials/app2", ``, 200},
		{"POST", "/v1/domains", `{"name":"mine.example"}`, 200},
		{"DELETE", "/v1/domains/mine.example", ``, 200},
		{"POST", "/v1/domains", `{"name":"google.com","assigned":true}`, 403},
		{"POST", "/v1/credentials", `{"login":"app3","senders":["google.com"],"assign_domains":true}`, 403},
		{"POST", "/v1/credentials", `{"login":"app3","senders":["google.com"]}`, 422},
		{"POST", "/v1/credentials", `{"login":"app3","role":"admin","all_tenants":true}`, 403},
		{"PATCH", "/v1/credentials/acme-app", `{"all_tenants":true,"role":"admin"}`, 403},
		{"PATCH", "/v1/credentials/acme-app", `{"senders":["google.com"],"assign_domains":true}`, 403},
		{"POST", "/v1/tenants", `{"id":"new"}`, 404},
		{"PATCH", "/v1/tenants/acme", `{"limits":[]}`, 404},
		{"DELETE", "/v1/tenants/acme", ``, 404},
		{"POST", "/v1/credentials", `{"login":"other-app"}`, 409}, // user names are the server's
	} {
		if status, text := o.ask("admin@acme", c.method, c.path, c.body); status != c.status {
			t.Errorf("%s %s %s: %d %s", c.method, c.path, c.body, status, text)
		}
	}
	// A credential of the operator that happens to be in a tenant is not the tenant's to change.
	o.must("admin", "POST", "/v1/credentials", `{"tenant":"acme","login":"root","kind":"key","scopes":["admin"],"role":"admin","all_tenants":true}`)
	for _, c := range [][2]string{{"PATCH", "/v1/credentials/root"}, {"POST", "/v1/credentials/root/rotation"}, {"DELETE", "/v1/credentials/root"}} {
		if status, text := o.ask("admin@acme", c[0], c[1], "{}"); status != 403 {
			t.Errorf("%v: %d %s", c, status, text)
		}
	}
}

// TestProblemsNameTheField: whatever is wrong with a request is a 422 that says with what.
func TestProblemsNameTheField(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	for _, c := range []struct{ method, path, body, field string }{
		{"POST", "/v1/tenants", `{"id":"No Good"}`, "id"},
		{"POST", "/v1/tenants", `{"id":"x","name":"a\u0000b"}`, "name"},
		{"POST", "/v1/tenants", `{"id":"x","limits":[{"subject":"mails","per":"hour","max":1}]}`, "limits"},
		{"POST", "/v1/tenants", `{"id":"x","limits":[{"subject":"messages","per":"hour","max":0}]}`, "limits"},
		{"DELETE", "/v1/tenants/default", ``, "id"},
		{"POST", "/v1/domains", `{"name":"no domain","tenant":"acme"}`, "name"},
		{"POST", "/v1/domains", `{"name":"x.example"}`, "tenant"},
		{"POST", "/v1/domains", `{"name":"x.example","tenant":"nobody"}`, "tenant"},
		{"POST", "/v1/domains/acme.example/verification", ``, "tenant"},
		{"POST", "/v1/domains/acme.example/verification?tenant=acme", ``, "name"},
		{"POST", "/v1/credentials", `{"login":"x"}`, "tenant"},
		{"POST", "/v1/credentials", `{"tenant":"nobody","login":"x"}`, "tenant"},
		{"POST", "/v1/credentials", `{"tenant":"acme","login":"no good"}`, "login"},
		{"POST", "/v1/credentials", `{"tenant":"acme","login":"x","kind":"token"}`, "kind"},
		{"POST", "/v1/credentials", `{"tenant":"acme","login":"x","password":"password1234"}`, "password"},
		{"POST", "/v1/credentials", `{"tenant":"acme","login":"x","kind":"key","password":"x"}`, "password"},
		{"POST", "/v1/credentials", `{"tenant":"acme","login":"x","scopes":["everything"]}`, "scopes"},
		{"POST", "/v1/credentials", `{"tenant":"acme","login":"x","role":"god"}`, "role"},
		{"POST", "/v1/credentials", `{"tenant":"acme","login":"x","senders":["a b"]}`, "senders"},
		{"POST", "/v1/credentials", `{"tenant":"acme","login":"x","senders":["other.example"]}`, "senders"},
		{"POST", "/v1/credentials", `{"tenant":"acme","login":"x","networks":["everywhere"]}`, "networks"},
		{"POST", "/v1/credentials", `{"tenant":"acme","login":"x","kind":"certificate"}`, "certificate_name"},
		{"POST", "/v1/credentials", `{"tenant":"acme","login":"x","kind":"oauth","issuer":"corp"}`, "issuer"},
		{"PATCH", "/v1/credentials/acme-app", `{"scopes":[]}`, "scopes"},
		{"PATCH", "/v1/credentials/acme-app", `{"expires":"2030-01-01T00:00:00Z","never_expires":true}`, "expires"},
		{"POST", "/v1/credentials/acme-app/rotation", `{"keep_old_for":-1}`, "keep_old_for"},
		{"POST", "/v1/credentials/acme-app/rotation", `{"keep_old_for":99999999999}`, "keep_old_for"},
		{"POST", "/v1/bans/clear", `{}`, "address"},
		{"POST", "/v1/bans/clear", `{"address":"here"}`, "address"},
	} {
		status, text := o.ask("admin", c.method, c.path, c.body)
		var p api.Problem
		if err := json.Unmarshal([]byte(text), &p); err != nil || status != 422 || p.Status != 422 || p.Field != c.field || p.Detail == "" {
			t.Errorf("%s %s %s: %d %s, want field %s", c.method, c.path, c.body, status, text, c.field)
		}
	}
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/v1/credentials", `{"tenant":"acme","login":"acme-app"}`, 409},
		{"POST", "/v1/tenants", `{"id":"acme"}`, 409},
		{"DELETE", "/v1/tenants/acme", ``, 409},
		{"POST", "/v1/domains", `{"name":"acme.example","tenant":"acme","assigned":true}`, 409},
		{"GET", "/v1/credentials/nobody", ``, 404},
		{"DELETE", "/v1/domains/nobody.example?tenant=acme", ``, 404},
		{"POST", "/v1/credentials", `{"tenant":"acme","logn":"x"}`, 400},
		{"POST", "/v1/credentials", `[]`, 400},
	} {
		if status, text := o.ask("admin", c.method, c.path, c.body); status != c.status {
			t.Errorf("%s %s %s: %d %s, want %d", c.method, c.path, c.body, status, text, c.status)
		}
	}
}

// TestSecretsAreShownOnce: in the answer that makes them, and neither in another one nor on record.
func TestSecretsAreShownOnce(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	const own = "vier Zebras trinken Bier"
	var secrets []string
	for _, c := range [][2]string{
		{"/v1/credentials", `{"tenant":"acme","login":"app1"}`},
		{"/v1/credentials", `{"tenant":"acme","login":"key1","kind":"key"}`},
		{"/v1/credentials", `{"tenant":"acme","login":"app2","password":"` + own + `"}`},
		{"/v1/credentials/app1/rotation", `{"keep_old_for":3600}`},
		{"/v1/credentials/app2/rotation", `{"password":"` + own + `!"}`},
		{"/v1/credentials/key1/rotation", `{}`},
	} {
		var made api.CredentialSecret
		text := o.must("admin", "POST", c[0], c[1])
		if err := json.Unmarshal([]byte(text), &made); err != nil || len(made.Servers) != 1 {
			t.Fatal(text, err)
		}
		if strings.Contains(c[1], own) {
			if made.Secret != "" || strings.Contains(text, own) {
				t.Errorf("the caller's own password comes back: %s", text)
			}
			continue
		}
		if len(made.Secret) < 32 {
			t.Errorf("secret %q", made.Secret)
		}
		secrets = append(secrets, made.Secret)
	}
	secrets = append(secrets, own)
	var seen strings.Builder
	for _, path := range []string{"/v1/credentials", "/v1/credentials/app1", "/v1/credentials/key1", "/v1/tenants", "/v1/domains", "/v1/bans"} {
		seen.WriteString(o.must("admin", "GET", path, ""))
	}
	for _, v := range []any{o.ledger.acts, o.ledger.ends} {
		p, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		seen.Write(p)
	}
	for _, s := range secrets {
		if strings.Contains(seen.String(), s) {
			t.Errorf("a secret is seen again: %s", s)
		}
	}
	if strings.Contains(seen.String(), "argon2id") || strings.Contains(seen.String(), "stored_key") {
		t.Error("what secrets are checked by is seen")
	}
	for _, a := range o.ledger.acts {
		if a.Actor == "" || a.Action == "" || a.Target == "" {
			t.Errorf("%+v", a)
		}
	}
}

func TestBans(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	if text := o.must("viewer", "GET", "/v1/bans", ""); text != `{"bans":[]}`+"\n" {
		t.Error(text)
	}
	if text := o.must("operator@acme", "POST", "/v1/bans/clear", `{"all":true}`); text != `{"bans":[]}`+"\n" {
		t.Error(text)
	}
	if status, _ := o.ask("viewer", "POST", "/v1/bans/clear", `{"all":true}`); status != 403 {
		t.Errorf("a viewer lifts bans: %d", status)
	}
}
