//go:build interop

package interop

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// report is a delivery status notification as Python's email package reads it. Names of fields are in lower case.
type report struct {
	Type       string              `json:"type"`
	ReportType string              `json:"report_type"`
	Header     map[string]string   `json:"header"`
	Parts      []string            `json:"parts"`
	Text       string              `json:"text"`
	Message    map[string]string   `json:"message"`
	Recipients []map[string]string `json:"recipients"`
	Returned   map[string]string   `json:"returned"`      // header of the message reported
	Body       string              `json:"returned_text"` // its body, if that came back
	Defects    []string            `json:"defects"`
	envelope   string              // sender
	raw        string
}

// report waits for the one message to a sender and reads it.
func (s *site) report(t *testing.T, sender string) *report {
	t.Helper()
	_, m := s.home.one(t, sender)
	text, err := os.ReadFile(m.file)
	if err != nil {
		t.Fatal(err)
	}
	r := &report{raw: string(text), envelope: strings.Join(m.traced("return-path"), " ")}
	out := run(t, text, "python3", "testdata/report.py")
	if err := json.Unmarshal([]byte(out), r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if r.Type != "multipart/report" || r.ReportType != "delivery-status" || len(r.Parts) != 3 || len(r.Defects) > 0 {
		t.Fatalf("what came back is no sound report: %s; report-type=%s of %v, defects %v\n%s",
			r.Type, r.ReportType, r.Parts, r.Defects, text)
	}
	if r.envelope != "<>" {
		t.Errorf("the report's envelope sender is %s, not null (RFC 3461, 6.1)", r.envelope)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the report:\n%s", r.raw)
		}
	})
	return r
}

// recipient checks the i-th block and returns it.
func (r *report) recipient(t *testing.T, i int, action, status, final string) map[string]string {
	t.Helper()
	if i >= len(r.Recipients) {
		t.Fatalf("the report is about %d recipients", len(r.Recipients))
	}
	b := r.Recipients[i]
	if b["action"] != action || b["status"] != status || address(b["final-recipient"]) != final {
		t.Errorf("recipient %d: action %q, status %q, final recipient %q; want %s, %s, %s",
			i, b["action"], b["status"], b["final-recipient"], action, status, final)
	}
	return b
}

// address takes the type off an address of a report.
func address(field string) string {
	_, a, _ := strings.Cut(field, ";")
	return strings.TrimSpace(a)
}

// has checks that a field holds all of some words.
func has(t *testing.T, fields map[string]string, name string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(fields[name], w) {
			t.Errorf("%s is %q, without %q", name, fields[name], w)
		}
	}
}
