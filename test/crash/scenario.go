package crash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
)

// Scenario is one row of the fault matrix in docs/durability.md.
type Scenario struct {
	ID    string // "L-1"
	About string // the fault and the load, in one line
	Quick string // the sizes, for people
	Full  string
	CI    bool // part of the short form that a plain `go test` runs
	// Run carries the scenario out. What the server does wrong is in the verdict; an error says that the scenario
	// could not be carried out, and one made by [Skip] that it cannot be on this machine. It returns when everything
	// it started has ended.
	Run func(ctx context.Context, t *Trial) (*Verdict, error)
}

// scenarios returns the matrix, in the order in which it is run.
func scenarios() []Scenario {
	return slices.Concat(storageScenarios(), networkScenarios())
}

// Trial is what one run of a scenario is given.
type Trial struct {
	Binary string // the server
	Dir    string // empty, for this trial alone, on a real disk
	Seed   uint64 // makes the choices of the harness again
	Full   bool   // the full size and not the quick one
	Runs   int    // how often the fault is made, if RUNS says so; 0: as the size says
	// Log tells people who watch what is going on.
	Log func(format string, args ...any)
}

// Rand returns a source of random numbers that is the same in each trial with this seed. Streams are independent.
func (t *Trial) Rand(stream uint64) *rand.Rand { return rand.New(rand.NewPCG(t.Seed, stream)) }

// pick returns the number that belongs to the size of the trial.
func (t *Trial) pick(quick, full int) int {
	if t.Full {
		return full
	}
	return quick
}

// runs returns how often a fault is made: as RUNS says, or else as belongs to the size.
func (t *Trial) runs(quick, full int) int {
	if t.Runs > 0 {
		return t.Runs
	}
	return t.pick(quick, full)
}

// SkipError says why a scenario cannot be carried out on this machine.
type SkipError struct{ Reason string }

// Error returns the reason.
func (e *SkipError) Error() string { return "skipped: " + e.Reason }

// Skip returns an error that skips the scenario for a reason that tells what is missing.
func Skip(format string, args ...any) error { return &SkipError{fmt.Sprintf(format, args...)} }

// skipped returns the reason if err says that a scenario cannot be carried out here.
func skipped(err error) (reason string, ok bool) {
	e, ok := errors.AsType[*SkipError](err)
	if !ok {
		return "", false
	}
	return e.Reason, true
}
