package httpapi

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/internal/audit"
)

// Role says how much a caller may do. Each one may do what those before it may.
type Role string

// The roles, the weakest first.
const (
	Viewer   Role = "viewer"   // may look
	Operator Role = "operator" // may act on mail
	Admin    Role = "admin"    // may change who may do what, and the server
)

var roles = []Role{Viewer, Operator, Admin}

// Includes reports whether r may do what needs other.
func (r Role) Includes(other Role) bool {
	return slices.Contains(roles, r) && slices.Index(roles, r) >= slices.Index(roles, other)
}

// Caller is who asks.
type Caller struct {
	Actor  string // for the record: a system user, or the name of a credential
	Source string // for the record: "admin socket", or an address
	Role   Role
	Tenant string // what it sees and changes; empty: all tenants
}

// Act begins the record of what the caller wants done.
func (c *Caller) Act(action, target string) audit.Act {
	return audit.Act{Actor: c.Actor, Source: c.Source, Action: action, Target: target}
}

// ErrNoCaller is what [Keys] says of a key that nobody has, or that is no good any more.
var ErrNoCaller = errors.New("this key opens nothing")

// ErrBusy is what [Keys] says when it cannot look now, such as after too many wrong keys from one address.
var ErrBusy = errors.New("try again later")

// Keys knows who has which API key.
type Keys interface {
	// Caller returns who has key, presented from client. Errors: ErrNoCaller, ErrBusy; others are temporary.
	Caller(ctx context.Context, key string, client netip.Addr) (Caller, error)
}

// Auditor takes the record of an act before it is carried out; *audit.Log is one.
type Auditor interface {
	Append(ctx context.Context, a audit.Act) error
	Do(ctx context.Context, a audit.Act, act func(context.Context) (result any, err error)) error
}

// call is a request with who made it.
type call struct {
	*http.Request
	Caller Caller
}

// route is one line of the table of all that can be asked.
type route struct {
	pattern string // as http.ServeMux takes it
	role    Role   // at least
	// tenants says that callers bound to a tenant may ask too; the handler shows and changes nothing of others. For all other
	// routes such a caller is told that there is nothing.
	tenants bool
	ask     func(*call) (any, error)
}

// routes is the table. What changes something is on record: its handler begins with the Auditor.
func (h *handler) routes() []route {
	return append(slices.Concat(h.directoryRoutes(), h.doorRoutes(), h.dkimRoutes(), h.policyRoutes(), h.tlsRoutes(), h.reportRoutes()), []route{
		{"GET /v1/status", Viewer, false, func(*call) (any, error) { return h.server.Status(), nil }},
		{"GET /v1/queues", Viewer, true, h.queues},
		{"GET /v1/queues/{domain}", Viewer, true, h.queue},
		{"GET /v1/messages/{id}", Viewer, true, h.message},
		{"POST /v1/actions", Operator, true, h.act},
		{"GET /v1/spool/stats", Viewer, false, func(*call) (any, error) { return h.server.SpoolStats(), nil }},
		{"POST /v1/reload", Admin, false, h.reload},
		{"GET /v1/audit", Admin, false, h.audit},
		{"GET /v1/audit/report", Admin, false, h.verifyAudit},
		{"GET /v1/keys", Admin, false, h.keys},
		{"POST /v1/keys/rotation", Admin, false, h.rotateKeys},
	}...)
}

// guarded lets a caller through who may ask.
func (h *handler) guarded(t route) http.HandlerFunc {
	return h.answer(func(r *http.Request) (any, error) {
		c, err := h.caller(r)
		if err != nil {
			return nil, err
		}
		if c.Tenant != "" && !t.tenants {
			return nil, nothingAt(r)
		}
		if !c.Role.Includes(t.role) {
			return nil, problem(http.StatusForbidden, "this needs the role %s; the key has %s", t.role, c.Role)
		}
		return t.ask(&call{Request: r, Caller: c})
	})
}

func nothingAt(r *http.Request) error {
	return problem(http.StatusNotFound, "there is nothing at %s %s", r.Method, r.URL.Path)
}

// caller finds out who asks.
func (h *handler) caller(r *http.Request) (Caller, error) {
	if h.credentials == nil {
		p, _ := r.Context().Value(peerKey{}).(string)
		if p == "" {
			p = "unknown"
		}
		return Caller{Actor: p, Source: "admin socket", Role: Admin}, nil
	}
	scheme, key, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || key == "" {
		return Caller{}, unauthorized("present an API key: Authorization: Bearer gw_...")
	}
	var client netip.Addr
	if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		client = ap.Addr().Unmap()
	}
	c, err := h.credentials.Caller(r.Context(), strings.TrimSpace(key), client)
	if errors.Is(err, ErrNoCaller) {
		return Caller{}, unauthorized("the API key is not good: it may be mistyped, revoked, expired, or not for this address")
	}
	if errors.Is(err, ErrBusy) {
		return Caller{}, problem(http.StatusTooManyRequests, "too many wrong keys came from this address: try again later")
	}
	if err == nil && c.Source == "" {
		c.Source = client.String()
	}
	return c, err
}

func unauthorized(detail string) *api.Problem { return problem(http.StatusUnauthorized, "%s", detail) }

type peerKey struct{}

// PeerContext notes who is at the other end of a connection to the admin socket, as far as the system tells. It is
// for [http.Server.ConnContext].
func PeerContext(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, peerKey{}, peerUser(c))
}

// tenant returns the tenant that a request may be about: the one it names, or the caller's own. A caller bound to one that names
// another is told that there is nothing.
func (c *call) tenant(asked string) (string, error) {
	if c.Caller.Tenant == "" || asked == c.Caller.Tenant {
		return asked, nil
	}
	if asked != "" {
		return "", nothingAt(c.Request)
	}
	return c.Caller.Tenant, nil
}
