package httpapi_test

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/internal/httpapi"
)

// receivers are TLSPolicies of which one domain has one.
type receivers struct{ forgotten *[]string }

func (receivers) Show(_ context.Context, domain string) api.DomainTLS {
	return api.DomainTLS{Domain: domain, Hosts: []api.TLSHost{}}
}

func (r receivers) Reset(_ context.Context, domain string) (bool, error) {
	if r.forgotten != nil {
		*r.forgotten = append(*r.forgotten, domain)
	}
	return domain == "known.test", nil
}

func TestPolicyReset(t *testing.T) {
	t.Parallel()
	l, forgotten := &ledger{}, []string{}
	h := httpapi.New(httpapi.Options{Server: &world{ledger: l}, Auditor: l, Keys: keyring{}, Policies: receivers{&forgotten}})
	for domain, want := range map[string]bool{"known.test": true, "other.test": false} {
		w := ask(t, h, "DELETE", "/v1/tls/policies/"+domain, "", "operator")
		var out api.TLSPolicyReset
		if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || w.Code != http.StatusOK || out.Forgotten != want || out.Domain != domain {
			t.Errorf("%s: %d %s", domain, w.Code, w.Body)
		}
	}
	if len(forgotten) != 2 || len(l.acts) != 2 || l.acts[0].Action != "tls.policy.reset" || l.acts[0].Target != forgotten[0] {
		t.Errorf("%v, %+v", forgotten, l.acts)
	}
}

func TestPoliciesOff(t *testing.T) {
	t.Parallel()
	l := &ledger{}
	h := httpapi.New(httpapi.Options{Server: &world{ledger: l}, Auditor: l, Keys: keyring{}})
	for _, method := range []string{"GET", "DELETE"} {
		if w := ask(t, h, method, "/v1/tls/policies/known.test", "", "admin"); w.Code != http.StatusConflict {
			t.Errorf("%s: %d %s", method, w.Code, w.Body)
		}
	}
	if len(l.acts) != 0 {
		t.Errorf("%+v", l.acts)
	}
}
