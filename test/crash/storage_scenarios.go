package crash

// storageScenarios returns the rows about processes, disks and memory: L and M.
func storageScenarios() []Scenario {
	return []Scenario{
		{
			ID: "L-1", CI: true, Run: runKill,
			About: "kill -9 at random moments while mail is taken and delivered, and while it starts",
			Quick: "8 kills", Full: "50 kills",
		},
		{
			ID: "L-2", Run: runPowerCut,
			About: "power cut: the file system forgets all that was not synced, under load and while the server starts",
			Quick: "8 cuts", Full: "50 cuts",
		},
		{
			ID: "L-8", CI: true, Run: runStop,
			About: "SIGTERM under load, starts from another file in turn, as an upgrade does, a second SIGTERM",
			Quick: "3 stops", Full: "12 stops",
		},
	}
}
