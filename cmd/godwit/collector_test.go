package main

import "testing"

func TestCollectorPercent(t *testing.T) {
	t.Parallel()
	for live, want := range map[uint64]int{
		0: 800, 4 << 20: 800, 16 << 20: 400, 20 << 20: 300, 40 << 20: 150, 64 << 20: 100, 1 << 30: 100,
	} {
		if got := collectorPercent(live); got != want {
			t.Errorf("%d MiB live: %d, want %d", live>>20, got, want)
		}
	}
}
