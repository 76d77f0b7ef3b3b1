package journal_test

import (
	"runtime/debug"
	"testing"

	"go.uber.org/goleak"

	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/internal/journal/journaltest"
)

func TestMain(m *testing.M) {
	debug.SetGCPercent(400) // the campaign makes much garbage and keeps little
	goleak.VerifyTestMain(m)
}

func open(o journal.Options) (journal.Journal, error) { return journal.Open(o) }

// TestCampaign is the crash suite: see journaltest.Campaign.
func TestCampaign(t *testing.T) {
	t.Parallel()
	journaltest.Campaign(t, open, campaignRuns)
}

func TestConformance(t *testing.T) {
	t.Parallel()
	journaltest.Run(t, open)
}
