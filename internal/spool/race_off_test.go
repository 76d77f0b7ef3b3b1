//go:build !race

package spool

const campaignRuns = 1200
