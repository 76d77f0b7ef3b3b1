//go:build race

package spool

// campaignRuns is fewer than usual: the race detector makes each some twenty times slower, and looks for other faults.
const campaignRuns = 60
