package daemon

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/internal/store"
)

// storageFindings tells what is wrong with what keeps the mail: an empty queue after damage is no good news.
func (r *running) storageFindings() []api.Finding {
	return storageFindings(r.spool.Damage(), r.spool.Room())
}

func storageFindings(d spool.Damage, room error) []api.Finding {
	var list []api.Finding
	add := func(grave bool, problem, advice string) {
		list = append(list, api.Finding{Subject: "journal", Name: "journal", Problem: problem, Advice: advice, Grave: grave})
	}
	if d.Stretches > 0 || d.Quarantined > 0 || len(d.Lost) > 0 {
		problem := fmt.Sprintf("journal damaged: %d messages quarantined, %d stretches unreadable", d.Quarantined, d.Stretches)
		if len(d.Extents) > 0 {
			problem += " in " + segments(d.Extents)
		}
		if len(d.Lost) > 0 {
			problem += ", gone: " + segments(d.Lost)
		}
		add(true, problem, "check the disk; see `godwit spool check` and held mail in `godwit queue list`; bounce or cancel what is "+
			"lost, and move the journal's *.damaged files away when they are of no more use")
	}
	if room != nil {
		add(true, "no mail is accepted: the disk is nearly full", "free space or inodes; accepting goes on by itself")
	}
	if n := len(d.Stay); n > 0 {
		add(false, fmt.Sprintf("%d segments of the journal cannot be removed: %s", n, segments(d.Stay)),
			"see the log for the reason of the file system; they take space and nothing else")
	}
	return list
}

// segments names extents, the first few.
func segments(ids []journal.ExtentID) string {
	const most = 5
	var names []string
	for i, id := range ids {
		if i == most {
			names = append(names, "...")
			break
		}
		names = append(names, fmt.Sprintf("%016x", uint64(id)))
	}
	return "segment " + strings.Join(names, ", ")
}

// storeError says what to do when the store does not open. Unlike the index it cannot be made anew from anything.
func storeError(dataDir string, err error) error {
	if !errors.Is(err, store.ErrDamaged) {
		return fmt.Errorf("open store: %w", err)
	}
	return fmt.Errorf("open store: %w; check the disk, then restore %s from a backup, or move it away to start without what was "+
		"set at run time (credentials, domains, keys, holds); no mail is in it", err, filepath.Join(dataDir, "store"))
}
