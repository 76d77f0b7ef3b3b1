package httpapi

import (
	"context"
	"strings"

	"github.com/godwit-mta/godwit/api"
)

// TLSFloors knows mail hosts that always had TLS.
type TLSFloors interface {
	Floors(all bool) []api.TLSFloor
	// ResetFloors forgets a host, or all of them if host is empty, and returns what was known.
	ResetFloors(ctx context.Context, host string) ([]api.TLSFloor, error)
}

// tlsRoutes are the lines of the table for TLS on the way out.
func (h *handler) tlsRoutes() []route {
	if h.floors == nil {
		return nil
	}
	return []route{
		{"GET /v1/tls/floors", Viewer, false, h.listFloors},
		{"POST /v1/tls/floors/reset", Operator, false, h.resetFloors},
	}
}

func (h *handler) listFloors(c *call) (any, error) {
	return api.TLSFloorList{Floors: h.floors.Floors(c.URL.Query().Get("all") == "true")}, nil
}

func (h *handler) resetFloors(c *call) (any, error) {
	s, err := decode[api.TLSFloorSelection](c)
	if err != nil {
		return nil, err
	}
	s.Host = strings.ToLower(strings.TrimSuffix(s.Host, "."))
	target := s.Host
	switch {
	case s.Host == "" && !s.All:
		return nil, fieldProblem("host", "say which hosts: one by its name, or all")
	case s.Host != "" && s.All:
		return nil, fieldProblem("host", "name a host or say all, not both")
	case s.All:
		target = "all"
	}
	out := api.TLSFloorList{Floors: []api.TLSFloor{}}
	err = h.auditor.Do(c.Context(), c.Caller.Act("tls.floor.reset", target), func(ctx context.Context) (any, error) {
		known, err := h.floors.ResetFloors(ctx, s.Host)
		if known != nil {
			out.Floors = known
		}
		return out, err
	})
	return out, err
}
