//go:build !unix

package main

import "os"

// neverSent is no signal of any system: with it signal.Notify waits for nothing, where no list at all would mean all.
type neverSent struct{}

func (neverSent) String() string { return "never sent" }
func (neverSent) Signal()        {}

// countersSignals are those that ask a sink for its counters; here there is none.
func countersSignals() []os.Signal { return []os.Signal{neverSent{}} }
