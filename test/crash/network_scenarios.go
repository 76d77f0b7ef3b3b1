package crash

// networkScenarios returns the rows about clients, remotes, names and clocks: C, K and N.
func networkScenarios() []Scenario {
	return []Scenario{
		{
			ID: "C-1", Run: runIdle,
			About: "sessions that do nothing, a third of them over TLS, and mail beside them",
			Quick: "1,500 sessions", Full: "15,000 sessions",
		},
		{
			ID: "C-2", Run: runFiles,
			About: "more clients than the process may open files",
			Quick: "512 files, 2,000 clients, 4 s", Full: "10 s",
		},
		{
			ID: "C-3", Run: runDrips,
			About: "clients that send an octet a second, at each phase, and mail beside them",
			Quick: "100 clients", Full: "5,000 clients",
		},
		{
			ID: "C-4", Run: runChurn,
			About: "clients that come and go, or talk without end: connections, resets, NOOP, RSET, nonsense",
			Quick: "3 s of each", Full: "6 s of each",
		},
		{
			ID: "C-5", Run: runDeaf,
			About: "clients that never read replies, and remotes that never read messages",
			Quick: "20 of each", Full: "20 of each",
		},
		{
			ID: "K-1", CI: true, Run: runDrops,
			About: "remotes end connections, in order and by resets, at each point of the dialog",
			Quick: "47 remotes, 20 messages each", Full: "1,000 messages each",
		},
		{
			ID: "K-2", Run: runStalls,
			About: "remotes fall silent at each point, or answer at 90 % of what RFC 5321, 4.5.3.2 lets them have",
			Quick: "11 remotes, time scaled 1:150, 4 messages each", Full: "1:60, 8 messages each",
		},
		{
			ID: "K-3", CI: true, Run: runReplies,
			About: "remotes answer wrongly, strangely, endlessly, and by 421 at each verb",
			Quick: "33 remotes, 20 messages each", Full: "300 messages each",
		},
		{
			ID: "K-4", CI: true, Run: runPipelines,
			About: "groups of commands are refused in part: some recipients for good, some for now, some beyond a limit",
			Quick: "11 remotes, 3 messages of 100 recipients each", Full: "20 messages each",
		},
		{
			ID: "K-5", Run: runCrowded,
			About: "sites that are slow, narrow, greylisting or limiting, beside healthy ones",
			Quick: "2,000 messages for 20 healthy sites, 200 for 5 limited ones", Full: "10,000 and 1,000",
		},
		{
			ID: "R-3", CI: true, Run: runActs,
			About: "kill -9 right after each act of an operator: hold, release, retry",
			Quick: "4 kills", Full: "4 kills",
		},
		{
			ID: "N-1", Run: runNames,
			About: "DNS is dead, loses half, fails, or is slow, for names that no cache knows",
			Quick: "3 s of each at 200 messages a second", Full: "5 s of each at 500",
		},
		{
			ID: "N-2", Run: runClock,
			About: "the clock is set by an hour, a day and ten years, forward and back, under load and between two lives",
			Quick: "3 s after each step", Full: "4 s after each step",
		},
	}
}
