// Package httpapi answers HTTP. There are two handlers, for two audiences:
//
//   - [New] is the administrators' interface of package api, served on the admin socket, where the file permission is the
//     credential, and over TCP, where an API key is (RFC 6750);
//   - [Public] has what monitoring needs and nothing else: /metrics, /healthz and /readyz.
//
// Errors are RFC 9457 problems. Handlers are thin: each reads its request, asks the one package that knows, and writes the
// answer; what the words of the answer are stands in package api.
package httpapi

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/internal/audit"
	"github.com/godwit-mta/godwit/internal/keyring"
	"github.com/godwit-mta/godwit/internal/submission/auth"
	"github.com/godwit-mta/godwit/internal/submission/limits"
)

// Server is what the administrators' interface asks: the running server, in the words of package api. Its errors may be
// [*api.Problem]s, which are passed on as they are; anything else is a 500 whose detail goes to the log.
type Server interface {
	Status() api.Status
	Queues(ctx context.Context, q api.QueueQuery) (api.QueueList, error)
	Queue(ctx context.Context, domain, tenant string, limit int) ([]api.QueueDetail, error)
	Message(ctx context.Context, id string) (api.Message, error)
	Act(ctx context.Context, a api.Action) (api.ActionResult, error)
	SpoolStats() api.SpoolStats
	// Reload records by before it begins.
	Reload(ctx context.Context, by audit.Act) (api.ReloadResult, error)
	Audit(ctx context.Context, q api.AuditQuery) (api.AuditList, error)
	VerifyAudit(ctx context.Context) (api.AuditReport, error)
	Keys(ctx context.Context) (api.KeyList, error)
	RotateKeys(ctx context.Context) (api.KeyList, error)
}

const (
	maxRequest    = 1 << 20 // octets of a request body
	defaultQueues = 100
	maxQueues     = 10_000
	defaultShown  = 20
	maxShown      = 1_000
)

// Options make an administrators' handler. Server and Auditor are required.
type Options struct {
	Server  Server
	Auditor Auditor
	// Keys knows who has which API key. Nil: whoever gets here may do everything, as on the admin socket.
	Keys Keys
	// Directory has tenants, domains and credentials; nil: nothing is served of them.
	Directory *auth.Directory
	// Submission tells the listeners that credentials are good for; nil: none.
	Submission func() []api.SubmissionServer
	// Limits counts what is sent; nil: nothing is served of it.
	Limits *limits.Limiter
	// Doctor looks at the server; nil: nobody does.
	Doctor Doctor
	// Policies knows what receivers published of their TLS; nil: it is not looked at.
	Policies TLSPolicies
	// Floors knows mail hosts that always had TLS; nil: nothing is served of them.
	Floors TLSFloors
	// Reports has those that came in and go out; nil: nothing is served of them.
	Reports Reports
	// DKIM keeps the keys that sign mail; nil: nothing is served of them.
	DKIM   *keyring.Keyring
	Logger *slog.Logger // nil discards
}

// New returns the administrators' handler.
func New(o Options) http.Handler {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	h := &handler{
		server: o.Server, auditor: o.Auditor, credentials: o.Keys, directory: o.Directory, submission: o.Submission, limits: o.Limits,
		doctor: o.Doctor, policies: o.Policies, floors: o.Floors, reports: o.Reports, dkim: o.DKIM, log: o.Logger,
	}
	mux := http.NewServeMux()
	for _, t := range h.routes() {
		mux.HandleFunc(t.pattern, h.guarded(t))
	}
	mux.HandleFunc("/", h.answer(func(r *http.Request) (any, error) {
		if _, err := h.caller(r); err != nil {
			return nil, err
		}
		return nil, nothingAt(r)
	}))
	return mux
}

// Health says whether the process works at all, and whether it takes mail now; nil is yes.
type Health interface {
	Alive() error
	Ready() error
}

// Public returns the handler for monitoring.
func Public(health Health, metrics prometheus.Gatherer, logger *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelError),
	}))
	mux.HandleFunc("GET /healthz", probe(health.Alive))
	ready := probe(health.Ready)
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ready(w, r)
		if f, ok := health.(Finder); ok {
			for _, line := range f.Findings() {
				fmt.Fprintln(w, line)
			}
		}
	})
	return mux
}

// Finder is a Health that knows what a person must look at, though mail flows: /readyz tells it, a line each.
type Finder interface{ Findings() []string }

func probe(check func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if err := check(); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, err)
			return
		}
		fmt.Fprintln(w, "ok")
	}
}

type handler struct {
	server      Server
	auditor     Auditor
	credentials Keys
	directory   *auth.Directory
	submission  func() []api.SubmissionServer
	limits      *limits.Limiter
	doctor      Doctor
	policies    TLSPolicies
	floors      TLSFloors
	dkim        *keyring.Keyring
	reports     Reports
	log         *slog.Logger
}

