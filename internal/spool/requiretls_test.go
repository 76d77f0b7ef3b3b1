package spool

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestRequireTLSKept: what a message wants of TLS survives its record, and a record without it has none.
func TestRequireTLSKept(t *testing.T) {
	t.Parallel()
	for _, require := range []bool{false, true} {
		for _, optional := range []bool{false, true} {
			m := wholeMessage()
			m.From.RequireTLS, m.TLSOptional = require, optional
			got, err := DecodeRecord(KindAccepted, appendRecord(nil, &Record{Kind: KindAccepted, Time: noon, Message: m}))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(m, got.Message); diff != "" {
				t.Errorf("(-written +read):\n%s", diff)
			}
		}
	}
}
