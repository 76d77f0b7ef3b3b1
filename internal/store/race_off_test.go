//go:build !race

package store_test

// campaignRuns is 6 workloads, each with its first 80 file operations in 5 modes.
const campaignRuns = 2_400
