package spool

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// An index that lost a write must end the process, whatever Pebble's logger does: going on would mean to forget
// messages whose index keys were lost, or to remove journal extents that are needed.
func TestIndexFailureEndsProcess(t *testing.T) {
	t.Parallel()
	if os.Getenv("SPOOL_TEST_CHILD") == "" {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestIndexFailureEndsProcess$", "-test.v")
		cmd.Env = append(os.Environ(), "SPOOL_TEST_CHILD=1")
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 || strings.Contains(string(out), "--- ") {
			t.Fatalf("the process ended with %v, want exit code 1; it said:\n%s", err, out)
		}
		return
	}
	broken := make(chan bool, 1)
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if strings.HasPrefix(op.Path, "/spool/index/") && strings.HasSuffix(op.Path, ".log") && len(broken) > 0 &&
			(op.Kind == errorfs.OpFileWrite || op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) {
			return errorfs.ErrInjected
		}
		return nil
	}))
	r := newRig(t, fs, func(r *rig) { r.opts.Fatal = nil })
	m := r.accept(r.message("a.example"))
	r.settle(r.taken(m), deferred(time.Now().Add(time.Hour)))
	broken <- true
	err := r.spool.Checkpoint()
	if err == nil {
		ctx, stop := context.WithCancel(context.Background())
		stop()
		err = r.spool.Run(ctx)
	}
	t.Fatalf("the process lives on: %v", err)
}

// An index that cannot be read is thrown away, and rebuilt from the journal.
func TestUnreadableIndexIsRebuilt(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"MANIFEST", "marker.manifest", "OPTIONS", ".sst"} {
		t.Run(prefix, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, vfs.NewMem(), nil)
			due := time.Now().Add(time.Hour)
			m := r.accept(r.message("a.example", "b.example", "c.example"))
			r.settle(r.taken(m)[:1], deferred(due))
			r.settle(r.taken(m)[1:2], delivered())
			held := r.accept(r.message("d.example"))
			r.spool.Return(r.taken(held))
			if n, err := r.spool.Hold(context.Background(), Filter{Domain: "d.example"}, "why"); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			r.checkpoint()
			if err := r.spool.index.db.Flush(); err != nil {
				t.Fatal(err)
			}
			r.close()
			spoil(t, r.fs, prefix)
			r.open()
			st := r.sums()
			if st.Accepted != 4 || st.Delivered != 1 || st.Waiting != 2 || st.Held != 1 {
				t.Errorf("%+v", st)
			}
			if e := r.one(Filter{Domain: "a.example"}); micros(e.Due) != micros(due) || e.Attempts != 1 {
				t.Errorf("%+v", e)
			}
			if e := r.one(Filter{Domain: "d.example"}); e.State != Held || e.HoldReason != "why" {
				t.Errorf("%+v", e)
			}
		})
	}
}

// spoil overwrites the files of the index whose name has a part, or removes markers.
func spoil(t *testing.T, fs vfs.FS, part string) {
	t.Helper()
	names, err := fs.List("/spool/index")
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, name := range names {
		if !strings.Contains(name, part) {
			continue
		}
		found = true
		name = fs.PathJoin("/spool/index", name)
		if strings.Contains(name, "marker") {
			if err := fs.Remove(name); err != nil {
				t.Fatal(err)
			}
			continue
		}
		info, err := fs.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(strings.Repeat("\xa5", int(info.Size())))); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	if !found {
		t.Fatalf("no %s among %v", part, names)
	}
}
