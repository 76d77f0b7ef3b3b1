//go:build race

package store_test

// campaignRuns is fewer than usual: the race detector makes each ten times slower, and looks for other faults.
const campaignRuns = 200
