package httpapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/internal/audit"
	"github.com/godwit-mta/godwit/internal/httpapi"
	"github.com/godwit-mta/godwit/internal/submission/limits"
)

// ledger is an Auditor that keeps what it is told in memory, or refuses.
type ledger struct {
	mu     sync.Mutex
	acts   []audit.Act
	ends   []any
	refuse error
}

func (l *ledger) Append(_ context.Context, a audit.Act) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refuse != nil {
		return l.refuse
	}
	l.acts = append(l.acts, a)
	return nil
}

func (l *ledger) Do(ctx context.Context, a audit.Act, act func(context.Context) (any, error)) error {
	if err := l.Append(ctx, a); err != nil {
		return err
	}
	end, err := act(ctx)
	l.ends = append(l.ends, end)
	return err
}

// world is a server with mail of two tenants.
type world struct {
	httpapi.Server
	ledger  *ledger
	changes int
	tenants []string // that queues were asked of
}

func (w *world) Status() api.Status         { return api.Status{} }
func (w *world) SpoolStats() api.SpoolStats { return api.SpoolStats{} }
func (w *world) Queues(_ context.Context, q api.QueueQuery) (api.QueueList, error) {
	w.tenants = append(w.tenants, q.Tenant)
	return api.QueueList{}, nil
}
func (w *world) Queue(_ context.Context, _, tenant string, _ int) ([]api.QueueDetail, error) {
	w.tenants = append(w.tenants, tenant)
	return []api.QueueDetail{}, nil
}
func (w *world) Message(_ context.Context, id string) (api.Message, error) {
	return api.Message{ID: id, Tenant: strings.TrimSuffix(id, "-mail")}, nil
}
func (w *world) Act(_ context.Context, a api.Action) (api.ActionResult, error) {
	w.changes++
	w.tenants = append(w.tenants, a.Selection.Tenant)
	return api.ActionResult{Changed: 1}, nil
}
func (w *world) Reload(ctx context.Context, by audit.Act) (api.ReloadResult, error) {
	err := w.ledger.Do(ctx, by, func(context.Context) (any, error) { w.changes++; return nil, nil })
	return api.ReloadResult{}, err
}
func (w *world) Audit(context.Context, api.AuditQuery) (api.AuditList, error) {
	return api.AuditList{}, nil
}
func (w *world) VerifyAudit(context.Context) (api.AuditReport, error) { return api.AuditReport{}, nil }
func (w *world) Keys(context.Context) (api.KeyList, error)            { return api.KeyList{}, nil }
func (w *world) RotateKeys(context.Context) (api.KeyList, error) {
	w.changes++
	return api.KeyList{}, nil
}

// healthy is a Doctor with nothing to say.
type healthy struct{}

func (healthy) Relay(context.Context) (api.RelayReport, error) { return api.RelayReport{}, nil }
func (healthy) Findings() []api.Finding                        { return nil }

// keyring knows keys of the form role or role@tenant.
type keyring struct{}

func (keyring) Caller(_ context.Context, key string, client netip.Addr) (httpapi.Caller, error) {
	role, tenant, _ := strings.Cut(key, "@")
	switch role {
	case "viewer", "operator", "admin":
		return httpapi.Caller{Actor: "key " + key, Role: httpapi.Role(role), Tenant: tenant}, nil
	case "broken":
		return httpapi.Caller{}, errors.New("the store is away")
	}
	return httpapi.Caller{}, httpapi.ErrNoCaller
}

// fill makes a request path of a route's pattern.
func fill(pattern, tenant string) (method, path, body string) {
	method, path, _ = strings.Cut(pattern, " ")
	path = strings.NewReplacer("{domain}", "x.test", "{id}", tenant+"-mail", "{tenant}", tenant, "{credential}", tenant+"-app").Replace(path)
	if strings.Contains(path, "{") {
		panic("say what to fill into " + pattern)
	}
	if path == "/v1/actions" {
		body = `{"verb":"retry","selection":{"queue":"x.test"}}`
	}
	return method, path, body
}

