package store_test

import (
	"runtime/debug"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/godwit-mta/godwit/internal/store"
	"github.com/godwit-mta/godwit/internal/store/storetest"
)

func TestMain(m *testing.M) {
	debug.SetGCPercent(400) // the campaign makes much garbage and keeps little
	m.Run()
}

func open(o store.Options) (store.Store, error) { return store.Open(o) }

func TestConformance(t *testing.T) {
	t.Parallel()
	storetest.Run(t, open)
}

// TestCampaign is the crash suite: see storetest.Campaign.
func TestCampaign(t *testing.T) {
	t.Parallel()
	storetest.Campaign(t, open, campaignRuns)
}

// TestLeavesNothing: an orderly end leaves no goroutine. (TestMain cannot ask, since failed engines leave theirs.)
func TestLeavesNothing(t *testing.T) {
	before := goleak.IgnoreCurrent()
	s, err := store.Open(store.Options{FS: vfs.NewMem(), Dir: "store"})
	if err != nil {
		t.Fatal(err)
	}
	watching := make(chan error)
	go func() {
		for c, err := range s.Watch(t.Context(), "") {
			if c.Current || err != nil {
				watching <- err
			}
		}
		close(watching)
	}()
	if err := <-watching; err != nil {
		t.Error(err)
	}
	var b store.Batch
	b.Put("a", nil)
	if _, err := s.Apply(t.Context(), &b); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for range watching {
	}
	goleak.VerifyNone(t, before)
}
