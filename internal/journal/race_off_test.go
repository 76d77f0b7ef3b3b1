//go:build !race

package journal_test

// campaignRuns is 36 workloads, each with its first 48 file operations in 6 modes.
const campaignRuns = 10_368
