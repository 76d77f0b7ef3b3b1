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
			ID: "L-3", CI: true, Run: runSyncErrors,
			About: "a sync of journal, index or store fails, once or from then on; any sync of the real binary (strace)",
			Quick: "8 faults at the seam, 3 by strace", Full: "32 faults at the seam, 10 by strace",
		},
		{
			ID: "L-4", Run: runDiskFull,
			About: "a disk of 256 MB fills up, stays full under load, is freed by deliveries; then its inodes run out",
			Quick: "full for 4 s", Full: "full for 15 s",
		},
		{
			ID: "L-5", Run: runWriteErrors,
			About: "one file operation in a hundred fails: EROFS, EDQUOT, EMFILE, ENOMEM, also while the server starts",
			Quick: "4 lives", Full: "16 lives",
		},
		{
			ID: "L-6", Run: runDamage,
			About: "each kind of file in the data directory is damaged while mail is queued: bits, holes, cuts, files gone",
			Quick: "1,500 queued, 22 kinds of damage", Full: "10,000 queued, 22 kinds of damage",
		},
		{
			ID: "L-7", Run: runSlowSyncs,
			About: "syncs take 200 ms, then 2 s, then one stands still",
			Quick: "128 sessions, a stall of 6 s", Full: "256 sessions, a stall of 60 s",
		},
		{
			ID: "L-8", CI: true, Run: runStop,
			About: "SIGTERM under load, starts from another file in turn, as an upgrade does, a second SIGTERM",
			Quick: "3 stops", Full: "12 stops",
		},
		{
			ID: "M-1", Run: runBacklog,
			About: "all sinks down: messages of 4 KB pile up, for many domains of many tenants; then sinks up (M-2)",
			Quick: "20,000 messages, 2,000 domains, 20 tenants", Full: "300,000 messages, 20,000 domains, 100 tenants",
		},
		{
			ID: "M-3", Run: runMemory,
			About: "messages of 25 MB, all at once, in a control group with 512 MB of memory",
			Quick: "60 messages", Full: "200 messages",
		},
		{
			ID: "M-4", Run: runQueueChurn,
			About: "messages of 1 KB come and go while one in a hundred stays: the disk and the list of queues",
			Quick: "200,000 messages", Full: "1,000,000 messages",
		},
	}
}