func (h *handler) queues(c *call) (any, error) {
	v := c.URL.Query()
	limit, err := number(v.Get("limit"), defaultQueues, maxQueues)
	if err != nil {
		return nil, err
	}
	tenant, err := c.tenant(v.Get("tenant"))
	if err != nil {
		return nil, err
	}
	q := api.QueueQuery{Tenant: tenant, Domain: v.Get("domain"), State: v.Get("state"), Limit: limit}
	switch q.State {
	case "", "waiting", "claimed", "held":
	default:
		return nil, problem(http.StatusUnprocessableEntity, "state %q is not one of waiting, claimed, held", q.State)
	}
	return h.server.Queues(c.Context(), q)
}

func (h *handler) queue(c *call) (any, error) {
	v := c.URL.Query()
	limit, err := number(v.Get("limit"), defaultShown, maxShown)
	if err != nil {
		return nil, err
	}
	tenant, err := c.tenant(v.Get("tenant"))
	if err != nil {
		return nil, err
	}
	return h.server.Queue(c.Context(), c.PathValue("domain"), tenant, limit)
}

func (h *handler) message(c *call) (any, error) {
	m, err := h.server.Message(c.Context(), c.PathValue("id"))
	if err == nil && c.Caller.Tenant != "" && m.Tenant != c.Caller.Tenant {
		// In the words for one that is not there.
		return nil, problem(http.StatusNotFound, "%s", noMessage(c.PathValue("id")))
	}
	return m, err
}

func noMessage(id string) string {
	return fmt.Sprintf("no message %s: it was never accepted here, or its events are older than the event log keeps", id)
}

func (h *handler) act(c *call) (any, error) {
	var a api.Action
	dec := json.NewDecoder(http.MaxBytesReader(nil, c.Body, maxRequest))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&a); err != nil {
		return nil, problem(http.StatusBadRequest, "the request is no action: %v", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, problem(http.StatusBadRequest, "the request has something behind the action")
	}
	switch a.Verb {
	case api.Hold, api.Release, api.Retry, api.Bounce, api.Cancel:
	default:
		return nil, problem(http.StatusUnprocessableEntity, "verb %q is not one of hold, release, retry, bounce, cancel", a.Verb)
	}
	if a.Selection == (api.Selection{}) {
		return nil, problem(http.StatusUnprocessableEntity, "the selection is empty; set all to mean every entry")
	}
	var err error
	if a.Selection.Tenant, err = c.tenant(a.Selection.Tenant); err != nil {
		return nil, err
	}
	if c.Caller.Tenant != "" {
		a.Selection.All = false // all there is for it is that of its tenant, which is selected now
	}
	entry := c.Caller.Act("queue."+string(a.Verb), targetOf(a.Selection))
	entry.After = a
	var out api.ActionResult
	err = h.auditor.Do(c.Context(), entry, func(ctx context.Context) (any, error) {
		var err error
		out, err = h.server.Act(ctx, a)
		return out, err
	})
	return out, err
}

// targetOf names what a selection is for, as far as one word can.
func targetOf(s api.Selection) string {
	return cmp.Or(s.Entry, s.Message, s.Queue, s.Sender, s.Recipient, s.Tenant, s.State, "all")
}

// answer wraps a question so that its answer is written as JSON and its error as a problem.
func (h *handler) answer(ask func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := ask(r)
		if err != nil {
			h.fail(w, r, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(v); err != nil {
			h.log.DebugContext(r.Context(), "answer not written", "path", r.URL.Path, "error", err)
		}
	}
}

func (h *handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	var p *api.Problem
	if !errors.As(err, &p) {
		h.log.ErrorContext(r.Context(), "request failed", "path", r.URL.Path, "error", err)
		p = &api.Problem{Title: http.StatusText(http.StatusInternalServerError), Status: http.StatusInternalServerError,
			Detail: "the server could not do this; its log says why"}
	}
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="godwit"`) // RFC 6750, 3
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	if err := json.NewEncoder(w).Encode(p); err != nil {
		h.log.DebugContext(r.Context(), "problem not written", "path", r.URL.Path, "error", err)
	}
}

func problem(status int, format string, args ...any) *api.Problem {
	return &api.Problem{Title: http.StatusText(status), Status: status, Detail: fmt.Sprintf(format, args...)}
}

// number reads a limit from a query; absent means the default, too much means the most.
func number(s string, def, most int) (int, error) {
	if s == "" {
		return def, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return 0, problem(http.StatusUnprocessableEntity, "limit %q is not a number from 1 on", s)
	}
	return min(n, most), nil
}
