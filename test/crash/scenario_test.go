//go:build !race

// The server is a process of its own, which the race detector does not see into.

package crash

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestScenario runs the fault matrix. Plain, it runs the short form: some rows in their quick size. CRASH=quick and
// CRASH=full run all rows in that size; a row that -run names ('TestScenario/L-3') is run in any case. SEED repeats
// the choices of a run, RUNS sets how often faults are made.
func TestScenario(t *testing.T) {
	size := os.Getenv("CRASH")
	if !slices.Contains([]string{"", "quick", "full"}, size) {
		t.Fatalf("CRASH is %q, and can be quick or full", size)
	}
	if testing.Short() && size == "" {
		t.Skip("needs a minute and the real program: not with -short; make test and make ci run it")
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("SEED: %v", err)
		}
		seed = n
	}
	runs := 0
	if s := os.Getenv("RUNS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			t.Fatalf("RUNS is %q, and must be a number above 0", s)
		}
		runs = n
	}
	named := strings.Contains(flag.Lookup("test.run").Value.String(), "/")
	top, err := os.MkdirTemp("", "godwit-crash-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("SEED=%d; ledgers and data are kept in %s", seed, top)
		} else if err := os.RemoveAll(top); err != nil {
			t.Error(err)
		}
	})
	binary := buildServer(t, top)
	var results []Result
	for _, s := range scenarios() {
		t.Run(s.ID, func(t *testing.T) {
			if size == "" && !named && !s.CI {
				t.Skip("needs minutes: make crash runs it, and CRASH=quick or CRASH=full")
			}
			r := trial(t, s, &Trial{
				Binary: binary, Dir: filepath.Join(top, s.ID), Seed: seed, Full: size == "full", Runs: runs, Log: t.Logf,
			})
			results = append(results, r)
			if r.Skipped != "" {
				t.Skip(r.Skipped)
			}
		})
	}
	var table strings.Builder
	if err := PrintSummary(&table, results); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(t.Output(), "\n%s", &table)
}

func buildServer(t *testing.T, dir string) string {
	t.Helper()
	binary := filepath.Join(dir, "godwit")
	build := exec.Command("go", "build", "-o", binary, "github.com/godwit-mta/godwit/cmd/godwit")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as it is shipped; with cgo the index's cache is not part of the heap
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the server: %v\n%s", err, out)
	}
	return binary
}

// trial runs one scenario and prints what was found.
func trial(t *testing.T, s Scenario, run *Trial) Result {
	t.Helper()
	if err := os.Mkdir(run.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r := Result{Scenario: s, Seed: run.Seed}
	began := time.Now()
	r.Verdict, r.Err = s.Run(t.Context(), run)
	r.Took = time.Since(began)
	if reason, ok := skipped(r.Err); ok {
		r.Skipped, r.Err, r.Verdict = reason, nil, nil
		return r
	}
	if r.Err != nil {
		t.Error(r.Err)
		return r
	}
	r.Verdict.Seed = run.Seed
	if err := r.Verdict.Print(t.Output()); err != nil {
		t.Error(err)
	}
	if !r.Verdict.OK() {
		t.Errorf("%d cases break the promise, SEED=%d", len(r.Verdict.Cases), run.Seed)
		return r
	}
	if err := os.RemoveAll(run.Dir); err != nil {
		t.Error(err)
	}
	return r
}
