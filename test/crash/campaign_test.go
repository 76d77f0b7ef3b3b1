//go:build !race

// The server is a process of its own, which the race detector does not see into.

package crash

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// TestKill is a short campaign; `make crash` makes it long. SEED repeats the choices of a run, RUNS sets the cycles.
func TestKill(t *testing.T) {
	o := Options{Seed: uint64(time.Now().UnixNano()), Cycles: 8}
	if testing.Short() {
		o.Cycles = 3
	}
	if s := os.Getenv("SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("SEED: %v", err)
		}
		o.Seed = n
	}
	if s := os.Getenv("RUNS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("RUNS: %v", err)
		}
		o.Cycles = n
	}
	dir, err := os.MkdirTemp("", "godwit-crash-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("SEED=%d; ledgers and data are kept in %s", o.Seed, dir)
		} else if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	o.Binary = filepath.Join(dir, "godwit")
	build := exec.Command("go", "build", "-o", o.Binary, "github.com/godwit-mta/godwit/cmd/godwit")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the server: %v\n%s", err, out)
	}
	o.Dir = filepath.Join(dir, "run")
	if err := os.Mkdir(o.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	v, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Print(t.Output()); err != nil {
		t.Fatal(err)
	}
	if !v.OK() {
		t.Errorf("%d cases break the promise, SEED=%d", len(v.Cases), o.Seed)
	}
	if v.Delivered == 0 || v.Bounced == 0 || v.InFlight == 0 {
		t.Errorf("the load was too small to prove anything: %+v", v)
	}
}
