package httpapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/internal/httpapi"
)

// scripted answers with what it was told, and remembers what it was asked.
type scripted struct {
	httpapi.Server
	action api.Action
	query  api.QueueQuery
	err    error
}

func (s *scripted) Act(_ context.Context, a api.Action) (api.ActionResult, error) {
	s.action = a
	return api.ActionResult{Changed: 3}, s.err
}

func (s *scripted) Queues(_ context.Context, q api.QueueQuery) (api.QueueList, error) {
	s.query = q
	return api.QueueList{Total: 1}, s.err
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, method, path, body string
		err                      error
		status                   int
		want                     string // part of the answer
	}{
		{"an action", "POST", "/v1/actions", `{"verb":"hold","selection":{"queue":"x.test"}}`, nil, 200, `"changed":3`},
		{"no such verb", "POST", "/v1/actions", `{"verb":"burn","selection":{"queue":"x.test"}}`, nil, 422, `burn`},
		{"nothing selected", "POST", "/v1/actions", `{"verb":"hold","selection":{}}`, nil, 422, `selection is empty`},
		{"unknown field", "POST", "/v1/actions", `{"verb":"hold","selektion":{}}`, nil, 400, `selektion`},
		{"two actions", "POST", "/v1/actions", `{"verb":"hold","selection":{"all":true}} {}`, nil, 400, `behind the action`},
		{"too large", "POST", "/v1/actions", `{"reason":"` + strings.Repeat("x", 1<<20) + `"}`, nil, 400, `too large`},
		{"bad limit", "GET", "/v1/queues?limit=-1", "", nil, 422, `limit`},
		{"bad state", "GET", "/v1/queues?state=lost", "", nil, 422, `lost`},
		{"queues", "GET", "/v1/queues?limit=99999999&tenant=a", "", nil, 200, `"total":1`},
		{"wrong method", "GET", "/v1/actions", "", nil, 404, `GET /v1/actions`},
		{"nowhere", "GET", "/v2", "", nil, 404, `/v2`},
		{"a problem passes", "GET", "/v1/queues", "", &api.Problem{Status: 409, Title: "Conflict"}, 409, `Conflict`},
		{"an error is hidden", "GET", "/v1/queues", "", errors.New("secret path"), 500, `its log says why`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := &scripted{err: c.err}
			h := httpapi.New(httpapi.Options{Server: s, Auditor: &ledger{}})
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), c.method, c.path, strings.NewReader(c.body)))
			if w.Code != c.status || !strings.Contains(w.Body.String(), c.want) {
				t.Fatalf("%s %s: %d %s, want %d with %q", c.method, c.path, w.Code, w.Body, c.status, c.want)
			}
			if c.status >= 400 {
				var p api.Problem
				if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Status != c.status {
					t.Errorf("not a problem: %s", w.Body)
				}
				if strings.Contains(w.Body.String(), "secret") {
					t.Error("the detail of an internal error left the server")
				}
			}
		})
	}
}

func TestLimitIsBounded(t *testing.T) {
	t.Parallel()
	s := &scripted{}
	w := httptest.NewRecorder()
	httpapi.New(httpapi.Options{Server: s, Auditor: &ledger{}}).ServeHTTP(w,
		httptest.NewRequestWithContext(t.Context(), "GET", "/v1/queues?limit=99999999", nil))
	if s.query.Limit != 10_000 {
		t.Errorf("limit %d", s.query.Limit)
	}
}

type health struct{ alive, ready error }

func (h health) Alive() error { return h.alive }
func (h health) Ready() error { return h.ready }

func TestPublic(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	reg.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "godwit_test_total", Help: "Test."}))
	h := httpapi.Public(health{ready: errors.New("starting")}, reg, slog.New(slog.DiscardHandler))
	for path, want := range map[string]struct {
		status int
		text   string
	}{
		"/healthz":    {http.StatusOK, "ok"},
		"/readyz":     {http.StatusServiceUnavailable, "starting"},
		"/metrics":    {http.StatusOK, "godwit_test_total 0"},
		"/v1/actions": {http.StatusNotFound, ""}, // the administrators' interface is not here
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", path, nil))
		if w.Code != want.status || !strings.Contains(w.Body.String(), want.text) {
			t.Errorf("%s: %d %q", path, w.Code, w.Body)
		}
	}
}
