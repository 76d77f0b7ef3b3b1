package crash

import "context"

// storageScenarios returns the rows about processes, disks and memory: L and M.
func storageScenarios() []Scenario {
	return []Scenario{
		{
			ID: "L-1", CI: true, Run: runKill,
			About: "kill -9 at random moments while mail is taken and delivered, and while it starts",
			Quick: "8 kills", Full: "50 kills",
		},
	}
}

// runKill is row L-1.
func runKill(ctx context.Context, t *Trial) (*Verdict, error) {
	v, err := Run(ctx, Options{
		Binary: t.Binary, Dir: t.Dir, Seed: t.Seed, Cycles: t.runs(8, 50),
		Progress: func(cycle int) {
			if cycle%10 == 0 {
				t.Log("%d kills", cycle)
			}
		},
	})
	if err != nil {
		return nil, err
	}
	if v.Delivered == 0 || v.Bounced == 0 || v.InFlight == 0 {
		v.breach(Row, "the load was too small to prove anything")
	}
	return v, nil
}