func ask(t *testing.T, h http.Handler, method, path, body, key string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	r.RemoteAddr = "192.0.2.7:4711"
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// TestRoles walks over all routes with every role, bound to a tenant and not: H-IDOR, and the table of roles.
func TestRoles(t *testing.T) {
	t.Parallel()
	order := map[httpapi.Role]int{httpapi.Viewer: 1, httpapi.Operator: 2, httpapi.Admin: 3}
	counter, err := limits.New(limits.Options{})
	if err != nil {
		t.Fatal(err)
	}
	o := httpapi.Options{Directory: newOffice(t).directory, Limits: counter, Doctor: healthy{}, Policies: receivers{}, Keys: keyring{}}
	list := httpapi.Routes(o)
	if len(list) < 30 {
		t.Fatalf("%d routes", len(list))
	}
	for _, route := range list {
		if order[route.Role] == 0 {
			t.Errorf("%s has no role", route.Pattern)
		}
		if method, _, _ := strings.Cut(route.Pattern, " "); method != "GET" && route.Role == httpapi.Viewer {
			t.Errorf("%s changes something and needs no more than a viewer", route.Pattern)
		}
		for role := range order {
			for _, tenant := range []string{"", "acme"} {
				want := http.StatusOK
				switch {
				case tenant != "" && !route.Tenants:
					want = http.StatusNotFound
				case order[role] < order[route.Role]:
					want = http.StatusForbidden
				}
				l := &ledger{}
				s := &world{ledger: l}
				o.Server, o.Auditor = s, l
				h := httpapi.New(o)
				method, path, body := fill(route.Pattern, "acme")
				key := strings.TrimSuffix(string(role)+"@"+tenant, "@")
				w := ask(t, h, method, path, body, key)
				switch {
				case slices.Contains([]int{http.StatusUnprocessableEntity, http.StatusBadRequest, http.StatusConflict}, w.Code),
					w.Code == http.StatusNotFound && want == http.StatusOK:
					if want != http.StatusOK {
						t.Errorf("%s as %s: looked at the request before the key: %d %s", route.Pattern, key, w.Code, w.Body)
					}
				case w.Code != want:
					t.Errorf("%s as %s: %d %s, want %d", route.Pattern, key, w.Code, w.Body, want)
				}
				if want != http.StatusOK && s.changes+len(l.acts) > 0 {
					t.Errorf("%s as %s: did something", route.Pattern, key)
				}
				if s.changes > len(l.acts) || w.Code == http.StatusOK && (method == "GET") == (len(l.acts) > 0) {
					t.Errorf("%s as %s: %d changes, %d records", route.Pattern, key, s.changes, len(l.acts))
				}
				for _, a := range l.acts {
					if a.Actor != "key "+key || a.Source != "192.0.2.7" || a.Action == "" {
						t.Errorf("%s: %+v", route.Pattern, a)
					}
				}
				for _, asked := range s.tenants {
					if asked != tenant {
						t.Errorf("%s as %s: asked of tenant %q", route.Pattern, key, asked)
					}
				}
			}
		}
	}
}

// TestOtherTenants: what belongs to another tenant is not there.
func TestOtherTenants(t *testing.T) {
	t.Parallel()
	l := &ledger{}
	s := &world{ledger: l}
	h := httpapi.New(httpapi.Options{Server: s, Auditor: l, Keys: keyring{}})
	for _, c := range []struct{ method, path, body string }{
		{"GET", "/v1/messages/other-mail", ""},
		{"GET", "/v1/queues?tenant=other", ""},
		{"GET", "/v1/queues/x.test?tenant=other", ""},
		{"POST", "/v1/actions", `{"verb":"cancel","selection":{"all":true,"tenant":"other"}}`},
		{"GET", "/v1/nowhere", ""},
	} {
		if w := ask(t, h, c.method, c.path, c.body, "admin@acme"); w.Code != http.StatusNotFound {
			t.Errorf("%s %s: %d %s", c.method, c.path, w.Code, w.Body)
		}
	}
	if s.changes+len(l.acts) > 0 {
		t.Error("something was done")
	}
}

func TestBearer(t *testing.T) {
	t.Parallel()
	h := httpapi.New(httpapi.Options{Server: &world{}, Auditor: &ledger{}, Keys: keyring{}})
	for _, c := range []struct {
		header string
		status int
	}{
		{"", 401}, {"Bearer", 401}, {"Bearer ", 401}, {"Basic YWRtaW46", 401}, {"Bearer nobody", 401}, {"viewer", 401},
		{"bearer viewer", 200}, {"Bearer broken", 500},
	} {
		for _, path := range []string{"/v1/status", "/v1/nowhere"} {
			r := httptest.NewRequestWithContext(t.Context(), "GET", path, nil)
			if c.header != "" {
				r.Header.Set("Authorization", c.header)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			want := c.status
			if want == 200 && path != "/v1/status" {
				want = 404
			}
			if w.Code != want || (w.Header().Get("WWW-Authenticate") != "") != (want == 401) {
				t.Errorf("%q at %s: %d %v, want %d", c.header, path, w.Code, w.Header(), want)
			}
			var p api.Problem
			if want != 200 && (json.Unmarshal(w.Body.Bytes(), &p) != nil || p.Status != want) {
				t.Errorf("%q: no problem: %s", c.header, w.Body)
			}
		}
	}
}

// TestUnrecordedIsUndone: while no record can be written nothing changes.
func TestUnrecordedIsUndone(t *testing.T) {
	t.Parallel()
	l := &ledger{refuse: errors.New("disk full")}
	s := &world{ledger: l}
	h := httpapi.New(httpapi.Options{Server: s, Auditor: l})
	for _, route := range httpapi.Routes(httpapi.Options{}) {
		method, path, body := fill(route.Pattern, "a")
		if method == "GET" || strings.Contains(route.Pattern, "{") {
			continue
		}
		if w := ask(t, h, method, path, body, ""); w.Code < 400 || s.changes > 0 {
			t.Errorf("%s: %d, %d changes", route.Pattern, w.Code, s.changes)
		}
	}
}

// TestPeer: the record names the user at the other end of the admin socket.
func TestPeer(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("needs SO_PEERCRED, which Linux has: CI runs it there")
	}
	l := &ledger{}
	s := httptest.NewUnstartedServer(httpapi.New(httpapi.Options{Server: &world{ledger: l}, Auditor: l}))
	path := filepath.Join(t.TempDir(), "s")
	socket, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s.Listener.Close()
	s.Listener = socket
	s.Config.ConnContext = httpapi.PeerContext
	s.Start()
	defer s.Close()
	c := api.NewSocketClient(path)
	defer c.Close()
	if _, err := c.Act(t.Context(), api.Action{Verb: api.Hold, Selection: api.Selection{Queue: "x.test"}}); err != nil {
		t.Fatal(err)
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if len(l.acts) != 1 || l.acts[0].Actor != me.Username || l.acts[0].Source != "admin socket" ||
		l.acts[0].Action != "queue.hold" || l.acts[0].Target != "x.test" {
		t.Errorf("%+v, want actor %s", l.acts, me.Username)
	}
}
