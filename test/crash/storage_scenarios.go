package crash

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
