package daemon

import (
	"fmt"
	"strings"
	"testing"

	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/internal/store"
)

// TestStorageFindings: damage is told even when the queue is empty; nothing wrong says nothing.
func TestStorageFindings(t *testing.T) {
	t.Parallel()
	if list := storageFindings(spool.Damage{}, nil); len(list) != 0 {
		t.Errorf("%+v", list)
	}
	list := storageFindings(spool.Damage{Stretches: 2, Extents: []journal.ExtentID{3}, Quarantined: 4, Stay: []journal.ExtentID{1, 2}},
		journal.ErrFull)
	var text strings.Builder
	for _, f := range list {
		text.WriteString(f.Problem + "\n")
	}
	for _, want := range []string{"journal damaged: 4 messages quarantined", "0000000000000003", "no mail is accepted", "2 segments"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q lacks %q", text.String(), want)
		}
	}
}

// TestStoreError: whoever has a damaged store is told what to do.
func TestStoreError(t *testing.T) {
	t.Parallel()
	err := storeError("/data", fmt.Errorf("opening: %w", store.ErrDamaged))
	for _, want := range []string{"damaged", "/data/store", "backup"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
	if err := storeError("/data", store.ErrLocked); strings.Contains(err.Error(), "backup") {
		t.Error(err)
	}
}
