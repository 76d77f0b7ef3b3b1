package crash

// networkScenarios returns the rows about clients, remotes, names and clocks: C, K and N.
func networkScenarios() []Scenario {
	return []Scenario{
		{
			ID: "K-1", CI: true, Run: runDrops,
			About: "remotes end connections, in order and by resets, at each point of the dialog",
			Quick: "47 remotes, 20 messages each", Full: "1,000 messages each",
		},
		{
			ID: "K-3", CI: true, Run: runReplies,
			About: "remotes answer wrongly, strangely, endlessly, and by 421 at each verb",
			Quick: "32 remotes, 20 messages each", Full: "500 messages each",
		},
		{
			ID: "K-4", CI: true, Run: runPipelines,
			About: "groups of commands are refused in part: some recipients for good, some for now, some beyond a limit",
			Quick: "11 remotes, 3 messages of 100 recipients each", Full: "50 messages each",
		},
		{
			ID: "N-2", Run: runClock,
			About: "the clock is set by an hour, a day and ten years, forward and back, under load and between two lives",
			Quick: "3 s after each step", Full: "8 s after each step",
		},
	}
}
