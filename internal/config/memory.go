package config

import "fmt"

// Memory bounds the memory of the process. What is not named here stays within about 100 MiB and 32 KiB for each session.
type Memory struct {
	// Bodies in flight, over the whole server: messages being received on all listeners, accepted ones kept for their
	// first attempt, and those read back from the journal for attempts under way. Beyond it receiving is answered 452
	// 4.3.1, and attempts wait their turn. It can be passed by one message of limits.message_size, and by 16 KiB for each
	// message being received. At least twice the largest message_size; with a memory limit, at most half of it is used.
	InFlight Size `yaml:"in_flight" range:"16MiB..1024GiB" restart:"yes"`

	// The part of in_flight, at most half, that accepted messages may take so that their first attempt need not read
	// them back from the journal.
	Bodies Size `yaml:"bodies" range:"0..64GiB" restart:"yes"`

	// Memory that the process tries to stay within by collecting garbage sooner. 0: nine tenths of the limit of its
	// control group (container, MemoryMax of its service), if there is one. The environment variable GOMEMLIMIT goes
	// before both.
	Limit Size `yaml:"limit" range:"0..1024GiB" restart:"yes"`
}

// checkMemory finds limits of which one makes another useless.
func (d *decoder) checkMemory() {
	c := d.cfg
	largest, key := c.Limits.MessageSize, "limits.message_size"
	for i := range c.Listeners {
		if n := c.Listeners[i].Limits.MessageSize; n > largest {
			largest, key = n, fmt.Sprintf("listeners[%d].limits.message_size", i)
		}
	}
	if c.Memory.InFlight < 2*largest && !d.noted(key) { // a size out of range has its problem already
		d.wrong("memory.in_flight", fmt.Sprintf("%v is less than two messages of %s", c.Memory.InFlight, key),
			fmt.Sprintf("write at least %v, or a smaller message_size", 2*largest))
	}
	if c.Memory.Bodies > c.Memory.InFlight/2 {
		d.advise("memory.bodies", fmt.Sprintf("%v is more than half of memory.in_flight, which is what counts",
			c.Memory.Bodies), fmt.Sprintf("write %v, or raise memory.in_flight", c.Memory.InFlight/2))
	}
	if l := c.Memory.Limit; l > 0 && c.Memory.InFlight > l/2 {
		d.advise("memory.in_flight", fmt.Sprintf("%v is more than half of memory.limit, which is what counts",
			c.Memory.InFlight), fmt.Sprintf("write %v, or raise memory.limit", l/2))
	}
}
