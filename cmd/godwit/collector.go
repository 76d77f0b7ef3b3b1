package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// leastHeadroom is what may be allocated between two collections however little is live. A server that holds a few tens
// of megabytes would otherwise collect at each of them: 3 % of its CPU time at full load. With more live than this the
// runtime's own measure, as much again, is the better one.
const leastHeadroom = 64 << 20

// paceCollector sets the collector's pace by what is live, until ctx ends. GOGC in the environment goes first, and a
// memory limit is obeyed in any case.
func paceCollector(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	look := time.NewTicker(5 * time.Second)
	defer look.Stop()
	for set := 100; ; {
		metrics.Read(live)
		if percent := collectorPercent(live[0].Value.Uint64()); percent != set {
			debug.SetGCPercent(percent)
			set = percent
		}
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
	}
}

// collectorPercent returns the growth that leaves leastHeadroom, in steps, so that it seldom changes.
func collectorPercent(live uint64) int {
	const most, step = 800, 50
	percent := leastHeadroom * 100 / max(live, 1)
	return int(max(100, min(most, percent/step*step)))
}
