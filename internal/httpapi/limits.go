package httpapi

import (
	"context"
	"net/http"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/internal/submission/limits"
)

// Doctor looks at the server as it stands.
type Doctor interface {
	// Relay tries whether a stranger could send through the listeners.
	Relay(ctx context.Context) (api.RelayReport, error)
	Findings() []api.Finding
}

// doorRoutes are the lines of the table for what listeners count and let through.
func (h *handler) doorRoutes() []route {
	var list []route
	if h.limits != nil {
		list = append(list, route{"GET /v1/limits", Viewer, true, h.listLimits})
	}
	if h.doctor != nil {
		list = append(list,
			route{"POST /v1/doctor/relay", Operator, false, h.relay},
			route{"GET /v1/findings", Viewer, false, func(*call) (any, error) {
				return api.FindingList{Findings: append([]api.Finding{}, h.doctor.Findings()...)}, nil
			}})
	}
	return list
}

const defaultHolders = 100

// listLimits tells what is used. A caller of one tenant sees that tenant and its credentials; client addresses are nobody's.
func (h *handler) listLimits(c *call) (any, error) {
	v := c.URL.Query()
	n, err := number(v.Get("limit"), defaultHolders, maxShown)
	if err != nil {
		return nil, err
	}
	q := limits.Query{Name: v.Get("name"), Limit: n}
	if word := v.Get("holder"); word != "" {
		if q.Kind, q.Of = limits.ParseKind(word); !q.Of {
			return nil, problem(http.StatusUnprocessableEntity, "holder %q is not one of tenant, credential, client", word)
		}
	}
	all := v.Get("all") == "true"
	out := api.LimitList{Limits: []api.LimitState{}}
	states := h.limits.Explain(q)
	for i := range states {
		st := &states[i]
		if st.Max == 0 && !all || c.Caller.Tenant != "" && !h.belongs(st, c.Caller.Tenant) {
			continue
		}
		l := api.LimitState{
			Holder: st.Kind.String(), Name: st.Name, Limit: limits.Name(st.Subject, st.Span), Used: st.Used, Max: st.Max,
			Source: st.Source, Refused: st.Refused,
		}
		if !st.Room.IsZero() {
			l.Room = &st.Room
		}
		out.Limits = append(out.Limits, l)
	}
	return out, nil
}

func (h *handler) belongs(st *limits.State, tenant string) bool {
	switch st.Kind {
	case limits.Tenant:
		return st.Name == tenant
	case limits.Credential:
		if h.directory == nil {
			return false
		}
		cred, err := h.directory.Credential(st.Name)
		return err == nil && cred.Tenant == tenant
	}
	return false
}

// relay lets the doctor try the listeners; that somebody did is on record, since it leaves refusals in the log.
func (h *handler) relay(c *call) (any, error) {
	var report api.RelayReport
	act := c.Caller.Act("doctor.relay", "listeners")
	err := h.auditor.Do(c.Context(), act, func(ctx context.Context) (any, error) {
		var err error
		report, err = h.doctor.Relay(ctx)
		return struct {
			Open bool `json:"open"`
		}{report.Open}, err
	})
	return report, err
}
