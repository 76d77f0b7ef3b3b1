package httpapi

import (
	"context"
	"net/http"

	"github.com/godwit-mta/godwit/api"
)

// TLSPolicies knows what receivers published of their TLS; *tlspolicy.Policies is one.
type TLSPolicies interface {
	Show(ctx context.Context, domain string) api.DomainTLS
	Reset(ctx context.Context, domain string) (forgotten bool, err error)
}

// policyRoutes are the lines of the table for what receivers published.
func (h *handler) policyRoutes() []route {
	if h.policies == nil {
		off := func(*call) (any, error) {
			return nil, problem(http.StatusConflict, "what receivers publish of their TLS is not looked at: delivery.tls_policies is off")
		}
		return []route{
			{"GET /v1/tls/policies/{domain}", Viewer, false, off},
			{"DELETE /v1/tls/policies/{domain}", Operator, false, off},
		}
	}
	return []route{
		{"GET /v1/tls/policies/{domain}", Viewer, false, func(c *call) (any, error) {
			return h.policies.Show(c.Context(), c.PathValue("domain")), nil
		}},
		{"DELETE /v1/tls/policies/{domain}", Operator, false, h.resetPolicy},
	}
}

// resetPolicy forgets what a domain published, on record: until it is fetched again nothing protects mail to it.
func (h *handler) resetPolicy(c *call) (any, error) {
	out := api.TLSPolicyReset{Domain: c.PathValue("domain")}
	err := h.auditor.Do(c.Context(), c.Caller.Act("tls.policy.reset", out.Domain), func(ctx context.Context) (any, error) {
		var err error
		out.Forgotten, err = h.policies.Reset(ctx, out.Domain)
		return out, err
	})
	return out, err
}
