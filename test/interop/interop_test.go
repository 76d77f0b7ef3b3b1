//go:build interop

package interop

import "testing"

// TestInterop starts the world once; the dialogs happen in it side by side, each with addresses of its own.
func TestInterop(t *testing.T) {
	s := startSite(t)
	dialogs := []struct {
		name string
		long bool // not in CI
		run  func(*testing.T)
	}{
		{"bytes", false, s.testBytes},
		{"clients", false, s.testClients},
		{"reports", false, s.testReports},
		{"dns", false, s.testDNS},
		{"greylisting", false, s.testGreylisting},
		{"success", false, s.testSuccess},
		{"idle", false, s.testIdle},
		{"recipients", false, s.testRecipients},
		{"large", true, s.testLarge},
		{"source", true, s.testSource},
	}
	t.Run("dialogs", func(t *testing.T) {
		for _, d := range dialogs {
			t.Run(d.name, func(t *testing.T) {
				if d.long && s.short {
					t.Skip("not in the short run")
				}
				t.Parallel()
				d.run(t)
			})
		}
	})
	t.Run("sums", s.testSums)
}
