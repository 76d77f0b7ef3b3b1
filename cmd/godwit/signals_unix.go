//go:build unix

package main

import (
	"os"
	"syscall"
)

// countersSignals are those that ask a sink for its counters.
func countersSignals() []os.Signal { return []os.Signal{syscall.SIGUSR1} }
