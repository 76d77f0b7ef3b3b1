package crash

// networkScenarios returns the rows about clients, remotes, names and clocks: C, K and N.
func networkScenarios() []Scenario { return nil }
