package smtptest

import "sync/atomic"

// Counters is what a sink has seen so far.
type Counters struct {
	Connections  int64 `json:"connections"`   // accepted
	Sessions     int64 `json:"sessions"`      // open now
	SessionsPeak int64 `json:"sessions_peak"` // open at once at most
	Transactions int64 `json:"transactions"`  // begun by an accepted MAIL
	Messages     int64 `json:"messages"`      // answered with 2yz; the client may not have got it
	Refused      int64 `json:"refused"`       // complete, and answered with 4yz or 5yz
	Recipients   int64 `json:"recipients"`    // accepted at RCPT
	Deliveries   int64 `json:"deliveries"`    // recipients of messages accepted
	Rejected     int64 `json:"rejected"`      // recipients answered with 4yz or 5yz
	Octets       int64 `json:"octets"`        // of messages accepted
	Greylisted   int64 `json:"greylisted"`    // recipients
	Limited      int64 `json:"limited"`       // replies given because of a limit
	Dropped      int64 `json:"dropped"`       // connections ended by the script
	Stalled      int64 `json:"stalled"`       // connections left without an answer by the script
	BadCommands  int64 `json:"bad_commands"`  // unknown, out of order, or with a broken line end
	// Age is how old messages of [Load] were, from the begin of their transaction there until their last octet was
	// here. The clocks of both are taken for one. Nil: none came.
	Age *Latencies `json:"age_ms,omitempty"`
}

type counters struct {
	connections, sessions, sessionsPeak                  atomic.Int64
	transactions, messages, refused                      atomic.Int64
	recipients, deliveries, rejected, octets, greylisted atomic.Int64
	limited, dropped, stalled, badCommands               atomic.Int64
	ages                                                 ages
}

func (c *counters) snapshot() Counters {
	return Counters{
		Connections: c.connections.Load(), Sessions: c.sessions.Load(), SessionsPeak: c.sessionsPeak.Load(),
		Transactions: c.transactions.Load(), Messages: c.messages.Load(), Refused: c.refused.Load(),
		Recipients: c.recipients.Load(), Deliveries: c.deliveries.Load(),
		Rejected: c.rejected.Load(), Octets: c.octets.Load(),
		Greylisted: c.greylisted.Load(), Limited: c.limited.Load(), Dropped: c.dropped.Load(),
		Stalled: c.stalled.Load(), BadCommands: c.badCommands.Load(), Age: c.ages.snapshot(),
	}
}

// sessionOpened counts one more session and returns how many are open.
func (c *counters) sessionOpened() int64 {
	n := c.sessions.Add(1)
	for {
		peak := c.sessionsPeak.Load()
		if n <= peak || c.sessionsPeak.CompareAndSwap(peak, n) {
			return n
		}
	}
}
