package aggregate

import (
	"strings"
	"testing"
)

func TestSmoke(t *testing.T) {
	r, err := Parse(strings.NewReader(`<?xml version="1.0"?><feedback><report_metadata><org_name>a</org_name><report_id>1</report_id><date_range><begin>1</begin><end>2</end></date_range></report_metadata><policy_published><domain>x.test</domain></policy_published><record><row><source_ip>1.2.3.4</source_ip><count>3</count><policy_evaluated><dkim>Pass</dkim></policy_evaluated></row><auth_results><dkim><domain>x</domain></dkim><spf/></auth_results></record></feedback>`))
	t.Logf("%+v %v", r, err)
}
