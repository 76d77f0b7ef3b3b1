package crash

// networkScenarios returns the rows about clients, remotes, names and clocks: C, K and N.
func networkScenarios() []Scenario {
	return []Scenario{
		{
			ID: "K-1", CI: true, Run: runDrops,
			About: "remotes end connections, in order and by resets, at each point of the dialog",
			Quick: "47 remotes, 20 messages each", Full: "1,000 messages each",
		},
	}
}
